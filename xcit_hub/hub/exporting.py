"""A model's description → which graph is wanted of it, and what the exported file says of itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from xcit_hub._version import __version__
from xcit_hub.checkpoints.strings import EXPORT, PREPROCESSING
from xcit_hub.errors import InputError
from xcit_hub.exporters.form import ATTENTION, DEFAULT_OPSET, OPSETS, Form
from xcit_hub.hub.config import LARGEST_RESIZED, LARGEST_SIDE, ModelConfig
from xcit_hub.hub.metadata import preprocessing_to_metadata
from xcit_hub.variants import DIALECTS

Dtype = Literal["float32", "float16", "bfloat16"]

_LARGEST_BATCH = 1 << 16
_MOST_PIXELS = 1 << 28  # of a batch whose sizes are all fixed: whoever runs the file holds it in memory


def form_of(
    config: ModelConfig,
    features: Sequence[int],
    headless: bool,
    dtype: Dtype,
    with_preprocessing: bool,
    image_size: int | tuple[int, int] | None,
    batch: int | None,
    opset: int,
    fuse: bool | None,
    attention: bool = False,
) -> Form:
    """Return the graph that is wanted of a model; the options are those of :func:`xcit_hub.export`.

    Raises:
        InputError: an option is impossible for this model.
    """
    if DIALECTS[config.dialect].statistics == "batch":
        raise InputError(
            f"The {config.dialect} dialect divides by the statistics of each batch, which no exported file does.",
            where="the model",
            fix="Run it with xcit-hub's own network.",
        )
    if not isinstance(features, Sequence) or not all(_is_whole(index) for index in features):
        raise InputError(
            f"features is {features!r:.60}, and not a list of blocks.",
            where="features=… (--features)",
            fix="Give numbers of blocks: (3, 5, 7, 11).",
        )
    if features and headless:
        raise InputError(
            "--features and --headless exclude each other.",
            where="features=…, headless=… (--features, --headless)",
            fix="Give one of them.",
        )
    if attention and features:
        raise InputError(
            "--features and --attention exclude each other: the class token attends after the last block.",
            where="features=…, attention=… (--features, --attention)",
            fix="Give one of them.",
        )
    if not _is_whole(opset) or opset not in OPSETS:
        raise InputError(
            f"Opset {opset} is not one that is written.",
            where="opset=… (--opset)",
            fix=f"Use {OPSETS.start} to {OPSETS.stop - 1}.",
        )
    if dtype not in ("float32", "float16"):
        sentence = (
            "bfloat16 is not exported: no runtime here runs it."
            if dtype == "bfloat16"
            else f"There is no dtype {dtype!r}."
        )
        raise InputError(sentence, where="dtype=… (--dtype)", fix="Use float32 or float16.")
    size = _sides(image_size)
    fixed = (("--batch", batch, _LARGEST_BATCH), *(("--image-size", side, LARGEST_SIDE) for side in size or ()))
    for option, number, largest in fixed:
        if number is not None and not (_is_whole(number) and 1 <= number <= largest):
            raise InputError(
                f"{option} {number!r:.40} cannot be.",
                where=f"{option[2:].replace('-', '_')}=… ({option})",
                fix=f"Give a whole number from 1 to {largest}.",
            )
    if size:
        _check_fixed(size, batch or 1, config.preprocessing.crop_pct)
    depth = config.shape.depth
    blocks = tuple(sorted({index + depth if index < 0 else index for index in features}))
    if any(not 0 <= index < depth for index in blocks):
        raise InputError(
            f"There are blocks 0 to {depth - 1}, and {', '.join(map(str, features))} were asked for.",
            where="features=… (--features)",
            fix=f"Use {-depth} to {depth - 1}.",
        )
    prepared = config.preprocessing if with_preprocessing else None
    if prepared and len(prepared.mean) not in (1, config.in_chans):
        raise InputError(
            f"The preprocessing has {len(prepared.mean)} means for {config.in_chans} channels.",
            where="with_preprocessing=… (--with-preprocessing)",
            fix="Leave out --with-preprocessing.",
        )
    return Form(
        num_classes=0 if headless else config.num_classes,
        in_chans=config.in_chans,
        global_pool=config.global_pool,
        features=blocks,
        attention=attention,
        opset=opset,
        dtype=dtype,
        fuse=fuse is not False,
        batch=batch,
        image_size=size,
        mean=tuple(prepared.mean) if prepared else None,
        std=tuple(prepared.std) if prepared else None,
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sides(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    sides = tuple(image_size) if isinstance(image_size, tuple | list) else (image_size, image_size)
    if len(sides) != 2:
        raise InputError(
            f"image_size is {image_size!r:.60}, and not one side or two.",
            where="image_size=… (--image-size)",
            fix="Give the pixels of a side, or of height and width.",
        )
    return sides


def _check_fixed(size: tuple[int, int], batch: int, crop_pct: float) -> None:
    """Refuse what a file's readers would: a description of larger images, or a batch that no memory holds."""
    if max(size) / crop_pct > LARGEST_RESIZED:
        raise InputError(
            f"An image of {size[0]}×{size[1]} pixels would be cut out of one of more than {LARGEST_RESIZED:,} "
            f"(the crop is {crop_pct:g}).",
            where="image_size=… (--image-size)",
            fix=f"Give sides up to {int(LARGEST_RESIZED * crop_pct)}.",
        )
    if (pixels := batch * size[0] * size[1]) > _MOST_PIXELS:
        raise InputError(
            f"A batch of {batch:,} images of {size[0]}×{size[1]} has {pixels:,} pixels, more than {_MOST_PIXELS:,}.",
            where="batch=…, image_size=… (--batch, --image-size)",
            fix="Give a smaller batch, or leave it to the file's caller: without --batch.",
        )


