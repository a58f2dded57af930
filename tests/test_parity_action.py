"""What other people's CI runs: parity-action/check.sh, the action and the include around it, and the JUnit report."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from xcit_hub import parity, variants
from xcit_hub.checkpoints import checkpoint
from xcit_hub.junit import Case, text
from xcit_hub.parameters import parameter_shapes

_ACTION = Path(__file__).parent.parent / "parity-action"
_PERMUTED = "blocks.3.attn.qkv.weight"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what was released, the same in another format, and the same with one permuted matrix."""
    folder = tmp_path_factory.mktemp("weights")
    arrays = parity.random_weights(parameter_shapes(variants.architecture("xcit_nano_12_p16_224"), num_classes=10))
    said = {"xcit_hub.dialect": "paper"}
    checkpoint.write(folder / "released.safetensors", arrays, said)
    checkpoint.write(folder / "good change.ckpt", arrays, said)
    rows = np.random.default_rng(0).permutation(len(arrays[_PERMUTED]))
    checkpoint.write(folder / "permuted.ckpt", arrays | {_PERMUTED: arrays[_PERMUTED][rows]}, said)
    return folder


def _check(folder: Path, *files: str, **environment: str) -> subprocess.CompletedProcess[str]:
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    program = programs / "xcit-hub"
    program.write_text(f"#!{sys.executable}\nfrom xcit_hub.cli import main\nmain()\n")
    program.chmod(0o755)
    inputs = {"XCIT_WEIGHTS": "\n".join(files), "XCIT_IMAGE_SIZE": "32"} | environment
    found = {name: value for name, value in os.environ.items() if not name.startswith(("XCIT_", "GITHUB_"))}
    return subprocess.run(
        [str(_ACTION / "check.sh")],
        env=found | inputs | {"PATH": f"{programs}:{os.environ['PATH']}"},
        cwd=folder, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_a_permuted_weight_fails_the_check_and_is_named_in_every_report(weights: Path) -> None:
    done = _check(
        weights, "good change.ckpt", "permuted.ckpt",
        XCIT_AGAINST="released.safetensors", XCIT_REPORTS="reports", GITHUB_STEP_SUMMARY=str(weights / "summary.md"),
        COLUMNS="20",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "…" not in done.stdout
    good, bad = (ElementTree.parse(weights / "reports" / f"{number}.xml").getroot() for number in (1, 2))
    assert good.get("failures") == "0" and good.get("tests") == "4"
    failures = {case.get("name"): case.find("failure").get("message") for case in bad.iter("testcase") if len(case)}
    assert set(failures) == {"tensor", "output"}
    assert failures["tensor"].startswith(f"tensor {_PERMUTED}: the same values in another order")
    assert _PERMUTED in (weights / "reports" / "2.json").read_text()
    assert _PERMUTED in (weights / "summary.md").read_text()
    assert "are equal" in done.stdout and "NOT equal" in done.stdout


def test_what_cannot_be_compared_is_an_error_with_exit_code_2(weights: Path) -> None:
    done = _check(weights, "missing.ckpt", XCIT_AGAINST="released.safetensors", XCIT_REPORTS="missing")
    assert done.returncode == 2, done.stderr
    (error,) = ElementTree.parse(weights / "missing" / "1.xml").getroot().iter("error")
    assert "missing.ckpt" in (error.text or "")
    assert _check(weights).returncode == 2


def test_no_report_of_an_earlier_run_is_left_where_an_option_is_refused(weights: Path) -> None:
    reports = weights / "refused"
    reports.mkdir()
    for suffix in ("xml", "json", "txt", "err"):
        (reports / f"1.{suffix}").write_text("of an earlier run")
    done = _check(weights, "permuted.ckpt", XCIT_DIALECT="latin", XCIT_REPORTS="refused")
    assert done.returncode == 2 and "latin" in done.stderr, done.stderr
    assert sorted(path.name for path in reports.iterdir()) == ["1.err", "1.txt"]
    assert "latin" in (reports / "1.err").read_text()


def _keeps_to(schema: str, document: dict[str, Any], folder: Path) -> bool:
    path = folder / "held.yml"
    path.write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    code = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False).returncode
    assert code in (0, 1)
    return code == 0


@pytest.mark.parametrize(
    ("file", "schema"), [("action.yml", "vendor.github-actions"), ("gitlab.yml", "vendor.gitlab-ci")]
)
def test_the_yaml_keeps_to_the_public_schema(file: str, schema: str, tmp_path: Path) -> None:
    # The schema does not look into GitLab's hidden jobs, whose names begin with a dot.
    found = {name.lstrip("."): value for name, value in yaml.safe_load((_ACTION / file).read_text("utf-8")).items()}
    assert _keeps_to(schema, found, tmp_path)
    first = next(iter(found))
    assert not _keeps_to(schema, found | {first: {"script": 1}}, tmp_path)


@pytest.mark.parametrize("page", ["docs/guides/maintainer.md", "docs/zh/guides/maintainer.md"])
def test_what_the_guides_tell_to_write_keeps_to_the_public_schema(page: str, tmp_path: Path) -> None:
    text = (_ACTION.parent / page).read_text("utf-8")
    workflow, include = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    # YAML 1.1 reads the key "on" as true; GitHub does not.
    assert _keeps_to(
        "vendor.github-workflows", {"on" if key is True else key: workflow[key] for key in workflow}, tmp_path
    )
    assert _keeps_to("vendor.gitlab-ci", include, tmp_path)


def test_every_input_of_the_action_reaches_the_script() -> None:
    action = yaml.safe_load((_ACTION / "action.yml").read_text("utf-8"))
    (step,) = action["runs"]["steps"]
    script = (_ACTION / "check.sh").read_text("utf-8")
    assert {f"${{{{ inputs.{name} }}}}" for name in action["inputs"]} == set(step["env"].values())
    assert all(f"${name}" in script or f"${{{name}" in script for name in step["env"])


def test_the_include_holds_the_script_word_for_word() -> None:
    job = yaml.safe_load((_ACTION / "gitlab.yml").read_text("utf-8"))[".xcit-parity"]
    written, run = job["script"]
    assert written.split("\n", 1)[1] == (_ACTION / "check.sh").read_text("utf-8") + "XCIT_PARITY\n"
    assert run == 'XCIT_REPORTS=parity bash "${CI_PROJECT_DIR:-.}/.xcit-parity.sh"'
    assert job["artifacts"]["paths"] == ["parity/"] and job["artifacts"]["reports"]["junit"] == "parity/*.xml"


def test_a_report_takes_any_text() -> None:
    case = Case("a\x00\ud800<&>\x1b[31m", "b", failure="one\ntwo ]]>", skipped="")
    root = ElementTree.fromstring(text("s", [case, Case("c", "d", error="e"), Case("f", "g", skipped="h")]))
    assert [root.get(kind) for kind in ("tests", "failures", "errors", "skipped")] == ["3", "1", "1", "1"]
    first = next(root.iter("testcase"))
    assert first.get("classname") == r"a\x00\ud800<&>\x1b[31m"
    assert first.find("failure").text == "one\ntwo ]]>"


def test_a_table_is_never_cut_in_a_pipe(run_cli) -> None:
    done = run_cli("list", "xcit_tiny*", "--pretrained", env={**os.environ, "COLUMNS": "40"})
    assert "…" not in done.stdout
    assert "timm/xcit_tiny_12_p16_224.fb_dist_in1k" in done.stdout
