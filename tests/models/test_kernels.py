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


@pytest.mark.parametrize(("group", "stride", "bias"), [(1, 2, False), (1, 1, True), (12, 1, True)])
def test_the_unfolded_convolution_equals_mindspores_in_value_and_gradient(group: int, stride: int, bias: bool) -> None:
    options = {"stride": stride, "pad_mode": "pad", "padding": 1, "group": group, "has_bias": bias}
    out_channels = 12 if group > 1 else 16
    plain = mindspore.nn.Conv2d(12, out_channels, 3, **options)
    unfolded = kernels.UnfoldedConv2d(12, out_channels, 3, **options)
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


def test_the_choice_of_kernels_follows_device_and_version(monkeypatch) -> None:
    chosen = {}
    for device in ("CPU", "Ascend", "GPU"):
        for version in ("2.7.1", "2.8.0", "2.9.0", "2.10.0"):
            monkeypatch.setattr(kernels, "device_target", lambda device=device: device)
            monkeypatch.setattr(kernels.mindspore, "__version__", version)
            chosen[device, version] = kernels.kernels()
    assert chosen["CPU", "2.7.1"].convolution is chosen["CPU", "2.8.0"].convolution is mindspore.nn.Conv2d
    assert chosen["CPU", "2.9.0"].convolution is chosen["CPU", "2.10.0"].convolution is kernels.UnfoldedConv2d
    assert all(choice.convolution is mindspore.nn.Conv2d for (device, _), choice in chosen.items() if device != "CPU")
    assert all(choice.gelu["erf"] is kernels.gelu_erf for (device, _), choice in chosen.items() if device != "CPU")


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_layer_norm_by_products_equals_mindspores_in_value_and_gradient(offset: float) -> None:
    generator = np.random.default_rng(0)
    plain = mindspore.nn.LayerNorm((192,), epsilon=1e-6)
    products = kernels.ProductLayerNorm((192,), epsilon=1e-6)
    for name in ("gamma", "beta"):
        value = mindspore.Tensor(generator.standard_normal(192).astype(np.float32))
        getattr(plain, name).set_data(value)
        getattr(products, name).set_data(value)
    x = mindspore.Tensor((offset + generator.standard_normal((2, 9, 192))).astype(np.float32))

    def gradients(cell) -> list[np.ndarray]:
        inputs, weights = mindspore.grad(lambda x: (cell(x) ** 3).sum(), 0, cell.trainable_params())(x)
        return [inputs.asnumpy(), *(weight.asnumpy() for weight in weights)]

    tolerance = 1e-5 * max(offset, 1.0)
    assert np.abs(products(x).asnumpy() - plain(x).asnumpy()).max() < tolerance
    for found, expected in zip(gradients(products), gradients(plain), strict=True):
        assert np.abs(found - expected).max() <= 2 * tolerance * np.abs(expected).max()
