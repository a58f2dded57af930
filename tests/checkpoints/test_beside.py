"""What stands beside a network is told by its name, by one pattern first and then by each."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xcit_hub import variants
from xcit_hub.checkpoints import beside
from xcit_hub.checkpoints.families import LAYOUTS
from xcit_hub.parameters import parameter_shapes

_PARTS = st.sampled_from(["head", "state", "7", "loss", "step", "blocks", "rng", "optimizer", "acc1", "moments", "x\n"])


def _by_each_pattern(name: str) -> beside.Reason | None:
    return next((reason for pattern, reason in beside.TABLE if re.fullmatch(pattern, name)), None)


@settings(max_examples=10)
@pytest.mark.parametrize("pattern", [pattern for pattern, _ in beside.TABLE])
@given(data=st.data())
def test_the_joined_pattern_finds_what_each_of_them_finds(data, pattern: str) -> None:
    name = data.draw(st.from_regex(pattern, fullmatch=True))
    assert beside.reason_of(name) == _by_each_pattern(name) is not None


@settings(max_examples=300)
@given(st.lists(_PARTS, max_size=4).map(".".join))
def test_the_joined_pattern_finds_nothing_that_none_of_them_finds(name: str) -> None:
    assert beside.reason_of(name) is _by_each_pattern(name)


@pytest.mark.parametrize("architecture", ["xcit_nano_12_p16_224", "xcit_large_24_p8_384"])
@pytest.mark.parametrize("family", LAYOUTS)
def test_no_name_of_a_network_is_taken_for_something_beside_it(family: str, architecture: str) -> None:
    for name in parameter_shapes(variants.architecture(architecture)):
        for theirs in LAYOUTS[family].names(name):
            assert beside.reason_of(theirs) is None
