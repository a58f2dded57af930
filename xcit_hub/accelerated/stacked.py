"""A network in training whose cross-covariance blocks are one cell, where one operation computes them all.

A graph is compiled parameter by parameter. With the layers as one more axis of each there are 12 or 24 times fewer in
the blocks, and the time until the first step hardly depends on the depth.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.nn.utils import no_init_parameters
from numpy.typing import NDArray

from xcit_hub.models.kernels import recomputes
from xcit_hub.models.layers import XCABlock
from xcit_hub.models.xcit import XCiT

Arrays = dict[str, NDArray[Any]]

_FIRST, _EVERY = "blocks.0.", "blocks.*."  # how the name of a parameter begins, and that of a stack of them


class _Stack(XCABlock):
    """Equal blocks, one after another; every parameter has the layers as its first axis."""

    def __init__(self, network: XCiT) -> None:
        blocks = list(network.blocks)
        with no_init_parameters():
            super().__init__(
                *(network.architecture, network.dialect),
                proj_drop=0.0,
                attn_drop=0.0,
                drop_path=blocks[0].drop_path.rate,
            )
        self.layers = len(blocks)
        of_each = [dict(block.parameters_and_names()) for block in blocks]
        self._parts = []  # the parameters themselves: their names may change
        for path, first in of_each[0].items():
            cell: nn.Cell = self
            *rooms, leaf = path.split(".")
            for room in rooms:
                cell = getattr(cell, room)
            parts = [parameters[path] for parameters in of_each]
            value = Tensor(np.stack([part.asnumpy() for part in parts]))
            own = Parameter(value, name=first.name.replace(_FIRST, _EVERY, 1), requires_grad=first.requires_grad)
            setattr(cell, leaf, own)
            self._parts.append((own, parts))

    def spread(self) -> None:
        """Write the layers of every parameter into the blocks."""
        for own, parts in self._parts:
            for part, array in zip(parts, own.asnumpy(), strict=True):
                part.set_data(Tensor(array.copy()))


class StackedXCiT(XCiT):
    """A network to train in the place of another: it shares all cells with it but the blocks, which are one cell.

    Args:
        network: is not changed before :meth:`spread` brings it up to date.
    """

    def __init__(self, network: XCiT) -> None:
        nn.Cell.__init__(self, auto_prefix=False)
        self.architecture, self.dialect = network.architecture, network.dialect
        self.in_chans, self.patch_size, self.embed_dim = network.in_chans, network.patch_size, network.embed_dim
        self.num_classes, self.num_prefix_tokens = network.num_classes, network.num_prefix_tokens
        self.global_pool = network.global_pool
        self.cls_token = network.cls_token
        for name, cell in network.name_cells().items():
            if name != "blocks":
                setattr(self, name, cell)
        self.blocks = nn.CellList([_Stack(network)], auto_prefix=False)
        self.depth = 1

    def spread(self) -> None:
        """Bring the network that this was made of up to date."""
        self.blocks[0].spread()


def stacked(network: XCiT, treatment: Mapping[str, Hashable]) -> XCiT:
    """Return a :class:`StackedXCiT`, or the network itself where its blocks cannot be trained as one.

    They can where every block is one operation that keeps what its gradient needs and all layers are treated alike,
    in a network that is no more than an :class:`XCiT`.

    Args:
        treatment: how each trainable parameter is to be trained, by its name.
    """
    blocks = list(network.blocks)
    if type(network).construct is not XCiT.construct or len({block.drop_path.rate for block in blocks}) > 1:
        return network
    if not all(block.in_one_piece and not recomputes(block) for block in blocks):
        return network
    form = StackedXCiT(network)
    held = [members(parameter) for parameter in form.get_parameters()]
    if {name for names in held for name in names} != set(network.parameters_dict()):
        return network
    alike = all(len({treatment.get(name) for name in names}) == 1 for names in held)
    return form if alike else network


def members(parameter: Parameter) -> list[str]:
    """Name the parameters of a network that one of a :class:`StackedXCiT` holds: itself, or one in each block."""
    if _EVERY not in parameter.name:
        return [parameter.name]
    return [parameter.name.replace(_EVERY, f"blocks.{layer}.", 1) for layer in range(len(parameter))]


def by_layer(parameters: Iterable[Parameter]) -> Arrays:
    """Return the values of parameters, also of their moments and averages, under the names of :func:`members`.

    They are views: what changes a parameter may change them.
    """
    arrays: Arrays = {}
    for parameter in parameters:
        names, value = members(parameter), parameter.asnumpy()
        arrays.update(zip(names, value, strict=True) if _EVERY in parameter.name else [(names[0], value)])
    return arrays


def fill(parameters: Iterable[Parameter], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Set parameters to the values that :func:`by_layer` returned."""
    for parameter in parameters:
        values = [arrays[name] for name in members(parameter)]
        value = np.stack(values) if _EVERY in parameter.name else values[0]
        parameter.set_data(Tensor(value))
