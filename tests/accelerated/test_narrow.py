"""A network fused in bfloat16 or int8 is as near to the truth as its factors; elsewhere that is refused in words."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
import pytest
from mindspore import Tensor

import xcit_hub
from xcit_hub import parity, variants
from xcit_hub.accelerated import accelerate, build, fuse, is_fused, operations, portable
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.models import XCiT, create_model, load_weights
from xcit_hub.parameters import parameter_shapes
from xcit_hub.parity.networks import our_outputs

DTYPES = tuple(build.EXTENSIONS)
# Each dtype, skipped by name where this processor does not compute in it.
HERE = [
    pytest.param(dtype, marks=pytest.mark.skipif(bool(absence), reason=f"no {dtype} here: {absence}"))
    for dtype, absence in ((dtype, build.extension_absence(dtype)) for dtype in DTYPES)
]

# Widths that are not those of registers, tokens that end within a band.
_ODD = variants.Architecture(
    "xcit_odd", patch_size=16, embed_dim=72, depth=3, num_heads=3, eta=1.0, tokens_norm=True, image_size=96
)
_IMAGES = (2, 3, 96, 80)


def _weights(dialect: str) -> dict[str, Any]:
    return parity.random_weights(parameter_shapes(_ODD), temperature=1.0 if dialect == "paper" else 0.03)


def _network(dialect: str = "paper") -> XCiT:
    network = create_model(_ODD, dialect=dialect, init=False)
    load_weights(network, _weights(dialect))
    return accelerate(network.set_train(False))


# ---- the C++ -------------------------------------------------------------------------------------

# What is undefined ends the program by a trap: words of which line take a third of the time to compile.
_SANITIZERS = "-fsanitize=address,undefined", "-fsanitize-undefined-trap-on-error"
_FLAGS = ("-std=c++17", "-Og", "-fopenmp-simd", "-pthread", *_SANITIZERS)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler")
@pytest.mark.parametrize("which", [None, -1, 0], ids=["by other operations", "by vectors", "by tiles"])
def test_the_operations_equal_their_references_under_sanitizers_whatever_the_number_of_threads(
    which: int | None, tmp_path: Path
) -> None:
    kinds = [] if which is None else [targets[which] for targets in build.EXTENSIONS.values()]
    flags: dict[str, None] = {}
    for kind in kinds:
        try:
            build._usable(kind)
        except (build._UnavailableError, OSError) as absence:
            pytest.skip(f"{kind.path.name}: {absence}")
        flags |= dict.fromkeys(kind.features.values())
    program = tmp_path / "narrow_test"
    source = Path(__file__).with_name("narrow_test.cpp")
    build.compile_source(source, program, (*_FLAGS, *flags))
    said = []
    for cores in ({min(os.sched_getaffinity(0))}, set(range(os.cpu_count() or 1))):
        on_them = partial(os.sched_setaffinity, 0, cores)
        done = subprocess.run([program], capture_output=True, text=True, check=False, preexec_fn=on_them)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.fullmatch(r"\d+ checks, 0 failed, digest \w+\n", done.stdout), done.stdout
        said.append(done.stdout)
    assert said[0] == said[1]


# ---- the proof -----------------------------------------------------------------------------------


def _outputs(network: Any, images: Any) -> dict[str, Any]:
    """What PyTorch's network puts out, as :func:`our_outputs` names it."""
    import torch

    with torch.no_grad():
        features, maps = network.forward_intermediates(images)
        outputs = {"logits": network.forward_head(features), "features": features}
    outputs |= {f"blocks.{index}": tokens for index, tokens in enumerate(maps)}
    return {what: values.double().numpy() for what, values in outputs.items()}


def _bfloat16(x: Any) -> Any:
    import torch

    return x.to(torch.bfloat16).to(x.dtype)


def _int8(x: Any) -> Any:
    """Rows as whole multiples of a 127th of their greatest magnitude."""
    scale = x.abs().amax(-1, keepdim=True) / 127.0
    return (x / scale).round() * scale


_ROUNDINGS: dict[str, Callable[[Any], Any]] = {"bfloat16": _bfloat16, "int8": _int8}


@cache
def _truth(dialect: str) -> dict[str, Any]:
    """PyTorch's network in double precision."""
    import torch

    network = parity.torch_network(_weights(dialect), _ODD, dialect).double()
    return _outputs(network, torch.from_numpy(parity.random_images(*_IMAGES)).double())


@cache
def _yardstick(dtype: str, dialect: str) -> dict[str, Any]:
    """PyTorch's float32 network, which rounds what the affine maps of its blocks multiply, and nothing else."""
    import torch

    rounding, network = _ROUNDINGS[dtype], parity.torch_network(_weights(dialect), _ODD, dialect)
    for block in network.blocks:
        for affine in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            affine.weight.data = rounding(affine.weight.data)
            affine.register_forward_pre_hook(lambda _, x: (rounding(x[0]),))
    return _outputs(network, torch.from_numpy(parity.random_images(*_IMAGES)))


