"""Steps that are a process of their own."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from benchmarks.programs import python

_MADE = "from pathlib import Path; import xcit_hub; Path('made').write_text(xcit_hub.__file__)"
_TURN = """
from benchmarks.contender_process import _turn
from benchmarks.programs import python
large = python("-c", "held = bytes(range(256)) * 800_000", folder=".")
print(*(_turn(large, steps=1, waking=False, programs_of=of) for of in (("numpy",), None)), sep="\\n")
"""


def test_a_program_runs_in_its_folder_with_this_checkouts_packages(tmp_path: Path) -> None:
    assert python("-c", _MADE, folder=str(tmp_path))() == 1
    assert Path((tmp_path / "made").read_text()).parents[1] == Path(__file__).parents[2]


def test_memory_and_libraries_are_the_programs_where_a_contender_says_that_its_step_is_one() -> None:
    out = subprocess.run([sys.executable, "-c", _TURN], capture_output=True, text=True, check=True).stdout
    programs, own = map(ast.literal_eval, out.splitlines())
    assert programs["running_mb"] > 195
    assert programs["versions"].keys() == {"numpy"}
    assert own["running_mb"] < 150
