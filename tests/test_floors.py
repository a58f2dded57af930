"""The contract on imports in pyproject.toml speaks of every module; `make lint` holds them to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_CHECKOUT = Path(__file__).parents[1]


@pytest.fixture
def settings() -> dict:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 and later read TOML")
    return tomllib.loads((_CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]


def test_every_module_has_a_floor(settings) -> None:
    (floors,) = (contract for contract in settings["contracts"] if contract["id"] == "floors")
    named = {name for layer in floors["layers"] for name in re.findall(r"[\w.]+", layer)}
    inside = (_CHECKOUT / "xcit_hub").iterdir()
    modules = {f"xcit_hub.{path.stem}" for path in inside if path.suffix == ".py" and path.stem != "__init__"}
    folders = {f"xcit_hub.{path.parent.name}" for path in (_CHECKOUT / "xcit_hub").glob("*/*.py")}
    assert named >= modules | folders | {"converters", "cards", "benchmarks"}


def test_no_import_is_excepted(settings) -> None:
    excepted = [key for contract in settings["contracts"] for key in contract if key.startswith("ignore")]
    assert not excepted
