"""A loaded network at work: an image becomes its input, its answer becomes classes with their probabilities."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xcit_hub.errors import InputError, WeightsError
from xcit_hub.hub.config import ModelConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xcit_hub.data.transforms import ImageLike
    from xcit_hub.hub.network import XCiT


@dataclass(frozen=True)
class Prediction:
    """One class of an answer.

    Args:
        index: the classifier's row.
        label: the class's name, or ``class N`` where nobody named it.
        probability: softmax of the logits, 0 to 1.
    """

    index: int
    label: str
    probability: float


def preprocess(description: ModelConfig | XCiT, *, exif: bool = False) -> Callable[[ImageLike], NDArray[np.float32]]:
    """Return the function that turns an image (PIL image or path) into the network's input (C, H, W), float32.

    Args:
        description: a loaded network, or its ``config``.
        exif: turn images as their EXIF orientation says; timm, whose pixels these otherwise are, does not.

    Raises:
        InputError: it is neither; or, when the function is called, its argument is not a readable image.
    """
    from PIL import Image

    from xcit_hub.data.transforms import EvalTransform

    described = getattr(description, "config", description)
    if not isinstance(described, ModelConfig):
        raise InputError(
            f"preprocess needs what a network was loaded with, and {type(description).__name__} has no description.",
            fix="Give it the network that xcit_hub.load returned, or that network's config.",
        )
    transform = EvalTransform(described.preprocessing, in_chans=described.in_chans, exif=exif)

    def prepare(image: ImageLike) -> NDArray[np.float32]:
        if not isinstance(image, Image.Image | str | os.PathLike):
            raise InputError(
                f"{type(image).__name__} is not an image.",
                fix="Give a PIL image (Image.fromarray makes one) or a path.",
            )
        return transform(image)

    return prepare


def predict(network: XCiT, image: ImageLike, *, top: int = 5, exif: bool = False) -> list[Prediction]:
    """Classify one image: the ``top`` most probable classes, the first one first.

    Args:
        network: a loaded classifier, in eval mode.
        image: a PIL image or the path of one; preprocessed as the network's description says.
        top: how many classes.
        exif: turn the image as its EXIF orientation says.

    Raises:
        InputError: the network has no classifier, or the image cannot be read.
        WeightsError: the logits are not finite.
    """
    return classify(network, preprocess(network, exif=exif)(image)[None], top=top)[0]


def classify(network: XCiT, pixels: NDArray[np.float32], *, top: int = 5) -> list[list[Prediction]]:
    """Classify a batch of prepared images: the ``top`` most probable classes of each, the first one first.

    Args:
        pixels: (B, C, H, W) float32, as :func:`preprocess` makes them.

    Raises:
        InputError: the network has no classifier.
        WeightsError: the logits are not finite.
    """
    import mindspore

    source = network.config.provenance.source
    if network.num_classes == 0:
        raise InputError(
            "These weights have no classifier, and a backbone names no classes.",
            where=source,
            fix="Load a classifier; leave --image out on the command line.",
        )
    logits = network(mindspore.Tensor(pixels)).asnumpy().astype(np.float64)
    if not np.isfinite(logits).all():
        raise WeightsError(
            f"The network's outputs are not finite: {int((~np.isfinite(logits)).sum())} of {logits.size} logits are "
            "NaN or infinite.",
            where=source,
            fix="The weights are damaged, or of another dialect; see where they come from.",
        )
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    labels = network.config.labels or [f"class {index}" for index in range(logits.shape[-1])]
    return [[Prediction(int(i), labels[i], float(row[i])) for i in np.argsort(-row)[:top]] for row in probabilities]
