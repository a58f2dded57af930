"""The real huggingface_hub client over HTTP on loopback: publish, load, revisions, rights, tokens."""

from __future__ import annotations

import copy
import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hub_fixtures import forget_the_user, use
from hub_server import READ_TOKEN, TOKEN, Fault
from huggingface_hub import constants

import xcit_hub
from xcit_hub.errors import HubError, InputError
from xcit_hub.hub.stores import Context
from xcit_hub.hub.stores.hugging_face import HuggingFaceStore, whoami


@pytest.fixture(scope="module")
def sent(shared_server, nano_ckpt, tmp_path_factory):
    """What the hub holds once org/nano was published there, and what was said."""
    with pytest.MonkeyPatch.context() as patch:
        forget_the_user(tmp_path_factory.mktemp("sent"), patch)
        server = use(shared_server, patch)
        done = xcit_hub.publish(nano_ckpt, "org/nano", to=server.url, parity=False)
        return done, copy.deepcopy((server.repositories, server.objects))


@pytest.fixture
def begun(sent, server):
    """A hub where org/nano was published before, and what was said then; for tests of what comes after."""
    done, (repositories, objects) = sent
    server.repositories |= copy.deepcopy(repositories)
    server.objects |= objects
    return done


@pytest.fixture
def publish(server, nano_ckpt):
    def run(name="org/nano", **options):
        return xcit_hub.publish(nano_ckpt, name, to=server.url, parity=False, **options)

    return run


def weights_of(network) -> dict[str, np.ndarray]:
    return {name: value.asnumpy() for name, value in network.parameters_dict().items()}


def same(network, arrays) -> bool:
    found = weights_of(network)
    return found.keys() == arrays.keys() and all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_what_is_published_in_one_commit_loads_back_bit_for_bit(server, publish, nano_arrays, tmp_path):
    done = publish()
    repository = server.repositories["org/nano"]
    assert len(repository.commits) == 2  # the repository's first, and ours
    assert set(repository.at("main").files) == {
        ".gitattributes", "README.md", "README_zh.md", "config.json", "conversion.json", "model.ckpt",
        "model.ckpt.sha256", "model.safetensors", "xcit_hub.json",
    }  # fmt: skip
    assert done.revision == repository.refs["main"]
    network = xcit_hub.load("org/nano", hub=server.url, cache_dir=tmp_path / "other")
    assert same(network, nano_arrays)
    assert not network.training
    assert network.config.provenance.revision == done.revision
    assert network.config.provenance.verified == "full"


def test_large_files_go_up_in_parts_and_small_ones_in_the_commit(server, publish):
    publish()
    puts = [path for method, path, _ in server.storage_requests if method == "PUT"]
    assert sum("part=" in path for path in puts) == 6  # 12 MB twice, in parts of 5 MiB
    assert any(path.startswith("/complete/") for _, path, _ in server.requests)


def test_uploads_go_by_lfs_and_the_setting_is_put_back(server, publish):
    from huggingface_hub import constants

    assert constants.HF_HUB_DISABLE_XET is False
    publish()
    assert not any("xet" in path for _, path, _ in server.requests)
    assert constants.HF_HUB_DISABLE_XET is False


def test_uploads_are_led_nowhere_however_many_files_there_are(server, publish, monkeypatch):
    monkeypatch.setattr(server, "storage_url", server.storage_url.replace("http://", "http://someone:secret@"))
    with pytest.raises(HubError, match="leads to an address with a password in it"):
        publish()
    assert not [path for method, path, _ in server.storage_requests if method == "PUT"]
    assert not any(path.endswith("/verify") for _, path, _ in server.requests)
    assert len(server.repositories["org/nano"].commits) == 1  # the repository's first


def test_unchanged_content_makes_no_commit(server, begun, publish):
    first, before = begun, len(server.repositories["org/nano"].commits)
    again = publish()
    assert (again.changed, again.revision) == (False, first.revision)
    assert len(server.repositories["org/nano"].commits) == before
    assert not [path for method, path, _ in server.requests if "/commit/" in path]


