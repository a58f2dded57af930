"""Modelers, GitCode and ModelScope through their real clients, against loopback hubs that speak their protocols."""

from __future__ import annotations

import json
import os
import stat
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hub_server import Fault
from site_server import OTHER_TOKEN, TOKEN
from typer.testing import CliRunner

import xcit_hub
from xcit_hub.errors import CardError, HubError, InputError, XcitHubError
from xcit_hub.hub import address, cache
from xcit_hub.hub.locate import info, list_hub, locate
from xcit_hub.hub.stores import Context, open_store

# See test_site_faults.py.
pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("openmind_hub", "modelscope_hub"))), reason="the hubs' clients are not installed"
)

SITES = ("modelers", "gitcode", "modelscope")
NAME = "someone/xcit-nano"
WEIGHTS = os.urandom(3 << 20)
FILES = {"config.json": b'{"architecture": "xcit_nano_12_p16_224"}', "model.safetensors": WEIGHTS}


# GitCode's client is Modelers': of what they share the suite looks at one.
@pytest.fixture(params=["modelers", "modelscope", pytest.param("gitcode", marks=pytest.mark.campaign)])
def site(request) -> str:
    return request.param


@pytest.fixture
def opened(sites, tmp_path):
    """Open a hub's store, with a cache of the test's own."""
    stores = []

    def run(place, **context):
        stores.append(open_store(address.parse(address.ANY, hub=place), Context(tmp_path / "kept", **context)))
        return stores[-1]

    yield run
    for store in stores:
        store.client.stop()


@pytest.fixture
def small(tmp_path) -> dict[str, Path]:
    """A publication of small files; no network is in them."""
    folder = tmp_path / "small"
    folder.mkdir()
    contents = {**FILES, "README.md": b"---\nlicense: apache-2.0\n---\n# nano\n", "xcit_hub.json": b"{}"}
    for path, content in contents.items():
        (folder / path).write_bytes(content)
    return {path: folder / path for path in contents}


def weights_of(network) -> dict[str, np.ndarray]:
    return {name: value.asnumpy() for name, value in network.parameters_and_names()}


@pytest.fixture
def licensed(tmp_path) -> Path:
    """What these hubs ask for before an upload."""
    path = tmp_path / "card.yaml"
    path.write_text("license: apache-2.0\n")
    return path


@pytest.mark.slow
def test_one_proof_is_published_on_three_hubs_in_one_commit_each_and_loads_back(
    sites, nano_ckpt, nano_arrays, licensed
):
    done = xcit_hub.publish_to(nano_ckpt, "someone/nano", SITES, meta=licensed, parity=False)
    for site, each in zip(SITES, done, strict=True):
        assert each.changed
        assert each.address == f"{site}://someone/nano"
        commits = sites.sites[site]["someone/nano"].commits.values()
        assert [commit.title for commit in commits] == ["initial commit", "Publish nano with xcit-hub"]
        card = sites.at(site, "someone/nano").files["README.md"].decode()
        assert f'xcit_hub.load("{site}://someone/nano")' in card
        for other in done:
            assert (other.url in card) == (other is not each), (site, other.url)
    again = xcit_hub.publish_to(nano_ckpt, "someone/nano", SITES, meta=licensed, parity=False)
    assert not any(each.changed for each in again)
    for each in done:
        network = xcit_hub.load(each.address)
        found = weights_of(network)
        assert all(found[name].tobytes() == nano_arrays[name].tobytes() for name in found)
        assert (network.config.provenance.verified, network.config.provenance.revision) == ("full", each.revision)
    named = {entry.name for entry in cache.entries(cache.default_folder())}
    assert named == {f"{host}/someone/nano" for host in ("modelers.cn", "hub.gitcode.com", "modelscope.cn")}
    assert set(sites.connected) <= {
        "modelers.cn", "hub.gitcode.com", "modelscope.cn", "cdn.modelers.cn", "xcit.obs.myhuaweicloud.com",
        "xcit.oss-cn.aliyuncs.com", "lfs.modelscope.cn",
    }  # fmt: skip


