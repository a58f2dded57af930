"""One of several workers that does one job after the other, so that their processes are started once.

``several_jobs.py FILE``: a JSON list of jobs, each its kind and its words. The last is a command: it ends the process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mini_train import LEAST, as_command, register
from saturating import train_saturating
from spied_train import train_spied
from synced_norm import share_of

from xcit_hub.data.batches import Worker
from xcit_hub.training import device
from xcit_hub.training.engine import train
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recipe_file import load_recipe, parse_flags


def do(worker: Worker, kind: str, words: list[str]) -> None:
    match kind:
        case "train":
            train(load_recipe(None, parse_flags(words)), as_json=True)
        case "spied":
            train_spied(load_recipe(None, parse_flags(words)))
        case "norm":
            given, folder, classes = words
            share_of(worker, Path(given), Path(folder), int(classes))
        case "saturating":
            train_saturating(worker, Path(*words))
        case "command":
            sys.argv[1:] = words
            as_command()


if __name__ == "__main__":
    register()
    joined = device.prepare(Recipe(model=LEAST, mode=1), distribute=True)
    device._join = lambda: joined  # once for a process
    for kind, words in json.loads(Path(sys.argv[1]).read_text()):
        do(joined, kind, words)
