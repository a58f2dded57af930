"""Every command and every line of Python in the README and docs/ is run, page by page, or listed with its reason."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from documented import PAGES, ROOT, blocks, name_of
from hub_fixtures import use
from typer.testing import CliRunner

from xcit_hub.cli.app import app

_ENGLISH = [page for page in PAGES if "docs/zh/" not in name_of(page)]

_IMAGENET = "needs ImageNet; tests/training/test_processes.py runs the same commands on small folders"
_LAUNCHER = "needs eight devices; tests/training/test_processes.py runs msrun with two workers"
_CLIENTS = "needs logins of real hubs; tests/hub/test_site_stores.py runs both clients against loopback hubs"
_BENCHMARK = "takes minutes to hours of a quiet machine; tests/benchmarks runs every suite once"
_SERVER = "runs until it is stopped; tests/serve starts it and sends images"
_SCENES = "needs ADE20K, or takes minutes on photographs; tests/dense runs the same commands on small images"
_RAY = "needs a Ray cluster; tests/test_ray_engine.py starts one"
_ACCEPTANCE = "takes minutes; tests/doctor runs it for `make campaigns`"
_INSTALL = "installs from a package index; .ci/run installs what the wheel and pyproject.toml ask for"

NOT_RUN = {
    "find . -name '*.jpg' | xcit-hub predict xcit.onnx - --json": "needs an exported file; tests/test_prediction.py "
    "gives a list on standard input, tests/test_predictor.py an ONNX file",
    "make demo": "tests/hub/test_demo.py runs it",
    "make test": "this is it",
    "pip install xcit-hub": _INSTALL,
    "pip install 'xcit-hub[onnx]'": _INSTALL,
    "pip install 'xcit-hub[serve]'": _INSTALL,
    "pip install 'xcit-hub[ray]'": _INSTALL,
    "xcit-hub predict xcit.onnx shards/*.tar table.parquet --engine ray --address HOST:6379 "
    "--parquet classes.parquet": _RAY,
    "xcit-hub predict best.ckpt shards/*.tar --engine ray --address HOST:6379 --workers 16 "
    "--parquet classes.parquet": _RAY,
    "xcit-hub serve timm/xcit_tiny_12_p16_224.fb_in1k": _SERVER,
    "curl --data-binary @cat.jpg http://127.0.0.1:8000/classify": _SERVER,
    "xcit-hub publish xcit_tiny_12_p16_224.ckpt ORG/NAME --to modelers --to modelscope": _CLIENTS,
    "xcit-hub publish tiny.ckpt ORG/NAME --to modelers --to modelscope --to hugging-face": _CLIENTS,
    "xcit-hub publish best.ckpt flora/xcit-flowers --to modelers --to modelscope --to hugging-face "
    "--run run.json --meta card.yaml": _CLIENTS,
    "xcit-hub load modelers://ORG/NAME --image photograph.jpg": _CLIENTS,
    "xcit-hub info https://modelscope.cn/models/ORG/NAME": _CLIENTS,
    "xcit-hub list --hub modelscope://ORG": _CLIENTS,
    "xcit-hub parity --all --gradients --json parity.json": "takes an hour; `make campaigns` proves every architecture",
    "python train.py --config configs/xcit/xcit_tiny_12_p16_ascend.yaml --data_dir /path/to/imagenet "
    "--distribute False": _IMAGENET,
    "python validate.py -c configs/xcit/xcit_tiny_12_p16_224_ascend.yaml --data_dir /path/to/imagenet "
    "--ckpt_path best.ckpt": _IMAGENET,
    "msrun --bind_core=True --worker_num 8 python train.py --config configs/xcit/xcit_tiny_12_p16_ascend.yaml "
    "--data_dir /path/to/imagenet": _LAUNCHER,
    "python train.py --config configs/xcit/cpu_smoke.yaml --data_dir DIR": _IMAGENET,
    "python train.py --config configs/xcit/xcit_tiny_12_p16_ascend.yaml --data_dir DIR --distribute False": _IMAGENET,
    "python validate.py -c configs/xcit/xcit_tiny_12_p16_224_ascend.yaml --data_dir DIR --ckpt_path FILE": _IMAGENET,
    "xcit-hub eval MODEL_ID --data_dir DIR --compare timm": _IMAGENET,
    "xcit-hub eval --models 'xcit_tiny*' --results-file results.csv --data_dir DIR": "needs ImageNet and the published "
    "weights; tests/test_bulk_evaluation.py runs it on small ones",
    "xcit-hub predict sem_fpn_xcit_tiny_12_p16.pth photographs/ --segment painted": _SCENES,
    "xcit-hub predict sem_fpn_xcit_tiny_12_p16.pth photographs/ --segment painted --masks masks": _SCENES,
    "xcit-hub predict upernet_xcit_small_12_p8.pth street.jpg --segment painted --window 512 --stride 341": _SCENES,
    "xcit-hub eval sem_fpn_xcit_tiny_12_p16.pth --task segment --data_dir ADEChallengeData2016": _SCENES,
    "xcit-hub train --task segment --model xcit_tiny_12_p16_224 --ckpt_path tiny.ckpt --classes names.txt "
    "--data_dir DIR": _SCENES,
    "msrun --bind_core=True --worker_num 8 python train.py --config configs/xcit/xcit_tiny_12_p16_ascend.yaml "
    "--data_dir DIR": _LAUNCHER,
    "msrun --bind_core=True --worker_num 8 --local_worker_num 8 python train.py --config recipe.yaml --data_dir images "
    "--ckpt_path tiny.ckpt --distribute True": _LAUNCHER,
    "xcit-hub train --config xcit_tiny_12_p16_ascend --data_dir /path/to/imagenet --distribute False": _IMAGENET,
    "msrun --bind_core=True --worker_num 8 --local_worker_num 8 --join True python -m xcit_hub train "
    "--config xcit_tiny_12_p16_ascend --data_dir /path/to/imagenet": _LAUNCHER,
    "xcit-hub train --library facebook --model xcit_small_12_p16 --batch-size 128 --drop-path 0.05 --epochs 400 "
    "--data_dir DIR": _IMAGENET,
    "xcit-hub doctor --device CPU --accept acceptance.json": _ACCEPTANCE,
    "python examples/gallery/run.py 1_load_and_look": "writes into the checkout; tests/docs/test_gallery.py runs it",
    "python -m benchmarks inference xcit_tiny_12_p16_224 --batch 1 --batch 16": _BENCHMARK,
    "python -m benchmarks inference xcit_tiny_12_p16_224 --batch 1 --batch 16 --rounds 5": _BENCHMARK,
    "python -m benchmarks training --json training.json --plot training.svg": _BENCHMARK,
    "python -m benchmarks scaling xcit_nano_12_p16_224 --size 224 --size 896 --size 4000x6000": _BENCHMARK,
    "python -m benchmarks growth": _BENCHMARK,
    "python -m benchmarks.operators": _BENCHMARK,
    "python -m benchmarks page inference training": _BENCHMARK,
    "python -m benchmarks compare OLD_WHEEL NEW_WHEEL": _BENCHMARK,
    "python -m benchmarks.cluster --measure": _BENCHMARK,
}
"""What no test types as it stands there, and why."""

# Proofs and exports of whole networks, what runs exported files, and two pages of little else: for `make campaigns`.
_LONG = re.compile(
    r"converters\.timm2ms|xcit-hub (?:export|convert (?!--all))|\.onnx|xcit-hub parity (?!.*--against)"
    r"|xcit-hub publish (?!.*--no-parity)"
)
_SHORT = [page for page in _ENGLISH if name_of(page) not in ("docs/guides/researcher.md", "docs/conversion.md")]

# A segmenter of a photograph takes 2 GB, of which MindSpore keeps one: these pages have a process of their own.
_SEGMENTING = ("README.md", "docs/dense.md")


def test_every_reason_is_about_a_command_that_is_still_documented() -> None:
    documented = {command for page in PAGES for block in blocks(page) for command in block.commands}
    assert NOT_RUN.keys() <= documented


@pytest.mark.parametrize("page", _SHORT, ids=name_of)
def test_what_a_page_tells_is_what_happens(page, tmp_path, readers_files, timm_tiny, shared_server, monkeypatch):
    _follow(page, tmp_path / "reader", readers_files, timm_tiny, shared_server, monkeypatch, whole=False)


@pytest.mark.campaign
@pytest.mark.gigabytes(4)  # a proof, an export and a segmenter one after the other
@pytest.mark.parametrize("page", _ENGLISH, ids=name_of)
def test_what_a_page_tells_is_what_happens_whole(page, tmp_path, readers_files, timm_tiny, shared_server, monkeypatch):
    _follow(page, tmp_path / "reader", readers_files, timm_tiny, shared_server, monkeypatch, whole=True)


def _follow(page, folder, readers_files, timm_tiny, server, monkeypatch, *, whole: bool) -> None:
    shutil.copytree(readers_files, folder, symlinks=True, copy_function=_copied)
    use(server, monkeypatch)
    server.add("timm/xcit_tiny_12_p16_224.fb_in1k", timm_tiny)
    for name in ("ORG/NAME", "flora/xcit-flowers"):
        server.add(name, timm_tiny if name == "ORG/NAME" else {"README.md": b"---\nlicense: apache-2.0\n---\n"})
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{_programs(folder)}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # What the processes fetch is random: it must not stay under timm's name in anybody's cache.
    monkeypatch.setenv("HF_HOME", str(folder.parent / "hugging-face"))
    monkeypatch.setenv("HF_HUB_CACHE", str(folder.parent / "hugging-face" / "hub"))
    if not whole and name_of(page) not in _SEGMENTING:
        _type(page, whole=whole)
        return
    here = Path(__file__)
    program = (
        "import sys; from pathlib import Path; page, whole, *sys.path[:0] = sys.argv[1:]; "
        f"import {here.stem} as pages; pages._type(Path(page), whole=whole == 'True')"
    )
    folders = map(str, (here.parent, here.parent.parent / "hub"))
    command = [sys.executable, "-c", program, str(page), str(whole), *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _copied(source: str, target: str) -> None:
    """Copy a file; a checkpoint, which nobody writes into, as a link: to write a dozen for every page takes seconds."""
    if Path(source).stat().st_size > 1 << 20:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _type(page: Path, *, whole: bool) -> None:
    names: dict[str, object] = {"__name__": "__page__"}
    for block in blocks(page):
        if block.title:
            Path(block.title).write_text(block.text, "utf-8")
        for command in block.commands:
            if command not in NOT_RUN and (whole or not _LONG.search(command)):
                code, said = _typed(command)
                assert code == block.exits_with.get(command, 0), f"{command}\n{said}"
        if block.language == "python" and not block.text.startswith("import ray"):  # see _RAY
            exec(compile(block.text, name_of(page), "exec"), names)


def _programs(folder: Path) -> Path:
    programs = folder / "programs"
    programs.mkdir()
    (programs / "python").symlink_to(sys.executable)
    (programs / "xcit-hub").write_text(f"#!{sys.executable}\nfrom xcit_hub.cli import main\nmain()\n")
    (programs / "xcit-hub").chmod(0o755)
    return programs


def _typed(command: str) -> tuple[int, str]:
    words = shlex.split(command)
    if words[0] == "xcit-hub":  # in this process: most of a short command's time is importing
        done = CliRunner().invoke(app, words[1:])
        return done.exit_code, f"{done.output}\n{done.exception!r}"
    # The environment's own python, by its path: a link to it would lose its packages.
    line = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", command)
    ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=600, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def test_the_chinese_pages_say_the_same_commands() -> None:
    chinese = [page for page in PAGES if "docs/zh/" in name_of(page)]
    assert len(chinese) == 4
    for page in chinese:
        english = ROOT / name_of(page).replace("docs/zh/", "docs/")
        assert [_without_remarks(block.text) for block in blocks(page)] == [
            _without_remarks(block.text) for block in blocks(english)
        ]


def _without_remarks(text: str) -> list[str]:
    return [re.sub(r"\s+#.*$", "", line) for line in text.splitlines()]


def test_every_block_has_a_language() -> None:
    known = {"console", "shell", "python", "yaml", "text"}
    strange = {name_of(page): block.language for page in PAGES for block in blocks(page) if block.language not in known}
    assert strange.keys() <= {"README.md"}  # the README draws the layers


def test_every_example_of_the_command_line_is_parsed() -> None:
    program = typer.main.get_command(app)
    commands = dict(_commands("", program))
    examples = [
        (name, line.strip())
        for name, command in commands.items()
        for line in (command.help or "").split("Examples:")[-1].splitlines()
        if line.strip().startswith("xcit-hub ")
    ]
    assert len(examples) > 40
    for name, line in examples:
        words = shlex.split(re.split(r" [>|] ", line)[0])[1 + len(name.split()) :]
        assert line.startswith(f"xcit-hub {name}")
        commands[name].make_context(name, words)


def _commands(prefix: str, command):
    below = getattr(command, "commands", None)
    if below is None:
        yield prefix.strip(), command
        return
    for name, each in below.items():
        yield from _commands(f"{prefix} {name}", each)