def _failed(dtype: str, dialect: str, found: Mapping[str, Any]) -> list[str]:
    """What is further from the truth than the rule of the proof allows, without a floor."""
    truth, failed = _truth(dialect), []
    for what, values in _yardstick(dtype, dialect).items():
        distances = [parity.Distance.between(each, truth[what]) for each in (found[what], values)]
        check = parity.Check(what, *distances, scale=float(np.sqrt((truth[what] ** 2).mean())), floor=0.0)
        print(f"{dtype}, {dialect}: {what}: {check.ratio:.2f} times the yardstick by {check.measure}")
        if not check.passed:
            failed.append(what)
    return failed


def _found(network: XCiT) -> Mapping[str, Any]:
    return our_outputs(network, parity.random_images(*_IMAGES))


@pytest.mark.parametrize("dtype", HERE)
@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
def test_every_output_is_as_near_to_the_truth_as_its_factors_are(dialect: str, dtype: str) -> None:
    pytest.importorskip("timm")
    assert _failed(dtype, dialect, _found(fuse(_network(dialect), dtype))) == []


def _loses_channels(weight: Any, dtype: str) -> Any:
    weight[:, :12] = 0.0
    return weight


def _is_coarser(weight: Any, dtype: str) -> Any:
    kept = {"bfloat16": 0xFFF80000, "int8": 0xFFE00000}[dtype]
    return (weight.view(np.uint32) & np.uint32(kept)).view(np.float32)