def test_an_earlier_publications_leftovers_go_and_other_peoples_files_stay(server, begun, publish):
    commit = server.repositories["org/nano"].at("main")
    server.add("org/nano", commit.files | {"parity.json": b"{}", "notes.txt": b"mine"})
    foretold, done = publish(dry_run=True), publish()
    assert foretold.removed == done.removed == ("parity.json",)
    assert done.as_dict()["removed"] == ["parity.json"]
    assert publish().removed == ()
    files = server.repositories["org/nano"].at("main").files
    assert "parity.json" not in files
    assert files["notes.txt"] == b"mine"


def test_a_private_dry_run_says_what_it_does_not_ask(publish):
    assert any(
        "--private is refused, a dry run does not ask" in note for note in publish(dry_run=True, private=True).notes
    )


def test_a_dry_run_sends_nothing(server, publish):
    done = publish(dry_run=True)
    assert not server.repositories
    assert not [method for method, _, _ in server.requests if method in ("POST", "PUT")]
    assert {file.path for file in done.files} >= {"model.safetensors", "README.md"}
    assert "# nano" in done.card


def test_private_repositories_branches_and_pull_requests(server, publish, monkeypatch):
    publish("org/secret", private=True)
    assert server.repositories["org/secret"].private
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="private"):
        xcit_hub.load("org/secret", hub=server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    done = publish("org/nano", revision="v2")
    repository = server.repositories["org/nano"]
    assert repository.refs["v2"] == done.revision
    assert "xcit_hub.json" not in repository.at("main").files
    assert xcit_hub.load("org/nano@v2", hub=server.url).config.provenance.revision == done.revision

    proposed = publish("org/nano", create_pr=True)
    assert repository.refs["refs/pr/1"] == proposed.revision
    assert "/discussions/1" in proposed.url
    assert "xcit_hub.json" not in repository.at("main").files


def test_nothing_is_sent_into_a_public_repository_where_a_private_one_is_asked_for(server, begun, publish):
    before = server.repositories["org/nano"].refs["main"]
    with pytest.raises(HubError, match=r"is public\. No file was sent") as caught:
        publish(private=True)
    assert "org/nano" in str(caught.value)
    assert "--private" in str(caught.value)
    assert server.repositories["org/nano"].refs["main"] == before
    assert not [method for method, _, _ in server.requests if method in ("POST", "PUT")]

    server.repositories["org/nano"].private = None
    with pytest.raises(HubError, match="does not say whether it is private"):
        publish(private=True)
    server.repositories["org/nano"].private = True
    assert not publish(private=True).changed


def test_a_repository_that_somebody_made_public_meanwhile_gets_no_files(server, tmp_path):
    server.add("org/nano", {})
    absent = {"X-Error-Code": "RepoNotFound"}
    server.faults = [Fault("GET /api/models/org/nano$", "status", 404, headers=absent)]
    (tmp_path / "notes.txt").write_text("mine")
    store = HuggingFaceStore(server.url, Context(tmp_path / "kept"))
    with pytest.raises(HubError, match="is public"):
        store.publish("org/nano", {"notes.txt": tmp_path / "notes.txt"}, message="Publish", private=True)
    assert [path for method, path, _ in server.requests if method == "POST"] == ["/api/repos/create"]


def test_a_second_publisher_does_not_overwrite_the_first(server, begun, publish, tmp_path):
    server.faults = [Fault("POST .*/commit/", "status", 412)]
    card = tmp_path / "card.yaml"
    card.write_text("summary: another\n")
    with pytest.raises(HubError, match="changed the repository"):
        publish(meta=card)


def test_a_timm_users_repository_loads(server, nano_timm, nano_arrays):
    commit = server.add("someone/nano", nano_timm)
    network = xcit_hub.load("someone/nano", hub=server.url)
    assert same(network, nano_arrays)
    assert network.config.dialect == "paper"
    assert network.config.provenance.revision == commit


def test_timms_own_names_load_without_torch_and_write_nothing_but_the_cache(server, nano_timm, tmp_path):
    server.add("timm/xcit_nano_12_p16_224.fb_in1k", nano_timm)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import os, xcit_hub\n"
        "network = xcit_hub.load('xcit_nano_12_p16_224.fb_in1k')\n"
        "print(network.config.provenance.source, network.config.provenance.verified)\n"
        "sys.stdout.flush(); os._exit(0)"
    )
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [f"{server.url}/timm/xcit_nano_12_p16_224.fb_in1k", "full"]
    written = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"home"}


