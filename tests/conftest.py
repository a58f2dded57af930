"""What every test starts from: quiet frameworks, and the command line as a user runs it."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Tests are compiled once, not by each of four processes in every run, whatever the environment says.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

os.environ.setdefault("GLOG_v", "3")  # before MindSpore is imported, or it logs every import
# Or MindSpore cannot be imported after onnx, see xcit_hub.exporters.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # One core for each worker: threads that wait for each other on shared ones cost a third more. Tests of threads and
    # of processes that need all cores take them, see tests/accelerated/test_cores.py.
    cores = sorted(os.sched_getaffinity(0))
    if 1 < len(cores) <= int(os.environ["PYTEST_XDIST_WORKER_COUNT"]):
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

# The same cases in every run, and as long as they take on a busy machine.
settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("suite")

# Before a test imports onnxruntime by itself, see xcit_hub.exporters.runtimes.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

RunCli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_cli() -> RunCli:
    """Run ``xcit-hub`` in a process of its own and return what it printed and its exit code."""

    def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from xcit_hub.cli import main; main()", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, **options)

    return run


@pytest.fixture
def run_here() -> RunCli:
    """The same in this process, which has imported the frameworks already.

    Of every command some test uses ``run_cli``: it is a process, and what that has to import is part of it.
    """

    def run(*arguments: str, cwd: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
        from xcit_hub import process
        from xcit_hub.cli.app import app

        said, told = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as a process of the command line does
            patch.setattr(sys, "argv", ["xcit-hub", *arguments])
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            patch.setattr(process._Answers, "are_json", False)
            if cwd is not None:
                patch.chdir(cwd)
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
                code = process._exit_code(app)
        return subprocess.CompletedProcess(arguments, code, said.getvalue(), told.getvalue())

    return run


@pytest.fixture(params=["compiled", "MindSpore's own"])
def operations(request, monkeypatch) -> None:
    """Every way in which this machine can compute, where a compiler is found; see ``xcit_hub.accelerated``."""
    from xcit_hub.accelerated import available, build, twins

    if request.param == "MindSpore's own":
        monkeypatch.setattr(twins, "library", lambda: None)
    elif not available():
        pytest.skip(build.absence())


@pytest.fixture(params=["pynative", "graph"])
def mode(request) -> None:
    """Both modes, one after the other; the next test begins in PyNative again."""
    import mindspore

    modes = {"pynative": mindspore.PYNATIVE_MODE, "graph": mindspore.GRAPH_MODE}
    mindspore.set_context(mode=modes[request.param])


@pytest.fixture(autouse=True)
def _mode_of_one_test() -> Iterator[None]:
    """MindSpore's mode is one for the process: what a test or a recipe sets must not slow down every test after it."""
    yield
    if mindspore := sys.modules.get("mindspore"):
        mindspore.set_context(mode=mindspore.PYNATIVE_MODE)


_LEFT_MB = 150  # what tests may leave behind before it is handed back
_held = 0


@pytest.fixture(autouse=True)
def _memory_of_some_tests() -> Iterator[None]:
    """Hand back what tests held, whenever that has become much."""
    global _held
    yield
    _held = _held or _resident_mb()
    if _resident_mb() > _held + _LEFT_MB:
        hand_memory_back()
        _held = _resident_mb()


def _resident_mb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def hand_memory_back() -> None:
    """Free what nobody holds: networks live in circles, malloc keeps what they leave, and MindSpore its graphs."""
    gc.collect()
    if recycle := getattr(sys.modules.get("mindspore"), "ms_memory_recycle", None):
        recycle()
    with contextlib.suppress(OSError, AttributeError):  # glibc's own
        ctypes.CDLL(None).malloc_trim(0)


# Files of tests that take minutes or wait for others: the workers begin with them, so that none is left for the end.
# What shares something stands together.
_LONG = (
    ("test_ray_engine.py",),
    ("test_learning.py",),
    ("test_processes.py", "test_sync_batch_norm.py", "test_overflow_together.py"),
    ("test_ascend_graph.py",),
    ("test_source.py",),
    ("test_parity_networks.py",),
    ("test_documented_commands.py",),
    ("test_parity_mutations.py", "test_twins.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each worker's part, which is a stretch of all tests, its share of the long files to begin with."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
    if workers < 2:
        return
    long = [[item for item in items if item.path.name in names] for names in _LONG]
    others = [item for item in items if not any(item.path.name in names for names in _LONG)]
    begins = [[item for each in long[worker::workers] for item in each] for worker in range(workers)]
    each = -(-len(items) // workers)
    items.clear()
    for begin in begins:
        room = max(0, each - len(begin))
        items += [*begin, *others[:room]]
        del others[:room]
    items += others


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Look for no garbage meanwhile: imports make a million objects that stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Set aside what was imported: MindSpore collects garbage before each graph, half a second for all of it."""
    _set_aside()


@pytest.fixture(autouse=True, scope="module")
def _what_stays_of_a_file() -> Iterator[None]:
    """Set aside what its tests imported and left as well, once its own fixtures are gone."""
    yield
    _set_aside()


def _set_aside() -> None:
    gc.collect()
    gc.freeze()
    importlib.import_module("xcit_hub.lasting")._are_frozen = _are_frozen


def _are_frozen() -> bool:
    """What Python would say after counting millions of objects, a tenth of a second at every load."""
    return True


# The end of the process collects it, or extensions say that it leaked. Pytest's own end would do so five times.
atexit.register(gc.unfreeze)


@pytest.fixture
def memory_back() -> Iterator[None]:
    """For tests of large networks: each hands its memory back, and takes none that others left."""
    hand_memory_back()
    yield
    hand_memory_back()


# ---- memory: no process of a test, nor one that it starts, is to hold more than 3 GB; the one that is larger is named

# A test that needs more says so: pytest.mark.gigabytes. MindSpore keeps every test's graphs until a process ends, so
# that fewer workers than `make test` has hold more, and those of campaigns, whose networks are whole.
_LARGEST_GB = 3 if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) >= 4 else 6
_CAMPAIGN_GB = max(4, _LARGEST_GB)
_LARGEST_CHILD = pytest.StashKey[int]()
_peaks: dict[str, tuple[int, int]] = {}  # of each test: the most that was resident, and what may be, in MB


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Forget the peaks of the tests before: what the fixtures of a test hold, and their processes, is the test's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    item.stash[_LARGEST_CHILD] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Note the peak of this process and of the largest child that ended meanwhile."""
    try:
        return (yield)
    finally:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        peak = max(int(status["VmHWM"].split()[0]), child if child > item.stash[_LARGEST_CHILD] else 0)
        marker = item.get_closest_marker("gigabytes")
        usual = _CAMPAIGN_GB if item.get_closest_marker("campaign") else _LARGEST_GB
        limit = marker.args[0] if marker else usual
        item.user_properties.append(("peak_mb", (peak >> 10, limit << 10)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the peaks, those of pytest-xdist's workers too."""
    if report.when == "call" and (found := dict(report.user_properties).get("peak_mb")):
        peak, limit = found
        _peaks[report.nodeid] = peak, limit


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail as a whole: a process that has grown too large fails every later test as well, which says nothing."""
    if any(peak > limit for peak, limit in _peaks.values()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the largest test, and those that were too large."""
    for name, (peak, limit) in sorted(_peaks.items(), key=lambda entry: entry[1], reverse=True)[:3]:
        fault = f", and may be {limit} MB" if peak > limit else ""
        terminalreporter.write_line(f"peak memory {peak} MB{fault}: {name}")