@pytest.mark.slow
def test_a_publication_that_failed_on_one_hub_is_finished_by_running_it_again(sites, nano_ckpt, licensed):
    from xcit_hub.hub.publish import PartlyPublishedError

    sites.faults = [Fault("modelscope.cn POST .*/commit/", "status", 403, times=99)]
    with pytest.raises(PartlyPublishedError, match="Run the same command again") as caught:
        xcit_hub.publish_to(nano_ckpt, "someone/nano", ["modelscope", "modelers"], meta=licensed, parity=False)
    assert [each.address for each in caught.value.done] == ["modelers://someone/nano"]
    assert "modelscope://someone/nano" in caught.value.failed
    assert set(sites.at("modelscope", "someone/nano").files) == {"README.md"}
    sites.faults.clear()
    stages: list[str] = []
    again = xcit_hub.publish_to(
        nano_ckpt, "someone/nano", ["modelscope", "modelers"], meta=licensed, parity=False, on_stage=stages.append
    )
    assert [each.changed for each in again] == [True, False]
    assert (stages.count("load"), stages.count("read back")) == (1, 2)  # one checkpoint, two hubs
    assert list(cache.entries(cache.default_folder())) == []  # what is read back is not kept


def test_what_a_hub_lists_is_fetched_whole_and_kept_under_its_own_name(sites, site, opened):
    commit = sites.put(site, NAME, FILES)
    store = opened(site)
    snapshot = store.resolve(NAME)
    assert {path: file.size for path, file in snapshot.files.items()} == {k: len(v) for k, v in FILES.items()}
    assert not snapshot.notes
    assert (snapshot.revision == commit) == (site != "modelscope")
    assert store.fetch(snapshot, "model.safetensors").read_bytes() == WEIGHTS
    asked = len(sites.requests)
    assert store.fetch(snapshot, "model.safetensors").read_bytes() == WEIGHTS
    assert len(sites.requests) == asked
    offline = opened(site, offline=True)
    assert offline.fetch(offline.resolve(NAME), "model.safetensors").read_bytes() == WEIGHTS
    assert len(sites.requests) == asked
    with pytest.raises(HubError, match="offline mode"):
        offline.fetch(snapshot, "config.json")


def test_names_of_three_parts_are_gitcodes(sites, opened, small):
    name = "hf_mirrors/Qwen/xcit-nano"
    store = opened("gitcode")
    assert store.publish(name, small, message="Publish").changed
    assert store.fetch(store.resolve(name), "model.safetensors").read_bytes() == WEIGHTS
    assert set(sites.sites["gitcode"]) == {name}
    assert all(
        "hf_mirrors%2FQwen" in path for said, path, _ in sites.requests if "xcit-nano" in said and "/verify" not in said
    )
    with pytest.raises(InputError, match="not the name of a model"):
        opened("modelers").resolve(name)


def test_an_organisation_is_listed_and_info_fetches_no_weights(sites, site, tmp_path):
    sites.put(site, "org/xcit-a", FILES)
    sites.put(site, "org/b", FILES)
    sites.put(site, "other/xcit-c", FILES)
    assert list_hub(f"{site}://org") == ["org/b", "org/xcit-a"]
    assert list_hub(site) == ["org/xcit-a", "other/xcit-c"]
    said = info("xcit-a", hub=f"{site}://org", cache_dir=tmp_path / "kept")
    assert said.weights == "model.safetensors"
    assert said.address == f"{site}://org/xcit-a"
    assert not [path for path, _, _ in sites.requests if "model.safetensors" in path]


def test_branches_and_revisions(sites, opened, small):
    for site in SITES:
        first = sites.put(site, NAME, FILES)
        sites.put(site, NAME, {**FILES, "model.safetensors": b"other"}, branch="side")
        store = opened(site)
        assert store.resolve(NAME, "side").files["model.safetensors"].size == 5
        before = store.resolve(NAME)
        store.fetch(before, "config.json")
        sites.put(site, NAME, {**FILES, "model.safetensors": b"newer"})
        assert store.resolve(NAME, first).files["model.safetensors"].size == len(WEIGHTS)
        assert store.resolve(NAME, before.revision).revision == before.revision  # by content, where none is named
        with pytest.raises(HubError, match=r"no such (revision|model)"):
            store.resolve(NAME, "nothing")
    store = opened("modelers")
    assert store.publish(NAME, small, message="Publish", revision="fresh").changed
    assert "xcit_hub.json" not in sites.at("modelers", NAME).files
    assert "xcit_hub.json" in sites.at("modelers", NAME, "fresh").files
    asked = len(sites.requests)
    with pytest.raises(InputError, match="takes no revision"):
        store.resolve(NAME, "v1.0")
    assert len(sites.requests) == asked
    scope = opened("modelscope")
    assert scope.publish(NAME, small, message="Publish", revision="side").changed
    with pytest.raises(HubError, match="no such revision"):
        scope.publish(NAME, small, message="Publish", revision="fresh")
    assert not [said for said in sites.asked("modelscope.cn") if said.endswith("commit/fresh")]


