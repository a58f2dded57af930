"""Which parameters are trained: all but those whose names are frozen, and but a patch projection that was put in."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
from mindspore import Parameter, Tensor

from xcit_hub.checkpoints import weights as stored_weights
from xcit_hub.checkpoints.identify import UNTRAINED_NOTE
from xcit_hub.errors import InputError, WeightsError, closest
from xcit_hub.models import XCiT
from xcit_hub.training.keeping import stored_notes
from xcit_hub.training.recipe import Recipe

_PROJECTION = "patch_embed."


def settle(network: XCiT, recipe: Recipe, *, continued: bool = False) -> list[str]:
    """Put in the patch projection that ``surgery`` names and freeze what the recipe says, in place.

    Args:
        continued: a state of the run holds the projection: its file is not read again, which may be gone.

    Returns:
        What the user should know: how many parameters are trained, and what is not.

    Raises:
        InputError: a pattern matches no parameter, or nothing is left to train.
        WeightsError: the projection is of another shape.
    """
    patterns = list(recipe.freeze)
    notes = []
    if recipe.surgery:
        told = [] if continued else _replace_projection(network, recipe.surgery)
        patterns.append(_PROJECTION.rstrip("."))
        notes.append(f"the patch projection is that of {recipe.surgery}, and is not trained")
        notes += [f"{recipe.surgery}: {note}" for note in told]
    if not patterns:
        return notes
    parameters = network.trainable_params()
    for pattern in patterns:
        found = _matching(parameters, pattern)
        for parameter in found:
            parameter.requires_grad = False
        notes.append(f"frozen by {pattern!r}: {_count(found):,} parameters in {len(found)} tensors")
    left = network.trainable_params()
    if not left:
        raise InputError(
            "Everything is frozen: no parameter is left to train.", where="freeze", fix="Name fewer parts."
        )
    notes.append(f"{_count(left):,} of {_count(parameters):,} parameters are trained")
    return notes


def _matching(parameters: Sequence[Parameter], pattern: str) -> list[Parameter]:
    """Return the parameters whose whole name, or the name of a part that they stand in, matches a shell pattern."""
    found = [one for one in parameters if fnmatchcase(one.name, pattern) or fnmatchcase(one.name, f"{pattern}.*")]
    if not found:
        names = [one.name for one in parameters]
        parts = [part for name in names if (part := name.rpartition(".")[0])]
        raise InputError(
            f"No parameter is called {pattern!r}.",
            where="freeze",
            fix=closest(pattern, [*names, *parts])
            or f"Names are like {names[0]}, {names[-1]}; `*` stands for any part.",
        )
    return found


def _count(parameters: Sequence[Parameter]) -> int:
    return sum(parameter.size for parameter in parameters)


def _replace_projection(network: XCiT, path: str) -> list[str]:
    """Put in the patch projection of a file; returns what is to be known of that file's weights."""
    loaded = stored_weights.load(path, dialect=network.dialect.name)
    arrays = loaded.arrays()
    for parameter in network.get_parameters():
        if not parameter.name.startswith(_PROJECTION):
            continue
        array = arrays.get(parameter.name)
        if array is None or array.shape != tuple(parameter.shape):
            raise WeightsError(
                f"The patch projection is another: {parameter.name} is "
                f"{'missing' if array is None else tuple(array.shape)}, not {tuple(parameter.shape)}.",
                where=path,
                fix="Take it from a network of the same width and patch size.",
            )
        parameter.set_data(Tensor(np.array(array, np.float32)))
    return [note for note in stored_notes(loaded) if note != UNTRAINED_NOTE]  # its classifier is not taken
