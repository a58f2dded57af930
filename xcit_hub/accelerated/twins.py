"""A network's twin on the same parameters: :func:`accelerate` makes it of compiled code, :func:`portable` without."""

from __future__ import annotations

from typing import TypeVar

from mindspore import ops

from xcit_hub.accelerated.build import go_without, library
from xcit_hub.accelerated.cells import all_cells, is_accelerated, make_accelerated, make_plain
from xcit_hub.accelerated.fused import refuse_if_fused
from xcit_hub.models import XCiT, XCiTFeatures
from xcit_hub.models.functions import device_target
from xcit_hub.models.private import copied

N = TypeVar("N", XCiT, XCiTFeatures)


def available() -> bool:
    """Tell whether compiled code serves here: the device target is a CPU and the library is there."""
    if (target := device_target()) != "CPU":
        go_without(f"they are a CPU's, and this computes on {target}")
        return False
    return library() is not None


def accelerate(network: N, *, in_place: bool = False) -> N:
    """Return a network of the same class on the same parameters, computed by compiled code; equal to rounding.

    Training or loading weights into one of the two is training the other. All else is its own: training or evaluation,
    hooks, ``to_float``, a classifier replaced later. Where no compiled code is :func:`available` it computes as the
    plain one does.

    Args:
        network: is not changed; an accelerated one is returned as it is.
        in_place: ``network`` itself becomes what is returned, which saves the copy of one that nobody else has.

    Raises:
        InputError: the network is fused.
    """
    refuse_if_fused(network, "accelerated")
    if is_accelerated(network):
        return network
    twin = network if in_place else _twin(network)
    if available():
        make_accelerated(twin)
    return twin


def portable(network: N) -> N:
    """Return a network of the same class on the same parameters that computes by MindSpore's own operations alone.

    What ``mindspore.export`` writes of it runs on other machines; the operations compiled for this CPU do not.

    Raises:
        InputError: the network is fused.
    """
    refuse_if_fused(network, "made portable")
    twin = _twin(network)
    make_plain(twin)
    return twin


def _twin(network: N) -> N:
    """Copy a network's cells, with their modes and hooks, on the same parameters."""
    shared = [*network.get_parameters()]
    # Primitives do not change, and to copy them takes longer than to copy the cells.
    shared += [
        entry for cell in all_cells(network) for entry in vars(cell).values() if isinstance(entry, ops.Primitive)
    ]
    return copied(network, {id(entry): entry for entry in shared})
