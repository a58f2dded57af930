"""What a user meets first: a quick import, a quiet command line, and errors that say what to do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import xcit_hub
from xcit_hub import variants

_HEAVY = ("mindspore", "torch", "timm", "huggingface_hub", "numpy", "pydantic")


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=600)


def test_importing_the_package_imports_no_framework() -> None:
    done = _python(f"import sys, xcit_hub; print([name for name in {_HEAVY!r} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_the_command_line_is_assembled_without_a_framework() -> None:
    done = _python(f"import sys, xcit_hub.cli.app; print([name for name in {_HEAVY!r} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_is_there_and_nothing_else_is_offered() -> None:
    for name in xcit_hub.__all__:
        assert getattr(xcit_hub, name) is not None
    assert set(dir(xcit_hub)) == set(xcit_hub.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = xcit_hub.lode


@pytest.mark.parametrize(
    "command",
    [
        "list",
        "info",
        "load",
        "convert",
        "inspect",
        "parity",
        "publish",
        "whoami",
        "card new",
        "card check",
        "cache list",
    ],
)
def test_every_command_explains_itself(run_here, command: str) -> None:
    done = run_here(*command.split(), "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "Usage" in done.stdout


def test_the_list_is_the_table(run_cli) -> None:
    done = run_cli("list")
    assert done.returncode == 0
    assert done.stdout.split() == variants.list_models()


def test_using_the_network_prints_nothing_and_ends_quietly() -> None:
    done = _python(
        "import numpy, mindspore, xcit_hub\n"
        "network = xcit_hub.create_model('xcit_nano_12_p16_224', seed=0)\n"
        "network(mindspore.Tensor(numpy.zeros((1, 3, 32, 32), numpy.float32))).asnumpy()\n"
    )
    assert done.returncode == 0
    assert done.stdout == ""
    noise = [line for line in done.stderr.splitlines() if "Exception ignored" in line or "Traceback" in line]
    assert noise == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["convert", "missing.safetensors", "out.ckpt"], "missing.safetensors"),
        (["inspect", "missing.ckpt"], "missing.ckpt"),
        (["load", "xcit_tinny_12_p16_224"], "xcit_tiny_12_p16_224"),
        (["parity", "xcit_none"], "xcit_none"),
        (["card", "check", "missing.md"], "missing.md"),
        (["publish", "missing.ckpt", "org/name", "--to", "./hub"], "missing.ckpt"),
        (["publish", "missing.ckpt", "org/name", "--to", "huggingface"], "did you mean hugging-face"),
        (["publish", "missing.ckpt", "org/name", "--to", "hugging face"], "did you mean hugging-face"),
        (["publish", "missing.ckpt", "org/name", "--to", "nowhere"], "./nowhere"),
    ],
)
def test_a_mistake_ends_with_code_2_one_message_and_no_file(run_here, tmp_path, arguments, says: str) -> None:
    done = run_here(*arguments, cwd=tmp_path)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("redirection", "code"), [(">&-", 0), ("> /dev/full", 2)])
def test_an_output_that_cannot_be_written_ends_without_a_traceback(redirection: str, code: int) -> None:
    command = f"{sys.executable} -c 'from xcit_hub.cli import main; main()' list {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "read.ckpt", "read.png", "--html", "read.png"],
        ["predict", "read.ckpt", "read.png", "--csv", "./read.ckpt"],
        ["predict", "read.ckpt", "read.png", "--csv", "out", "--html", "folder/../out"],
        ["parity", "read.ckpt", "--against", "other.ckpt", "--json", "read.ckpt"],
        ["parity", "read.ckpt", "--against", "read.png", "--junit", "read.png"],
        ["parity", "read.ckpt", "--json", "out", "--junit", "out"],
        ["card", "html", "README.md", "--out", "README.md"],
        ["card", "html", "README.md", "--run", "run.json", "--out", "run.json"],
        ["card", "translate", "README.md", "--lang", "zh", "--out", "README.md"],
        ["export", "read.onnx", "read.onnx"],
    ],
)
def test_nothing_that_is_read_is_overwritten(run_here, tmp_path, arguments) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("read.ckpt", "other.ckpt", "read.png", "read.onnx", "README.md", "run.json"):
        (tmp_path / name).write_bytes(b"as it was")
    done = run_here(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "names a file that is read" in done.stderr or "name the same file" in done.stderr
    assert all(path.read_bytes() == b"as it was" for path in tmp_path.iterdir() if path.is_file())
    assert not (tmp_path / "out").exists()


_INTERRUPTED = """
import os, signal
from xcit_hub.process import run

