"""What a run begins with: the network and its weights, and its moving average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from xcit_hub.accelerated import accelerate
from xcit_hub.checkpoints import weights as stored_weights
from xcit_hub.checkpoints.dtypes import adapt_input_conv
from xcit_hub.checkpoints.tensor import StoredTensor
from xcit_hub.errors import InputError
from xcit_hub.models import XCiT, create_model, load_weights
from xcit_hub.training.freezing import settle
from xcit_hub.training.keeping import other_images, output_names, stored_classes, stored_images, stored_notes
from xcit_hub.training.precision import mix_precision
from xcit_hub.training.recipe import AmpDtype, AmpLevel, Recipe
from xcit_hub.variants import GlobalPool

Weights = Mapping[str, NDArray[Any]]

_HEAD = ("head.weight", "head.bias")
_FIRST = "patch_embed.proj.0.0.weight"
NORMALISED = ("mean", "std")
"""What of images a training goes on with, whatever their size and crop."""


@dataclass(frozen=True)
class Initial:
    """Weights to start from.

    Args:
        arrays: our names → arrays.
        dialect: whose network they belong to.
        name: where they come from, for the record.
        images: mean and deviation of the images they were shown, where that is known.
        classes: what their outputs are called, if that is known.
        global_pool: what their classifier reads.
        notes: what else is to be known of them, where their file says it.
    """

    arrays: Weights
    dialect: str
    name: str
    classes: Sequence[str] | None = None
    global_pool: GlobalPool = "token"
    images: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


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


def start(
    recipe: Recipe, classes: Sequence[str], initial: Initial | None = None, *, continued: str | None = None
) -> Start:
    """Build the network to train: fresh from the recipe's seed, then ``initial`` or ``ckpt_path`` laid into it.

    A classifier for other classes is left fresh, a first convolution of other channels is adapted as timm does;
    everything else has to fit. Then what the recipe freezes is frozen.

    Args:
        classes: of the training data.
        continued: dialect of the run that is continued, whose state holds the weights: no others are looked for.

    Raises:
        InputError: ``pretrained`` without weights, weights whose classifier does not read the class token, neither
            recipe nor weights say the dialect, or ``freeze`` fits nothing.
        WeightsError: the checkpoint is another network's.
    """
    if continued is None and initial is None and recipe.ckpt_path:
        initial = _stored(recipe)
    if continued is None and initial is None and recipe.pretrained:
        raise InputError(
            "pretrained needs the published weights.",
            where="pretrained",
            fix="Load them and pass them on: train(recipe, initial=Initial(…)); or give their file as ckpt_path.",
        )
    if initial is not None and initial.global_pool != "token":
        read = "the mean patch token" if initial.global_pool == "avg" else "every token"
        raise InputError(
            f"The classifier of {initial.name} reads {read} (global_pool {initial.global_pool!r}), and that of a "
            "recipe's network the class token: it would be another network.",
            where="ckpt_path" if recipe.ckpt_path else "pretrained",
            fix="Begin with these weights as that other network, if that is meant: "
            "xcit_hub.load(…, global_pool='token').save_pretrained(FOLDER), then --pretrained FOLDER.",
        )
    plain = create_model(
        recipe.model,
        num_classes=recipe.num_classes or len(classes),
        in_chans=recipe.in_channels,
        drop_rate=recipe.drop_rate or 0.0,
        drop_path_rate=recipe.drop_path_rate or 0.0,
        dialect=dialect_of(recipe, continued if initial is None else initial.dialect),
        seed=recipe.seed,
    )
    network = accelerate(plain)
    notes = [] if initial is None else _lay_in(network, initial, classes)
    if initial is not None and (other := other_images(initial.images, recipe)):
        notes.append(f"the weights of {initial.name} were shown other images: {other}")
    notes += settle(network, recipe, continued=continued is not None)
    return Start(network, None if initial is None else initial.name, notes)


def _lay_in(network: XCiT, initial: Initial, classes: Sequence[str]) -> list[str]:
    """Give a fresh network other weights; returns what of them was not taken as it is."""
    arrays, notes = dict(initial.arrays), [f"{initial.name}: {note}" for note in initial.notes]
    had = arrays[_FIRST].shape[1] if _FIRST in arrays else network.in_chans
    if had != network.in_chans:
        arrays[_FIRST] = adapt_input_conv(StoredTensor.of(arrays[_FIRST]), network.in_chans).numpy()
        how = "summed over" if network.in_chans == 1 else f"made {network.in_chans} by repeating"
        notes.append(f"the input channels of the first convolution are {how} the {had} of {initial.name}, as timm does")
    fresh = {name: parameter.asnumpy() for name, parameter in network.parameters_dict().items()}
    others = initial.classes is not None and list(initial.classes) != output_names(classes, network.num_classes)
    new_head = {
        name for name in _HEAD if others or name not in arrays or tuple(arrays[name].shape) != fresh[name].shape
    }
    kept = {name: array for name, array in arrays.items() if name not in new_head}
    load_weights(network, {**kept, **{name: fresh[name] for name in new_head}})
    if new_head:
        notes.append(f"the classifier is new: {initial.name} was trained on other classes")
    elif initial.classes is None:
        notes.append(f"the classifier of {initial.name} is kept: nothing says by name that its classes are the data's")
    return notes


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
    images = {name: value for name, value in stored_images(loaded.file).items() if name in NORMALISED}
    names = stored_classes(loaded.file)
    notes = stored_notes(loaded)
    return Initial(loaded.arrays(), loaded.dialect, recipe.ckpt_path, names, loaded.global_pool, images, notes)


def copy_of(network: XCiT) -> XCiT:
    """Return a network with the same weights, to hold their average."""
    copy = _empty(network.architecture.name, network.num_classes, network.dialect.name, network.in_chans)
    load_weights(copy, {name: parameter.asnumpy() for name, parameter in network.parameters_dict().items()})
    return copy


def evaluation_network(
    name: str,
    classes: int,
    dialect: str,
    level: AmpLevel,
    dtype: AmpDtype = "float16",
    *,
    channels: int = 3,
    global_pool: GlobalPool = "token",
) -> XCiT:
    """Build a network without weights, in evaluation mode and at a precision level."""
    network = _empty(name, classes, dialect, channels, global_pool)
    network.set_train(False)
    mix_precision(network, level, dtype)
    return network


def _empty(name: str, classes: int, dialect: str, channels: int, global_pool: GlobalPool = "token") -> XCiT:
    plain = create_model(
        name, num_classes=classes, dialect=dialect, in_chans=channels, global_pool=global_pool, init=False
    )
    return accelerate(plain, in_place=True)
