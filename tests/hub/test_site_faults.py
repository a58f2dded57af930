"""What can go wrong with Modelers', GitCode's and ModelScope's hubs: each ends right, or in one clear error."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from hub_server import Fault, wait_for
from site_server import CDN, ELSEWHERE, OBS, OSS, TOKEN

from xcit_hub.errors import HubError
from xcit_hub.hub import address, cache
from xcit_hub.hub.clients import client
from xcit_hub.hub.stores import Context, open_store

# The clients run in processes: here they are not imported, which takes every worker half a second.
pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("openmind_hub", "modelscope_hub"))), reason="the hubs' clients are not installed"
)

REST = pytest.mark.campaign  # the suite has a sample of each kind
SAMPLE = ("a path that climbs", "a digest that is a path")
NAME = "someone/xcit-nano"
WEIGHTS = os.urandom(3 << 20)
FILES = {"config.json": b'{"architecture": "xcit_nano_12_p16_224"}', "model.safetensors": WEIGHTS}
_GITCODE_FILES = r"hub.gitcode.com GET /api/v1/file/someone/xcit-nano$"
# GitCode's client is Modelers': the suite has a sample of its faults, the campaigns have them all.
EACH = ("modelers", "modelscope", pytest.param("gitcode", marks=REST))
# site → its host; what it is asked when a model is listed, a file is fetched and stored, a commit and a model are made.
HOSTS = {"modelers": "modelers.cn", "modelscope": "modelscope.cn", "gitcode": "hub.gitcode.com"}
LISTING = {
    "modelers": r"modelers.cn GET /api/v1/file/someone/xcit-nano$",
    "modelscope": r"GET .*/repo/files",
    "gitcode": _GITCODE_FILES,
}
BODY = {"modelers": f"{CDN} GET /get/", "modelscope": f"{OSS} GET /get/"}
LINK = {"modelers": "GET .*/media/model.safetensors", "modelscope": r"GET .*/repo\?model.safetensors"}
PUT = {"modelers": f"{OBS} PUT /put/", "modelscope": "lfs.modelscope.cn PUT /put/"}
COMMIT = {"modelers": "POST .*/upload$", "modelscope": "POST .*/commit/"}
CREATE = {"modelers": "POST /api/v1/model$", "modelscope": "POST /api/v1/models$"}
BATCH = {"modelers": "POST .*/batch", "modelscope": "POST .*/batch"}
for _asked in (BODY, LINK, PUT, COMMIT, CREATE, BATCH):
    _asked["gitcode"] = _asked["modelers"]


@pytest.fixture(params=EACH)
def site(request) -> str:
    return request.param


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def impatient(sites, monkeypatch) -> None:
    monkeypatch.setattr(client, "SOCKET_SECONDS", 2)


@pytest.fixture
def store(sites, site, folder):
    sites.put(site, NAME, FILES)
    made = open_store(address.parse(address.ANY, hub=site), Context(folder))
    yield made
    sites.go_on.set()
    made.client.stop()


@pytest.fixture
def small(tmp_path) -> dict[str, Path]:
    there = tmp_path / "small"
    there.mkdir()
    contents = {**FILES, "README.md": b"---\nlicense: apache-2.0\n---\n# nano\n"}
    contents["model.safetensors"] = WEIGHTS[::-1]
    for path, content in contents.items():
        (there / path).write_bytes(content)
    return {path: there / path for path in contents}


def fetch(store, path: str = "model.safetensors") -> bytes:
    return store.fetch(store.resolve(NAME), path).read_bytes()


def leftovers(folder) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith((".incomplete", ".tmp"))]


@pytest.mark.parametrize(
    ("where", "kind", "value", "times", "headers"),
    [
        pytest.param(BODY, "cut", 1_000_000, 1, {}, id="connection cut in the body"),
        pytest.param(LISTING, "cut", 20, 1, {}, id="connection cut in the listing", marks=REST),
        pytest.param(BODY, "bytes", 0, 1, {}, id="wrong bytes once", marks=REST),
        pytest.param(BODY, "status", 429, 1, {"Retry-After": "0"}, id="429 for the file", marks=REST),
        pytest.param(LISTING, "status", 429, 1, {"Retry-After": "1"}, id="429 for the listing"),
        pytest.param(BODY, "status", 500, 2, {}, id="500 twice for the file"),
        pytest.param(LISTING, "status", 500, 2, {}, id="500 twice for the listing", marks=REST),
    ],
)
def test_a_passing_fault_is_overcome(sites, site, store, folder, where, kind, value, times, headers):
    sites.faults = [fault := Fault(where[site], kind, value, times, headers)]
    began = time.monotonic()
    assert fetch(store) == WEIGHTS
    assert fault.times == 0
    assert time.monotonic() - began >= float(headers.get("Retry-After", 0))
    assert not leftovers(folder)
    assert cache.verify(folder)[1] == []


def test_gitcodes_faults_are_overcome_or_told_as_modelers(sites, small, folder):
    sites.put("gitcode", NAME, FILES)
    store = open_store(address.parse(address.ANY, hub="gitcode"), Context(folder))
    try:
        for where, kind, value, said in (
            (LISTING, "status", 403, "refused"),
            (LISTING, "digest", 0, "not the ones that were published"),
            (BODY, "bytes", 0, "not the ones that were published"),
            (LINK, "status", 302, INSIDE),
        ):
            sites.faults = [Fault(where["gitcode"], kind, value, 99, {"Location": "https://10.0.0.1/x"})]
            with pytest.raises(HubError, match=said) as caught:
                fetch(store)
            assert caught.value.fix and TOKEN not in str(caught.value)
            assert not leftovers(folder)
        sites.faults = [Fault(BODY["gitcode"], "cut", 1_000_000)]
        assert fetch(store) == WEIGHTS
        sites.faults = [Fault(COMMIT["gitcode"], "status", 403, 99)]
        with pytest.raises(HubError):
            store.publish(NAME, small, message="Publish")
        assert sites.at("gitcode", NAME).title == "pushed"
        sites.faults = [Fault(PUT["gitcode"], "status", 500)]
        store.publish(NAME, small, message="Publish")
        assert {path: sites.at("gitcode", NAME).files[path] for path in small} == {
            path: file.read_bytes() for path, file in small.items()
        }
    finally:
        store.client.stop()


def test_a_stalled_body_is_asked_for_again(impatient, sites, site, store, folder):
    sites.faults = [Fault(BODY[site], "stall", 30)]
    assert fetch(store) == WEIGHTS
    assert not leftovers(folder)


PRIVATE = "http://169.254.169.254/latest/meta-data"
INSIDE = "public address|does not go"
GONE = "not an https address|does not go"


@pytest.mark.parametrize(
    ("where", "fault", "said"),
    [
        pytest.param(BODY, ("bytes",), "not the ones that were published", id="wrong bytes"),
        pytest.param(LISTING, ("digest",), "not the ones that were published", id="wrong hash"),
        pytest.param(BODY, ("status", 404), "lacks a file|no such model|answered 404", id="file gone", marks=REST),
        pytest.param(LISTING, ("status", 403), "refused", id="forbidden"),
        pytest.param(LISTING, ("status", 500), "cannot be reached .HTTP 500", id="500 for ever", marks=REST),
        pytest.param(BODY, ("status", 500), "cannot be reached .HTTP 500", id="500 for ever for the file", marks=REST),
        pytest.param(LINK, ("status", 302, PRIVATE), GONE, id="redirect to a machine's own service", marks=REST),
        pytest.param(LINK, ("status", 302, "https://10.0.0.1/x"), INSIDE, id="redirect inside"),
        pytest.param(LINK, ("status", 302, "https://localhost/x"), INSIDE, id="redirect home", marks=REST),
        pytest.param(BODY, ("endless",), "bytes where|sends more|otherwise", id="endless body"),
        pytest.param(LISTING, ("endless",), "bytes where|sends more|JSON|not answer", id="endless listing", marks=REST),
    ],
)  # fmt: skip
def test_a_lasting_fault_is_one_clear_error_and_keeps_nothing(sites, site, store, folder, where, fault, said):
    kind, value, location = (*fault, 0, "")[:3] if len(fault) < 3 else fault
    headers = {"Location": location} if location else {}
    sites.faults = [Fault(where[site], kind, value, 99, headers)]
    with pytest.raises(HubError, match=said) as caught:
        fetch(store)
    assert caught.value.fix
    assert "X-Signature" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert not leftovers(folder)
    assert not [path for path in folder.rglob("model.safetensors") if path.exists()]
    assert not {host for host in sites.connected if host[:2] in ("10", "16", "lo")}


def test_a_redirect_to_another_host_takes_no_token_along(sites, site, store):
    import hashlib

    digest = hashlib.sha256(WEIGHTS).hexdigest()
    sites.faults = [Fault(LINK[site], "status", 302, 99, {"Location": f"https://{ELSEWHERE}/get/{digest}"})]
    if site == "modelscope":  # object storage may be anywhere in the world
        assert fetch(store) == WEIGHTS
    else:  # its client names where it goes
        with pytest.raises(HubError, match=r"does not go|white list"):
            fetch(store)
    asked = [given for said, _, given in sites.requests if said.startswith(ELSEWHERE)]
    assert asked == ([None] if site == "modelscope" else [])


def test_a_domain_that_only_ends_like_the_hubs_is_not_the_hubs(sites, folder):
    # openmind_hub compares ends of names alone, and would hand its token over.
    sites.put("modelers", NAME, FILES)
    store = open_store(address.parse(address.ANY, hub="modelers"), Context(folder))
    sites.faults = [Fault(LINK["modelers"], "status", 302, 99, {"Location": "https://evilmodelers.cn/get/x"})]
    with pytest.raises(HubError, match=r"evilmodelers\.cn, where modelers\.cn's client does not go"):
        fetch(store)
    store.client.stop()
    assert "evilmodelers.cn" not in sites.connected


DEEP = b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty", marks=REST),
        pytest.param(b"<html>busy</html>", id="html", marks=REST),
        pytest.param(b"null", id="null", marks=REST),
        pytest.param(b"[1, 2]", id="a list", marks=REST),
        pytest.param(b'{"data": null, "Data": null, "Code": 200}', id="no data", marks=REST),
        pytest.param(DEEP, id="nested"),
        pytest.param(gzip.compress(bytes(200 << 20), 1), id="bomb"),
        *(
            pytest.param(("file", path, digest), id=name, marks=() if name in SAMPLE else REST)
            for name, path, digest in (
                ("a path that climbs", "../../x.ckpt", "a" * 64),
                ("an absolute path", "/etc/passwd", "a" * 64),
                ("a drive", "C:\\x.ckpt", "a" * 64),
                ("a digest that is a path", "x.ckpt", "../../../x"),
                ("a digest in capitals", "x.ckpt", "A" * 64),
                ("a path with escapes", "x\u001b[31m.ckpt", "a" * 64),
            )
        ),
    ],
)
def test_a_listing_that_no_hub_gives_is_one_clear_error(sites, site, store, folder, body):
    headers = {"Content-Encoding": "gzip"} if isinstance(body, bytes) and body[:2] == b"\x1f\x8b" else {}
    if isinstance(body, tuple):
        _, path, digest = body
        commit = sites.at(site, NAME).oid
        head = {"commit": {"created": "2026-01-01T00:00:00Z", "commit_sha": commit, "message": "x"}}
        tree = [{"type": "file", "path": path, "size": 9, "etag": digest, "is_lfs": True}]
        files = [{"Path": path, "Name": "x", "Type": "blob", "Size": 9, "Sha256": digest}]
        body = json.dumps({"data": {"last_commit": head, "tree": tree}, "Data": {"Files": files}, "Code": 200}).encode()
    sites.faults = [Fault(LISTING[site], "answer", 200, 99, headers, body)]
    began = time.monotonic()
    try:
        found = store.resolve(NAME)
    except HubError as error:
        assert error.fix
        assert "\u001b" not in str(error)
    else:  # ModelScope's client takes an answer without files for an empty model
        assert site == "modelscope"
        assert not found.files
    assert time.monotonic() - began < 600
    assert not [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_commit_that_is_none_is_refused(sites, folder):
    sites.put("modelers", NAME, FILES)
    store = open_store(address.parse(address.ANY, hub="modelers"), Context(folder))
    head = {"commit": {"created": "2026-01-01T00:00:00Z", "commit_sha": "../../../tmp/x", "message": "x"}}
    body = json.dumps({"data": {"last_commit": head, "tree": []}}).encode()
    sites.faults = [Fault(LISTING["modelers"], "answer", 200, 99, body=body)]
    with pytest.raises(HubError):
        store.resolve(NAME)
    store.client.stop()


def test_a_hub_that_says_nothing_is_left(impatient, sites, site, store, monkeypatch):
    sites.faults = [Fault(LISTING[site], "hang", times=99)]
    began = time.monotonic()
    monkeypatch.setattr(client, "SILENCE", 4.0)
    with pytest.raises(HubError, match=r"cannot be reached|sent nothing"):
        store.resolve(NAME)
    assert time.monotonic() - began < 600


def test_a_hub_that_drips_is_left(sites, site, store, monkeypatch):
    monkeypatch.setattr(client.guard, "PATIENCE", 1.0)
    listed = store.resolve(NAME)
    for silence in (4.0, 16.0, 64.0):  # on a busy machine it may be over before the file was asked for
        sites.faults = [fault := Fault(BODY[site], "drip", 0.5, 99)]
        monkeypatch.setattr(client, "SILENCE", silence)
        with pytest.raises(HubError, match=r"too slowly|sent nothing"):
            store.fetch(listed, "model.safetensors")
        if fault.times < 99:
            break
    assert fault.times < 99, "the drip was waited for"


def test_an_unreachable_hub_answers_from_the_cache_and_says_so(sites, site, store):
    fetch(store)
    sites.faults = [Fault(LISTING[site], "status", 503, 99)]
    found = store.resolve(NAME)
    assert "could not be reached" in found.notes[0]
    assert store.fetch(found, "model.safetensors").read_bytes() == WEIGHTS


def test_a_damaged_cache_entry_is_fetched_again(sites, site, store, folder):
    fetch(store)
    blob = next(folder.rglob("model.safetensors")).resolve()
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    assert [damage.file for damage in cache.verify(folder)[1]] == [blob]
    assert fetch(store) == WEIGHTS
    assert cache.verify(folder)[1] == []


def test_a_client_that_was_killed_is_one_clear_error_and_started_again(sites, site, store):
    assert fetch(store, "config.json") == FILES["config.json"]
    store.client._process.kill()
    store.client._process.wait()
    assert fetch(store) == WEIGHTS


def in_a_process(site, folder, body: str, **options) -> subprocess.Popen:
    code = (
        "from pathlib import Path\nfrom xcit_hub.errors import HubError\nfrom xcit_hub.hub import address\n"
        "from xcit_hub.hub.stores import Context, open_store\n"
        f"store = open_store(address.parse(address.ANY, hub={site!r}), Context(Path({str(folder)!r})))\n{body}"
    )
    return subprocess.Popen([sys.executable, "-c", code], text=True, stderr=subprocess.PIPE, **options)


FETCH = f"print(store.fetch(store.resolve({NAME!r}), 'model.safetensors'))"


def descendants_of(pid: int) -> set[int]:
    import psutil

    return {each.pid for each in psutil.Process(pid).children(recursive=True)}


def test_a_killed_download_leaves_no_process_and_a_cache_that_the_next_one_completes(sites, site, store, folder):
    import psutil

    sites.faults = [Fault(BODY[site], "stall", 60)]
    process = in_a_process(site, folder, FETCH)
    wait_for(lambda: any(BODY[site].split(" ")[0] in said for said, _, _ in sites.requests))
    clients = descendants_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert clients
    wait_for(lambda: not any(psutil.pid_exists(each) for each in clients))
    sites.go_on.set()
    sites.faults.clear()
    assert leftovers(folder)
    assert fetch(store) == WEIGHTS
    cache.prune(folder)
    assert not leftovers(folder)
    assert fetch(store) == WEIGHTS


def test_a_full_disk_is_one_clear_error(sites, site, store, folder):
    def limit() -> None:  # the kernel refuses to let the file grow, as a full disk does
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    body = f"try:\n    {FETCH}\nexcept HubError as e:\n    raise SystemExit(str(e))"
    process = in_a_process(site, folder, body, preexec_fn=limit)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "Cannot keep the file: File too large" in said
    assert "Traceback" not in said
    assert not leftovers(folder)


# ---- publishing


@pytest.mark.parametrize(
    ("where", "kind", "value", "times"),
    [
        pytest.param(CREATE, "status", 500, 2, id="500 twice at creation", marks=REST),
        pytest.param(PUT, "status", 500, 1, id="500 for the weights"),
        pytest.param(COMMIT, "status", 500, 2, id="500 twice at the commit", marks=REST),
        pytest.param(COMMIT, "status", 429, 1, id="429 at the commit", marks=REST),
        pytest.param(COMMIT, "cut", 0, 1, id="the commit's answer is lost"),
    ],
)
def test_publishing_overcomes_a_passing_fault_with_one_commit(sites, site, store, small, where, kind, value, times):
    sites.faults = [fault := Fault(where[site], kind, value, times, {"Retry-After": "0"})]
    done = store.publish(NAME, small, message="Publish")
    assert fault.times == 0
    assert done.changed
    assert [commit.title for commit in sites.sites[site][NAME].commits.values()] == ["pushed", "Publish"]
    assert set(sites.at(site, NAME).files) == set(small)


@pytest.mark.parametrize(
    ("where", "status"),
    [
        pytest.param(PUT, 403, id="storage refuses"),
        pytest.param(BATCH, 400, id="LFS refuses", marks=REST),
        pytest.param(COMMIT, 400, id="the commit is refused"),
        pytest.param(COMMIT, 401, id="the token is refused", marks=REST),
    ],
)
def test_a_publication_that_fails_publishes_nothing(sites, site, store, small, where, status):
    before = sites.at(site, NAME)
    sites.faults = [Fault(where[site], "status", status, 99)]
    with pytest.raises(HubError) as caught:
        store.publish(NAME, small, message="Publish")
    assert caught.value.fix
    assert "X-Signature" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert sites.at(site, NAME) is before


def test_modelers_check_of_the_licence_comes_before_the_weights(sites, folder, small):
    sites.put("modelers", NAME, FILES)
    sites.licenses_refused = True
    store = open_store(address.parse(address.ANY, hub="modelers"), Context(folder))
    with pytest.raises(HubError, match="licence"):
        store.publish(NAME, small, message="Publish")
    store.client.stop()
    assert sites.at("modelers", NAME).title == "pushed"


def test_of_several_large_files_none_is_left_out_when_the_hub_has_the_first(sites, folder, small, tmp_path):
    # openmind_hub itself sends none then, and commits pointers to nothing.
    sites.put("modelers", NAME, FILES)
    (tmp_path / "model.ckpt").write_bytes(os.urandom(1 << 20))
    files = {**small, "model.ckpt": tmp_path / "model.ckpt"}
    import hashlib

    first = files["model.ckpt"].read_bytes()
    sites.objects[hashlib.sha256(first).hexdigest()] = first
    store = open_store(address.parse(address.ANY, hub="modelers"), Context(folder))
    store.publish(NAME, files, message="Publish")
    store.client.stop()
    assert {path: len(data) for path, data in sites.at("modelers", NAME).files.items()} == {
        path: file.stat().st_size for path, file in files.items()
    }


def test_a_killed_publication_publishes_nothing_and_the_next_one_everything(sites, site, store, small, folder):
    before = sites.at(site, NAME)
    sites.faults = [Fault(PUT[site], "hang")]
    files = "{" + ", ".join(f"{path!r}: Path({str(file)!r})" for path, file in small.items()) + "}"
    process = in_a_process(site, folder, f"store.publish({NAME!r}, {files}, message='Publish')")
    wait_for(lambda: any(" PUT " in said for said, _, _ in sites.requests))
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    sites.go_on.set()
    assert sites.at(site, NAME) is before
    sites.faults.clear()
    assert store.publish(NAME, small, message="Publish").changed
    assert set(sites.at(site, NAME).files) == set(small)


def test_weights_are_sent_before_what_a_reader_looks_at_first(sites, site, store, small):
    store.publish("someone/fresh-xcit", small, message="Publish")
    asked = [said for said, _, _ in sites.requests]
    committed = [number for number, said in enumerate(asked) if re.search(COMMIT[site], said)]
    assert len(committed) == 1
    assert max(number for number, said in enumerate(asked) if " PUT " in said) < committed[0]
    held = [path for path in sites.at(site, "someone/fresh-xcit").files if path != "README.md"]
    assert held == ["model.safetensors", "config.json"]


def test_a_hub_that_keeps_other_bytes_is_found_out(sites, site, store, small):
    sites.faults = [Fault(LISTING[site], "digest", times=99)]
    with pytest.raises(HubError, match="does not list what it was sent"):
        store.publish(NAME, small, message="Publish")
