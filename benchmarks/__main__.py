"""``python -m benchmarks``: the suites, the page of their results, and one wheel beside another."""

from __future__ import annotations

import typer

from benchmarks.compare import compare
from benchmarks.measure import measure
from benchmarks.page import SETTINGS, page
from benchmarks.suites import SUITES
from xcit_hub.cli import run

_EPILOGUE = """
Every contender has a process of its own and is idle while another has its turn. Medians, quartiles of the ratio of each
round, peak resident memory. Exits 1 if a contender broke; one that is not installed is only named.

Examples:

    python -m benchmarks inference xcit_tiny_12_p16_224 --batch 1 --batch 16 --rounds 5

    python -m benchmarks training --batch 16 --json training.json

    python -m benchmarks scaling xcit_nano_12_p16_224 --size 224 --size 896 --size 4000x6000 --plot scaling.svg

    python -m benchmarks inference --python OTHER_ENVIRONMENT/bin/python

    python -m benchmarks input --workers 2 --photographs DIR

    python -m benchmarks predict --rounds 5

    python -m benchmarks zoo xcit_nano_12_p8_224 xcit_large_24_p8_384 --contender 'timm, eager' --contender 'xcit-hub*'

    python -m benchmarks compare OLD_WHEEL NEW_WHEEL --rounds 10 --json compared.json

    python -m benchmarks page inference training
"""

app = typer.Typer(
    name="benchmarks",
    help="Measure speed and memory beside timm, torch.compile, MindCV and the machine's own limit, in one run."
    + _EPILOGUE,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
for _name, _suite in SUITES.items():
    app.command(_name, help=f"Measure {_suite.explanation}.")(measure)
app.command()(compare)
app.command(context_settings=SETTINGS)(page)

if __name__ == "__main__":
    run(app)
