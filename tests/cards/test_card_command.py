"""``xcit-hub card`` as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cards.check import check
from xcit_hub import variants
from xcit_hub.parameters import parameter_shapes

HUBS_CARD = Path(__file__).parent / "fixtures" / "official" / "mindspore__2.5__xcit_tiny_12_p16_224_imagenet2012.md"
COMMAND = "from xcit_hub.cli import run; from xcit_hub.cli.card import app; run(app)"


def card(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A process of its own, once for each command: it has to import what it needs."""
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def card_here(run_here):
    """The same in this process, which has imported all of it already."""

    def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        done = run_here("card", *map(str, arguments), cwd=cwd)
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    shapes = parameter_shapes(variants.architecture("xcit_nano_12_p16_224"))
    path = tmp_path / "model.safetensors"
    save_file({name: generator.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}, path)
    return path


def test_check_passes_a_card_with_warnings_and_counts_them(card_here):
    done = card_here("check", HUBS_CARD)
    assert done.returncode == 0
    assert "1 card, 0 errors, 3 warnings" in done.stdout
    assert "line 17: warning: evaluation: the metadata says top-1 77.27, the prose says 77.16" in done.stdout


def test_check_fails_with_every_fault_as_json(tmp_path):
    bad = tmp_path / "bad.md"
    bad.write_text(
        HUBS_CARD.read_text().replace("license: Apache2.0\n", "").replace("fine-tunable: True", "fine-tunable: x")
    )
    done = card("check", tmp_path, "--json")
    assert done.returncode == 1
    (entry,) = json.loads(done.stdout)
    assert entry["file"] == str(bad)
    errors = [(fault["line"], fault["field"]) for fault in entry["faults"] if fault["severity"] == "error"]
    assert errors == [(3, "license"), (11, "fine-tunable")]


def test_a_file_that_is_not_there_is_the_users_error(card_here, tmp_path):
    done = card_here("check", tmp_path / "none.md")
    assert done.returncode == 2
    assert "There is no such file" in done.stderr


def test_new_writes_every_form_in_every_language(card_here, model, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"top1": 69.9, "top5": 89.7, "eval_samples": 50, "device": "CPU"}))
    (tmp_path / "card.yaml").write_text(
        "model_version: 1.0\nauthor: me\nupdate_time: 2026-01-31\nrepo_link: https://example.com/me/nano\nuser_id: me\n"
        "mindspore_version: 2.10\nsummary: mine\ntrain_dataset: ImageNet2012\nrepository: me/nano\n"
        "license: mit\n"
    )
    arguments = [
        "new", model, "--run", tmp_path / "run.json", "--meta", tmp_path / "card.yaml", "--lang", "en,zh",
        "--form", "hugging-face,mindspore-hub", "--dialect", "paper", "--model", "xcit_nano_12_p16_224",
        "--out", tmp_path / "out",
    ]  # fmt: skip
    done = card(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    hub = "xcit_nano_12_p16_224_imagenet2012"
    assert names == {"README.md", "README_zh.md", f"{hub}.md", f"{hub}_cn.md", "facts.json"}
    assert all(check(path) == [] for path in (tmp_path / "out").glob("*.md"))
    again = card_here(*arguments)
    assert again.returncode == 2
    assert "exist already" in again.stderr
    assert card_here(*arguments, "--force").returncode == 0


def test_a_file_in_the_folders_place_is_the_users_error(card_here, model, tmp_path):
    (tmp_path / "out").write_text("mine")
    done = card_here("new", model, "--dialect", "paper", "--out", tmp_path / "out")
    assert done.returncode == 2 and "--out" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "out").read_text() == "mine"


def test_nobodys_licence_is_guessed(card_here, model, tmp_path):
    done = card_here("new", model, "--dialect", "paper", "--lang", "en,zh", "--out", tmp_path / "out")
    assert done.returncode == 0 and "license: is missing" in done.stdout
    english, chinese = ((tmp_path / "out" / name).read_text("utf-8") for name in ("README.md", "README_zh.md"))
    assert "\nlicense:" not in english + chinese
    assert (
        "Under which licence the weights are, nobody has said" in english and "没有人说明权重采用何种许可证" in chinese
    )
    done = card_here("show", "timm/xcit_nano_12_p16_224.fb_in1k")
    assert "apache-2.0" in done.stdout  # what its publisher says


