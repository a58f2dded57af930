"""``xcit-hub doctor``: what this machine has, what it lacks, and whether it trains as it should."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from xcit_hub.cli.shared import AsJson, console, refuse_without

_STYLES = {"ok": "green", "missing": "yellow", "wrong": "red"}


class Device(str, Enum):
    """What the machine is judged as."""

    auto = "auto"
    CPU = "CPU"
    Ascend = "Ascend"


def doctor(
    context: typer.Context,
    device: Annotated[Device, typer.Option(help="Judge it as a machine with this device; auto: by what it has.")] = (
        Device.auto
    ),
    online: Annotated[bool, typer.Option("--online", help="Also ask each hub whether it answers.")] = False,
    accept: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also run: parity in each dtype, 50 steps of training, the same under msrun, and the time beside "
            "the Hub card's; everything goes into this JSON file.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=2, max=1024, help="With --accept: workers under msrun; 8, on a CPU 2.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at driver, CANN, HCCL, versions, variables, cache and hubs. Exits 1 if something needed is missing or wrong.

    Nothing is changed, and without --online nothing leaves the machine.

    Examples:

        xcit-hub doctor

        xcit-hub doctor --device Ascend --online --json

        xcit-hub doctor --accept acceptance.json

        xcit-hub doctor --device CPU --accept acceptance.json
    """
    from xcit_hub.doctor.examine import examine
    from xcit_hub.doctor.finding import Machine

    refuse_without("--accept", accept, context, "workers")
    machine = Machine(device=device.value)
    if accept is not None:
        from xcit_hub.doctor.accept import refuse_unless_fit

        refuse_unless_fit(machine, accept)
    findings = []
    for finding in examine(machine, online=online):
        findings.append(finding)
        if not as_json:
            printed = console()
            style = _STYLES[finding.state] if finding.needed else "dim"
            printed.print(f"{finding.state:8}{finding.name}: {finding.says}", style=style, markup=False)
            if finding.state != "ok" and finding.do:
                printed.print(f"{'':8}do: {finding.do}", style=style, markup=False)
    failed = [finding.name for finding in findings if finding.fails]
    record = {"ok": not failed, "findings": [asdict(finding) for finding in findings]}
    if accept is not None:
        from xcit_hub.doctor.accept import accept as run

        acceptance = run(machine, accept, record, workers=workers, stage=None if as_json else typer.echo)
        failed += [name for name, passed in acceptance["passed"].items() if passed is False]
        record |= {"ok": not failed, "acceptance": acceptance}
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    elif failed:
        typer.echo(f"to mend: {', '.join(failed)}")
    if failed:
        raise typer.Exit(1)
