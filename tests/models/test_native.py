"""The compiled operations give the values and the derivatives of MindSpore's own."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mindspore
import numpy as np
import pytest
from mindspore import Tensor, nn

from xcit_hub.models import create_model, kernels
from xcit_hub.models.native import build, operations

needs_compiler = pytest.mark.skipif(build.library() is None, reason=build.absence())

_PLAIN, _COMPILED = kernels._ACCELERATOR, kernels._COMPILED
_GENERATOR = np.random.default_rng(0)


def _draw(*shape: int) -> np.ndarray:
    return _GENERATOR.standard_normal(shape, np.float32)


class _Call(nn.Cell):
    """A way's cell with everything that it computes from as a parameter, so that one gradient covers it all."""

    def __init__(self, run, arrays: list[np.ndarray]) -> None:
        super().__init__()
        self.run = run
        self.arguments = mindspore.ParameterTuple(
            [mindspore.Parameter(Tensor(array), name=f"argument{index}") for index, array in enumerate(arrays)]
        )

    def construct(self) -> Tensor:
        return self.run(*self.arguments)


class _Weighed(nn.Cell):
    """A scalar that depends on every number a cell puts out."""

    def __init__(self, cell: nn.Cell, weights: Tensor) -> None:
        super().__init__()
        self.cell, self.weights = cell, weights

    def construct(self) -> Tensor:
        return (self.cell() * self.weights).sum()


def _on_grid(way: kernels.Grid, make) -> nn.Cell:
    """A cell of a grid's layout as one that maps tokens (2, 35, C) of a 5 × 7 grid to tokens."""

    class OnGrid(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.leave, self.run = way.enter, way.leave, make(way)

        def construct(self, x: Tensor) -> Tensor:
            return self.leave(self.run(self.enter(x, 5, 7)))

    return OnGrid()


def _batch_norm(way: kernels.Grid) -> nn.Cell:
    return way.batch_norm(24, eps=1e-5, momentum=0.9)


def _depthwise(way: kernels.Grid) -> nn.Cell:
    return way.depthwise(24, 24, 3, pad_mode="pad", padding=1, group=24, has_bias=True)


def _xca_arguments(images: int, tokens: int, channels: int, heads: int, scale: float = 1.0) -> list[np.ndarray]:
    """Tokens, weight, bias and temperature; ``scale`` keeps products that nothing normalises small."""
    weight, bias = _draw(3 * channels, channels), _draw(3 * channels)
    return [scale * _draw(images, tokens, channels), weight, scale * bias, scale * (2 + _draw(heads, 1, 1))]


# What is computed, how each table of ways builds it, and its arguments; 40 channels are no multiple of a vector.
_OPERATIONS = {
    "erf gelu": (lambda way: way.gelu("erf"), [3.0 * _draw(3, 5000)]),
    "tanh gelu": (lambda way: way.gelu("tanh"), [3.0 * _draw(3, 5000)]),
    "layer norm": (lambda way: way.layer_norm((40,), epsilon=1e-6), [_draw(3, 50, 40)]),
    "layer norm of wide rows": (lambda way: way.layer_norm((768,), epsilon=1e-6), [5.0 + _draw(64, 768)]),
    "affine map": (lambda way: way.dense(40, 70), [_draw(3, 50, 40)]),
    "affine map of few rows": (lambda way: way.dense(192, 100), [_draw(3, 192)]),
    "deep affine map of one row": (lambda way: way.dense(1000, 49), [0.1 * _draw(1, 1000)]),
    "affine map of many rows": (lambda way: way.dense(24, 48), [_draw(4, 500, 24)]),
    "scaled sum": (lambda way: way.scaled_sum(), [_draw(2, 99, 40), _draw(2, 99, 40), _draw(40)]),
    "depth-wise convolution": (lambda way: _on_grid(way.grid, _depthwise), [_draw(2, 35, 24)]),
    "batch norm in training": (lambda way: _on_grid(way.grid, _batch_norm).set_train(), [_draw(2, 35, 24)]),
    "batch norm in evaluation": (lambda way: _on_grid(way.grid, _batch_norm).set_train(False), [_draw(2, 35, 24)]),
    "XCA": (lambda way: way.cross_covariance(4, True, 0.0), _xca_arguments(2, 70, 96, 4)),
    "XCA of odd heads": (lambda way: way.cross_covariance(3, True, 0.0), _xca_arguments(1, 9, 30, 3)),
    "XCA without norms": (lambda way: way.cross_covariance(2, False, 0.0), _xca_arguments(2, 20, 32, 2, 0.1)),
}


@pytest.fixture(params=[mindspore.PYNATIVE_MODE, mindspore.GRAPH_MODE], ids=["pynative", "graph"])
def mode(request) -> Iterator[None]:
    before = mindspore.get_context("mode")
    mindspore.set_context(mode=request.param)
    yield
    mindspore.set_context(mode=before)


@needs_compiler
@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("name", _OPERATIONS)
def test_a_compiled_operation_equals_mindspores_in_value_and_gradient(name: str) -> None:
    build_cell, arrays = _OPERATIONS[name]
    plain, compiled = (_Call(build_cell(way), arrays) for way in (_PLAIN, _COMPILED))
    inner = compiled.parameters_dict()
    for key, parameter in plain.parameters_dict().items():
        if not key.startswith("argument"):
            value = Tensor(np.abs(_draw(*parameter.shape)) + 0.5)
            parameter.set_data(value)
            inner[key].set_data(value)
    weights = Tensor(_draw(*plain().shape))

    def everything(cell: nn.Cell) -> list[np.ndarray]:
        gradients = mindspore.grad(_Weighed(cell, weights), None, cell.trainable_params())()
        state = [parameter for parameter in cell.get_parameters() if not parameter.requires_grad]
        return [value.asnumpy() for value in (cell(), *gradients, *state)]

    for found, expected in zip(everything(compiled), everything(plain), strict=True):
        assert np.abs(found - expected).max() <= 3e-5 * max(1.0, np.abs(expected).max())


@needs_compiler
@pytest.mark.parametrize("form", ["erf", "tanh"])
def test_compiled_gelu_is_exact_to_single_precision_at_every_size(form: str) -> None:
    x = np.concatenate([np.linspace(-14.0, 14.0, 8001), [0.0, -0.0, 1e-20, 60.0, -60.0, 1e30]]).astype(np.float32)
    wide = x.astype(np.float64)
    normal = np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in wide])
    gate = 0.5 * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (wide + 0.044715 * wide**3)))
    exact = wide * (normal if form == "erf" else gate)
    found = kernels._COMPILED.gelu(form)(Tensor(x)).asnumpy()
    assert np.all(np.abs(found - exact) <= 3e-7 * np.maximum(1.0, np.abs(exact)))


