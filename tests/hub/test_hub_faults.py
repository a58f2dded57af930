"""Whatever goes wrong on the way ends in a correct result or one clear error; nothing is left half-written."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from hub_server import TOKEN, Fault, git_sha1, wait_for
from huggingface_hub import constants

import xcit_hub
from xcit_hub.errors import HubError
from xcit_hub.hub import cache
from xcit_hub.hub.locate import locate

NAME = "someone/nano"
STORAGE = "GET /get/"


@pytest.fixture
def ready(server, nano_timm):
    server.add(NAME, nano_timm)
    return server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def fetch(server, folder) -> bytes:
    path, _ = locate(NAME, hub=server.url, cache_dir=folder).fetch()
    return path.read_bytes()


def leftovers(folder) -> list:
    return [path for path in folder.rglob("*") if path.name.endswith((".incomplete", ".tmp"))]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(STORAGE, "cut", 5_000_000), id="connection cut in the body"),
        pytest.param(Fault("GET /api/models/someone/nano", "cut", 20), id="connection cut in the listing"),
        pytest.param(Fault(STORAGE, "stall", 3), id="stalled body"),
        pytest.param(Fault(STORAGE, "short", 1000), id="body shorter than announced"),
        pytest.param(Fault(STORAGE, "bytes"), id="wrong bytes once"),
        pytest.param(Fault(STORAGE, "status", 429, headers={"Retry-After": "0"}), id="429 for the file"),
        pytest.param(Fault("GET /api", "status", 429, headers={"Retry-After": "1"}), id="429 for the listing"),
        pytest.param(Fault(STORAGE, "status", 500, times=2), id="500 twice for the file"),
        pytest.param(Fault("GET /api", "status", 500, times=2), id="500 twice for the listing"),
        pytest.param(Fault("HEAD .*/resolve/", "status", 500, times=2), id="500 twice for the headers"),
        pytest.param(Fault("HEAD .*safetensors", "digest"), id="wrong digest announced once"),
    ],
)
def test_a_passing_fault_is_overcome(ready, nano_timm, folder, fault, monkeypatch):
    ready.faults = [fault]
    if fault.kind == "stall":  # what is not meant to wait has its time, however busy the machine is
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    started = time.monotonic()
    assert fetch(ready, folder) == nano_timm["model.safetensors"]
    assert fault.times == 0
    assert time.monotonic() - started >= float(fault.headers.get("Retry-After", 0))
    assert not leftovers(folder)
    assert cache.verify(folder)[1] == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        pytest.param(Fault(STORAGE, "bytes", times=99), "not the ones that were published", id="wrong bytes"),
        pytest.param(Fault("HEAD .*safetensors", "digest", times=99), "not the ones", id="wrong digest"),
        pytest.param(Fault("HEAD .*safetensors", "size", times=99), "another length", id="wrong length"),
        pytest.param(Fault(STORAGE, "status", 404, times=99), "answered 404", id="file gone"),
        pytest.param(Fault("GET /api", "status", 403, times=99), "refused", id="forbidden"),
        pytest.param(Fault("GET /api", "status", 500, times=99), "cannot be reached .HTTP 500", id="500 for ever"),
    ],
)
def test_a_lasting_fault_is_one_clear_error_and_keeps_nothing(ready, folder, fault, said):
    ready.faults = [fault]
    with pytest.raises(HubError, match=said) as caught:
        fetch(ready, folder)
    assert caught.value.fix
    assert "X-Signature" not in str(caught.value)
    assert not leftovers(folder)
    assert not [path for path in folder.rglob("model.safetensors") if path.exists()]


def test_a_cut_download_is_resumed_and_not_begun_again(ready, folder):
    ready.faults = [Fault(STORAGE, "cut", 5_000_000)]
    fetch(ready, folder)
    assert len(ready.storage_requests) == 2


def test_an_unreachable_hub_answers_from_the_cache_and_says_so(ready, folder):
    fetch(ready, folder)
    ready.faults = [Fault("GET /api", "status", 503, times=99)]
    located = locate(NAME, hub=ready.url, cache_dir=folder)
    assert "could not be reached" in located.snapshot.notes[0]
    assert located.fetch()[0].exists()


def test_a_damaged_cache_entry_is_dropped_and_fetched_again_once(ready, nano_timm, folder):
    fetch(ready, folder)
    blob = (next(folder.rglob("model.safetensors"))).resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    assert [damage.file for damage in cache.verify(folder)[1]] == [blob]
    with pytest.raises(HubError, match="damaged in the cache"):
        locate(NAME, hub=ready.url, cache_dir=folder, offline=True).fetch()
    ready.forget()
    assert fetch(ready, folder) == nano_timm["model.safetensors"]
    assert len(ready.storage_requests) == 1
    assert cache.verify(folder)[1] == []


def in_a_process(server, folder, body: str, **options) -> subprocess.Popen:
    environment = {**os.environ, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **options.pop("env", {})}
    code = f"from xcit_hub.hub.locate import locate\nserver, folder = {server.url!r}, {str(folder)!r}\n{body}"
    return subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, stderr=subprocess.PIPE, **options)


FETCH = f"print(locate({NAME!r}, hub=server, cache_dir=folder).fetch())"


def test_a_killed_download_leaves_a_cache_that_the_next_one_completes(ready, nano_timm, folder):
    ready.faults = [Fault(STORAGE, "stall", 60)]
    process = in_a_process(ready, folder, FETCH)
    wait_for(lambda: leftovers(folder) and ready.storage_requests)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    ready.go_on.set()
    assert not list(folder.rglob("model.safetensors"))
    assert len(leftovers(folder)) == 1
    assert fetch(ready, folder) == nano_timm["model.safetensors"]
    removed = cache.prune(folder)
    assert any(path.name.endswith(".incomplete") for path, _ in removed)
    assert not leftovers(folder)
    assert fetch(ready, folder) == nano_timm["model.safetensors"]


@pytest.mark.parametrize("where", ["GET /api/models/", "GET .*/resolve/.*config.json", "HEAD .*/resolve/.*config.json"])
def test_the_token_does_not_follow_a_redirect_to_another_host(ready, nano_timm, folder, where):
    commit = ready.repositories[NAME].at("main")
    elsewhere = "/elsewhere"
    if "api" in where:
        siblings = [{"rfilename": path, "size": len(data)} for path, data in commit.files.items()]
        ready.pages[elsewhere] = json.dumps({"id": NAME, "sha": commit.oid, "siblings": siblings}).encode()
    else:
        ready.pages[elsewhere] = nano_timm["config.json"]
    known = {"X-Repo-Commit": commit.oid, "X-Linked-Etag": f'"{git_sha1(nano_timm["config.json"])}"'}
    size = {"X-Linked-Size": str(len(nano_timm["config.json"]))}
    ready.faults = [
        Fault(where, "status", 302, headers={"Location": f"{ready.storage_url}{elsewhere}", **known, **size})
    ]
    assert fetch(ready, folder) == nano_timm["model.safetensors"]
    assert ready.faults[0].times == 0
    assert any(path == elsewhere for _, path, _ in ready.storage_requests)
    assert not [given for _, _, given in ready.storage_requests if given]


def test_the_clients_warnings_show_no_signature_and_no_token(ready, folder):
    ready.faults = [Fault(STORAGE, "cut", 5_000_000), Fault(STORAGE, "status", 429, headers={"Retry-After": "0"})]
    process = in_a_process(ready, folder, FETCH, stdout=subprocess.PIPE)
    out, said = process.communicate(timeout=600)
    assert "Trying to resume" in said or "Retrying" in said
    assert "X-Signature" not in out + said
    assert TOKEN not in out + said


def test_a_full_disk_is_one_clear_error(ready, folder):
    # The kernel refuses to let the file grow, as a full disk does; mounting a small one needs rights.
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))

    body = (
        f"from xcit_hub.errors import HubError\ntry:\n    {FETCH}\nexcept HubError as e:\n    raise SystemExit(str(e))"
    )
    process = in_a_process(ready, folder, body, preexec_fn=limit)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "Cannot keep the file: File too large" in said
    assert "Traceback" not in said
    assert not leftovers(folder)


def test_eight_processes_at_once_get_the_same_whole_file(ready, nano_timm, folder):
    processes = [in_a_process(ready, folder, FETCH, stdout=subprocess.PIPE) for _ in range(8)]
    answers = {process.communicate(timeout=600) for process in processes}
    assert {process.returncode for process in processes} == {0}, answers
    assert len({out for out, _ in answers}) == 1
    assert cache.verify(folder) == (2, [])
    assert fetch(ready, folder) == nano_timm["model.safetensors"]


# ---- publishing


@pytest.fixture
def publish(server, nano_ckpt):
    return lambda **options: xcit_hub.publish(nano_ckpt, "org/nano", to=server.url, parity=False, **options)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("POST .*/create", "status", 500, times=2), id="500 twice at creation"),
        pytest.param(Fault("POST .*/preupload", "status", 429, headers={"Retry-After": "0"}), id="429 at preupload"),
        pytest.param(Fault("PUT /put/", "status", 500), id="500 for a part"),
        pytest.param(Fault("POST .*/commit/", "status", 500, times=2), id="500 twice at the commit"),
        pytest.param(Fault("POST .*/commit/", "cut", 0), id="the commit's answer is lost"),
    ],
)
def test_publishing_overcomes_a_passing_fault_with_one_commit(server, publish, fault):
    server.faults = [fault]
    done = publish()
    assert fault.times == 0
    repository = server.repositories["org/nano"]
    assert [commit.title for commit in repository.commits.values()] == ["initial commit", "Publish nano with xcit-hub"]
    assert done.revision == repository.refs["main"]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("PUT /put/", "status", 403, times=99), id="storage refuses"),
        pytest.param(Fault("POST .*/batch", "status", 400, times=99), id="LFS refuses"),
        pytest.param(Fault("POST .*/commit/", "status", 400, times=99), id="the commit is refused"),
    ],
)
def test_a_publication_that_fails_publishes_nothing(server, publish, fault):
    server.faults = [fault]
    with pytest.raises(HubError) as caught:
        publish()
    assert caught.value.fix
    assert "X-Signature" not in str(caught.value)
    assert set(server.repositories["org/nano"].at("main").files) == {".gitattributes"}


def test_a_hub_that_gives_back_other_bytes_is_found_out(server, publish):
    server.faults = [Fault("GET .*/resolve/.*README.md", "bytes", times=99)]
    with pytest.raises(HubError, match="not the ones"):
        publish()
