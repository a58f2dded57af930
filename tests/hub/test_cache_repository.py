"""One model's folder of the cache, as who fetches a file finds and leaves it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

import pytest

from xcit_hub.errors import HubError
from xcit_hub.hub.cache import Repository

COMMIT = "a" * 40


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def giving(content: bytes):
    return lambda stream: stream.write(content)


def cut(stream: BinaryIO) -> None:
    stream.write(b"h")
    raise HubError("The connection was cut.")


@pytest.fixture
def held(tmp_path) -> tuple[Repository, Path]:
    repository = Repository(tmp_path, "org/name")
    return repository, repository.obtain(COMMIT, "model.ckpt", digest(b"good"), giving(b"good"))


def test_a_file_stays_where_fetching_it_again_fails(held):
    repository, file = held
    for write, offline in ((cut, False), (giving(b"other"), False), (giving(b"good"), True)):
        with pytest.raises(HubError):
            repository.obtain(COMMIT, "model.ckpt", digest(b"good"), write, offline=offline, force=True)
        assert file.read_bytes() == b"good"


def test_a_file_that_was_fetched_again_takes_the_place_of_the_other(held):
    repository, file = held
    old = file.resolve()
    assert repository.obtain(COMMIT, "model.ckpt", "", giving(b"newer"), force=True).read_bytes() == b"newer"
    assert not old.exists()


def test_a_damaged_file_is_mended_by_what_arrives(held):
    repository, file = held
    file.resolve().write_bytes(b"bad!")
    found = repository.obtain(COMMIT, "model.ckpt", digest(b"good"), giving(b"good"))
    assert (found, found.read_bytes()) == (file, b"good")
