from __future__ import annotations

import csv
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from xcit_hub import bulk_evaluation
from xcit_hub.bulk_evaluation import COLUMNS, evaluate_all, named
from xcit_hub.cli.app import app
from xcit_hub.errors import InputError
from xcit_hub.files import sha256_of

FLAGS: dict[str, Any] = {
    "dataset": "imagefolder",
    "batch_size": 3,
    "image_resize": 32,
    "num_parallel_workers": 1,
    "mode": 1,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    root = tmp_path_factory.mktemp("data")
    for label in range(5):
        folder = root / "val" / f"class{label}"
        folder.mkdir(parents=True)
        Image.new("RGB", (40, 40), (50 * label, 20, 200 - 40 * label)).save(folder / "0.png")
    return root


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    import xcit_hub

    folder = tmp_path_factory.mktemp("networks")
    for seed in (1, 2):
        xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=5, dialect="paper", seed=seed).save_pretrained(
            folder / f"nano{seed}"
        )
    return [str(folder / "nano1"), str(folder / "missing"), str(folder / "nano2")]


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_a_table_goes_on_where_it_stopped_and_says_what_failed(
    networks: list[str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, flags = tmp_path / "results.csv", {**FLAGS, "data_dir": str(data)}
    asked: list[str] = []
    locating = importlib.import_module("xcit_hub.hub.locate")
    real = locating.locate

    def located(name: str, **options: Any) -> Any:
        asked.append(name)
        if name == networks[2] and len(asked) < 4:
            raise KeyboardInterrupt  # the user's, before the last network
        return real(name, **options)

    monkeypatch.setattr(locating, "locate", located)
    with pytest.raises(KeyboardInterrupt):
        evaluate_all(networks, table, flags=flags)
    assert [row["model"] for row in rows(table)] == networks[:2], "whole rows of what was done"
    found = evaluate_all(networks, table, flags=flags)
    assert asked == [*networks, *networks[1:]], "what has a result is not evaluated again, what failed is"
    assert found == rows(table)
    assert tuple(found[0]) == COLUMNS
    first, failed, second = found
    assert (first["samples"], first["image_size"], first["dialect"], first["error"]) == ("5", "32×32", "paper", "")
    assert float(first["top1_low"]) <= float(first["top1"]) <= float(first["top1_high"])
    assert first["loss"] != second["loss"]
    assert failed["error"] and not failed["top1"] and "\n" not in failed["error"]
    with pytest.raises(InputError, match=r"begun with other settings: .*--batch_size 3"):
        evaluate_all(networks, table, flags={**flags, "tta": 2})


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("\n-----\n- Memory not enough.\n-----\n", "- Memory not enough"),
        ("\n \n", "RuntimeError"),
        ("", "RuntimeError"),
    ],
    ids=repr,
)
def test_a_network_that_mindspore_refuses_has_failed_whatever_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, told: str
) -> None:
    """Many of MindSpore's messages begin with an empty line; without an error the row counted as a result."""
    asked: list[str] = []

    def refused(name: str, *_: Any, **__: Any) -> None:
        asked.append(name)
        raise RuntimeError(message)

    monkeypatch.setattr(bulk_evaluation, "evaluate", refused)
    for _ in range(2):
        (row,) = evaluate_all(["xcit_nano_12_p16_224"], tmp_path / "results.csv")
        assert row["error"] == told
    assert len(asked) == 2, "what failed is tried again"


def test_a_table_is_not_gone_on_with_after_its_recipe_says_something_else(tmp_path: Path) -> None:
    table, recipe = tmp_path / "results.csv", tmp_path / "recipe.yaml"
    recipe.write_text("dataset: imagefolder\ntta: 2\n")
    missing = [str(tmp_path / "missing")]
    evaluate_all(missing, table, config=recipe, flags={"batch_size": 3})
    recipe.write_text("# the same\ntta: 2\ndataset: imagefolder\n")
    evaluate_all(missing, table, config=recipe, flags={"batch_size": 3})
    recipe.write_text("dataset: imagefolder\ntta: 10\n")
    before = table.read_bytes()
    with pytest.raises(InputError, match=r"begun with other settings: .*recipe\.yaml"):
        evaluate_all(missing, table, config=recipe, flags={"batch_size": 3})
    assert table.read_bytes() == before


