"""The step *unwrap*: which of a file's tensors are the network.

It is found, not listed: wherever the names that only an XCiT has stand under one prefix, there is one. Copies of its
parameters without a BatchNorm's statistics are optimizer state. Where several networks are there, plain weights are
taken before averaged ones, DINO's files give the teacher and mmengine's the average, which these load themselves, and
anything else is asked for by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from xcit_hub.checkpoints import beside
from xcit_hub.checkpoints.beside import Dropped, Reason
from xcit_hub.checkpoints.families import LAYOUTS, MARKS
from xcit_hub.checkpoints.reading import Asked, Found, Reading
from xcit_hub.checkpoints.tensor import StoredTensor
from xcit_hub.errors import WeightsError

# Names that no other vision transformer has, in every family's form; what stands before them is a prefix.
_OWN = re.compile(
    r"(?:^|(?<=[./:_]))(?:(?:blocks|xca_layers)\.\d+\.(?:attn\.temperature|local_mp\.conv1\.(?:conv\.)?weight)"
    r"|patch_embed\.proj\.0\.(?:0|conv)\.weight)$"
)
# First parts of the names inside a network: there, a single number may be a parameter.
_INSIDE = re.compile(r"cls_token|(?:blocks|cls_attn_blocks|xca_layers|ca_layers|patch_embed|pos_embed|norm|head|fpn).*")
_STATISTICS = (".running_mean", ".moving_mean", "._mean")
_AVERAGED = re.compile(r"(?:.*_)?(?:ema|averaged|swa|polyak)(?:_.*)?|teacher")
_DINO = re.compile(r"dino_loss\..*|(?:.*\.)?head\.last_layer\..*")
# mmengine counts its average's updates here, and exchanges the two before it saves: what is called average is not.
_MMENGINE = "ema_state_dict.steps"
_TOP = "top"
_LISTED = 12


def unwrap(reading: Reading) -> None:
    """Find the network in a file, and say what each of its other tensors is.

    Raises:
        WeightsError: see :func:`find`.
    """
    reading.found = find(reading.file.tensors, reading.asked)


def find(tensors: Mapping[str, StoredTensor], asked: Asked | None = None) -> Found:
    """Find the network among named tensors, under whatever wraps it.

    Raises:
        WeightsError: there is none, there are several and nothing says which, or not the one asked for.
    """
    prefixes = list(dict.fromkeys(name[: match.start()] for name in tensors if (match := _OWN.search(name))))
    owned = _owned(tensors, prefixes)
    complete = [
        prefix
        for prefix in prefixes
        if not beside.is_training_state(prefix) and any(name.endswith(_STATISTICS) for name in owned[prefix])
    ]
    networks = complete or prefixes
    if not networks:
        raise WeightsError(
            "This is not an XCiT: there is no blocks.0.attn.temperature, however it may be wrapped.",
            fix="Take the weights of an XCiT: `xcit-hub list --pretrained` names the published ones.",
        )
    averaged = {prefix for prefix in prefixes if _is_averaged(prefix, tensors)}
    chosen, notes = _choose(networks, averaged, tensors, asked or Asked())
    names, dropped = _sorted_out(chosen, owned[chosen], tensors)
    _add(names, _beside(chosen, tensors))
    taken = set(names.values())
    for prefix in prefixes:
        if prefix != chosen:
            left, known = _sorted_out(prefix, owned[prefix], tensors)
            _add(left, _beside(prefix, tensors))
            reason = _reason_left(prefix, chosen, networks, averaged)
            dropped += [*(Dropped(name, reason) for name in left.values()), *known]
            taken |= set(left.values())
    outside = [name for name in owned[None] if name not in taken]
    near = {name: tensors[name] for name in (*outside, *names.values())}
    images = beside.normalization(near, chosen, [prefix for prefix in prefixes if prefix != chosen])
    if images is not None:
        dropped += [Dropped(name, Reason.NORMALIZATION) for name in images]
        names = {name: full for name, full in names.items() if full not in images}
        outside = [name for name in outside if name not in images]
    dropped += [Dropped(name, beside.reason_of(name, tensors[name]) or Reason.OUTSIDE) for name in outside]
    marked = next((dialect for dialect, mark in MARKS.items() if names.pop(mark, None) is not None), None)
    return Found(
        prefix=chosen,
        names=names,
        tensors={name: tensors[full] for name, full in names.items()},
        averaged=chosen in averaged,
        both=len({prefix in averaged for prefix in networks}) == 2,
        dropped=dropped,
        marked=marked,
        normalization=None if images is None else (tensors[images[0]], tensors[images[1]]),
        notes=(*notes, *_notes(dropped)),
    )


def _owned(tensors: Iterable[str], prefixes: list[str]) -> dict[str | None, list[str]]:
    """Each prefix's names: those that begin with it and with no longer one; under None, those of no prefix."""
    longest_first = sorted(prefixes, key=len, reverse=True)
    owned: dict[str | None, list[str]] = {prefix: [] for prefix in (*longest_first, None)}
    lengths = sorted({len(prefix) for prefix in prefixes}, reverse=True)
    for name in tensors:
        owned[next((name[:length] for length in lengths if name[:length] in owned), None)].append(name)
    return owned


