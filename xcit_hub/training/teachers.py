"""The teacher of a distillation: an XCiT of ours, any cell of MindSpore's, or any network of timm's through torch.

What a network of MindSpore's answers is computed in the step's own graph. What one of timm's answers is computed by
torch on the host, from the very batch the student gets, and travels with its targets. Either is shown the student's
images, normalised as the teacher wants them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import Tensor, nn

from xcit_hub.accelerated import accelerate
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints import weights as stored_weights
from xcit_hub.checkpoints.identify import HEAD_UNTRAINED
from xcit_hub.checkpoints.strings import PREPROCESSING
from xcit_hub.data.mixing import Images, Targets
from xcit_hub.errors import CheckpointError, InputError, WeightsError, first_line
from xcit_hub.models import XCiT, create_model, load_weights
from xcit_hub.run_record import SeenImages
from xcit_hub.training.keeping import stored_classes, stored_notes, telling_names
from xcit_hub.training.recipe import TIMM, Recipe

_LISTED = 3  # names in a message
_SAME_CLASSES = "Take a teacher of the student's classes, or set num_classes to the teacher's."
_WRAPPINGS = ("model", "state_dict", "module", "model_ema", "state_dict_ema")  # facebook's and timm's


@dataclass(frozen=True)
class Seen:
    """How a teacher wants its images; what is None is not known.

    Args:
        size: height and width in pixels.
        mean, std: of each channel, in 0…1.
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Teacher:
    """A network to learn from: one of the two ways in which it answers.

    Args:
        cell: maps the student's images (B, C, H, W) to logits (B, classes) in the graph.
        answer: the same on the host, with arrays.
        notes: what the user should know about it.
    """

    cell: nn.Cell | None
    answer: Callable[[Images], Targets] | None
    notes: list[str]


def is_address(recipe: Recipe) -> bool:
    """Whether the recipe's teacher is what ``xcit_hub.load`` takes, and is loaded by who calls the training."""
    own = recipe.teacher_ckpt or recipe.teacher.startswith(TIMM) or recipe.teacher_is_function
    return bool(recipe.teacher) and not own


def find(
    recipe: Recipe, classes: int, loaded: XCiT | None = None, *, names: Sequence[str] | None = None
) -> Teacher | None:
    """Return the recipe's teacher; None without one.

    Args:
        classes: of the student.
        loaded: the teacher itself, where the recipe gives its address.
        names: what the data's classes, the first of the student's, are called; None where that is not known.

    Raises:
        InputError: it cannot be made, answers other classes, each token or in another order, its classifier was never
            trained, or it wants images of another size or kind.
        CheckpointError, WeightsError: its file is not its weights.
    """
    if recipe.distillation_type == "none":
        return None
    if recipe.teacher.startswith(TIMM):
        return _of_timm(recipe, classes)
    if recipe.teacher_is_function:
        return _of_factory(recipe, classes)
    network, seen, own_names, told = _of_ours(recipe, loaded)
    if network.global_pool == "":
        raise InputError(
            "The teacher answers every token of an image, not the image (global_pool '').",
            where="teacher",
            fix="Take one whose classifier reads the class token or the mean patch token.",
        )
    if network.num_classes != classes:
        raise InputError(
            f"The teacher knows {network.num_classes} classes, the student {classes}.",
            where="teacher",
            fix=_SAME_CLASSES,
        )
    if network.in_chans != recipe.in_channels:
        raise InputError(
            f"The teacher sees {network.in_chans} channels, the student {recipe.in_channels}.",
            where="teacher",
            fix="Take a teacher of the student's in_channels.",
        )
    if names is not None and own_names is not None:
        _check_names(own_names, names)
    scale, shift, notes = _renormalised(recipe, seen)
    return Teacher(network if scale is None else _Renormalised(network, scale, shift), None, [*told, *notes])


def digest_of(recipe: Recipe, loaded: XCiT | None = None) -> str | None:
    """Return the SHA-256 of the file of the recipe's teacher, 64 hex digits; None without one, or where none is known.

    Args:
        loaded: the teacher itself, where the recipe gives its address.
    """
    if recipe.distillation_type == "none":
        return None
    if recipe.teacher_ckpt:
        with checkpoint.read(recipe.teacher_ckpt) as stored:
            return stored.sha256
    config = getattr(loaded, "config", None)
    return None if config is None else config.provenance.sha256


def _check_names(own: Sequence[str], names: Sequence[str]) -> None:
    """Hold what the teacher's outputs are called against the data's classes.

    Raises:
        InputError: one of them is another class.
    """
    at = next((index for index, pair in enumerate(zip(own, names, strict=False)) if len({*pair}) > 1), None)
    if at is None:
        return
    how = "in another order" if sorted(own[: len(names)]) == sorted(names) else "other classes"
    raise InputError(
        f"The teacher's outputs are {how} than the data's: output {at} is {own[at]!r:.60} to it, and "
        f"{names[at]!r:.60} in the data.",
        where="teacher",
        fix="Take a teacher of the data's classes in their order. If only the names differ, give it the data's: "
        "xcit-hub publish --labels FILE.",
    )


