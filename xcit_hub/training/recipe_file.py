"""A recipe from what people write: a YAML file and the flags of a command line, read alike.

YAML is taken as version 1.2 reads plain words: no dates, no numbers to the base of 60 or 8, ``1e-3`` is a number. A
recipe is a page of ``key: value`` lines: size and nesting are bounded, anchors, tags and keys given twice refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from xcit_hub.errors import InputError, XcitHubError, closest
from xcit_hub.files import is_there, read_bounded
from xcit_hub.shipped import shipped_recipes
from xcit_hub.training import facebook_spelling, timm_spelling
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recipe_faults import SHOWN, blamed, faults_of, shown
from xcit_hub.training.recipe_keys import kind_of, may_be_null, takes_list, words_of

_LARGEST_FILE = 1 << 16
_LONGEST_FLAG = 4096
_DEEPEST = 3  # key, list, entry
_WORDS = re.compile(r"[\w.*?/-][\w.*?/\[\]!-]*(?:,[\w.*?/\[\]!-]+)*")  # also what begins an alias in YAML
_COMMAND_LINE = "the command line"
_LIKE = ", as in configs/xcit/cpu_smoke.yaml"


class _Loader(yaml.SafeLoader):
    """Plain words are null, truth values and decimal numbers of bounded length; everything else is text.

    What passes no bound is refused before it is composed: composing recurses, and follows anchors.
    """

    where: object = _COMMAND_LINE
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        _check_bounds(event, self.depth, self.where)
        self.depth += isinstance(event, yaml.CollectionStartEvent)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= isinstance(event, yaml.CollectionStartEvent)
        return node

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_FLOAT = (
    r"[-+]?(?:[0-9]{1,30}\.[0-9]{0,30}|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,3})?|[-+]?[0-9]{1,30}[eE][-+]?[0-9]{1,3}"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|None|", [*"~nN", ""]),
    ("bool", r"(?i:true|false|yes|no|on|off)", "tTfFyYnNoO"),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,17})", "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


# Of two that say the same, the one that is said later replaces the other.
_SAY_THE_SAME = (
    ("lr", "lr_base"),
    ("lr_base", "lr"),
    ("warmup_lr", "warmup_factor"),
    ("warmup_factor", "warmup_lr"),
    ("loss", "bce_loss"),
    ("loss", "jsd_loss"),
    *timm_spelling.DECIDES.items(),
)
_LIBRARIES = ("mindcv", "timm", "facebook")
# Names of others' settings, which are read where `library` says whose.
FOREIGN = timm_spelling.NAMES | facebook_spelling.NAMES
_SWITCHES = timm_spelling.SWITCHES | facebook_spelling.SWITCHES


def load_recipe(
    path: str | Path | None,
    overrides: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    described: Mapping[str, Any] | None = None,
) -> Recipe:
    """Read a YAML recipe and lay ``overrides`` (typed values, as :func:`parse_flags` returns them) over it.

    Args:
        path: the YAML file, the name of a recipe that ships with the library (``cpu_smoke``; where there is no such
            file ``configs/xcit/cpu_smoke.yaml``, too), or None for the defaults alone.
        overrides: key → value, as from ``--epoch_size 2``.
        defaults: other values than the recipe's own for what nothing else says.
        described: what the description of a network says, which counts before the file and after ``overrides``.

    Raises:
        InputError: the file is not a recipe, or a key or value is unknown; the message names the nearest key.
        UnknownNameError: there is no such model.
    """
    file = {} if path is None else _read(_find(Path(path)))
    flags = overrides or {}
    layers = [defaults or {}, file, described or {}, flags]
    where = "the recipe" if path is None else path
    try:
        said, dropped, given = _as_spelled(layers)
    except InputError as error:
        if path is None or error.where in flags or error.where not in file:
            raise
        raise InputError(error.what, where=f"{path}, {error.where}", fix=error.fix) from None
    for key in said:
        if key not in Recipe.model_fields and key in FOREIGN:
            whose, ours = "timm" if key in timm_spelling.NAMES else "facebook", timm_spelling.RENAMED.get(key)
            raise InputError(
                f"{key} is {whose}'s name of a setting, and the recipe is not {whose}'s.",
                where=key if key in flags else where,
                fix=f"Set library to {whose}{f', or write {ours}' if ours else ''}.",
            )
    foreign = {key for layer in layers for key in layer} - Recipe.model_fields.keys()
    in_timms_words = bool(foreign) and _laid_over(layers).get("library") == "timm"
    recipe = _build(said, where, layers).as_it_was_said(dropped, given, in_timms_words=in_timms_words)
    if recipe.teacher_is_function and "teacher" not in flags and "teacher" in file:
        raise InputError(
            f"A recipe file may not name code to run: its teacher is {shown(recipe.teacher)}.",
            where=where,
            fix="If you know what it does, say it yourself: --teacher MODULE:FUNCTION.",
        )
    return recipe


def said_by(path: str | Path | None, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a recipe's file says, in a recipe's words: its values as they stand there, not yet checked.

    Args:
        path: as for :func:`load_recipe`.
        overrides: laid over it, as for :func:`load_recipe`; the library alone says in whose words the file is.

    Raises:
        InputError: the file is not a recipe.
    """
    return _as_spelled([{} if path is None else _read(_find(Path(path))), overrides or {}])[0]


