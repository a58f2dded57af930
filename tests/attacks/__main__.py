"""``python -m tests.attacks``: everything in this folder that tries to do harm, and a table of what came of it.

Exit code 1 if anything was wrongly accepted, ended in a traceback or left something behind.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from ledger import Case, Row, attempt  # noqa: E402
from suite import ATTACKS, chosen  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__.partition("\n")[0])
    names = [attack.name for attack in ATTACKS]
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"only these, of: {', '.join(names)}")
    parser.add_argument("--sample", action="store_true", help="only as many of each as the ordinary tests try")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    given = parser.parse_args()
    if unknown := set(given.attacks) - set(names):
        parser.error(f"no such attack: {', '.join(sorted(unknown))}")
    _warm_up()
    rows = []
    for attack in ATTACKS:
        if given.attacks and attack.name not in given.attacks:
            continue
        cases = chosen(attack, given.seed, whole=not given.sample)
        cases = [case for case in cases if given.only in case.name]
        rows.append(attempt(attack, cases, _Progress(attack.name, len(cases))))
        print(f"\r\033[K{_line(rows[-1])}", file=sys.stderr, flush=True)
        for kind in ("wrong", "tracebacks", "leftovers"):
            for fault in getattr(rows[-1], kind):
                print(f"  {kind}: {fault}", file=sys.stderr, flush=True)
    print(json.dumps([row.as_dict() for row in rows], indent=1) if given.json else _table(rows))
    return 0 if rows and all(row.held for row in rows) else 1


def _warm_up() -> None:
    """Import and make what every attack needs, so that its peak memory is its own."""
    import torch  # noqa: F401
    import victims

    victims.published()
    victims.repository()


class _Progress:
    def __init__(self, attack: str, count: int) -> None:
        self.attack, self.count, self.done = attack, count, 0

    def __call__(self, case: Case) -> None:
        self.done += 1
        if sys.stderr.isatty():
            shown = f"{self.attack} {self.done}/{self.count} {case.name:.60}"
            print(f"\r\033[K{shown}", end="", file=sys.stderr, flush=True)


def _line(row: Row) -> str:
    return (
        f"{row.attack}: {row.tried} tried, {len(row.wrong)} wrong, {len(row.tracebacks)} tracebacks, "
        f"{len(row.leftovers)} leftovers, {row.seconds:.0f} s"
    )


def _table(rows: list[Row]) -> str:
    lines = [
        "| attack | tried | wrong accepts | tracebacks | leftovers | peak memory, MB | longest, s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        figures = (row.tried, len(row.wrong), len(row.tracebacks), len(row.leftovers), row.peak_mb)
        lines.append(f"| {row.attack} | {' | '.join(f'{figure:,}' for figure in figures)} | {row.longest:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
