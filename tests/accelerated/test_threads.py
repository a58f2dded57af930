"""The threads that share an operation's work: who comes late is not waited for again at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from xcit_hub.accelerated import build

pytestmark = [
    pytest.mark.skipif(not any(shutil.which(name) for name in ("g++", "clang++", "c++")), reason="no C++ compiler"),
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="this machine has one core"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("threads") / "threads_test"
    flags = ("-std=c++17", "-O1", "-pthread", "-fsanitize=address")
    build.compile_source(Path(__file__).with_name("threads_test.cpp"), path, flags)
    return path


def run(program: Path, *arguments: str, cores: set[int] | None = None, threads: str = "") -> str:
    every = set(range(os.cpu_count() or 1))
    done = subprocess.run(
        [program, *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, build.THREADS: threads},
        preexec_fn=lambda: os.sched_setaffinity(0, cores or every),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_worker_that_is_kept_from_its_core_sits_out_the_next_jobs_and_comes_back(program: Path) -> None:
    said = run(program)
    if said == "one core\n":
        pytest.skip("this process may use one core alone")
    assert re.fullmatch(r"\d of 5 next jobs were watched\n", said)


def test_there_are_as_many_threads_as_cores_and_no_more_than_were_asked_for(program: Path) -> None:
    def size(**settings: Any) -> int:
        found = re.fullmatch(r"(\d+) threads, others did (\d+)\n", run(program, "size", **settings))
        assert found
        if found[1] == "1":
            assert found[2] == "0"
        return int(found[1])

    cores = size()
    if cores < 2:
        pytest.skip("this process may use one core alone")
    assert size(cores={0}) == size(cores={0}, threads="2") == 1
    assert size(threads="1") == 1
    assert size(threads="2") == 2
    assert size(threads="1024") == size(threads=str(cores)) == cores
    # What build.py refuses is no limit here.
    for refused in ("0", "-1", "x", "1x", "9" * 40, " 1"):
        assert size(threads=refused) == cores
