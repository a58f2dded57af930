"""The weights that the notebooks use: timm's, or, where no hub can be reached, random ones of the same shapes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import xcit_hub
from xcit_hub.errors import HubError
from xcit_hub.hub.locate import locate

NAME = "timm/xcit_tiny_12_p16_224.fb_in1k"


def take() -> tuple[Any, str]:
    """Return the network, and a sentence about where its weights are from."""
    try:
        locate(NAME)
    except HubError as error:
        sentence = (
            f"{error.what}\n"
            "RANDOM WEIGHTS of the same architecture take their place: everything below is computed as with the "
            "published ones, but what the network says and looks at means nothing."
        )
        return _random(), sentence
    network = xcit_hub.load(NAME)
    return network, f"Weights of {network.config.provenance.source}, SHA-256 {network.config.provenance.sha256}."


def _random() -> Any:
    """Write, publish into a folder and load seeded random weights, so that labels and preprocessing come with them."""
    from xcit_hub.checkpoints import checkpoint
    from xcit_hub.parameters import parameter_shapes
    from xcit_hub.parity import random_weights
    from xcit_hub.variants import architecture

    name = NAME.partition("/")[2].partition(".")[0]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.safetensors"
        arrays = random_weights(parameter_shapes(architecture(name)), seed=0)
        checkpoint.write(file, arrays, {"xcit_hub.architecture": name, "xcit_hub.dialect": "paper"})
        xcit_hub.publish(file, f"random/{name}", to=Path(folder) / "hub", labels="imagenet-1k", parity=False)
        return xcit_hub.load(f"random/{name}", hub=Path(folder) / "hub")
