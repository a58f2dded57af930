"""What every test starts from: quiet frameworks, no hub, PyNative."""

from __future__ import annotations

import os

os.environ.setdefault("GLOG_v", "3")  # before MindSpore is imported, or it logs every import
