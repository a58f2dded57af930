"""MindSpore Hub: shipped cards, cards by their links, hashes whole and in part, pull requests its client loads."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mindspore
import numpy as np
import pytest
import yaml
from hub_server import Fault
from huggingface_hub import constants

import xcit_hub
from cards.check import read as read_card
from xcit_hub.errors import HubError, InputError, XcitHubError
from xcit_hub.hub import cache
from xcit_hub.hub.locate import locate

UID = "me/2.8/xcit_nano_12_p16_224_mine"

CARD = """# xcit_nano_12_p16_224

---

model-name: xcit_nano_12_p16_224

backbone-name: xcit

module-type: cv

asset:

- file-format: ckpt
  asset-link: <{link}>
  asset-sha256: {digest}

---

# XCiT
"""


@pytest.fixture
def offer(server, nano_ckpt):
    """Put a card and its file on a web server; return the card's link."""

    def run(digest=None, link=None, content=None) -> str:
        content = nano_ckpt.read_bytes() if content is None else content
        whole = hashlib.sha256(nano_ckpt.read_bytes()).hexdigest()
        link = link or f"{server.storage_url}/files/xcit_nano-abc.ckpt"
        card = CARD.format(link=link, digest=whole if digest is None else digest(whole))
        server.pages[f"/mshub_res/assets/{UID}.md"] = card.encode()
        server.pages["/files/xcit_nano-abc.ckpt"] = content
        return f"{server.storage_url}/mshub_res/assets/{UID}.md"

    return run


@pytest.mark.parametrize(
    "model_id",
    [
        "mindspore/xcit_tiny_12_p16_224",
        "mindspore/2.5/xcit_tiny_12_p16_224_imagenet2012",
        "xcit_tiny_12_p16_224.ms_in1k",
        "https://gitee.com/mindspore/hub/blob/master/mshub_res/assets/mindspore/2.5/xcit_tiny_12_p16_224_imagenet2012.md",
    ],
)
def test_the_official_checkpoint_is_known_without_a_network(model_id):
    found = xcit_hub.info(model_id, offline=True)
    assert found.config.dialect == "mindcv"
    assert found.config.preprocessing.crop_pct == 0.875
    assert found.config.labels[281].startswith("tabby")
    assert found.files[found.weights] == (None, "bd90776e")
    assert any("weak" in note for note in found.notes)


def test_another_revision_than_the_cards_is_refused():
    name = "mindspore/xcit_tiny_12_p16_224"
    present = xcit_hub.info(name, hub="mindspore-hub").revision
    assert xcit_hub.info(name, present, hub="mindspore-hub").revision == present
    with pytest.raises(HubError, match=f"names another file than at {'a' * 40}: now it is at {present}"):
        xcit_hub.info(name, "a" * 40, hub="mindspore-hub")


def test_a_wrong_card_name_lists_the_closest():
    with pytest.raises(HubError) as caught:
        xcit_hub.info("mindspore/xcit_tiny_24_p16_224")
    assert "xcit_tiny_12_p16_224" in str(caught.value)


def test_a_card_by_its_link_is_followed_and_its_file_checked_in_full(server, offer, nano_arrays, tmp_path):
    network = xcit_hub.load(offer())
    assert network.config.provenance.verified == "full"
    assert np.array_equal(network.head.weight.asnumpy(), nano_arrays["head.weight"])
    assert not [given for _, _, given in server.storage_requests if given]
    assert [entry.name for entry in cache.entries(tmp_path / "cache")] == [UID]
    server.forget()


def test_eight_digits_are_checked_as_a_prefix_and_said_to_be_weak(offer):
    network = xcit_hub.load(offer(lambda whole: whole[:8]))
    assert network.config.provenance.verified == "prefix"
    assert any("first 8 hex digits" in note for note in network.config.provenance.notes)


def test_upper_case_digits_are_the_same_digits(offer):
    assert xcit_hub.load(offer(lambda whole: whole.upper())).config.provenance.verified == "full"


