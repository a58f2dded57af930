"""MindSpore's network and PyTorch's compute the same, and nothing wrong passes for equal."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
import pytest

from xcit_hub import create_model, parity, variants
from xcit_hub.accelerated import twins
from xcit_hub.errors import UnknownNameError, XcitHubError
from xcit_hub.models import load_weights
from xcit_hub.parameters import parameter_shapes, trainable

_NANO = "xcit_nano_12_p16_224"
_TINY = "xcit_tiny_12_p16_224"
# Enough blocks for a mistake in the middle, and quick.
_SMALL = variants.Architecture(
    "xcit_custom", patch_size=16, embed_dim=64, depth=4, num_heads=4, eta=1e-5, tokens_norm=True, image_size=64
)
_NETWORKS = sorted(variants.TIMM_ARCHITECTURES)


def _weights(architecture: variants.Architecture = _SMALL) -> dict[str, np.ndarray]:
    return parity.random_weights(parameter_shapes(architecture))


_IN_PROCESS = """
import ctypes, gc, json, sys
from xcit_hub import parity, variants
from xcit_hub.accelerated import twins
from xcit_hub.parameters import parameter_shapes

SIDE = 64
library, drawn = twins.library, None
for name, dialect, seed, gradients, compiled in json.loads(sys.argv[1]):
    architecture = variants.architecture(name)
    if drawn != (name, seed):
        weights = None  # before others are there
        weights = parity.random_weights(parameter_shapes(architecture), seed)  # 200 million take seconds: once
        drawn = name, seed
    given = dict(weights)
    if not variants.dialect(dialect).normalize_qk:  # as verify_random draws them
        tokens = (SIDE // architecture.patch_size) ** 2
        given |= {each: array / tokens for each, array in weights.items() if each.endswith("temperature")}
    twins.library = library if compiled else lambda: None
    result = parity.verify_weights(given, architecture, dialect, image_size=SIDE, gradients=gradients)
    outputs = [check for check in result.checks if "gradient" not in check.what and "step" not in check.what]
    if not result.passed or len(outputs) != 2 + architecture.depth:
        sys.exit(f"{name}, {dialect}: {len(outputs)} outputs. {result}")
    print(name, dialect, flush=True)
    del given, result, outputs
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
"""
_DIALECTS = ["paper", "mindcv"]


def _in_a_process_of_its_own(*networks: tuple[str, str, int, bool, bool]) -> None:
    """Prove large networks: together with what earlier tests left they would hold too much.

    Args:
        networks: of each its name, dialect and seed, whether by its gradients too, and by compiled code where there is.
    """
    command = [sys.executable, "-c", _IN_PROCESS, json.dumps(networks)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [f"{name} {dialect}" for name, dialect, *_ in networks]


_WIDE = [name for name in _NETWORKS if variants.architecture(name).embed_dim > 384]
# Names that end in 384 mean the networks of 224 at another resolution: at one size, other random weights alone.
_AGAIN = {name for name in _NETWORKS if name.endswith("384")}


def _cases() -> Iterator[Any]:
    """Every network in both dialects; ordinary runs take the dialects in turn, which change no size of any layer."""
    sampled = [name for name in _NETWORKS if name not in _WIDE and name not in _AGAIN]
    for name in (name for name in _NETWORKS if name not in _WIDE):
        place = sampled.index(name) if name in sampled else -1
        turn = (place + place // 2) % 2  # so that each patch size meets both
        for index, dialect in enumerate(_DIALECTS):
            chosen = name in sampled and turn == index
            yield pytest.param(name, dialect, marks=[] if chosen else [pytest.mark.campaign])


@pytest.mark.slow
@pytest.mark.usefixtures("memory_back")
@pytest.mark.parametrize(("name", "dialect"), [*_cases()])
def test_every_architecture_equals_pytorchs_in_both_dialects(name: str, dialect: str) -> None:
    result = parity.verify_random(name, dialect, seed=_NETWORKS.index(name))
    assert result.passed, str(result)
    assert len(result.checks) == 2 + variants.architecture(name).depth


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.parametrize("form", ["p8_224", "p16_224", "p8_384", "p16_384"])
def test_every_wide_architecture_equals_pytorchs_in_both_dialects(form: str) -> None:
    names = [name for name in _WIDE if name.endswith(f"_{form}")]
    _in_a_process_of_its_own(
        *[(name, dialect, _NETWORKS.index(name), False, True) for name in names for dialect in _DIALECTS]
    )


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.gigabytes(6)
def test_the_largest_network_without_compiled_code_and_whole_gradients_equal_pytorchs() -> None:
    """What ordinary runs see of the largest width and of the whole depth one at a time."""
    _in_a_process_of_its_own(
        ("xcit_large_24_p8_224", "paper", 2, False, False),
        ("xcit_small_12_p16_224", "paper", 0, True, True),
        ("xcit_medium_24_p16_224", "paper", 0, True, True),
    )


@pytest.mark.slow
@pytest.mark.gigabytes(4)
@pytest.mark.usefixtures("memory_back")
def test_the_largest_network_equals_pytorchs() -> None:
    result = parity.verify_random("xcit_large_24_p8_224", "mindcv", seed=2)
    assert result.passed, str(result)
    assert len(result.checks) == 2 + 24


# The whole depth where blocks are narrow, two blocks where they are wide: more of the same are the same code.
# Of each: whether by compiled code, where there is, and whether by its gradients too.
_DEEP_AND_WIDE = [
    ("xcit_tiny_24_p8_224", 24, "paper", True, True),
    ("xcit_tiny_24_p8_224", 24, "mindcv", False, False),
    ("xcit_small_12_p16_224", 2, "mindcv", True, True),
    ("xcit_medium_24_p16_224", 2, "paper", True, True),
    ("xcit_large_24_p8_224", 2, "mindcv", True, True),
    ("xcit_large_24_p8_224", 2, "paper", False, False),
]


@pytest.mark.slow
@pytest.mark.usefixtures("memory_back")
@pytest.mark.parametrize(("name", "depth", "dialect", "compiled", "gradients"), _DEEP_AND_WIDE)
def test_deep_and_wide_networks_and_their_gradients_equal_pytorchs(
    name: str, depth: int, dialect: str, compiled: bool, gradients: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every width beyond the tiny one, both patch sizes, in both dialects, by compiled code and without."""
    if not compiled:
        monkeypatch.setattr(twins, "library", lambda: None)
    architecture = dataclasses.replace(variants.architecture(name), depth=depth)
    tokens = (64 // architecture.patch_size) ** 2
    temperature = 1.0 if variants.dialect(dialect).normalize_qk else 1.0 / tokens
    weights = parity.random_weights(parameter_shapes(architecture), temperature=temperature)
    result = parity.verify_weights(weights, architecture, dialect, image_size=64, gradients=gradients)
    assert result.passed, str(result)
    outputs = {check.what for check in result.checks if "gradient" not in check.what and "step" not in check.what}
    assert len(outputs) == 2 + depth
    compared = {check.what for check in result.checks if check.what.startswith("gradient of")}
    assert len(compared) == (sum(map(trainable, weights)) if gradients else 0)


# Every two of name, dialect and operations meet; dialects and operations all do where gradients are compared, below.
_AT_THEIR_OWN = [
    (_NANO, "paper", "MindSpore's own"),
    (_NANO, "mindcv", "compiled"),
    (_TINY, "paper", "compiled"),
    (_TINY, "mindcv", "MindSpore's own"),
]


@pytest.mark.usefixtures("operations")
@pytest.mark.parametrize(("name", "dialect", "operations"), _AT_THEIR_OWN, indirect=["operations"])
def test_nano_and_tiny_equal_pytorchs_at_their_own_resolution(name: str, dialect: str) -> None:
    result = parity.verify_random(name, dialect, image_size=224)
    assert result.passed, str(result)
    assert result.image_size == (224, 224)


@pytest.mark.usefixtures("operations")
@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
def test_every_gradient_equals_pytorchs(dialect: str) -> None:
    result = parity.verify_random(_NANO, dialect, gradients=True)
    assert result.passed, str(result)
    compared = {check.what for check in result.checks if check.what.startswith("gradient of")}
    assert len(compared) == len(create_model(_NANO, init=False).trainable_params())


def test_graph_mode_equals_pytorch_too() -> None:
    weights = _weights()
    ours = create_model(_SMALL, init=False)
    load_weights(ours, weights)
    ours.set_train(False)
    theirs = parity.torch_network(weights, _SMALL, "paper")
    images = parity.random_images(2, 3, 96, 64)
    expected = parity.compare(ours, theirs, images)
    assert expected.passed, str(expected)
    compiled = mindspore.jit(ours.construct)(mindspore.Tensor(images)).asnumpy()
    (check,) = parity.Reference(theirs, images).check({"logits": compiled})
    assert check.passed, check


def test_freshly_initialised_weights_would_hide_a_missing_norm() -> None:
    """The reason why every parameter is randomised: with layer scales of 1e-5 the mistake is nearly invisible."""
    from xcit_hub.models import XCiT

    network = create_model(_SMALL, seed=0)
    fresh = {key: value.asnumpy() for key, value in network.parameters_dict().items()}
    wrong = XCiT(_SMALL, dataclasses.replace(variants.DIALECTS["paper"], normalize_qk=False))
    load_weights(wrong, fresh)
    images = mindspore.Tensor(parity.random_images(1, 3, 64, 64))
    network.set_train(False)
    wrong.set_train(False)
    right, other = network(images).asnumpy(), wrong(images).asnumpy()
    assert np.abs(right - other).max() < 1e-3 * right.std()


def test_the_two_dialects_are_far_apart_on_the_same_weights() -> None:
    weights = _weights(variants.architecture(_TINY))
    images = mindspore.Tensor(parity.random_images(2, 3, 64, 64))
    logits = []
    for dialect in ("paper", "mindcv"):
        network = create_model(_TINY, dialect=dialect, init=False)
        load_weights(network, weights)
        network.set_train(False)
        logits.append(network(images).asnumpy())
    assert np.abs(logits[0] - logits[1]).max() > 0.5


def test_what_is_not_finite_is_never_equal_and_named() -> None:
    weights = _weights()
    weights["head.bias"][0] = np.nan
    result = parity.verify_weights(weights, _SMALL, "paper")
    assert [check.what for check in result.failed] == ["logits"]
    assert "logits, which is not finite" in str(result)


def test_a_network_whose_outputs_never_vary_proves_nothing() -> None:
    weights = {name: np.zeros_like(value) for name, value in _weights().items()}
    result = parity.verify_weights(weights, _SMALL, "paper")
    assert len(result.failed) == len(result.checks)
    assert "proves nothing" in str(result)


def test_float16_is_judged_by_its_own_rounding() -> None:
    result = parity.verify_weights(_weights(), _SMALL, "paper", dtype="float16")
    assert result.passed, str(result)
    assert result.dtype == "float16"
    assert all(check.unit == 2.0**-11 for check in result.checks)
    assert result.logits.error > 100 * parity.verify_weights(_weights(), _SMALL, "paper").logits.error


def test_bfloat16_is_refused_where_nothing_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something does, tests/accelerated/test_narrow.py proves it."""
    monkeypatch.setenv("XCIT_HUB_NATIVE", "0")
    with pytest.raises(XcitHubError, match="cannot be fused in bfloat16 here"):
        parity.verify_weights(_weights(), _SMALL, "paper", dtype="bfloat16")


def test_pytorch_judges_its_own_bfloat16_by_the_rule() -> None:
    """What needs no processor that computes in it: truth, rounding, tolerance."""
    import torch

    theirs = parity.torch_network(_weights(), _SMALL, "paper").to(torch.bfloat16)
    images = parity.random_images(2, 3, 64, 64)
    reference = parity.Reference(theirs, images)
    with torch.no_grad():
        again = theirs(torch.from_numpy(images).to(torch.bfloat16)).float().numpy()
    (check,) = reference.check({"logits": again})
    assert check.passed and check.ratio == 1.0 and check.unit == 2.0**-8
    assert not reference.check({"logits": again * 1.1})[0].passed


@pytest.mark.parametrize("name", _NETWORKS)
def test_the_images_of_a_proof_are_the_architectures_own_unless_that_takes_long(name: str) -> None:
    architecture = variants.architecture(name)
    size = parity.proof_size(architecture)
    assert size % architecture.patch_size == 0
    assert 112 <= size <= architecture.image_size
    assert size == architecture.image_size or architecture.embed_dim >= 384


def test_stages_are_told_while_it_takes() -> None:
    told: list[str] = []
    parity.verify_weights(_weights(), _SMALL, "paper", gradients=True, stage=told.append)
    assert told[:2] == ["building both networks", "PyTorch's network in double precision"]
    assert {"MindSpore's network", "MindSpore's gradients"} < set(told)


def test_pytorchs_network_is_left_as_it_came() -> None:
    import torch

    theirs = parity.torch_network(_weights(), _SMALL, "paper")
    before = {name: value.clone() for name, value in theirs.state_dict().items()}
    ours = create_model(_SMALL, init=False)
    load_weights(ours, _weights())
    parity.compare(ours, theirs, parity.random_images(2, 3, 64, 64), gradients=True)
    assert not theirs.training
    assert all(parameter.grad is None for parameter in theirs.parameters())
    for name, value in theirs.state_dict().items():
        assert value.dtype == before[name].dtype and torch.equal(value, before[name]), name


def test_an_unknown_name_is_answered_with_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean"):
        parity.verify_random("xcit_nano_12_p16_225")


def test_the_command_prints_a_table_and_writes_figures(tmp_path: Path, run_cli) -> None:
    target = tmp_path / "parity.json"
    done = run_cli("parity", _NANO, "--json", str(target))
    assert done.returncode == 0, done.stderr
    assert "1 of 1 equal" in done.stdout
    (figures,) = json.loads(target.read_text())
    assert figures["format"] == parity.FORMAT
    assert figures["passed"] is True and figures["failed"] == []
    assert 0 < figures["relative_error"] <= figures["bar"]
    assert {"ours", "pytorch", "tolerance", "ratio"} < set(figures["checks"][0])
    for check in figures["checks"]:
        assert check["ours"]["rms"] <= check["tolerance"]["rms"]
    assert done.stderr == ""


def test_a_published_name_is_reported_as_its_architecture_on_random_weights(tmp_path: Path, run_here) -> None:
    reports = {"--json": tmp_path / "p.json", "--junit": tmp_path / "p.xml"}
    published = f"{_NANO}.fb_in1k"
    done = run_here("parity", published, *(str(part) for pair in reports.items() for part in pair))
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "weights: random, seed 0" in said and "Published weights are not fetched" in said
    (figures,) = json.loads(reports["--json"].read_text())
    assert figures["weights"] == "random, seed 0"
    junit = reports["--junit"].read_text()
    assert f"{_NANO} (paper, float32; weights: random, seed 0)" in junit and published not in junit


def test_the_command_refuses_unknown_names_without_a_traceback(run_here) -> None:
    done = run_here("parity", "xcit_huge")
    assert done.returncode == 2
    assert "There is no XCiT architecture called 'xcit_huge'" in done.stderr
    assert "Traceback" not in done.stderr
