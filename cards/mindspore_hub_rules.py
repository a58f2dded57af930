"""What MindSpore Hub's own checker refuses (mindspore/hub, ``mindspore_hub/_utils/check.py`` and ``download.py``).

An error here is a refusal there and the other way round. The checker stops at the first; here all are found. Left out
is what it asks of the network: whether a link answers. Added is what no card may contain: anchors, aliases,
merges and tags.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from numbers import Number
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from cards import front_matter, vocabulary
from cards.card import outside_code
from cards.faults import Fault
from cards.front_matter import Tree
from cards.mindspore_hub import Parts
from cards.reading import canonical
from xcit_hub.errors import closest

Rule = Callable[[Any], "str | None"]

_DASH = "evaluation: -"  # the checker writes "no" for every dash of such a line before it reads the YAML
_HEADING = re.compile(r" {0,3}#{1,6}(?P<text>.*)")
_UNDERLINED = re.compile(r" {0,3}(?:=+|-+)")
_QUOTED = re.compile(r"(?: {0,3}>)+ ?")
_LONGEST_LINK = 2048
_OPENED = ("http", "https", "ftp", "file", "data")  # what its client would try to open


def faults(parts: Parts, text: str) -> Iterator[Fault]:
    """Yield what the Hub's checker refuses in a card.

    Args:
        parts: the card, taken apart by :func:`cards.mindspore_hub.split`.
        text: the whole file, with ``\\n`` line ends.
    """
    if len(parts.dashes) != 2:
        listed = ", ".join(map(str, parts.dashes)) or "none"
        message = f"exactly two lines may begin with '---', and these do: {listed}"
        yield Fault(parts.dashes[2] if len(parts.dashes) > 2 else None, "metadata", message)
    yield from _headings(parts)
    if not parts.fields.readable:
        return
    opening, closing = parts.dashes[:2]
    lines = text.split("\n")[opening : closing - 1]
    heads = [line.replace("-", "no") if _DASH in line else line for line in lines]
    fields = parts.fields if heads == lines else front_matter.load("\n".join(heads), opening + 1)
    broken = [fault for fault in fields.faults if fault.severity == "error"]
    yield from broken
    # What is not YAML has been read field by field, and each field still has its own faults.
    named = canonical if broken else str
    header: dict[str, Any] = {}
    for name, value in fields.values.items():
        try:
            header[named(name)] = _as_the_hub_reads(value)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            yield Fault(fields.lines[name], name, f"the Hub's YAML reader refuses it: {str(error).splitlines()[0]}")
            return
    yield from _fields(header, {named(name): line for name, line in fields.lines.items()}, opening)


_YAML: Any = yaml.SafeLoader("")


def _as_the_hub_reads(tree: Tree) -> Any:
    """Return a value as PyYAML builds it for the Hub: ``2.5`` is a number, ``yes`` is True, a date is a date."""
    if isinstance(tree, dict):
        return {str(key): _as_the_hub_reads(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_as_the_hub_reads(value) for value in tree]
    if not tree.plain:
        return str(tree)
    tag = _YAML.resolve(yaml.ScalarNode, str(tree), (True, False))
    construct = _YAML.yaml_constructors.get(tag, _YAML.yaml_constructors[None])
    return construct(_YAML, yaml.ScalarNode(tag, str(tree)))


def _fields(header: dict[Any, Any], lines: dict[str, int], block: int) -> Iterator[Fault]:
    for name in vocabulary.REQUIRED:
        if name not in header:
            yield Fault(block, name, "is required, and is missing")
    for name, rule in _RULES.items():
        if name in header and (message := rule(header[name])):
            yield Fault(lines.get(name, block), name, message)
    if header.get("asset"):
        line = lines.get("asset", block)
        yield from (Fault(line, place, message) for place, message in _assets(header["asset"]))
    for name, value in header.items():
        if name not in vocabulary.COLON_ALLOWED and ":" in str(value):
            message = (
                f"contains a ':', which the Hub allows in no field but {', '.join(sorted(vocabulary.COLON_ALLOWED))}"
            )
            yield Fault(lines.get(str(name), block), str(name), message)


def _headings(parts: Parts) -> Iterator[Fault]:
    lines = [(number, _QUOTED.sub("", line, count=1)) for number, line in outside_code(parts.prose, parts.prose_line)]
    following = [line.rstrip() for _, line in lines[1:]] + [""]
    for (number, line), below in zip(lines, following, strict=True):
        found = _HEADING.fullmatch(line.rstrip())
        if found:
            text = found["text"].strip().rstrip("#").rstrip()
        else:
            text = line.strip() if _UNDERLINED.fullmatch(below) else ""
        if text.endswith(":"):
            yield Fault(number, "prose", f"a heading must not end in ':': {text[:80]!r}")


def _truth_value(value: Any) -> str | None:
    return None if isinstance(value, bool) else f"must be True or False, and is {value!r}"


def _number(value: Any) -> str | None:
    return None if isinstance(value, Number) else f"must be a number, and is {value!r}"


def _link(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        return f"must be a link, and is {value!r}"
    if len(value) > _LONGEST_LINK:
        return f"is a link of {len(value):,} characters"
    try:
        scheme = urlsplit(value.strip("<>")).scheme
    except ValueError as error:
        return f"is not a web address ({error}): {value!r}"
    whole = scheme in _OPENED and re.search(r"[\x00- \x7f]", value) is None
    return None if whole else f"is not a web address: {value!r}"


def _repository(value: Any) -> str | None:
    """Hold a link against ``get_repo_info_from_url``: on a .com, and a repository or a folder of one branch."""
    if value is None:
        return None
    if message := _link(value):
        return message
    link = value.strip("<>").rstrip("/")
    hosts = re.findall(r".*http[s]?://(.*).com.*", link)
    sites = re.findall(r"http[s]?://(?:[-\w.]|(?:%[\da-fA-F]{2}))+", link)
    if len(hosts) != 1 or len(sites) != 1:
        return f"must be on a site whose name ends in .com, and is {value!r}"
    path = link[len(sites[0]) :].lstrip("/").split("/", 4)
    if len(path) == 2 or (len(path) > 3 and path[2] in ("tree", "blob")):
        return None
    return f"must lead to a repository, or to tree/BRANCH or tree/BRANCH/FOLDER in one, and is {value!r}"


def _train_dataset(value: Any) -> str | None:
    if not value:
        return None
    known = vocabulary.train_datasets()
    unknown = [part for part in value.split("_") if part not in known] if isinstance(value, str) else [value]
    if not unknown:
        return None
    hint = closest(str(unknown[0]), known)
    where = "" if unknown == [value] else f" (of {value!r}: the Hub takes '_' to join several)"
    return f"{str(unknown[0])!r}{where} is not on the Hub's list of datasets" + (f"; {hint}" if hint else "")


def _module_type(value: Any) -> str | None:
    first = value.split("-", 1)[0].lower() if isinstance(value, str) else str(value)
    return None if first in vocabulary.MODULE_TYPES else _not_one_of("its first part", first, vocabulary.MODULE_TYPES)


def _used_for(value: Any) -> str | None:
    if not isinstance(value, str):
        return _not_one_of("each part", str(value), vocabulary.USED_FOR)
    wrong = [part for part in value.split("/") if part.lower() not in vocabulary.USED_FOR]
    return _not_one_of("each part", "/".join(wrong), vocabulary.USED_FOR) if wrong else None


def _featured_image(value: Any) -> str | None:
    return (
        None if value == "no-image" else f"must be 'no-image' (the Hub's repository has no images/), and is {value!r}"
    )


def _assets(assets: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(assets, list):
        yield "asset", "is not a list of files"
        return
    for number, asset in enumerate(assets, 1):
        place = "asset" if len(assets) == 1 else f"asset {number}"
        if not isinstance(asset, dict):
            yield place, f"is not a file's fields: {asset!r}"
            continue
        yield from (
            (place, f"{name} is required, and is missing") for name in vocabulary.ASSET_REQUIRED if name not in asset
        )
        if message := _link(asset.get("asset-link")):
            yield place, f"asset-link {message}"
        file_format = asset.get("file-format", "ckpt")
        if not isinstance(file_format, str) or file_format.lower() not in vocabulary.FILE_FORMATS:
            yield place, _not_one_of("file-format", str(file_format), vocabulary.FILE_FORMATS)


def _not_one_of(what: str, value: str, choices: tuple[str, ...]) -> str:
    return f"{what} must be one of {', '.join(choices)}, and is {value!r}"


_RULES: dict[str, Rule] = {
    "fine-tunable": _truth_value,
    "repo-link": _repository,
    "train-dataset": _train_dataset,
    "used-for": _used_for,
    "module-type": _module_type,
    "featured-image": _featured_image,
    "accuracy": _number,
    "allow-cache-ckpt": _truth_value,
}


def english_card(path: Path) -> Path | None:
    """Return the card that the Hub checks in place of a Chinese one (``NAME_cn.md``), or None for any other.

    The checker looks at two letters before the suffix and drops three: it takes ``fcn.md`` for a Chinese card, too.
    """
    return path.with_name(f"{path.name[:-6]}.md") if path.name[-5:-3] == "cn" else None