@pytest.mark.parametrize("length", [8, 64])
def test_a_file_with_another_hash_is_refused_and_not_kept(offer, tmp_path, length):
    link = offer(lambda _: "0" * length)
    with pytest.raises(HubError, match="not the ones that were published"):
        xcit_hub.load(link)
    assert not list((tmp_path / "cache").rglob("*.ckpt"))
    assert not [path for path in (tmp_path / "cache").rglob("*.tmp") if path.name != ".locks"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET /files", "cut", 3_000_000),
        Fault("GET /files", "status", 500, times=2),
        Fault("GET /files", "status", 429, headers={"Retry-After": "0"}),
        Fault("GET /files", "stall", 3),
    ],
    ids=lambda fault: fault.kind,
)
def test_a_passing_fault_is_overcome(server, offer, nano_ckpt, fault, monkeypatch):
    server.faults = [fault]
    if fault.kind == "stall":
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    assert locate(offer()).fetch()[0].read_bytes() == nano_ckpt.read_bytes()
    assert fault.times == 0


def test_a_cached_file_is_not_fetched_again_and_a_damaged_one_once(server, offer, nano_ckpt):
    link = offer()
    blob = locate(link).fetch()[0].resolve()
    locate(link).fetch()
    blob.write_bytes(b"x")
    assert locate(link).fetch()[0].read_bytes() == nano_ckpt.read_bytes()
    assert sum("/files/" in path for _, path, _ in server.storage_requests) == 2


def test_a_cache_whose_branch_cannot_be_written_loads(offer, nano_ckpt, tmp_path):
    link = offer()
    first, _ = locate(link).fetch()
    (branch,) = (tmp_path / "cache").glob("*/refs/*")
    branch.unlink()
    branch.mkdir()
    assert locate(link).fetch()[0] == first


def test_eight_at_once_download_once(server, offer, nano_ckpt):
    link = offer()
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: locate(link).fetch(), range(8)))
    assert len(found) == 1
    assert found.pop()[0].read_bytes() == nano_ckpt.read_bytes()
    assert sum("/files/" in path for _, path, _ in server.storage_requests) == 1


@pytest.mark.parametrize(
    "link",
    [
        "https://example.org/files/..%2f..%2fevil.ckpt",
        "https://example.org/files/",
        "https://example.org/files/weights.pkl",
        "http://example.org/files/plain.ckpt",
        "file:///etc/passwd.ckpt",
    ],
)
def test_a_card_that_points_somewhere_strange_is_refused(offer, link):
    with pytest.raises(XcitHubError):
        locate(offer(link=link)).fetch()


def test_a_page_that_is_no_card_is_refused(server, offer):
    link = offer()
    server.pages[f"/mshub_res/assets/{UID}.md"] = b"<html>not found</html>\n"
    with pytest.raises(XcitHubError):
        xcit_hub.info(link)


# ---- a pull request


@pytest.fixture
def card_yaml(tmp_path) -> Path:
    path = tmp_path / "card.yaml"
    said = {
        "model_name": "xcit_nano_12_p16_224",
        "author": "somebody",
        "summary": "a small XCiT",
        "update_time": "2026-01-31",
        "train_dataset": "ImageNet2012",
        "license": "apache-2.0",
        "asset": [{"asset-link": "https://download.example.org/xcit/xcit_nano_12_p16_224-mine.ckpt"}],
    }
    path.write_text(json.dumps(said))
    return path


@pytest.fixture
def checkout(tmp_path) -> Path:
    (tmp_path / "hub" / "mshub_res" / "assets").mkdir(parents=True)
    return tmp_path / "hub"


