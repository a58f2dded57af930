from __future__ import annotations

from pathlib import Path

import pytest
from xcit_hub.training.checkpoints import retire


@pytest.mark.parametrize(
    ("policy", "stays"),
    [("latest_k", ["c", "d"]), ("top_k", ["b", "c"]), (None, ["a", "b", "c", "d"])],
)
def test_the_policy_decides_which_checkpoints_stay(tmp_path: Path, policy: str, stays: list[str]) -> None:
    kept = [("a", 10.0), ("b", 30.0), ("c", 20.0), ("d", None)]
    for name, _ in kept:
        (tmp_path / name).touch()
    assert [name for name, _ in retire(tmp_path, kept, policy, 2)] == stays  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == stays
