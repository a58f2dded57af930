"""This side of a client's process: start it, ask it, bound it, and turn what went wrong into our errors.

The process gets an environment of its own: what its client is configured by, the proxies and certificates of this
machine, and nothing else, least of all other hubs' tokens. Its token comes through the pipe, so no process list shows
it. It ends when this process does, however that ends.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from tqdm.auto import tqdm

from xcit_hub import child
from xcit_hub.errors import HubError, XcitHubError
from xcit_hub.hub import guard
from xcit_hub.hub.sites import Site
from xcit_hub.hub.transport import TRANSIENT, UnreachableError, clean

SILENCE = 180.0  # seconds without a byte or a word, after which a client is stopped
SOCKET_SECONDS = 15  # that a client waits for a byte

# The machine's own settings that a client needs. No other variable reaches it.
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
         "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy",
         "all_proxy", "no_proxy")  # fmt: skip
_LONGEST_ANSWER = 64 << 20


class MissingError(HubError):
    """The hub has no such model, revision or file; ``part`` says which."""

    def __init__(self, part: str, what: str, *, where: str, fix: str) -> None:
        self.part = part
        super().__init__(what, where=where, fix=fix)


class WrongBytesError(HubError):
    """What came is not what the hub lists."""


class Client:
    """One client's process; started when it is first asked.

    Args:
        site: whose client it is.
        module: what runs in the process, of this folder.
        endpoint: where the client is to go.
        environment: the client's own settings.
        token: sent through the pipe; None is none.
        login: whether the client may look for a login of its own.
    """

    def __init__(
        self, site: Site, module: str, endpoint: str, environment: Mapping[str, str], token: str | None, *, login: bool
    ) -> None:
        self.site, self.endpoint, self.may_log_in = site, endpoint, login
        self._module, self._environment, self._token = module, environment, token
        self._process: subprocess.Popen[bytes] | None = None
        self._stop: Callable[[], object] = lambda: None
        self._pending = b""
        self._lock = threading.Lock()

    def call(
        self,
        call: str,
        where: str,
        arguments: Mapping[str, Any],
        *,
        seconds: float = guard.SECONDS,
        rate: float = 0.0,
        total: int | None = None,
        shown: str | None = None,
    ) -> Any:
        """Ask the client for something and return its answer.

        Args:
            call, arguments: one of the methods of the client's module.
            where: what is asked for, for messages.
            seconds: the most it may take as a whole.
            rate: the least bytes a second, after a while; 0 asks for none.
            total: bytes that are expected, for the bar.
            shown: what the bar is called; None shows none.

        Raises:
            HubError: it was refused, is not there, came too slowly, or cannot be kept.
            UnreachableError: the hub does not answer now.
        """
        with self._lock:
            self._start()
            try:
                bar = tqdm(
                    total=total, desc=shown, unit="B", unit_scale=True, disable=None if shown else True, leave=False
                )
                with bar:
                    answer = self._ask({"call": call, "arguments": arguments}, where, seconds, rate, bar)
            except BaseException:
                self.stop()  # half an answer may be on its way
                raise
        if "error" in answer:
            raise self._said(answer["error"], where)
        return answer["answer"]

    def stop(self) -> None:
        """End the process, if there is one."""
        self._stop()
        self._process = None

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        if find_spec(self.site.module) is None:
            raise XcitHubError(
                f"{self.site.title} is reached through its own client, {self.site.package}, which is not installed.",
                where=self.endpoint,
                fix=f"pip install 'xcit-hub[{self.site.package}]'",
            )
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._process = subprocess.Popen(  # noqa: S603  (this interpreter, this package)
            child.command(f"xcit_hub.hub.clients.{self._module}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a client's words may hold addresses with signatures
            env={**kept, **self._environment, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self._stop = weakref.finalize(self, _end, self._process, os.getpid())
        self._pending = b""
        settings = {
            "endpoint": self.endpoint,
            "token": self._token,
            "login": self.may_log_in,
            "domains": self.site.domains,
            "storages": self.site.storages,
        }
        self._write(settings)

    def _write(self, words: Mapping[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None  # noqa: S101
        try:
            self._process.stdin.write(json.dumps(words).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended("it did not start") from None

    def _ask(self, request: Mapping[str, Any], where: str, seconds: float, rate: float, bar: Any) -> dict[str, Any]:
        self._write(request)
        began = heard = time.monotonic()
        done = 0
        while True:
            line = self._line(min(began + seconds, heard + SILENCE) - time.monotonic())
            elapsed = time.monotonic() - began
            if line is None:
                why = (
                    f"took longer than {seconds:g} seconds" if elapsed >= seconds else f"sent nothing for {SILENCE:g} s"
                )
                raise self._fault(why, where)
            heard = time.monotonic()
            words: dict[str, Any] = json.loads(line)
            if "progress" not in words:
                return words
            bar.update(max(0, words["progress"] - done))
            done = words["progress"]
            if rate and elapsed > guard.PATIENCE and done < rate * elapsed:
                raise self._fault(f"sends too slowly: {done} bytes in {elapsed:.0f} seconds", where)

    def _line(self, seconds: float) -> bytes | None:
        assert self._process is not None and self._process.stdout is not None  # noqa: S101
        end = time.monotonic() + seconds
        while b"\n" not in self._pending:
            waiting = select.poll()
            waiting.register(self._process.stdout, select.POLLIN | select.POLLHUP)
            if not waiting.poll(max(0.0, end - time.monotonic()) * 1000):
                return None
            piece = os.read(self._process.stdout.fileno(), 1 << 16)
            if not piece:
                raise self._ended("it ended")
            self._pending += piece
            if len(self._pending) > _LONGEST_ANSWER:
                raise self._ended("its answer has no end")
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _ended(self, how: str) -> HubError:
        return HubError(
            f"{self.site.own} client was run in a process of its own, and {how}.",
            where=self.endpoint,
            fix=f"Check the installation of {self.site.package}, and the memory of this machine; then try again.",
        )

    def _fault(self, what: str, where: str) -> HubError:
        return HubError(
            f"{self.endpoint} {what}.", where=where, fix="Try again; if it stays so, tell whoever runs this hub."
        )

    def _said(self, error: dict[str, Any], where: str) -> BaseException:
        kind, what = error["kind"], self._clean(str(error.get("what", "")))
        if kind == "status":
            return self._answered(error["status"], error.get("retry_after"), what, where)
        if kind == "unreachable":
            return UnreachableError(self.endpoint, where, what, is_transient=bool(error.get("is_transient")))
        if kind == "refused":
            return self._fault(what, where)
        if kind == "disk":
            return HubError(
                f"Cannot keep the file: {what}.",
                where=where,
                fix="Make room, or give cache_dir a folder that may be written. Nothing half-written is left.",
            )
        if kind == "bytes":
            return WrongBytesError(f"{what[:1].upper()}{what[1:]}.", where=where, fix="Try again.")
        if kind == "missing":
            return self._missing(what, where)
        return HubError(
            f"{self.endpoint} and its client do not understand each other: {what}.",
            where=where,
            fix=f"Check the address, and that {self.site.package} is up to date.",
        )

    def _answered(self, status: int, retry_after: str | None, what: str, where: str) -> HubError:
        if status in (401, 403):
            variable = self.site.token_variables[0]
            return HubError(
                f"{self.endpoint} refused: {'not logged in' if status == 401 else 'not allowed'} ({what or status}).",
                where=where,
                fix=f"Check the token: {variable}, token= or --token-env; it needs the right to do this.",
            )
        if status == 404:
            return self._missing("model", where)
        if status in TRANSIENT:
            return UnreachableError(self.endpoint, where, f"HTTP {status}", is_transient=True, retry_after=retry_after)
        return HubError(
            f"{self.endpoint} answered {status}: {what or 'no reason given'}.",
            where=where,
            fix="Check the id and the address.",
        )

    def _missing(self, part: str, where: str) -> MissingError:
        what = {
            "model": "There is no such model there, or it is private and the token does not open it.",
            "revision": "That model has no such revision.",
        }.get(part, "The hub lacks a file that it lists.")
        fix = {
            "model": f"Check the name. For a private model: {self.site.token_variables[0]}.",
            "revision": "Name a branch, tag or commit it has.",
        }.get(part, "Name another revision.")
        return MissingError(part, what, where=where, fix=fix)

    def _clean(self, text: str) -> str:
        if self._token:
            text = text.replace(self._token, "…")
        return clean(text)


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork of the process that started it
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait()
