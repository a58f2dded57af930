from __future__ import annotations

from pathlib import Path

import pytest

from xcit_hub.checkpoints import checkpoint
from xcit_hub.errors import CheckpointError, InputError
from xcit_hub.training.keeping import CLASSES, PREPROCESSING, retire, stored_classes, stored_images
from xcit_hub.training.resume import Kept


@pytest.mark.parametrize(
    ("policy", "stays"),
    [("latest_k", ["c", "d"]), ("top_k", ["b", "c"]), (None, ["a", "b", "c", "d"])],
)
def test_the_policy_decides_which_checkpoints_stay_and_averages_go_with_them(
    tmp_path: Path, policy: str, stays: list[str]
) -> None:
    kept = [Kept(name=f"{name}.ckpt", top1=top1) for name, top1 in (("a", 10.0), ("b", 30.0), ("c", 20.0), ("d", None))]
    for entry in kept:
        (tmp_path / entry.name).touch()
        (tmp_path / entry.name.replace(".ckpt", "_ema.ckpt")).touch()
    assert [entry.name[0] for entry in retire(tmp_path, kept, policy, 2)] == stays  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}{end}" for name in stays for end in (".ckpt", "_ema.ckpt")
    )


@pytest.mark.parametrize("text", ["{", '{"a": 1}', '["a", 1]', '["a", "a"]', "[" * 100_000])
def test_class_names_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    import numpy as np

    path = tmp_path / "x.safetensors"
    checkpoint.write(path, {"head.bias": np.zeros(2, np.float32)}, {CLASSES: text})
    with pytest.raises(InputError, match="not a list of different names"), checkpoint.read(path) as stored:
        stored_classes(stored)


@pytest.mark.parametrize("text", ["{", "[1]", "7", "[" * 100_000])
def test_images_that_a_checkpoint_does_not_describe_are_refused(tmp_path: Path, text: str) -> None:
    import numpy as np

    path = tmp_path / "x.safetensors"
    checkpoint.write(path, {"head.bias": np.zeros(2, np.float32)}, {PREPROCESSING: text})
    with pytest.raises(CheckpointError, match="of the checkpoint cannot be read"), checkpoint.read(path) as stored:
        stored_images(stored)
