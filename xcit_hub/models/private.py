"""Every private name of MindSpore that this package uses, guarded.

A patch release may rename them. Then a network takes milliseconds longer to build or to call, or keeps more memory in
training; it computes the same, and nothing fails at import.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, TypeVar

from mindspore import Tensor, nn
from mindspore.ops import operations

CellT = TypeVar("CellT", bound=nn.Cell)

try:
    # MindSpore's own first values would be computed and thrown away.
    from mindspore.nn.utils import no_init_parameters as _no_init_parameters
except ImportError:
    _no_init_parameters = nullcontext

try:
    try:
        from mindspore.graph.api import _real_phase  # 2.9 and later, which warn of the other place
    except ImportError:
        from mindspore.common.api import _real_phase
    from mindspore.common.hook_handle import _hook_version
except ImportError:
    _real_phase = _hook_version = None


# What a network's cells and parameters are made of.
_MADE_OFTEN = (
    *("Load", "BiasAdd", "Shape", "Reshape", "MatMul", "Dropout", "LayerNorm", "BatchNorm", "Mul", "AssignSub"),
    *("Conv2D", "BatchMatMul", "ReduceMean", "Square", "Sqrt", "Cast", "DType"),
)


def _remember_signatures() -> None:
    """Keep how these are made where ``inspect`` looks first: MindSpore asks it anew for each of a network's 1,000."""
    kinds = (nn.Conv2d, nn.BatchNorm2d, *(getattr(operations, name, object) for name in _MADE_OFTEN))
    for each in {each for kind in kinds for each in kind.__mro__}:
        made = inspect.unwrap(vars(each).get("__init__", len))
        if inspect.isfunction(made):
            made.__signature__ = inspect.signature(made)  # type: ignore[attr-defined]


_remember_signatures()


def supported_cann() -> tuple[str, ...]:
    """Return the versions of CANN that this MindSpore is made for, ``major.minor``; empty where it does not say."""
    try:
        from mindspore.run_check._check_version import AscendEnvChecker

        return tuple(str(version) for version in AscendEnvChecker(None).version)
    except (ImportError, AttributeError, TypeError, OSError):
        return ()


def stop_queue(data: Any) -> None:
    """End what sends a data set into the device's queue: ``mindspore.data_sink`` begins it and never ends it."""
    queue = getattr(data, "__transfer_dataset__", None)
    if queue is not None:
        queue.stop_send()
        queue.release()


def no_init_parameters() -> AbstractContextManager[None]:
    """Leave the values of the parameters made inside unset: the caller sets them next."""
    made: AbstractContextManager[None] = _no_init_parameters()
    return made


def compiled_once(kind: type[CellT]) -> type[CellT]:
    """Let a network of one image ask MindSpore only once for the graph of a shape, as a decorator of its class.

    MindSpore asks at every call, counts ``construct``'s parameters, and from 2.8 on tells each of 300 cells the graph's
    name: 1.5 ms. A plain tensor's graph is known again by all that MindSpore knows it by.
    """
    if _real_phase is None or _hook_version is None or not hasattr(nn.Cell, "_check_construct_args"):
        return kind
    compile_graph, count_arguments = nn.Cell.compile, nn.Cell._check_construct_args

    def compile_once(self: CellT, *args: Any, **kwargs: Any) -> None:
        plain = len(args) == 1 and not kwargs and type(args[0]) is Tensor and not args[0].const_arg
        if not plain or hasattr(args[0], "__ms_mutable__"):
            return compile_graph(self, *args, **kwargs)
        graphs = self.__dict__.setdefault("_graphs_known", {})
        seen = (args[0].shape, args[0].dtype, self.phase, _hook_version())
        if seen in graphs:
            self.arguments_key = graphs[seen]
            if _real_phase(self.phase, self) in self.compile_cache:
                return None
        compile_graph(self, *args)
        graphs[seen] = self.arguments_key
        return None

    def check_arguments(self: CellT, *args: Any) -> None:
        if len(args) != 1:
            count_arguments(self, *args)

    kind.compile, kind._check_construct_args = compile_once, check_arguments
    return kind


def _nothing(*_: Any) -> None:
    pass


@cache
def _marks() -> tuple[str, ...]:
    """Name the attributes that hooks leave on a cell, learnt from a cell that has one of each."""
    hooked = nn.Identity()
    registrations: tuple[Callable[..., Any], ...] = (
        hooked.register_forward_pre_hook,
        hooked.register_forward_hook,
        hooked.register_backward_pre_hook,
        hooked.register_backward_hook,
    )
    for register in registrations:
        register(_nothing)
    return tuple(name for name, value in vars(hooked).items() if "hook" in name and isinstance(value, dict) and value)


def is_hooked(cell: nn.Cell) -> bool:
    """Tell whether a cell has hooks."""
    attributes = vars(cell)
    return any(attributes[name] for name in _marks())


def recomputes(block: nn.Cell) -> bool:
    """Tell whether a block's activations are computed again in the backward pass."""
    return any(vars(cell).get("_has_config_recompute") for _, cell in block.cells_and_names())


def forget_recomputation(root: nn.Cell) -> list[nn.Cell]:
    """Undo ``Cell.recompute`` of every cell inside, and return those: MindSpore offers no way back."""
    cells = [cell for _, cell in root.cells_and_names()]
    recomputed = [cell for cell in cells if getattr(cell, "_recompute_cell", None) is not None]
    for cell in cells:
        for name, unset in (("_recompute_cell", None), ("_has_config_recompute", False)):
            if getattr(cell, name, unset) is not unset:
                setattr(cell, name, unset)
        if isinstance(scope := vars(cell).get("_scope"), str):
            cell._scope = scope.removeprefix("recompute_")
    return recomputed


def copied(root: CellT, instead: Mapping[int, Any]) -> CellT:
    """Copy a cell and all inside it; its recomputation and its graphs are the copy's own.

    Args:
        instead: by ``id``, what stands in the copy in the place of a part, which is then not copied.
    """
    recomputers = {name: getattr(cell, "_recompute_cell", None) for name, cell in root.cells_and_names()}
    recomputers = {name: recomputer for name, recomputer in recomputers.items() if recomputer is not None}
    # deepcopy takes what its memo holds; a recomputer holds what it cannot copy.
    twin = copy.deepcopy(root, {**instead, **{id(recomputer): None for recomputer in recomputers.values()}})
    cells = dict(twin.cells_and_names())
    for name in recomputers.keys() & cells.keys():
        forget_recomputation(cells[name])
        cells[name].recompute()
    for cell in cells.values():
        cell.compile_cache.clear()  # the graphs in it are the other's
    return twin
