"""The inside of a client's process: requests come in as lines of JSON, answers go out so, and the network is guarded.

The client is run as it was published. What is held here is what lies below it: every request it makes passes
:meth:`Guard.send`, every name it looks up :meth:`Guard.addresses`, so nothing leads to another scheme, a private
address or a foreign host, no token leaves its hub, and no answer is larger than was allowed for.

Nothing of xcit-hub is imported here: the process starts in the time its client takes.
"""

from __future__ import annotations

import errno
import importlib
import ipaddress
import json
import os
import queue
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO
from urllib.parse import urlsplit

DESCRIPTION_BYTES = 8 << 20
_REQUESTS = 500
_MEMORY = 4 << 30  # bytes, of what a client reads where nobody counts
_TIMEOUT = 60.0  # seconds without a byte, where the client sets no bound
_INTERVAL = 0.2  # seconds between two words about a transfer

Method = Callable[..., Any]


class Refused(Exception):  # noqa: N818  (what a server did, said to the user)
    """A server did what no hub does."""


class Missing(Exception):  # noqa: N818
    """There is no such model, revision or file; the argument says which of the three."""


class Guard:
    """Bounds on what a client does in the network.

    Args:
        endpoint: the hub's address.
        domains: each domain within which the endpoint's token may travel.
        storages: further domains the client may go to; None is every public host.
    """

    def __init__(self, endpoint: str, domains: list[str], storages: list[str] | None) -> None:
        self.endpoint = urlsplit(endpoint)
        self.domains = domains
        self.storages = storages
        self.limit = DESCRIPTION_BYTES
        self.requests = 0
        self.failed: tuple[int, str | None] | None = None  # the last refusal's status and Retry-After
        self._resolve = socket.getaddrinfo
        self._named = {(self.endpoint.hostname or "", self.endpoint.port or _PORTS.get(self.endpoint.scheme, 0))}
        for proxy in _proxies():
            parts = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
            self._named.add((parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)))

    def install(self) -> None:
        """Put the guard below requests and the resolver."""
        sessions = importlib.import_module("requests.sessions")
        original = sessions.Session.send
        guard = self

        def send(session: Any, request: Any, **options: Any) -> Any:
            return guard.send(original, session, request, options)

        sessions.Session.send = send
        socket.getaddrinfo = self.addresses

    def begin(self, limit: int = DESCRIPTION_BYTES) -> None:
        """Start one exchange: its answers may have so many bytes each."""
        self.limit = limit
        self.requests = 0
        self.failed = None

    def send(self, original: Method, session: Any, request: Any, options: dict[str, Any]) -> Any:
        """Check a request, send it, and count its answer. Redirects come here one by one."""
        self.requests += 1
        if self.requests > _REQUESTS:
            raise Refused(f"needs more than {_REQUESTS} requests")
        parts = urlsplit(request.url)
        host = (parts.hostname or "").lower()
        is_endpoint = parts.netloc.rpartition("@")[2] == self.endpoint.netloc
        if parts.scheme != "https" and not (is_endpoint and parts.scheme == self.endpoint.scheme):
            raise Refused(f"leads to {parts.scheme}://{host}, which is not an https address")
        if not is_endpoint and _is_private_name(host):  # a proxy would look it up
            raise Refused(f"leads to {host}, which is not a public address")
        if parts.username is not None:
            raise Refused("leads to an address with a password in it")
        if not is_endpoint and self.storages is not None and not self._is_below(host, [*self.domains, *self.storages]):
            raise Refused(f"leads to {host}, where {self.endpoint.hostname}'s client does not go")
        if not is_endpoint and not self._is_same_site(host):
            request.headers.pop("Authorization", None)
            request.headers.pop("Cookie", None)
        request.headers["Accept-Encoding"] = "identity"
        if options.get("timeout") is None:
            options["timeout"] = _TIMEOUT
        # openmind_hub bounds answers by copying what it has for every kilobyte; they are bounded here.
        request.hooks["response"] = []
        is_stream = bool(options.get("stream"))
        answer = original(session, request, **(options | {"stream": True}))
        if answer.status_code >= 400:
            self.failed = (answer.status_code, answer.headers.get("Retry-After"))
        length = answer.headers.get("Content-Length", "")
        if length.isdigit() and int(length[:20]) > self.limit and request.method != "HEAD":
            answer.close()
            raise Refused(f"announces {length[:20]} bytes where {self.limit} are the most")
        answer.raw = _Counted(answer.raw, self.limit)
        if not is_stream:
            _ = answer.content
        return answer

    def addresses(self, host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        """Look a name up, and refuse a private address unless it is the endpoint's or a proxy's."""
        found = self._resolve(host, port, *rest, **more)
        name = host.decode() if isinstance(host, bytes) else str(host or "")
        number = int(port) if str(port or "").isdigit() else 0
        is_named = (name.lower(), number) in self._named or (number == 0 and name in {each for each, _ in self._named})
        if not is_named and not all(_is_public(str(each[4][0])) for each in found):
            raise Refused(f"leads to {name}, which is not a public address")
        return found

    def _is_same_site(self, host: str) -> bool:
        own = [domain for domain in self.domains if self._is_below(self.endpoint.hostname or "", [domain])]
        return self._is_below(host, own)

    @staticmethod
    def _is_below(host: str, domains: list[str]) -> bool:
        return any(host == domain or host.endswith(f".{domain}") for domain in domains)


class _Counted:
    """An answer's body, counted as it is read."""

    def __init__(self, raw: Any, limit: int) -> None:
        self._raw, self._left, self._limit = raw, limit, limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def _count(self, piece: bytes) -> bytes:
        self._left -= len(piece)
        if self._left < 0:
            raise Refused(f"sends more than {self._limit} bytes")
        return piece

    def read(self, *arguments: Any, **options: Any) -> bytes:
        return self._count(self._raw.read(*arguments, **options))

    def read1(self, *arguments: Any, **options: Any) -> bytes:
        return self._count(self._raw.read1(*arguments, **options))

    def stream(self, *arguments: Any, **options: Any) -> Iterator[bytes]:
        for piece in self._raw.stream(*arguments, **options):
            yield self._count(piece)


class Channel:
    """How the process speaks: ``settings`` come first, then requests; :meth:`progress` goes out in between."""

    def __init__(self) -> None:
        # A client's own words and bars go nowhere; the first descriptor is for answers.
        self._out: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        self._lock = threading.Lock()
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._spoke = 0.0
        threading.Thread(target=self._listen, daemon=True).start()
        self.settings: dict[str, Any] = json.loads(self._lines.get())

    def _listen(self) -> None:
        for line in sys.stdin.buffer:
            self._lines.put(line)
        os._exit(0)  # whoever asked is gone, or was killed

    def progress(self, done: int) -> None:
        """Say how many bytes were transferred, now and then."""
        now = time.monotonic()
        if now - self._spoke >= _INTERVAL:
            self._spoke = now
            self._say({"progress": done})

    def serve(
        self, guard: Guard, methods: dict[str, Method], reasons: Callable[[BaseException], dict[str, Any] | None]
    ) -> None:
        """Answer requests until nobody asks.

        Args:
            reasons: turns the client's own errors into an answer; None for those it does not know.
        """
        while True:
            request = json.loads(self._lines.get())
            guard.begin()
            try:
                self._say({"answer": methods[request["call"]](**request["arguments"])})
            except BaseException as error:  # whatever a client raises is an answer
                self._say({"error": _reason(error, guard, reasons)})

    def _say(self, words: dict[str, Any]) -> None:
        with self._lock:
            self._out.write(json.dumps(words).encode() + b"\n")


class Counting:
    """A file that tells the channel how much was written to it."""

    def __init__(self, file: BinaryIO, channel: Channel) -> None:
        self._file, self._channel = file, channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, piece: bytes) -> int:
        """Write, and tell."""
        done = self._file.write(piece)
        self._channel.progress(self._file.tell())
        return done


