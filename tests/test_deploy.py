from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import xcit_hub
from xcit_hub import parity
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.tensor import StoredTensor
from xcit_hub.compare import compare
from xcit_hub.deploy import export
from xcit_hub.errors import InputError
from xcit_hub.exporters import interface, onnx_graph
from xcit_hub.exporters.form import ATTENTION
from xcit_hub.hub.config import ModelConfig
from xcit_hub.hub.exporting import form_of
from xcit_hub.models import load_weights
from xcit_hub.parameters import parameter_shapes
from xcit_hub.prediction import predict
from xcit_hub.variants import Preprocessing, architecture

pytest.importorskip("onnxruntime")
NAME = "xcit_nano_12_p16_224"
_CLASSES = ("ape", "bee", "cow", "dog")
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("deploy") / "nano.safetensors"
    arrays = parity.random_weights(parameter_shapes(architecture(NAME), num_classes=4))
    marks = {
        "xcit_hub.architecture": NAME,
        "xcit_hub.dialect": "paper",
        "xcit_hub.family": "xcit-hub",
        "xcit_hub.classes": json.dumps(_CLASSES),
    }
    checkpoint.write(path, {name: StoredTensor.of(array) for name, array in arrays.items()}, marks)
    return path


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with two blocks and one class block: what is written and judged of twelve is of two as well."""
    network = xcit_hub.create_model(NAME, num_classes=4, depth=2, cls_attn_layers=1, init=False)
    shapes = {parameter.name: tuple(parameter.shape) for parameter in network.get_parameters()}
    load_weights(network, parity.random_weights(shapes))
    network.config = replace(network.description(), labels=_CLASSES)
    path = tmp_path_factory.mktemp("deploy") / "short"
    network.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def exported(short: Path) -> Path:
    return export(short, short.with_name("nano.onnx")).files[0]


@pytest.mark.parametrize(
    ("images", "says"), [("nowhere", "is not there"), ("nano.txt", "is a file"), ("empty", "not one image")]
)
def test_int8_without_images_is_refused_before_the_source_is_read(tmp_path: Path, images: str, says: str) -> None:
    (tmp_path / "nano.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=says) as caught:
        export("missing.ckpt", tmp_path / "x.onnx", int8=tmp_path / images)
    assert caught.value.where == str(tmp_path / images)


def test_an_exported_file_is_proven_by_each_runtime_and_says_what_it_is(short: Path, tmp_path: Path) -> None:
    done = export(short, tmp_path / "proven.onnx", features=(0, -1))
    assert [found["runtime"] for found in done.proofs] == ["onnxruntime", "openvino"]
    assert all(found["passed"] and len(found["checks"]) == 4 for found in done.proofs)
    assert done.metadata["xcit_hub.architecture"] == NAME
    assert json.loads(done.metadata["xcit_hub.labels"]) == []
    assert json.loads(done.metadata["xcit_hub.preprocessing"])["input_size"] == [3, 224, 224]
    assert json.dumps(done.as_dict())


def test_classes_are_named_by_a_file_that_gives_logits_and_by_no_other(short: Path, exported: Path) -> None:
    backbone = export(short, short.with_name("backbone.onnx"), headless=True, image_size=32, proof=False).files[0]
    told = {file: json.loads(interface.read(file).metadata["xcit_hub.labels"]) for file in (exported, backbone)}
    assert told == {exported: list(_CLASSES), backbone: []}
    compared = compare(backbone, short)
    assert not [difference for difference in compared.differences if difference.what == "labels"]


def test_an_older_file_that_is_damaged_is_replaced(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "nano.onnx"
    target.write_bytes(b"\x12\x01\xff")
    (tmp_path / "nano.onnx.data").write_bytes(b"of whatever it was")
    export(source, target, proof=False)
    assert interface.read(target).outputs == ("logits",)
    assert (tmp_path / "nano.onnx.data").is_file(), "nothing says that it was ours"


def test_a_private_file_that_is_replaced_stays_private(short: Path, tmp_path: Path) -> None:
    target = tmp_path / "nano.onnx"
    target.touch(mode=0o600)
    export(short, target, proof=False)
    assert target.stat().st_mode & 0o777 == 0o600
    assert interface.read(target).outputs == ("logits",)


def test_a_file_with_its_attention_is_proven_by_each_runtime_and_says_so(short: Path) -> None:
    done = export(short, short.with_name("seen.onnx"), attention=True, image_size=32, batch=2)
    assert [found["runtime"] for found in done.proofs] == ["onnxruntime", "openvino"]
    names = ["logits", *ATTENTION]
    for found in done.proofs:
        assert sorted(check["what"] for check in found["checks"]) == sorted(f"{name} at 2×3×32×32" for name in names)
    assert json.loads(done.metadata["xcit_hub.attention"]) == list(ATTENTION)
    assert json.loads(done.metadata["xcit_hub.preprocessing"])["input_size"] == [3, 32, 32], "the only size it takes"
    told = interface.read(done.files[0])
    assert told.outputs == tuple(names)
    config = {"num_classes": 4, "in_chans": 3, "global_pool": "token", "mean": (0.5,), "std": (0.5,)}
    assert told.form(**config, image_size=None, where="").attention


@pytest.mark.parametrize("example", ["classify.py", "classify_openvino.py"])
def test_classes_come_out_where_no_framework_is_imported_as_they_do_here(
    example: str, short: Path, exported: Path, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 260, 3), np.uint8)).save(photo)
    code = (
        f"import sys, runpy; sys.argv = ['classify', {str(exported)!r}, {str(photo)!r}]; "
        f"sys.path.insert(0, {str(EXAMPLES / 'onnx_inference')!r}); "
        f"runpy.run_path({str(EXAMPLES / 'onnx_inference' / example)!r}, run_name='__main__'); "
        "assert not {'torch', 'mindspore'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = predict(xcit_hub.load(str(short)), photo, top=4)
    told = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [label for _, label in told] == [found.label for found in expected]
    assert [float(share.rstrip("%")) for share, _ in told] == pytest.approx(
        [100 * found.probability for found in expected], abs=0.1
    )


def test_a_model_repository_for_triton_names_inputs_outputs_sides_and_labels(exported: Path, tmp_path: Path) -> None:
    script = EXAMPLES / "triton" / "make_repository.py"
    command = [sys.executable, str(script), str(exported), str(tmp_path), "--name", "xcit", "--largest-batch", "8"]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "xcit" / "1" / "model.onnx").read_bytes() == exported.read_bytes()
    assert (tmp_path / "xcit" / "labels.txt").read_text() == "ape\nbee\ncow\ndog\n"
    text = " ".join((tmp_path / "xcit" / "config.pbtxt").read_text().split())
    assert text.startswith('name: "xcit" platform: "onnxruntime_onnx" max_batch_size: 8 input [ { name: "image" ')
    assert "data_type: TYPE_FP32 dims: [3, -1, -1] } ]" in text
    assert 'output [ { name: "logits" data_type: TYPE_FP32 dims: [4] label_filename: "labels.txt" } ]' in text
    assert "dynamic_batching { max_queue_delay_microseconds: 5000 }" in text


def test_neither_framework_is_imported_to_write_onnx(source: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from xcit_hub.deploy import export; "
        f"export({str(source)!r}, {str(tmp_path / 'a.onnx')!r}, proof=False); "
        "assert not {'torch', 'mindspore', 'timm'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("a.tflite", {}, "not a format to export"),
        ("nowhere/a.onnx", {}, "no such folder"),
        ("a.onnx", {"opset": 9}, "Opset 9"),
        ("a.onnx", {"dtype": "bfloat16"}, "no runtime here runs it"),
        ("a.onnx", {"features": (12,)}, "blocks 0 to 11"),
        ("a.onnx", {"features": (3,), "headless": True}, "exclude each other"),
        ("a.onnx", {"features": (3,), "attention": True}, "--features and --attention exclude each other"),
        ("a.mindir", {"image_size": 224, "attention": True}, "--attention is written to ONNX alone"),
        ("a.mindir", {"image_size": 224, "opset": 20}, "--opset 20 is written to ONNX alone"),
        ("a.onnx", {"batch": 0}, "--batch 0 cannot be"),
        ("a.onnx", {"batch": 1 << 40}, "cannot be"),
        ("a.onnx", {"image_size": (224, -1)}, "--image-size -1 cannot be"),
        ("a.onnx", {"image_size": (224, 4097)}, "--image-size 4097 cannot be"),
        ("a.onnx", {"image_size": 4096, "batch": 17}, "285,212,672 pixels"),
        ("a.onnx", {"opset": 99}, "Opset 99"),
        ("a.onnx", {"int8": "empty", "dtype": "float16"}, "exclude each other"),
        ("folder.onnx", {}, "not a file"),
        ("a.onnx", {"int8": "empty"}, "not one image"),
        ("a.mindir", {}, "fixed image size"),
        ("a.mindir", {"image_size": 224, "dtype": "float16"}, "ONNX alone"),
        ("a.mindir", {"image_size": 224, "fuse": True}, "--fuse is written to ONNX alone"),
        ("a.onnx", {"batch": True}, "--batch True cannot be"),
        ("a.onnx", {"image_size": True}, "--image-size True cannot be"),
        ("a.onnx", {"image_size": 64.5}, "--image-size 64.5 cannot be"),
        ("a.onnx", {"image_size": (64, 64, 64)}, "not one side or two"),
        ("a.onnx", {"features": 3}, "not a list of blocks"),
        ("a.onnx", {"features": "3"}, "not a list of blocks"),
        ("a.onnx", {"opset": 18.0}, "Opset 18.0"),
    ],
)
def test_what_cannot_be_written_is_one_sentence_and_no_file(
    source: Path, tmp_path: Path, name: str, options: dict, said: str
) -> None:
    if options.get("int8"):
        (tmp_path / "empty").mkdir()
        options = {**options, "int8": tmp_path / "empty"}
    (tmp_path / "folder.onnx").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=said):
        export(source, tmp_path / name, **options)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("memory_back")
@pytest.mark.parametrize("options", [{"with_preprocessing": True}, {"batch": 3, "image_size": (48, 32)}])
def test_int8_is_calibrated_in_every_form_of_the_input(short: Path, tmp_path: Path, options: dict) -> None:
    folder = tmp_path / "calibration"
    folder.mkdir()
    for seed in range(4):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    done = export(short, tmp_path / "small.onnx", int8=folder, **options)
    assert (done.calibration, done.notes[-1]) == ({"images": 4, "left_out": 0}, "int8 was calibrated on 4 images")
    told = interface.read(done.files[0])
    assert told.int8 and told.uint8 == ("with_preprocessing" in options)
    (folder / "4.png").write_bytes(b"cut short")
    with pytest.raises(InputError, match=r"4\.png"):
        export(short, tmp_path / "other.onnx", int8=folder, **options)
    assert not (tmp_path / "other.onnx").exists()


@pytest.mark.usefixtures("memory_back")
def test_int8_is_calibrated_on_images_behind_links_and_says_what_was_left_out(source: Path, tmp_path: Path) -> None:
    """Folders of data sets are often put together from links; those were passed over without a word."""
    for seed, place in enumerate(("own/0.png", "elsewhere/1.png")):
        (tmp_path / place).parent.mkdir()
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / place)
    (tmp_path / "own" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "own" / "labels.txt").write_text("0 ape")
    done = export(source, tmp_path / "small.onnx", int8=tmp_path / "own", image_size=32, proof=False)
    assert done.as_dict()["calibration"] == {"images": 2, "left_out": 1}
    assert done.notes[-2:] == (
        "int8 was calibrated on 2 images",
        "1 files of the folder are not images by their names, and were left out",
    )
    (tmp_path / "own" / "gone.png").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"1 images to calibrate on cannot be read: .*gone\.png \(a link to nothing\)"):
        export(source, tmp_path / "other.onnx", int8=tmp_path / "own")


def test_a_size_is_refused_whose_crop_the_files_readers_would_refuse() -> None:
    config = ModelConfig(NAME, "paper", preprocessing=Preprocessing(crop_pct=0.25))
    rest = ((), False, "float32", False)
    assert form_of(config, *rest, 2048, None, 18, None).image_size == (2048, 2048)
    with pytest.raises(InputError, match="cut out of one of more than 8,192") as error:
        form_of(config, *rest, 2049, None, 18, None)
    assert error.value.fix == "Give sides up to 2048."


def test_an_empty_list_of_blocks_is_refused_on_the_command_line(source: Path, tmp_path: Path, run_here) -> None:
    done = run_here("export", str(source), str(tmp_path / "a.onnx"), "--features", "")
    assert (done.returncode, "--features '' is not a list of blocks" in done.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_weights_that_float16_does_not_have_are_named(source: Path, tmp_path: Path) -> None:
    large = dict(checkpoint.read(source).tensors)
    large["norm.beta"] = StoredTensor.of(np.full(128, 1e6, np.float32))
    marks = {"xcit_hub.architecture": NAME, "xcit_hub.dialect": "paper", "xcit_hub.family": "xcit-hub"}
    checkpoint.write(tmp_path / "large.safetensors", large, marks)
    with pytest.raises(InputError, match=r"norm\.beta holds values beyond 65504"):
        export(tmp_path / "large.safetensors", tmp_path / "half.onnx", dtype="float16")
    assert not (tmp_path / "half.onnx").exists()


def test_a_file_that_computes_something_else_does_not_stay_and_the_command_exits_1(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here
) -> None:
    right = onnx_graph.build
    wrong = lambda arrays, *more: right({**arrays, "norm.beta": arrays["norm.beta"] + 0.01}, *more)  # noqa: E731
    monkeypatch.setattr(onnx_graph, "build", wrong)
    report = tmp_path / "report.json"
    report.write_text("of an earlier export")
    done = run_here("export", str(source), str(tmp_path / "wrong.onnx"), "--json", "--report", str(report))
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert json.loads(done.stderr) == json.loads(report.read_text())
    assert "onnxruntime does not compute" in json.loads(done.stderr)["error"]["what"]
    assert list(tmp_path.iterdir()) == [report]


def test_a_report_holds_a_path_that_is_not_text(tmp_path: Path, run_here) -> None:
    words = ("missing.ckpt", "x.onnx", "--int8", "images\udcff", "--report", "report.json")
    done = run_here("export", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "images" in json.loads((tmp_path / "report.json").read_text("utf-8"))["error"]["where"]


@pytest.mark.parametrize("size", ["9" * 5000, "224x", "1x2x3", "٢٢٤", ""])
def test_a_size_that_is_none_is_refused_and_an_earlier_report_with_it(tmp_path: Path, size: str, run_here) -> None:
    report = tmp_path / "report.json"
    report.write_text("of an earlier export")
    done = run_here("export", "missing.ckpt", "x.onnx", "--image-size", size, "--report", "report.json", cwd=tmp_path)
    assert done.returncode == 2 and "is not a size" in done.stderr
    assert "is not a size" in json.loads(report.read_text())["error"]["what"]


@pytest.mark.parametrize(("name", "sides"), [("output.0", 0), ("output.0", 4), ("maps", 4)])
def test_a_map_whose_block_nothing_tells_is_not_taken_for_logits(name: str, sides: int) -> None:
    told = interface.Interface((None, 3, 64, 64), False, (name,), (None,), (sides,))
    config = {"num_classes": 4, "in_chans": 3, "global_pool": "token", "mean": (0.5,), "std": (0.5,)}
    with pytest.raises(InputError, match="one output, and nothing says which blocks"):
        told.form(**config, image_size=None, where="the file")


@pytest.mark.slow
def test_mindir_runs_in_a_fresh_process_at_any_batch_and_names_nothing_of_this_machine(
    short: Path, tmp_path: Path
) -> None:
    done = export(short, tmp_path / "nano.mindir", image_size=64)
    assert done.proofs[0]["passed"]
    assert [shape[0] for shape in done.proofs[0]["shapes"]] == [1, 2]
    content = done.files[0].read_bytes()
    assert not [mark for mark in (str(Path.home()), str(short.parent), "kernels-") if mark.encode() in content]
    told = interface.read(done.files[0])
    assert told.shape == (None, 3, 64, 64)
    assert told.metadata["xcit_hub.architecture"] == NAME
    assert told.metadata["xcit_hub.source"] == short.name


@pytest.mark.slow
def test_a_mindir_of_a_map_is_proven_and_not_taken_for_one_of_logits(short: Path, tmp_path: Path) -> None:
    done = export(short, tmp_path / "maps.mindir", features=(1,), image_size=32)
    assert done.proofs[0]["passed"]
    assert {check["what"] for check in done.proofs[0]["checks"]} == {
        "features.1 at 1×3×32×32",
        "features.1 at 2×3×32×32",
    }
    with pytest.raises(InputError, match="one output, and nothing says which blocks"):
        compare(done.files[0], short)
