"""XCiT for MindSpore: the native network, proven conversions, hubs and cards.

Everything here is imported on first use: ``import xcit_hub`` loads no framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from xcit_hub import deprecated
from xcit_hub._version import __version__
from xcit_hub.lasting import lasting

deprecated.install()

if TYPE_CHECKING:
    from converters.convert import convert
    from xcit_hub.attention_maps import attention, draw_attention
    from xcit_hub.deploy import export
    from xcit_hub.hub.create import create_model
    from xcit_hub.hub.dense import create_segmenter, load_segmenter
    from xcit_hub.hub.load import load, load_weights
    from xcit_hub.hub.locate import info
    from xcit_hub.hub.network import XCiT
    from xcit_hub.hub.publish import publish, publish_to
    from xcit_hub.prediction import predict, preprocess
    from xcit_hub.predictor import Predictor
    from xcit_hub.segmentation import segment
    from xcit_hub.variants import list_models

# public name → the room it stands in
_ROOMS = {
    "attention": "xcit_hub.attention_maps",
    "convert": "converters.convert",
    "create_model": "xcit_hub.hub.create",
    "create_segmenter": "xcit_hub.hub.dense",
    "draw_attention": "xcit_hub.attention_maps",
    "export": "xcit_hub.deploy",
    "info": "xcit_hub.hub.locate",
    "list_models": "xcit_hub.variants",
    "load": "xcit_hub.hub.load",
    "load_segmenter": "xcit_hub.hub.dense",
    "load_weights": "xcit_hub.hub.load",
    "predict": "xcit_hub.prediction",
    "Predictor": "xcit_hub.predictor",
    "preprocess": "xcit_hub.prediction",
    "publish": "xcit_hub.hub.publish",
    "publish_to": "xcit_hub.hub.publish",
    "segment": "xcit_hub.segmentation",
    "XCiT": "xcit_hub.hub.network",
}

__all__ = [
    "Predictor",
    "XCiT",
    "__version__",
    "attention",
    "convert",
    "create_model",
    "create_segmenter",
    "draw_attention",
    "export",
    "info",
    "list_models",
    "load",
    "load_segmenter",
    "load_weights",
    "predict",
    "preprocess",
    "publish",
    "publish_to",
    "segment",
]


def __getattr__(name: str) -> Any:
    room = _ROOMS.get(name)
    if room is None:
        raise AttributeError(f"module 'xcit_hub' has no attribute {name!r}")
    with lasting():
        value = getattr(importlib.import_module(room), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
