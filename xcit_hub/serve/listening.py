"""Whether a server can be started here, found out before a model is loaded for it."""

from __future__ import annotations

import importlib.util
import socket
import sys

from xcit_hub.errors import InputError


def check(host: str, port: int) -> None:
    """Refuse to serve where what it takes is not installed, or the address cannot be listened on.

    Raises:
        InputError: one of these.
    """
    for module in ("starlette", "uvicorn"):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"{module} is not installed.", where=sys.executable, fix="pip install 'xcit-hub[serve]'")
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except (OSError, TypeError, ValueError) as error:  # a name that no host can have
        raise InputError(
            f"Cannot listen on port {port} of {host}: {getattr(error, 'strerror', None) or error}.",
            where="--host, --port",
            fix="Choose another --port, or 0 for a free one.",
        ) from error
