"""The fixtures of the hub's tests: a loopback hub, small real weights, nobody's machine."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # hub_server and hub_fixtures are modules beside the hub's tests

from hub_fixtures import *  # noqa: F403
from site_fixtures import *  # noqa: F403
