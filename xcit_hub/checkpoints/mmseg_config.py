"""What the configuration in a file of mmsegmentation's says of its segmenter. It is parsed as Python, and never run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from xcit_hub.errors import WeightsError
from xcit_hub.segmenters import POOL_SCALES, STRIDES, HeadKind, Window

TEXT = "meta.config"
"""Where mmcv's checkpoints have it."""

if TYPE_CHECKING:
    from typing import TypeGuard

_LONGEST = 1 << 20
_DEEPEST = 50
_UNKNOWN = object()

# (part of the model, field, what it has to be); what is not said has mmsegmentation's default, which is the same.
_SAME: dict[HeadKind, tuple[tuple[str, str, tuple[Any, ...]], ...]] = {
    "sem_fpn": (
        ("decode_head", "type", ("FPNHead",)),
        ("decode_head", "align_corners", (False,)),
        ("decode_head", "in_index", ((0, 1, 2, 3),)),
        ("decode_head", "feature_strides", (STRIDES,)),
        ("neck", "type", ("FPN",)),
        ("neck", "num_outs", (4,)),
        ("backbone", "type", ("XCiT",)),
    ),
    "upernet": (
        ("decode_head", "type", ("UPerHead",)),
        ("decode_head", "align_corners", (False,)),
        ("decode_head", "in_index", ((0, 1, 2, 3),)),
        ("decode_head", "pool_scales", (POOL_SCALES,)),
        ("backbone", "type", ("XCiT",)),
    ),
}


def read(text: str) -> dict[str, Any]:
    """Return the model that a configuration's text describes, as nested tables of plain values; empty where none is.

    What is not a plain value is left out.
    """
    if len(text) > _LONGEST:
        return {}
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    for statement in tree.body:
        names = [each.id for each in getattr(statement, "targets", ()) if isinstance(each, ast.Name)]
        if isinstance(statement, ast.Assign) and names == ["model"]:
            value = _value(statement.value, 0)
            return value if isinstance(value, dict) else {}
    return {}


def check(model: Mapping[str, Any], head: HeadKind) -> None:
    """Make sure that a configuration describes the head that is built.

    Raises:
        WeightsError: it says something else.
    """
    for part, field, known in _SAME[head]:
        table = model.get(part)
        found = table.get(field, known[0]) if isinstance(table, dict) else known[0]
        if found not in known:
            raise WeightsError(
                f"The file's configuration says {part}.{field} = {found!r:.60}, which is not the network that is built "
                f"({known[0]!r}).",
                fix="Only facebook's forms of Semantic FPN and UPerNet are built; run this one in mmsegmentation.",
            )


def indices(model: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the blocks whose maps the backbone returns; None where that is not said."""
    backbone = model.get("backbone")
    found = backbone.get("out_indices") if isinstance(backbone, dict) else None
    return found if isinstance(found, tuple) and all(type(each) is int for each in found) else None


def window(model: Mapping[str, Any]) -> Window | None:
    """Return the window that slides at evaluation; None where the image goes through whole.

    Raises:
        WeightsError: it is to slide, and is not one that can.
    """
    test = model.get("test_cfg")
    mode = test.get("mode", "whole") if isinstance(test, dict) else "whole"
    if mode == "whole" or not isinstance(test, dict):
        return None
    size, stride = test.get("crop_size"), test.get("stride")
    if mode != "slide" or not (_is_pair(size) and _is_pair(stride)):
        raise WeightsError(
            f"The file's configuration says test_cfg.mode = {mode!r:.40} with crop_size {size!r:.40} and stride "
            f"{stride!r:.40}.",
            fix="Run it in mmsegmentation.",
        )
    return Window((size[0], size[1]), (stride[0], stride[1]))


def classes(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the classes' names that mmcv's checkpoints carry; empty where there are none."""
    return tuple(_numbered(metadata, "meta.CLASSES."))


def _numbered(metadata: Mapping[str, str], prefix: str) -> Iterator[str]:
    index = 0
    while (name := metadata.get(f"{prefix}{index}")) is not None:
        yield name.strip()
        index += 1


def _is_pair(value: object) -> TypeGuard[tuple[int, int]]:
    return isinstance(value, tuple) and len(value) == 2 and all(type(each) is int for each in value)


def _value(node: ast.expr, depth: int) -> Any:
    """Return a constant, a list (as a tuple), or a table written as ``dict(…)`` or ``{…}``."""
    if depth > _DEEPEST:
        return _UNKNOWN
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return tuple(_value(each, depth + 1) for each in node.elts)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        pairs = [(keyword.arg, _value(keyword.value, depth + 1)) for keyword in node.keywords]
        return {name: value for name, value in pairs if value is not _UNKNOWN}
    if isinstance(node, ast.Dict):
        entries = zip(node.keys, node.values, strict=True)
        pairs = [(_value(key, depth + 1), _value(value, depth + 1)) for key, value in entries if key is not None]
        return {name: value for name, value in pairs if isinstance(name, str) and value is not _UNKNOWN}
    return _UNKNOWN
