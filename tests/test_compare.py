"""Two networks held against each other: what differs is found and named, whatever it is."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from xcit_hub import parity, variants
from xcit_hub.checkpoints import checkpoint
from xcit_hub.compare import Comparison, compare
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.exporters import runtimes
from xcit_hub.parameters import parameter_shapes

_NANO = "xcit_nano_12_p16_224"
_SIZE = 32

Weights = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return parity.random_weights(parameter_shapes(variants.architecture(_NANO), num_classes=10))


@pytest.fixture(scope="module")
def right(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _written(weights, tmp_path_factory.mktemp("right") / "right.safetensors")


def _written(weights: Weights, path: Path, dialect: str = "paper") -> Path:
    checkpoint.write(path, weights, {"xcit_hub.dialect": dialect})
    return path


def _against(right: Path, changed: Weights, tmp_path: Path) -> Comparison:
    return compare(str(right), str(_written(changed, tmp_path / "other.safetensors")), image_size=_SIZE)


def test_a_network_equals_itself_in_another_format(right: Path, weights: Weights, tmp_path: Path) -> None:
    found = compare(str(right), str(_written(weights, tmp_path / "same.ckpt")), image_size=_SIZE)
    assert found.equal and "are equal" in str(found)
    assert [output.what for output in found.outputs][-2:] == ["logits", "features"]
    assert len(found.outputs) == 14 and all(output.rms == 0.0 for output in found.outputs)


def test_equal_values_of_another_type_or_sign_of_zero_are_equal(weights: Weights, tmp_path: Path) -> None:
    half = {name: value.astype(np.float16) for name, value in weights.items()}
    half["cls_token"] = np.zeros_like(half["cls_token"])
    single = {name: value.astype(np.float32) for name, value in half.items()}
    single["cls_token"] = -single["cls_token"]
    assert np.signbit(single["cls_token"]).all()
    found = _against(_written(half, tmp_path / "half.safetensors"), single, tmp_path)
    assert found.equal, found


def test_a_permuted_matrix_is_named_as_the_same_values_in_another_order(
    right: Path, weights: Weights, tmp_path: Path
) -> None:
    name = "blocks.5.attn.proj.weight"
    found = _against(right, weights | {name: weights[name][::-1]}, tmp_path)
    assert (found.differences[0].kind, found.differences[0].what) == ("tensor", name)
    assert "the same values in another order" in found.differences[0].how
    assert [difference.what for difference in found.differences if difference.kind == "tensor"] == [name]
    assert found.differences[1].what == "blocks.5"
    assert [output.rms > 0 for output in found.outputs[:12]] == [index >= 5 for index in range(12)]


def test_a_swapped_pair_of_blocks_is_named_as_such(right: Path, weights: Weights, tmp_path: Path) -> None:
    names = {"blocks.3.": "blocks.8.", "blocks.8.": "blocks.3."}
    swapped = {}
    for name, value in weights.items():
        prefix = next((each for each in names if name.startswith(each)), "")
        swapped[names.get(prefix, "") + name.removeprefix(prefix)] = value
    found = _against(right, swapped, tmp_path)
    named = {each.what: each.how for each in found.differences if each.kind == "tensor"}
    assert set(named) == {"blocks.3", "blocks.8"}
    assert "holds in blocks.8" in named["blocks.3"] and "holds in blocks.3" in named["blocks.8"]


def test_two_exchanged_tensors_are_named_as_such(right: Path, weights: Weights, tmp_path: Path) -> None:
    first, second = "blocks.2.gamma1", "blocks.2.gamma2"
    found = _against(right, weights | {first: weights[second], second: weights[first]}, tmp_path)
    assert [each.what for each in found.differences if each.kind == "tensor"] == [first, second]
    assert f"holds in {second}" in found.differences[0].how


def test_one_changed_running_statistic_is_named_with_its_size(right: Path, weights: Weights, tmp_path: Path) -> None:
    name = "blocks.0.local_mp.bn.moving_mean"
    changed = weights[name].copy()
    changed[3] += 1e-3
    found = _against(right, weights | {name: changed}, tmp_path)
    assert found.differences[0].what == name
    assert "1 of 128 elements differ, by 1.0e-03" in found.differences[0].how


def test_another_dialect_is_named_and_so_is_what_it_does(right: Path, weights: Weights, tmp_path: Path) -> None:
    other = _written(weights, tmp_path / "mindcv.safetensors", "mindcv")
    found = compare(str(right), str(other), image_size=_SIZE)
    assert str(found.differences[0]) == "description dialect: paper and mindcv"
    assert not [each for each in found.differences if each.kind == "tensor"]
    assert {each.what for each in found.differences if each.kind == "output"} >= {"blocks.0", "logits"}
    assert any(each.kind == "preprocessing" and each.what == "crop_pct" for each in found.differences)


def test_another_architecture_or_head_is_named_and_not_run(right: Path, tmp_path: Path) -> None:
    other = parity.random_weights(parameter_shapes(variants.architecture(_NANO), num_classes=7))
    found = _against(right, other, tmp_path)
    assert str(found.differences[0]) == "description num_classes: 10 and 7"
    assert "of shape (10,) and (7,)" in {each.what: each.how for each in found.differences}["head.bias"]
    assert found.outputs == () and found.image_size is None


def test_the_command_exits_1_with_the_first_difference(right: Path, weights: Weights, tmp_path: Path, run_here) -> None:
    name = "blocks.5.attn.proj.weight"
    other = _written(weights | {name: weights[name][::-1]}, tmp_path / "other.safetensors")
    figures = tmp_path / "figures.json"
    done = run_here("parity", str(right), "--against", str(other), "--image-size", "32", "--json", str(figures))
    assert done.returncode == 1, done.stderr
    assert f"NOT equal: tensor {name}: the same values in another order" in done.stdout
    told = json.loads(figures.read_text())
    assert told["equal"] is False and told["differences"][0]["what"] == name
    same = run_here("parity", str(right), "--against", str(right), "--image-size", "32")
    assert (same.returncode, same.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--against", "b.ckpt"], "nothing to compare"),
        (["a.ckpt", "c.ckpt", "--against", "b.ckpt"], "one network before it"),
        (["a.ckpt", "--against", "b.ckpt", "--gradients"], "without gradients"),
        ([_NANO, "--image-size", "1000000"], "'--image-size'"),
        (["./nowhere.ckpt", "--against", "./b.ckpt"], "nowhere.ckpt"),
    ],
)
def test_what_cannot_be_compared_is_refused_without_a_traceback(arguments: list[str], said: str, run_here) -> None:
    done = run_here("parity", *arguments)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_proof_of_a_file_says_which_bytes_it_is_of_and_what_it_cannot_see(
    right: Path, run_here, tmp_path: Path
) -> None:
    done = run_here("parity", str(right), "--image-size", "32", "--json", str(tmp_path / "p.json"))
    assert done.returncode == 0, done.stderr
    assert "not whether the file holds the weights that it should" in done.stdout
    assert "--against" in done.stdout
    (figures,) = json.loads((tmp_path / "p.json").read_text())
    assert figures["weights"] == f"{right.name}, SHA-256 {hashlib.sha256(right.read_bytes()).hexdigest()}"


@pytest.fixture(scope="module")
def exported(right: Path) -> Path:
    pytest.importorskip("onnxruntime")
    from xcit_hub.deploy import export

    return export(right, right.with_name("right.onnx"), proof=False).files[0]


def test_an_exported_file_equals_what_it_was_made_of_under_each_runtime(exported: Path, right: Path) -> None:
    found = compare(str(right), str(exported))
    assert found.equal, found.differences
    assert {output.what.rpartition(", ")[2] for output in found.outputs} == {"onnxruntime", "openvino"}
    assert all(0 < output.rms < 1e-5 for output in found.outputs)


def test_an_exported_file_of_other_weights_is_found_by_what_it_computes(
    exported: Path, weights: Weights, tmp_path: Path, run_here
) -> None:
    changed = weights["norm.beta"].copy()
    changed[3] += 0.01
    other = _written(weights | {"norm.beta": changed}, tmp_path / "other.safetensors")
    figures = tmp_path / "figures.json"
    done = run_here("parity", str(exported), "--against", str(other), "--image-size", "32", "--json", str(figures))
    assert done.returncode == 1, done.stderr
    assert "NOT equal: output logits at 1×3×32×32, onnxruntime: apart by" in done.stdout
    told = json.loads(figures.read_text())
    assert told["equal"] is False and told["image_size"] == 32
    assert {each["kind"] for each in told["differences"]} == {"output"}


def test_an_exported_file_that_says_another_dialect_or_preprocessing_is_found(
    exported: Path, weights: Weights, tmp_path: Path
) -> None:
    other = _written(weights, tmp_path / "mindcv.safetensors", "mindcv")
    found = {difference.what: difference.how for difference in compare(str(exported), str(other)).differences}
    assert found["dialect"] == "paper and mindcv"
    assert "crop_pct" in found
    assert any(what.startswith("logits at") for what in found)


@pytest.fixture
def one_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file says of itself does not depend on who runs it, and each runtime takes seconds."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(runtimes, "installed", lambda runtime: runtime == "onnxruntime")


@pytest.mark.parametrize(("size", "uint8"), [((32, 48), False), (32, True)])
def test_an_exported_file_of_a_fixed_size_equals_the_network_of_another(
    one_runtime: None, right: Path, tmp_path: Path, size: int | tuple[int, int], uint8: bool
) -> None:
    from xcit_hub.deploy import export

    made = export(right, tmp_path / "small.onnx", proof=False, image_size=size, with_preprocessing=uint8)
    found = compare(str(made.files[0]), str(right))
    assert found.equal, found.differences


def test_an_exported_file_that_says_another_size_than_it_takes_is_found(
    one_runtime: None, right: Path, tmp_path: Path
) -> None:
    file = _exported_with(right, tmp_path / "small.onnx", {"input_size": [3, 224, 224]}, image_size=32)
    (difference,) = compare(str(file), str(right)).differences
    assert str(difference) == "preprocessing image_size: the first says 224×224, and takes 32×32 alone"


def test_the_firsts_side_stands_before_the_seconds_wherever_the_exported_file_stands(
    one_runtime: None, right: Path, tmp_path: Path
) -> None:
    file = str(_exported_with(right, tmp_path / "odd.onnx", {"crop_pct": 0.5, "mean": None}, image_size=32))
    asked = {True: compare(file, str(right)), False: compare(str(right), file)}
    told = {first: {each.what: each.how for each in found.differences} for first, found in asked.items()}
    assert told[True] == {"mean": "the first does not say it", "crop_pct": "0.5 and 1.0"}
    assert told[False] == {"mean": "the second does not say it", "crop_pct": "1.0 and 0.5"}


def test_what_an_exported_file_says_nothing_of_was_not_compared(one_runtime: None, right: Path, tmp_path: Path) -> None:
    file = _exported_with(right, tmp_path / "silent.onnx", {}, image_size=32)
    told = {case.what: case.skipped for case in compare(str(file), str(right)).cases()}
    assert [what for what, skipped in told.items() if skipped] == ["tensor"]
    import onnx

    whole = onnx.load(str(file))
    del whole.metadata_props[:]
    onnx.save(whole, str(file))
    found = compare(str(file), str(right))
    assert str(found).endswith("are equal (not compared: description, preprocessing, tensor)")
    told = {case.what: case.skipped for case in found.cases()}
    assert "no xcit_hub.architecture or" in told["description"] and "xcit_hub.preprocessing" in told["preprocessing"]
    assert found.as_dict()["not_compared"] == {what: skipped for what, skipped in told.items() if skipped}


def test_an_exported_file_whose_strings_mean_something_else_is_refused(right: Path, tmp_path: Path) -> None:
    import onnx

    file = _exported_with(right, tmp_path / "later.onnx", {}, image_size=32)
    whole = onnx.load(str(file))
    for each in whole.metadata_props:
        each.value = "xcit-hub-export/2" if each.key == "xcit_hub.format" else each.value
    onnx.save(whole, str(file))
    with pytest.raises(InputError, match=r"xcit_hub\.format is 'xcit-hub-export/2'"):
        compare(str(file), str(right))


def test_what_was_assumed_while_reading_stands_in_every_report(weights: Weights, tmp_path: Path, run_here) -> None:
    assumed = tmp_path / "assumed.safetensors"
    checkpoint.write(
        assumed, weights, {"xcit_hub.dialect": "paper", "xcit_hub.preprocessing": '{"input_size": [3, 224, 224]}'}
    )
    note, other = "does not say crop_pct", str(_written(weights, tmp_path / "other.safetensors"))
    reports = ("--image-size", "32", "--json", "a.json", "--junit", "a.xml")
    done = run_here("parity", other, "--against", str(assumed), *reports, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"note: {assumed}: xcit_hub.preprocessing {note}" in done.stdout
    told = json.loads((tmp_path / "a.json").read_text())["notes"]
    assert any(note in each for each in told["second"]) and not any(note in each for each in told["first"])
    assert note in (tmp_path / "a.xml").read_text()


def test_what_of_a_file_was_proven_stands_in_every_report(weights: Weights, tmp_path: Path, run_here) -> None:
    torch = pytest.importorskip("torch")
    state = parity.torch_network(weights, variants.architecture(_NANO), "paper", num_classes=10).state_dict()
    file = tmp_path / "two.pth"
    torch.save({"state_dict": state, "state_dict_ema": state}, file)
    reports = ("--image-size", "32", "--json", "a.json", "--junit", "a.xml")
    done = run_here("parity", str(file), "--dialect", "paper", *reports, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (told,) = json.loads((tmp_path / "a.json").read_text())
    assert any("took the plain ones" in note for note in told["notes"])
    for note in told["notes"]:
        assert f"note: {file}: {note}" in done.stdout
        assert note in (tmp_path / "a.xml").read_text()


def _exported_with(right: Path, path: Path, images: dict[str, object], **options: object) -> Path:
    """Export a network, and change what the file says of its images; None takes a field out."""
    import onnx

    from xcit_hub.deploy import export

    whole = onnx.load(str(export(right, path, proof=False, **options).files[0]))
    (entry,) = (each for each in whole.metadata_props if each.key == "xcit_hub.preprocessing")
    told = json.loads(entry.value) | images
    entry.value = json.dumps({name: value for name, value in told.items() if value is not None})
    onnx.save(whole, str(path))
    return path


def test_timms_own_export_is_judged_like_ours(right: Path, weights: Weights, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    network = parity.torch_network(weights, variants.architecture(_NANO), "paper", num_classes=10)
    file = tmp_path / "theirs.onnx"
    torch.onnx.export(network, (torch.zeros(1, 3, 64, 64),), str(file), dynamo=False, opset_version=18)
    found = compare(str(file), str(right))
    assert found.equal, found.differences


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 inputs and 0 outputs"),
        (b"no graph at all", "not an ONNX model"),
        (b"\x12\x01\xff", "not an ONNX model"),
        (None, "no such file"),
    ],
    ids=["empty", "text", "a name that is not UTF-8", "missing"],
)
def test_what_is_not_an_exported_file_is_refused(right: Path, tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "broken.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=said):
        compare(str(file), str(right))


@pytest.mark.parametrize("suffix", [".onnx", ".mindir"])
def test_a_file_larger_than_any_model_is_refused_before_it_is_read(right: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"large{suffix}"
    with file.open("wb") as stream:
        stream.truncate(1 << 31)  # without a block on the disk
    with pytest.raises(InputError, match="it has 2,147,483,648 bytes"):
        compare(str(file), str(right))


@pytest.mark.parametrize(
    ("suffix", "module", "fix"), [(".onnx", "onnx", "xcit-hub[onnx]"), (".mindir", "mindspore", "mindspore")]
)
def test_what_reads_an_exported_file_is_named_where_it_is_missing(
    right: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, module: str, fix: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else found(name))
    file = tmp_path / f"any{suffix}"
    file.write_bytes(b"")
    with pytest.raises(InputError, match=f"{module} is not installed") as error:
        compare(str(file), str(right))
    assert error.value.fix == f"pip install '{fix}'"


def test_a_runtime_that_takes_too_long_is_named_with_its_limit(
    one_runtime: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "_LONGEST", 0.01)
    with pytest.raises(XcitHubError, match=r"onnxruntime did not run the file within 0\.01 seconds"):
        runtimes.run("onnxruntime", tmp_path / "any.onnx", [np.zeros((1, 3, 32, 32), np.float32)])


def test_two_exported_files_are_refused_as_neither_holds_the_truth(exported: Path) -> None:
    with pytest.raises(InputError, match="the truth of a proof comes from the weights"):
        compare(str(exported), str(exported))
