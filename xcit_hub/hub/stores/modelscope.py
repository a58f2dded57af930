"""ModelScope, through ``modelscope_hub``, its light client."""

from __future__ import annotations

from typing import ClassVar

from xcit_hub.hub.sites import MODELSCOPE, Site
from xcit_hub.hub.stores.client_store import ClientStore, sockets


class ModelScopeStore(ClientStore):
    """modelscope.cn, modelscope.ai, or a server of one's own that speaks its protocol."""

    site: ClassVar[Site] = MODELSCOPE
    module: ClassVar[str] = "modelscope"

    def environment(self) -> dict[str, str]:
        """Return the client's settings: it tries again few times, as whoever asks it does."""
        return {
            "MODELSCOPE_ENDPOINT": self.endpoint,
            "MODELSCOPE_DOWNLOAD_INTRA_CLOUD": "false",  # it asks a private address which cloud this is
            "MODELSCOPE_API_TIMEOUT": sockets(),
            "MODELSCOPE_API_MAX_RETRIES": "1",
            "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1",
            "MODELSCOPE_DOWNLOAD_TIMEOUT": sockets(),
            "MODELSCOPE_DOWNLOAD_MAX_RETRIES": "1",
            "MODELSCOPE_DOWNLOAD_RETRY_MAX_DELAY_SECONDS": "2",
            "MODELSCOPE_DOWNLOAD_TOTAL_TIMEOUT": "86400",
            "MODELSCOPE_UPLOAD_BLOB_READ_TIMEOUT_SECONDS": "600",
        }
