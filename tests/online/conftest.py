"""The loopback hub, and nobody's machine."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "hub"))

from hub_fixtures import *  # noqa: F403
