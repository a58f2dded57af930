"""MindSpore's first import in a process, where others came before it; importing this module is that import."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from types import ModuleType

from xcit_hub.lasting import lasting

_VARIABLE = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"


def _import_mindspore() -> None:
    """Import MindSpore, whatever has imported protobuf already, as every worker of Ray's has.

    Who imports protobuf first chooses its implementation for the process, and MindSpore's generated code runs with the
    Python one alone. Where another one stands, MindSpore gets a protobuf of its own, and the others keep theirs.
    """
    chosen = sys.modules.get("google.protobuf.internal.api_implementation")
    if "mindspore" in sys.modules or chosen is None or chosen.Type() == "python":
        importlib.import_module("mindspore")
        return
    theirs = _without_protobuf()
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "python"
    try:
        importlib.import_module("mindspore")
        train = importlib.import_module("mindspore.train")
        for module in pkgutil.iter_modules(train.__path__):
            if module.name.endswith("_pb2"):
                importlib.import_module(f"mindspore.train.{module.name}")
    finally:
        _without_protobuf()
        sys.modules.update(theirs)
        sys.modules["google"].protobuf = theirs["google.protobuf"]  # type: ignore[attr-defined]
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before


def _without_protobuf() -> dict[str, ModuleType]:
    """Forget protobuf's modules, and return them; not its library (google._upb): a process has but one."""
    names = [name for name in sys.modules if f"{name}.".startswith("google.protobuf.")]
    return {name: sys.modules.pop(name) for name in names}


with lasting():
    _import_mindspore()
