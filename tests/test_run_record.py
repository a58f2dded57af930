"""``run.json``: one typed description with a format, of which nothing is skipped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xcit_hub.errors import InputError
from xcit_hub.run_record import FORMAT, RunRecord

OLD = Path(__file__).parent / "training" / "fixtures" / "run_0_1_0.json"


def test_the_record_of_0_1_0_is_read_unchanged() -> None:
    record = RunRecord.read(OLD)
    assert record.format == 1
    written = json.loads(OLD.read_text())
    told = json.loads(record.model_dump_json())
    assert {key: told[key] for key in written} == written


def test_what_is_written_is_read(tmp_path: Path) -> None:
    record = RunRecord(top1=50.0, eval_samples=10, classes=["cat", "dog"], flags={"lr": 0.1})
    path = tmp_path / "run.json"
    path.write_text(record.model_dump_json())
    assert RunRecord.read(path) == record
    assert record.format == FORMAT


@pytest.mark.parametrize("content", ['{"format": 3}', '{"format": 0}', '{"format": "new"}', '{"eval_loss": NaN}'])
def test_a_later_format_and_figures_that_cannot_be_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"format|eval_loss"):
        RunRecord.read(path)


_SEEN = {"input_size": [3, 32, 32], "mean": [0.5], "std": [0.5], "interpolation": "bicubic", "crop_pct": 1.0}


@pytest.mark.parametrize(
    "wrong",
    [
        *({"top1": value} for value in (True, "50", [50.0], -1, 101)),
        *({"cards": value} for value in (True, "1", 0, 1.5)),
        *({"classes": value} for value in ("cat", [1, 2], {"0": "cat"})),
        *({"preprocessing": _SEEN | {"input_size": value}} for value in ([3, 0, 32], [3, 32], [True] * 3, ["3"] * 3)),
        *({"preprocessing": _SEEN | {"mean": value}} for value in ([], ["0.5"], [True], 0.5)),
        *({"preprocessing": _SEEN | {"crop_pct": value}} for value in (True, "1", 0, -1, None)),
        {"preprocessing": _SEEN | {"interpolation": "magic"}},
        {"preprocessing": _SEEN | {"crop_mode": "cubist"}},
    ],
    ids=json.dumps,
)
def test_a_value_of_another_kind_is_refused_by_its_fields_name(wrong: dict, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(wrong))
    with pytest.raises(InputError, match=next(iter(wrong))):
        RunRecord.read(path)
    path.write_text(json.dumps({"preprocessing": _SEEN, "top1": 50, "image_size": [32, 32]}))
    assert RunRecord.read(path).top1 == 50.0


def test_a_pipe_is_not_a_record(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(InputError, match="FIFO"):
        RunRecord.read(tmp_path / "run.json")


@given(name=st.text(alphabet="abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=15))
@settings(max_examples=60)
def test_a_random_unknown_field_is_refused_by_name(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    if name in RunRecord.model_fields:
        return
    path = tmp_path_factory.getbasetemp() / "run.json"
    path.write_text(json.dumps({"top1": 50.0, name: 1}))
    with pytest.raises(InputError, match=name):
        RunRecord.read(path)