def load_as_the_hubs_client_does(card: Path):
    """What mindspore_hub.load(card, source='local') does, step by step: nothing of ours but the folder's own code."""
    lines, inside, header = card.read_text(encoding="utf-8").splitlines(), False, []
    for line in lines:
        if line.startswith("---"):
            inside = not inside
        elif inside:
            header.append(line)
    fields = yaml.safe_load("\n".join(header))
    folder = card.parent / fields["repo-link"].strip("<>").rpartition("/")[2]
    spec = importlib.util.spec_from_file_location("mindspore_hub_conf", folder / "mindspore_hub_conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.create_network(fields["model-name"].lower())
    asset = fields["asset"][0]
    file = card.parent / asset["asset-link"].strip("<>").rpartition("/")[2]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == asset["asset-sha256"]
    missing, unexpected = mindspore.load_param_into_net(network, mindspore.load_checkpoint(str(file)))
    assert missing == []
    assert all(name.startswith("xcit_hub.") for name in unexpected)  # the strings that say the dialect
    return network


@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
def test_a_pull_request_loads_in_the_hubs_own_client(request, checkout, card_yaml, nano_arrays, dialect):
    source = request.getfixturevalue("nano_ckpt" if dialect == "paper" else "nano_mindcv")
    done = xcit_hub.publish(source, "me/xcit_nano", to=f"mindspore-hub:{checkout}", meta=card_yaml, parity=False)
    version = ".".join(mindspore.__version__.split(".")[:2])
    card = checkout / "mshub_res" / "assets" / "me" / version / "xcit_nano_imagenet2012.md"
    assert Path(done.url) == card
    assert (done.changed, done.revision) == (True, None)
    assert "Upload" in done.todo[0]
    assert "pull request" in done.todo[1]
    network = load_as_the_hubs_client_does(card)
    assert network.dialect.name == dialect
    found = {name: value.asnumpy() for name, value in network.parameters_dict().items()}
    assert all(np.array_equal(found[name], nano_arrays[name]) for name in nano_arrays)

    again = xcit_hub.publish(source, "me/xcit_nano", to=f"mindspore-hub:{checkout}", meta=card_yaml, parity=False)
    assert not again.changed
    loaded = xcit_hub.load("me/xcit_nano", hub=f"mindspore-hub:{checkout}")
    assert loaded.config.dialect == dialect
    assert loaded.config.provenance.verified == "full"
    by_uid = f"me/{version}/xcit_nano_imagenet2012"
    assert xcit_hub.info(by_uid, hub=f"mindspore-hub:{checkout}").weights == "xcit_nano_12_p16_224-mine.ckpt"


def test_a_pull_request_needs_a_place_for_the_file_and_a_whole_card(checkout, nano_ckpt, card_yaml):
    target = f"mindspore-hub:{checkout}"
    with pytest.raises(InputError, match="where the checkpoint will be"):
        xcit_hub.publish(nano_ckpt, "me/xcit_nano", to=target, parity=False)
    said = json.loads(card_yaml.read_text())
    del said["author"]
    card_yaml.write_text(json.dumps(said))
    with pytest.raises(XcitHubError, match="author"):
        xcit_hub.publish(nano_ckpt, "me/xcit_nano", to=target, meta=card_yaml, parity=False)
    assert not list(checkout.rglob("*.md"))
    with pytest.raises(InputError, match="pull requests only"):
        card_yaml.write_text(json.dumps(said | {"author": "somebody"}))
        xcit_hub.publish(nano_ckpt, "me/xcit_nano", to="mindspore-hub:/nowhere", meta=card_yaml, parity=False)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"uid": "mindspore/2.5/xcit_tiny_12_p16_224_imagenet2012"}, "the uid is mindspore/2.5/.*filed under me/"),
        ({"asset": [{"asset-link": "https://a.b/c.ckpt", "asset-sha256": "deadbeef"}]}, "SHA-256 is deadbeef"),
        ({"asset": [{"asset-link": "https://a.b/c.mindir", "file-format": "mindir"}]}, "where the checkpoint will be"),
    ],
)
def test_a_card_yaml_that_speaks_of_another_entry_or_file_is_refused(checkout, nano_ckpt, card_yaml, wrong, what):
    card_yaml.write_text(json.dumps(json.loads(card_yaml.read_text()) | wrong))
    with pytest.raises(InputError, match=what):
        xcit_hub.publish(nano_ckpt, "me/xcit_nano", to=f"mindspore-hub:{checkout}", meta=card_yaml, parity=False)
    assert not [path for path in checkout.rglob("*") if path.is_file()]


