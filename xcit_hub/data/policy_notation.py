"""The notation of augmentation policies, timm's and MindCV's: ``rand-m9-mstd0.5-inc1``, ``autoaug``, ``augmix-m5-w4``.

MindCV's parts do not all do what they say, and are read as MindCV 0.5 runs them: the deviation is 0.5 whatever ``mstd``
is, and any ``inc`` means that the severity rises.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from xcit_hub.data.policies import AugMix, AutoAugment, Library, Policy, RandAugment, Severity, TrivialAugment
from xcit_hub.data.sub_policies import ORIGINAL, THREE, V0, increasing
from xcit_hub.errors import InputError, closest

_EVEN_ABOVE = 100.0  # a deviation beyond this means: draw evenly in 0…magnitude
_MINDCV_DEVIATION = 0.5
_WHOLE, _DECIMAL = r"[0-9]{1,3}", r"[0-9]{1,6}(?:\.[0-9]{0,6})?"
_NUMBERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "m": (_WHOLE, int),
    "n": (_WHOLE, int),
    "p": (_DECIMAL, float),
    "w": (_WHOLE, int),
    "d": (_WHOLE, int),
    "a": (_DECIMAL, float),
    "b": ("[01]", int),
    "mstd": (_DECIMAL, float),
    "mmax": (_WHOLE, int),
    "inc": ("[01]", int),
    "t": ("weights|3aw|3a", str),
}
_ENHANCED = ("Color", "Contrast", "Brightness", "Sharpness")
_FIRST = ("AutoContrast", "Equalize", "Invert", "Rotate")
_SHIFTS = {"timm": ("TranslateXRel", "TranslateYRel"), "mindcv": ("TranslateX", "TranslateY")}
_THREE = {"SolarizeIncreasing": 6.0, "Desaturate": 6.0, "GaussianBlur": 6.0}
# Operations with unequal chances draw none twice.
_WEIGHTS = {
    "weights": {
        "Rotate": 3.0, "ShearX": 2.0, "ShearY": 2.0, "TranslateXRel": 1.0, "TranslateYRel": 1.0,
        "ColorIncreasing": 0.25, "SharpnessIncreasing": 0.25, "AutoContrast": 0.25, "SolarizeIncreasing": 0.05,
        "SolarizeAdd": 0.05, "ContrastIncreasing": 0.05, "BrightnessIncreasing": 0.05, "Equalize": 0.05,
        "PosterizeIncreasing": 0.05, "Invert": 0.05,
    },
    "3aw": {
        **_THREE, "Rotate": 3.0, "ShearX": 2.0, "ShearY": 2.0, "PosterizeIncreasing": 1.0, "AutoContrast": 1.0,
        "ColorIncreasing": 1.0, "SharpnessIncreasing": 1.0, "ContrastIncreasing": 1.0, "BrightnessIncreasing": 1.0,
        "Equalize": 1.0, "Invert": 1.0,
    },
    "mindcv": {
        "Rotate": 0.3, "ShearX": 0.2, "ShearY": 0.2, "TranslateX": 0.1, "TranslateY": 0.1, "Color": 0.025,
        "Sharpness": 0.025, "AutoContrast": 0.025, "Solarize": 0.005, "Contrast": 0.005, "Brightness": 0.005,
        "Equalize": 0.005, "Posterize": 0.005, "Invert": 0.0,
    },
}  # fmt: skip


def read_policy(text: str, library: Library = "mindcv") -> Policy:
    """Read a policy.

    Args:
        library: whose policy is meant where its name does not say so.

    Raises:
        InputError: there is no such policy, or a part is unknown, malformed, given twice, or cannot be.
    """
    kind, *parts = text.split("-")
    if kind not in _KINDS:
        raise InputError(
            f"{kind!r} is not an augmentation policy that is known here.",
            where="auto_augment",
            fix=closest(kind, _KINDS) or f"There are {', '.join(_KINDS)}, for example randaug-m9-mstd0.5-inc1.",
        )
    takes, make = _KINDS[kind]
    return make(_parts(text, kind, parts, takes[library] if isinstance(takes, dict) else takes), kind, library)


_Parts = dict[str, Any]


def _parts(text: str, kind: str, parts: list[str], takes: str) -> _Parts:
    found: _Parts = {}
    for part in parts:
        match = re.fullmatch(r"([a-z]+?)(\d.*|weights)", part)
        name = match[1] if match is not None else ""
        if match is None or name not in takes.split() or not re.fullmatch(_NUMBERS[name][0], match[2]):
            raise InputError(
                f"{kind} has no part {part!r}.",
                where=f"auto_augment: {text}",
                fix=f"It takes {', '.join(_SPELLED[name] for name in takes.split())}.",
            )
        if name in found:
            raise InputError(f"{kind}'s {name} is given twice.", where=f"auto_augment: {text}", fix="Give it once.")
        found[name] = _NUMBERS[name][1](match[2])
    return found


_SPELLED = {
    "m": "m9",
    "n": "n2",
    "p": "p0.5",
    "w": "w0 or w3",
    "d": "d2",
    "a": "a1.0",
    "b": "b1",
    "mstd": "mstd0.5",
    "mmax": "mmax10",
    "inc": "inc0 or inc1",
    "t": "tweights, t3a or t3aw",
}


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise InputError(what, where="auto_augment", fix="Leave that part out for its default, or keep it within this.")


def _rand(parts: _Parts, _: str, __: Library) -> RandAugment:
    deviation = parts.get("mstd", 0.0)
    severity = Severity(math.inf if deviation > _EVEN_ABOVE else deviation, parts.get("mmax", 10))
    chosen = parts.get("t")
    names, shares = _names("timm", rising=parts.get("inc") == 1), None
    if chosen == "3a":
        names = tuple(_THREE)
    elif chosen:
        names, shares = tuple(_WEIGHTS[chosen]), tuple(_WEIGHTS[chosen].values())
    return _rand_augment("timm", parts, severity, names, shares)


def _randaug(parts: _Parts, _: str, __: Library) -> RandAugment:
    _must(parts.get("w", 0) == 0, "randaug has one set of weights, w0.")
    names = _names("mindcv", rising="inc" in parts)
    weights = _WEIGHTS["mindcv"] if "w" in parts else None
    # MindCV gives each operation the share of the one that stands in its place in the set that does not rise.
    shares = None if weights is None else tuple(weights[name] for name in _names("mindcv", rising=False))
    return _rand_augment("mindcv", parts, Severity(_MINDCV_DEVIATION, parts.get("mmax", 10)), names, shares)


def _rand_augment(
    library: Library, parts: _Parts, severity: Severity, names: tuple[str, ...], shares: tuple[float, ...] | None
) -> RandAugment:
    probability, layers = parts.get("p", 0.5), parts.get("n", 2)
    most = len(names) if shares is None else sum(share > 0 for share in shares)
    _must(
        probability <= 1 and severity.limit >= 1 and (shares is None or layers <= most),
        f"RandAugment's p is at most 1, mmax at least 1, and n with weights at most {most}.",
    )
    return RandAugment(library, parts.get("m", 10), severity, names, shares, layers, probability)


def _names(library: Library, *, rising: bool) -> tuple[str, ...]:
    end = "Increasing" if rising else ""
    return (
        *_FIRST,
        *(f"Posterize{end}", f"Solarize{end}"),
        *(("SolarizeAdd",) if library == "timm" else ()),
        *(f"{name}{end}" for name in _ENHANCED),
        *("ShearX", "ShearY", *_SHIFTS[library]),
    )


def _auto(parts: _Parts, kind: str, library: Library) -> AutoAugment:
    policies = {"original": ORIGINAL, "autoaug": ORIGINAL, "v0": V0, "3a": THREE}[kind.removesuffix("r")]
    library = "mindcv" if kind.startswith("auto") else library if kind == "3a" else "timm"
    deviation = parts.get("mstd", 0.0) if library == "timm" else _MINDCV_DEVIATION
    return AutoAugment(library, increasing(policies) if kind.endswith("r") else policies, Severity(deviation))


def _trivial(parts: _Parts, _: str, __: Library) -> TrivialAugment:
    magnitude = parts.get("m", 31)
    _must(magnitude >= 1, "trivialaugwide's m is at least 1.")
    return TrivialAugment(_names("mindcv", rising=False), magnitude)


def _augmix(parts: _Parts, _: str, library: Library) -> AugMix:
    width, alpha = parts.get("w", 3), parts.get("a", 1.0)
    _must(width >= 1 and alpha > 0 and parts.get("d", 1) >= 1, "augmix's w and d are at least 1, and a more than 0.")
    enhanced = tuple(f"{name}Increasing" for name in _ENHANCED)
    return AugMix(
        library,
        (
            *("AutoContrast", *enhanced, "Equalize", "Rotate", "PosterizeIncreasing", "SolarizeIncreasing"),
            *("ShearX", "ShearY", *_SHIFTS[library]),
        ),
        Severity(parts.get("mstd", math.inf)),
        parts.get("m", 3),
        width,
        parts.get("d", 0),
        alpha,
        blended=parts.get("b") == 1,
    )


_Made = Callable[[_Parts, str, Library], Policy]
# What a policy's name takes, and how it is made.
_KINDS: dict[str, tuple[str | dict[Library, str], _Made]] = {
    "rand": ("m n p mstd mmax inc t", _rand),
    "randaug": ("m n w mstd mmax inc", _randaug),
    "original": ("mstd", _auto),
    "originalr": ("mstd", _auto),
    "v0": ("mstd", _auto),
    "v0r": ("mstd", _auto),
    "autoaug": ("mstd", _auto),
    "autoaugr": ("mstd", _auto),
    "3a": ("mstd", _auto),
    "augmix": ({"timm": "m w d a b mstd", "mindcv": "m w d a"}, _augmix),
    "trivialaugwide": ("m", _trivial),
}
