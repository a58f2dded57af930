"""Tries, by recipes and by the state of a run, to run code, to fill memory, to delete or read files elsewhere.

Each is a file of ``training/``: a recipe, or the progress that a run's state tells. None may be taken.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from ledger import Attack, Case, expect
from mini_train import MINI, mini

from xcit_hub import variants
from xcit_hub.checkpoints import checkpoint
from xcit_hub.errors import XcitHubError
from xcit_hub.training.recipe_file import load_recipe
from xcit_hub.training.resume import STATE, Progress, load_state

_FILES = Path(__file__).parent / "training"
_ARRAYS = {
    "head.weight": np.ones((3, 4), np.float32),
    "updates": np.array(3.0, np.float32),
    "loss_scale": np.array(1.0, np.float32),
    "quiet_steps": np.array(0, np.int32),
}


def cases(_: int) -> list[Case]:
    recipes = [Case(f"recipe {path.stem}", partial(_recipe, path)) for path in sorted((_FILES / "recipes").iterdir())]
    runs = [Case(f"run {path.stem}", partial(_run, path)) for path in sorted((_FILES / "progress").iterdir())]
    return recipes + runs


ATTACK = Attack("lying runs", cases, sample=30)


def _recipe(path: Path, _: Path) -> None:
    try:
        taken = load_recipe(path)
    except XcitHubError as error:
        _check_words(error)
    else:
        expect(False, f"it is taken: {taken}")


def _run(path: Path, folder: Path) -> None:
    run, victim = folder / "run", folder / "victim.txt"
    run.mkdir()
    victim.write_text("precious")
    known = variants.ARCHITECTURES.get(MINI)
    variants.ARCHITECTURES[MINI] = mini()
    try:
        recipe = load_recipe(None, {"model": MINI, "dialect": "paper", "epoch_size": 2})
        metadata = {"xcit_hub.state": "2", "recipe": recipe.model_dump_json(), "progress": path.read_text()}
        checkpoint.write(run / STATE, _ARRAYS, metadata)
        here = Progress(
            workers=1, steps=3, dialect="paper", classes=["class0", "class1", "class2"], epochs_done=0, history=[]
        )
        try:
            _, taken = load_state(run, _ARRAYS, recipe, here)
        except XcitHubError as error:
            _check_words(error)
        else:
            expect(False, f"it is taken: {taken}")
    finally:
        if known is None:
            del variants.ARCHITECTURES[MINI]
    expect(victim.read_text() == "precious", "the file outside was changed")


def _check_words(error: XcitHubError) -> None:
    expect(len(error.what.splitlines()) == 1, f"more than one sentence: {error.what}")
    expect(len(str(error)) < 800, f"{len(str(error))} letters")
