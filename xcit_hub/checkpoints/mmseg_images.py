"""What the configuration in a file of mmsegmentation's says of images: their size and normalisation at evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcit_hub.checkpoints.strings import Levels
from xcit_hub.errors import WeightsError
from xcit_hub.segmenters import LONGER_SIDE, SHORTER_SIDE

if TYPE_CHECKING:
    from typing import TypeGuard

# Steps of an evaluation that are ours as well, or that change no pixel.
_STEPS = frozenset(
    {"LoadImageFromFile", "LoadAnnotations", "MultiScaleFlipAug", "TestTimeAug", "Resize", "RandomFlip", "Normalize"}
    | {"DefaultFormatBundle", "ImageToTensor", "Collect", "PackSegInputs"}
)
_LARGEST_SIDE = 1 << 16


@dataclass(frozen=True)
class Images:
    """How an image is prepared.

    Args:
        levels: mean and deviation of each channel, of 0…1; None where nothing says them.
        shorter: pixels of the shorter side; None where nothing says it.
        notes: what was not used, in sentences for the user.
    """

    levels: Levels | None = None
    shorter: int | None = None
    notes: tuple[str, ...] = ()


def read(tables: Mapping[str, Any]) -> Images:
    """Return what a configuration says of images.

    Args:
        tables: what :func:`xcit_hub.checkpoints.mmseg_config.read` found.

    Raises:
        WeightsError: the network takes images in another order of colours, or the normalisation is not one.
    """
    steps = list(_steps(tables.get("test_pipeline")))
    notes = [
        f"{name} of the file's configuration is not of plain values, and was not used."
        for name, value in tables.items()
        if value is None
    ]
    strange = sorted({step["type"] for step in steps if isinstance(step["type"], str)} - _STEPS)
    if strange:
        notes.append(f"Its configuration prepares an image by {', '.join(strange)[:200]} as well, which is not done.")
    shorter = None
    for scale, keeps in _scales(steps):
        if keeps and max(scale) * SHORTER_SIDE == min(scale) * LONGER_SIDE:
            shorter = min(scale)
        else:
            how = "" if keeps else ", and not to keep the aspect"
            notes.append(f"Its configuration says to resize to {scale!r:.40}{how}, which is not used.")
    return Images(_levels(tables, steps), shorter, tuple(notes))


def _steps(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every step of a pipeline, those within others as well."""
    if isinstance(value, tuple):
        for each in value:
            yield from _steps(each)
    elif isinstance(value, dict) and "type" in value:
        yield value
        yield from _steps(value.get("transforms"))


def _scales(steps: list[dict[str, Any]]) -> Iterator[tuple[tuple[int, int], bool]]:
    """Yield each (longer, shorter) that an image is resized to, and whether its aspect is kept."""
    resizing = [step for step in steps if step["type"] == "Resize"]
    keeps = all(step.get("keep_ratio", True) is True for step in resizing)
    told = {step[name] for step in steps for name in ("img_scale", "scale") if _is_scale(step.get(name))}
    return ((scale, keeps) for scale in sorted(told))


def _is_scale(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(type(side) is int and 0 < side < _LARGEST_SIDE for side in value)
    )


def _levels(tables: Mapping[str, Any], steps: list[dict[str, Any]]) -> Levels | None:
    """Return the normalisation of mmcv's last step, or of mmengine's preprocessor."""
    model = tables["model"]
    preprocessor = model.get("data_preprocessor", tables.get("data_preprocessor"))
    if isinstance(preprocessor, dict):
        return _normalization("data_preprocessor", preprocessor, preprocessor.get("bgr_to_rgb", False))
    normalizing = next((step for step in steps if step["type"] == "Normalize"), tables.get("img_norm_cfg"))
    if not isinstance(normalizing, dict):
        return None
    return _normalization("img_norm_cfg", normalizing, normalizing.get("to_rgb", True))


def _normalization(name: str, table: Mapping[str, Any], is_rgb: object) -> Levels:
    """Return mean and deviation of 0…1; the configuration's are of bytes."""
    mean, std = table.get("mean"), table.get("std")
    if is_rgb is True and _are_levels(mean) and _are_levels(std) and len(mean) == len(std) and min(std) > 0:
        return tuple(value / 255 for value in mean), tuple(value / 255 for value in std)
    order = "" if is_rgb is True else ", in the order blue, green, red"
    raise WeightsError(
        f"The file's configuration says {name} = mean {mean!r:.60}, std {std!r:.60}{order}, which no image is "
        "prepared by here.",
        fix="Run it in mmsegmentation.",
    )


def _are_levels(values: object) -> TypeGuard[tuple[float, ...]]:
    if not isinstance(values, tuple) or len(values) not in (1, 3):
        return False
    return all(type(value) in (int, float) and abs(value) < _LARGEST_SIDE for value in values)
