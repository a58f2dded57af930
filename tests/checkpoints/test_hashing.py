from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from xcit_hub.checkpoints.hashing import hashed
from xcit_hub.files import atomic_write


@pytest.mark.parametrize("lengths", [[], [0, 1, 0], [5, 1 << 20, (1 << 20) + 1, 3 << 20, 7], [1] * 500])
def test_the_digest_is_that_of_the_file_however_it_was_written(tmp_path: Path, lengths: list[int]):
    content = [os.urandom(length) for length in lengths]
    with atomic_write(tmp_path / "x", expected=sum(lengths)) as stream, hashed(stream) as (announced, digest):
        for piece in content:
            assert announced.write(piece) == len(piece)
    assert (tmp_path / "x").read_bytes() == b"".join(content)
    assert digest.result() == hashlib.sha256(b"".join(content)).hexdigest()


def test_what_goes_wrong_in_the_second_thread_is_told(tmp_path: Path):
    with (
        pytest.raises(OSError, match="Bad file descriptor"),
        (tmp_path / "x").open("wb") as only_for_writing,
        hashed(only_for_writing) as (announced, _),
    ):
        announced.write(b"unreadable")


def test_what_goes_wrong_while_writing_ends_the_second_thread_and_leaves_no_file(tmp_path: Path):
    def fail() -> None:
        with atomic_write(tmp_path / "x") as stream, hashed(stream) as (announced, _):
            announced.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []
