"""What 0.1.0 had elsewhere: it can be imported under its old name until 0.3.0, with a DeprecationWarning.

:data:`MODULES`, :data:`NAMES` and :data:`RENAMED` are the whole of it. ``xcit_hub``, ``converters`` and ``cards`` call
:func:`install` when they are imported: a module that has no file any more is found by Python's import machinery or not
at all.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

REMOVED_IN = "0.3.0"

# The old name, and where what it had stands now: the first that has a name is asked for it.
MODULES: dict[str, tuple[str, ...]] = {
    "cards.rules": ("cards.mindspore_hub_rules", "cards.advice"),
    "cards.run_record": ("xcit_hub.run_record",),
    "converters.checkpoint": ("xcit_hub.checkpoints.checkpoint", "xcit_hub.checkpoints.formats.kinds"),
    "converters.dialects": (
        "xcit_hub.checkpoints.families",
        "xcit_hub.checkpoints.translate",
        "xcit_hub.checkpoints.beside",
        "xcit_hub.checkpoints.identify",
        "xcit_hub.checkpoints.dialect",
    ),
    "converters.formats": ("xcit_hub.checkpoints.formats",),
    "converters.formats.mindspore": ("xcit_hub.checkpoints.formats.mindspore",),
    "converters.formats.pytorch": (
        "xcit_hub.checkpoints.formats.pytorch",
        "xcit_hub.checkpoints.formats.pytorch_write",
        "xcit_hub.checkpoints.formats.pickled",
    ),
    "converters.formats.safetensors": ("xcit_hub.checkpoints.formats.safetensors",),
    "converters.hashing": ("xcit_hub.checkpoints.hashing",),
    "converters.inspection": ("xcit_hub.checkpoints.inspection",),
    "converters.numbers": ("xcit_hub.checkpoints.dtypes", "xcit_hub.checkpoints.check"),
    "converters.tensor": ("xcit_hub.checkpoints.tensor",),
    "converters.weights": (
        "xcit_hub.checkpoints.weights",
        "xcit_hub.checkpoints.sidecar",
        "xcit_hub.checkpoints.check",
        "xcit_hub.checkpoints.identify",
    ),
    "xcit_hub.cli.hub": ("xcit_hub.cli.models", "xcit_hub.cli.publish", "xcit_hub.cli.cache"),
    "xcit_hub.conversion": ("converters.convert", "converters.folders", "converters.prove", "converters.reports"),
    "xcit_hub.hub.mixin": ("xcit_hub.hub.network", "xcit_hub.hub.create"),
    "xcit_hub.models.fused": ("xcit_hub.accelerated.fused",),
    "xcit_hub.models.kernels": ("xcit_hub.models.functions", "xcit_hub.models.private"),
    "xcit_hub.models.layers": ("xcit_hub.models.xcit",),
    "xcit_hub.models.native": ("xcit_hub.accelerated",),
    "xcit_hub.models.native.build": ("xcit_hub.accelerated.build",),
    "xcit_hub.models.native.cells": ("xcit_hub.accelerated.cells",),
    "xcit_hub.models.native.operations": ("xcit_hub.accelerated.operations",),
    "xcit_hub.models.stacked": ("xcit_hub.accelerated.stacked",),
    "xcit_hub.training.checkpoints": ("xcit_hub.training.resume", "xcit_hub.training.keeping"),
    "xcit_hub.training.optimizer": ("xcit_hub.training.optimizers",),
}

# Names that left a module which is still there: that module, the names, and where each stands now.
NAMES: dict[str, dict[str, str]] = {
    "cards.card": dict.fromkeys(("FORMS", "Form", "HUB_SUFFIXES", "LANGUAGES"), "cards.forms"),
    "cards.facts": {
        "UNNAMED": "cards.measured",
    },
    "converters.convert": {
        "Prove": "xcit_hub.checkpoints.rewrite",
        "config_path": "xcit_hub.checkpoints.sidecar",
    },
    "xcit_hub.data.augment": {
        "Color": "xcit_hub.data.operations",
        "RandAugment": "xcit_hub.data.policies",
    },
    "xcit_hub.hub.config": dict.fromkeys(
        ("preprocessing_from_metadata", "preprocessing_to_metadata", "classes_from_metadata", "with_metadata"),
        "xcit_hub.hub.metadata",
    ),
    "xcit_hub.hub.load": {
        "Located": "xcit_hub.hub.locate",
        "info": "xcit_hub.hub.locate",
        "ModelInfo": "xcit_hub.hub.locate",
        "preprocess": "xcit_hub.prediction",
    },
    "xcit_hub.hub.publish": {
        "write_weights": "xcit_hub.hub.entry",
    },
    "xcit_hub.training.engine": {
        "answer_of": "xcit_hub.training.scorer",
        "eval_data": "xcit_hub.training.inputs",
    },
    "xcit_hub.training.recipe": {
        "load_recipe": "xcit_hub.training.recipe_file",
        "parse_flags": "xcit_hub.training.recipe_file",
    },
}


def _unchanged(found: Any) -> Any:
    return found


# Names that are called otherwise now: the old one; the module and name of the new; how the old one is made of it.
RENAMED: dict[tuple[str, str], tuple[str, str, Callable[[Any], Any]]] = {
    ("converters.convert", "convert_one"): ("converters.convert", "convert", lambda convert: (
        lambda source, target, options, **how: convert(source, target, **vars(options), **how)
    )),
    ("xcit_hub.data.transforms", "Picture"): ("xcit_hub.data.transforms", "ImageLike", _unchanged),
    ("xcit_hub.hub.config", "from_timm"): ("xcit_hub.hub.timm_config", "read", lambda read: (
        lambda text, *, where=None: read(text, where=where).config
    )),
    ("xcit_hub.timm", "TAG"): ("xcit_hub.checkpoints.families", "TIMM_TAGS", lambda tags: tags["mindcv"]),
}  # fmt: skip


def install() -> None:
    """Let the old names be found, after everything that exists; a second call does nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


# Neither derives from importlib.abc's classes, which take longer to import than all of this.
class _Finder:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname not in MODULES:
            return None
        loader: Any = _Forwarding()
        return ModuleSpec(fullname, loader, is_package=any(name.startswith(f"{fullname}.") for name in MODULES))


def moved_names(module: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module that names left, or in which they are called otherwise."""

    def forward(name: str) -> Any:
        place, new, made_of = RENAMED.get((module, name), (NAMES.get(module, {}).get(name), name, _unchanged))
        if place is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name, obj=sys.modules[module])
        said = f"{module}.{name} is {place}.{new} now; the old name goes in {REMOVED_IN}."
        warnings.warn(said, DeprecationWarning, stacklevel=2)
        return made_of(getattr(importlib.import_module(place), new))

    return forward


class _Forwarding:
    def create_module(self, spec: ModuleSpec) -> None:
        del spec  # an ordinary module does

    def exec_module(self, module: ModuleType) -> None:
        places = MODULES[module.__name__]
        warnings.warn(
            f"{module.__name__} is {' and '.join(places)} now; the old name goes in {REMOVED_IN}.",
            DeprecationWarning,
            stacklevel=2,
        )
        homes = [importlib.import_module(place) for place in places]

        def forward(name: str) -> Any:
            for home in homes:
                if hasattr(home, name):
                    return getattr(home, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}", name=name, obj=module)

        module.__doc__ = homes[0].__doc__
        module.__dict__["__getattr__"] = forward
