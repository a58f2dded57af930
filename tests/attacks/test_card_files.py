"""What stands under a card's name and is not a file; the hostile cards themselves are tried by test_attack_suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cards.check import check, read
from xcit_hub.errors import CardError


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "loop", "missing"])
def test_what_is_not_a_file_is_refused_at_once(kind, tmp_path):
    path = {"device": Path("/dev/zero")}.get(kind, tmp_path / "card.md")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    with pytest.raises(CardError):
        read(path)
    with pytest.raises(CardError):
        check(path)