def test_the_uid_that_a_card_is_filed_under_and_every_asset_of_it_are_kept(checkout, nano_ckpt, card_yaml):
    said = json.loads(card_yaml.read_text())
    other = {"file-format": "mindir", "asset-link": "https://download.example.org/n.mindir", "asset-sha256": "0" * 64}
    said |= {"uid": "me/2.8/xcit_nano_imagenet2012", "mindspore_version": "2.8", "asset": [other, *said["asset"]]}
    card_yaml.write_text(json.dumps(said))
    done = xcit_hub.publish(nano_ckpt, "me/xcit_nano", to=f"mindspore-hub:{checkout}", meta=card_yaml, parity=False)
    assert done.url.endswith("/me/2.8/xcit_nano_imagenet2012.md")
    checkpoint, mindir = read_card(Path(done.url)).metadata.asset
    assert checkpoint.asset_link.endswith("-mine.ckpt") and checkpoint.has_whole_digest
    assert mindir.asset_link == other["asset-link"]
    load_as_the_hubs_client_does(Path(done.url))


def test_a_pull_request_gives_the_checkpoints_digest_to_no_other_file(checkout, nano_ckpt, card_yaml):
    said, target = json.loads(card_yaml.read_text()), f"mindspore-hub:{checkout}"
    onnx, average = ({"asset-link": f"https://download.example.org/{name}"} for name in ("n.onnx", "ema.ckpt"))
    mine = {"asset-link": f"https://download.example.org/{nano_ckpt.name}"}
    card_yaml.write_text(json.dumps(said | {"asset": [onnx, average, mine]}))
    with pytest.raises(
        XcitHubError, match=r"asset 2: asset-sha256 is required(.|\n)*asset 3: asset-sha256 is required"
    ):
        xcit_hub.publish(nano_ckpt, "me/xcit_nano", to=target, meta=card_yaml, parity=False)
    others = [onnx | {"asset-sha256": "1" * 64}, average | {"asset-sha256": "2" * 64}]
    card_yaml.write_text(json.dumps(said | {"asset": [*others, mine]}))
    done = xcit_hub.publish(nano_ckpt, "me/xcit_nano", to=target, meta=card_yaml, parity=False)
    first, *listed = read_card(Path(done.url)).metadata.asset
    assert first.asset_link == mine["asset-link"] and first.has_whole_digest
    assert [(each.file_format, each.asset_sha256) for each in listed] == [("onnx", "1" * 64), ("ckpt", "2" * 64)]
    load_as_the_hubs_client_does(Path(done.url))


def test_two_checkouts_of_the_hub_are_two_targets(checkout, nano_ckpt, card_yaml, tmp_path):
    other = tmp_path / "other"
    (other / "mshub_res" / "assets").mkdir(parents=True)
    places = [f"mindspore-hub:{folder}" for folder in (checkout, other, checkout)]
    done = xcit_hub.publish_to(nano_ckpt, "me/xcit_nano", places, meta=card_yaml, parity=False)
    assert [Path(each.url).is_relative_to(folder) for each, folder in zip(done, (checkout, other), strict=True)] == [
        True,
        True,
    ]


def test_a_pull_request_of_one_of_several_checkpoints_has_to_say_which(checkout, nano_ckpt, card_yaml):
    said = json.loads(card_yaml.read_text())
    average = {"asset-link": "https://download.example.org/ema.ckpt"}
    card_yaml.write_text(json.dumps(said | {"asset": [*said["asset"], average]}))
    target = f"mindspore-hub:{checkout}"
    with pytest.raises(InputError, match="Each of 2 files"):
        xcit_hub.publish(nano_ckpt, "me/xcit_nano", to=target, meta=card_yaml, parity=False)