def _as_spelled(layers: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, str], set[str]]:
    """Return what all layers say in a recipe's words, what of it is dropped, with the reason, and which keys they name.

    What a translation sets beside these, nobody gave.
    """
    library = _laid_over(layers).get("library", "mindcv")
    if library not in _LIBRARIES:
        raise InputError(
            f"library {shown(library)} is not one of {', '.join(_LIBRARIES)}.",
            where="library",
            fix=closest(str(library)[:SHOWN], _LIBRARIES) or "Leave it out for MindCV's recipes.",
        )
    if library == "mindcv":
        said = _laid_over(layers)
        return said, {}, set(said)
    dropped: dict[str, str] = {}
    own = len(layers)
    if library == "facebook":
        translated = [facebook_spelling.in_timms_words(layer) for layer in (facebook_spelling.DEFAULTS, *layers)]
        layers = [said for said, _ in translated]
        for _, reasons in translated:
            dropped |= reasons
    renamed = [timm_spelling.renamed(layer) for layer in layers]
    said = _laid_over([said for said, _ in renamed], [taken_back for _, taken_back in renamed])
    layers = [layer for layer, _ in renamed[len(renamed) - own :]]
    given = {name for layer in layers for key, value in layer.items() for name in (key, _decided_by(key, value))}
    if library == "facebook":
        said, others = facebook_spelling.settled(said)
        dropped |= others
    said, others = timm_spelling.computed(said)
    dropped |= {key: reason for key, reason in others.items() if key in given}
    return said, dropped, given


def _decided_by(key: str, value: object) -> str:
    """Return the recipe's own key that one of timm's decides; a switch that is off decides nothing."""
    return timm_spelling.DECIDES.get(key, key) if value is not False else key


def _laid_over(layers: Sequence[Mapping[str, Any]], taken_back: Sequence[Collection[str]] = ()) -> dict[str, Any]:
    """Lay each layer over those before; where two keys say the same, the one that is said last counts.

    Args:
        taken_back: for each layer the keys of which it says that nothing is said of them.
    """
    said: dict[str, Any] = {}
    for layer, nothing in zip(layers, taken_back or [()] * len(layers), strict=True):
        for key, other in _SAY_THE_SAME:
            if key in layer and other not in layer:
                said.pop(other, None)
        said = {key: value for key, value in said.items() if key not in nothing} | dict(layer)
    return said


def parse_flags(words: Sequence[str]) -> dict[str, Any]:
    """Turn ``["--epoch_size", "2", "--distribute", "--lr=1e-3", "--set", "ema=true"]`` into recipe settings.

    A switch without a value means true, as in MindCV; every other flag needs one. Values are read as a recipe's are,
    so lists and numbers work; a list may also be several words, as timm's train.py takes it: ``--scale 0.08 1``.
    Dashes in a key mean underscores. ``--set key=value`` is ``--key=value``, ``-b`` and ``-j`` are timm's.

    Raises:
        InputError: a word is not a flag, a flag is not a key of a recipe, lacks its value, or is given twice.
    """
    settings: dict[str, Any] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        word = timm_spelling.SHORT.get(word, word)
        if not word.startswith("--"):
            raise InputError(
                f"{shown(word)} is not a flag.", where=_COMMAND_LINE, fix="Write recipe keys as --key value."
            )
        if word.partition("=")[0] == "--set":
            word = _assigned(word, left)
        key, equals, text = word[2:].partition("=")
        key = key.replace("-", "_")
        _check_known([key], where=_COMMAND_LINE)
        if key in settings:
            raise InputError(f"--{key} is given twice.", where=_COMMAND_LINE, fix="Give it once.")
        settings[key] = _flag(key, text if equals else _taken(key, left))
    return settings


