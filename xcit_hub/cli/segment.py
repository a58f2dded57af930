"""``xcit-hub predict --segment``: the classes of all pixels of many images."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from xcit_hub.cli.shared import Address, console, print_notes, token_in, working
from xcit_hub.errors import InputError

if TYPE_CHECKING:
    from xcit_hub.hub.dense import XCiTSegmenter
    from xcit_hub.segmentation import Segmented

_SHOWN = 5


def load(address: Address, names: Path | None = None) -> XCiTSegmenter:
    """Load the segmenter that the options mean, and print what has to be known of it.

    Args:
        names: a file of the classes' names, one a line.
    """
    from xcit_hub.hub.dense import load_segmenter
    from xcit_hub.segmentation import read_names

    network = load_segmenter(
        address.model_id,
        address.revision,
        hub=address.hub,
        cache_dir=address.cache_dir,
        offline=address.offline,
        token=token_in(address.token_env),
        dialect=address.dialect,
        classes=() if names is None else read_names(names),
    )
    print_notes(network.config.provenance.notes, stderr=True)
    return network


def segment_images(
    address: Address,
    named: Sequence[str],
    painted: Path,
    *,
    masks: Path | None,
    window: str | None,
    stride: str | None,
    names: Path | None,
    column: str | None,
    exif: bool,
    as_json: bool,
) -> None:
    """Segment images; those that cannot be are named, and the exit code is then 1, or 2 where none could."""
    from xcit_hub.files import check_folders, check_numbered
    from xcit_hub.prediction import sources
    from xcit_hub.segmentation import parse_window, segment_all

    slides = parse_window(window, stride)
    folders = {"--segment": painted, "--masks": masks}
    check_folders(folders)
    found = sources(named, (sys.stdin or ()) if "-" in named else (), column=column)
    read = [str(getattr(each, "shard", each)) for each in found.images]
    check_numbered(folders, ".png", [each.stem for each in found.images], read)
    with working("loading") as show:
        network = load(address, names)
        answered = segment_all(
            network, found.images, painted=painted, masks=masks, window=slides, exif=exif, stage=show
        )
    if as_json:
        typer.echo(json.dumps([_record(each) for each in answered], ensure_ascii=False, indent=2))
    else:
        _print(answered)
    print_notes(found.notes, stderr=True)
    problems = (*found.problems, *(f"{each.image}: {each.problem}" for each in answered if each.problem))
    print_notes(problems, stderr=True)
    if problems:
        raise typer.Exit(1 if any(not each.problem for each in answered) else 2)


# Keys of a recipe that mean something for a segmenter's evaluation.
_KEYS = ("data_dir", "val_split", "max_corrupt", "dialect")


def evaluate_segmenter(
    model: str | None,
    words: Sequence[str],
    *,
    window: str | None,
    stride: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Print the mean intersection over union on ADE20K's folders, and write ``miou.json`` and ``per_class.csv``.

    Args:
        words: flags of the command line: ``--data_dir``, ``--val_split``, ``--max_corrupt``, ``--dialect``.
    """
    from xcit_hub.data.scenes import annotated
    from xcit_hub.files import check_folders
    from xcit_hub.recipe_runs import evaluate_segmenter as evaluate
    from xcit_hub.segmentation import parse_window
    from xcit_hub.training.recipe_file import load_recipe, parse_flags
    from xcit_hub.variants import ARCHITECTURES

    flags = parse_flags(words)
    strange = [key for key in flags if key not in _KEYS]
    if strange:
        raise InputError(
            f"--{strange[0]} is not a flag of a segmenter's evaluation.",
            where="the command line",
            fix=f"Flags are --{', --'.join(_KEYS)}.",
        )
    if model is None or not flags.get("data_dir"):
        raise InputError(
            "Nothing says which segmenter to evaluate, or on which data.",
            where="the command line",
            fix="Give its ID and --data_dir DIR.",
        )
    any_model = next(iter(ARCHITECTURES))  # a recipe has one, and the segmenter's is in its file
    asked = load_recipe(None, {"model": any_model, **flags}, {"val_split": "validation", "max_corrupt": 0})
    slides = parse_window(window, stride)
    check_folders({"--output": output})
    pairs = annotated(Path(asked.data_dir), asked.val_split)
    print_notes(pairs.notes(asked.val_split), stderr=True)
    with working("loading") as show:
        network = load(Address(model, None, None, None, False, None, asked.dialect))
        found = evaluate(
            network,
            pairs,
            window=slides,
            max_corrupt=asked.max_corrupt,
            output=output,
            step=lambda done: show(f"{done:,} of {len(pairs.images):,} images"),
        )
    print_notes(tuple(f"cannot be used, not evaluated: {name}" for name in found.unreadable), stderr=True)
    typer.echo(json.dumps(found.as_dict()) if as_json else str(found))


def train_segmenter(
    config: Path | None, words: Sequence[str], *, head: str | None, names: Path | None, as_json: bool
) -> None:
    """Train a segmenter as a recipe and flags say, evaluate it, and write it with its figures into ``ckpt_save_dir``.

    Args:
        words: flags of the command line, keys of a recipe.
        head: None is that of the segmenter to go on with, or ``sem_fpn``.
        names: a file of the classes' names, one a line.
    """
    from xcit_hub.segmentation import read_names
    from xcit_hub.segmenter_training import train
    from xcit_hub.training.recipe_file import parse_flags

    with working("training") as show:
        trained = train(
            config,
            parse_flags(words),
            head=head,
            classes=() if names is None else read_names(names),
            stage=show,
            say=partial(print_notes, stderr=True),
        )
    typer.echo(json.dumps(trained.as_dict()) if as_json else str(trained))


def _record(answer: Segmented) -> dict[str, object]:
    if answer.problem:
        return {"image": answer.image, "problem": answer.problem}
    return {
        "image": answer.image,
        "classes": [{"class": name, "index": index, "share": share} for index, name, share in answer.shares],
    }


def _print(answered: Sequence[Segmented]) -> None:
    out = console()
    for answer in answered:
        if answer.shares:
            out.print(answer.image, markup=False)
        for _, name, share in answer.shares[:_SHOWN]:
            out.print(f"{share:7.1%}  {name}", markup=False)