def test_a_card_without_a_run_says_what_the_file_says_of_itself(card_here, tmp_path):
    seen = {
        "input_size": [1, 160, 192], "mean": [0.25], "std": [0.125], "interpolation": "bilinear", "crop_pct": 0.9,
        "crop_mode": "squash",
    }  # fmt: skip
    strings = {
        "xcit_hub.architecture": "xcit_nano_12_p16_224",
        "xcit_hub.dialect": "mindcv",
        "xcit_hub.preprocessing": json.dumps(seen),
        "xcit_hub.classes": json.dumps(["ape", "bee", "cat"]),
        "xcit_hub.global_pool": "avg",
    }
    shapes = parameter_shapes(variants.architecture("xcit_nano_12_p16_224"), num_classes=3, in_chans=1)
    generator = np.random.default_rng(0)
    arrays = {name: generator.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(arrays, tmp_path / "own.safetensors", strings)
    done = card_here("new", tmp_path / "own.safetensors", "--lang", "en,zh", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "out" / "facts.json").read_text())
    assert facts["preprocessing"] == seen
    assert (facts["image_size"], facts["crop_pct"], facts["interpolation"]) == (160, 0.9, "bilinear")
    assert (facts["in_chans"], facts["global_pool"], facts["classes"]) == (1, "avg", ["ape", "bee", "cat"])
    assert facts["params"] == sum(value.size for name, value in arrays.items() if ".moving_" not in name)
    for name in ("README.md", "README_zh.md"):
        text = (tmp_path / "out" / name).read_text("utf-8")
        assert "160 × 192" in text and "np.zeros((1, 1, 160, 192)" in text
        assert "0 ape" in text and "2 cat" in text
        assert 'checkpoint_path="weights.safetensors", global_pool="avg")' in text
    (tmp_path / "run.json").write_text(json.dumps({"top1": 69.9, "image_size": [224, 224], "classes": ["a", "b", "c"]}))
    arguments = ("new", tmp_path / "own.safetensors", "--run", tmp_path / "run.json", "--out", tmp_path / "other")
    assert card_here(*arguments).returncode == 0  # what was measured goes before what the file says
    facts = json.loads((tmp_path / "other" / "facts.json").read_text())
    assert (facts["image_size"], facts["classes"]) == (224, ["a", "b", "c"])
    strings["xcit_hub.preprocessing"] = json.dumps(seen | {"input_size": [3, 160, 192]})
    save_file(arrays, tmp_path / "own.safetensors", strings)
    done = card_here("new", tmp_path / "own.safetensors", "--out", tmp_path / "third")
    assert done.returncode == 2 and "xcit_hub.preprocessing.input_size has 3 channels, the network 1" in done.stderr


@pytest.mark.parametrize("said", ["name", "model-name", "train-dataset"])
def test_new_writes_nowhere_but_into_its_folder(card_here, model, tmp_path, said):
    (tmp_path / "card.yaml").write_text("license: mit\n" + ("" if said == "name" else f"{said}: a/../../elsewhere\n"))
    named = ["--name", "../elsewhere"] if said == "name" else []
    done = card_here(
        "new", model, "--dialect", "paper", "--form", "mindspore-hub", "--meta", tmp_path / "card.yaml", *named,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 2
    assert "elsewhere" in done.stderr and said in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"card.yaml", "model.safetensors"}


def test_new_says_what_a_hub_would_refuse(card_here, model, tmp_path):
    done = card_here("new", model, "--dialect", "paper", "--form", "mindspore-hub", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "author: is required" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lang", "fr"], "en, zh"),
        (["--form", "gitlab"], "mindspore-hub"),
        (["--dialect", "latin"], "latin"),
        (["--meta", "none.yaml"], "none.yaml"),
        (["--run", "none.json"], "none.json"),
        ([], "dialect"),
    ],
)
def test_new_refuses_what_it_cannot_use_and_writes_nothing(card_here, model, tmp_path, arguments, message):
    done = card_here("new", model, "--out", tmp_path / "out", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_show_prints_facts_and_prose():
    done = card("show", HUBS_CARD)
    assert done.returncode == 0
    assert "top1acc77.27 | top5acc93.56" in done.stdout
    assert "Introduction" in done.stdout


def test_translate_between_the_forms_prints_a_card(card_here, tmp_path):
    done = card("translate", HUBS_CARD, "--form", "hugging-face")
    assert done.returncode == 0
    assert done.stdout.startswith("---\n")
    target = tmp_path / "card.md"
    assert card_here("translate", HUBS_CARD, "--form", "hugging-face", "--out", target).returncode == 0
    assert target.read_text() == done.stdout


def test_translate_names_what_is_left_though_the_cards_own_language_is_named(card_here, model, tmp_path):
    assert card_here("new", model, "--dialect", "paper", "--out", tmp_path / "out").returncode == 0
    arguments = ("translate", tmp_path / "out" / "README.md", "--form", "modelscope")
    plain, named = card_here(*arguments), card_here(*arguments, "--lang", "en")
    assert "left: " in plain.stderr
    assert (named.stdout, named.stderr) == (plain.stdout, plain.stderr)
    anew = card_here(*arguments, "--lang", "zh")
    assert (anew.returncode, anew.stderr) == (0, "")


def test_translate_refuses_facts_that_it_would_not_use(card_here, tmp_path):
    done = card_here("translate", HUBS_CARD, "--lang", "en", "--facts", tmp_path / "none.json")
    assert done.returncode == 2 and "has that language already" in done.stderr
    done = card_here(
        "translate", "timm/xcit_nano_12_p16_224.fb_in1k", "--lang", "zh", "--facts", tmp_path / "none.json"
    )
    assert done.returncode == 2 and "those of a published checkpoint are known" in done.stderr


def test_translate_into_another_language_needs_the_facts(card_here):
    done = card_here("translate", HUBS_CARD, "--lang", "zh")
    assert done.returncode == 2
    assert "facts.json" in done.stderr


def test_html_writes_one_page(tmp_path):
    target = tmp_path / "page.html"
    assert card("html", HUBS_CARD, "--out", target).returncode == 0
    assert target.read_text().startswith("<!doctype html>")


def test_no_heavy_framework_is_imported():
    code = (
        "import sys; import cards.check, cards.generate, cards.gather, cards.index, cards.page, cards.translate, "
        "cards.write, xcit_hub.cli.card; print(sorted({'mindspore', 'torch', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout == "[]\n", done.stderr
