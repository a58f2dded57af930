"""Damaged, hostile and interrupted conversions: never a traceback, never half a file, never a wrong accept."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import TINY, network

from xcit_hub.checkpoints import checkpoint, translate
from xcit_hub.checkpoints.checkpoint import StoredTensor
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.errors import XcitHubError

FAMILIES = {".safetensors": "timm", ".ckpt": "xcit-hub", ".pth": "facebook"}
CASES = 700  # of each format
SEEDS = st.integers(0, 2**64)  # for what is done to a file: hypothesis's own generator prefers small numbers


def small(family: str) -> dict[str, StoredTensor]:
    return translate.from_ours(network(TINY), family)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    for suffix, family in FAMILIES.items():
        checkpoint.write(folder / f"x{suffix}", small(family), {"format": "pt", "xcit_hub.dialect": "paper"})
    return {suffix: (folder / f"x{suffix}").read_bytes() for suffix in FAMILIES}


# ---- What other libraries make of a damaged file: they decide what may be accepted


def oracle(path: Path) -> dict[str, np.ndarray] | None:
    """The file's tensors as the format's own library reads them, bfloat16 and all, or None if it refuses the file."""
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "np") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if path.suffix == ".ckpt":
            return protobuf_reads(path)
        import torch

        content = torch.load(path, weights_only=True)["model"]
        return {name: value.numpy() for name, value in content.items()}
    except Exception:
        return None


def protobuf_reads(path: Path) -> dict[str, np.ndarray]:
    from mindspore.train.checkpoint_pb2 import Checkpoint

    message = Checkpoint()
    message.ParseFromString(path.read_bytes())
    kinds = {"Float32": np.float32, "Float16": np.float16, "Float64": np.float64}
    return {
        value.tag: np.frombuffer(value.tensor.tensor_content, kinds[value.tensor.tensor_type]).reshape(
            tuple(value.tensor.dims)
        )
        for value in message.value
        if value.tensor.tensor_type != "str"
    }


def attempt(source: Path, target: Path) -> bool:
    """Convert within one family; whether it was accepted. Only an error of ours may come out."""
    before = set(source.parent.iterdir())
    try:
        rewrite(source, target, to=FAMILIES[source.suffix])
    except XcitHubError as error:
        assert error.what
        str(error).encode("utf-8")
        assert set(source.parent.iterdir()) == before
        return False
    truth = oracle(source)
    assert truth is not None, "accepted what the format's own library refuses"
    found = {k: v for k, v in safetensors.numpy.load_file(target).items() if "num_batches" not in k}
    truth = {k: v for k, v in truth.items() if "num_batches" not in k}
    assert found.keys() == truth.keys()
    for name, array in found.items():
        assert array.dtype == truth[name].dtype
        assert array.shape == truth[name].shape
        assert array.tobytes() == truth[name].tobytes()
        assert np.isfinite(array).all()
    return True


@contextlib.contextmanager
def folder_with(content: bytes, suffix: str, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    source, target = tmp_path / f"x{suffix}", tmp_path / "y.safetensors"
    source.write_bytes(content)
    yield source, target
    for path in tmp_path.iterdir():
        path.unlink()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # Thousands of files need not survive a power cut.
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FAMILIES)
def test_no_damage_to_a_file_is_accepted_wrongly_or_ends_in_a_traceback(
    suffix: str, originals: dict[str, bytes], tmp_path: Path, quick: None
):
    outcomes: list[bool] = []

    @settings(max_examples=CASES * 3 // 5)
    @given(SEEDS, st.sampled_from(["flip", "flip early", "cut", "insert", "zero", "swap"]))
    def damaged(seed: int, kind: str) -> None:
        content = damage(originals[suffix], kind, random.Random(seed))
        with folder_with(content, suffix, tmp_path) as (source, target):
            outcomes.append(attempt(source, target))

    damaged()
    assert len(outcomes) >= CASES * 3 // 5
    assert not all(outcomes) and any(outcomes)  # where there is no checksum, a damaged number is still a number


def damage(content: bytes, kind: str, chance: random.Random) -> bytes:
    out = bytearray(content)
    place = chance.randrange(len(out))
    if kind.startswith("flip"):
        for _ in range(chance.choice([1, 1, 2, 8])):
            place = chance.randrange(min(len(out), 6000) if kind == "flip early" else len(out))
            out[place] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del out[place:]
    elif kind == "insert":
        out[place:place] = chance.randbytes(chance.choice([1, 4, 64]))
    elif kind == "zero":
        length = chance.choice([1, 16, 512])
        out[place : place + length] = bytes(len(out[place : place + length]))
    else:
        other = chance.randrange(len(out))
        out[place : place + 32], out[other : other + 32] = out[other : other + 32], out[place : place + 32]
    return bytes(out)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FAMILIES)
def test_no_mistaken_tensor_is_accepted(suffix: str, tmp_path: Path, quick: None):
    good = small(FAMILIES[suffix])
    kinds = ["rename", "drop", "add", "reshape", "dtype", "nan", "shorten", "prefix", "none"]
    outcomes: dict[str, set[bool]] = {kind: set() for kind in kinds}
    tried: list[int] = []

    @settings(max_examples=CASES * 2 // 5)
    @given(SEEDS, st.sampled_from(kinds))
    def mistaken(seed: int, kind: str) -> None:
        tried.append(seed)
        with folder_with(b"", suffix, tmp_path) as (source, target):
            changed = mistake(good, kind, random.Random(seed))
            with contextlib.suppress(XcitHubError):
                checkpoint.write(source, changed, {"format": "pt", "xcit_hub.dialect": "paper"})
                outcomes[kind].add(attempt(source, target))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mistaken()
    assert len(tried) >= CASES * 2 // 5
    # A tensor of another float is a tensor; of an integer it is not.
    assert outcomes.pop("dtype") == {True, False}
    assert outcomes == {kind: {kind == "none"} for kind in outcomes}


def mistake(good: dict[str, StoredTensor], kind: str, chance: random.Random) -> dict[str, StoredTensor]:
    changed = dict(good)
    name = chance.choice(sorted(good))
    array = changed[name].numpy().copy()
    if kind == "rename":
        parts = name.split(".")
        parts[chance.randrange(len(parts))] += chance.choice(["x", "1", "é", "\x1b[31m"])
        changed[".".join(parts)] = changed.pop(name)
    elif kind == "drop":
        del changed[name]
    elif kind == "add":
        changed[f"{name}.extra"] = changed[name]
    elif kind == "reshape":
        changed[name] = changed[name].reshape((*array.shape, 1))
    elif kind == "dtype":
        dtype = chance.choice(["float16", "float64", "int32", "int64", "uint8", "bool"])
        changed[name] = StoredTensor.of(array.astype(dtype))
    elif kind == "nan":
        array.reshape(-1)[chance.randrange(array.size)] = chance.choice([np.nan, np.inf, -np.inf])
        changed[name] = StoredTensor.of(array)
    elif kind == "shorten":
        changed[name] = (
            StoredTensor.of(array[:-1]) if len(array) > 1 else StoredTensor.of(np.concatenate([array, array]))
        )
    elif kind == "prefix":
        changed[f"blocks.{name}"] = changed.pop(name)
    return changed


# ---- Killed in the middle

# Converts once for each line that it reads, in a process that is killed at that call into C; 0 is never.
_CONVERTS = """
import itertools, os, signal, sys, threading
from xcit_hub.checkpoints.rewrite import rewrite

