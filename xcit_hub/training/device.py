"""The process before training: device, mode, and its place among the workers that msrun or mpirun started."""

from __future__ import annotations

import atexit
import os
import re
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

import mindspore
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from numpy.typing import NDArray

from xcit_hub.data.batches import Stream, Worker
from xcit_hub.errors import InputError, XcitHubError, first_line
from xcit_hub.models.functions import device_target
from xcit_hub.models.private import stop_queue
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.watch import watch_workers

_Result = TypeVar("_Result")
_HALF = 1 << 20
_COMPILE_CACHE = "MS_COMPILER_CACHE_ENABLE"
_OTHER_RANK_TABLE = "MINDSPORE_HCCL_CONFIG_PATH"
_ALSO = {"mpirun": " and GPU"}
_HOW_MANY = {"msrun": "MS_WORKER_NUM", "mpirun": "OMPI_COMM_WORLD_SIZE"}
# MindSpore compiles at most 1,000 calls within one another unless it is told otherwise. The gradient of 24 layers by
# its own operations takes more than 1,200; its own THOR asks for as many as this.
_CALLS_WITHIN_CALLS = 10_000
# By what a dynamic cluster finds together; a wrong one MindSpore answers with its stack, or by waiting.
_CLUSTER = {
    "MS_ROLE": (r"MS_SCHED|MS_WORKER", "MS_SCHED or MS_WORKER"),
    "MS_WORKER_NUM": (r"[1-9]\d{0,5}", "how many workers there are"),
    "MS_SCHED_HOST": (r"[\w.:\[\]-]{1,253}", "the scheduler's address"),
    "MS_SCHED_PORT": (
        r"[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5]",
        "its port, up to 65,535",
    ),
}
_joined: list[Worker] = []  # this process, once it has joined others


def started_by() -> str | None:
    """Name what started this process as one of several workers; None if nothing did.

    ``msrun``, and MindSpore's dynamic cluster, which is what msrun sets up: ``MS_ROLE`` and ``MS_WORKER_NUM``.
    ``mpirun``: OpenMPI's variables. ``rank table``: ``RANK_TABLE_FILE`` and this process's ``RANK_ID``.
    ``dry run``: ``MS_SIMULATION_LEVEL``, under which one process stands for a worker of ``RANK_SIZE``.
    """
    named = os.environ.get
    if named("MS_SIMULATION_LEVEL") and named("RANK_SIZE"):
        return "dry run"
    if named("MS_WORKER_NUM") and named("MS_ROLE"):
        return "msrun"
    if named("OMPI_COMM_WORLD_SIZE"):
        return "mpirun"
    return "rank table" if named("RANK_ID") and (named("RANK_TABLE_FILE") or named(_OTHER_RANK_TABLE)) else None


def prepare(recipe: Recipe, *, distribute: bool) -> Worker:
    """Choose device, mode and compilation level, and join the other workers.

    Args:
        distribute: whether there are other workers.

    Raises:
        InputError: the device does not exist, nobody started workers or they were and are not joined, or MindSpore's
            compile cache is on.
        XcitHubError: the workers cannot be joined.
    """
    if not distribute:
        _check_alone()
    cached = os.environ.get(_COMPILE_CACHE) == "1" or mindspore.get_context("enable_compile_cache")
    if cached and recipe.mode == mindspore.GRAPH_MODE:
        # Seen: a run with another weight decay trained with the old one, to the last digit.
        raise InputError(
            "MindSpore's compile cache is on, and it takes an old graph for a changed recipe's.",
            where=_COMPILE_CACHE,
            fix="Unset it (or enable_compile_cache); or train with --mode 1, without a graph.",
        )
    # MindSpore refuses even the device it already runs on once something has been computed.
    if recipe.device_target not in ("auto", device_target()):
        try:
            mindspore.set_device(recipe.device_target)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"This MindSpore cannot use {recipe.device_target}.",
                where="device_target",
                fix="Choose auto, or install MindSpore for that device.",
            ) from error
    mindspore.set_context(mode=recipe.mode)
    return _join() if distribute else Worker()


