"""Mean intersection over union is what a reference implementation gives, on ADE20K's folders; the rest is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dense_twin import SMALL, Files
from PIL import Image

import xcit_hub
from xcit_hub.data.scenes import annotated, annotation
from xcit_hub.errors import InputError
from xcit_hub.segmenters import NO_CLASS, Window
from xcit_hub.training.miou import Counts, Segmentation, evaluate


def test_figures_are_scikit_learns() -> None:
    from sklearn.metrics import accuracy_score, jaccard_score, recall_score

    generator = np.random.default_rng(0)
    truth = [generator.integers(0, 6, size).astype(np.int32) for size in ((31, 40), (17, 23), (50, 8))]
    answer = [
        np.where(generator.random(each.shape) < 0.6, each, generator.integers(0, 6, each.shape)) for each in truth
    ]
    for each in truth:
        each[generator.random(each.shape) < 0.1] = NO_CLASS
        each[each == 5] = 4
    counts = Counts(8)
    for one, other in zip(answer, truth, strict=True):
        counts.add(one.astype(np.int32), other)
    found = Segmentation.of(counts, 3)
    flat = np.concatenate([each.ravel() for each in truth])
    said = np.concatenate([each.ravel() for each in answer])[flat != NO_CLASS]
    flat = flat[flat != NO_CLASS]
    # Class 5 is answered and never there: it counts, as 0. Classes 6 and 7 neither are there nor are answered.
    assert np.isnan(found.iou[6:]).all() and np.isnan(found.recall[5:]).all()
    np.testing.assert_allclose(found.iou[:6], jaccard_score(flat, said, labels=range(6), average=None), atol=1e-12)
    np.testing.assert_allclose(found.recall[:5], recall_score(flat, said, labels=range(5), average=None), atol=1e-12)
    assert found.accuracy == pytest.approx(accuracy_score(flat, said), abs=1e-12)
    assert found.miou == pytest.approx(100 * jaccard_score(flat, said, labels=range(6), average="macro"), abs=1e-9)
    assert "of 6 classes" in str(found) and found.as_dict()["iou"][7] is None


def test_nothing_but_pixels_of_no_class_is_not_a_figure() -> None:
    counts = Counts(3)
    counts.add(np.zeros((4, 4), np.int32), np.full((4, 4), NO_CLASS, np.int32))
    with pytest.raises(InputError, match="No pixel of a class"):
        Segmentation.of(counts, 1)


def _dataset(folder: Path, count: int = 3, classes: int = 7) -> Path:
    generator = np.random.default_rng(3)
    for part in ("images", "annotations"):
        (folder / part / "validation").mkdir(parents=True)
    for index in range(count):
        size = (50 + 7 * index, 64)
        Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8)).save(
            folder / "images" / "validation" / f"{index}.jpg"
        )
        Image.fromarray(generator.integers(0, classes + 1, size).astype(np.uint8)).save(
            folder / "annotations" / "validation" / f"{index}.png"
        )
    return folder


def test_ade20ks_folders_are_evaluated_at_the_images_own_size(file: Files, tmp_path: Path) -> None:
    from sklearn.metrics import jaccard_score

    network = xcit_hub.load_segmenter(str(file(16, "sem_fpn")), model=SMALL[16].name)
    network.config = replace(network.config, preprocessing=replace(network.config.preprocessing, image_size=48))
    pairs = annotated(_dataset(tmp_path), "validation")
    found = evaluate(network, pairs, network.config.preprocessing)
    truth, said = [], []
    for image, marks in zip(pairs.images, pairs.annotations, strict=True):
        values = np.asarray(Image.open(marks)).astype(int)
        answer = xcit_hub.segment(network, image)
        assert answer.shape == values.shape
        truth.append(values[values > 0] - 1)
        said.append(answer[values > 0])
    theirs = jaccard_score(np.concatenate(truth), np.concatenate(said), labels=range(7), average=None)
    np.testing.assert_allclose(np.nan_to_num(found.iou), theirs, atol=1e-12)
    assert found.images == 3 and found.pixels.sum() == sum(map(len, truth))
    (tmp_path / "images" / "validation" / "1.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="1 images or annotations cannot be used"):
        evaluate(network, pairs, network.config.preprocessing)
    fewer = evaluate(network, pairs, network.config.preprocessing, max_corrupt=1)
    assert fewer.images == 2 and "1.jpg" in fewer.unreadable[0]


def test_zero_is_no_class_and_the_first_class_is_one(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1], [3, 2]], np.uint8)).save(tmp_path / "x.png")
    assert annotation(tmp_path / "x.png", 3).tolist() == [[NO_CLASS, 0], [2, 1]]
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / "y.png")
    assert annotation(tmp_path / "y.png", 300).tolist() == [[NO_CLASS, 299]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (Image.new("RGB", (2, 2)), "of mode RGB"),
        (Image.new("L", (2, 2), 8), "holds class 8, and the network has 7"),
        (b"no image", "Cannot read the annotation"),
        (None, "Cannot read the annotation"),
    ],
)
def test_an_annotation_that_is_none_is_refused(content, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        content.save(path)
    with pytest.raises(InputError, match=says):
        annotation(path, 7)


def test_an_annotation_of_another_size_stops_the_evaluation(file: Files, tmp_path: Path) -> None:
    network = xcit_hub.load_segmenter(str(file(16, "sem_fpn")), model=SMALL[16].name)
    _dataset(tmp_path, 1)
    Image.new("L", (3, 3), 1).save(tmp_path / "annotations" / "validation" / "0.png")
    seen = replace(network.config.preprocessing, image_size=48)
    with pytest.raises(InputError, match="The annotation has 3×3 pixels, the image 50×64"):
        evaluate(network, annotated(tmp_path, "validation"), seen)
    with pytest.raises(InputError, match="window of 49×49 pixels is larger than the image") as caught:
        evaluate(network, annotated(tmp_path, "validation"), seen, window=Window((49, 49), (40, 40)))
    assert (caught.value.where or "").endswith("0.jpg")


def test_figures_say_by_which_window_and_at_which_size_they_were_measured(file: Files, tmp_path: Path) -> None:
    network = xcit_hub.load_segmenter(str(file(16, "sem_fpn")), model=SMALL[16].name)
    pairs = annotated(_dataset(tmp_path, 1), "validation")
    seen = replace(network.config.preprocessing, image_size=48)
    told = evaluate(network, pairs, seen, window=Window((32, 48), (16, 24))).as_dict()
    assert (told["image_size"], told["window"], told["stride"]) == (48, [32, 48], [16, 24])


def test_folders_that_are_not_ade20ks_are_refused_and_the_splits_named(tmp_path: Path) -> None:
    _dataset(tmp_path)
    for split in ("training", "../validation", "", "..", "."):
        with pytest.raises(InputError) as caught:
            annotated(tmp_path, split)
        assert "validation" in (caught.value.fix or "")
    with pytest.raises(InputError, match="There is no images/validation here"):
        annotated(tmp_path / "images", "validation")
    (tmp_path / "annotations" / "validation" / "1.png").unlink()
    with pytest.raises(InputError, match=r"1 of 3 are an image without an annotation, 1.jpg"):
        annotated(tmp_path, "validation")
    (tmp_path / "images" / "validation" / "1.jpg").unlink()
    (tmp_path / "images" / "validation" / "2.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 2 are an annotation without an image, 2.png"):
        annotated(tmp_path, "validation")


@pytest.mark.parametrize("part", ["images", "annotations"])
def test_two_of_one_name_are_refused_and_both_are_named(part: str, tmp_path: Path) -> None:
    below = _dataset(tmp_path) / part / "validation"
    one = next(path for path in below.iterdir() if path.stem == "1")
    Image.open(one).save(below / "1.bmp")
    with pytest.raises(InputError, match=rf"^1\.bmp and {one.name} have one name but for the suffix\.\n"):
        annotated(tmp_path, "validation")


def test_files_that_are_no_images_by_their_names_are_counted_and_told(tmp_path: Path) -> None:
    _dataset(tmp_path)
    assert annotated(tmp_path, "validation").notes("validation") == ()
    for part in ("images", "annotations"):
        (tmp_path / part / "validation" / "1.heic").write_bytes(b"x")
    assert annotated(tmp_path, "validation").notes("validation") == (
        "2 files of validation are not images by their names, and were left out",
    )


def test_the_command_evaluates_and_writes_the_figures(run_cli, file: Files, tmp_path: Path) -> None:
    network = xcit_hub.load_segmenter(str(file(16, "sem_fpn")), model=SMALL[16].name)
    network.config = replace(network.config, preprocessing=replace(network.config.preprocessing, image_size=48))
    network.save(tmp_path / "mine.safetensors")
    _dataset(tmp_path / "data", 2)
    (tmp_path / "data" / "images" / "validation" / "notes.txt").write_text("not an image")
    command = ("eval", "mine.safetensors", "--task", "segment", "--data_dir", "data", "--output", "out", "--json")
    done = run_cli(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 files of validation are not images by their names" in " ".join(done.stderr.split())
    told = json.loads(done.stdout)
    own = evaluate(network, annotated(tmp_path / "data", "validation"), network.config.preprocessing)
    assert (told["image_size"], told["window"], told["stride"]) == (48, None, None)
    assert told == json.loads((tmp_path / "out" / "miou.json").read_text()) == json.loads(json.dumps(own.as_dict()))
    lines = (tmp_path / "out" / "per_class.csv").read_text().splitlines()
    assert lines[0] == "class,pixels,iou,recall" and lines[1].startswith("thing 0,") and len(lines) == 8


@pytest.mark.parametrize(
    ("words", "options", "says"),
    [
        (["--data_dir", "x", "--lr", "1"], {}, "--lr is not a flag of a segmenter's evaluation"),
        ([], {}, "Nothing says which segmenter"),
        (["--data_dir", "nowhere"], {"stride": "4"}, "A stride needs a window"),
        (["--data_dir", "nowhere"], {}, "There is no images/validation"),
        *(
            (["--data_dir", "nowhere", f"--max_corrupt={value}"], {}, "max_corrupt: must")
            for value in ("abc", "", "null", "-1", "true", "1.5")
        ),
        (["--data_dir", "nowhere", "--dialect", "theirs"], {}, "dialect: must"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused_before_anything_is_loaded(words, options: dict, says: str) -> None:
    from xcit_hub.cli.segment import evaluate_segmenter

    given = {"window": None, "stride": None, "output": None, "as_json": False, **options}
    with pytest.raises(InputError, match=says):
        evaluate_segmenter("mine.safetensors", words, **given)
