"""One image through a segmenter, whole or by a window that slides over it.

Source: open-mmlab/mmsegmentation 0.11, ``EncoderDecoder.slide_inference`` and ``whole_inference``: the logits of
windows that overlap are averaged, and what is answered is resized to the image's own size before the largest is taken.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from mindspore import Tensor
from numpy.typing import NDArray

from xcit_hub import resampling
from xcit_hub.errors import InputError, WeightsError
from xcit_hub.models.segmenter import XCiTSegmenter
from xcit_hub.segmenters import Window

_BAND = 1 << 21  # logits of so many pixels and classes are resized at once: they stay in the cache


def logits(network: XCiTSegmenter, pixels: NDArray[np.float32], window: Window | None = None) -> NDArray[np.float32]:
    """Return the logits (K, h, w) of a prepared image (C, h, w).

    Args:
        window: None lets the image through whole.

    Raises:
        InputError: the image is smaller than the window, or too small for the network.
        WeightsError: the logits are not finite.
    """
    if window is None:
        found = _answer(network, pixels)
    else:
        height, width = pixels.shape[1:]
        if window.size[0] > height or window.size[1] > width:
            raise InputError(
                f"A window of {window.size[0]}×{window.size[1]} pixels is larger than the image, which has "
                f"{height}×{width} when it is resized.",
                where="window=… (--window)",
                fix="Take a smaller window, or none.",
            )
        found = np.zeros((network.num_classes, height, width), np.float32)
        counts = np.zeros((height, width), np.float32)
        for rows, columns in windows(height, width, window):
            found[:, rows, columns] += _answer(network, pixels[:, rows, columns])
            counts[rows, columns] += 1
        found /= counts
    faults = sum(plane.size - int(np.isfinite(plane).sum()) for plane in found)
    if faults:
        raise WeightsError(
            f"The network's outputs are not finite: {faults} of {found.size} logits are NaN or infinite.",
            where="the weights",
            fix="The weights are damaged, or of another dialect; see where they come from.",
        )
    return found


def windows(height: int, width: int, window: Window) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of every window; the last of each line ends at the image's edge."""
    for rows in _line(height, window.size[0], window.stride[0]):
        for columns in _line(width, window.size[1], window.stride[1]):
            yield rows, columns


def classes(found: NDArray[np.float32], height: int, width: int) -> NDArray[np.int32]:
    """Return the class of every pixel of an image of (height, width) from logits (K, h, w), resized bilinearly."""
    answer = np.empty((height, width), np.int32)
    step = max(_BAND // (len(found) * width), 1)
    below, above, share = resampling.neighbours(found.shape[1], height)
    for first in range(0, height, step):
        rows = slice(first, min(first + step, height))
        low = found[:, below[rows]]
        band = low + (found[:, above[rows]] - low) * share[rows].astype(np.float32)[:, None]
        answer[rows] = resampling.bilinear(band, band.shape[1], width).argmax(0)
    return answer


def _line(length: int, side: int, stride: int) -> Iterator[slice]:
    for index in range(max(length - side + stride - 1, 0) // stride + 1):
        last = min(index * stride + side, length)
        yield slice(max(last - side, 0), last)


def _answer(network: XCiTSegmenter, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = network(Tensor.from_numpy(np.ascontiguousarray(pixels[None]))).asnumpy()[0]
    return found.astype(np.float32, copy=False)
