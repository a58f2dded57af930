"""Compiled operations come with the package: built when it is, whole and of its own sources, or said to be missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from xcit_hub.accelerated import build
from xcit_hub.errors import InputError

ROOT = Path(__file__).parents[2]
# So short that it compiles at once: what is tried here does not depend on what is compiled.
TINY = 'extern "C" __attribute__((visibility("default"))) int answer() { return 42; }\n'
TARGETS = [
    target
    for target in build.TARGETS
    if target.machine == platform.machine() and set(target.features) <= build._processor_features()
]
LOOKED_AHEAD = """
from xcit_hub.accelerated import build
build.look_ahead()
"""
REPORT = """
import sys, warnings
from xcit_hub.accelerated import build
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    found = [build.library() for _ in range(3)]
print(found[0])
print(build.absence())
print(len(said), *(warning.message for warning in said))
"""

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("g++", "clang++", "c++")), reason="no C++ compiler"
)
pytestmark = pytest.mark.skipif(not TARGETS, reason="nothing is compiled for this processor")


class Package:
    """A copy of what building needs: a source tree, or the same as it is once installed."""

    def __init__(self, folder: Path, *, installed: bool = False) -> None:
        self.folder = folder
        accelerated = folder / "xcit_hub" / "accelerated"
        (accelerated / "source").mkdir(parents=True)
        for part in ("", "accelerated"):
            for file in (ROOT / "xcit_hub" / part).glob("*.py"):
                shutil.copy(file, folder / "xcit_hub" / part)
        self.source = accelerated / "source" / "kernels.cpp"
        for name in {target.source for target in build.ALL}:
            (accelerated / "source" / name).write_text(TINY)
        self.lib = accelerated / "lib"
        if not installed:
            (folder / "hatch_build.py").touch()

    def run(self, *command: str, before: tuple[str, ...] = (), **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", **settings}
        return subprocess.run(
            [*before, sys.executable, *command],
            cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip

    def build(self, **settings: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "xcit_hub.accelerated.build", **settings)

    def library(self, *, ahead: bool = False, **options) -> tuple[str, str, str]:
        """What a process finds: the library, why there is none, and how often that is said, and how."""
        done = self.run("-c", LOOKED_AHEAD + REPORT if ahead else REPORT, **options)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return tuple(done.stdout.splitlines())

    def libraries(self) -> list[Path]:
        return sorted(self.lib.glob("*.so"))


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package(tmp_path / "tree")


@pytest.fixture
def installed(tmp_path: Path) -> Package:
    """A package that was installed with its libraries."""
    package = Package(tmp_path / "site-packages", installed=True)
    assert package.build().returncode == 0
    return package


@needs_compiler
def test_a_build_compiles_for_every_kind_of_processor_once(package: Package) -> None:
    assert package.library()[0] == "None"
    first = package.build()
    assert first.returncode == 0, first.stderr
    kinds = [target.name for target in build.ALL if target.machine == TARGETS[0].machine]
    assert {path.stem.removeprefix("kernels-") for path in package.libraries()} == {*kinds}
    assert package.library() == (str(package.lib / TARGETS[0].path.name), "", "0")
    before = [path.stat().st_ino for path in package.libraries()]
    assert package.build().stdout == first.stdout
    assert [path.stat().st_ino for path in package.libraries()] == before


@needs_compiler
def test_builds_at_the_same_time_end_with_one_whole_library(package: Package) -> None:
    command = [sys.executable, "-m", "xcit_hub.accelerated.build"]
    several = [subprocess.Popen(command, cwd=package.folder, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [one.wait(600) for one in several] == [0] * 4
    assert package.library()[0].endswith(".so")
    assert {path.suffix for path in package.lib.iterdir()} == {".so", ""}, (
        "nothing but the libraries and the lock is left"
    )


@needs_compiler
@pytest.mark.parametrize("changed", ["a source", "a new header", "the table of operands", "how it is compiled"])
def test_a_library_of_other_sources_is_compiled_again_in_a_source_tree(changed: str, package: Package) -> None:
    package.build()
    before = package.libraries()[0].read_bytes()
    _change(package, changed)
    found, absence, _ = package.library(ahead=True)
    assert found.endswith(".so"), absence
    assert Path(found).read_bytes() != before
    assert package.library()[0] == found


@pytest.mark.parametrize("changed", ["a source", "a new header", "the table of operands", "how it is compiled"])
@needs_compiler
def test_a_library_of_other_sources_is_refused_in_an_installed_package(changed: str, installed: Package) -> None:
    _change(installed, changed)
    found, absence, said = installed.library(ahead=True)
    assert found == "None"
    assert "was built from other sources" in absence
    assert said.startswith("1 xcit-hub computes with MindSpore's own operations")


def _change(package: Package, what: str) -> None:
    accelerated = package.source.parents[1]
    if what == "a source":
        package.source.write_text(TINY.replace("42", "43"))
    elif what == "a new header":
        (accelerated / "source" / "new.h").touch()
    else:
        file, old = {
            "the table of operands": ("operands.py", "PANEL = 48"),
            "how it is compiled": ("build.py", '"-O3"'),
        }[what]
        text = (accelerated / file).read_text()
        assert old in text
        (accelerated / file).write_text(text.replace(old, {"PANEL = 48": "PANEL = 96", '"-O3"': '"-O2"'}[old]))


@needs_compiler
@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"",
        lambda whole: whole[:100] + bytes([whole[100] ^ 1]) + whole[101:],
        lambda whole: whole + b"\0",
        lambda whole: b"\x7fELF, or another's code",
    ],
    ids=["a byte short", "half", "empty", "a bit wrong", "a byte more", "planted"],
)
def test_a_library_that_is_not_whole_is_never_loaded(spoil, installed: Package) -> None:
    for path in installed.libraries():
        path.write_bytes(spoil(path.read_bytes()))
    found, absence, said = installed.library()
    assert (found, said[0]) == ("None", "1")
    assert "is not whole" in absence
    assert installed.library(ahead=True) == (found, absence, said)
    assert installed.build().returncode == 0
    assert installed.library(ahead=True)[0].endswith(".so")


@needs_compiler
def test_a_library_that_the_system_cannot_load_is_gone_without_and_said(installed: Package) -> None:
    reseal = """
