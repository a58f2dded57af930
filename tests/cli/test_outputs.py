"""What cannot be written, or means nothing, is found out before anything is read or computed."""

from __future__ import annotations

import shutil

import pytest
from typer.testing import CliRunner

from xcit_hub.cli.app import app
from xcit_hub.errors import InputError, XcitHubError

# Each of these models and folders is missing: who looks for it first says so, not what is wrong with the output.
COMMANDS = {
    "--csv": ["predict", "no.ckpt", "a.png", "--csv"],
    "--html": ["predict", "no.ckpt", "a.png", "--html"],
    "--parquet": ["predict", "no.ckpt", "a.png", "--parquet"],
    "--json": ["parity", "no.ckpt", "--json"],
    "--junit": ["parity", "no.ckpt", "--against", "no.pth", "--junit"],
    "--report": ["export", "no.ckpt", "out.onnx", "--report"],
    "OUT": ["export", "no.ckpt"],
    "The report": ["convert", "no.ckpt", "out.ckpt", "--report"],
    "--results-file": ["eval", "--models", "all", "--data_dir", "no", "--results-file"],
    "--out": ["card", "html", "no.md", "--out"],
    "--accept": ["doctor", "--device", "CPU", "--accept"],
}
FILES = {
    "in a folder that is not there": ("missing/out", "No such file"),
    "below a file": ("file/out", "Not a directory"),
    "a folder": ("folder", "Is a directory"),
    "a device": ("/dev/null", "a device"),
    "a name too long": ("x" * 250, "File name too long"),
    "where nobody writes": ("/proc/out", ""),
}
FOLDERS = {
    "--attention": ["predict", "no.ckpt", "a.png", "--attention"],
    "--segment": ["predict", "no.pth", "a.png", "--segment"],
    "--masks": ["predict", "no.pth", "a.png", "--segment", "painted", "--masks"],
    "--output": ["eval", "no.ckpt", "--data_dir", "no", "--output"],
    "--out": ["card", "new", "no.ckpt", "--out"],
}


@pytest.fixture(autouse=True)
def _somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    yield
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"], "nothing was written"


# With a suffix, which is looked at first, a folder or a device is another file.
TRIED = [
    (option, place)
    for option in COMMANDS
    for place in FILES
    if option != "OUT" or place not in ("a folder", "a device")
]


@pytest.mark.parametrize(("option", "place"), TRIED)
def test_a_file_that_cannot_be_written_is_refused_before_any_work(option, place):
    path, reason = FILES[place]
    path += ".onnx" if option == "OUT" else ""
    error = CliRunner().invoke(app, [*COMMANDS[option], path]).exception
    assert isinstance(error, InputError), error
    assert "Cannot write" in error.what or "written there" in error.what or "no such folder" in error.what, error
    assert (option in error.what and reason in error.what) or option in ("--accept", "OUT")


@pytest.mark.parametrize("option", FOLDERS)
@pytest.mark.parametrize("path", ["file", "file/below", "/proc/out"])
def test_a_folder_that_cannot_be_made_or_written_is_refused_before_any_work(option, path):
    error = CliRunner().invoke(app, [*FOLDERS[option], path]).exception
    assert isinstance(error, InputError), error
    assert option in error.what and "Cannot write into" in error.what


@pytest.mark.parametrize(
    ("words", "options", "what"),
    [
        (["predict", "no.pth", "a.png"], ("--segment", "--masks"), "folder"),
        (["predict", "no.ckpt", "a.png"], ("--attention", "--html"), "place"),
        (["predict", "no.ckpt", "a.png"], ("--csv", "--html"), "file"),
        (["eval", "--data_dir", "no"], ("--output", "--results-file"), "place"),
    ],
)
def test_two_outputs_in_one_place_are_refused_before_any_work(words, options, what):
    error = CliRunner().invoke(app, [*words, options[0], "new", options[1], "folder/../new"]).exception
    assert isinstance(error, InputError), error
    assert error.what == f"{options[0]} and {options[1]} name the same {what}."


@pytest.mark.parametrize(
    "words",
    [
        ["no.ckpt", "own", "--attention", "own"],
        ["no.ckpt", "own", "--attention", "folder/../own"],
        ["no.pth", "own", "--segment", "own"],
        ["no.pth", "own", "--segment", "painted", "--masks", "own"],
    ],
)
def test_a_drawing_that_would_take_the_place_of_an_image_is_refused_before_any_work(words, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for name in ("1-a.png", "a.jpg"):
        (own / name).write_text(name)
    error = CliRunner().invoke(app, ["predict", *words]).exception
    assert isinstance(error, InputError), error
    assert error.what == f"{words[-2]} would write over a file that is read."
    assert [path.read_text() for path in sorted(own.iterdir())] == ["1-a.png", "a.jpg"]
    (own / "1-a.png").rename(own / "b.png")  # in the place of none
    error = CliRunner().invoke(app, ["predict", *words]).exception
    assert isinstance(error, XcitHubError) and "write over" not in error.what, error
    shutil.rmtree(own)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["convert", "no.ckpt", "out.ckpt", "--suffix", ".pth"], "--suffix means nothing without --all"),
        (["doctor", "--workers", "4"], "--workers means nothing without --accept"),
        (["load", "no.ckpt", "--exif"], "--exif means nothing without --image"),
        (["card", "translate", "no.md", "--facts", "facts.json"], "--facts means nothing without --lang"),
        (["list", "--pretrained", "--hub", "folder"], "--pretrained is of the table"),
        (["parity", "xcit_nano_12_p16_224", "xcit_nano_13_p16_224"], "xcit_nano_13_p16_224"),
        (["publish", "no.ckpt", "o/n", "--to", "./hub", "--run", "no.json"], "Cannot read the file"),
        (["publish", "no.ckpt", "o/n", "--to", "./hub", "--meta", "folder"], "Cannot read the file"),
    ],
)
def test_what_would_not_be_used_or_is_not_there_is_refused_before_any_work(words, says):
    error = CliRunner().invoke(app, words).exception
    assert isinstance(error, XcitHubError), error
    assert says in error.what
