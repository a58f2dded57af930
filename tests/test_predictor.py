"""What travels to workers: it can be pickled, builds its network once a process, and maps columns to columns."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import xcit_hub
from xcit_hub import Predictor
from xcit_hub.deploy import export
from xcit_hub.errors import InputError, XcitHubError
from xcit_hub.exported import ExportedNetwork
from xcit_hub.prediction import predict
from xcit_hub.variants import Preprocessing

_NAMES = ["ape", "bee", "cow", "dog"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "nano"
    network = xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=4, depth=2, seed=0)  # more blocks, more time
    described = network.description()
    network.config = replace(described, labels=tuple(_NAMES), preprocessing=Preprocessing(image_size=64))
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def alone(model: Path) -> Any:
    """The network as it is loaded without a predictor."""
    return xcit_hub.load(str(model))


@pytest.fixture(scope="module")
def exported(model: Path) -> Path:
    pytest.importorskip("onnxruntime")
    return export(model, model.parent / "nano.onnx", proof=False).files[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(generator.integers(0, 255, (70 + number, 90, 3), np.uint8)).save(folder / f"{number}.png")
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n")
    return sorted(folder.iterdir())


def _first(answers: dict[str, Any]) -> list[Any]:
    return [each[0] if len(each) else None for each in answers["index"]]


def test_it_is_pickled_by_its_address_and_answers_alike_elsewhere(model: Path, files: list[Path], monkeypatch) -> None:
    monkeypatch.chdir(model.parent)
    predictor = Predictor("./nano", top=2)
    content = pickle.dumps(predictor)
    assert len(content) < 1000
    here = predictor({"path": [str(path) for path in files]})
    code = (
        "import pickle, sys; predictor, paths = pickle.load(sys.stdin.buffer); answers = predictor({'path': paths}); "
        "sys.stdout.buffer.write(pickle.dumps([list(each) for each in answers['index']])); sys.stdout.flush(); "
        "import os; os._exit(0)"
    )
    given = pickle.dumps((predictor, [str(path) for path in files]))
    there = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, check=True, cwd="/").stdout
    assert pickle.loads(there) == [list(each) for each in here["index"]]


def test_its_network_is_built_once_a_process(model: Path) -> None:
    network = Predictor(str(model)).network
    assert Predictor(str(model), top=1, batch=2).network is network
    assert pickle.loads(pickle.dumps(Predictor(str(model)))).network is network
    assert Predictor(str(model), dialect="paper").network is not network


def test_a_model_that_was_replaced_under_its_name_answers_in_place_of_the_one_before(
    model: Path, exported: Path, files: list[Path], tmp_path: Path
) -> None:
    photo = {"path": [str(files[0])]}
    other = xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=4, seed=1)
    described = other.description()
    other.config = replace(described, labels=("elk", "fox", "gnu", "hen"), preprocessing=Preprocessing(image_size=64))
    other.save_pretrained(tmp_path / "other")
    export(tmp_path / "other", tmp_path / "other.onnx", proof=False)
    shutil.copytree(model, tmp_path / "nano")
    shutil.copyfile(exported, tmp_path / "nano.onnx")
    for place in (tmp_path / "nano", tmp_path / "nano.onnx"):
        predictor = Predictor(str(place), top=4)
        assert set(predictor(photo)["class"][0]) == set(_NAMES)
        before = predictor.network
        assert predictor.network is before
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink()
        assert predictor.network is before, "what is gone was not replaced"
        (tmp_path / "other").with_suffix(place.suffix).rename(place)
        assert set(predictor(photo)["class"][0]) == {"elk", "fox", "gnu", "hen"}


def test_what_is_written_into_a_folder_beside_the_model_is_not_the_models(exported: Path, tmp_path: Path) -> None:
    shutil.copyfile(exported, tmp_path / "nano.onnx")
    predictor = Predictor(str(tmp_path / "nano.onnx"))
    before = predictor.network
    (tmp_path / "nano-maps").mkdir()
    (tmp_path / "nano-maps" / "0-a.png").write_bytes(b"")
    assert predictor.network is before


@pytest.mark.parametrize("form", ["path", "bytes", "hugging face", "pixels", "grey pixels", "PIL"])
def test_every_form_of_an_image_is_a_column(model: Path, alone: Any, files: list[Path], form: str) -> None:
    paths = files[:3]
    opened = [Image.open(path).convert("L" if form == "grey pixels" else "RGB") for path in paths]
    values: dict[str, Any] = {
        "path": [str(path) for path in paths],
        "bytes": np.array([path.read_bytes() for path in paths], object),
        "hugging face": [{"bytes": path.read_bytes(), "path": None} for path in paths],
        "pixels": [np.asarray(image) for image in opened],
        "grey pixels": [np.asarray(image)[..., None] for image in opened],
        "PIL": opened,
    }
    name = {"path": "path", "bytes": "bytes"}.get(form, "image")
    found = Predictor(str(model))({name: values[form], "key": [1, 2, 3]})
    expected = [predict(alone, image) for image in opened]
    assert found["key"] == [1, 2, 3] and (name in found) == (form == "path")
    assert [list(each) for each in found["class"]] == [[one.label for one in each] for each in expected]
    for shares, one in zip(found["share"], expected, strict=True):
        assert np.allclose(shares, [each.probability for each in one])
    assert list(found["problem"]) == [""] * 3


def test_what_is_not_an_image_is_a_row_with_its_problem(model: Path, files: list[Path]) -> None:
    odd = [files[0].read_bytes(), b"", None, np.zeros((2, 2, 7), np.uint8), np.zeros((4, 4)), {"path": "x"}, 5]
    column = np.empty(len(odd), object)
    column[:] = odd
    found = Predictor(str(model))({"image": column})
    assert [bool(problem) for problem in found["problem"]] == [False] + [True] * 6
    assert [len(each) for each in found["class"]] == [4] + [0] * 6
    assert found["index"][1].dtype == np.int64 and found["share"][1].dtype == np.float64


@pytest.mark.parametrize(
    ("name", "values", "stays"),
    [
        ("path", ["", None], True),
        ("path", [None, None], True),
        ("image", ["no/where.png", None], True),
        ("image", [None, None], False),
        ("image", ["no/where.png", b"x"], False),
    ],
)
def test_a_column_of_paths_stays_though_a_cell_of_it_is_empty(
    model: Path, name: str, values: list[Any], stays: bool
) -> None:
    found = Predictor(str(model))({name: values, "key": [1, 2]})
    assert (name in found) == stays and all(found["problem"])


def test_columns_are_named_or_refused(model: Path, files: list[Path]) -> None:
    photos = [files[0].read_bytes()]
    assert _first(Predictor(str(model), column="photo")({"photo": photos, "path": ["x"]})) != [None]
    with pytest.raises(InputError, match="no column of images: photo"):
        Predictor(str(model))({"photo": photos})
    with pytest.raises(InputError, match="'class' already"):
        Predictor(str(model))({"bytes": photos, "class": ["ape"]})


@pytest.mark.parametrize("options", [{"top": 0}, {"batch": 0}, {"threads": 0}, {"dialect": "latin"}, {"top": True}])
def test_options_without_a_meaning_are_refused_before_anything_is_loaded(options: dict[str, Any]) -> None:
    with pytest.raises(XcitHubError):
        Predictor("no/where", **options)


def test_more_classes_than_there_are_is_refused(model: Path, exported: Path, files: list[Path]) -> None:
    for place in (model, exported):
        assert len(Predictor(str(place))({"path": [str(files[0])]})["class"][0]) == 4
        with pytest.raises(InputError, match="has 4 classes, and top=5"):
            Predictor(str(place), top=5)({"path": [str(files[0])]})
    with pytest.raises(InputError, match="has 4 classes"):
        predict(xcit_hub.load(str(model)), files[0], top=99999)


def test_threads_are_those_that_were_asked_for_and_may_run_anywhere(model: Path) -> None:
    code = (
        "import os, sys; from xcit_hub import Predictor; import mindspore; "
        f"Predictor({str(model)!r}, threads=1).network; "
        "tasks = os.listdir('/proc/self/task'); "
        "print(len(os.sched_getaffinity(0)), min(len(os.sched_getaffinity(int(task))) for task in tasks)); "
        "sys.stdout.flush(); os._exit(0)"
    )
    every = range(os.cpu_count() or 1)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, preexec_fn=lambda: os.sched_setaffinity(0, every),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    process, least = done.stdout.split()
    assert process == least


def test_an_exported_file_serves_as_well(model: Path, exported: Path, files: list[Path]) -> None:
    ours, theirs = (Predictor(str(place))({"path": [str(path) for path in files]}) for place in (model, exported))
    assert _first(ours) == _first(theirs) and list(ours["problem"]) == list(theirs["problem"])
    for one, other in zip(ours["share"], theirs["share"], strict=True):
        assert np.allclose(one, other, atol=1e-5)
    network = Predictor(str(exported)).network
    assert isinstance(network, ExportedNetwork) and network.config.labels == tuple(_NAMES)


@pytest.mark.parametrize(
    "options",
    [{"with_preprocessing": True}, {"batch": 2}, {"image_size": (64, 64), "batch": 3, "with_preprocessing": True}],
)
def test_every_form_of_an_exported_file_is_fed_as_it_wants(
    model: Path, alone: Any, files: list[Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    done = export(model, tmp_path / "form.onnx", proof=False, **options)
    network = ExportedNetwork(done.files[0])
    expected = predict(alone, files[:5])
    for one, other in zip(predict(network, files[:5], batch=4), expected, strict=True):
        assert one.classes[0].index == other.classes[0].index
        assert one.classes[0].probability == pytest.approx(other.classes[0].probability, abs=1e-5)


def test_images_of_the_files_own_size_are_made(model: Path, files: list[Path], tmp_path: Path) -> None:
    done = export(model, tmp_path / "wide.onnx", proof=False, image_size=(48, 80))
    assert json.loads(done.metadata["xcit_hub.preprocessing"])["input_size"] == [3, 48, 80]
    network = ExportedNetwork(done.files[0])
    assert network.config.preprocessing.size == (48, 80)
    assert len(predict(network, files[0])) == 4


def test_strings_of_a_later_version_are_listed_as_not_used(exported: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    whole = onnx.load(str(exported))
    whole.metadata_props.add(key="xcit_hub.colours", value="8")
    whole.metadata_props.add(key="somebody.else", value="his own")
    onnx.save(whole, str(tmp_path / "later.onnx"))
    with pytest.warns(UserWarning, match="xcit_hub.colours is not known, and was not used"):
        network = ExportedNetwork(tmp_path / "later.onnx")
    assert network.config.provenance.notes == ("the file's string xcit_hub.colours is not known, and was not used",)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("options", [{}, {"attention": True}])
def test_every_string_that_export_writes_is_known(model: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    assert not ExportedNetwork(
        export(model, tmp_path / "a.onnx", proof=False, **options).files[0]
    ).config.provenance.notes


def test_files_that_are_not_ours_are_refused_by_what_they_lack(exported: Path, model: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")

    def changed(name: str, **strings: str | None) -> Path:
        whole = onnx.load(str(exported))
        facts = {entry.key: entry.value for entry in whole.metadata_props}
        facts.update({f"xcit_hub.{key}": value for key, value in strings.items() if value is not None})
        onnx.helper.set_model_props(whole, {k: v for k, v in facts.items() if strings.get(k[9:], "") is not None})
        onnx.save(whole, str(tmp_path / name))
        return tmp_path / name

    (tmp_path / "torn.onnx").write_bytes(exported.read_bytes()[:1000])
    (tmp_path / "text.onnx").write_text("no protobuf")
    cases = {
        "it has no xcit_hub.format": changed("h.onnx", format=None),
        "format is 'xcit-hub-export/2'": changed("i.onnx", format="xcit-hub-export/2"),
        "quantised is 'int4'": changed("j.onnx", quantised="int4"),
        "no xcit_hub.architecture": changed("k.onnx", architecture=None),
        "no mean, std, interpolation, crop_pct, crop_mode": changed(
            "l.onnx", preprocessing='{"input_size": [3, 64, 64], "mean": null}'
        ),
        "does not say how it wants its images": changed("a.onnx", preprocessing=None),
        "lacks input_size": changed("b.onnx", preprocessing="{}"),
        "not a list of names": changed("c.onnx", labels="[1, 2]"),
        "names 1 classes and has 4": changed("d.onnx", labels='["one"]'),
        "dialect is 'latin'": changed("e.onnx", dialect="latin"),
        "does not classify": export(model, tmp_path / "f.onnx", proof=False, headless=True).files[0],
        "its outputs are features.1": export(model, tmp_path / "g.onnx", proof=False, features=(1,)).files[0],
        "cannot read the file": tmp_path / "torn.onnx",
        "cannot read the": tmp_path / "text.onnx",
        "no such file": tmp_path / "missing.onnx",
    }
    for words, path in cases.items():
        with pytest.raises(XcitHubError, match=words):
            _ = Predictor(str(path)).network
    for options, flag in (
        ({"revision": "main"}, "--revision"),
        ({"ignore_fields": ("mean",)}, "--ignore-field"),
        ({"cache_dir": "cache"}, "--cache-dir"),
        ({"offline": True}, "--offline"),
    ):
        with pytest.raises(InputError, match=f"{flag} means nothing for an exported file"):
            _ = Predictor(str(exported), **options).network


def test_mindspore_is_imported_where_another_protobuf_is_in_use(model: Path, files: list[Path]) -> None:
    """As in every worker of Ray's, whose own generated code goes on to work."""
    code = (
        "from google.protobuf import any_pb2; from google.protobuf.internal import api_implementation as before; "
        "assert before.Type() != 'python', 'nothing is tried'; "
        f"from xcit_hub import Predictor; found = Predictor({str(model)!r})({{'path': [{str(files[0])!r}]}}); "
        "assert found['problem'][0] == ''; "
        "import mindspore; from google.protobuf.internal import api_implementation as after; assert after is before; "
        "from google.protobuf import struct_pb2; struct_pb2.Struct().SerializeToString(); "
        "import sys, os; sys.stdout.flush(); os._exit(0)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_pixels_that_are_read_only_are_taken(model: Path) -> None:
    content = io.BytesIO()
    Image.new("RGB", (20, 20), (1, 2, 3)).save(content, "PNG")
    frozen = np.asarray(Image.open(content))
    frozen.flags.writeable = False
    assert Predictor(str(model))({"image": [frozen]})["problem"][0] == ""
