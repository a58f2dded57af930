"""Modelers and GitCode, through ``openmind_hub``, the client of both."""

from __future__ import annotations

from typing import ClassVar

from xcit_hub.hub.sites import GITCODE, MODELERS, Site
from xcit_hub.hub.stores.client_store import ClientStore, sockets


class ModelersStore(ClientStore):
    """modelers.cn, or what its client is configured for."""

    site: ClassVar[Site] = MODELERS
    module: ClassVar[str] = "openmind"

    def environment(self) -> dict[str, str]:
        """Return the client's settings; it reads its endpoint when it is imported."""
        return {
            "OPENMIND_HUB_ENDPOINT": self.endpoint,
            "OM_HUB_DISABLE_PROGRESS_BARS": "1",
            "DEFAULT_REQUEST_TIMEOUT": sockets(),
            "XDG_CACHE_HOME": "/dev/null",  # it is given open files, and keeps nothing; below /var it would not start
        }


class GitCodeStore(ModelersStore):
    """GitCode's hub of models."""

    site: ClassVar[Site] = GITCODE
