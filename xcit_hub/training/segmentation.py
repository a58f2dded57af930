"""A segmenter's training: views of scenes, the loss of every pixel, AdamW, as facebook's configs have it.

Source: facebookresearch/xcit ``semantic_segmentation/configs``: AdamW at 6e-5 with a decay of 0.01, none for norms,
linear warm-up and then a straight line to 0. The auxiliary head of UPerNet is not trained, colours are not distorted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import mindspore
import numpy as np
from mindspore import ParameterTuple, Tensor, nn
from mindspore import dtype as mstype

from xcit_hub.data.scene_views import Views, batches
from xcit_hub.data.scenes import Annotated
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.models.segmenter import XCiTSegmenter
from xcit_hub.training.device import allow_deep_calls
from xcit_hub.training.losses import PixelLoss
from xcit_hub.training.optimizers import ParameterSetting, create_optimizer
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.schedule import learning_rates
from xcit_hub.variants import Preprocessing

# What a recipe says of a segmenter where nobody says otherwise; every other key that means something here is below.
DEFAULTS: Mapping[str, Any] = {
    "train_split": "training",
    "val_split": "validation",
    "batch_size": 16,
    "image_resize": 512,
    "scale": [0.5, 2.0],
    "lr": 6e-5,
    "min_lr": 0.0,
    "warmup_epochs": 1,
    "weight_decay": 0.01,
    "scheduler": "polynomial_decay",
    "decay_rate": 1.0,
    "max_corrupt": 0,
}
KEYS = (
    *DEFAULTS,
    *("model", "num_classes", "data_dir", "epoch_size", "hflip", "drop_path_rate", "decay_epochs", "warmup_factor"),
    *("seed", "mode", "device_target", "ckpt_path", "ckpt_save_dir", "mean", "std"),
)


def check(settings: Iterable[str]) -> None:
    """Make sure that the keys of a recipe that were set mean something in a segmenter's training.

    Raises:
        InputError: one does not.
    """
    strange = sorted(key for key in settings if key not in KEYS)
    if strange:
        raise InputError(
            f"{', '.join(strange)} means nothing in a segmenter's training.",
            where="the recipe",
            fix=f"Leave it out; what does is {', '.join(KEYS)}.",
        )


def train(
    network: XCiTSegmenter,
    pairs: Annotated,
    recipe: Recipe,
    preprocessing: Preprocessing,
    *,
    step: Callable[[int, int, float], Any] = lambda *_: None,
) -> list[float]:
    """Train a segmenter; return the mean loss of every epoch. It is in eval mode afterwards.

    Args:
        network: in the mode of MindSpore that is on; its parameters are trained.
        pairs: images with their annotations.
        recipe: of its keys those of :data:`KEYS`.
        preprocessing: the size that is a scale of 1, and the side of the views; and the normalisation.
        step: told the epoch, the step within it, and the loss, after each.

    Raises:
        InputError: there are fewer images than a batch has, or one cannot be read.
        XcitHubError: the loss, or a weight after an epoch, is not finite any more.
    """
    steps = len(pairs.images) // recipe.batch_size
    if not steps:
        raise InputError(
            f"There are {len(pairs.images)} images, and a batch has {recipe.batch_size}.",
            where="batch_size",
            fix=f"Pass --batch_size {len(pairs.images)} or less.",
        )
    if pairs.unreadable:
        raise InputError(
            f"These cannot be read: {'; '.join(pairs.unreadable[:20])}.", where="data_dir", fix="Remove them."
        )
    if preprocessing.size[0] != preprocessing.size[1]:
        raise InputError("A segmenter is trained on square views.", where="image_resize", fix="Give one number.")
    views = Views(preprocessing, preprocessing.image_size, recipe.scale, recipe.hflip, recipe.seed)
    rates = learning_rates(recipe, steps)
    mindspore.set_seed(recipe.seed)
    network.set_train(True)
    trained = _Step(network, recipe)
    losses = []
    for epoch in range(recipe.epoch_size):
        seen = []
        feed = batches(pairs, views, network.num_classes, batch_size=recipe.batch_size, epoch=epoch)
        for index, (images, classes) in enumerate(feed):
            rate = Tensor(rates[epoch * steps + index], mstype.float32)
            loss = float(trained(Tensor(images), Tensor(classes), rate))
            if not np.isfinite(loss):
                raise XcitHubError(
                    f"The loss of step {index + 1} of epoch {epoch + 1} is {loss}.",
                    where="the training",
                    fix="Lower the learning rate (lr).",
                )
            seen.append(loss)
            step(epoch, index, loss)
        losses.append(float(np.mean(seen)))
        _check_finite(network, epoch)
    network.set_train(False)
    return losses


def _check_finite(network: XCiTSegmenter, epoch: int) -> None:
    wrong = next((entry.name for entry in network.get_parameters() if not np.isfinite(entry.asnumpy()).all()), None)
    if wrong is not None:  # the last update of an epoch is in no loss
        raise XcitHubError(
            f"After epoch {epoch + 1} weights are not finite: {wrong}.",
            where="the training",
            fix="Lower the learning rate (lr) or weight_decay.",
        )


class _Step(nn.Cell):
    """Forward, backward and update."""

    def __init__(self, network: XCiTSegmenter, recipe: Recipe) -> None:
        super().__init__(auto_prefix=False)
        allow_deep_calls()
        self.network = network
        self.loss = PixelLoss()
        settings = [
            # facebook's configs leave out what has "norm" in its name; batch norms are called bn.
            ParameterSetting(parameter, 1.0, 0.0 if "norm" in parameter.name else recipe.weight_decay)
            for parameter in network.trainable_params()
        ]
        self.optimizer = create_optimizer(settings, recipe)
        weights = ParameterTuple([setting.parameter for setting in settings])
        self.value_and_grad = mindspore.value_and_grad(self._forward, None, weights)

    def _forward(self, images: Tensor, classes: Tensor) -> Tensor:
        return self.loss(self.network(images), classes)

    def construct(self, images: Tensor, classes: Tensor, rate: Tensor) -> Tensor:
        loss, gradients = self.value_and_grad(images, classes)
        self.optimizer(gradients, rate)
        return loss