def _reason(
    error: BaseException, guard: Guard, reasons: Callable[[BaseException], dict[str, Any] | None]
) -> dict[str, Any]:
    chain = list(_chain(error))
    for each in chain:
        if isinstance(each, Refused):
            return {"kind": "refused", "what": str(each)}
        if isinstance(each, Missing):
            return {"kind": "missing", "what": str(each)}
    for each in chain:
        if isinstance(each, OSError) and (each.errno in _OF_THE_DISK or (each.errno in _OF_RIGHTS and each.filename)):
            return {"kind": "disk", "what": os.strerror(each.errno or 0)}
    for each in chain:
        told = reasons(each)
        if told is not None:
            return told
    if any(type(each).__name__ in _BROKEN for each in chain):
        # It may hold now; one that was refused or timed out has been waited for long enough.
        return {"kind": "unreachable", "what": type(error).__name__, "is_transient": True}
    if guard.failed is not None:
        return {"kind": "status", "status": guard.failed[0], "retry_after": guard.failed[1], "what": str(error)}
    if any(isinstance(each, (ConnectionError, TimeoutError, socket.gaierror)) for each in chain):
        return {"kind": "unreachable", "what": type(error).__name__, "is_transient": False}
    return {"kind": "odd", "what": f"{type(error).__name__}: {error}"}


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        # urllib3 and requests hand the cause on as an argument or as `reason`, not always as __cause__.
        waiting += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]


def _is_private_name(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))
    return not _is_public(host)


def _is_public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_global


def _proxies() -> list[str]:
    return [
        value for name, value in os.environ.items() if name.lower().endswith("_proxy") and name.lower() != "no_proxy"
    ]


_BROKEN = ("ProtocolError", "IncompleteRead", "ChunkedEncodingError", "RemoteDisconnected", "ConnectionResetError")
_PORTS = {"http": 80, "https": 443}
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_OF_RIGHTS = (errno.EACCES, errno.EPERM)
