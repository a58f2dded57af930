"""One of several workers: its share of a batch through a network whose batch normalisation is synchronised."""

from __future__ import annotations

from pathlib import Path

import mindspore
import numpy as np
from mindspore import Tensor, ops
from mini_train import least

from xcit_hub.accelerated import accelerate, portable
from xcit_hub.data.batches import Worker
from xcit_hub.models import create_model, load_weights
from xcit_hub.parity.networks import _after_a_step, _probe
from xcit_hub.training.sync_batch_norm import synchronise


def share_of(worker: Worker, given: Path, folder: Path, classes: int) -> None:
    """Write gradients and statistics in both modes, a file a mode and worker."""
    for mode in (mindspore.PYNATIVE_MODE, mindspore.GRAPH_MODE):
        mindspore.set_context(mode=mode)
        arrays = dict(np.load(given))
        images = arrays.pop("images")
        probe = _probe((len(images), classes))
        network = accelerate(create_model(least(), num_classes=classes, dialect="paper", init=False))
        load_weights(network, arrays)
        network = synchronise(portable(network), worker.count)
        network.set_train(True)
        own = slice(worker.rank * len(images) // worker.count, (worker.rank + 1) * len(images) // worker.count)
        found = _gradients_and_statistics(network, Tensor(images[own]), Tensor(probe[own]))
        np.savez(
            folder / f"{mode}-{worker.rank}.npz",
            **{_after_a_step(name): each.asnumpy() for name, each in found.items()},
        )


def _gradients_and_statistics(network: mindspore.nn.Cell, images: Tensor, probe: Tensor) -> dict[str, Tensor]:
    parameters = network.trainable_params()

    def weighed(image: Tensor) -> Tensor:
        return (network(image) * probe).sum()

    _, gradients = mindspore.value_and_grad(weighed, None, parameters)(images)
    total = ops.AllReduce()
    found = {parameter.name: total(gradient) for parameter, gradient in zip(parameters, gradients, strict=True)}
    return found | {name: value for name, value in network.parameters_dict().items() if name not in found}
