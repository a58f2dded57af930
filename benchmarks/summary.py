"""README's table: how many times as fast as its peers one network is, on each processor measured."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import tables
from benchmarks.deploying import ONNXRUNTIME, OPENVINO
from benchmarks.networks import FUSED, MINDCV, OURS, TIMM, TIMM_COMPILED
from benchmarks.result import Result

_PEERS = {
    TIMM: "timm eager",
    TIMM_COMPILED: "torch.compile",
    OPENVINO: "OpenVINO",
    ONNXRUNTIME: "onnxruntime",
    MINDCV: "MindCV",
}


def markdown(inference: Sequence[Result], deployment: Sequence[Result], training: Sequence[Result]) -> str:
    """Return the table; a cell is the median of the rounds' ratios with their quartiles, from a run that has both.

    Args:
        inference, deployment, training: the suites' kept results, one for each processor and instruction set.
    """
    lines = [f"| | {' | '.join(_PEERS.values())} |", f"|---|{'---|' * len(_PEERS)}"]
    measured = []
    every = (*deployment, *inference, *training)
    for place in dict.fromkeys(map(_place, every)):
        forward, exported, steps = (
            [each for each in results if _place(each) == place] for results in (inference, deployment, training)
        )
        lines.append(f"| **{place}** |{' |' * len(_PEERS)}")
        for batch in (1, 16):
            lines += _line(f"inference, `fuse()`, batch {batch}", [*exported, *forward], FUSED, batch)
            lines += _line(f"inference, batch {batch}", forward, OURS, batch)
        lines += _line("training step, batch 16", steps, OURS, 16)
        runs = dict.fromkeys(each.measured for each in every if _place(each) == place)
        measured.append(f"{place}: {' and '.join(runs)}")
    return "\n".join([*lines, "", f"Measured: {'; '.join(measured)}.", ""])


def _place(result: Result) -> str:
    instructions, processor = (result.machine.get(name, f"unknown {name}") for name in ("instructions", "processor"))
    return f"{instructions}, {processor}"


def _line(name: str, results: Sequence[Result], contender: str, batch: int) -> list[str]:
    """Return a row, or none where nothing was measured."""
    cells = [_ratio(results, contender, peer, batch) for peer in _PEERS]
    return [f"| {name} | {' | '.join(cells)} |"] if any(cells) else []


def _ratio(results: Sequence[Result], contender: str, peer: str, batch: int) -> str:
    """Return the ratio of the first comparison that has both."""
    comparisons = [each for result in results for each in result.comparisons if each.case.batch == batch]
    pairs = [(each, each.row(contender)) for each in comparisons]
    ratios = [tables.spread(each.times_as_fast(row, peer)) for each, row in pairs if row is not None]
    return next(filter(None, ratios), "")
