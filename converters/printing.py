"""What a command tells of a conversion or a file, on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xcit_hub.errors import readable

if TYPE_CHECKING:
    from rich.console import Console

    from xcit_hub.checkpoints.inspection import Inspection
    from xcit_hub.checkpoints.report import Report

# One screen: what is longer is in the JSON.
_MOST_LINES = 12
_MOST_NAMES = 8


def print_report(console: Console, report: Report) -> None:
    """Tell what a conversion read, decided, left out and wrote."""
    weights = report.weights
    source, target = report.source, report.target
    console.print(
        f"read    {source['path']} ({source['family']}, {source['format']}, {_size(source['bytes'])})", markup=False
    )
    console.print(f"        {summary(report)}", markup=False)
    console.print(f"        {weights.dialect} dialect: {weights.evidence}", markup=False)
    for note in weights.notes:
        console.print(f"note    {readable(note)}", style="yellow", markup=False)
    _print_grouped(console, "dropped", [(entry.name, entry.reason.value) for entry in weights.dropped])
    for group in report.left:
        _print_group(console, "left", group["reason"], group["names"], group["count"], of="entries")
    _print_grouped(console, "made up", [(entry["name"], entry["reason"]) for entry in report.made_up])
    if target is None:
        console.print("wrote   nothing: the result failed its proof; what was there before is untouched", style="red")
    else:
        console.print(
            f"wrote   {target['path']} ({target['family']}, {target['format']}, {_size(target['bytes'])})", markup=False
        )
        mapped = sum(bool(entry["source"]) for entry in report.tensors)
        console.print(f"        {mapped} parameters mapped, {report.seconds:.2f} s")
        console.print(f"        sha256 {target['sha256']}")
    if report.parity is not None:
        _print_parity(console, report, report.parity)


def print_left_out(console: Console, left: Mapping[str, Sequence[str]]) -> None:
    """Tell what of a folder was not converted: the reason → the paths."""
    for reason, paths in left.items():
        _print_group(console, "left", reason, paths, len(paths), of="entries")


def verdict(report: Report | None) -> str:
    """Say in words how the proof of a conversion went."""
    from xcit_hub import parity

    return parity.verdict((report and report.parity) or {})


def _print_parity(console: Console, report: Report, parity: dict[str, Any]) -> None:
    console.print(f"proved  {verdict(report)}", style=None if parity["passed"] else "red", markup=False)


def _print_grouped(console: Console, title: str, entries: list[tuple[str, str]]) -> None:
    by_reason: dict[str, list[str]] = {}
    for name, reason in entries:
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        _print_group(console, title, reason, names, len(names), of="tensors")


def _print_group(console: Console, title: str, reason: str, names: Sequence[str], count: int, *, of: str) -> None:
    first = "…" if not names else names[0] if names[0].isprintable() else repr(names[0])  # it may steer a terminal
    first = readable(first)
    listed = first if count == 1 else f"{count:,} {of} ({first} …)"
    console.print(f"{title:8}{listed}: {reason}", markup=False)


def print_inspection(console: Console, found: Inspection) -> None:
    """Tell what is in a file, in one screen."""
    rows: list[tuple[str, object]] = [
        ("file", f"{found.path} ({found.format}, {_size(found.bytes)})"),
        ("sha256", found.sha256),
        ("family", _family(found)),
        ("architecture", found.architecture or "unknown"),
        ("dialect", f"{found.dialect}: {found.evidence}" if found.dialect else "unknown"),
    ]
    if found.parameters is not None:
        rows += [
            ("kind", f"{found.kind}, {found.num_classes} classes, {found.in_chans} input channels"),
            ("parameters", f"{found.parameters:,}"),
        ]
    rows += [
        ("tensors", f"{found.tensors}; " + ", ".join(f"{count} {dtype}" for dtype, count in found.dtypes.items())),
        ("averaged weights", "yes" if found.averaged else "no"),
        ("optimizer state", "yes" if found.optimizer else "no"),
    ]
    if found.normalization is not None:
        mean, std = found.normalization
        rows.append(("normalisation", f"mean {mean}, deviation {std}"))
    for flaw, counts in found.flaws.items():
        listed = ", ".join(f"{count} in {name}" for name, count in counts.items())
        rows.append((flaw.replace("_", " "), f"{sum(counts.values())}: {listed}"))
    rows += [("config", found.config)] if found.config else []
    rows += [(f"not taken: {count}", reason) for reason, count in found.dropped.items()]
    rows += [("metadata", f"{key} = {value[:200]}") for key, value in list(found.metadata.items())[:_MOST_LINES]]
    for title, names in (("other values", found.values), ("packed with", found.packed_with)):
        if names:
            more = ", …" if len(names) > _MOST_NAMES else ""
            rows.append((title, f"{len(names)}: {', '.join(names[:_MOST_NAMES])}{more}"))
    rows += [("note", note) for note in found.notes]
    for title, value in rows:
        console.print(f"{readable(title):20}{readable(str(value))}", markup=False)
    for entry in found.entries:
        shape = "×".join(map(str, entry.shape)) or "scalar"
        console.print(f"{entry.sha256[:16]}  {entry.dtype:9}{shape:16}{readable(entry.name)}", markup=False)
    if found.fault:
        console.print(readable(found.fault), style="yellow", markup=False)
    if found.advice:
        console.print(found.advice, markup=False)


def summary(report: Report) -> str:
    """Say in a line what network was converted."""
    weights = report.weights
    parts = f"{weights.num_classes} classes" if weights.num_classes else f"{weights.kind} without a classifier"
    parts += " (not trained)" if weights.head_untrained else ""
    dtypes = sorted({entry["dtype"] for entry in report.tensors})
    return f"{weights.architecture.name}, {parts}, {weights.in_chans} channels, {' and '.join(dtypes)}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count} bytes"


def _family(found: Inspection) -> str:
    """Whose names the tensors have; ours are MindCV's, and a file of ours says so."""
    if found.family == "mindcv" and found.metadata.get("xcit_hub.family") == "xcit-hub":
        return "xcit-hub, whose names are MindCV's"
    return found.family or "unknown"