def _add(names: dict[str, str], beside_it: Mapping[str, str]) -> None:
    """Add the parts of a network that stand beside its prefix, none of which may stand within it as well."""
    if twice := names.keys() & beside_it.keys():
        name = min(twice)
        raise WeightsError(
            f"{names[name]} and {beside_it[name]} are both {name} of one network.",
            fix="Save the network alone: torch.save(network.state_dict(), PATH).",
        )
    names.update(beside_it)


def _sorted_out(
    prefix: str, owned: list[str], tensors: Mapping[str, StoredTensor]
) -> tuple[dict[str, str], list[Dropped]]:
    """What is the network's, which the strict check will see, and what is known to stand beside it."""
    names: dict[str, str] = {}
    dropped: list[Dropped] = []
    for full in owned:
        name = full.removeprefix(prefix)
        is_inside = _INSIDE.fullmatch(name) is not None or name in MARKS.values()
        reason = beside.reason_of(name, None if is_inside else tensors[full])
        if reason is None:
            names[name] = full
        else:
            dropped.append(Dropped(full, reason))
    return names, dropped


def _beside(prefix: str, tensors: Mapping[str, StoredTensor]) -> dict[str, str]:
    """The parts of the network that some families keep beside its prefix: MMPretrain's classifier."""
    if not prefix.endswith("backbone.") or f"{prefix}xca_layers.0.attn.temperature" not in tensors:
        return {}
    parent = prefix.removesuffix("backbone.")
    starts = tuple(f"{parent}{part}" for layout in LAYOUTS.values() for part in layout.beside)
    return {name.removeprefix(parent): name for name in tensors if starts and name.startswith(starts)}


