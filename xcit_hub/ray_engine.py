"""Images answered by the workers of a Ray cluster, each once, in their order, whatever becomes of a worker.

The images are shared out in parts. A worker has one part at a time, so that one who dies has died of that part or of
something else: the part goes to another one, the second time image by image, and an image that three workers have died
of is named as a problem. Ray's own retries would never end there.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xcit_hub.data.shards import Stored
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.files import scratch_folder
from xcit_hub.prediction import Answer, name_of
from xcit_hub.predictor import Predictor

Image = Path | Stored
Stage = Callable[[str], None]
Tell = Callable[[Sequence[str]], None]

LOCAL = "local"
"""The address of a cluster of this machine alone, which listens on loopback and ends with the command."""

_CPUS = 2  # of a worker, where there are so many: one decodes while the other computes
_PART = 4  # batches
_DEATHS = 3  # of workers, after which an image is named as their cause
_MOST_DEATHS = 20  # of workers, one after the other
_STORE = 128 << 20  # bytes of the object store of a cluster of our own; answers are small
_FOLDER = Path("/tmp")  # noqa: S108  # where TMPDIR is longer, the names of Ray's sockets are too long for the system
_ATTEMPTS = 5  # to start a cluster of our own
_LONGEST_START = 600  # seconds for a process of a cluster of our own, on a machine that is busy
_PATIENCE = 10.0  # seconds for a cluster to take a connection


@dataclass(frozen=True)
class _Part:
    """Images that one worker answers.

    Args:
        first: position of its first image.
        deaths: how many workers have died with it.
    """

    first: int
    images: tuple[Image, ...]
    deaths: int = 0


def answers_on_ray(
    predictor: Predictor,
    images: Sequence[Image],
    *,
    address: str | None = None,
    workers: int | None = None,
    stage: Stage = lambda _: None,
    tell: Tell = lambda _: None,
) -> Iterator[Answer]:
    """Yield an answer an image, in their order.

    Args:
        predictor: what every worker computes with; its ``threads`` become a worker's share of the cluster's cores.
        images: files and images in shards; every worker reads them under the same absolute path.
        address: of a cluster, ``HOST:PORT`` or ``auto``; :data:`LOCAL` or None starts one of this machine alone.
        workers: processes; by default one for two cores of a machine, or for each core where no machine has two.
        stage: told in a few words what is going on.
        tell: told with every part what its worker dropped or assumed of the model.

    Raises:
        InputError: Ray is not installed, or the cluster has not so many cores.
        XcitHubError: the cluster cannot be reached, or its workers cannot work; what a predictor raises.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError("Ray is not installed.", where="--engine ray", fix="pip install 'xcit-hub[ray]'")
    absolute = [image if isinstance(image, Stored) else Path(os.path.abspath(image)) for image in images]  # noqa: PTH100
    names = [name_of(image, number) for number, image in enumerate(images)]
    with cluster(address, workers or 1, stage):
        for position, answer in enumerate(_answers(predictor, absolute, workers, stage, tell)):
            yield replace(answer, image=names[position])


def _answers(
    predictor: Predictor, images: Sequence[Image], workers: int | None, stage: Stage, tell: Tell
) -> Iterator[Answer]:
    import ray

    count, cpus = _shares([int(each["Resources"].get("CPU", 0)) for each in ray.nodes() if each["Alive"]], workers)
    size = predictor.batch * _PART
    parts = [_Part(first, tuple(images[first : first + size])) for first in range(0, len(images), size)]
    count = min(count, len(parts))
    stage(f"{count} workers of {cpus} cores start")
    hired = ray.remote(num_cpus=cpus, max_restarts=0, max_task_retries=0)(_Worker)
    team = _Team(lambda: hired.remote(replace(predictor, threads=cpus)), count)
    try:
        yield from _in_order(_worked_off(deque(parts), team, tell))
    finally:
        team.dismiss()


def _worked_off(waiting: deque[_Part], team: _Team, tell: Tell) -> Iterator[tuple[int, list[Answer]]]:
    """Yield the position of a part's first image and its answers, in the order in which they come."""
    at_work: dict[Any, tuple[Any, _Part]] = {}
    deaths = 0
    while waiting or at_work:
        while waiting and (worker := team.idle()):
            part = waiting.popleft()
            at_work[worker.answer.remote(part.images)] = (worker, part)
        done = _next_done(list(at_work))
        worker, part = at_work.pop(done)
        found = _result(done)
        if found is not None:
            deaths = 0
            team.is_idle_again(worker)
            answers, notes = found
            tell(notes)
            yield part.first, answers
            continue
        deaths += 1
        if deaths > _MOST_DEATHS:
            raise XcitHubError(
                f"{deaths} workers died one after the other, and none of them answered.",
                where="the Ray cluster",
                fix="See the cluster's logs; it may lack memory: ask for fewer --workers.",
            )
        team.replace(worker)
        part = replace(part, deaths=part.deaths + 1)
        if part.deaths >= _DEATHS and len(part.images) == 1:
            problem = f"{part.deaths} workers died of it, one after the other"
            yield part.first, [Answer(name_of(part.images[0], part.first), (), problem)]
        elif part.deaths > 1:
            single = [replace(part, first=part.first + n, images=(image,)) for n, image in enumerate(part.images)]
            waiting.extendleft(reversed(single))
        else:
            waiting.appendleft(part)


def _in_order(found: Iterator[tuple[int, list[Answer]]]) -> Iterator[Answer]:
    early: dict[int, list[Answer]] = {}
    due = 0
    for first, answers in found:
        early[first] = answers
        while due in early:
            ready = early.pop(due)
            due += len(ready)
            yield from ready


