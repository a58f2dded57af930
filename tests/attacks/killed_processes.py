"""Tries, by killing it at every step, to make a process leave something half-done that is taken for whole.

A kill comes at a counted step, whatever the clock says: before the n-th change to the folder that is worked on, in the
middle of the file that is written then, or before and after the hub's work on the n-th request.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, util
from pathlib import Path
from typing import Any

from ledger import Attack, Case, LeftoverError, expect
from victims import NAME, nano, nano_mindcv, nobodys_machine, own_server, repository, workshop

KILLS = 66  # a few of them come to their end before
_ALIVE = 900  # seconds after which a child that nobody killed counts as hung
_CHANGES = {
    "open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate",
}  # fmt: skip


@dataclass(frozen=True)
class Kill:
    """When a process is killed: at its n-th change below ``folder``, 0 for never.

    Args:
        half: go on for two steps, and be killed earlier where a file grows past so many bytes.
        count: the file into which the steps are counted.
    """

    folder: str
    step: int = 0
    half: int = 0
    count: str = ""


# ---- in the process that is to be killed


def child(work: Callable[..., None], given: tuple[Any, ...], kill: Kill, environment: dict[str, str]) -> None:
    """Do work, and be killed at it."""
    os.environ.update(environment)
    tempfile.tempdir = environment["TMPDIR"]
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    Path(environment["TMPDIR"]).mkdir(exist_ok=True)
    done = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if event not in _CHANGES or not _changes(event, arguments, kill.folder):
            return
        done += 1
        if done == kill.step and kill.half:
            resource.setrlimit(resource.RLIMIT_FSIZE, (kill.half, kill.half))
        elif done in (kill.step, kill.step + 3 if kill.half else 0):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    with Path(environment["SAID"]).open("a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    work(*given)
    if kill.count:
        counted, done = done, -1
        Path(kill.count).write_text(str(counted))
    os._exit(0)


def _changes(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    if event == "open":
        path, mode, flags = arguments
        if not isinstance(path, str) or not path.startswith(folder):
            return False
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(flags, int) else "r" not in str(mode)
    return any(isinstance(path, str | os.PathLike) and os.fspath(path).startswith(folder) for path in arguments[:2])


def publish(source: str, hub: str) -> None:
    import xcit_hub

    xcit_hub.publish(source, NAME, to=hub, parity=False)


def publish_by_http(source: str, url: str) -> None:
    _as_user_of(url)
    publish(source, url)


def download(url: str, folder: str) -> None:
    from xcit_hub.hub.locate import locate

    _as_user_of(url)
    locate(NAME, hub=url, cache_dir=folder).open()


def train(data: str, folder: str, resume: bool) -> None:
    from mini_train import LEAST, register

    register()
    from xcit_hub.training.engine import train as run
    from xcit_hub.training.recipe_file import load_recipe

    recipe = load_recipe(None, {
        "model": LEAST, "mode": 1, "dataset": "imagefolder", "image_resize": 32, "warmup_epochs": 0, "dialect": "paper",
        "num_parallel_workers": 1, "epoch_size": 200, "batch_size": 6, "keep_checkpoint_max": 2, "data_dir": data,
        "ckpt_save_dir": folder, "weight_decay_filter": "paper", "ema": True,
    })  # fmt: skip
    run(recipe, resume=resume, as_json=True)


def _as_user_of(url: str) -> None:
    from hub_server import TOKEN
    from huggingface_hub import constants

    os.environ["HF_TOKEN"] = TOKEN
    constants.ENDPOINT = url
    constants.HUGGINGFACE_CO_URL_TEMPLATE = url + "/{repo_id}/resolve/{revision}/{filename}"


# ---- in the process that kills


@functools.cache
def _nursery() -> Any:
    """Where children come from: a process that has imported everything and done nothing."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["killed_processes", "mindspore", "xcit_hub.hub.publish", "xcit_hub.hub.network"])
    util.get_temp_dir()  # its socket's place; not in a case's own folder
    forkserver.ensure_running()
    return made


def _run(
    folder: Path, work: Callable[..., None], given: tuple[Any, ...], kill: Kill, on_start: Callable[[int], None] = id
) -> int:
    environment = {"TMPDIR": str(folder / "tmp"), "HF_HUB_CACHE": str(folder / "cache"), "GLOG_v": "3"}
    environment["SAID"] = str(folder / "said")
    process = _nursery().Process(target=child, args=(work, given, kill, environment))
    process.start()
    on_start(process.pid)
    process.join(_ALIVE)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError(f"the process came neither to its step nor to an end: {_last_words(folder)}")
    code = process.exitcode
    process.close()
    expect(code in (0, -signal.SIGKILL, -signal.SIGXFSZ), f"it ended by itself with {code}: {_last_words(folder)}")
    return int(code)


