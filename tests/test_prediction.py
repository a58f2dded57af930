"""Images in, classes out: one image or many, and what cannot be read is named."""

from __future__ import annotations

import csv
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import xcit_hub
from xcit_hub.errors import InputError
from xcit_hub.prediction import predict, sources

_NAMES = [f"<b>kind {number}</b>" for number in range(4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from dataclasses import replace

    folder = tmp_path_factory.mktemp("model") / "nano"
    network = xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=4, depth=2, seed=0)  # more blocks, more time
    network.config = replace(network.description(), labels=tuple(_NAMES))
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for number in range(5):
        pixels = generator.integers(0, 255, (40 + number, 60, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"photo {number}.png")
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def network(model: Path) -> Any:
    return xcit_hub.load(str(model))


def test_many_images_are_answered_as_each_alone(network: Any, images: Path) -> None:
    paths = sorted(images.glob("*.png"))
    many = predict(network, paths, top=3, batch=2)
    assert [each.image for each in many] == [str(path) for path in paths]
    for path, answer in zip(paths, many, strict=True):
        alone = predict(network, path, top=3)
        assert [each.label for each in answer.classes] == [each.label for each in alone]
        assert np.allclose([each.probability for each in answer.classes], [each.probability for each in alone])
    assert xcit_hub.predict is predict
    opened = [Image.open(path) for path in paths[:2]]
    assert [each.image for each in predict(network, iter(opened))] == ["image 0", "image 1"]
    assert predict(network, []) == []


def test_what_cannot_be_read_is_answered_by_its_problem(network: Any, images: Path) -> None:
    answers = predict(network, [images / "torn.jpg", images / "photo 0.png", images / "missing.png"], batch=1)
    assert [bool(each.problem) for each in answers] == [True, False, True]
    assert [len(each.classes) for each in answers] == [0, 4, 0]
    with pytest.raises(InputError):
        predict(network, images / "torn.jpg")


def test_an_opened_image_that_turns_out_to_be_cut_short_does_not_end_the_others(network: Any, tmp_path: Path) -> None:
    drawn = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    drawn.save(tmp_path / "half.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "half.jpg").read_bytes()[:2000])
    answers = predict(network, [Image.open(tmp_path / "half.jpg"), drawn.convert("RGBA").convert("La"), drawn])
    assert [bool(each.problem) for each in answers] == [True, True, False]


def test_a_name_that_no_file_can_have_is_one_problem_of_a_list(
    model: Path, images: Path, tmp_path: Path, run_here
) -> None:
    photo = str(images / "photo 0.png")
    done = run_here("predict", str(model), "-", "--json", cwd=tmp_path, stdin=f"{'a' * 300}\n{photo}\n")
    assert done.returncode == 1, done.stderr
    assert "File name too long" in done.stderr and "Traceback" not in done.stderr
    assert ["problem" in each for each in json.loads(done.stdout)] == [True, False]


@pytest.mark.parametrize("numbers", [{"top": 0}, {"top": True}, {"batch": 0}, {"batch": 1.5}])
def test_numbers_that_are_none_are_refused(network: Any, images: Path, numbers: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        predict(network, [images / "photo 0.png"], **numbers)


def test_files_folders_patterns_and_lists_name_images(images: Path, monkeypatch) -> None:
    everything = [images / f"photo {number}.png" for number in range(5)]
    assert sources([str(images)]).images == (*everything, images / "torn.jpg")
    assert sources([f"{images}/*.png"]).images == tuple(everything)
    assert sources([f"{images}/**/photo [12].png"]).images == tuple(everything[1:3])
    assert sources(["-"], [f"{everything[3]}\n", "\n", f"{everything[0]}\r\n"]).images == (everything[3], everything[0])
    assert sources([str(everything[2]), str(images / "gone.png")]).images == (everything[2], images / "gone.png")
    monkeypatch.chdir(images)
    Path("a[1].png").symlink_to("photo 1.png")
    assert sources(["a[1].png"]).images == (Path("a[1].png"),)
    Path("a[1].png").unlink()
    Path("pipe").mkdir()
    for nothing in (["pipe"], ["*.gif"], ["-"], []):
        with pytest.raises(InputError, match=r"(no|No) image"):
            sources(nothing)
    Path("pipe").rmdir()


def test_a_folder_stands_for_its_shards_too_and_what_is_none_is_a_problem(images: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.add(images / "photo 3.png", "x/photo 3.png")
    (tmp_path / "a.png").write_bytes((images / "photo 1.png").read_bytes())
    (tmp_path / "c.tar").write_bytes(b"torn")
    (tmp_path / "d.tgz").write_bytes(b"torn")
    found = sources([str(tmp_path)])
    assert [str(image) for image in found.images] == [f"{tmp_path}/a.png", f"{tmp_path}/b.tar!x/photo 3.png"]
    assert [problem.partition(":")[0] for problem in found.problems] == [f"{tmp_path}/c.tar", f"{tmp_path}/d.tgz"]
    assert sources([f"{tmp_path}/?.tar"]).images == found.images[1:]
    assert sources([str(tmp_path / "c.tar")]).images == ()


def test_the_command_prints_writes_and_exits_by_what_failed(
    model: Path, images: Path, network: Any, tmp_path: Path, run_cli, run_here
) -> None:
    done = run_cli("predict", str(model), str(images / "photo 0.png"), "--top", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == str(images / "photo 0.png") and len(lines) == 3
    first = predict(network, images / "photo 0.png")[0]
    assert lines[1].split(None, 1) == [f"{first.probability:.1%}", first.label]

    command = ("predict", str(model), "-", "--csv", "a.csv", "--html", "a.html", "--attention", "maps/of", "--json")
    done = run_here(*command, cwd=tmp_path, stdin=f"{images / 'photo 1.png'}\n{images / 'torn.jpg'}\n")
    assert done.returncode == 1
    assert "torn.jpg" in done.stderr and "Traceback" not in done.stderr
    records = json.loads(done.stdout)
    assert len(records[0]["classes"]) == 4 and records[1]["problem"]
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", ""] and rows[4]["problem"]
    assert rows[0]["class"] == records[0]["classes"][0]["class"] and rows[0]["class"] in _NAMES
    page = (tmp_path / "a.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2  # the image, and what the network looked at
    assert "&lt;b&gt;kind" in page and "<b>kind" not in page
    (drawn,) = (tmp_path / "maps" / "of").iterdir()
    assert drawn.name == "0-photo 1.png" and Image.open(drawn).size == (224, 224)


def test_an_exported_file_draws_what_it_attends_to_or_is_named_for_what_it_lacks(
    model: Path, images: Path, network: Any, tmp_path: Path, run_here
) -> None:
    pytest.importorskip("onnxruntime")
    for name, attention in (("with.onnx", True), ("without.onnx", False)):
        xcit_hub.export(model, tmp_path / name, proof=False, attention=attention)
    photo = images / "photo 2.png"
    served = xcit_hub.Predictor(str(tmp_path / "with.onnx")).network
    ours, theirs = (xcit_hub.attention(each, photo) for each in (network, served))
    for part in ("classes", "class_token", "channels"):
        one, other = getattr(ours, part), getattr(theirs, part)
        assert one.shape == other.shape and np.allclose(one, other, atol=1e-5)

    done = run_here("predict", "with.onnx", str(photo), "--attention", "maps", "--html", "a.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["0-photo 2.png"]
    assert (tmp_path / "a.html").read_text().count("data:image/jpeg;base64,") == 2
    wanted = ("--attention", "none", "--html", "b.html", "--csv", "b.csv")
    done = run_here("predict", "without.onnx", str(photo), str(photo), *wanted, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("exported without its attention") == 1 and "--attention" in done.stderr
    assert len((tmp_path / "b.csv").read_text().splitlines()) == 9  # the rest is done
    assert (tmp_path / "b.html").read_text().count("data:image/jpeg;base64,") == 2


def test_two_images_of_one_name_stand_each_beside_its_own_drawing(
    model: Path, images: Path, tmp_path: Path, run_here
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in (0, 1):
            archive.add(images / f"photo {number}.png", "photo.png")
    done = run_here("predict", str(model), "a.tar", "--html", "a.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = re.findall('data:image/jpeg;base64,[^"]*', (tmp_path / "a.html").read_text())
    assert len(shown) == 4 and len(set(shown)) == 4, "two images, and what the network looked at in each"


def test_shards_without_a_single_image_are_named_and_nothing_is_loaded(tmp_path: Path, run_here) -> None:
    (tmp_path / "torn.tar").write_bytes(b"torn")
    done = run_here("predict", "no/model", "torn.tar", "--parquet", "a.parquet", "--engine", "ray", cwd=tmp_path)
    assert done.returncode == 2
    assert (
        "torn.tar: it cannot be read as an uncompressed tar archive" in done.stderr and "Traceback" not in done.stderr
    )
    assert "1 not answered, 0 answered" in done.stderr


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_the_command_says_what_it_dropped_or_assumed_of_the_model(
    model: Path, images: Path, tmp_path: Path, run_here, as_json: tuple[str, ...]
) -> None:
    described = json.loads((model / "config.json").read_text())
    described["pretrained_cfg"]["colours"] = 8
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    photo = str(images / "photo 0.png")
    done = run_here("predict", str(folder), photo, "--ignore-field", "crop_pct", *as_json, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "colours is not known, and was not used" in done.stderr
    assert "crop_pct was ignored, as was asked for" in done.stderr
    assert run_here("predict", str(model), photo, *as_json, cwd=tmp_path).stderr == ""


def test_the_command_says_which_strings_of_an_exported_file_it_does_not_know(
    model: Path, images: Path, tmp_path: Path, run_here
) -> None:
    pytest.importorskip("onnxruntime")
    import onnx

    file = tmp_path / "later.onnx"
    xcit_hub.export(model, file, proof=False)
    whole = onnx.load(str(file))
    whole.metadata_props.add(key="xcit_hub.colours", value="8")
    onnx.save(whole, str(file))
    done = run_here("predict", str(file), str(images / "photo 0.png"), cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == "note: the file's string xcit_hub.colours is not known, and was not used\n"


def test_files_that_are_not_images_by_their_names_are_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.heic", "c.txt", "d.tar", "below/e.gif", "below/f.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for named, count in (
        ([tmp_path], 3),
        ([f"{tmp_path}/*"], 3),
        ([f"{tmp_path}/[a-z].*"], 2),
        ([f"{tmp_path}/**"], 3),
        ([tmp_path / "a.png"], 0),
    ):
        found = sources([str(each) for each in named])
        assert found.others == count, named
        assert bool(found.notes) is bool(count)
        assert not any("heic" in problem for problem in found.problems)


def test_members_of_an_archive_that_are_not_images_by_their_names_are_counted(images: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name in ("a.png", "b.heic", "a.cls"):
            archive.add(images / "photo 0.png", name)
    (tmp_path / "c.gif").write_bytes(b"")
    for named, count in ((tmp_path / "s.tar", 2), (tmp_path, 3)):
        found = sources([str(named)])
        assert (len(found.images), found.problems, found.others) == (1, (), count)
        assert found.notes == (f"{count} files are not images by their names, and were left out",)


def test_a_folder_that_a_pattern_matches_is_walked_as_one_that_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.png", "b/d.txt", "b/e/f.png", "x.tar/g.png", "table.parquet/h.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    expected = [str(tmp_path / name) for name in ("a.png", "b/c.png", "b/e/f.png", "x.tar/g.png")]
    for named in (str(tmp_path), f"{tmp_path}/*", f"{tmp_path}/**"):
        found = sources([named])
        assert ([str(image) for image in found.images], found.problems, found.others) == (expected, (), 2), named


def test_a_pattern_without_images_is_named_and_the_others_are_found(images: Path) -> None:
    photo = images / "photo 0.png"
    found = sources([str(photo), str(images / "nothing*.xyz")])
    assert found.images == (photo,)
    assert found.problems == (f"{images / 'nothing*.xyz'}: there is no image",)


def test_the_command_refuses_in_a_sentence_and_writes_nothing(
    model: Path, images: Path, tmp_path: Path, run_here
) -> None:
    (tmp_path / "file").write_text("")
    photo = str(images / "photo 0.png")
    for arguments, words in (
        ((str(images / "torn.jpg"),), "torn.jpg"),
        (("nothing*.png",), "There is no image"),
        ((photo, "--attention", "file/maps"), "Cannot write"),
        ((photo, "--top", "0"), "--top"),
        ((photo, "--top", "99999"), "has 4 classes, and top=99999"),
        ((photo, "--csv", "no/where.csv"), "Cannot write"),
    ):
        done = run_here("predict", str(model), *arguments, cwd=tmp_path)
        assert done.returncode == 2, arguments
        assert words in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
