"""A training or an evaluation, whole: what a recipe names on a hub is loaded here, above both hub and training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcit_hub.errors import InputError
from xcit_hub.files import write_text
from xcit_hub.training.recipe_file import load_recipe

if TYPE_CHECKING:
    from xcit_hub.data.scenes import Annotated
    from xcit_hub.hub.dense import XCiTSegmenter
    from xcit_hub.models import XCiT
    from xcit_hub.run_record import RunRecord
    from xcit_hub.segmentation import Sliding
    from xcit_hub.training.miou import Segmentation
    from xcit_hub.training.recipe import Recipe
    from xcit_hub.training.scoring import Report

Say = Callable[[tuple[str, ...]], None]


def _silent(_: tuple[str, ...]) -> None:
    pass


def train(
    config: Path | None,
    flags: Mapping[str, Any],
    *,
    resume: bool = False,
    as_json: bool = False,
    say: Say = _silent,
) -> tuple[Recipe, RunRecord]:
    """Train a network as a recipe says (:func:`xcit_hub.training.engine.train`).

    Args:
        config: the recipe's file, or the name of one that is shipped.
        flags: keys laid over it.
        resume: go on with the run in its ``ckpt_save_dir``.
        as_json: print JSON lines instead of a progress bar.
        say: told what has to be known of the weights it begins with.

    Returns:
        The recipe, and what was measured.

    Raises:
        InputError: the recipe, or what it names, cannot be used.
    """
    recipe = load_recipe(config, flags)  # first: what is wrong with it is said before MindSpore is imported
    from xcit_hub.training.engine import train as run
    from xcit_hub.training.keeping import telling_names
    from xcit_hub.training.start import Initial
    from xcit_hub.training.teachers import is_address

    initial, teacher = None, None
    if recipe.pretrained and not recipe.ckpt_path and not (resume or recipe.resume_opt):
        from xcit_hub.hub.load import load

        address = recipe.pretrained if isinstance(recipe.pretrained, str) else recipe.model
        published = load(address, dialect=recipe.dialect)
        say(published.config.provenance.notes)
        arrays = {name: parameter.asnumpy() for name, parameter in published.parameters_dict().items()}
        initial = Initial(
            arrays,
            published.dialect.name,
            address,
            classes=telling_names(published.config.labels),
            global_pool=published.global_pool,
        )
    if is_address(recipe):
        from xcit_hub.hub.load import load

        teacher = load(recipe.teacher)
    record = run(
        recipe,
        recipe_name=_name(config),
        flags=flags,
        resume=resume,
        as_json=as_json,
        initial=initial,
        teacher=teacher,
    )
    return recipe, record


def evaluate(
    model: str | None,
    config: Path | None,
    flags: Mapping[str, Any],
    *,
    ignore_fields: Sequence[str] = (),
    against_timm: bool = False,
    output: Path | None = None,
    as_json: bool = False,
    say: Say = _silent,
) -> Report | None:
    """Evaluate a network on a recipe's data (:func:`xcit_hub.training.scoring.score`).

    Args:
        model: what :func:`xcit_hub.load` takes, evaluated as its own description says; None is the checkpoint that
            the recipe names, evaluated as the recipe says.
        config, flags: as for :func:`train`.
        ignore_fields: fields of the model's description to read as if they were not there.
        against_timm, output, as_json: as for ``score``.
        say: told what has to be known of the weights.

    Returns:
        What was found; None on every worker but the first.

    Raises:
        InputError: the recipe, the network or the data cannot be used.
    """
    from xcit_hub.training.scoring import score, settings_of, stored_network

    network: XCiT
    digest: str | None
    classes: Sequence[str] | None
    if model is None:
        recipe = load_recipe(config, flags)
        if ignore_fields:
            raise InputError(
                "A checkpoint of a recipe has no description.",
                where="--ignore-field",
                fix="Leave it out, or name a model: xcit-hub eval ID.",
            )
        stored = stored_network(recipe)
        network, digest, classes = stored.network, stored.digest, stored.classes
    else:
        from xcit_hub.hub.load import load

        loaded = load(model, dialect=flags.get("dialect"), ignore_fields=ignore_fields)
        described = loaded.config
        say(described.provenance.notes)
        network, digest, classes = loaded, described.provenance.sha256, described.labels
        recipe = load_recipe(config, {**settings_of(loaded, described.preprocessing), **flags})
    return score(
        recipe,
        network,
        recipe_name=_name(config),
        flags=flags,
        digest=digest,
        classes=classes or None,
        certain=model is None,
        against_timm=against_timm,
        output=output,
        as_json=as_json,
    )


def evaluate_segmenter(
    network: XCiTSegmenter,
    pairs: Annotated,
    *,
    window: Sliding = None,
    max_corrupt: int = 0,
    output: Path | None = None,
    step: Callable[[int], None] = lambda _: None,
) -> Segmentation:
    """Evaluate a segmenter on images and their annotations (:func:`xcit_hub.training.miou.evaluate`).

    Args:
        window: one that slides; "whole" for none; None is the segmenter's own.
        max_corrupt: how many images may be unreadable.
        output: write ``miou.json`` and ``per_class.csv`` there.
        step: told how many images are done.
    """
    from xcit_hub.training.miou import evaluate as measure
    from xcit_hub.training.miou import write_per_class

    found = measure(
        network,
        pairs,
        network.config.preprocessing,
        window=network.window if window is None else None if window == "whole" else window,
        max_corrupt=max_corrupt,
        step=step,
    )
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_text(output / "miou.json", json.dumps(found.as_dict(), indent=2) + "\n")
        write_per_class(output / "per_class.csv", found, network.config.labels)
    return found


def _name(config: Path | None) -> str | None:
    return None if config is None else config.as_posix()