def _choose(
    networks: list[str], averages: set[str], tensors: Mapping[str, StoredTensor], asked: Asked
) -> tuple[str, tuple[str, ...]]:
    if asked.prefix is not None or asked.select is not None:
        chosen = _asked_for(networks, asked)
        if asked.ema and chosen not in averages:
            raise WeightsError(
                f"The averaged (EMA) weights were asked for, and {_shown(chosen)} holds others.",
                fix="Leave out --ema, or --select and --prefix.",
            )
        return chosen, ()
    averaged = [prefix for prefix in networks if prefix in averages]
    plain = [prefix for prefix in networks if prefix not in averages]
    if asked.ema and not averaged:
        raise WeightsError("There are no averaged (EMA) weights in the file.", fix="Leave out --ema.")
    students, teachers = (_with_part(networks, part) for part in ("student", "teacher"))
    if not asked.ema and len(students) == len(teachers) == 1:
        if not any(_DINO.fullmatch(name) for name in tensors):
            raise _several(networks)
        return teachers[0], (
            "The file holds DINO's student and teacher; took the teacher, which is what DINO publishes. "
            "--select student takes the other.",
        )
    if _MMENGINE in tensors and len(plain) == len(averaged) == 1:
        return averaged[0], (
            "mmengine saves the averaged weights as state_dict and the plain ones as ema_state_dict; took the averaged "
            "ones, which it loads itself. --select ema_state_dict takes the plain ones.",
        )
    wanted = averaged if asked.ema or not plain else plain
    if len(wanted) > 1:
        raise _several(wanted)
    if plain and averaged:
        taken, left = ("averaged", "plain") if asked.ema else ("plain", "averaged (EMA)")
        return wanted[0], (f"Plain and averaged weights were both there; took the {taken} ones, left the {left} ones.",)
    if averaged and not asked.ema:
        return wanted[0], ("Only averaged (EMA, teacher) weights were there; took those.",)
    return wanted[0], ()


def _asked_for(networks: list[str], asked: Asked) -> str:
    found = networks
    if asked.prefix is not None:
        found = [prefix for prefix in found if prefix.rstrip("./:_") == asked.prefix.rstrip("./:_")]
    if asked.select is not None:
        found = [prefix for prefix in found if asked.select in (_shown(prefix), *prefix.split("."))]
    if len(found) == 1:
        return found[0]
    given = {"--prefix": asked.prefix, "--select": asked.select}
    how = " with ".join(f"{option} {value}" for option, value in given.items() if value is not None)
    raise WeightsError(
        f"{how} means {'several' if found else 'none'} of the networks in the file: {_listed(found or networks)}.",
        fix="Give one of them whole.",
    )


def _several(networks: list[str]) -> WeightsError:
    return WeightsError(
        f"The file holds more than one network of the same kind: {_listed(networks)}.",
        fix=f"Say which: --select NAME, for example --select {_shown(networks[0])}.",
    )


def _with_part(networks: list[str], part: str) -> list[str]:
    return [prefix for prefix in networks if part in prefix.split(".")]


def _is_averaged(prefix: str, tensors: Iterable[str]) -> bool:
    if _MMENGINE in tensors and prefix.startswith(("state_dict.", "ema_state_dict.")):
        return prefix.startswith("state_dict.")
    return any(_AVERAGED.fullmatch(part) for part in prefix.split(".")[:-1])


def _shown(prefix: str) -> str:
    return prefix.rstrip("./:_") or _TOP


def _listed(networks: list[str]) -> str:
    return ", ".join(map(_shown, networks))


def _reason_left(prefix: str, chosen: str, networks: list[str], averaged: set[str]) -> Reason:
    if prefix in networks:
        if (prefix in averaged) == (chosen in averaged):
            return Reason.NOT_SELECTED
        return Reason.AVERAGED if prefix in averaged else Reason.PLAIN
    return Reason.AVERAGED if prefix in averaged and chosen not in averaged else Reason.OPTIMIZER


def _notes(dropped: list[Dropped]) -> list[str]:
    notes = []
    count = sum(entry.reason is Reason.OPTIMIZER for entry in dropped)
    if count:
        notes.append(f"Dropped {count} tensors of optimizer or training state.")
    for reason, words in ((Reason.OUTSIDE, "outside of the network"), (Reason.OTHER_HEAD, "of another head")):
        names = [entry.name for entry in dropped if entry.reason is reason]
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        whole = (
            " xcit_hub.load_segmenter takes a segmenter whole."
            if any(".decode_head." in f".{n}" for n in names)
            else ""
        )
        if names:
            notes.append(f"Dropped {len(names)} tensors {words}: {', '.join(names[:_LISTED])}{more}.{whole}")
    return notes