def test_what_a_hub_cannot_do_is_said_before_anything_is_sent(sites, site, opened, small, monkeypatch):
    store = opened(site)
    with pytest.raises(InputError, match="pull requests"):
        store.publish(NAME, small, message="Publish", create_pr=True)
    with pytest.raises(InputError, match="cannot be published to"):
        store.publish(NAME, small, message="Publish", revision="a" * 40)
    with pytest.raises(InputError, match="not the name of a model"):
        store.publish("x/.git" if site == "modelscope" else "x/nano", small, message="Publish")
    with pytest.raises(HubError, match="Offline"):
        opened(site, offline=True).publish(NAME, small, message="Publish")
    for name in ("MODELERS_TOKEN", "GITCODE_TOKEN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(name)
    with pytest.raises(HubError, match=r"logged in|refused"):
        opened(site).publish(NAME, small, message="Publish")
    assert not sites.sites[site]


def test_publishing_sends_what_differs_removes_what_is_an_earlier_publications_and_leaves_the_rest(
    sites, site, opened, small
):
    sites.put(site, NAME, {**FILES, "parity.json": b"{}", "notes.txt": b"somebody's"})
    store = opened(site)
    sent = store.publish(NAME, small, message="Publish")
    held = sites.at(site, NAME)
    assert set(held.files) == {*small, "notes.txt"}
    assert held.title == "Publish"
    assert sent.changed
    assert sent.removed == ("parity.json",)
    assert sent.url.endswith(f"/{NAME}")
    assert not [said for said in sites.requests if said[0].split(" ")[1] == "PUT"]  # the weights were there
    assert not store.publish(NAME, small, message="Publish").changed


def test_a_private_model_needs_its_token_and_a_reader_may_not_write(sites, site, opened, small, monkeypatch):
    opened(site).publish(NAME, small, message="Publish", private=True)
    assert sites.sites[site][NAME].private
    assert opened(site).resolve(NAME).files
    with pytest.raises(HubError, match="no such model"):
        opened(site, token=False).resolve(NAME)
    with pytest.raises(HubError, match="not allowed"):
        opened(site, token=OTHER_TOKEN).publish(
            NAME, {**small, "xcit_hub.json": small["config.json"]}, message="Publish"
        )


def test_nothing_is_sent_into_a_public_repository_where_a_private_one_is_asked_for(sites, site, opened, small):
    sites.put(site, NAME, FILES)
    store = opened(site)
    with pytest.raises(HubError, match=r"is public\. No file was sent") as caught:
        store.publish(NAME, small, message="Publish", private=True)
    assert NAME in str(caught.value)
    with pytest.raises(HubError, match="is public"):
        store.check_publish(NAME, private=True)
    assert sites.at(site, NAME).files == FILES
    assert not [said for said in sites.requests if said[0].split(" ")[1] in ("POST", "PUT", "DELETE")]
    sites.sites[site][NAME].private = True
    assert store.publish(NAME, small, message="Publish", private=True).changed


def test_a_repository_that_was_there_is_not_private_because_its_hub_does_not_say(sites, site, opened, small):
    sites.put(site, NAME, FILES)
    silent = Fault(f"GET /(api|openapi)/v1/models?/{NAME}$", "answer", 200, 99, body=_told({"id": "1"}))
    sites.faults = [silent]
    with pytest.raises(HubError, match="does not say whether it is private"):
        opened(site).publish(NAME, small, message="Publish", private=True)
    assert sites.at(site, NAME).files == FILES
    # One that was just made as a private one is believed to be.
    sites.faults = [Fault(silent.where, "status", 404, 2 if site == "modelscope" else 1), silent]
    del sites.sites[site][NAME]
    assert opened(site).publish(NAME, small, message="Publish", private=True).changed
    assert sites.sites[site][NAME].private


def test_a_repository_that_somebody_made_public_meanwhile_gets_no_files(sites, site, opened, small):
    missing = Fault(f"GET /(api|openapi)/v1/models?/{NAME}$", "status", 404, 2 if site == "modelscope" else 1)
    sites.put(site, NAME, FILES)
    sites.faults = [missing]
    with pytest.raises(HubError, match="is public"):
        opened(site).publish(NAME, small, message="Publish", private=True)
    assert sites.at(site, NAME).files == FILES


def _told(said: dict[str, object]) -> bytes:
    return json.dumps({"success": True, "data": said}).encode()


def test_the_token_stays_with_its_hub_and_no_other_hubs_reaches_it(sites, site, opened, small, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 30)
    store = opened(site)
    store.publish(NAME, small, message="Publish")
    store.fetch(store.resolve(NAME), "model.safetensors")
    own = {"modelers": "modelers.cn", "gitcode": "gitcode.com", "modelscope": "modelscope.cn"}[site]
    for said, _, given in sites.requests:
        host = said.partition(" ")[0]
        if not host.endswith(own):
            assert given is None, said
        assert "hf_x" not in (given or "")
    assert TOKEN not in repr(store.context)
    environment = Path(f"/proc/{store.client._process.pid}/environ").read_bytes()
    command = Path(f"/proc/{store.client._process.pid}/cmdline").read_bytes()
    assert TOKEN.encode() not in environment + command
    assert b"hf_x" not in environment


def test_another_endpoint_gets_no_token_but_the_one_given_for_it(sites, opened, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    sites.put("modelscope", NAME, FILES)
    place = f"modelscope+{sites.proxy}"
    assert opened(place).resolve(NAME).files
    assert sites.requests[-1][2] is None
    assert opened(place, token=TOKEN).resolve(NAME).files
    assert TOKEN in sites.requests[-1][2]
    with pytest.raises(InputError, match=r"for https://modelscope\.cn, not for"):
        opened(place, token=True)
    with pytest.raises(InputError, match="everybody on the way"):
        opened("modelscope+http://hub.example.com", token=TOKEN)
    # One line of configuration makes it the hub; then the variable's token is its own.
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", sites.proxy)
    store = opened("modelscope")
    assert store.resolve(NAME).files
    assert TOKEN in sites.requests[-1][2]
    assert not sites.connected
    found = locate(f"{sites.proxy}/models/{NAME}/summary", cache_dir=store.context.cache)
    assert str(found.address) == f"modelscope://{NAME}"


@pytest.mark.parametrize(
    "endpoint",
    ["https://evilmodelers.cn", "https://hub.example.com", "http://modelers.cn", "https://modelers.cn.example.com"],
)
def test_an_endpoint_that_the_client_does_not_go_to_is_refused_by_name_before_anything_is_sent(
    sites, endpoint, monkeypatch
):
    monkeypatch.setenv("OPENMIND_HUB_ENDPOINT", endpoint)
    with pytest.raises(InputError, match="goes to no endpoint"):
        locate(f"modelers://{NAME}")
    assert not sites.connected


def test_logins_of_the_clients_are_found(sites, opened, tmp_path, monkeypatch):
    for name in ("GITCODE_TOKEN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitcode").mkdir()
    (tmp_path / ".gitcode" / "config.json").write_text(json.dumps({"token": TOKEN}))
    import modelscope_hub

    config = modelscope_hub.HubConfig(config_dir=tmp_path / ".modelscope", token="")
    config.save_token(TOKEN)
    for site in ("gitcode", "modelscope"):
        sites.put(site, NAME, FILES)
        assert opened(site).resolve(NAME).files
        assert TOKEN in sites.requests[-1][2], site
    kept = config.credentials_dir / "cookies"
    kept.chmod(kept.stat().st_mode | stat.S_IWOTH)
    assert opened("modelscope").resolve(NAME).files
    assert sites.requests[-1][2] is None  # anybody may have written it


def test_a_hub_without_digests_is_said_to_be_weaker(sites, opened, monkeypatch):
    from hub_server import Fault

    files = [{"Path": path, "Name": path, "Type": "blob", "Size": len(data)} for path, data in FILES.items()]
    sites.put("modelscope", NAME, FILES)
    body = json.dumps({"Code": 200, "Data": {"Files": files}, "Success": True}).encode()
    sites.faults = [Fault("repo/files", "answer", 200, times=9, body=body)]
    store = opened("modelscope")
    snapshot = store.resolve(NAME)
    assert "lists no digest of config.json, model.safetensors" in snapshot.notes[0]
    assert store.fetch(snapshot, "model.safetensors").read_bytes() == WEIGHTS


def test_without_its_client_a_hub_says_what_to_install(sites, monkeypatch):
    from xcit_hub.hub.clients import client

    monkeypatch.setattr(client, "find_spec", lambda name: None)
    with pytest.raises(XcitHubError, match="not installed") as caught:
        locate(f"modelscope://{NAME}")
    assert "pip install 'xcit-hub[modelscope-hub]'" in caught.value.fix


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("modelers://org/name", "modelers://org/name"),
        ("modelscope://org/name@v1.0", "modelscope://org/name@v1.0"),
        ("gitcode://hf_mirrors/Qwen/name", "gitcode://hf_mirrors/Qwen/name"),
        ("https://modelers.cn/models/org/name", "modelers://org/name"),
        ("https://modelers.cn/models/org/name/tree/main", "modelers://org/name"),
        ("https://modelers.cn/models/org/name/blob/side/README.md", "modelers://org/name@side"),
        ("https://www.modelscope.cn/models/org/name/summary", "modelscope://org/name"),
        ("https://modelscope.cn/models/org/name/files?version=v1", "modelscope://org/name@v1"),
        ("https://modelscope.cn/models/org/name/file/view/master/config.json?status=1", "modelscope://org/name"),
        ("https://modelscope.cn/models/org/name/resolve/v2/model.safetensors", "modelscope://org/name@v2"),
        ("https://modelscope.ai/models/org/name@v1", "modelscope://org/name@v1"),
        ("https://gitcode.com/org/name", "gitcode://org/name"),
        ("https://ai.gitcode.com/hf_mirrors/Qwen/name/tree/main", "gitcode://hf_mirrors/Qwen/name"),
        (
            "https://gitcode.com/mindspore/hub/blob/master/mshub_res/assets/mindspore/2.5/x.md",
            "MindSpore Hub https://gitcode.com/mindspore/hub/blob/master/mshub_res/assets/mindspore/2.5/x.md",
        ),
        ("modelscope+https://hub.example.com/org/name", "modelscope+https://hub.example.com/org/name"),
    ],
)
def test_ids_as_the_sites_show_them(written, meant):
    assert str(address.parse(written)) == meant