def _taken(key: str, left: list[str]) -> str:
    """Take a flag's value off the words that follow it: one, or of a list all up to the next flag."""
    words: list[str] = []
    while left and not left[0].startswith("--") and left[0] not in timm_spelling.SHORT:
        words.append(left.pop(0))
        if not _takes_list(key):
            break
    if len(words) > 1 and not words[0].startswith("["):
        return ",".join(words) if _is_list(key) else f"[{', '.join(words)}]"
    if words:
        return " ".join(words)
    if _kind(key) in ("switch", "switch or text") or key in _SWITCHES:
        return "true"
    raise InputError(f"--{key} lacks its value.", where=_COMMAND_LINE, fix=f"Write --{key} VALUE.")


def _assigned(word: str, left: list[str]) -> str:
    """Return ``--set key=value``, in one word or two, as ``--key=value``."""
    text = word.partition("=")[2] if "=" in word else left.pop(0) if left else ""
    key, equals, _ = text.partition("=")
    if not (key and equals):
        raise InputError(f"--set takes key=value, not {shown(text)}.", where=_COMMAND_LINE, fix="Write --set lr=1e-4.")
    return f"--{text}"


def _flag(key: str, text: str) -> Any:
    if len(text) > _LONGEST_FLAG:
        raise InputError(
            f"The value of --{key} has more than {_LONGEST_FLAG} characters.", where=_COMMAND_LINE, fix="Shorten it."
        )
    if _kind(key) in ("text", "switch or text") and not _is_list(key):
        return None if text in ("null", "None", "~") and may_be_null(own_name(key)) else text
    if _is_list(key) and _WORDS.fullmatch(text):
        return text.split(",") if "," in text else text
    try:
        node = _node(text, where=key)
    except yaml.YAMLError:
        return text
    value = text if node is None else _value(key, node)
    # timm's flags take a list of one, too: --decay-milestones 30
    alone = (
        own_name(key) in Recipe.model_fields and takes_list(own_name(key)) == "any" and isinstance(value, int | float)
    )
    return [value] if alone else value


def own_name(key: str) -> str:
    """Return a recipe's own name of a setting that may be called by timm's."""
    return timm_spelling.RENAMED.get(key, key)


def idle_flags(recipe: Recipe, flags: Iterable[str]) -> dict[str, str]:
    """Return the flags of an evaluation's command line that change nothing in it, each with the reason.

    Args:
        recipe: what they and a recipe's file say together.
    """
    idle = recipe.without_effect(evaluating=True)
    found = {}
    for flag in flags:
        ours = own_name(flag)
        if name := next((name for name in (flag, ours, timm_spelling.DECIDES.get(ours, "")) if name in idle), None):
            found[flag] = idle[name]
    return found


def alike(said: Any, used: Any) -> bool:
    """Whether a file's word for a setting is its value; 224 and [224, 224] are one size."""
    if isinstance(said, list | tuple):
        each = used if isinstance(used, list | tuple) else [used] * len(said)
        return len(said) == len(each) and all(map(alike, said, each))
    if isinstance(said, int | float) and isinstance(used, int | float):
        return math.isclose(said, used, rel_tol=1e-6)
    return bool(said == used)


def _kind(key: str) -> str:
    return kind_of(own_name(key)) if own_name(key) in Recipe.model_fields else "other"


def _takes_list(key: str) -> bool:
    return key in timm_spelling.LISTS or (own_name(key) in Recipe.model_fields and bool(takes_list(own_name(key))))


def _is_list(key: str) -> bool:
    field = Recipe.model_fields.get(own_name(key))
    return field is not None and field.annotation == tuple[str, ...]