def _check_alone() -> None:
    """Make sure that nobody started other processes, each of which would train alone and write the same files."""
    launcher = started_by()
    count = os.environ.get(_HOW_MANY.get(launcher or "", ""), "1")
    if count != "1":
        raise InputError(
            f"{launcher} started {count[:20]} processes, and distribute is off: each of them would train alone.",
            where="distribute",
            fix=f"Pass --distribute True, or start one process without {launcher}.",
        )


def compile_level(recipe: Recipe) -> str:
    """Return the level that graphs are compiled at here; empty where it is MindSpore's to choose.

    O2 is CANN's compiler, which only Ascend has.
    """
    elsewhere = recipe.jit_level == "O2" and device_target() != "Ascend"
    return "" if elsewhere or recipe.mode != mindspore.GRAPH_MODE else recipe.jit_level


def allow_deep_calls() -> None:
    """Let MindSpore compile the gradients of networks of 24 layers, for the whole process."""
    mindspore.set_recursion_limit(_CALLS_WITHIN_CALLS)


def compile_at(cell: nn.Cell, recipe: Recipe) -> None:
    """Have the graphs that begin with ``cell`` compiled however deep, and at the recipe's level, where it names one."""
    allow_deep_calls()
    if level := compile_level(recipe):
        cell.set_jit_config(mindspore.JitConfig(jit_level=level))


def _join() -> Worker:
    launcher = started_by()
    if launcher is None:
        raise InputError(
            "The recipe says distribute, but this process is alone.",
            where="distribute",
            fix="Start it as `msrun --worker_num N … python train.py …`, or pass --distribute False.",
        )
    if launcher != "msrun" and device_target() == "CPU":
        raise InputError(
            f"By {launcher} MindSpore cannot join workers on CPU; that way is for Ascend{_ALSO.get(launcher, '')}.",
            where="distribute",
            fix="Use msrun --worker_num N --local_worker_num N --join True python train.py …",
        )
    if launcher == "msrun":
        _check_cluster()
    from mindspore import communication

    if os.environ.get("MS_ROLE") == "MS_SCHED":
        watch_workers()  # this process stays in init() until the last worker is gone
    try:
        communication.init()
    except RuntimeError as error:
        raise XcitHubError(
            f"The workers cannot be joined: {first_line(error)}.",
            where="distribute",
            fix="See that all workers run, and that nothing blocks their ports.",
        ) from error
    count = int(communication.get_group_size())
    mindspore.set_auto_parallel_context(
        parallel_mode=mindspore.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=count
    )
    _joined[:] = [Worker(rank=int(communication.get_rank()), count=count)]
    return _joined[0]


def _check_cluster() -> None:
    for name, (pattern, what) in _CLUSTER.items():
        value = os.environ.get(name, "")
        if re.fullmatch(pattern, value, re.ASCII) is None:
            raise InputError(
                f"{name} is {value[:60]!r}, not {what}." if value else f"{name} is not set.",
                where=name,
                fix="Start the workers with msrun, which sets it; by hand give it to each of them and the scheduler.",
            )


def is_first() -> bool:
    """Whether this process is the only worker, or the one that speaks for all."""
    if _joined:  # a dynamic cluster gives its workers no rank before
        return _joined[0].rank == 0
    rank = os.environ.get("RANK_ID") or os.environ.get("OMPI_COMM_WORLD_RANK") or "0"
    return started_by() is None or rank == "0"


def leave() -> None:
    """Part from the other workers in good order, as the last thing that a process does with MindSpore.

    A process that ends by ``os._exit`` skips the hooks by which MindSpore tells the scheduler that it is done, and the
    launcher takes that for a crash.
    """
    if started_by() is not None:
        sys.stdout.flush()
        atexit._run_exitfuncs()


def has_queue() -> bool:
    """Whether the device takes batches from a queue of its own (``mindspore.data_sink``); the CPU has none."""
    return device_target() != "CPU"


