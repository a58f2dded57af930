from __future__ import annotations

import mindspore
import pytest


@pytest.fixture(params=[mindspore.PYNATIVE_MODE, mindspore.GRAPH_MODE], ids=["pynative", "graph"])
def mode(request) -> None:
    """Both modes, one after the other; the next test begins in PyNative again."""
    mindspore.set_context(mode=request.param)
