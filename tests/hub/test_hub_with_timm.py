"""timm itself, in a process of its own, loads from the hub what publish put there: the same logits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import mindspore
import numpy as np
from hub_server import TOKEN

import xcit_hub
from xcit_hub import parity
from xcit_hub.hub.config import of_architecture
from xcit_hub.parity import random_images

NANO = "xcit_nano_12_p16_224"

_TIMM = """
import os, sys, warnings
warnings.simplefilter("ignore")
import numpy as np, timm, torch
images, out = sys.argv[1:3]
if "--ours" in sys.argv:
    sys.argv.remove("--ours")
    import xcit_hub.timm
for index, name in enumerate(sys.argv[3:]):
    model = timm.create_model(f"hf-hub:{name}", pretrained=True).eval()
    with torch.no_grad():
        np.save(f"{out}{index}.npy", model(torch.from_numpy(np.load(images))).numpy())
    if os.path.exists(f"{out}{index}.ours.npy"):
        from xcit_hub.parity import failed_checks  # only now: timm has loaded without us
        failed = failed_checks(np.load(f"{out}{index}.ours.npy"), model, np.load(images))
        assert not failed, failed
"""


def timm_logits(server, tmp_path, images, *names, check=True, ours=None):
    """Return timm's logits; ``ours`` are judged beside them by the rule of the proof."""
    np.save(tmp_path / "images.npy", images)
    if ours is not None:
        np.save(tmp_path / "logits0.ours.npy", ours)
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "timm-home")}
    command = [sys.executable, "-c", _TIMM, str(tmp_path / "images.npy"), str(tmp_path / "logits"), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    if not check:
        return done
    assert done.returncode == 0, done.stderr
    return [np.load(tmp_path / f"logits{index}.npy") for index in range(len([name for name in names if "/" in name]))]


def test_timm_loads_what_was_published_and_computes_the_same(server, nano_ckpt, tmp_path, monkeypatch):
    done = xcit_hub.publish(nano_ckpt, "org/nano", to=server.url)
    assert done.parity["passed"]
    assert json.loads(server.repositories["org/nano"].at("main").files["parity.json"])["passed"]

    # Another machine measures a little differently: the figures that are already there stand.
    figures = {**done.parity, "max_error": 1e-7, "relative_error": 1e-7}
    other = SimpleNamespace(passed=True, as_dict=lambda: figures)
    monkeypatch.setattr(parity, "verify_weights", lambda *_, **__: other)
    assert not xcit_hub.publish(nano_ckpt, "org/nano", to=server.url).changed

    network = xcit_hub.load("org/nano", hub=server.url)
    images = random_images(2, 3, 64, 64)
    ours = network(mindspore.Tensor(images)).asnumpy()
    timm_logits(server, tmp_path, images, "org/nano", ours=ours)


def test_timm_refuses_the_other_dialect_until_xcit_hub_timm_is_imported(server, nano_mindcv, tmp_path):
    xcit_hub.publish(nano_mindcv, "org/mindcv", to=server.url, parity=False)
    files = server.repositories["org/mindcv"].at("main").files
    assert json.loads(files["config.json"])["architecture"] == f"{NANO}_mindcv"
    refused = timm_logits(server, tmp_path, random_images(1, 3, 64, 64), "org/mindcv", check=False)
    assert refused.returncode != 0
    assert "Unknown model" in refused.stderr
    network = xcit_hub.load("org/mindcv", hub=server.url)
    assert network.dialect.name == "mindcv"
    images = random_images(2, 3, 64, 64)
    (theirs,) = timm_logits(server, tmp_path, images, "org/mindcv", "--ours")
    # Without normalisation a softmax of random weights is nearly a maximum, and rounding shows: 6e-5 here. The paper's
    # network on these weights is off by more than the deviation itself.
    assert np.abs(network(mindspore.Tensor(images)).asnumpy() - theirs).max() <= 1e-3 * theirs.std()


def test_pools_channels_and_heads_reach_timm(server, nano_arrays, tmp_path):
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
    timm_logits(server, tmp_path, images, "org/odd", ours=ours)