def _find(path: Path) -> Path:
    if is_there(path):
        return path
    shipped, name = shipped_recipes(), path.name.removesuffix(".yaml")
    by_name = path.parent == Path() and not path.suffix
    # The documented commands are those of a checkout. Any other path means that file, and nothing stands in for it.
    if name in shipped and (by_name or path == Path("configs", "xcit", f"{name}.yaml")):
        return shipped[name]
    if by_name:
        raise InputError(
            f"Cannot read {shown(str(path))}: there is no such file, and no recipe of this name comes with xcit-hub.",
            where="--config",
            fix=closest(name, shipped) or f"By name there are {', '.join(sorted(shipped))}.",
        )
    if name in shipped:
        raise InputError(
            "Cannot read the recipe: there is no such file.",
            where=path,
            fix=f"Give the path of a file, or --config {name} for the recipe that comes with xcit-hub.",
        )
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_bounded(path, _LARGEST_FILE).decode("utf-8-sig")
        root = _node(content, where=path)
        if not isinstance(root, yaml.MappingNode):
            raise InputError(
                "The recipe is not a list of `key: value` lines.", where=path, fix=f"Write such lines{_LIKE}."
            )
        settings: dict[str, Any] = {}
        for name, node in root.value:
            key = name.value if isinstance(name, yaml.ScalarNode) else ""
            _check_known([key], where=f"{path}, line {name.start_mark.line + 1}")
            if key in settings:
                raise InputError(f"The recipe gives {key} twice.", where=path, fix="Give it once.")
            settings[key] = _value(key, node)
    except yaml.YAMLError as error:
        raise InputError(
            f"The recipe is not YAML: {_said(error)}.", where=path, fix=f"Write `key: value` lines{_LIKE}."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"The recipe is not text in UTF-8 (byte {error.start}).", where=path, fix="Save it as text in UTF-8."
        ) from error
    return settings


def _node(text: str, where: object) -> yaml.Node | None:
    loader = _Loader(text)
    loader.where = where
    try:
        found: yaml.Node | None = loader.get_single_node()
    finally:
        loader.dispose()
    return found


def _check_bounds(event: yaml.Event, depth: int, where: object) -> None:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        raise InputError("A recipe takes no anchors and aliases (& and *).", where=where, fix="Write the value out.")
    if isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent) and event.tag not in (None, "!"):
        raise InputError(f"A recipe takes no tags ({shown(event.tag)}).", where=where, fix="Leave it out.")
    if isinstance(event, yaml.CollectionStartEvent) and depth == _DEEPEST:
        raise InputError(
            "The recipe is nested too deeply.", where=where, fix="A value is a word, a number, or a list of them."
        )


def _value(key: str, node: yaml.Node) -> Any:
    if (
        isinstance(node, yaml.ScalarNode)
        and _kind(key) in ("text", "switch or text")
        and node.tag != "tag:yaml.org,2002:null"
    ):
        return node.value  # a folder may be called 2024, or off
    value = _Loader("").construct_object(node, deep=True)
    return str(value) if isinstance(value, bytes) else value


def _said(error: yaml.YAMLError) -> str:
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    line = "" if mark is None else f" (line {mark.line + 1})"
    return f"{problem or str(error).splitlines()[0]}{line}"


def _check_known(keys: Iterable[str], where: object) -> None:
    for key in keys:
        if key not in Recipe.model_fields and key not in FOREIGN:
            raise InputError(
                f"A recipe has no key {shown(key)}.",
                where=where,
                fix=closest(key[:SHOWN], Recipe.model_fields) or "`xcit-hub train --keys` lists all keys.",
            )


def _build(settings: Mapping[str, Any], where: object, layers: Sequence[Mapping[str, Any]]) -> Recipe:
    _check_known(settings, where)
    try:
        return Recipe(**settings)
    except ValidationError as error:
        faults = faults_of(error, settings)
        hints = [closest(str(settings.get(key))[:SHOWN], words_of(key)) if key else "" for key in faults]
        raise InputError(
            f"The recipe does not hold: {'; '.join(faults.values())}.",
            where=", ".join(blamed(faults, layers, _wrong)) or where,
            fix=" ".join(dict.fromkeys(filter(None, hints))) or "`xcit-hub train --keys` says what each key takes.",
        ) from error


def _wrong(layers: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
    """Return the faults of a recipe; None where its words alone cannot be read."""
    said: dict[str, Any] = {}
    try:
        said, _, _ = _as_spelled(layers)
        Recipe(**said)
    except ValidationError as error:
        return faults_of(error, said)
    except XcitHubError:
        return None
    return {}
