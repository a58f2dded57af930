"""Connections whose every read and write asks whether there is time left, and which say where they lead to.

A client's own timeouts begin anew with every byte; a server that sends one now and then, be it in its headers, is
bounded only here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Remaining = Callable[[], "float | None"]
Connected = Callable[[str, int, str], None]


def watch(client: Any, remaining: Remaining, connected: Connected) -> None:
    """Watch every connection that a client of httpx (or httpx2) will make.

    Args:
        remaining: asked before each read and write; the seconds it may take, None for as long as the client's own
            timeout. What it raises ends the exchange.
        connected: told each host and port that were asked for, and the address that was connected to, before anything
            is sent there. Not asked about proxies.
    """
    # Neither library offers this; where a version hides its pool elsewhere, bodies alone are bounded (see guard).
    for transport in (client._transport, *client._mounts.values()):
        pool: Any = getattr(transport, "_pool", None)
        backend = getattr(pool, "_network_backend", None)
        if backend is None or isinstance(backend, _Watched):
            continue
        is_proxy = "Proxy" in type(pool).__name__
        pool._network_backend = _Watched(backend, remaining, _ignored if is_proxy else connected)


def _ignored(host: str, port: int, address: str) -> None:
    """A proxy is the user's own choice."""


class _Watched:
    """The connections of a pool."""

    def __init__(self, backend: Any, remaining: Remaining, connected: Connected) -> None:
        self._backend = backend
        self._remaining = remaining
        self._connected = connected

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> Any:
        stream = self._backend.connect_tcp(host, port, timeout=_shorter(timeout, self._remaining()), **options)
        peer = stream.get_extra_info("server_addr")
        try:
            self._connected(host, port, str(peer[0]) if isinstance(peer, tuple) else "")
        except BaseException:
            stream.close()
            raise
        return _Stream(stream, self._remaining)


class _Stream:
    """One connection."""

    def __init__(self, stream: Any, remaining: Remaining) -> None:
        self._stream = stream
        self._remaining = remaining

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        content: bytes = self._in_time(self._stream.read, max_bytes, timeout=timeout)
        return content

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._in_time(self._stream.write, buffer, timeout=timeout)

    def start_tls(self, *given: Any, timeout: float | None = None, **options: Any) -> _Stream:
        return _Stream(self._in_time(self._stream.start_tls, *given, timeout=timeout, **options), self._remaining)

    def _in_time(self, work: Callable[..., Any], *given: Any, timeout: float | None, **options: Any) -> Any:
        try:
            return work(*given, timeout=_shorter(timeout, self._remaining()), **options)
        except Exception:
            self._remaining()  # which says so, where it is the exchange whose time is over
            raise


def _shorter(timeout: float | None, remaining: float | None) -> float | None:
    return timeout if remaining is None else remaining if timeout is None else min(timeout, remaining)