def test_a_card_of_another_hub_loads_from_that_hub_whatever_the_uid_on_this_one(nano_ckpt, card_yaml):
    uid = "mindspore/2.5/xcit_tiny_12_p16_224_imagenet2012"
    card_yaml.write_text(json.dumps({"license": "mit", "uid": uid}))
    for target, address in (("hugging-face", "me/x"), ("modelscope", "modelscope://me/x"), (None, "me/x")):
        done = xcit_hub.publish(nano_ckpt, "me/x", to=target, meta=card_yaml, parity=False, dry_run=True)
        assert f'xcit_hub.load("{address}")' in done.card
        assert uid not in done.card


def test_a_card_is_for_everybody_and_private_is_refused_before_anything_is_written(checkout, nano_ckpt, card_yaml):
    before = sorted(checkout.rglob("*"))
    with pytest.raises(InputError, match="no private models"):
        xcit_hub.publish(
            nano_ckpt, "org/nano", to=f"mindspore-hub:{checkout}", meta=card_yaml, parity=False, private=True
        )
    assert sorted(checkout.rglob("*")) == before


@pytest.mark.parametrize("repo_link", ["https://gitee.com/x/..", "https://gitee.com/x/.git"])
def test_a_repo_link_that_names_no_folder_is_refused(checkout, nano_ckpt, card_yaml, repo_link):
    said = json.loads(card_yaml.read_text()) | {"repo_link": repo_link}
    card_yaml.write_text(json.dumps(said))
    with pytest.raises(XcitHubError):
        xcit_hub.publish(nano_ckpt, "me/xcit_nano", to=f"mindspore-hub:{checkout}", meta=card_yaml, parity=False)
    assert not list(checkout.rglob("*.py"))


def test_several_cards_of_one_folder_are_told_apart_by_name(checkout, nano_ckpt, nano_mindcv, card_yaml):
    target = f"mindspore-hub:{checkout}"
    said = json.loads(card_yaml.read_text()) | {"repo_link": "https://gitee.com/x/y/tree/master/shared"}
    cards = {}
    for name, source in (("first_nano", nano_ckpt), ("second_nano", nano_mindcv)):
        said |= {"model_name": name, "asset": [{"asset-link": f"https://download.example.org/{name}.ckpt"}]}
        card_yaml.write_text(json.dumps(said))
        cards[name] = xcit_hub.publish(source, f"me/{name}", to=target, meta=card_yaml, parity=False).url
    assert load_as_the_hubs_client_does(Path(cards["first_nano"])).dialect.name == "paper"
    assert load_as_the_hubs_client_does(Path(cards["second_nano"])).dialect.name == "mindcv"
    (conf,) = checkout.rglob("mindspore_hub_conf.py")
    spec = importlib.util.spec_from_file_location("conf", conf)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # What the client was called with beside the card's name is passed on by position: mindspore_hub.load(card, 7).
    assert module.create_network("first_nano", 7).num_classes == 7
    assert module.create_network("second_nano", 7, 1, drop_rate=0.1).in_chans == 1
    with pytest.raises(ValueError, match="holds first_nano, second_nano, not third"):
        module.create_network("third")

    said |= {"model_name": "first_nano", "asset": [{"asset-link": "https://download.example.org/other.ckpt"}]}
    card_yaml.write_text(json.dumps(said))
    with pytest.raises(InputError, match="Two cards of this folder"):
        xcit_hub.publish(nano_ckpt, "me/third_nano", to=target, meta=card_yaml, parity=False)
    said |= {"model_name": "third_nano", "asset": [{"asset-link": "https://elsewhere.example.org/first_nano.ckpt"}]}
    card_yaml.write_text(json.dumps(said))
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="already has a checkpoint called"):
        xcit_hub.publish(nano_mindcv, "me/third_nano", to=target, meta=card_yaml, parity=False)
    assert {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()} == before
    conf.write_text("import os\n")
    said |= {"asset": [{"asset-link": "https://elsewhere.example.org/third.ckpt"}]}
    card_yaml.write_text(json.dumps(said))
    with pytest.raises(InputError, match="this program did not write"):
        xcit_hub.publish(nano_mindcv, "me/third_nano", to=target, meta=card_yaml, parity=False)
    assert conf.read_text() == "import os\n"
