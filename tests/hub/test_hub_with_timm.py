"""timm itself, in a process of its own, loads from the hub what publish put there: the same logits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import mindspore
import numpy as np
import pytest
from hub_server import TOKEN

import xcit_hub
from xcit_hub import parity
from xcit_hub.hub.config import of_architecture
from xcit_hub.parity import random_images

NANO = "xcit_nano_12_p16_224"

# To import timm takes longer than all that is asked of it here: a process that has, and has nothing of ours, forks for
# each question.
_TIMM = """
import json, os, sys, traceback, warnings
warnings.simplefilter("ignore")
import numpy as np, timm, torch

def answer(folder, name, with_ours):
    if with_ours:
        import xcit_hub.timm
    images = np.load(f"{folder}/images.npy")
    model = timm.create_model(f"hf-hub:{name}", pretrained=True).eval()
    with torch.no_grad():
        np.save(f"{folder}/logits.npy", model(torch.from_numpy(images)).numpy())
    if os.path.exists(f"{folder}/ours.npy"):
        from xcit_hub.parity import failed_checks  # only now: timm has loaded without us
        failed = failed_checks(np.load(f"{folder}/ours.npy"), model, images)
        assert not failed, failed

for line in sys.stdin:
    question = json.loads(line)
    child = os.fork()
    if child == 0:
        try:
            answer(*question)
        except BaseException:
            with open(f"{question[0]}/said.txt", "w") as said:
                traceback.print_exc(file=said)
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

Ask = Callable[..., tuple[np.ndarray | None, str]]


@pytest.fixture(scope="module")
def asked(shared_server, tmp_path_factory) -> Iterator[subprocess.Popen[str]]:
    home = tmp_path_factory.mktemp("timm-home")
    environment = {**os.environ, "HF_ENDPOINT": shared_server.url, "HF_TOKEN": TOKEN, "HF_HOME": str(home)}
    command = [sys.executable, "-c", _TIMM]
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def timm_logits(asked, server, tmp_path) -> Ask:
    """Return timm's logits, or what it said; ``ours`` are judged beside them by the rule of the proof."""

    def ask(images: np.ndarray, name: str, *, with_ours: bool = False, ours: np.ndarray | None = None):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        np.save(folder / "images.npy", images)
        if ours is not None:
            np.save(folder / "ours.npy", ours)
        asked.stdin.write(json.dumps([str(folder), name, with_ours]) + "\n")
        asked.stdin.flush()
        if int(asked.stdout.readline()) == 0:
            return np.load(folder / "logits.npy"), ""
        return None, (folder / "said.txt").read_text()

    return ask


def test_timm_loads_what_was_published_and_computes_the_same(server, nano_ckpt, timm_logits, monkeypatch):
    done = xcit_hub.publish(nano_ckpt, "org/nano", to=server.url)
    assert done.parity["passed"]
    assert json.loads(server.repositories["org/nano"].at("main").files["parity.json"])["passed"]

    # Another machine measures a little differently: the figures that are already there stand.
    measured = json.loads(json.dumps(done.parity))
    for check in measured["checks"]:
        check["ours"] = {of: far * 1.3 for of, far in check["ours"].items()}
    other = SimpleNamespace(passed=True, as_dict=lambda: measured)
    monkeypatch.setattr(parity, "verify_weights", lambda *_, **__: other)
    again = xcit_hub.publish(nano_ckpt, "org/nano", to=server.url)
    assert (again.changed, again.notes, again.parity) == (False, done.notes, done.parity)

    # What the hub says and nobody measured is not taken, whatever is wrong with it.
    for wrong in ({**done.parity, "versions": {"torch": "99.9"}, "max_error": 0.0}, {"passed": True}, []):
        files = server.repositories["org/nano"].at("main").files
        server.add("org/nano", files | {"parity.json": json.dumps(wrong).encode()})
        mended = xcit_hub.publish(nano_ckpt, "org/nano", to=server.url)
        assert "not of this proof" in " ".join(mended.notes)
        assert mended.parity == measured
        assert "99.9" not in mended.card

    network = xcit_hub.load("org/nano", hub=server.url)
    images = random_images(2, 3, 64, 64)
    ours = network(mindspore.Tensor(images)).asnumpy()
    _, said = timm_logits(images, "org/nano", ours=ours)
    assert not said


def test_timm_refuses_the_other_dialect_until_xcit_hub_timm_is_imported(server, nano_mindcv, timm_logits):
    xcit_hub.publish(nano_mindcv, "org/mindcv", to=server.url, parity=False)
    files = server.repositories["org/mindcv"].at("main").files
    assert json.loads(files["config.json"])["architecture"] == f"{NANO}_mindcv"
    _, said = timm_logits(random_images(1, 3, 64, 64), "org/mindcv")
    assert "Unknown model" in said
    network = xcit_hub.load("org/mindcv", hub=server.url)
    assert network.dialect.name == "mindcv"
    images = random_images(2, 3, 64, 64)
    theirs, said = timm_logits(images, "org/mindcv", with_ours=True)
    assert not said
    # Without normalisation a softmax of random weights is nearly a maximum, and rounding shows: 6e-5 here. The paper's
    # network on these weights is off by more than the deviation itself.
    assert np.abs(network(mindspore.Tensor(images)).asnumpy() - theirs).max() <= 1e-3 * theirs.std()


def test_pools_channels_and_heads_reach_timm(server, timm_logits, tmp_path):
    from dataclasses import replace

    from xcit_hub.hub.network import XCiT
    from xcit_hub.parameters import parameter_shapes
    from xcit_hub.parity import random_weights
    from xcit_hub.variants import architecture

    config = of_architecture(NANO, "paper", num_classes=7, in_chans=1)
    shapes = parameter_shapes(architecture(NANO), num_classes=7, in_chans=1)
    network = XCiT.of_config(replace(config, global_pool="avg"), random_weights(shapes))
    network.save_pretrained(tmp_path / "saved")
    files = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    server.add("org/odd", files)
    images = random_images(2, 1, 96, 96)
    ours = network(mindspore.Tensor(images)).asnumpy()
    assert ours.shape == (2, 7)
    _, said = timm_logits(images, "org/odd", ours=ours)
    assert not said