@pytest.mark.parametrize("dtype", HERE)
@pytest.mark.parametrize("change", [_loses_channels, _is_coarser])
@pytest.mark.parametrize("which", range(4))
def test_a_weight_of_one_block_that_is_a_little_wrong_is_found(
    change: Callable[[Any, str], Any], which: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    pack, packed = operations.pack_weight, []

    def wrong(weight: Any, kind: str = "float32") -> Any:
        packed.append(kind)
        this = packed == [dtype] * (which + 5)  # of the second block
        return pack(change(weight.copy(), dtype) if this else weight, kind)

    monkeypatch.setattr(operations, "pack_weight", wrong)
    assert _failed(dtype, "paper", _found(fuse(_network(), dtype)))
    assert len(packed) > which + 5


@pytest.mark.parametrize("dtype", [HERE[DTYPES.index("bfloat16")]])
@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
def test_parity_proves_it_by_pytorchs_own_bfloat16(dialect: str, dtype: str) -> None:
    pytest.importorskip("timm")
    result = parity.verify_weights(_weights(dialect), _ODD, dialect, dtype=dtype)
    assert result.passed, str(result)
    assert result.dtype == "bfloat16"
    assert all(check.unit == 2.0**-8 for check in result.checks)
    assert result.logits.error > 1e-4  # float32's is a thousandth of that


@pytest.mark.parametrize("dtype", [HERE[DTYPES.index("bfloat16")]])
def test_parity_finds_a_wrong_weight_in_bfloat16_and_names_no_layer(dtype: str, monkeypatch) -> None:
    pytest.importorskip("timm")
    pack = operations.pack_weight

    def wrong(weight: Any, kind: str = "float32") -> Any:
        return pack(weight[::-1] if kind == dtype else weight, kind)

    monkeypatch.setattr(operations, "pack_weight", wrong)
    result = parity.verify_weights(_weights("paper"), _ODD, "paper", dtype=dtype)
    assert {check.what for check in result.failed} >= {"logits", "blocks.0"}
    assert result.departure is None


# ---- the switch ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HERE)
def test_it_is_another_copy_with_the_same_interface_and_float32_stays_as_it_was(dtype: str) -> None:
    network = _network()
    image = Tensor(parity.random_images(*_IMAGES))
    before = fuse(network)(image).asnumpy()
    fused = fuse(network, dtype)
    logits = fused(image)
    assert is_fused(fused) and logits.dtype == mindspore.float32
    assert 1e-4 < np.abs(logits.asnumpy() - before).max() / before.std() < 0.3
    assert np.array_equal(fuse(network, dtype="float32")(image).asnumpy(), before)
    half = fused(image.astype(mindspore.float16))
    assert np.abs(half.asnumpy() - logits.asnumpy()).max() < 0.3 * before.std()
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    assert np.array_equal(fused(image).asnumpy(), logits.asnumpy())


@pytest.mark.parametrize("dtype", HERE)
def test_what_is_not_finite_stays_so_for_its_image_alone(dtype: str) -> None:
    images = parity.random_images(*_IMAGES)
    fused = fuse(_network(), dtype)
    sound = fused(Tensor(images)).asnumpy()
    images[1, 0, 3, 3] = np.nan
    logits = fused(Tensor(images)).asnumpy()
    assert np.array_equal(logits[0], sound[0])
    assert np.isnan(logits[1]).all()


@pytest.mark.parametrize("dtype", HERE)
def test_feature_pyramids_fuse_too(dtype: str) -> None:
    network = accelerate(create_model(_ODD, features_only=True, out_indices=(0, 2), seed=3).set_train(False))
    image = Tensor(parity.random_images(1, 3, 48, 32))
    for found, expected in zip(fuse(network, dtype)(image), fuse(network)(image), strict=True):
        assert 0.0 < np.abs(found.asnumpy() - expected.asnumpy()).max() < 0.3 * expected.asnumpy().std()


@pytest.mark.parametrize("dtype", HERE)
def test_a_network_of_mindspores_own_operations_is_refused(dtype: str) -> None:
    with pytest.raises(InputError, match=f"own operations cannot be fused in {dtype}"):
        fuse(portable(_network()), dtype)


@pytest.mark.parametrize("dtype", ["float16", "float64", "BFLOAT16", ""])
def test_other_dtypes_are_refused_by_name(dtype: str) -> None:
    refused = f"fuse\\(\\) does not compute in '{dtype}'.*(\n.*)*Choose float32, bfloat16 or int8"
    with pytest.raises(InputError, match=refused):
        fuse(_network(), dtype)


@pytest.fixture
def afresh():
    """What the processor offers is asked again."""
    build._extension_outcome.cache_clear()
    yield
    build._extension_outcome.cache_clear()


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize(("dtype", "feature"), [("bfloat16", "avx512_bf16"), ("int8", "avx512_vnni")])
def test_a_processor_without_the_instruction_is_told_so(
    dtype: str, feature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = _network()
    monkeypatch.delenv(build.SWITCH, raising=False)
    monkeypatch.setattr(
        build, "_processor_features", lambda: frozenset(build.EXTENSIONS[dtype][0].features) - {feature}
    )
    lacks = f"this processor lacks {feature}" if platform.machine() == "x86_64" else f"on {platform.machine()}"
    with pytest.raises(InputError, match=f"cannot be fused in {dtype} here: .*{lacks}") as refused:
        fuse(network, dtype)
    assert ("xcit-hub export --int8" in str(refused.value)) == (dtype == "int8")


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize("dtype", HERE)
@pytest.mark.parametrize("lacking", ["the instructions", "the system's leave"])
def test_without_tiles_the_vectors_compute(lacking: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles, vectors = build.EXTENSIONS[dtype]
    monkeypatch.delenv(build.SWITCH, raising=False)
    features = vectors.features if lacking == "the instructions" else tiles.features
    monkeypatch.setattr(build, "_processor_features", lambda: frozenset(features))
    monkeypatch.setattr(build, "_may_use_tiles", lambda: False)
    assert build.extension(dtype) == vectors.path
    assert build.extension_absence(dtype) == ""


_ONE_OF_TWO = """
import sys, numpy, mindspore
from xcit_hub import parity
from xcit_hub.accelerated import accelerate, build, fuse
from xcit_hub.models import create_model
which, dtype, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
build.EXTENSIONS = {name: targets[which:][:1] for name, targets in build.EXTENSIONS.items()}
network = accelerate(create_model("xcit_nano_12_p16_224", seed=1).set_train(False))
logits = fuse(network, dtype)(mindspore.Tensor(parity.random_images(3, 3, 96, 80))).asnumpy()
numpy.save(f"{folder}/{which}.npy", logits)
print(build.extension(dtype).name)
"""


@pytest.mark.parametrize("dtype", HERE)
def test_tiles_and_vectors_add_the_same_products(dtype: str, tmp_path: Path) -> None:
    try:
        build._usable(build.EXTENSIONS[dtype][0])
    except (build._UnavailableError, OSError) as absence:
        pytest.skip(f"no tiles in {dtype} here: {absence}")
    for which, target in enumerate(build.EXTENSIONS[dtype]):
        command = [sys.executable, "-c", _ONE_OF_TWO, str(which), dtype, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout.split() == [target.path.name], done.stderr
    tiles, vectors = (np.load(tmp_path / f"{which}.npy") for which in (0, 1))
    if dtype == "int8":  # whole numbers
        assert np.array_equal(tiles, vectors)
    else:
        assert np.abs(tiles - vectors).max() < 0.05 * vectors.std()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wish", ["0", "v3", "v4"])
def test_a_kind_of_code_that_is_asked_for_by_name_is_used_alone(
    wish: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = _network()
    monkeypatch.setenv(build.SWITCH, wish)
    with pytest.raises(InputError, match=f"cannot be fused in {dtype} here: {build.SWITCH}={wish}"):
        fuse(network, dtype)


def test_gradients_in_bfloat16_are_refused_on_a_cpu() -> None:
    pytest.importorskip("timm")
    with pytest.raises(XcitHubError, match="has no gradients"):
        parity.verify_weights(_weights("paper"), _ODD, "paper", dtype="bfloat16", gradients=True)


def test_loading_in_bfloat16_on_a_cpu_says_what_to_do_instead(tmp_path: Path) -> None:
    xcit_hub.create_model("xcit_nano_12_p16_224", seed=0).save_pretrained(tmp_path / "nano")
    with pytest.raises(InputError, match=r"no kernels for bfloat16 on a CPU.*(\n.*)*network\.fuse\(dtype='bfloat16'\)"):
        xcit_hub.load(tmp_path / "nano", dtype="bfloat16")