@pytest.mark.parametrize("said_in", ["the recipe", "a flag"])
@pytest.mark.parametrize("key", ["class_map", "real_labels"])
def test_a_table_is_not_gone_on_with_after_a_file_that_its_recipe_names_holds_something_else(
    tmp_path: Path, key: str, said_in: str
) -> None:
    table, recipe, named_file = tmp_path / "results.csv", tmp_path / "recipe.yaml", tmp_path / "named.txt"
    recipe.write_text("dataset: imagefolder\n" + (f"{key}: {named_file}\n" if said_in == "the recipe" else ""))
    flags = {key: str(named_file)} if said_in == "a flag" else {}
    missing = [str(tmp_path / "missing")]
    with pytest.raises(InputError, match=f"{key}: there is no such file"):
        evaluate_all(missing, table, config=recipe, flags=flags)
    for content in ("first", "first", "second"):
        named_file.write_text(content)
        if content == "first":
            evaluate_all(missing, table, config=recipe, flags=flags)
    before = table.read_bytes()
    with pytest.raises(InputError, match=f"What {key} names is another file than the table was begun with"):
        evaluate_all(missing, table, config=recipe, flags=flags)
    assert table.read_bytes() == before


def test_a_file_that_is_another_one_by_now_is_evaluated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def row(name: str, *_: Any) -> dict[str, str]:
        done.append(name)
        digest = sha256_of(name) if Path(name).exists() else "0" * 64
        return dict.fromkeys(COLUMNS, "") | {"model": name, "top1": "50", "samples": "5", "sha256": digest}

    monkeypatch.setattr(bulk_evaluation, "_row", row)
    file, table, said = tmp_path / "a.safetensors", tmp_path / "results.csv", list[str]()
    names = [str(file), "org/name"]
    save_file({"x": np.zeros(3, "f4")}, file)
    for content, again in ((None, names), (None, []), (np.ones(3, "f4"), names[:1]), (None, [])):
        if content is not None:
            save_file({"x": content}, file)
        done.clear()
        evaluate_all(names, table, say=said.append)
        assert done == again
        assert rows(table)[0]["sha256"] == sha256_of(file)
    assert sum("another one than the table tells of" in each for each in said) == 1
    file.unlink()
    done.clear()
    evaluate_all(names, table)
    assert done == [], "a row is of what was there"


@pytest.mark.parametrize(
    "content",
    ["model,top1\nnano,50\n", ",".join(COLUMNS) + "\nnano,50\n", "", "\x00", ",".join(COLUMNS) + '\n"nano'],
    ids=["columns", "half a row", "empty", "binary", "open quote"],
)
def test_a_table_that_is_another_or_half_is_not_written_over(content: str, tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    table.write_text(content)
    with pytest.raises(InputError, match="table"):
        evaluate_all(["org/name"], table)
    assert table.read_text() == content


def test_names_are_a_list_a_pattern_or_all_that_have_classes(tmp_path: Path) -> None:
    listed = tmp_path / "names.txt"
    listed.write_text("# my models\norg/one\n\n  org/two  \norg/one\n")
    assert named(str(listed)) == ["org/one", "org/two"]
    everything = named("all")
    assert "xcit_tiny_12_p16_224.fb_in1k" in everything
    assert not [name for name in everything if "dino" in name]
    assert named("xcit_nano*p8*") == [name for name in everything if name.startswith("xcit_nano") and "p8" in name]
    (tmp_path / "empty.txt").write_text("\n# nothing\n")
    for wrong in ("resnet50", str(tmp_path / "empty.txt")):
        with pytest.raises(InputError, match="No model is meant"):
            named(wrong)


@pytest.mark.slow
def test_the_command_says_by_its_exit_code_that_one_failed(networks: list[str], data: Path, tmp_path: Path) -> None:
    listed, table = tmp_path / "names.txt", tmp_path / "results.csv"
    listed.write_text("\n".join(networks[:2]))
    flags = [word for key, value in {**FLAGS, "data_dir": data}.items() for word in (f"--{key}", str(value))]
    both = ["--models", str(listed), "--results-file", str(table)]
    ended = CliRunner().invoke(app, ["eval", *both, *flags, "--tta", "2"])
    assert ended.exit_code == 1, ended.output
    assert f"1 of 2 could not be evaluated; {table} says why" in ended.output
    assert [bool(row["error"]) for row in rows(table)] == [False, True]
    assert "--tta 2" in rows(table)[0]["settings"]
    for words in (both[:2], both[2:], [*both, "--json"], ["org/name", *both]):
        refused = CliRunner().invoke(app, ["eval", *words]).exception
        assert isinstance(refused, InputError) and "--models goes with --results-file" in refused.what
