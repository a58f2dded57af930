"""``python -m tests.online``: every published checkpoint, where it really is. For whoever has a network, not for CI.

Each address of the table is visited, its bytes, digest and description are held against the table, the weights are
loaded, proven against PyTorch, and asked about three labelled photographs. Everything goes into one JSON file, to be
attached to an issue; exit code 1 where something did not hold. All of it fetches some 25 GB and takes hours: begin with
``--names 'xcit_nano*'``. A token is needed for nothing; HF_TOKEN is used where it is set.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from visit import Bounds, Step, photographs, visit  # noqa: E402

from xcit_hub.errors import XcitHubError  # noqa: E402
from xcit_hub.files import write_text  # noqa: E402
from xcit_hub.variants import CHECKPOINTS, PublishedCheckpoint  # noqa: E402

SITES = ("hugging-face", "mindspore-hub", "modelers", "modelscope", "gitcode")
_NOBODYS = "xcit-hub-asks/for-a-model-that-nobody-has"


def main(words: Sequence[str] | None = None, entries: Sequence[PublishedCheckpoint] | None = None) -> int:
    """Visit what was asked for; return the exit code."""
    given = _arguments(words)
    wanted = [entry for entry in entries or CHECKPOINTS.values() if fnmatchcase(entry.name, given.names)]
    if not wanted:
        print(f"no published checkpoint is called {given.names}", file=sys.stderr)
        return 2
    bounds = Bounds(int(given.gigabytes_a_file * 1e9), int(given.gigabytes * 1e9), given.minutes_a_file * 60)
    record: dict[str, Any] = {"format": 1, "versions": _versions(), "sites": [], "checkpoints": []}
    if given.sites:
        record["sites"] = [_site(name) for name in given.sites.split(",")]
        for site in record["sites"]:
            _say(f"{site['site']}: {site['said']}")
    shown = photographs()
    began = time.monotonic()
    for number, entry in enumerate(wanted, 1):
        with tempfile.TemporaryDirectory(prefix="xcit-hub-online-") as folder:
            found = visit(entry, Path(folder), bounds, shown)
        record["checkpoints"].append(found.as_dict())
        write_text(given.json, json.dumps(record, indent=1) + "\n")  # whatever ends the visits, this much stays
        minutes = (time.monotonic() - began) / 60
        _say(f"{number} of {len(wanted)}, {minutes:.0f} min, {bounds.taken / 1e9:.1f} GB: {entry.name}")
        for step in found.steps:
            _say(f"    {_mark(step)} {step.name}: {step.said}")
    held = [each["held"] for each in record["checkpoints"]]
    reached = [site["reached"] for site in record["sites"]]
    _say(f"{sum(held)} of {len(held)} checkpoints are as the table says; the record is {given.json}")
    return 0 if all(held) and all(reached) else 1


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.online", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--names", default="*", help="a shell pattern of checkpoints, such as 'xcit_nano*'")
    parser.add_argument("--sites", default=",".join(SITES), help="the hubs that are asked first; '' asks none")
    parser.add_argument("--json", type=Path, default=Path("online.json"), help="where the record goes")
    parser.add_argument("--gigabytes", type=float, default=30, help="what all files together may have")
    parser.add_argument("--gigabytes-a-file", type=float, default=1)
    parser.add_argument("--minutes-a-file", type=float, default=30)
    return parser.parse_args(words)


def _site(name: str) -> dict[str, Any]:
    """Ask a hub for a model that nobody has: one that answers says so."""
    from xcit_hub.hub.locate import info

    asked = "mindspore/xcit_tiny_12_p16_224" if name == "mindspore-hub" else _NOBODYS
    try:
        said, reached = f"has {info(asked, hub=name).address}", True
    except XcitHubError as error:
        said, reached = error.what, "no model" in error.what
    return {"site": name, "reached": reached, "said": said}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("xcit-hub", "mindspore", "torch", "timm", "huggingface-hub", "numpy")
    return {name: version(name) for name in names} | {"python": sys.version.split()[0]}


def _mark(step: Step) -> str:
    return {True: "ok", None: "--", False: "NO"}[step.ok]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # MindSpore's cells print when the interpreter takes them down in its own order
