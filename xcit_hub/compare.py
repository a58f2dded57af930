"""Two networks, wherever they are: what their descriptions say, what their tensors hold, what they compute.

A proof (:mod:`xcit_hub.parity`) puts one file into two frameworks, and cannot see that the file holds other weights
than it should. This holds one network against another, tensor by tensor, and runs both in MindSpore on the same images.
An exported file has no tensors to hold: it is run by its own runtimes and judged by the rule of the proof, PyTorch's
network in double precision on the other side's weights being the truth.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xcit_hub import parity
from xcit_hub.checkpoints.strings import PREPROCESSING
from xcit_hub.errors import InputError
from xcit_hub.exported import refuse_other_format, strange_strings
from xcit_hub.exporters import interface, runtimes
from xcit_hub.exporters.interface import Interface
from xcit_hub.hub import metadata as strings
from xcit_hub.hub.config import ModelConfig
from xcit_hub.hub.locate import locate, locate_each
from xcit_hub.hub.network import XCiT
from xcit_hub.hub.read import read
from xcit_hub.junit import Case
from xcit_hub.parity import Distance
from xcit_hub.parity.networks import our_outputs
from xcit_hub.variants import DialectName

if TYPE_CHECKING:
    from xcit_hub.exporters.proof import FileProof

KINDS = ("description", "preprocessing", "tensor", "output")
"""What two networks can differ in."""

Arrays = Mapping[str, NDArray[np.generic]]

_BATCH = 2
_DESCRIPTION = ("xcit_hub.architecture", "xcit_hub.dialect", "xcit_hub.labels")  # what an exported file says of itself


@dataclass(frozen=True)
class Difference:
    """One thing in which two networks differ.

    Args:
        kind: one of :data:`KINDS`.
        what: the field, tensor, block or output.
        how: in a few words, the first network's side before the second's.
    """

    kind: str
    what: str
    how: str

    def __str__(self) -> str:
        return f"{self.kind} {self.what}: {self.how}"


@dataclass(frozen=True)
class Output:
    """How far the second network's output is from the first's, as fractions of the first's root mean square.

    Of an exported file: how far it is from the other side's network in double precision.
    """

    what: str
    rms: float
    largest: float


@dataclass(frozen=True)
class Comparison:
    """What was found: every difference, in the order description, preprocessing, tensors, outputs.

    Args:
        outputs: in the order in which the network computes them; empty where the tensors' shapes differ.
        image_size: side of the images that both saw; None where they saw none.
        not_compared: why some of :data:`KINDS` were not held against each other, by kind.
        notes: what was assumed, chosen or left out while each was read; of ``first`` and of ``second``.
    """

    first: str
    second: str
    differences: tuple[Difference, ...]
    outputs: tuple[Output, ...]
    image_size: int | None
    not_compared: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether nothing differs of what was compared."""
        return not self.differences

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        return {"format": 1, "equal": self.equal, **asdict(self)}

    def remarks(self) -> tuple[str, ...]:
        """Return, a sentence each, what has to be known beside the verdict: of each side, and what was not compared."""
        told = [
            f"{name}: {note}"
            for side, name in (("first", self.first), ("second", self.second))
            for note in self.notes.get(side, ())
        ]
        return (*told, *(f"{kind} not compared: {reason}" for kind, reason in self.not_compared.items()))

    def cases(self) -> tuple[Case, ...]:
        """Return a case of a JUnit report for each kind of thing that two networks can differ in."""
        of = f"{self.first} against {self.second}"
        failures = {kind: "\n".join(str(each) for each in self.differences if each.kind == kind) for kind in KINDS}
        return tuple(Case(of, kind, failures[kind], skipped=self.not_compared.get(kind, "")) for kind in KINDS)

    def __str__(self) -> str:
        if self.equal:
            left_out = f" (not compared: {', '.join(self.not_compared)})" if self.not_compared else ""
            return f"{self.first} and {self.second} are equal{left_out}"
        rest = f"; {len(self.differences) - 1} more" if len(self.differences) > 1 else ""
        return f"{self.first} and {self.second} are NOT equal: {self.differences[0]}{rest}"