@needs_compiler
def test_numbers_that_are_none_stay_visible() -> None:
    x = np.ones((2, 9, 24), np.float32)
    x[0, 3, 5] = np.nan
    for name in ("erf gelu", "tanh gelu"):
        assert np.isnan(_OPERATIONS[name][0](_COMPILED)(Tensor(x)).asnumpy()[0, 3, 5])
    assert np.isnan(_COMPILED.layer_norm((24,))(Tensor(x)).asnumpy()[0, 3]).all()


@needs_compiler
def test_half_precision_passes_through_the_compiled_operations() -> None:
    cell = _COMPILED.layer_norm((40,), epsilon=1e-6)
    x = Tensor(_draw(3, 40).astype(np.float16))
    assert cell(x).dtype == mindspore.float16


@needs_compiler
def test_numbers_of_another_width_are_never_read_as_single_precision() -> None:
    half = Tensor(np.ones((2, 32), np.float16))
    with pytest.raises(RuntimeError, match=r"LayerNorm\) is 1"):
        operations.layer_norm()(half, *(Tensor(np.ones(size, np.float32)) for size in (32, 32, 1))).asnumpy()


@needs_compiler
@pytest.mark.parametrize("features_only", [False, True])
def test_a_portable_copy_exports_without_this_machines_code(features_only: bool, tmp_path: Path) -> None:
    network = create_model("xcit_nano_12_p16_224", features_only=features_only, seed=0).set_train(False)
    image = Tensor(_draw(1, 3, 32, 32))
    copy = network.portable()
    mindspore.export(copy, image, file_name=str(tmp_path / "network"), file_format="MINDIR")
    assert build.library().name.encode() not in (tmp_path / "network.mindir").read_bytes()
    found = nn.GraphCell(mindspore.load(str(tmp_path / "network.mindir")))(image)
    expected = network(image)
    if features_only:
        found, expected = found[-1] if isinstance(found, (tuple, list)) else found, expected[-1]
    assert np.abs(found.asnumpy() - expected.asnumpy()).max() <= 1e-4


@needs_compiler
def test_a_result_does_not_depend_on_timing() -> None:
    x, up = Tensor(_draw(16, 196, 192)), Tensor(_draw(16, 196, 192))
    cell = _COMPILED.layer_norm((192,), epsilon=1e-6)
    slope = mindspore.grad(_Weighed(_Call(cell, [x.asnumpy()]), up), None, cell.trainable_params())
    first = [gradient.asnumpy() for gradient in slope()]
    for _ in range(5):
        assert all(np.array_equal(a, b.asnumpy()) for a, b in zip(first, slope(), strict=True))


_REPORT = "from xcit_hub.models.native import build; print(build.library(), '|', build.absence())"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"XCIT_HUB_NATIVE": "0"}, "XCIT_HUB_NATIVE=0"),
        ({"PATH": ""}, "no C++ compiler"),
        ({"CXX": "false"}, "false"),
        ({"XDG_CACHE_HOME": "/proc/none"}, "/proc"),
    ],
)
def test_without_a_working_compiler_it_says_why_and_goes_on(
    settings: dict[str, str], reason: str, tmp_path: Path
) -> None:
    environment = {"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path), **settings}
    said = subprocess.run([sys.executable, "-c", _REPORT], env=environment, capture_output=True, text=True, check=True)
    library, _, absence = said.stdout.strip().partition(" | ")
    assert library == "None"
    assert reason in absence
    assert not list(tmp_path.rglob("*.so"))