def _last_words(folder: Path) -> str:
    return (folder / "said").read_text(errors="replace")[-600:] if (folder / "said").exists() else ""


def _steps(folder: Path, watched: Path, work: Callable[..., None], given: tuple[Any, ...]) -> int:
    """Count the steps of work that nobody disturbs."""
    told = folder / "steps"
    _run(folder, work, given, Kill(str(watched), count=str(told)))
    return int(told.read_text())


def _no_leftovers(folder: Path, *hubs: Path) -> None:
    from xcit_hub.hub import cache

    with _temporary(folder / "tmp"):
        for hub in (*hubs, folder / "cache"):
            cache.prune(hub, age=0)
    left = [path for hub in hubs for path in hub.rglob("*") if path.name.endswith((".incomplete", ".tmp"))]
    left += list((folder / "tmp").iterdir())
    if left:
        raise LeftoverError(str([str(path.relative_to(folder)) for path in left]))


@contextmanager
def _temporary(folder: Path) -> Iterator[None]:
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


# ---- publishing into a folder


def _folder_cases(seed: int) -> list[Case]:
    return [
        Case(f"folder publish, kill {number}", partial(_kill_folder_publish, seed, number)) for number in range(KILLS)
    ]


def _kill_folder_publish(seed: int, number: int, folder: Path) -> int:
    import xcit_hub
    from xcit_hub.hub.locate import locate

    hub, _ = folder / "hub", _nursery()
    steps = _folder_steps()
    chance = random.Random(f"{seed} folder {number}")
    is_first = number % 3 == 0
    with nobodys_machine(folder), _temporary(folder):
        first = None if is_first else xcit_hub.publish(nano(), NAME, to=hub, parity=False).revision
        step, half = chance.randint(1, steps - 3), chance.choice((0, 0, chance.randrange(100, 12_000_000)))
        code = _run(folder, publish, (str(nano_mindcv()), str(hub)), Kill(str(hub), step, half))
        killed = code != 0
        shown = _shown(hub)
        expect(killed or shown not in (None, first), "OK was said, and nothing was published")
        expect(shown is not None or is_first, "the revision that was there is gone")
        if shown is not None:
            expect(xcit_hub.info(NAME, hub=hub).damaged == (), "what is shown is damaged")
            locate(NAME, hub=hub).open()
        done = xcit_hub.publish(nano_mindcv(), NAME, to=hub, parity=False)
        expect(_shown(hub) == done.revision, "publishing again does not publish")
        expect(xcit_hub.info(NAME, hub=hub).damaged == (), "publishing again does not mend")
    _no_leftovers(folder, hub)
    return int(killed)


@functools.cache
def _folder_steps() -> int:
    folder = Path(tempfile.mkdtemp(dir=workshop()))
    return _steps(folder, folder / "hub", publish, (str(nano_mindcv()), str(folder / "hub")))


def _shown(hub: Path) -> str | None:
    from xcit_hub.hub import cache

    return cache.Repository(hub, NAME).commit_of("main") if hub.is_dir() else None


# ---- publishing and downloading by HTTP


def _http_cases(seed: int) -> list[Case]:
    return [Case(f"HTTP publish, kill {number}", partial(_kill_http_publish, seed, number)) for number in range(KILLS)]


def _kill_http_publish(seed: int, number: int, folder: Path) -> int:
    import xcit_hub

    _nursery()
    with own_server(folder) as (server, _), _temporary(folder):
        given = (str(nano()), server.url)
        requests, whole = _http_requests()
        moment, at = random.Random(f"{seed} http {number}").choice(
            [(moment, request) for moment in ("before", "after") for request in range(1, requests + 1)]
        )
        code = _killed_at_request(server, folder, publish_by_http, given, moment, at)
        held = server.repositories.get(NAME)
        files = {} if held is None else {p: c for p, c in held.at("main").files.items() if p != ".gitattributes"}
        expect(not files or files == whole, f"the hub shows {sorted(files)}, not all files or none")
        expect(code != 0 or files, "it was not killed, and nothing is published")
        server.on_request = _nothing
        xcit_hub.publish(nano(), NAME, to=server.url, parity=False)
        files = server.repositories[NAME].at("main").files
        expect({p: c for p, c in files.items() if p != ".gitattributes"} == whole, "publishing again does not publish")
        titles = [commit.title for commit in server.repositories[NAME].commits.values()]
        expect(len(titles) == 2, f"{titles}: one commit is made once")
    _no_leftovers(folder)
    return int(code != 0)


def _nothing(moment: str, number: int) -> None:
    """A server that kills nobody."""


