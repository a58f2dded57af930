"""Worse conditions are brought about, said, and taken back; what is none is refused."""

from __future__ import annotations

import os

import pytest

from benchmarks.conditions import conditions
from xcit_hub.errors import InputError


def test_cores_are_kept_to_and_given_back() -> None:
    before = os.sched_getaffinity(0)
    with conditions(cores=1, disturber=True, quota=None) as said:
        assert len(os.sched_getaffinity(0)) == 1
        assert said == f"kept to 1 of {len(before)} cores, another process computing on one core"
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("quota", [1e9, float("inf")])
def test_a_quota_of_all_cores_is_refused(quota: float) -> None:
    with pytest.raises(InputError, match="is none"), conditions(cores=None, disturber=False, quota=quota):
        pass


def test_more_cores_than_there_are_are_refused() -> None:
    with pytest.raises(InputError, match="cores"), conditions(cores=10**6, disturber=False, quota=None):
        pass


def test_a_limit_that_one_contender_alone_keeps_to_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("XCIT_HUB_THREADS", "1")
    with (
        pytest.raises(InputError, match=r"XCIT_HUB_THREADS=1 .*\n.*\n?.*--cores"),
        conditions(cores=None, disturber=False, quota=None),
    ):
        pass
