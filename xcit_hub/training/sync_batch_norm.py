"""Batch normalisation by the statistics of all workers' batches together. MindSpore's own runs on Ascend alone.

Two sums over all workers a layer, the second of squared distances from the common mean: a mean of squares would lose
half of float32's digits. The gradient of a sum over all workers is the sum of all workers' gradients, so that it goes
through mean and variance as in one large batch.
"""

from __future__ import annotations

from collections.abc import Iterator

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from xcit_hub.models import XCiT


class SyncBatchNorm(nn.Cell):
    """What ``nn.BatchNorm2d`` computes, in the place of one and with its parameters.

    Args:
        norm: what it takes the place of.
        workers: that train together, each on a batch of the same size.
    """

    def __init__(self, norm: nn.BatchNorm2d, workers: int) -> None:
        super().__init__(auto_prefix=False)
        self.moving_mean, self.moving_variance = norm.moving_mean, norm.moving_variance
        self.gamma, self.beta = norm.gamma, norm.beta
        self.workers = workers
        self.eps = norm.eps
        self.new = norm.momentum  # what the statistics take of a batch's
        self.always = norm.use_batch_statistics is True
        self.total = ops.AllReduce()

    def construct(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same, computed in float32."""
        wide = x.astype(mstype.float32)
        channels = (1, -1, 1, 1)
        if self.training or self.always:
            count = self.workers * x.shape[0] * x.shape[2] * x.shape[3]
            mean = self.total(wide.sum((0, 2, 3))) / count
            centred = wide - mean.reshape(channels)
            variance = self.total((centred * centred).sum((0, 2, 3))) / count
            self._take(ops.stop_gradient(mean), ops.stop_gradient(variance) * (count / max(count - 1, 1)))
        else:
            centred = wide - self.moving_mean.reshape(channels)
            variance = self.moving_variance
        scale = self.gamma * ops.rsqrt(variance + self.eps)
        return (centred * scale.reshape(channels) + self.beta.reshape(channels)).astype(x.dtype)

    def _take(self, mean: Tensor, variance: Tensor) -> None:
        ops.assign(self.moving_mean, self.moving_mean + self.new * (mean - self.moving_mean))
        ops.assign(self.moving_variance, self.moving_variance + self.new * (variance - self.moving_variance))


def synchronise(network: XCiT, workers: int) -> XCiT:
    """Put :class:`SyncBatchNorm` in the place of every batch normalisation, in place; returns ``network``."""
    for cell, name, norm in list(_norms(network)):
        cell._cells[name] = SyncBatchNorm(norm, workers)  # attribute assignment would rename the parameters
        if isinstance(cell, nn.SequentialCell):
            cell.cell_list = list(cell.cells())
    return network


def _norms(cell: nn.Cell) -> Iterator[tuple[nn.Cell, str, nn.BatchNorm2d]]:
    for name, child in cell.name_cells().items():
        if isinstance(child, nn.BatchNorm2d):
            yield cell, name, child
        else:
            yield from _norms(child)
