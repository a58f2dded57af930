"""Several views of one image at evaluation, whose logits are averaged: timm's ``--tta``.

Which views: 2 are the centre and its mirror image, 5 the four corners and the centre, 10 these and those of the mirror
image (torchvision's ``FiveCrop`` and ``TenCrop``, in their order).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from xcit_hub.data.mixing import Images
from xcit_hub.data.transforms import EvalTransform, center_crop, normalize
from xcit_hub.variants import Preprocessing

Views = Literal[0, 2, 5, 10]

_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # of the rest of height and width


class OversampledTransform(EvalTransform):
    """An image becomes (views · C, H, W) float32: the channels of one view after those of another.

    Args:
        views: how many.
    """

    def __init__(self, preprocessing: Preprocessing, views: Views, *, in_chans: int = 3, alpha: bool = False) -> None:
        super().__init__(preprocessing, in_chans=in_chans, alpha=alpha)
        self.views = views
        self.channels = in_chans
        self.shape = (views * in_chans, *preprocessing.size)

    def cut(self, image: Image.Image) -> Image.Image:
        """Resize an image; what is smaller than the network's input gets borders."""
        resized = self.resized(image)
        height, width = self.preprocessing.size
        return center_crop(resized, max(height, resized.height), max(width, resized.width), self.fill)

    def finish(self, image: Image.Image, pixels: NDArray[np.float32]) -> None:
        """Write the views of what was cut into ``pixels`` (views · C, H, W), normalised."""
        if self.views == 2:
            centre = center_crop(image, *self.preprocessing.size, self.fill)
            crops = [centre, ImageOps.mirror(centre)]
        else:
            crops = self._five(image) + (self._five(ImageOps.mirror(image)) if self.views == 10 else [])
        for number, crop in enumerate(crops):
            normalize(crop, self.mean, self.std, pixels[number * self.channels : (number + 1) * self.channels])

    def _five(self, image: Image.Image) -> list[Image.Image]:
        height, width = self.preprocessing.size
        places = [(down * (image.height - height), right * (image.width - width)) for down, right in _CORNERS]
        corners = [image.crop((left, top, left + width, top + height)) for top, left in places]
        return [*corners, center_crop(image, height, width, self.fill)]


def averaged(answer: Callable[[Images], Any], views: int) -> Callable[[Images], NDArray[np.float32]]:
    """Return what answers images (B, views · C, H, W) by the mean of the logits of each view."""

    def mean(images: Images) -> NDArray[np.float32]:
        batch, channels, height, width = images.shape
        of_views = images.reshape(batch, views, channels // views, height, width)
        logits = [np.asarray(answer(np.ascontiguousarray(of_views[:, view]))) for view in range(views)]
        found: NDArray[np.float32] = np.mean(logits, axis=0, dtype=np.float32)
        return found

    return mean
