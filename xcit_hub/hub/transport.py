"""What every store that goes over HTTP shares: huggingface_hub's client, patience, and errors that say what to do."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import BinaryIO, TypeVar

from huggingface_hub import constants, get_token
from huggingface_hub.errors import FileMetadataError, HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.file_download import http_get

from xcit_hub.errors import HubError, OutOfReachError, XcitHubError
from xcit_hub.hub import guard, spelling

T = TypeVar("T")

# huggingface_hub 1 builds on httpx, 2 on httpx2: whichever it is, its errors have this base.
HttpError: type[Exception] = HfHubHTTPError.__mro__[1]

TRIES = 5
TRANSIENT = (408, 429, 500, 502, 503, 504)
FIRST_WAIT = 0.5  # seconds, doubled at each try
_LONGEST_WAIT = 30.0
# A connection that broke may hold now; one that was refused or timed out has been waited for long enough.
_BROKEN = ("RemoteProtocolError", "ReadError", "WriteError", "ConnectionResetError", "BrokenPipeError")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")  # a signed address is a secret too
_PASSWORD = re.compile(r"(https?://)[^\s/@'\"]+@")
# What the client's own code ends in where an answer is not what it counts on.
_CONFUSED = (
    RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, NameError, AssertionError,
    EOFError,
)  # fmt: skip
_LOGIN = "Check the token: `hf auth login`, or HF_TOKEN; it needs the right to do this."


class UnreachableError(OutOfReachError):
    """A server did not answer, or answered that it cannot now.

    Args:
        is_transient: whether the same request may succeed soon.
    """

    def __init__(
        self, place: str, where: str, reason: str, *, is_transient: bool = False, retry_after: str | None = None
    ) -> None:
        self.reason = reason
        self.is_transient = is_transient
        self._retry_after = retry_after
        super().__init__(
            f"{place} cannot be reached ({reason}).",
            where=where,
            fix="Check the connection and the address and try again; what is cached loads with offline=True.",
        )

    def wait(self, attempt: int) -> float:
        """Seconds to wait before the next try: what the server asked for, else a doubling time."""
        told = self._retry_after or ""
        if told.isascii() and told.isdigit():
            return min(float(told[:9]), _LONGEST_WAIT)
        return min(FIRST_WAIT * 2.0**attempt, _LONGEST_WAIT)


def retrying(request: Callable[[], T]) -> T:
    """Make a request that may safely be made again, as long as it fails for the moment only."""
    for attempt in range(TRIES):
        try:
            return request()
        except UnreachableError as error:
            if attempt == TRIES - 1 or not error.is_transient:
                raise
            time.sleep(error.wait(attempt))
    raise AssertionError("unreachable")


def download(
    url: str,
    into: BinaryIO,
    where: str,
    *,
    limit: int = guard.FILE_BYTES,
    trusted: frozenset[str] = frozenset(),
) -> None:
    """Write what an address holds into an open file, resuming cut connections; no token is sent.

    Args:
        where: what the address stands in, for messages.
        limit: the most bytes it may hold.
        trusted: ``host:port`` of servers that may be on this machine or in a private network: those the user named.

    Raises:
        HubError: the address or a redirect is not https, or leads to a private address; there is nothing there; it
            stopped answering, or is too slow or too large.
    """
    parts = spelling.parsed(url)
    place = f"{parts.scheme}://{parts.hostname}"
    start = into.tell()
    named = trusted | {guard.netloc(spelling.parsed(constants.ENDPOINT))}

    def attempt() -> None:
        into.seek(start)
        into.truncate()
        is_small = limit <= guard.JSON_BYTES
        exchange = guard.Exchange(
            place,
            where,
            body=limit,
            seconds=guard.SECONDS if is_small else guard.FILE_SECONDS,
            rate=0.0 if is_small else guard.RATE,
            trusted=named,
        )
        guard.check_destination(url, exchange)
        try:
            with guard.guarded(exchange):
                http_get(url, into, headers={})
        except Exception as error:
            raise said(error, place=place, where=where, kept_in=where) from None

    retrying(attempt)


def said(error: BaseException, *, place: str, where: str, kept_in: object) -> BaseException:
    """Turn the client's error into ours, with nothing secret in it.

    Args:
        place: the server, as a person would name it.
        where: what was asked for.
        kept_in: where received bytes are kept.
    """
    if isinstance(error, XcitHubError):
        return error
    root = root_of(error)
    if isinstance(root, OfflineModeIsEnabled):
        return OutOfReachError(
            "Offline mode forbids the network.",
            where=where,
            fix="Unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE, or load what is cached.",
        )
    if isinstance(root, HfHubHTTPError):
        return _answered(root, place, where)
    if isinstance(root, FileMetadataError):
        return HubError(f"{place} does not answer as a hub.", where=where, fix="Check the address, HF_ENDPOINT.")
    if isinstance(root, HttpError | ConnectionError | TimeoutError):
        reason = type(root).__name__
        return UnreachableError(place, where, reason, is_transient=reason in _BROKEN)
    if isinstance(root, OSError):
        if root.errno is None and "Consistency check failed" in str(root):
            return HubError(
                "The file that arrived has another length than was announced.",
                where=where,
                fix="Try again; nothing of it was kept.",
            )
        return HubError(
            f"Cannot keep the file: {root.strerror or clean(str(root))}.",
            where=root.filename or kept_in,
            fix="Make room, or give cache_dir a folder that may be written. Nothing half-written is left.",
        )
    if isinstance(error, _CONFUSED):
        return HubError(
            f"{place} and its client do not understand each other: {clean(str(error))}.",
            where=where,
            fix="Check the address, and that huggingface_hub is up to date.",
        )
    return error


def root_of(error: BaseException) -> BaseException:
    """Return the reason that uploads and cache look-ups wrap."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, HttpError | OSError):
        seen = seen.__cause__
    return error if seen is None else seen


def clean(text: str) -> str:
    """Remove tokens and the queries of signed addresses."""
    secret = get_token()
    if secret:
        text = text.replace(secret, "…")
    text = _PASSWORD.sub(r"\1…@", _QUERY.sub(r"\1", _TOKEN.sub("…", text)))
    printable = "".join(each if each.isprintable() else " " for each in text[:2000])
    return printable[:300].strip().rstrip(".")


class _WithoutSecrets(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = clean(record.getMessage()), ()
        return True


# The client's own warnings name the addresses it retries, signatures and all.
for _handler in logging.getLogger("huggingface_hub").handlers:
    _handler.addFilter(_WithoutSecrets())


def _answered(error: HfHubHTTPError, place: str, where: str) -> HubError:
    status = error.response.status_code
    reason = clean(error.server_message or "")
    if status in (401, 403):
        refused = "not logged in" if status == 401 else "not allowed"
        return HubError(f"{place} refused: {reason or refused}.", where=where, fix=_LOGIN)
    if status in (409, 412):
        return HubError(
            f"Somebody else changed the repository meanwhile, or it exists in another form: {reason or status}.",
            where=where,
            fix="Look at the repository, then publish again. Nothing was published.",
        )
    if status in TRANSIENT:
        waits = error.response.headers.get("Retry-After")
        return UnreachableError(place, where, f"HTTP {status}", is_transient=True, retry_after=waits)
    return HubError(
        f"{place} answered {status}: {reason or 'no reason given'}.", where=where, fix="Check the id and the address."
    )
