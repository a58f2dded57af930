"""What a run begins with: the network and its weights, its moving average, its teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from xcit_hub.accelerated import accelerate
from xcit_hub.checkpoints import weights as stored_weights
from xcit_hub.errors import InputError
from xcit_hub.models import XCiT, create_model, load_weights
from xcit_hub.training.keeping import output_names, stored_classes
from xcit_hub.training.precision import mix_precision
from xcit_hub.training.recipe import AmpLevel, Recipe

Weights = Mapping[str, NDArray[Any]]

_HEAD = ("head.weight", "head.bias")


@dataclass(frozen=True)
class Initial:
    """Weights to start from.

    Args:
        arrays: our names → arrays.
        dialect: whose network they belong to.
        name: where they come from, for the record.
        classes: what their outputs are called, if that is known.
    """

    arrays: Weights
    dialect: str
    name: str
    classes: Sequence[str] | None = None


@dataclass(frozen=True)
class Start:
    """The network to train.

    Args:
        started_from: where its weights come from; None for fresh ones.
        notes: what the user should know about them.
    """

    network: XCiT
    started_from: str | None
    notes: list[str]


def start(recipe: Recipe, classes: Sequence[str], initial: Initial | None = None) -> Start:
    """Build the network to train: fresh from the recipe's seed, then ``initial`` or ``ckpt_path`` laid into it.

    A classifier for other classes is left fresh; everything else has to fit.

    Args:
        classes: of the training data.

    Raises:
        InputError: ``pretrained`` without weights, or neither recipe nor weights say the dialect.
        WeightsError: the checkpoint is another network's.
    """
    if initial is None and recipe.ckpt_path:
        initial = _stored(recipe)
    if initial is None and recipe.pretrained:
        raise InputError("pretrained needs the published weights.", where="pretrained")
    plain = create_model(
        recipe.model,
        num_classes=recipe.num_classes or len(classes),
        in_chans=recipe.in_channels,
        drop_rate=recipe.drop_rate or 0.0,
        drop_path_rate=recipe.drop_path_rate or 0.0,
        dialect=dialect_of(recipe, None if initial is None else initial.dialect),
        seed=recipe.seed,
    )
    network = accelerate(plain)
    if initial is None:
        return Start(network, None, [])
    fresh = {name: parameter.asnumpy() for name, parameter in network.parameters_dict().items()}
    others = initial.classes is not None and list(initial.classes) != output_names(classes, network.num_classes)
    new_head = {
        name
        for name in _HEAD
        if others or name not in initial.arrays or tuple(initial.arrays[name].shape) != fresh[name].shape
    }
    load_weights(
        network,
        {
            **{name: array for name, array in initial.arrays.items() if name not in new_head},
            **{name: fresh[name] for name in new_head},
        },
    )
    notes = [f"the classifier is new: {initial.name} was trained on other classes"] if new_head else []
    return Start(network, initial.name, notes)


def dialect_of(recipe: Recipe, stored: str | None) -> str:
    """Return what the network computes: by the recipe, else by its weights.

    Raises:
        InputError: neither says it.
    """
    found = recipe.dialect or stored
    if found is None:
        raise InputError(
            "The recipe does not say which of the two networks called XCiT it trains.",
            where="dialect",
            fix="Give --dialect mindcv for MindCV's recipes and checkpoints, --dialect paper for the paper's network.",
        )
    return found


def _stored(recipe: Recipe) -> Initial:
    loaded = stored_weights.load(recipe.ckpt_path, dialect=recipe.dialect)
    return Initial(loaded.arrays(), loaded.dialect, recipe.ckpt_path, stored_classes(loaded.file))


def copy_of(network: XCiT) -> XCiT:
    """Return a network with the same weights, to hold their average."""
    copy = _empty(network.architecture.name, network.num_classes, network.dialect.name)
    load_weights(copy, {name: parameter.asnumpy() for name, parameter in network.parameters_dict().items()})
    return copy


def teacher(recipe: Recipe, classes: int) -> XCiT | None:
    """Build the distillation teacher from its checkpoint; None without one.

    Raises:
        InputError: it knows another number of classes.
    """
    if recipe.distillation_type == "none":
        return None
    loaded = stored_weights.load(recipe.teacher_ckpt, model=recipe.teacher)
    if loaded.num_classes != classes:
        raise InputError(
            f"The teacher knows {loaded.num_classes} classes, the student {classes}.", where="teacher_ckpt"
        )
    network = _empty(recipe.teacher, loaded.num_classes, loaded.dialect)
    load_weights(network, loaded.arrays())
    return network


def evaluation_network(name: str, classes: int, dialect: str, level: AmpLevel) -> XCiT:
    """Build a network without weights, in evaluation mode and at a precision level."""
    network = _empty(name, classes, dialect)
    network.set_train(False)
    mix_precision(network, level)
    return network


def _empty(name: str, classes: int, dialect: str) -> XCiT:
    return accelerate(create_model(name, num_classes=classes, dialect=dialect, init=False), in_place=True)
