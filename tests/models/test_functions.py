"""Every way to compute a function gives the same values and the same derivatives."""

from __future__ import annotations

import itertools
import math

import mindspore
import numpy as np
import pytest

from xcit_hub.models import functions

_X = np.concatenate([np.linspace(-12.0, 12.0, 4801), [0.0, -0.0, 1e-20, 60.0, -60.0]]).astype(np.float32)


def _erf_form(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * value * (1.0 + math.erf(value / math.sqrt(2.0))) for value in x.astype(np.float64)])


def _tanh_form(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    return 0.5 * wide * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (wide + 0.044715 * wide**3)))


_WAYS = [
    (functions.gelu_erf, _erf_form),
    (functions.gelu_erf_from_exp, _erf_form),
    (functions.GeluErfFromExp(), _erf_form),
    (functions.gelu_tanh, _tanh_form),
    (functions.gelu_tanh_from_sigmoid, _tanh_form),
    (functions.GeluTanhFromSigmoid(), _tanh_form),
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


@pytest.mark.parametrize(("group", "stride", "bias"), [(1, 2, False), (1, 1, True), (12, 1, True)])
def test_the_unfolded_convolution_equals_mindspores_in_value_and_gradient(group: int, stride: int, bias: bool) -> None:
    options = {"stride": stride, "pad_mode": "pad", "padding": 1, "group": group, "has_bias": bias}
    out_channels = 12 if group > 1 else 16
    plain = mindspore.nn.Conv2d(12, out_channels, 3, **options)
    unfolded = functions.UnfoldedConv2d(12, out_channels, 3, **options)
    generator = np.random.default_rng(0)
    for name, parameter in unfolded.parameters_dict().items():
        value = mindspore.Tensor(generator.standard_normal(parameter.shape, np.float32))
        parameter.set_data(value)
        plain.parameters_dict()[name].set_data(value)
    x = mindspore.Tensor(generator.standard_normal((2, 12, 10, 14), np.float32))

    def gradients(cell) -> list[np.ndarray]:
        inputs, weights = mindspore.grad(lambda x: (cell(x) ** 2).sum(), 0, cell.trainable_params())(x)
        return [inputs.asnumpy(), *(weight.asnumpy() for weight in weights)]

    assert np.abs(unfolded(x).asnumpy() - plain(x).asnumpy()).max() < 1e-4
    for found, expected in zip(gradients(unfolded), gradients(plain), strict=True):
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_choice_of_functions_follows_device_and_version(monkeypatch) -> None:
    for device, version in itertools.product(("CPU", "Ascend", "GPU"), ("2.7.1", "2.8.0", "2.9.0", "2.10.0")):
        monkeypatch.setattr(functions, "device_target", lambda device=device: device)
        monkeypatch.setattr(functions.mindspore, "__version__", version)
        chosen = functions.functions()
        unfolds = device == "CPU" and version in ("2.9.0", "2.10.0")
        assert chosen.convolution is (functions.UnfoldedConv2d if unfolds else mindspore.nn.Conv2d)
        assert (chosen.gelu["erf"] is functions.gelu_erf) == (device != "CPU")
        assert (chosen.gelu["tanh"] is functions.gelu_tanh) == (device != "CPU")
