"""One of several workers: its share of a batch through a network whose batch normalisation is synchronised."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import mindspore
import numpy as np
from mindspore import Tensor, ops
from mini_train import MINI, register

from xcit_hub.accelerated import accelerate, portable
from xcit_hub.models import create_model, load_weights
from xcit_hub.parity.networks import _after_a_step, _probe
from xcit_hub.training import device
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.sync_batch_norm import synchronise


def share_of(given: Path, mode: int, classes: int, folder: Path) -> None:
    mindspore.set_context(mode=mode)
    arrays = dict(np.load(given))
    images = arrays.pop("images")
    probe = _probe((len(images), classes))
    network = accelerate(create_model(MINI, num_classes=classes, dialect="paper", init=False))
    load_weights(network, arrays)
    network = synchronise(portable(network), worker.count)
    network.set_train(True)
    own = slice(worker.rank * len(images) // worker.count, (worker.rank + 1) * len(images) // worker.count)
    mine = Tensor(probe[own])
    parameters = network.trainable_params()

    def weighed(image: Tensor) -> Tensor:
        return (network(image) * mine).sum()

    step = mindspore.value_and_grad(weighed, None, parameters)
    _, gradients = step(Tensor(images[own]))
    total = ops.AllReduce()
    found = {parameter.name: total(gradient) for parameter, gradient in zip(parameters, gradients, strict=True)}
    found |= {name: value for name, value in network.parameters_dict().items() if name not in found}
    np.savez(
        folder / f"{mode}-{worker.rank}.npz", **{_after_a_step(name): each.asnumpy() for name, each in found.items()}
    )


if __name__ == "__main__":
    register()
    given, folder, classes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    worker = device.prepare(Recipe(model=MINI, mode=1), distribute=True)
    for mode in (mindspore.PYNATIVE_MODE, mindspore.GRAPH_MODE):
        share_of(given, mode, classes, folder)
    device.leave()
    os._exit(0)