def convert(last):
    calls = itertools.count(1)
    def count(frame, event, argument):
        if event == "c_call" and next(calls) == last:
            os.kill(os.getpid(), signal.SIGKILL)
    threading.setprofile(count)
    sys.setprofile(count)
    rewrite(sys.argv[1], sys.argv[2])
    sys.setprofile(None)
    return next(calls)

for line in sys.stdin:
    child = os.fork()
    if not child:
        print(convert(int(line)), flush=True)
        os._exit(0)
    print("ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
_KILLS = 50


@pytest.mark.slow
def test_kill_minus_nine_at_any_moment_leaves_no_target_or_a_whole_one(tmp_path: Path):
    from xcit_hub.files import sha256_of
    from xcit_hub.variants import architecture

    source, target = tmp_path / "source.safetensors", tmp_path / "target.ckpt"
    entry = architecture("xcit_tiny_24_p16_224")
    checkpoint.write(source, translate.from_ours(network(entry, "classifier", 1000), "timm"))
    command = [sys.executable, "-c", _CONVERTS, str(source), str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        print(0, file=process.stdin, flush=True)
        calls = int(process.stdout.readline())
        assert process.stdout.readline() == "ended with 0\n"
        whole = sha256_of(target)
        target.unlink()
        interrupted = 0
        for index in range(_KILLS):
            print(1 + index * calls // _KILLS, file=process.stdin, flush=True)
            assert process.stdout.readline() == f"ended with {-signal.SIGKILL}\n"
            left = list(tmp_path.glob(".target.ckpt.*.tmp"))
            interrupted += bool(left)
            for path in left:
                shutil.rmtree(path)
            if target.exists():
                assert sha256_of(target) == whole
                # The next rounds replace a whole file, or, every other time, make one anew.
                if index % 2:
                    target.unlink()
            config = tmp_path / "target.config.json"
            if config.exists():
                assert json.loads(config.read_text())["xcit_hub"]["sha256"] == whole
        process.stdin.close()
    assert interrupted >= _KILLS // 5, "the kills came too early or too late to prove anything"
    rewrite(source, target)
    assert sha256_of(target) == whole
