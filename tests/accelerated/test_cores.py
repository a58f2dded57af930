"""However many cores share the work, a network computes the same bits; the other tests may run on one core alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from xcit_hub.accelerated import available, build

pytestmark = [
    pytest.mark.skipif(not available(), reason=build.absence()),
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="this machine has one core"),
]

# Two blocks of each kind; the images are large enough that threads share the class attention of one as well.
_COMPUTES = """
import hashlib, os, sys
from dataclasses import replace
import mindspore, numpy as np
from mindspore import Tensor
from xcit_hub import parity, variants
from xcit_hub.accelerated import accelerate, fuse
from xcit_hub.models import create_model, load_weights
from xcit_hub.parameters import parameter_shapes

print(len(os.sched_getaffinity(0)), "cores", file=sys.stderr)
wide = replace(
    variants.architecture("xcit_nano_12_p16_224"), name="wide", embed_dim=384, depth=2, num_heads=8
)
network = create_model(wide, num_classes=5, init=False)
load_weights(network, parity.random_weights(parameter_shapes(wide, num_classes=5)))
network = accelerate(network.set_train(False))
digest = hashlib.sha256()
for shape in ((1, 3, 592, 608), (3, 3, 96, 80)):
    images = Tensor(parity.random_images(*shape))
    for each in (network, fuse(network)):
        digest.update(each(images).asnumpy().tobytes())
        digest.update(each.forward_features(images).asnumpy().tobytes())
gradients = mindspore.grad(lambda images: network(images).sum(), None, network.trainable_params())
for gradient in gradients(Tensor(parity.random_images(3, 3, 96, 80))):
    digest.update(gradient.asnumpy().tobytes())
print(digest.hexdigest())
"""


def test_a_network_and_its_gradients_are_the_same_bits_on_one_core_and_on_all() -> None:
    every = set(range(os.cpu_count() or 1))
    ran = []
    for cores in ({min(os.sched_getaffinity(0))}, every):
        done = subprocess.run(
            [sys.executable, "-c", _COMPUTES],
            capture_output=True, text=True, check=True, timeout=1200,
            preexec_fn=lambda cores=cores: os.sched_setaffinity(0, cores),
        )  # fmt: skip
        ran.append((done.stderr.split(" cores")[0].split()[-1], done.stdout))
    (one, alone), (several, together) = ran
    assert one == "1"
    if several == "1":
        pytest.skip("this process may use one core alone")
    assert alone == together
