"""The network's parts that run compiled operations, with the parameters and the meaning of the plain ones.

Operands of other types than float32 are converted there and back.
"""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from xcit_hub.models.native import operations


def _float32(x: Tensor) -> Tensor:
    return x.astype(mstype.float32)


class NativeGelu(nn.Cell):
    """Gaussian error linear unit, ``erf`` or ``tanh`` form."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.run = operations.gelu(form)

    def construct(self, x: Tensor) -> Tensor:
        """Apply it to every element."""
        return self.run(_float32(x)).astype(x.dtype)


class NativeLayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` of the last axis."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.floor = Tensor([self.epsilon], mstype.float32)
        self.run = operations.layer_norm()

    def construct(self, x: Tensor) -> Tensor:
        """Map (…, C) to (…, C)."""
        return self.run(_float32(x), _float32(self.gamma), _float32(self.beta), self.floor).astype(x.dtype)


class NativeScaledSum(nn.Cell):
    """x + gamma · branch."""

    def __init__(self) -> None:
        super().__init__()
        self.run = operations.scaled_sum()

    def construct(self, x: Tensor, branch: Tensor, gamma: Tensor) -> Tensor:
        """Map (…, C), (…, C) and (C) to (…, C)."""
        return self.run(_float32(x), _float32(branch), _float32(gamma)).astype(x.dtype)


class NativeDepthwise(nn.Conv2d):
    """Depth-wise 3×3 convolution, stride 1, of a grid whose channels come last."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.run = operations.depthwise()

    def construct(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        return self.run(_float32(x), _float32(self.weight), _float32(self.bias)).astype(x.dtype)


class NativeBatchNorm(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` of a grid whose channels come last."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.floor = Tensor([self.eps], mstype.float32)
        self.run = operations.batch_norm()

    def construct(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C); in training, also move the running statistics."""
        if not self.training:
            scale = self.gamma * ops.rsqrt(self.moving_variance + self.eps)
            return x * scale + (self.beta - self.moving_mean * scale)
        out, mean, variance = self.run(_float32(x), _float32(self.gamma), _float32(self.beta), self.floor)
        count = x.shape[0] * x.shape[1] * x.shape[2]
        unbiased = variance * (count / max(count - 1, 1))
        self._move(self.moving_mean, mean)
        self._move(self.moving_variance, unbiased)
        return out.astype(x.dtype)

    def _move(self, statistic: Tensor, value: Tensor) -> None:
        value = ops.stop_gradient(value).astype(statistic.dtype)
        # The base class keeps one minus the momentum it was given.
        ops.assign(statistic, statistic * (1.0 - self.momentum) + value * self.momentum)


class NativeCrossCovariance(nn.Cell):
    """Cross-covariance attention between its two affine maps, without dropout of the attention."""

    def __init__(self, normalize: bool) -> None:
        super().__init__()
        self.project = ops.MatMul(transpose_b=True)
        self.run = operations.cross_covariance(normalize)

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor, temperature: Tensor) -> Tensor:
        """Map tokens (B, N, C), weight (3·C, C), bias (3·C) and temperature (h, 1, 1) to (B, N, C)."""
        batch, tokens, dim = x.shape
        qkv = (self.project(x.reshape(-1, dim), weight) + bias).reshape(batch, tokens, 3 * dim)
        return self.run(_float32(qkv), _float32(temperature)).astype(x.dtype)