from xcit_hub.accelerated import build
for target in build.TARGETS:
    if target.path.exists():
        code, sources = b"no code", build._sources_digest(target)
        target.path.write_bytes(code + build._seal(code, sources))
"""
    assert installed.run("-c", reseal).returncode == 0
    found, absence, said = installed.library()
    assert (found, said[0]) == ("None", "1")
    assert "invalid ELF header" in absence or "file too short" in absence


@needs_compiler
def test_on_a_file_system_that_forbids_running_code_it_goes_without_and_says_so(installed: Package) -> None:
    mount = f"mount --bind {installed.lib} {installed.lib} && mount -o remount,bind,noexec {installed.lib}"
    forbid = ("unshare", "--mount", "sh", "-c", f'{mount} && exec "$0" "$@"')
    if subprocess.run([*forbid, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mounting here")
    found, absence, said = installed.library(before=forbid)
    assert (found, said[0]) == ("None", "1")
    assert "failed to map segment" in absence


@needs_compiler
def test_nothing_is_read_from_or_written_to_a_users_cache(installed: Package, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "xcit_hub" / "native"
    cache.mkdir(parents=True)
    for path in installed.libraries():
        shutil.copy(path, cache / path.name)
        path.unlink()
    before = sorted(cache.rglob("*"))
    for settings in ({"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}, {"HOME": "/nonexistent"}, {}):
        found, absence, _ = installed.library(**settings)
        assert found == "None"
        assert "was not built" in absence
    assert sorted(cache.rglob("*")) == before


@needs_compiler
@pytest.mark.parametrize("home", [{}, {"HOME": "/nonexistent"}, {"XDG_CACHE_HOME": "/proc/none"}])
def test_a_library_is_found_without_a_home_or_a_cache(home: dict[str, str], installed: Package) -> None:
    assert installed.library(**home)[0].endswith(".so")


@needs_compiler
def test_in_a_tree_that_belongs_to_another_user_changed_sources_are_refused(package: Package) -> None:
    package.build()
    package.source.write_text(TINY.replace("42", "43"))
    for path in (package.lib, *package.lib.iterdir()):
        path.chmod(path.stat().st_mode & ~0o222)
    as_another = ("setpriv", "--bounding-set=-all") if os.getuid() == 0 else ()
    try:
        found, absence, said = package.library(before=as_another)
    finally:
        package.lib.chmod(0o755)
    assert (found, said[0]) == ("None", "1")
    assert "Permission denied" in absence


def _program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@needs_compiler
def test_a_compiler_that_is_too_slow_is_waited_for_once(package: Package, tmp_path: Path) -> None:
    package.build()
    package.source.write_text(TINY.replace("42", "43"))
    code = "from xcit_hub.accelerated import build; print(list(build.build(patience=1.0).values()))"
    slow, asked = tmp_path / "slow", tmp_path / "asked"
    asked.touch()  # on a busy machine a second is over before the compiler has said anything
    tried = package.run("-c", code, CXX=_program(slow, f"echo >> {asked}\nexec sleep 600"))
    assert "the compiler took longer than 1 seconds" in tried.stdout
    times = len(asked.read_text())
    found, absence, _ = package.library(CXX=str(slow))
    assert len(asked.read_text()) == times
    assert found == "None"
    assert "was not built" in absence


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"PATH": ""}, "no C++ compiler"),
        ({"CXX": "no-such-compiler"}, "CXX=no-such-compiler is not a program"),
        ({"CXX": "false"}, "false failed: exit code 1"),
    ],
)
def test_without_a_working_compiler_a_build_says_why(settings: dict[str, str], reason: str, package: Package) -> None:
    done = package.build(**settings)
    assert done.returncode == 1
    assert reason in done.stdout
    assert "Traceback" not in done.stderr
    found, absence, said = package.library(**settings)
    assert found == "None"
    assert "was not built" in absence
    assert said.startswith("1 ")
    assert "python -m xcit_hub.accelerated.build" in said


@needs_compiler
def test_what_a_compiler_says_is_handed_on(package: Package) -> None:
    package.source.write_text("#error this compiler is too old\n")
    done = package.build()
    assert done.returncode == 1
    assert "this compiler is too old" in done.stdout


@needs_compiler
def test_the_environment_picks_a_library(installed: Package) -> None:
    for target in TARGETS:
        assert installed.library(XCIT_HUB_NATIVE=target.wish)[0].endswith(target.path.name)
    assert installed.library(XCIT_HUB_NATIVE="0") == ("None", "XCIT_HUB_NATIVE=0", "0")
    assert installed.library(XCIT_HUB_NATIVE="") == installed.library()


@pytest.fixture
def afresh():
    """What the environment and the processor offer is asked again."""
    build._outcome.cache_clear()
    yield
    build._outcome.cache_clear()


@pytest.mark.parametrize("value", ["1", "off", "v5", "V3", "v3 ", "false"])
def test_an_unknown_choice_is_refused_by_name(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.SWITCH, value)
    with pytest.raises(InputError, match=rf"'{value}' is not a value of XCIT_HUB_NATIVE.*(\n.*)*Choose 0, v4, v3"):
        build.library()


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "two", " 2", "2 ", "1e3", "1025", "9" * 50, "٢", "0x2", "1_0"])
def test_a_number_of_threads_that_is_none_is_refused_by_name(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.THREADS, value)
    for ask in (build.library, build.threads):
        with pytest.raises(InputError, match=r"is not a value of XCIT_HUB_THREADS.*(\n.*)*from 1 to 1024"):
            ask()


@pytest.mark.parametrize(("value", "threads"), [("", 3), ("1", 1), ("2", 2), ("3", 3), ("4", 3), ("1024", 3)])
def test_threads_are_the_cores_of_this_process_or_fewer(
    value: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build.os, "sched_getaffinity", lambda _: {0, 5, 9})
    monkeypatch.setenv(build.THREADS, value)
    assert build.threads() == threads


def test_threads_that_nothing_computes_on_are_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.THREADS, "1")
    monkeypatch.setenv(build.SWITCH, "0")
    build._say_threads_are_unused.cache_clear()
    with pytest.warns(UserWarning, match=r"XCIT_HUB_THREADS has no effect .*XCIT_HUB_NATIVE=0"):
        assert build.library() is None
    with warnings.catch_warnings(action="error"):
        assert build.library() is None


@pytest.mark.usefixtures("afresh")
def test_a_choice_that_this_machine_cannot_run_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    other = next(target for target in build.TARGETS if target.machine != TARGETS[0].machine)
    monkeypatch.setenv(build.SWITCH, other.wish)
    with pytest.raises(InputError, match=f"{other.wish}: this is Linux on {TARGETS[0].machine}"):
        build.library()


@pytest.mark.usefixtures("afresh")
@pytest.mark.skipif(TARGETS[-1].machine != "x86_64", reason="processors differ on x86-64")
def test_the_processors_flags_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(build.SWITCH, raising=False)
    monkeypatch.setattr(build, "_processor_features", lambda: frozenset(build._V3))
    assert build.library() == next(target for target in build.TARGETS if target.wish == "v3").path
    build._outcome.cache_clear()
    monkeypatch.setattr(build, "_processor_features", lambda: frozenset({"sse2"}))
    with pytest.warns(UserWarning, match="this processor lacks .*avx2"):
        assert build.library() is None
    assert "lacks" in build.absence()