def compare(
    first: str,
    second: str,
    *,
    dialect: DialectName | None = None,
    image_size: int | None = None,
    ignore_fields: Sequence[str] = (),
    stage: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Compare two networks by whatever :func:`xcit_hub.load` takes: a file, a folder, an id, a timm name.

    One of them may be an exported file (.onnx, .mindir), of whatever exporter; that needs the ``timm`` extra.

    Args:
        dialect: for files that do not say theirs.
        image_size: side of the images both are run on; :func:`xcit_hub.parity.proof_size` of the first by default.
        ignore_fields: fields of either's description to read as if they were not there.
        stage: told in a few words what is going on.

    Raises:
        XcitHubError: one of them cannot be had or read.
    """
    files = [name for name in (first, second) if Path(name).suffix in interface.RUNTIMES]
    if len(files) == 2:
        raise InputError(
            "Both are exported files, and the truth of a proof comes from the weights.",
            where=f"{first}, {second}",
            fix="Compare each of them with what it was exported from.",
        )
    if files:
        return _of_file(first, second, Path(files[0]), dialect, image_size, ignore_fields, stage)
    sides: list[tuple[Arrays, ModelConfig]] = []
    for located in locate_each((first, second), ignore_fields=ignore_fields):
        stage(f"reading {located.address}")
        weights, described = read(located, dialect)
        sides.append((weights.arrays(), described))
    (ours, one), (theirs, other) = sides
    stage("tensors")
    differences = [*_described(one, other), *_tensors(ours, theirs)]
    outputs: list[Output] = []
    side = None
    not_compared = {"output": "the tensors have other names or shapes, so nothing was computed"}
    if {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}:
        not_compared = {}
        side = image_size or parity.proof_size(one.shape)
        outputs = list(_outputs((ours, one), (theirs, other), side, stage))
        differences += [
            Difference("output", output.what, f"apart by {output.rms:.1e} of its root mean square")
            for output in outputs
            if not output.rms <= parity.FLOOR * parity.UNIT_ROUNDOFF["float32"]
        ]
    notes = {"first": one.provenance.notes, "second": other.provenance.notes}
    return Comparison(first, second, tuple(differences), tuple(outputs), side, not_compared, notes)


def _of_file(
    first: str,
    second: str,
    file: Path,
    dialect: DialectName | None,
    image_size: int | None,
    ignore_fields: Sequence[str],
    stage: Callable[[str], None],
) -> Comparison:
    """Hold an exported file against a network: what it says of itself, and what each of its runtimes computes."""
    from xcit_hub.exporters.proof import prove

    found = interface.read(file)
    refuse_other_format(found.metadata, file)
    is_first = Path(first) == file
    network = second if is_first else first
    stage(f"reading {network}")
    located = locate(network, ignore_fields=ignore_fields)
    weights, described = read(located, dialect)
    preprocessing = described.preprocessing
    form = found.form(
        num_classes=described.num_classes,
        in_chans=described.in_chans,
        global_pool=described.global_pool,
        mean=preprocessing.mean,
        std=preprocessing.std,
        image_size=image_size,
        where=file,
    )
    if form.features and form.features[-1] >= described.shape.depth:
        raise InputError(
            f"The file gives block {form.features[-1]}, and {network} has {described.shape.depth}.",
            where=file,
            fix="Hold it against the model that it was exported from.",
        )
    named = described if form.has_classes else replace(described, labels=())
    differences = list(_told(found, named, file, is_first))
    chosen = [runtime for runtime in interface.RUNTIMES[file.suffix] if runtimes.installed(runtime)]
    if not chosen:
        missing = interface.RUNTIMES[file.suffix][0]
        raise InputError(
            f"Nothing that runs this file is installed ({missing}).", where=file, fix=f"pip install {missing}"
        )
    outputs: list[Output] = []
    arrays = {name: np.asarray(array, np.float32) for name, array in weights.arrays().items()}
    for proof in prove(file, chosen, arrays, described.shape, described.dialect, form, stage):
        outputs += _judged(proof)
        differences += _beyond(proof, " (the file computes in int8, which rounds by intention)" if found.int8 else "")
    side = form.image_size[0] if form.image_size and form.image_size[0] == form.image_size[1] else None
    of_file, of_network = strange_strings(found.metadata), described.provenance.notes
    notes = dict(zip(("first", "second"), (of_file, of_network) if is_first else (of_network, of_file), strict=True))
    return Comparison(first, second, tuple(differences), tuple(outputs), side, _not_told(found.metadata), notes)


def _not_told(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return what an exported file gives nothing to compare of, and why."""
    lacking = {"description": _DESCRIPTION, "preprocessing": (PREPROCESSING,)}
    silent = {
        kind: f"the file says nothing of it: no {' or '.join(names)}"
        for kind, names in lacking.items()
        if not set(names) & set(metadata)
    }
    return {**silent, "tensor": "an exported file has no tensors to hold against the network's"}


def _told(found: Interface, described: ModelConfig, file: Path, is_first: bool) -> Iterator[Difference]:
    """Hold what a file says of itself against a network's description; a file of another exporter says nothing."""
    metadata = found.metadata
    for name, value in (("architecture", described.architecture), ("dialect", described.dialect)):
        if (told := metadata.get(f"xcit_hub.{name}")) is not None:
            yield from _field("description", name, *_in_order(told, value, is_first))
    if (
        described.labels
        and (told := metadata.get("xcit_hub.labels")) is not None
        and not _names(told, described.labels)
    ):
        yield Difference("description", "labels", "other names, or in another order")
    if PREPROCESSING in metadata:
        yield from _told_of_images(found, described, file, is_first)


def _told_of_images(found: Interface, described: ModelConfig, file: Path, is_first: bool) -> Iterator[Difference]:
    ours = strings.preprocessing_from_metadata(found.metadata[PREPROCESSING], file)
    lacking = strings.not_said_of_images(found.metadata)
    side = "first" if is_first else "second"
    yield from (Difference("preprocessing", name, f"the {side} does not say it") for name in lacking)
    names = [each.name for each in fields(ours) if each.name not in lacking]
    if None not in found.size:  # the only one that it takes, and it need not be the model's
        names = [name for name in names if name not in ("image_size", "image_width")]
        if ours.size != found.size:
            says, takes = ("×".join(map(str, size)) for size in (ours.size, found.size))
            yield Difference("preprocessing", "image_size", f"the {side} says {says}, and takes {takes} alone")
    for name in names:
        told, own = (getattr(each, name) for each in (ours, described.preprocessing))
        yield from _field("preprocessing", name, *_in_order(told, own, is_first))


def _in_order(of_file: object, of_network: object, is_first: bool) -> tuple[object, object]:
    """Return the first's value before the second's."""
    return (of_file, of_network) if is_first else (of_network, of_file)


def _names(told: str, labels: Sequence[str]) -> bool:
    try:
        return bool(json.loads(told) == list(labels))
    except (ValueError, RecursionError):
        return False


def _judged(proof: FileProof) -> Iterator[Output]:
    for check in proof.checks:
        scale = check.scale or 1.0
        yield Output(f"{check.what}, {proof.runtime}", check.ours.rms / scale, check.ours.largest / scale)


def _beyond(proof: FileProof, remark: str) -> Iterator[Difference]:
    for check in proof.checks:
        if not check.passed:
            how = check.remark or f"apart by {check.error:.1e} of its root mean square, {check.bar:.1e} is allowed"
            yield Difference("output", f"{check.what}, {proof.runtime}", how + remark)


def _described(one: ModelConfig, other: ModelConfig) -> Iterator[Difference]:
    for name in (each.name for each in fields(one.shape)):
        if name not in ("name", "image_size"):  # preprocessing says the size
            yield from _field("description", name, getattr(one.shape, name), getattr(other.shape, name))
    for name in ("dialect", "num_classes", "in_chans", "global_pool"):
        yield from _field("description", name, getattr(one, name), getattr(other, name))
    if one.labels and other.labels and one.labels != other.labels:  # a bare file names none
        at = next((i for i, pair in enumerate(zip(one.labels, other.labels, strict=False)) if len({*pair}) > 1), None)
        how = f"{len(one.labels)} and {len(other.labels)} names"
        yield Difference("description", "labels", how + (f", the first to differ is {at}" if at is not None else ""))
    for name in (each.name for each in fields(one.preprocessing)):
        values = (getattr(each.preprocessing, name) for each in (one, other))
        yield from _field("preprocessing", name, *values)


def _field(kind: str, name: str, one: object, other: object) -> Iterator[Difference]:
    if one != other:
        yield Difference(kind, name, f"{one} and {other}")


def _tensors(ours: Arrays, theirs: Arrays) -> Iterator[Difference]:
    for missing, side in ((ours.keys() - theirs.keys(), "first"), (theirs.keys() - ours.keys(), "second")):
        yield from (Difference("tensor", name, f"in the {side} alone") for name in sorted(missing))
    digests = [{name: _digest(value) for name, value in side.items()} for side in (ours, theirs)]
    moved = dict(_moved_blocks(*digests))
    for block, origin in moved.items():
        yield Difference("tensor", block, f"the second holds there what the first holds in {origin}")
    where = {digest: name for name, digest in digests[0].items()}
    for name, value in ours.items():
        if name in theirs and digests[0][name] != digests[1][name] and _block(name) not in moved:
            yield Difference("tensor", name, _how(value, theirs[name], where.get(digests[1][name])))


def _how(one: NDArray[Any], other: NDArray[Any], origin: str | None) -> str:
    if one.shape != other.shape:
        return f"of shape {one.shape} and {other.shape}"
    if origin is not None:
        return f"the second holds there what the first holds in {origin}"
    apart = Distance.between(other, one)
    count = int(np.count_nonzero(one != other))
    figures = f"{count} of {one.size} elements differ, by {apart.largest:.1e} at most"
    if np.array_equal(np.sort(one, axis=None), np.sort(other, axis=None)):
        return f"the same values in another order; {figures}"
    return figures


def _moved_blocks(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Pair the blocks of the second that hold, as a whole, what another block of the first holds, with that one."""
    contents: list[dict[str, dict[str, str]]] = [{}, {}]
    for side, digests in zip(contents, (ours, theirs), strict=True):
        for name, digest in digests.items():
            if (block := _block(name)) is not None:
                side.setdefault(block, {})[name.removeprefix(block)] = digest
    for block, content in contents[1].items():
        origin = next((name for name, held in contents[0].items() if held == content), None)
        if origin is not None and contents[0].get(block) != content:
            yield block, origin


def _block(name: str) -> str | None:
    kind, _, rest = name.partition(".")
    return f"{kind}.{rest.partition('.')[0]}" if kind in ("blocks", "cls_attn_blocks") else None


def _digest(value: NDArray[Any]) -> str:
    """Return the digest of an array's shape and values, whatever type holds them."""
    with np.errstate(over="ignore"):
        narrow = value.astype(np.float32, copy=False)
    held = narrow if narrow is value or np.array_equal(narrow, value) else value
    held = np.where(held == 0, np.zeros((), held.dtype), held)  # zero of either sign is one value
    return hashlib.sha256(repr(held.shape).encode() + held.tobytes()).hexdigest()


def _outputs(
    one: tuple[Arrays, ModelConfig], other: tuple[Arrays, ModelConfig], side: int, stage: Callable[[str], None]
) -> Iterator[Output]:
    images = parity.random_images(_BATCH, one[1].in_chans, side, side)
    found = []
    for which, (arrays, described) in zip(("first", "second"), (one, other), strict=True):
        stage(f"running the {which}")
        # Both sides are computed by the same code: how it is called is no question here.
        found.append(our_outputs(XCiT.of_config(described, arrays), images, in_one_pass=True))
    for what in sorted(found[0], key=lambda name: not name.startswith("blocks.")):
        if found[0][what].shape == found[1][what].shape:
            distance = Distance.between(found[1][what], found[0][what])
            scale = float(np.sqrt(np.mean(np.square(found[0][what], dtype=np.float64))))
            yield Output(what, *(value / scale if scale else value for value in (distance.rms, distance.largest)))