def for_mindir(form: Form, *, int8: bool = False, fuse: bool = False) -> Form:
    """Return the form as MINDIR can have it.

    Args:
        int8, fuse: whether it was asked for.

    Raises:
        InputError: it cannot.
    """
    if form.image_size is None:
        raise InputError(
            "MINDIR needs a fixed image size: MindSpore settles the grid of tokens when it compiles.",
            where="image_size=… (--image-size)",
            fix="Give --image-size, or export ONNX, which takes any size.",
        )
    impossible = {
        "--int8": int8,
        f"--opset {form.opset}": form.opset != DEFAULT_OPSET,
        "--with-preprocessing": form.mean is not None,
        "--attention": form.attention,
        "--dtype float16": form.dtype != "float32",
        "--fuse": fuse,
    }
    for option, asked in impossible.items():
        if asked:
            raise InputError(f"{option} is written to ONNX alone.", where="the target", fix="Name the target .onnx.")
    return replace(form, fuse=False)


def metadata_of(
    config: ModelConfig,
    source: object,
    *,
    image_size: tuple[int, int] | None = None,
    int8: bool = False,
    attention: bool = False,
    has_classes: bool = True,
) -> dict[str, str]:
    """Return what an exported file says of itself.

    Args:
        source: where the weights are, as their users find them.
        image_size: the only one that it takes; None where it takes others, too, and the description's is wanted.
        attention: whether it gives :data:`xcit_hub.exporters.form.ATTENTION`.
        has_classes: whether it gives logits.
    """
    height, width = image_size or config.preprocessing.size
    shown = replace(config.preprocessing, image_size=height, image_width=width)
    return {
        "xcit_hub.format": EXPORT,
        "xcit_hub.version": __version__,
        "xcit_hub.architecture": config.architecture,
        "xcit_hub.dialect": config.dialect,
        PREPROCESSING: preprocessing_to_metadata(shown, config.in_chans),
        # In ASCII: any string of JSON passes. What answers with features has no classes to name.
        "xcit_hub.labels": json.dumps(list(config.labels) if has_classes else []),
        "xcit_hub.source": str(source),
        "xcit_hub.source_sha256": config.provenance.sha256 or "",
        **({"xcit_hub.quantised": "int8"} if int8 else {}),
        **({"xcit_hub.attention": json.dumps(ATTENTION)} if attention else {}),
    }