def test_info_fetches_no_weights(server, nano_timm):
    server.add("someone/nano", nano_timm)
    found = xcit_hub.info("someone/nano", hub=server.url)
    assert found.config.num_classes == 10
    assert found.files["model.safetensors"][0] == len(nano_timm["model.safetensors"])
    assert not server.storage_requests


def test_a_warm_cache_needs_one_request_and_offline_none(server, nano_timm, nano_arrays, monkeypatch):
    server.add("someone/nano", nano_timm)
    xcit_hub.load("someone/nano", hub=server.url)
    server.forget()
    xcit_hub.load("someone/nano", hub=server.url)
    assert [method for method, _, _ in server.requests] == ["GET"]
    assert not server.storage_requests
    reached = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: reached.append(address))
    assert same(xcit_hub.load("someone/nano", hub=server.url, offline=True), nano_arrays)
    assert not reached


@pytest.fixture
def weights_alone(server, tmp_path):
    """A cache that somebody's client filled with a repository's weights, and with nothing else."""
    from huggingface_hub import hf_hub_download

    folder = tmp_path / "weights-alone"

    def fill(name: str, files: dict[str, bytes]):
        server.add(name, files)
        hf_hub_download(name, "model.safetensors", cache_dir=folder, endpoint=server.url)
        return folder

    return fill


def test_cached_weights_whose_description_nobody_fetched_are_refused_offline(weights_alone, nano_timm, server):
    cached = weights_alone("someone/nano", nano_timm)
    with pytest.raises(HubError, match=r"Nobody has fetched xcit_hub\.json or config\.json of someone/nano"):
        xcit_hub.info("hf://someone/nano", cache_dir=cached, offline=True)
    server.faults = [Fault("GET /api", "status", 503, times=99)]
    with pytest.raises(HubError, match="Nobody has fetched"):
        xcit_hub.info("hf://someone/nano", cache_dir=cached)
    server.faults.clear()
    online = xcit_hub.info("hf://someone/nano", cache_dir=cached).config
    assert xcit_hub.info("hf://someone/nano", cache_dir=cached, offline=True).config == online


def test_bare_weights_load_offline_once_a_hub_said_that_nothing_describes_them(server, nano_timm, nano_arrays):
    server.add("someone/bare", {"model.safetensors": nano_timm["model.safetensors"]})
    xcit_hub.load("someone/bare", hub=server.url)
    assert same(xcit_hub.load("someone/bare", hub=server.url, offline=True), nano_arrays)


def test_weights_whose_description_was_ignored_load_offline_so_and_in_no_other_way(server, nano_timm, nano_arrays):
    server.add("someone/nano", nano_timm)
    store = HuggingFaceStore(server.url, Context(Path(constants.HF_HUB_CACHE)))
    store.fetch(store.resolve("someone/nano"), "model.safetensors")
    ignoring = xcit_hub.load("someone/nano", hub=server.url, offline=True, ignore_fields=["config.json"])
    assert same(ignoring, nano_arrays)
    with pytest.raises(HubError, match=r"Nobody has fetched config\.json"):
        xcit_hub.load("someone/nano", hub=server.url, offline=True)


def test_of_timms_own_weights_the_table_says_offline_what_their_description_says_online(weights_alone):
    from xcit_hub.hub import timm_config
    from xcit_hub.hub.config import of_published
    from xcit_hub.variants import checkpoint

    entry = checkpoint("xcit_nano_12_p16_384.fb_dist_in1k")
    described = timm_config.write(of_published(entry)).encode()
    cached = weights_alone(entry.repository, {"config.json": described, "model.safetensors": b"x"})
    offline = xcit_hub.info(entry.repository, cache_dir=cached, offline=True)
    assert offline.config == xcit_hub.info(entry.repository, cache_dir=cached).config
    assert any("table of published checkpoints describes the model" in note for note in offline.notes)


def test_the_offline_variable_is_obeyed(server, nano_timm, monkeypatch):
    server.add("someone/nano", nano_timm)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="offline"):
        xcit_hub.load("someone/nano", hub=server.url)
    assert not server.requests


