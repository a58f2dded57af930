"""First values of every parameter, as in the paper's code; reproducible from a seed whatever else draws numbers.

Source: ``_init_weights`` of facebookresearch/xcit, and torch's defaults for the convolutions, which it leaves alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from mindspore import Parameter, Tensor

_TRUNCATED_NORMAL_DEVIATION = 0.02
_CONSTANTS = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0, "temperature": 1.0}
_LAYER_SCALES = ("gamma1", "gamma2", "gamma3")


def initialize(parameters: Iterable[Parameter], eta: float, seed: int | None) -> None:
    """Fill parameters with their first values, float32.

    Args:
        parameters: named as in :func:`xcit_hub.parameters.parameter_shapes`; a bias follows its weight.
        eta: value of the layer scales.
        seed: makes the values reproducible; None draws fresh ones.
    """
    generator = np.random.default_rng(seed)
    bound = 0.0  # of the last convolution's weight; 0 after an affine map's, whose bias starts at zero
    for parameter in parameters:
        kind, shape = parameter.name.rpartition(".")[2], parameter.shape
        if kind in _CONSTANTS:
            value = np.full(shape, _CONSTANTS[kind], np.float32)
        elif kind in _LAYER_SCALES:
            value = np.full(shape, eta, np.float32)
        elif kind == "bias":
            value = generator.uniform(-bound, bound, shape).astype(np.float32)
        elif kind == "weight" and len(shape) == 4:
            bound = 1.0 / math.sqrt(math.prod(shape[1:]))
            value = generator.uniform(-bound, bound, shape).astype(np.float32)
        else:
            bound = 0.0
            # torch truncates at ±2 absolute, a hundred deviations away: a normal distribution.
            value = generator.standard_normal(shape, np.float32) * np.float32(_TRUNCATED_NORMAL_DEVIATION)
        parameter.set_data(Tensor.from_numpy(value))