_Found = tuple[list[Answer], tuple[str, ...]]


class _Worker:
    """What runs in a worker's process."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def answer(self, images: Sequence[Image]) -> _Found:
        return list(self.predictor.answers(images)), self.predictor.notes


class _Team:
    """The workers; one that dies is replaced."""

    def __init__(self, hire: Callable[[], Any], count: int) -> None:
        self._hire = hire
        self._idle = deque(hire() for _ in range(count))
        self._all = list(self._idle)

    def idle(self) -> Any:
        """Return one without work, or None; it has work then."""
        return self._idle.popleft() if self._idle else None

    def is_idle_again(self, worker: Any) -> None:
        self._idle.append(worker)

    def replace(self, worker: Any) -> None:
        self._all.remove(worker)
        self._all.append(self._hire())
        self._idle.append(self._all[-1])

    def dismiss(self) -> None:
        import ray

        if ray.is_initialized():
            for worker in self._all:
                ray.kill(worker)


def _next_done(at_work: Sequence[Any]) -> Any:
    import ray

    return ray.wait(at_work, num_returns=1)[0][0]


def _result(done: Any) -> _Found | None:
    """Return a part's answers and its worker's notes, or None where the worker has died.

    Raises:
        XcitHubError: it cannot work.
    """
    import ray

    try:
        found: _Found = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, XcitHubError):
            raise error.cause from None
        raise _cannot_work(error) from error
    except ray.exceptions.RayActorError as error:
        if "ImportError" in str(error) or "ModuleNotFoundError" in str(error):
            raise _cannot_work(error) from error
        return None
    except (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.ObjectLostError,  # the answers went with the machine that held them
    ):
        return None
    except ray.exceptions.RayError as error:
        raise _cannot_work(error) from error
    return found


def _cannot_work(error: Exception) -> XcitHubError:
    last = ([line for line in str(error).splitlines() if line.strip()] or ["it said nothing"])[-1]
    return XcitHubError(
        f"A worker of the Ray cluster failed: {last.strip()}",
        where="the Ray cluster",
        fix="Install the same xcit-hub, with the same Python, on every machine of the cluster.",
    )


def _shares(machines: Sequence[int], workers: int | None) -> tuple[int, int]:
    """Return the number of workers and the cores of each, all of one machine: Ray waits for ever for what none has.

    Args:
        machines: the cores of each.
    """
    cores = sum(machines)
    if cores < 1 or (workers or 1) > cores:
        raise InputError(
            f"The cluster has {cores} cores, and a worker takes one at least.",
            where="--workers",
            fix=f"Ask for {cores} workers at most." if cores else "Join a cluster that computes.",
        )
    room = sum(each // _CPUS for each in machines)
    return (workers or room, _CPUS) if room >= (workers or 1) else (workers or cores, 1)


@contextmanager
def cluster(address: str | None = None, workers: int = 1, stage: Stage = lambda _: None) -> Iterator[None]:
    """Join a cluster, or start one; what was started ends. Who has joined one already keeps it.

    Args:
        address, stage: see :func:`answers_on_ray`.
        workers: for which one of this machine has cores, even if they have to share those that there are.

    Raises:
        InputError, XcitHubError: see :func:`answers_on_ray`.
    """
    # Both are read when Ray is imported: nothing is sent to its makers, and a cluster of our own listens on loopback.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = address in (None, LOCAL)
    if own:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    _settle(own)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    try:
        if not own:
            stage(f"joining the cluster at {address}")
            _reach(str(address))
            _started(1, address=address, **quiet)
            yield
            return
        stage("starting a cluster of this machine")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray keeps one in the user's home
        with scratch_folder(_FOLDER) as folder:
            cores = max(len(os.sched_getaffinity(0)), workers)
            patience = {
                "worker_register_timeout_seconds": _LONGEST_START,
                "agent_register_timeout_ms": 1000 * _LONGEST_START,
            }
            machine = {"num_cpus": cores, "object_store_memory": _STORE, "_temp_dir": str(folder)}
            machine |= {"_system_config": patience}
            _started(_ATTEMPTS, address=LOCAL, include_dashboard=False, **machine, **quiet)
            try:
                yield
            finally:
                ray.shutdown()  # while its folder is there
    finally:
        ray.shutdown()


def _settle(own: bool) -> None:
    """Set what only private names of Ray's set; where a release renames one, Ray talks and listens as it likes."""
    from ray._private import ray_constants, worker

    if hasattr(worker, "print_to_stdstream"):  # it tells of dead workers on the standard output, where answers go
        worker.print_to_stdstream = lambda *_, **__: None
    if own and hasattr(ray_constants, "ENABLE_RAY_CLUSTER"):  # it was imported before
        ray_constants.ENABLE_RAY_CLUSTER = False


def _started(attempts: int, **options: Any) -> None:
    import ray

    for left in reversed(range(attempts)):
        try:
            ray.init(**options)
            return
        except Exception as error:  # Ray's own are of any class, Exception itself among them
            ray.shutdown()
            if left and "timed out" in str(error):  # after 30 seconds, which a busy machine may need
                continue
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise XcitHubError(
                f"Ray does not start: {lines[0] if lines else type(error).__name__}",
                where=options["address"],
                fix="Check the address, and that the cluster has the same versions of Ray and Python.",
            ) from error


def _reach(address: str) -> None:
    """Ray itself waits half a minute for a cluster that is not there, and says so in many lines."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal():
        raise InputError(f"{address!r:.200} is not a cluster's address.", where="--address", fix="Write HOST:PORT.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise XcitHubError(
            f"There is no cluster: {getattr(error, 'strerror', None) or error}.",
            where=address,
            fix="Check the address.",
        ) from error
