"""What the configuration in a file of mmsegmentation's says of its segmenter. It is Python's text, and never run."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from xcit_hub.errors import WeightsError
from xcit_hub.segmenters import POOL_SCALES, STRIDES, HeadKind, Window

TEXTS = ("meta.config", "meta.cfg")
"""Where mmcv's checkpoints have it, and mmengine's."""

if TYPE_CHECKING:
    from typing import TypeGuard

_Read = TypeVar("_Read")

_LONGEST = 1 << 18
_LONGEST_NUMBER = 30
_DEEPEST = 50
_BLANK = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
_WORDS = {"True": True, "False": False, "None": None}

# (field of the model, what it may be); what is not said has mmsegmentation's default, the first of these.
_SAME_EVERYWHERE: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("type", ("EncoderDecoder",)),
    ("backbone.type", ("XCiT",)),
    ("backbone.use_pos", (True,)),
    ("decode_head.align_corners", (False,)),
    ("decode_head.in_index", ((0, 1, 2, 3),)),
    ("decode_head.act_cfg.type", ("ReLU",)),
    ("decode_head.conv_cfg", (None,)),
    ("decode_head.norm_cfg.eps", (1e-5,)),
    ("decode_head.threshold", (None,)),
    ("data_preprocessor.test_cfg", (None,)),
)
_SAME: dict[HeadKind, tuple[tuple[str, tuple[Any, ...]], ...]] = {
    "sem_fpn": (
        *_SAME_EVERYWHERE,
        ("decode_head.type", ("FPNHead",)),
        ("decode_head.feature_strides", (STRIDES,)),
        ("neck.type", ("FPN",)),
        ("neck.num_outs", (4,)),
        ("neck.start_level", (0,)),
        ("neck.end_level", (-1,)),
        ("neck.act_cfg", (None,)),
        ("neck.conv_cfg", (None,)),
        ("neck.upsample_cfg.mode", ("nearest",)),
        ("neck.upsample_cfg.scale_factor", (None, 2)),
    ),
    "upernet": (
        *_SAME_EVERYWHERE,
        ("decode_head.type", ("UPerHead",)),
        ("decode_head.pool_scales", (POOL_SCALES,)),
        ("neck", (None,)),
    ),
}
# Assigned at the top of the text: the model, and what an image goes through before it.
_TABLES = ("model", "img_norm_cfg", "data_preprocessor", "test_pipeline")


def read(text: str) -> dict[str, Any] | None:
    """Return the model and what an image goes through, as nested tables of plain values; None where no model is.

    Only what mmcv and mmengine write is read: ``model = dict(…)`` of texts, numbers, truth values, lists, tuples and
    tables. What is there beside the model and cannot be read is None.
    """
    if len(text) > _LONGEST:
        return None
    try:
        tokens = [each for each in tokenize.generate_tokens(io.StringIO(text).readline) if each.type not in _BLANK]
    except (tokenize.TokenError, SyntaxError, ValueError, IndexError):
        return None
    starts = {name: [place for place in range(len(tokens) - 1) if _begins(name, tokens, place)] for name in _TABLES}
    found = {name: _assigned(tokens, places) for name, places in starts.items() if places}
    return found if isinstance(found.get("model"), dict) else None


def check(model: Mapping[str, Any], head: HeadKind) -> None:
    """Make sure that a configuration describes the head that is built.

    Raises:
        WeightsError: it says something else.
    """
    for field, known in _SAME[head]:
        found = _field(model, field, known[0])
        if found not in known:
            raise WeightsError(
                f"The file's configuration says {field} = {found!r:.60}, which is not the network that is built "
                f"({known[0]!r}).",
                fix="Only facebook's forms of Semantic FPN and UPerNet are built; run this one in mmsegmentation.",
            )


def _field(table: Mapping[str, Any], path: str, otherwise: Any) -> Any:
    """Return a field of tables in tables; ``otherwise`` where it is not said."""
    name, _, rest = path.partition(".")
    if name not in table:
        return otherwise
    found = table[name]
    return _field(found, rest, otherwise) if rest and isinstance(found, dict) else found


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
    """Return the classes' names that mmcv's and mmengine's checkpoints carry; empty where there are none."""
    return tuple(_numbered(metadata, "meta.CLASSES.")) or tuple(_numbered(metadata, "meta.dataset_meta.classes."))


def _numbered(metadata: Mapping[str, str], prefix: str) -> Iterator[str]:
    index = 0
    while (name := metadata.get(f"{prefix}{index}")) is not None:
        yield name.strip()
        index += 1


def _is_pair(value: object) -> TypeGuard[tuple[int, int]]:
    return isinstance(value, tuple) and len(value) == 2 and all(type(each) is int for each in value)


def _begins(table: str, tokens: Sequence[tokenize.TokenInfo], place: int) -> bool:
    name, equals = tokens[place : place + 2]
    return (name.string, equals.string, name.start[1]) == (table, "=", 0)


def _assigned(tokens: Sequence[tokenize.TokenInfo], places: Sequence[int]) -> Any:
    """Return the value that is assigned; None where it is not plain, or there are several."""
    try:
        return _Reader(tokens, places[0] + 2).value(0) if len(places) == 1 else None
    except (SyntaxError, ValueError, IndexError):
        return None


class _Reader:
    """Reads plain values from tokens. Python's own parser is not asked: its depth is the text's.

    Raises:
        ValueError, IndexError: what follows is not a plain value.
    """

    def __init__(self, tokens: Sequence[tokenize.TokenInfo], place: int) -> None:
        self.tokens = tokens
        self.place = place

    def value(self, depth: int) -> Any:
        """Read one value."""
        token = self._next()
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        if token.string in _WORDS:
            return _WORDS[token.string]
        if token.string == "dict":
            self._expect("(")
            return dict(self._each(")", lambda: self._pair("=", depth)))
        if token.string == "{":
            return dict(self._each("}", lambda: self._pair(":", depth)))
        if token.string in ("[", "("):
            return tuple(self._each("]" if token.string == "[" else ")", lambda: self.value(depth + 1)))
        if token.string == "-":
            return -self._number(self._next())
        if token.type == tokenize.STRING:
            return ast.literal_eval(token.string)
        return self._number(token)

    def _each(self, end: str, read: Callable[[], _Read]) -> Iterator[_Read]:
        while self.tokens[self.place].string != end:
            yield read()
            if self.tokens[self.place].string != end:
                self._expect(",")
        self.place += 1

    def _pair(self, between: str, depth: int) -> tuple[str, Any]:
        token = self._next()
        name = token.string if between == "=" else ast.literal_eval(token.string)
        self._expect(between)
        return str(name), self.value(depth + 1)

    def _number(self, token: tokenize.TokenInfo) -> Any:
        if token.type != tokenize.NUMBER or len(token.string) > _LONGEST_NUMBER:
            raise ValueError(token.string)
        return ast.literal_eval(token.string)

    def _next(self) -> tokenize.TokenInfo:
        self.place += 1
        return self.tokens[self.place - 1]

    def _expect(self, text: str) -> None:
        if self._next().string != text:
            raise ValueError(text)
