"""A training or an evaluation, whole: what a recipe names on a hub is loaded here, above both hub and training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcit_hub.errors import InputError
from xcit_hub.files import is_there, write_text
from xcit_hub.training.recipe_file import alike, idle_flags, load_recipe, own_name, said_by

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


# What a recipe says of weights to look for; an id names its own.
_OF_WEIGHTS = ("ckpt_path", "pretrained", "ema")
_OF_THE_ID = ("model", "num_classes", "in_channels", *_OF_WEIGHTS)


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
    from xcit_hub.training.start import NORMALISED, Initial
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
            images={name: getattr(published.config.preprocessing, name) for name in NORMALISED},
        )
    if is_address(recipe):
        from xcit_hub.hub.load import load

        teacher = load(recipe.teacher)
        say(tuple(f"the teacher {recipe.teacher}: {note}" for note in teacher.config.provenance.notes))
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
        InputError: the recipe, the network or the data cannot be used, or a flag says what the model's id says.
    """
    if model is not None:
        refuse_of_the_id(flags, fix="Leave it out, or leave out the ID.")
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
        say(stored.notes)
        checkpoint = Path(recipe.ckpt_path).name
    else:
        from xcit_hub.hub.locate import locate
        from xcit_hub.hub.network import XCiT as Published
        from xcit_hub.hub.read import filling

        # Not by `load`: the record names the file that was read.
        located = locate(model, ignore_fields=ignore_fields)
        loaded = Published.of_located(located, lambda: filling(located, flags.get("dialect")))
        described = loaded.config
        say(described.provenance.notes)
        network, digest, classes = loaded, described.provenance.sha256, described.labels
        checkpoint = Path(located.weights).name
        settings = settings_of(loaded, described.preprocessing)
        recipe = load_recipe(config, flags, described=settings)
        if recipe.in_channels != loaded.in_chans:
            raise InputError(
                f"The network sees {loaded.in_chans} channels, the recipe says {recipe.in_channels}.",
                where="in_channels",
                fix="Leave it out, or leave out the ID.",
            )
        if config is not None:
            say(_replaced(config, settings, flags))
    say(tuple(f"{flag} has no effect: {reason}" for flag, reason in idle_flags(recipe, flags).items()))
    return score(
        recipe,
        network,
        recipe_name=_name(config),
        flags=flags,
        checkpoint=checkpoint,
        digest=digest,
        classes=classes or None,
        certain=model is None,
        against_timm=against_timm,
        output=output,
        as_json=as_json,
    )


def refuse_of_the_id(flags: Mapping[str, Any], *, fix: str) -> None:
    """Make sure that no flag says which network is meant, beside an id that says it.

    Raises:
        InputError: one does.
    """
    said = [f"--{key}" for key in flags if own_name(key) in _OF_THE_ID]
    if said:
        raise InputError(
            f"{', '.join(said)}: which network is evaluated, the model's id says.", where="the command line", fix=fix
        )


def _replaced(config: Path, settings: Mapping[str, Any], flags: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a sentence on what a recipe's file says of the network and is otherwise, if it says any such thing."""
    said = said_by(config, {"library": flags["library"]} if flags.get("library") else None)
    given = {own_name(key) for key in flags}
    others = [key for key, used in settings.items() if key in said and not alike(said[key], used)]
    idle = [key for key in (*others, *(key for key in _OF_WEIGHTS if said.get(key))) if key not in given]
    if not idle:
        return ()
    verb = "has" if len(idle) == 1 else "have"
    return (f"{', '.join(idle)} of {config} {verb} no effect: the network is what the model's description says",)


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

    Raises:
        InputError: too many images are unreadable, or ``output`` is a training's folder.
    """
    from xcit_hub.segmentation import sliding
    from xcit_hub.segmenter_training import FILE
    from xcit_hub.training.miou import evaluate as measure
    from xcit_hub.training.miou import write_per_class

    if output is not None and is_there(output / FILE):
        raise InputError(
            "A training is kept here, whose miou.json would be replaced.", where=output, fix="Name another folder."
        )
    found = measure(
        network,
        pairs,
        network.config.preprocessing,
        window=sliding(network, window),
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