def test_a_branch_that_moved_is_followed_and_commits_stay(server, nano_timm, nano_ckpt):
    old = server.add("someone/nano", nano_timm)
    xcit_hub.load("someone/nano", hub=server.url)
    config = json.loads(nano_timm["config.json"]) | {"label_names": [f"class {i}" for i in range(10)]}
    new = server.add("someone/nano", nano_timm | {"config.json": json.dumps(config).encode()})
    assert xcit_hub.load("someone/nano", hub=server.url).config.provenance.revision == new
    assert xcit_hub.load("someone/nano", old, hub=server.url).config.labels == ()


def test_wrong_names_and_revisions_say_where_and_what_to_do(server, nano_timm, monkeypatch):
    server.add("someone/nano", nano_timm)
    with pytest.raises(HubError) as caught:
        xcit_hub.load("timm/xcit_tiny_12_p16_22.fb_in1k", hub=server.url)
    assert "timm/xcit_tiny_12_p16_224.fb_in1k" in str(caught.value)
    assert server.url in str(caught.value)
    with pytest.raises(HubError, match="no revision 'v9'"):
        xcit_hub.load("someone/nano", "v9", hub=server.url)


def test_another_models_repository_is_refused_by_its_description(server):
    config = json.dumps({"architecture": "resnet50", "num_classes": 1000, "pretrained_cfg": {}}).encode()
    server.add("someone/resnet", {"config.json": config, "model.safetensors": b"x"})
    with pytest.raises(HubError, match="resnet50"):
        xcit_hub.load("someone/resnet", hub=server.url)
    assert not server.storage_requests


@pytest.mark.parametrize("path", ["../evil", "/etc/passwd", "a/../../b", "a\\..\\b", "C:/x"])
def test_listed_paths_that_leave_their_folder_are_refused(server, nano_timm, path):
    server.add("someone/nano", nano_timm)
    server.listing_extra.append(path)
    with pytest.raises(HubError, match="leaves its folder"):
        xcit_hub.load("someone/nano", hub=server.url)


def test_whoami_and_its_refusals(server, monkeypatch):
    assert whoami(server.url) == {"name": "me", "orgs": ["org"], "role": "write", "endpoint": server.url}
    monkeypatch.setenv("HF_TOKEN", "hf_unknownUNKNOWNunknown00000")
    with pytest.raises(HubError) as caught:
        whoami(server.url)
    assert "hf_unknown" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="Nobody is logged in"):
        whoami(server.url)


def test_a_reader_may_not_publish(server, publish, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    with pytest.raises(HubError, match="rights to write"):
        publish()
    assert not server.repositories
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError):
        publish()


def test_the_token_goes_to_the_hub_and_nowhere_else(server, publish, tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    done = publish()
    xcit_hub.load("org/nano", hub=server.url, cache_dir=tmp_path / "fresh")
    assert any(given == f"Bearer {TOKEN}" for _, _, given in server.requests)
    assert server.storage_requests
    assert not [given for _, _, given in server.storage_requests if given]
    assert TOKEN not in caplog.text
    captured = capsys.readouterr()
    assert TOKEN not in captured.out + captured.err + str(done.as_dict()) + repr(done)
    for path in [*tmp_path.rglob("*")]:
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()
    for files in server.repositories["org/nano"].at("main").files.values():
        assert TOKEN.encode() not in files


def test_a_token_that_the_server_repeats_is_not_shown(server, publish):
    echo = Fault("POST .*/create", "status", 403, headers={"X-Error-Message": f"no rights for {TOKEN}"})
    server.faults = [echo]
    with pytest.raises(HubError) as caught:
        publish()
    assert TOKEN not in str(caught.value)
    assert caught.value.__suppress_context__


def test_hub_lists_what_was_published(server, begun):
    from xcit_hub.hub.locate import list_hub

    server.add("someone/else", {"README.md": b"---\ntags:\n- bert\n---\n"})
    assert list_hub(server.url) == ["org/nano"]


def test_folders_cannot_take_pull_requests(nano_ckpt, tmp_path):
    with pytest.raises(InputError, match="no pull requests"):
        xcit_hub.publish(nano_ckpt, "org/nano", to=tmp_path, parity=False, create_pr=True)