def fed(
    step: Callable[..., _Result],
    stream: Stream,
    *,
    sink: bool,
    graph: Callable[..., _Result] | None = None,
    jit_level: str = "",
) -> Generator[_Result, None, None]:
    """Call ``step`` with every row of ``stream``, as tensors, and yield what it returns.

    Args:
        sink: send the rows through the device's own queue, where it has one.
        graph: the same as ``step`` as a function that one graph can hold, together with what takes a row from the
            queue; None where a step is more than a graph.
        jit_level: of that graph.
    """
    if not (sink and has_queue()):
        for row in stream.rows(as_tensors=True):
            yield step(*row)
        return
    config = None if graph is None else mindspore.JitConfig(jit_level=jit_level)
    sunk = mindspore.data_sink(graph or step, stream.dataset, jit_config=config)
    try:
        for _ in range(len(stream)):
            yield sunk()
    finally:
        stop_queue(stream.dataset)


def reads_after(recipe: Recipe, step: int) -> bool:
    """Tell whether the host reads figures after a step of an epoch, counted from 1: a read holds up the queue."""
    queued = recipe.dataset_sink_mode and has_queue()
    saved = recipe.recovery_interval and not step % recipe.recovery_interval
    return not queued or bool(saved) or not step % recipe.log_interval


def in_groups(results: Iterator[_Result], ends: Callable[[int], bool]) -> Iterator[tuple[_Result, bool]]:
    """Yield what ``results`` yields, and whether it is the last of its group: a group is computed, then handed out.

    Args:
        ends: whether a group ends with the so-manieth result, counted from 1. The first one is a group of its own: it
            compiles.
    """
    group: list[_Result] = []
    for place, result in enumerate(results, 1):
        group.append(result)
        if place == 1 or ends(place):
            yield from _marked(group)
            group = []
    yield from _marked(group)


def _marked(group: list[_Result]) -> Iterator[tuple[_Result, bool]]:
    return ((result, place == len(group)) for place, result in enumerate(group, 1))


def mean(values: NDArray[np.float32], worker: Worker) -> NDArray[np.float32]:
    """Average an array over all workers."""
    if worker.count == 1:
        return values
    summed: NDArray[np.float32] = ops.AllReduce()(Tensor(values)).asnumpy()
    return summed / np.float32(worker.count)


def average(parameters: Sequence[Parameter], worker: Worker) -> None:
    """Give every worker the mean of all workers' values of float32 ``parameters``, in one exchange."""
    if worker.count == 1 or not parameters:
        return
    values = [entry.asnumpy() for entry in parameters]
    together = mean(np.concatenate([value.ravel() for value in values]), worker)
    for entry, part in zip(
        parameters, np.split(together, np.cumsum([value.size for value in values])[:-1]), strict=True
    ):
        entry.set_data(Tensor(part.reshape(entry.shape)))


def gather(numbers: Sequence[int], limit: int, worker: Worker) -> list[int]:
    """Return the sorted numbers of all workers; each may bring up to ``limit`` of them, below 2⁴³."""
    if worker.count == 1 or not limit:
        return sorted(numbers)
    table = np.zeros((worker.count, limit, 2), np.int64)
    # Zero is an empty place; two halves stay exact in float32.
    table[worker.rank, : len(numbers)] = [divmod(number + 1, _HALF) for number in numbers] or np.zeros((0, 2))
    table = total(table, worker)
    return sorted(int(high * _HALF + low) - 1 for high, low in table.reshape(-1, 2) if high or low)


def total(counts: NDArray[np.int64], worker: Worker) -> NDArray[np.int64]:
    """Sum integers over all workers, in float32, which holds sums below 2²⁴ exactly (the CPU reduces no integers)."""
    if worker.count == 1:
        return counts
    summed: NDArray[np.int64] = ops.AllReduce()(Tensor(counts.astype(np.float32))).asnumpy().astype(np.int64)
    return summed
