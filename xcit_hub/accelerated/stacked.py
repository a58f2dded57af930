"""An accelerated network in training whose cross-covariance blocks are one cell, computed by one operation.

A graph is compiled parameter by parameter. With the layers as one more axis of each there are 12 or 24 times fewer in
the blocks, and the time until the first step hardly depends on the depth.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn
from numpy.typing import NDArray

from xcit_hub.accelerated.cells import Block
from xcit_hub.models import XCiT
from xcit_hub.models.private import copied, recomputes

Arrays = dict[str, NDArray[Any]]

_FIRST, _EVERY = "blocks.0.", "blocks.*."  # how the name of a parameter begins, and that of a stack of them


class _Stack(Block):
    """Equal blocks, one after another; every parameter has the layers as its first axis."""


def _stack(blocks: list[Block]) -> tuple[_Stack, list[tuple[Parameter, list[Parameter]]]]:
    """Return blocks as one, and each of its parameters with those that it holds."""
    of_each = [dict(block.parameters_and_names()) for block in blocks]
    parts = []
    for path, first in of_each[0].items():
        own = [parameters[path] for parameters in of_each]
        value = Tensor(np.stack([part.asnumpy() for part in own]))
        name = first.name.replace(_FIRST, _EVERY, 1)
        parts.append((Parameter(value, name=name, requires_grad=first.requires_grad), own))
    stack = copied(blocks[0], {id(own[0]): parameter for parameter, own in parts})
    stack.__class__ = _Stack
    stack.layers = len(blocks)
    return stack, parts


class StackedXCiT(XCiT):
    """A network to train in the place of another: it shares all cells with it but the blocks, which are one cell.

    Its blocks have parameters of their own. They are written back by :meth:`spread`, which leaving training does, too.

    Args:
        network: is not changed before.
    """

    def __init__(self, network: XCiT) -> None:
        nn.Cell.__init__(self, auto_prefix=False)
        self.architecture, self.dialect = network.architecture, network.dialect
        self.in_chans, self.patch_size, self.embed_dim = network.in_chans, network.patch_size, network.embed_dim
        self.num_classes, self.num_prefix_tokens = network.num_classes, network.num_prefix_tokens
        self.global_pool = network.global_pool
        self.cls_token = network.cls_token
        self.pos_embeder = None
        for name, cell in network.name_cells().items():
            if name != "blocks":
                setattr(self, name, cell)
        stack, self._parts = _stack(list(network.blocks))
        self.blocks = nn.CellList([stack], auto_prefix=False)
        self.depth = 1

    def set_train(self, mode: bool = True) -> nn.Cell:
        """Switch between training and evaluation; the latter brings the network that this was made of up to date."""
        if self.training and not mode:
            self.spread()
        return super().set_train(mode)

    def spread(self) -> None:
        """Write the layers of every parameter into the blocks of the network that this was made of."""
        for own, parts in self._parts:
            for part, array in zip(parts, own.asnumpy(), strict=True):
                part.set_data(Tensor(array.copy()))


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
    if not all(type(block) is Block and block.compiled and not block.drops_inside for block in blocks):
        return network
    if any(recomputes(block) for block in blocks):
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