def command():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            pass
    except KeyboardInterrupt:
        {then}

run(command)
"""


@pytest.mark.parametrize(
    "then", ["raise", "raise ImportError('initialization failed')", "raise OSError(4, 'interrupted')"]
)
def test_an_interruption_is_told_by_its_code_whatever_it_broke(then: str) -> None:
    done = _python(_INTERRUPTED.format(then=then))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


_INTERRUPTED_IN_A_GRAPH = """
import os, signal
from xcit_hub.process import run

def command():
    import mindspore
    from mindspore import nn
    from mindspore.ops import constexpr

    @constexpr
    def interrupt(x):
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            pass

    class Network(nn.Cell):
        def construct(self, x):
            return x + interrupt(3)

    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    Network()(mindspore.Tensor(1.0))

run(command)
"""


def test_an_interruption_while_a_graph_is_compiled_leaves_neither_lines_nor_files(tmp_path: Path) -> None:
    (tmp_path / "graph.py").write_text(_INTERRUPTED_IN_A_GRAPH)
    (tmp_path / "temporary").mkdir()
    done = subprocess.run(
        [sys.executable, "graph.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["graph.py", "temporary"]


def test_an_output_that_has_no_such_letter_shows_its_number() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from xcit_hub.process import run; run(lambda: print('a → b'))"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "a \\u2192 b\n", "")


def test_a_report_of_earlier_is_not_taken_for_todays(run_cli, tmp_path) -> None:
    (tmp_path / "parity.json").write_text('{"equal": true}')
    done = run_cli("parity", "missing.ckpt", "--against", "missing.pth", "--json", "parity.json", cwd=tmp_path)
    assert done.returncode == 2
    error = json.loads((tmp_path / "parity.json").read_text())["error"]
    assert error["what"] == "There is no such file or folder." and "missing" in error["where"]


def test_a_port_that_is_taken_is_refused_before_anything_is_loaded(run_cli) -> None:
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run_cli("serve", "missing.ckpt", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2 and "Cannot listen" in done.stderr and "--port" in done.stderr


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://host", "https://", "https:// host"])
def test_an_endpoint_that_is_not_an_address_is_named(run_cli, tmp_path, endpoint: str) -> None:
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(tmp_path)}
    done = run_cli("load", "timm/xcit_tiny_12_p16_224.fb_in1k", env=environment)
    assert done.returncode == 2 and "HF_ENDPOINT is" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["load", "x", "--json", "--frob"], "--frob"),
        (["predict", "model.ckpt", "--json"], "IMAGE"),
        (["inspect", "--json"], "FILE"),
        (["predict", "model.ckpt", "a.png", "--json", "--top", "many"], "--top"),
        (["card", "check", "--json"], "FILE"),
    ],
)
def test_wrong_words_are_said_in_json_where_that_was_asked_for(run_cli, arguments, says: str) -> None:
    done = run_cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert says in json.loads(line)["error"]["what"]


def test_a_json_that_names_a_file_changes_nothing_about_wrong_words(run_cli) -> None:
    done = run_cli("parity", "--json", "out.json", "--frob")
    assert done.returncode == 2 and "--frob" in done.stderr and 'error":' not in done.stderr
    done = run_cli("list", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)
