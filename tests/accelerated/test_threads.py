"""The threads that share an operation's work: who comes late is not waited for again at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from xcit_hub.accelerated import build

pytestmark = [
    pytest.mark.skipif(not any(shutil.which(name) for name in ("g++", "clang++", "c++")), reason="no C++ compiler"),
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="this machine has one core"),
]


def test_a_worker_that_is_kept_from_its_core_sits_out_the_next_jobs_and_comes_back(tmp_path: Path) -> None:
    program = tmp_path / "threads_test"
    build.compile_source(
        Path(__file__).with_name("threads_test.cpp"), program, ("-std=c++17", "-O1", "-pthread", "-fsanitize=address")
    )
    every = set(range(os.cpu_count() or 1))
    done = subprocess.run(
        [program], capture_output=True, text=True, check=False, preexec_fn=lambda: os.sched_setaffinity(0, every)
    )
    if done.stdout == "one core\n":
        pytest.skip("this process may use one core alone")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"\d of 5 next jobs were watched\n", done.stdout)
