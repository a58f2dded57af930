"""What this package does with MindSpore's insides changes nothing of what MindSpore does."""

from __future__ import annotations

import inspect

from mindspore import nn, ops
from mindspore.ops import operations

import xcit_hub.models.private  # noqa: F401  # it is what has been imported that is looked at


def test_a_signature_that_is_kept_is_the_functions_own() -> None:
    made = [inspect.unwrap(kind.__init__) for kind in (nn.Conv2d, operations.Load, ops.MatMul, ops.Conv2D, ops.Shape)]
    for function in made:
        kept = vars(function).pop("__signature__")
        try:
            assert inspect.signature(function) == kept
        finally:
            function.__signature__ = kept
    assert ops.Conv2D(8, 3).init_attrs["out_channel"] == 8
    assert ops.MatMul(transpose_b=True).transpose_b
