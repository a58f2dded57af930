"""The process before training: device, mode, and its place among the workers that msrun or mpirun started."""

from __future__ import annotations

import atexit
import os
import sys

import mindspore
import numpy as np
from mindspore import Tensor, ops
from numpy.typing import NDArray

from xcit_hub.data.batches import Worker
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.models.kernels import device_target
from xcit_hub.training.recipe import Recipe


def started_by() -> str | None:
    """Name the launcher of this process: ``msrun``, ``mpirun``, or None."""
    if "MS_WORKER_NUM" in os.environ and "MS_ROLE" in os.environ:
        return "msrun"
    return "mpirun" if "OMPI_COMM_WORLD_SIZE" in os.environ else None


def prepare(recipe: Recipe, *, distribute: bool) -> Worker:
    """Choose device, mode and compilation level, and join the other workers.

    Args:
        distribute: whether there are other workers.

    Raises:
        InputError: the device does not exist, or nobody started workers.
        XcitHubError: the workers cannot be joined.
    """
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
    if recipe.jit_level and recipe.mode == mindspore.GRAPH_MODE:
        mindspore.set_context(jit_config={"jit_level": recipe.jit_level})
    return _join() if distribute else Worker()


def _join() -> Worker:
    launcher = started_by()
    if launcher is None:
        raise InputError(
            "The recipe says distribute, but this process is alone.",
            where="distribute",
            fix="Start it as `msrun --worker_num N … python train.py …`, or pass --distribute False.",
        )
    if launcher == "mpirun" and device_target() == "CPU":
        raise InputError(
            "Under mpirun MindSpore cannot join workers on CPU; that launcher is for Ascend and GPU.",
            fix="Use msrun --worker_num N --local_worker_num N --join True python train.py …",
        )
    from mindspore import communication

    try:
        communication.init()
    except RuntimeError as error:
        raise XcitHubError(
            f"The workers cannot be joined: {str(error).splitlines()[0]}",
            fix="See that all workers run, and that nothing blocks their ports.",
        ) from error
    count = int(communication.get_group_size())
    mindspore.set_auto_parallel_context(
        parallel_mode=mindspore.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=count
    )
    return Worker(rank=int(communication.get_rank()), count=count)


def is_first() -> bool:
    """Whether this process is the only worker, or the one that speaks for all."""
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


def mean(value: float, worker: Worker) -> float:
    """Average a number over all workers, in float32."""
    if worker.count == 1:
        return value
    return float(ops.AllReduce()(Tensor(np.array([value], np.float32))).asnumpy()[0]) / worker.count


def total(counts: NDArray[np.int64], worker: Worker) -> NDArray[np.int64]:
    """Sum integers over all workers, in float32, which holds sums below 2²⁴ exactly (the CPU reduces no integers)."""
    if worker.count == 1:
        return counts
    summed: NDArray[np.int64] = ops.AllReduce()(Tensor(counts.astype(np.float32))).asnumpy().astype(np.int64)
    return summed
