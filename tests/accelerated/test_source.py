"""The C++ itself: against its naive reference, under sanitizers, and with the constants that its script fits."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from xcit_hub.accelerated import build

TEST = Path(__file__).with_name("kernels_test.cpp")
TARGETS = [
    target
    for target in build.TARGETS
    if target.machine == platform.machine() and set(target.features) <= build._processor_features()
]

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("g++", "clang++", "c++")), reason="no C++ compiler"
)


@pytest.fixture(scope="module")
def tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests themselves, compiled once and linked with whichever code they are to try."""
    made = tmp_path_factory.mktemp("kernels") / "kernels_test.o"
    build.compile_source(TEST, made, ("-std=c++17", "-O2", "-c"))
    return made


def _run(program: Path, cores: set[int], *words: str, checks: int) -> str:
    """Return the digest of all results and gradients; with the word "values" no slope is asked for, which takes long.

    Another word is the file of the reference's slopes, which are the same for every library: the first run writes it.
    """
    command, on_them = [program, *words], partial(os.sched_setaffinity, 0, cores)
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=on_them)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.fullmatch(r"(\d+) checks, 0 failed, digest (\w+)\n", done.stdout)
    assert found, done.stdout
    assert int(found[1]) > checks
    return found[2]


@needs_compiler
def test_every_operation_equals_its_reference_under_address_and_undefined_behaviour_sanitizers(
    tests: Path, tmp_path: Path
) -> None:
    program = tmp_path / "sanitized"
    flags = ("-std=c++17", "-Og", "-fopenmp-simd", "-pthread", *TARGETS[-1].features.values(), str(tests))
    # What is undefined ends the program with a trap: words of which line take a quarter of the time to compile.
    sanitizers = "-fsanitize=address,undefined", "-fsanitize-undefined-trap-on-error"
    build.compile_source(build.SOURCES / "kernels.cpp", program, (*flags, *sanitizers))
    _run(program, os.sched_getaffinity(0), "values", checks=250)


@needs_compiler
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_operation_of_a_library_equals_its_reference_whatever_the_number_of_threads(
    target: build.Target, tests: Path, tmp_path: Path
) -> None:
    assert build.build()[target] == ""
    program, libraries = tmp_path / "linked", build.LIBRARIES
    found = f"-L{libraries}", f"-Wl,-rpath,{libraries}", f"-l:{target.path.name}"
    build.compile_source(tests, program, ("-pthread", *found))
    alone = _run(program, {min(os.sched_getaffinity(0))}, str(tests.with_name("slopes")), checks=900)
    assert _run(program, set(range(os.cpu_count() or 1)), "values", checks=250) == alone


def _fit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fit_gelu", build.SOURCES / "fit_gelu.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_coefficients_of_gelu_are_those_that_the_script_fits() -> None:
    text = (build.SOURCES / "gelu.h").read_text()
    written = {np.float32(number) for number in re.findall(r"(\d+\.\d+)f", text)}
    fit = _fit()
    for numbers, greatest in (fit.normal_tail(), fit.power_of_two()):
        assert greatest < 3e-9
        for number in numbers:
            assert any(np.isclose(abs(number), other, rtol=1e-6) for other in written), number


def test_what_is_imported_while_building_needs_nothing_installed() -> None:
    code = "import sys; import xcit_hub.accelerated.build; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=build.SOURCES.parents[2], capture_output=True, text=True, check=True
    )
    foreign = {name.partition(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names) - {"xcit_hub"}
    assert not {name for name in foreign if not name.startswith("_")}