def test_a_file_of_a_mirror_is_the_mirrors() -> None:
    found = address.parse("gitcode://hf_mirrors/Qwen/name/model.ckpt")
    assert (found.name, found.file) == ("hf_mirrors/Qwen/name", "model.ckpt")
    found = address.parse("gitcode://org/name/model.ckpt")
    assert (found.name, found.file) == ("org/name", "model.ckpt")
    for written in ("modelers://org/name/more/model.ckpt", "gitcode://hf_mirrors/Qwen/name/more/model.ckpt"):
        with pytest.raises(InputError, match="in a folder of its repository"):
            address.parse(written)
    with pytest.raises(InputError, match="name of a model in a hub") as caught:
        address.parse(f"gitcode://{'a/' * 5000}b")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "written",
    [
        "https://modelers.cn",
        "https://modelscope.cn/datasets/org/name",
        "https://gitcode.com/org",
        "modelers://",
        "modelscope://org/na me",
        "https://me:pw@modelers.cn/models/a/b",
    ],
)
def test_pages_that_show_no_model_are_refused(written):
    with pytest.raises(InputError):
        address.parse(written)


def test_a_card_that_the_client_cannot_read_is_refused_before_anything_is_sent(sites, opened, small, tmp_path):
    small["README.md"].write_text("---\nlicense: mit\nmodel-index: [{name: x, results: [{}]}]\n---\n# nano\n")
    with pytest.raises(CardError, match="cannot read the card"):
        opened("modelers").publish(NAME, small, message="Publish")
    assert not sites.connected