def _of_ours(recipe: Recipe, loaded: XCiT | None) -> tuple[XCiT, Seen, list[str] | None, list[str]]:
    """Return the teacher, how it wants its images, what its outputs are called, and what is to be known of its file."""
    if loaded is not None:
        if getattr(loaded, "head_untrained", False):
            raise _untrained("teacher")
        config = getattr(loaded, "config", None)
        seen = getattr(config, "preprocessing", None)
        names = telling_names(getattr(config, "labels", ()))
        return loaded, Seen() if seen is None else Seen(seen.size, seen.mean, seen.std), names, []
    if not recipe.teacher_ckpt:
        raise InputError(
            f"The teacher {recipe.teacher!r} was not loaded.",
            where="teacher",
            fix="Give its file as teacher_ckpt, or load it and pass it on: train(recipe, teacher=xcit_hub.load(…)).",
        )
    stored = stored_weights.load(recipe.teacher_ckpt, model=recipe.teacher)
    if stored.head_untrained:
        raise _untrained(recipe.teacher_ckpt)
    network = create_model(
        recipe.teacher,
        num_classes=stored.num_classes,
        in_chans=stored.in_chans,
        global_pool=stored.global_pool,
        dialect=stored.dialect,
        init=False,
    )
    load_weights(network, stored.arrays())
    names, told = stored_classes(stored.file), stored.file.metadata.get(PREPROCESSING)
    notes = [f"{recipe.teacher_ckpt}: {note}" for note in stored_notes(stored)]
    if told is None:
        return network, Seen(), names, notes
    try:
        seen = SeenImages.model_validate_json(told)
    except ValueError as error:
        raise CheckpointError(
            f"{PREPROCESSING} of the teacher cannot be read.",
            where=recipe.teacher_ckpt,
            fix="Take the file as its training wrote it.",
        ) from error
    return network, Seen((seen.input_size[1], seen.input_size[2]), seen.mean, seen.std), names, notes


def _untrained(where: str) -> InputError:
    return InputError(
        "The teacher's classifier was never trained: it is the random one that it began as.",
        where=where,
        fix="Train it first, or take another teacher.",
    )


def _of_factory(recipe: Recipe, classes: int) -> Teacher:
    """Call ``module:function``; what it returns may say ``input_size``, ``mean`` and ``std``, as timm's networks do."""
    module, _, name = recipe.teacher.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)()
    except Exception as error:  # of a stranger's code
        raise InputError(
            f"The teacher cannot be made: {type(error).__name__}, {first_line(error)}.",
            where=recipe.teacher,
            fix="Write module:function, a function without arguments that returns a cell, in a module on PYTHONPATH.",
        ) from error
    if not isinstance(made, nn.Cell):
        raise InputError(
            f"The function returns a {type(made).__name__}, not a cell.",
            where=recipe.teacher,
            fix="Let it return a mindspore.nn.Cell that maps images to logits.",
        )
    size = getattr(made, "input_size", None)
    seen = Seen(None if size is None else tuple(size)[-2:], _levels(made, "mean"), _levels(made, "std"))
    scale, shift, notes = _renormalised(recipe, seen)
    cell = made if scale is None else _Renormalised(made, scale, shift)
    cell.set_train(False)
    _check_answer(cell(Tensor(_blank(recipe))).asnumpy(), recipe, classes)
    return Teacher(cell, None, notes)


def _levels(made: nn.Cell, name: str) -> tuple[float, ...] | None:
    found = getattr(made, name, None)
    return None if found is None else tuple(float(level) for level in found)


def _of_timm(recipe: Recipe, classes: int) -> Teacher:
    """Build timm's network with its published weights, or with those of ``teacher_ckpt``, which is never unpickled."""
    try:
        import timm
        import torch
    except ImportError as error:
        raise InputError(
            "A teacher of timm's needs torch and timm.", where="teacher", fix="pip install 'xcit-hub[timm]'"
        ) from error
    name = recipe.teacher.removeprefix(TIMM)
    # Published weights keep their own classes, which are held against the student's below.
    wanted = {"num_classes": classes} if recipe.teacher_ckpt else {"pretrained": True}
    try:
        network = timm.create_model(name, in_chans=recipe.in_channels, **wanted)
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(
            f"timm cannot build this teacher: {first_line(error)}.",
            where=recipe.teacher,
            fix="See timm.list_models(); give its weights as teacher_ckpt where Hugging Face cannot be reached.",
        ) from error
    under = ""
    if recipe.teacher_ckpt:
        with checkpoint.read(recipe.teacher_ckpt) as stored:
            if HEAD_UNTRAINED in stored.metadata:
                raise _untrained(recipe.teacher_ckpt)
            held = {key: torch.tensor(np.array(tensor.numpy())) for key, tensor in stored.tensors.items()}
        state, under = _unwrapped(held, network.state_dict())
        _check_weights(network.state_dict(), state, name, recipe.teacher_ckpt)
        network.load_state_dict(state, strict=False)
    network.eval()
    told = timm.data.resolve_model_data_config(network)
    seen = Seen(tuple(told["input_size"][1:]), tuple(told["mean"]), tuple(told["std"]))
    scale, shift, notes = _renormalised(recipe, seen)

    def answer(images: Images) -> Targets:
        shown = images if scale is None else images * scale + shift
        with torch.inference_mode():
            logits: Targets = network(torch.from_numpy(np.ascontiguousarray(shown))).float().numpy()
        return logits

    _check_answer(answer(_blank(recipe)), recipe, classes)
    if under:
        notes.append(f"the teacher's weights are those under {under!r} in {recipe.teacher_ckpt}")
    return Teacher(None, answer, [*notes, f"the teacher is timm's {name}, computed by torch on the host"])


