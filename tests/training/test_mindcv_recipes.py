"""Every recipe of MindCV 0.5 with an XCiT in the place of its model; the facts are ``fixtures/mindcv_recipes.json``."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recipe_file import load_recipe
from xcit_hub.training.schedule import learning_rates

FACTS = Path(__file__).parent / "fixtures" / "mindcv_recipes.json"
RECIPES = 179


@lru_cache(maxsize=1)
def facts() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(FACTS.read_text())
    return loaded


def keys_of(name: str) -> dict[str, Any]:
    values = facts()["values"]
    return {key: values[key][place] for key, place in zip(values, facts()["rows"][name], strict=True) if place >= 0}


def read(name: str, folder: Path) -> Recipe:
    """Write a recipe as a file, word by word, and read it."""
    lines = []
    for key, value in {**keys_of(name), "model": "xcit_tiny_12_p16_224"}.items():
        text = f"[{', '.join(value)}]" if isinstance(value, list) else value or '""'
        lines.append(f"{key}: {text}\n")
    path = folder / "recipe.yaml"
    path.write_text("".join(lines))
    return load_recipe(path)


def test_all_recipes_are_taken(tmp_path: Path) -> None:
    taken = {name: read(name, tmp_path) for name in facts()["rows"]}
    assert len(taken) == RECIPES
    assert taken["volo/volo_d4_ascend.yaml"].preprocessing.crop_pct == 1.15


@pytest.mark.parametrize("opt", ["momentum", "adamw", "rmsprop", "sgd", "lion"])
def test_what_a_recipe_says_is_what_is_done(opt: str, tmp_path: Path) -> None:
    """Every key either is a field of the same value, or is said to have no effect."""
    for name in facts()["rows"]:
        said = keys_of(name)
        if said["opt"].lower() != opt:
            continue
        recipe = read(name, tmp_path)
        for key, text in said.items():
            if key == "model":
                continue
            found = getattr(recipe, key)
            if isinstance(text, list):
                assert list(found) == [float(one) for one in text], (name, key)
            elif isinstance(found, bool):
                assert found is (text == "True"), (name, key)
            elif isinstance(found, float | int):
                assert found == float(text), (name, key)
            else:
                assert str(found).lower() == text.lower(), (name, key)
        uses = {"momentum": "momentum" in recipe.takes.keys, "betas": bool(recipe.takes.betas)}
        assert uses["momentum"] is (opt in ("momentum", "sgd", "rmsprop"))


def test_every_recipes_learning_rates_are_mindcvs(tmp_path: Path) -> None:
    for name, expected in facts()["rates"].items():
        rates = learning_rates(read(name, tmp_path), 3)
        steps = len(rates)
        at = [0, 1, 7, steps // 8, steps // 4, steps // 2, 3 * steps // 4, steps - 4, steps - 1]
        np.testing.assert_allclose(rates[at], expected, rtol=1e-9, atol=1e-15, err_msg=name)


def test_the_facts_say_where_they_are_from() -> None:
    assert facts()["repository"] == "mindspore-lab/mindcv"
    assert len(facts()["commit"]) == 40
    assert len(facts()["rows"]) == RECIPES
