"""What a conversion does to numbers where it is asked to, and which numbers it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tiny_networks import SUFFIXES, TINY, Make, same, written

from converters.printing import print_inspection, print_report
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.checkpoint import StoredTensor
from xcit_hub.checkpoints.inspection import inspect
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.checkpoints.weights import load
from xcit_hub.errors import InputError, WeightsError
from xcit_hub.files import sha256_of

# ---- What stands beside the tensors


def test_values_and_strings_that_a_conversion_does_not_write_are_listed_with_their_reason(paper: Path, tmp_path: Path):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(tensor.numpy().copy()) for name, tensor in load(paper).file.tensors.items()}
    wrapped = {"model": tensors, "epoch": 300, "args": {"lr": 0.1, "model": "xcit"}}
    torch.save(wrapped, tmp_path / "run.pth")
    left = rewrite(tmp_path / "run.pth", tmp_path / "x.safetensors").as_dict()["left"]
    kinds = {entry["kind"]: entry["names"] for entry in left}
    assert kinds == {"value": ["epoch", "args.lr"], "string": ["args.model"]}
    assert all(entry["reason"] and entry["count"] == len(entry["names"]) for entry in left)
    stored = load(tmp_path / "x.safetensors").file
    checkpoint.write(tmp_path / "told.safetensors", stored.tensors, {**stored.metadata, "author": "me"})
    again = rewrite(tmp_path / "told.safetensors", tmp_path / "y.ckpt").as_dict()["left"]
    assert [entry["names"] for entry in again] == [["author"]]
    assert rewrite(tmp_path / "y.ckpt", tmp_path / "z.pth").as_dict()["left"] == []


def test_very_many_values_are_counted_and_the_first_of_them_named(paper: Path, tmp_path: Path):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(tensor.numpy().copy()) for name, tensor in load(paper).file.tensors.items()}
    torch.save({"model": tensors, "log": [0.5] * 50_000}, tmp_path / "run.pth")
    report = rewrite(tmp_path / "run.pth", tmp_path / "x.safetensors")
    (group,) = report.as_dict()["left"]
    assert (group["count"], len(group["names"]), group["names"][0]) == (50_000, 10_000, "log.0")
    assert len(json.dumps(report.as_dict())) < 1 << 20
    printed = io.StringIO()
    print_report(Console(file=printed, width=200), report)
    assert "50,000 entries (log.0 …)" in printed.getvalue()
    stored = load(paper).file
    checkpoint.write(tmp_path / "told.safetensors", stored.tensors, {**stored.metadata, "n" * (2 << 20): "x"})
    (group,) = rewrite(tmp_path / "told.safetensors", tmp_path / "y.ckpt").as_dict()["left"]
    assert (group["count"], group["names"]) == (1, [])


@pytest.mark.parametrize("text", ['{"pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}', "garbage"])
def test_a_configuration_of_others_beside_the_file_is_called_unread(paper: Path, tmp_path: Path, text: str):
    alone = tmp_path / "model.safetensors"
    rewrite(paper, alone)
    (tmp_path / "config.json").write_text(text)
    notes = rewrite(alone, tmp_path / "out.safetensors").weights.notes
    assert [note for note in notes if note.startswith("config.json stands beside model.safetensors")]
    (tmp_path / "config.json").unlink()
    assert not any("config.json" in note for note in rewrite(alone, tmp_path / "out.safetensors").weights.notes)


def test_a_file_whose_configuration_would_have_too_long_a_name_is_converted(paper: Path, tmp_path: Path):
    rewrite(paper, tmp_path / "short.ckpt")
    source = (tmp_path / "short.ckpt").rename(tmp_path / f"{'x' * 244}.ckpt")
    assert rewrite(source, tmp_path / "x.safetensors").target is not None


def test_a_name_cannot_steer_the_terminal_that_it_is_listed_on(paper: Path, tmp_path: Path):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(tensor.numpy().copy()) for name, tensor in load(paper).file.tensors.items()}
    torch.save({"model": tensors, "\x1b[31mred": 1}, tmp_path / "run.pth")
    printed = io.StringIO()
    report = rewrite(tmp_path / "run.pth", tmp_path / "x.safetensors")
    print_report(Console(file=printed, width=200), report)
    assert "\x1b" not in printed.getvalue() and r"'\x1b[31mred'" in printed.getvalue()


def test_a_huge_name_is_cut_where_it_is_printed_and_whole_in_the_report(paper: Path, tmp_path: Path):
    stored = load(paper).file
    name = "n" * 300_000
    checkpoint.write(tmp_path / "told.safetensors", stored.tensors, {**stored.metadata, name: "x"})
    report = rewrite(tmp_path / "told.safetensors", tmp_path / "y.ckpt")
    assert [entry["names"] for entry in report.as_dict()["left"]] == [[name]]
    printed = io.StringIO()
    print_report(Console(file=printed, width=200), report)
    print_inspection(Console(file=printed, width=200), inspect(tmp_path / "told.safetensors"))
    assert "(300,000 letters)" in printed.getvalue() and len(printed.getvalue()) < 20_000
    checkpoint.write(tmp_path / "huge.safetensors", {**stored.tensors, name: StoredTensor.of(np.ones(3))}, {})
    with pytest.raises(WeightsError) as caught:
        rewrite(tmp_path / "huge.safetensors", tmp_path / "y.ckpt")
    assert "letters)" in str(caught.value) and len(str(caught.value)) < 20_000


# ---- Heads, channels


def test_classes_are_kept_from_the_first_or_dropped_and_it_is_said(paper: Path, tmp_path: Path):
    whole = load(paper)
    report = rewrite(paper, tmp_path / "x.safetensors", num_classes=3)
    kept = load(tmp_path / "x.safetensors")
    assert kept.num_classes == 3
    assert (kept.tensors["head.weight"].numpy() == whole.tensors["head.weight"].numpy()[:3]).all()
    assert any("first 3 of 7" in note for note in report.weights.notes)
    report = rewrite(paper, tmp_path / "x.safetensors", num_classes=0)
    assert load(tmp_path / "x.safetensors").kind == "backbone"
    assert [entry.name for entry in report.weights.dropped] == ["head.weight", "head.bias"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_more_classes_begin_another_classifier_which_is_called_untrained_wherever_it_goes(
    paper: Path, tmp_path: Path, suffix: str
):
    from xcit_hub.checkpoints.inspection import inspect

    grown = tmp_path / f"grown{suffix}"
    report = rewrite(paper, grown, num_classes=9)
    told = report.as_dict()
    assert [entry["name"] for entry in told["made_up"]] == ["head.weight", "head.bias"]
    assert all("not trained" in entry["reason"] for entry in told["made_up"])
    assert [entry["name"] for entry in told["dropped"]] == ["head.weight", "head.bias"]
    assert [entry["source"] for entry in told["tensors"] if entry["target"][0] in ("head.weight", "head.bias")] == [
        []
    ] * 2
    assert told["head_untrained"] is True
    assert any("NOT TRAINED: it is random in place of the file's, which has 7" in note for note in told["notes"])
    loaded = load(grown)
    assert (loaded.num_classes, loaded.head_untrained) == (9, True)
    weight = loaded.tensors["head.weight"].numpy()
    assert weight.shape == (9, 16) and 0.01 < weight.std() < 0.03
    assert not loaded.tensors["head.bias"].numpy().any()
    rewrite(grown, tmp_path / "sliced.ckpt", num_classes=4)
    for path in (grown, tmp_path / "sliced.ckpt"):
        assert any("never trained" in note for note in load(path).notes)
        assert any("never trained" in note for note in inspect(path).notes)
    rewrite(grown, tmp_path / "bare.ckpt", num_classes=0)
    assert not load(tmp_path / "bare.ckpt").head_untrained
    assert not any("never trained" in note for note in load(tmp_path / "bare.ckpt").notes)


def test_a_new_classifier_is_the_same_every_time_and_of_the_files_dtype(paper: Path, tmp_path: Path):
    rewrite(paper, tmp_path / "half.safetensors", dtype="float16", num_classes=0)
    for name in ("a", "b"):
        rewrite(tmp_path / "half.safetensors", tmp_path / f"{name}.safetensors", to="timm", num_classes=9)
    assert sha256_of(tmp_path / "a.safetensors") == sha256_of(tmp_path / "b.safetensors")
    assert {tensor.dtype for tensor in written(tmp_path / "a.safetensors").values()} == {"float16"}
    assert load(tmp_path / "a.safetensors").kind == "classifier"


def test_classes_that_cannot_be_are_refused(paper: Path, tmp_path: Path, make: Make):
    with pytest.raises(InputError, match="cannot have -1 classes"):
        rewrite(paper, tmp_path / "x.safetensors", num_classes=-1)
    for absurd in (1 << 44, 1 << 80):
        with pytest.raises(InputError, match="is too large"):
            rewrite(paper, tmp_path / "x.safetensors", num_classes=absurd)
    checkpoint.write(tmp_path / "dense.safetensors", make("facebook", TINY, "dense"), {"format": "pt"})
    with pytest.raises(InputError, match="without class attention"):
        rewrite(tmp_path / "dense.safetensors", tmp_path / "x.safetensors", num_classes=5)
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("base", [3, 4])
@pytest.mark.parametrize("in_chans", [1, 2, 3, 4, 7])
def test_the_first_convolution_gets_timms_numbers(tmp_path: Path, make: Make, in_chans: int, base: int, dtype: str):
    import torch
    from timm.models._manipulate import adapt_input_conv

    source, cast = tmp_path / "x.safetensors", tmp_path / "cast.safetensors"
    checkpoint.write(source, make("timm", in_chans=base))
    rewrite(source, cast, dtype=dtype)
    rewrite(cast, tmp_path / "y.safetensors", in_chans=in_chans)
    name = "patch_embed.proj.0.0.weight"
    weight = torch.from_numpy(load(cast).tensors[name].numpy().copy()).to(getattr(torch, dtype))
    expected = adapt_input_conv(in_chans, weight, base_chans=base)
    found = load(tmp_path / "y.safetensors")
    assert (found.in_chans, found.tensors[name].dtype) == (in_chans, dtype)
    assert torch.equal(torch.from_numpy(found.tensors[name].numpy().copy()), expected.float())


def test_a_file_of_float64_gets_other_channels_and_a_larger_classifier_in_its_own_dtype(tmp_path: Path, make: Make):
    source, target = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    tensors = {name: StoredTensor.of(each.numpy().astype(np.float64)) for name, each in make("timm").items()}
    checkpoint.write(source, tensors)
    rewrite(source, target, in_chans=1, num_classes=1200)
    found = load(target)
    assert (found.in_chans, found.num_classes) == (1, 1200)
    assert {found.tensors[name].dtype for name in ("patch_embed.proj.0.0.weight", "head.weight")} == {"float64"}


# ---- Numbers


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_whether_numbers_are_finite_is_seen_in_every_place_and_without_a_warning(dtype: str):
    from xcit_hub.checkpoints.check import all_finite

    largest = np.finfo(dtype).max
    for size in (0, 1, 7, 1000, 100_003):
        values = np.full(size, largest, dtype)  # their sum is none
        assert all_finite(values, values.dtype.name)
        for place in {0, size // 2, size - 1} if size else ():
            for bad in (np.nan, np.inf, -np.inf):
                spoiled = values.copy()
                spoiled[place] = bad
                assert not all_finite(spoiled, spoiled.dtype.name)


def test_numbers_are_rounded_as_pytorch_rounds_them(tmp_path: Path, make: Make):
    import torch

    source = tmp_path / "x.safetensors"
    for dtype_in in ("float32", "float64", "float16"):
        tensors = {n: StoredTensor.of(t.numpy().astype(dtype_in)) for n, t in make("timm").items()}
        checkpoint.write(source, tensors)
        for dtype in ("float32", "float16", "bfloat16"):
            rewrite(source, tmp_path / "y.safetensors", to="timm", dtype=dtype)
            for name, tensor in written(tmp_path / "y.safetensors").items():
                expected = torch.from_numpy(tensors[name].numpy().copy()).to(getattr(torch, dtype))
                assert tensor.dtype == dtype
                assert (torch.from_numpy(tensor.numpy().copy()) == expected.float()).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("dtype", "held", "tiny"),
    [("float16", "float32", 1e-8), ("bfloat16", "float32", 1e-44), ("float32", "float64", 1e-50)],
)
def test_numbers_that_become_zero_are_counted_and_named(tmp_path: Path, make: Make, suffix: str, dtype, held, tiny):
    tensors = {name: StoredTensor.of(tensor.numpy().astype(held)) for name, tensor in make().items()}
    for name in ("blocks.0.attn.qkv.weight", "blocks.1.norm1.gamma"):
        values = tensors[name].numpy().copy()
        values.flat[:3] = tiny, -tiny, 0.0
        tensors[name] = StoredTensor.of(values)
    checkpoint.write(tmp_path / "x.safetensors", tensors, {"xcit_hub.dialect": "paper"})
    said = f"Too small for {dtype}, and zero in it: 4 numbers of blocks.0.attn.qkv.weight, blocks.1.norm1.gamma."
    assert said in rewrite(tmp_path / "x.safetensors", tmp_path / f"y{suffix}", to="timm", dtype=dtype).weights.notes
    if dtype == "float32":  # which a network computes in: so is it where the file keeps its float64
        assert said in rewrite(tmp_path / "x.safetensors", tmp_path / f"z{suffix}").weights.notes
        assert said in load(tmp_path / "x.safetensors").doubts
    again = rewrite(tmp_path / f"y{suffix}", tmp_path / f"again{suffix}", dtype=dtype).weights.notes
    assert not any("Too small" in note for note in again)


def test_bfloat16_is_rounded_once_even_from_float64():
    from xcit_hub.checkpoints import dtypes as numbers

    generator = np.random.default_rng(0)
    # Just above the middle between two bfloat16 values: rounding to float32 first would land on the middle, then even.
    middles = (1 + (2 * generator.integers(0, 64, 200) + 1) / 256.0) * 2.0 ** generator.integers(-20, 20, 200)
    for nudge in (1 + 2.0**-40, 1 - 2.0**-40, 1.0):
        values = middles * nudge
        out = numbers.cast(StoredTensor.of(values), "bfloat16", ("w",)).numpy().astype(np.float64)
        step = 2.0 ** (np.floor(np.log2(values)) - 7)
        quotient = values / step
        expected = np.where(quotient % 1 == 0.5, 2 * np.round(quotient / 2), np.floor(quotient + 0.5)) * step
        assert (out == expected).all()


def test_numbers_stay_exactly_as_they_are_unless_asked(tmp_path: Path, make: Make):
    tensors = make("timm")
    odd = tensors["cls_token"].numpy().copy()
    odd[0, 0, :4] = [-0.0, 1e-45, np.finfo(np.float32).max, np.float32(1) / 3]
    tensors["cls_token"] = StoredTensor.of(odd)
    half = "blocks.0.norm1.weight"
    tensors[half] = StoredTensor.of(tensors[half].numpy().astype(np.float16))
    checkpoint.write(tmp_path / "x.safetensors", tensors)
    rewrite(tmp_path / "x.safetensors", tmp_path / "y.ckpt")
    rewrite(tmp_path / "y.ckpt", tmp_path / "z.safetensors", to="timm")
    assert same(written(tmp_path / "z.safetensors"), tensors)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "bfloat16"])
def test_nan_and_infinity_are_refused_by_name_and_leave_no_file(tmp_path: Path, make: Make, bad: float, dtype: str):
    tensors = make("timm")
    name = "blocks.1.mlp.fc2.weight"
    broken = tensors[name].numpy().copy()
    broken[3, 5] = bad
    if dtype == "bfloat16":
        bits = (broken.view(np.uint32) >> 16).astype(np.uint16)
        tensors[name] = StoredTensor("bfloat16", broken.shape, StoredTensor.of(bits)._extents)
    else:
        tensors[name] = StoredTensor.of(broken.astype(dtype))
    checkpoint.write(tmp_path / "x.safetensors", tensors)
    for attempt in (
        lambda: load(tmp_path / "x.safetensors"),
        lambda: rewrite(tmp_path / "x.safetensors", tmp_path / "y.ckpt"),
    ):
        with pytest.raises(WeightsError, match=r"blocks.1.mlp.fc2.weight holds NaN or infinity") as caught:
            attempt()
        assert caught.value.where == str(tmp_path / "x.safetensors")
    from xcit_hub.checkpoints.inspection import inspect

    assert inspect(tmp_path / "x.safetensors").flaws == {"non_finite": {name: 1}}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.safetensors"]


@pytest.mark.parametrize(
    ("flaw", "dtype", "bad", "words"),
    [
        ("negative_variances", "float32", -1e-3, "holds the negative variance -0.001"),
        ("negative_variances", "float16", -1.0, "holds the negative variance -1"),
        ("beyond_float32", "float64", 1e39, r"holds 1e\+39, which is too large for float32"),
    ],
)
def test_numbers_that_can_only_give_nan_are_refused_and_inspect_counts_them(
    tmp_path: Path, make: Make, flaw: str, dtype: str, bad: float, words: str
):
    from xcit_hub.checkpoints.inspection import inspect

    tensors = make("timm")
    name = "patch_embed.proj.0.1.running_var"
    broken = tensors[name].numpy().astype(dtype)
    broken[1] = bad
    tensors[name] = StoredTensor.of(broken)
    source = tmp_path / "x.safetensors"
    checkpoint.write(source, tensors)
    for attempt in (lambda: load(source), lambda: rewrite(source, tmp_path / "y.ckpt")):
        with pytest.raises(WeightsError, match=f"{name} {words}") as caught:
            attempt()
        assert caught.value.where == str(source)
    assert inspect(source).flaws == {flaw: {name: 1}}
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_the_largest_numbers_are_numbers_too(tmp_path: Path, make: Make):
    tensors = make("timm")
    tensors["cls_token"] = StoredTensor.of(np.full((1, 1, 16), np.finfo(np.float32).max))
    checkpoint.write(tmp_path / "x.safetensors", tensors)
    load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(("value", "dtype"), [(70000.0, "float16"), (3.4e38, "bfloat16"), (1e300, "float32")])
def test_overflow_on_rounding_down_is_an_error(tmp_path: Path, make: Make, value: float, dtype: str):
    tensors = make("timm")
    broken = tensors["head.weight"].numpy().astype(np.float64 if dtype == "float32" else np.float32)
    broken[0, 0] = value
    tensors["head.weight"] = StoredTensor.of(broken)
    checkpoint.write(tmp_path / "x.safetensors", tensors)
    with pytest.raises(WeightsError, match=f"head.weight holds .*, which is too large for {dtype}"):
        rewrite(tmp_path / "x.safetensors", tmp_path / "y.ckpt", dtype=dtype)
    assert not (tmp_path / "y.ckpt").exists()