@functools.cache
def _http_requests() -> tuple[int, dict[str, bytes]]:
    """How many requests a publication takes, and what it publishes."""
    from victims import shared_server

    server = shared_server()
    folder = Path(tempfile.mkdtemp(dir=workshop()))
    seen: list[int] = []
    server.on_request = lambda moment, number: seen.append(number)
    _run(folder, publish_by_http, (str(nano()), server.url), Kill(str(folder)))
    files = server.repositories[NAME].at("main").files
    server.forget()
    server.repositories.clear()
    server.objects.clear()
    return max(seen), {path: content for path, content in files.items() if path != ".gitattributes"}


def _killed_at_request(
    server: Any, folder: Path, work: Callable[..., None], given: tuple[Any, ...], moment: str, at: int
) -> int:
    """Run work, and kill it before or after the hub's work on its request number ``at``."""
    started, ended, victim = threading.Event(), threading.Event(), [0]

    def end(now: str, number: int) -> None:
        started.wait(60)
        if (now, number) == (moment, at) and not ended.is_set():
            ended.set()
            os.kill(victim[0], signal.SIGKILL)
        if ended.is_set():
            raise ConnectionAbortedError

    def on_start(process: int) -> None:
        victim[0] = process
        started.set()

    server.on_request = end
    return _run(folder, work, given, Kill(str(folder / "cache")), on_start)


def _download_cases(seed: int) -> list[Case]:
    return [Case(f"download, kill {number}", partial(_kill_download, seed, number)) for number in range(KILLS)]


def _kill_download(seed: int, number: int, folder: Path) -> int:
    import hashlib

    from xcit_hub.hub import cache
    from xcit_hub.hub.locate import locate

    right = hashlib.sha256(repository()["model.safetensors"]).hexdigest()
    store, _ = folder / "cache", _nursery()
    chance = random.Random(f"{seed} download {number}")
    with own_server(folder) as (server, _):
        server.add(NAME, repository())
        given = (server.url, str(store))
        if number % 3 == 2:
            at = chance.randint(1, _download_steps()[1])
            code = _killed_at_request(server, folder, download, given, chance.choice(("before", "after")), at)
        else:
            step = chance.randint(1, _download_steps()[0] - 3)
            half = chance.randrange(100, 11_000_000) if number % 3 else 0
            code = _run(folder, download, given, Kill(str(store), step, half))
        server.on_request = _nothing
        expect(cache.verify(store)[1] == [], "what is in the cache is damaged")
        expect(locate(NAME, hub=server.url, cache_dir=store).open().sha256 == right, "other bytes were loaded")
        expect(cache.verify(store)[1] == [], "what is in the cache is damaged now")
    _no_leftovers(folder, store)
    return int(code != 0)


@functools.cache
def _download_steps() -> tuple[int, int]:
    from victims import shared_server

    server = shared_server()
    folder = Path(tempfile.mkdtemp(dir=workshop()))
    seen: list[int] = []
    was, server.on_request = server.on_request, lambda moment, number: seen.append(number)
    steps = _steps(folder, folder / "cache", download, (server.url, str(folder / "cache")))
    server.on_request = was
    server._numbers = iter(range(1, 1 << 30))
    return steps, max(seen)


# ---- training

_RUNS = 2  # kills of one run, which is taken up again after each


def _training_cases(seed: int) -> list[Case]:
    return [
        Case(f"training, kills of run {number}", partial(_kill_training, seed, number))
        for number in range(KILLS // _RUNS)
    ]


def _kill_training(seed: int, number: int, folder: Path) -> int:
    from image_folder import write_images

    from xcit_hub.checkpoints import checkpoint
    from xcit_hub.files import remove_unfinished
    from xcit_hub.training.resume import STATE

    _nursery()
    data, run = write_images(folder / "data", train=4, val=1), folder / "run"
    chance = random.Random(f"{seed} training {number}")
    done = 0
    for _ in range(_RUNS):
        resume = (run / STATE).exists()
        kill = Kill(str(run), chance.randint(5, 60), chance.choice((0, 0, chance.randrange(100, 900_000))))
        expect(_run(folder, train, (str(data), str(run), resume), kill) != 0, "it came to an end by itself")
        for path in run.glob("*.ckpt"):
            with checkpoint.read(path) as held:
                expect(held.tensors, f"{path.name} is empty")
        if (run / STATE).exists():
            with checkpoint.read(run / STATE) as held:
                now = int(json.loads(held.metadata["progress"])["epochs_done"])
            expect(now >= done, f"it had done {done} epochs, and now {now}")
            done = now
    remove_unfinished(run)  # as the next run begins
    if stale := [path.name for path in run.rglob("*.tmp")]:
        raise LeftoverError(str(stale))
    return _RUNS


ATTACKS = [
    Attack("kills of folder publish", _folder_cases, sample=2, within=1800),
    Attack("kills of HTTP publish", _http_cases, sample=2, within=1800),
    Attack("kills of download", _download_cases, sample=3, within=1800),
    Attack("kills of training", _training_cases, sample=1, within=3600),
]
