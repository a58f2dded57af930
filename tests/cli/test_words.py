"""The command line speaks of its own options, and answers under the module's name as well."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cards.facts import CardYaml
from xcit_hub.cli.app import app
from xcit_hub.process import in_options


@pytest.mark.parametrize(
    ("advice", "said"),
    [
        ("what is cached loads with offline=True.", "what is cached loads with --offline."),
        ("give cache_dir the folder that has it.", "give --cache-dir the folder that has it."),
        ("token=, or --token-env and the name", "--token-env and the name"),
        ("MODELERS_TOKEN, token= or --token-env;", "MODELERS_TOKEN, --token-env;"),
        ("field: ignore_fields=['a.b'], --ignore-field a.b.", "field: --ignore-field a.b."),
        ("leave out ignore_fields (--ignore-field).", "leave out --ignore-field."),
        ("Create the network with dialect='mindcv-mint'.", "Create the network with --dialect mindcv-mint."),
        ("name the model in its hub: hub=FOLDER.", "name the model in its hub: --hub FOLDER."),
        (
            "Make room, or give cache_dir a folder that may be written.",
            "Make room, or give --cache-dir a folder that may be written.",
        ),
        ("xcit-hub inspect /my/cache_dir/offline=True.ckpt", "xcit-hub inspect /my/cache_dir/offline=True.ckpt"),
        ("Check the id.", "Check the id."),
    ],
)
def test_advice_is_given_in_the_words_of_the_command_line(advice, said):
    assert in_options(advice) == said


def test_a_hub_that_is_not_there_is_told_with_the_option(run_cli, tmp_path):
    done = run_cli("info", "org/name", "--hub", "http://127.0.0.1:9", "--cache-dir", str(tmp_path))
    assert done.returncode == 2
    assert "loads with --offline." in done.stderr
    assert "offline=True" not in done.stderr


def test_python_m_xcit_hub_is_the_command_line():
    command = [sys.executable, "-m", "xcit_hub", "list", "xcit_nano*p8*"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["xcit_nano_12_p8_224", "xcit_nano_12_p8_384"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["card", "new", "x.ckpt", "--template", "--lang", "zh"], "CHECKPOINT, --lang"),
        (["train", "--keys", "-c", "recipe.yaml"], "--config"),
        (["eval", "--keys", "--json"], "--json"),
        (["train", "--keys", "--lr", "1e-4"], "--lr, 1e-4"),
    ],
)
def test_an_option_that_prints_and_ends_refuses_by_name_what_it_would_ignore(run_here, words, named):
    done = run_here(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"prints and ends; {named} would mean nothing" in done.stderr


def test_the_template_of_card_yaml_names_every_field_and_reads_with_and_without_its_examples(tmp_path):
    done = CliRunner().invoke(app, ["card", "new", "--template"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    example = re.compile(r"# ( *(- )?[a-z0-9_-]+:(?: .*)?)$")
    filled = [found[1] if (found := example.fullmatch(line)) else line for line in lines[2:]]
    for text in (lines, filled):
        (tmp_path / "card.yaml").write_text("\n".join(text) + "\n")
        read = CardYaml.read(tmp_path / "card.yaml")
    assert read.model_fields_set == set(CardYaml.model_fields)


def test_without_a_checkpoint_there_is_no_card():
    done = CliRunner().invoke(app, ["card", "new"])
    assert done.exit_code == 2
    assert "CHECKPOINT" in done.output