@pytest.mark.slow
def test_the_command_shows_what_went_where_and_fails_if_a_hub_refused(sites, nano_ckpt, licensed, tmp_path):
    from hub_server import Fault

    from xcit_hub.cli.app import app

    def run(*arguments, error=None) -> str:
        done = CliRunner().invoke(app, [str(each) for each in arguments])
        assert (type(done.exception) if done.exception is not None else None) is error, done.exception
        return done.stdout

    command = ["publish", nano_ckpt, "org/nano", "--no-parity", "--meta", licensed]
    command += ["--to", tmp_path / "a", "--to", "modelscope"]
    shown = run(*command, "--dry-run")
    assert "license: Apache License 2.0" in shown
    assert "not published: --dry-run" in shown
    assert not sites.sites["modelscope"]
    sites.faults = [Fault("POST /api/v1/models$", "status", 403, 99)]
    shown = run(*command, error=xcit_hub.hub.publish.PartlyPublishedError)
    assert f"{tmp_path / 'a'}/org/nano" in shown
    assert "failed" in shown
    sites.faults.clear()
    first, second = json.loads(run(*command, "--json"))
    assert (first["changed"], second["changed"]) == (False, True)
    assert second["url"] == "https://modelscope.cn/models/org/nano"
    assert run("list", "--hub", "modelscope://org") == "org/nano\n"
    found = json.loads(run("info", "https://modelscope.cn/models/org/nano", "--json"))
    assert found["address"] == "modelscope://org/nano"
    assert "modelscope.cn/org/nano" in run("cache", "list")


def test_one_token_is_not_given_to_several_hubs(sites, nano_ckpt):
    with pytest.raises(InputError, match="One token"):
        xcit_hub.publish_to(nano_ckpt, "org/nano", ["modelers", "modelscope"], token=TOKEN)
    assert not sites.connected
