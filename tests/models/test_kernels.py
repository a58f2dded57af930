"""Every way to compute an operation gives the same values and the same derivatives."""

from __future__ import annotations

import math

import mindspore
import numpy as np
import pytest

from xcit_hub.models import kernels

_X = np.concatenate([np.linspace(-12.0, 12.0, 4801), [0.0, -0.0, 1e-20, 60.0, -60.0]]).astype(np.float32)


def _erf_form(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * value * (1.0 + math.erf(value / math.sqrt(2.0))) for value in x.astype(np.float64)])


def _tanh_form(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    return 0.5 * wide * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (wide + 0.044715 * wide**3)))


_WAYS = [
    (kernels.gelu_erf, _erf_form),
    (kernels.gelu_erf_from_exp, _erf_form),
    (kernels.gelu_tanh, _tanh_form),
    (kernels.gelu_tanh_from_sigmoid, _tanh_form),
]


@pytest.mark.parametrize(("way", "exact"), _WAYS)
def test_gelu_is_exact_to_single_precision(way, exact) -> None:
    found = way(mindspore.Tensor(_X)).asnumpy()
    assert np.abs(found - exact(_X)).max() < 1e-6


@pytest.mark.parametrize(("way", "exact"), _WAYS)
def test_the_derivative_of_gelu_is_that_of_the_exact_form(way, exact) -> None:
    step = 1e-4
    wide = _X.astype(np.float64)
    expected = (exact(wide + step) - exact(wide - step)) / (2 * step)
    found = mindspore.grad(lambda x: way(x).sum())(mindspore.Tensor(_X)).asnumpy()
    assert np.abs(found - expected).max() < 5e-6


def test_the_two_forms_differ_by_more_than_parity_allows() -> None:
    assert np.abs(_erf_form(_X) - _tanh_form(_X)).max() > 1e-4