def _unwrapped(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Return the weights of a training's file, and the name that they stand under; itself where there is none."""
    needed = {key for key in wanted if not key.endswith("num_batches_tracked")}
    for name in _WRAPPINGS:
        inner = {key.removeprefix(f"{name}."): value for key, value in found.items() if key.startswith(f"{name}.")}
        if needed <= inner.keys():
            return inner, name
    return found, ""


def _check_weights(wanted: Mapping[str, Any], found: Mapping[str, Any], name: str, path: str) -> None:
    wrong = [
        key
        for key in sorted(wanted.keys() | found.keys())
        if not key.endswith("num_batches_tracked")  # which nothing reads, and many files leave out
        and (key not in wanted or key not in found or wanted[key].shape != found[key].shape)
    ]
    if wrong:
        raise WeightsError(
            f"These are not the weights of timm's {name}: {len(wrong)} tensors are missing, unexpected or of another "
            f"shape, {', '.join(wrong[:_LISTED])} among them.",
            where=path,
            fix="Give the file of this network, with as many classes as the student has.",
        )


def _blank(recipe: Recipe) -> Images:
    return np.zeros((1, recipe.in_channels, *recipe.input_size), np.float32)


def _check_answer(logits: Any, recipe: Recipe, classes: int) -> None:
    if logits.shape != (1, classes):
        raise InputError(
            f"The teacher answers {logits.shape} to one image, the student (1, {classes}).",
            where=recipe.teacher,
            fix=_SAME_CLASSES,
        )


def _renormalised(recipe: Recipe, seen: Seen) -> tuple[Images | None, Images, list[str]]:
    """Return factor and summand, (C, 1, 1), that make the teacher's images of the student's; None where they are.

    Raises:
        InputError: the teacher wants images of another size, or of other channels.
    """
    if seen.size not in (None, recipe.input_size) and recipe.teacher_image_size == "own":
        raise InputError(
            f"The teacher wants images of {_pixels(seen.size)}, the student sees {_pixels(recipe.input_size)}.",
            where="teacher",
            fix="Train at its size, or say teacher_image_size student: it is then shown the student's images.",
        )
    notes = []
    if seen.size not in (None, recipe.input_size):
        notes.append(f"the teacher, of {_pixels(seen.size)}, is shown images of {_pixels(recipe.input_size)}")
    nothing = np.zeros(0, np.float32)
    if seen.mean is None or seen.std is None:
        return None, nothing, [*notes, "nothing says how the teacher's images are normalised: it sees the student's"]
    ours = recipe.preprocessing
    channels = recipe.in_channels
    if any(len(levels) not in (1, channels) for levels in (seen.mean, seen.std)):
        raise InputError(
            f"The teacher's images have {len(seen.mean)} channels, not {channels}.",
            where="teacher",
            fix="Take a teacher of the student's in_channels.",
        )
    mean, std, own_mean, own_std = (
        np.broadcast_to(np.array(levels, np.float64), channels)[:, None, None]
        for levels in (seen.mean, seen.std, ours.mean, ours.std)
    )
    if np.allclose(mean, own_mean, atol=1e-6) and np.allclose(std, own_std, atol=1e-6):
        return None, nothing, notes
    scale, shift = own_std / std, (own_mean - mean) / std
    notes.append("the teacher's images are normalised by its own mean and deviation")
    return scale.astype(np.float32), shift.astype(np.float32), notes


def _pixels(size: tuple[int, int] | None) -> str:
    return "×".join(map(str, size or ()))


class _Renormalised(nn.Cell):
    """A network that is shown images (B, C, H, W) normalised in another way."""

    def __init__(self, network: nn.Cell, scale: Images, shift: Images) -> None:
        super().__init__(auto_prefix=False)
        self.network = accelerate(network) if isinstance(network, XCiT) else network
        self.scale = Tensor(scale)
        self.shift = Tensor(shift)

    def construct(self, images: Tensor) -> Tensor:
        return self.network(images * self.scale + self.shift)
