"""Load what was published, from the wheel alone, and find its templates, cards and recipes."""

import sys
from importlib.resources import files
from pathlib import Path

import mindspore
import numpy as np

import xcit_hub
from xcit_hub.accelerated import build

folder = Path(sys.argv[1])
assert "site-packages" in xcit_hub.__file__, xcit_hub.__file__
assert build.library() is not None, build.absence()
network = xcit_hub.load("ci/nano", hub=folder / "hub")
logits = network(mindspore.Tensor(np.zeros((1, 3, 224, 224), np.float32))).asnumpy()
assert logits.shape == (1, 1000)
assert np.isfinite(logits).all()
assert list((files("cards") / "templates").iterdir())
assert list((files("cards") / "index").iterdir())
assert (files("xcit_hub") / "configs" / "xcit" / "xcit_tiny_12_p16_ascend.yaml").is_file()
print("the wheel alone converts, and loads", network.config.architecture)
