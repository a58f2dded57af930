"""Where files go and come from: the cache, its space, and the hubs that are configured."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xcit_hub.doctor.finding import Finding, Machine, is_folder, shown
from xcit_hub.errors import HubError, InputError, XcitHubError

_ROOM = 4 << 30  # bytes: the largest checkpoint, with the state of its training
_HUGGING_FACE = "https://huggingface.co"
_PATIENCE_SECONDS = 30.0  # for a hub's first word


def cache(folder: Path | None = None) -> Iterator[Finding]:
    """See whether what is fetched can be kept.

    Args:
        folder: the cache; huggingface_hub's by default.
    """
    if folder is None:
        from xcit_hub.hub.cache import default_folder

        folder = default_folder()
    try:
        free = _free(folder)
    except OSError as error:
        says = f"{shown(folder)} cannot be written: {error.strerror or error}"
        yield Finding("cache", "wrong", says, "Set HF_HOME to a folder of yours, or mend its rights.")
        return
    said = f"{shown(folder)}, {free / 1e9:.1f} GB free"
    if free < _ROOM:
        do = "Make room (xcit-hub cache prune), or set HF_HOME to a larger disk."
        yield Finding("cache", "wrong", f"{said}, less than {_ROOM / 1e9:.0f} GB", do, needed=False)
    else:
        yield Finding("cache", "ok", said)


def machine_hub(machine: Machine) -> Iterator[Finding]:
    """See whether the folder hub of this machine can be read and published to; nobody needs the one by default."""
    from xcit_hub.hub import address

    title, is_set = "hub of this machine", bool(machine.environment.get(address.HOME))
    try:
        folder = address.machine_hub(machine.environment)
        _free(folder.absolute())
    except InputError as error:
        yield Finding(title, "wrong", error.what, error.fix or "", needed=is_set)
    except OSError as error:
        says = f"{shown(folder)} cannot be written: {error.strerror or error}"
        yield Finding(title, "wrong", says, f"Set {address.HOME} to a folder of yours.", needed=is_set)
    else:
        if folder.is_absolute():
            yield Finding(title, "ok", shown(folder))
        else:
            says = f"{address.HOME} is {shown(folder)}: another folder below each working directory"
            yield Finding(title, "wrong", says, "Write it from / on.", needed=False)


def _free(folder: Path) -> int:
    """Return the bytes that are free where a folder is, or will be made.

    Raises:
        OSError: it cannot be written.
    """
    existing = next((place for place in (folder, *folder.parents) if is_folder(place)), Path("/"))
    if os.path.lexists(folder) and not is_folder(folder):
        raise NotADirectoryError(20, "it is not a folder")
    with tempfile.TemporaryFile(dir=existing):
        pass
    return shutil.disk_usage(existing).free


def hubs(machine: Machine, *, online: bool) -> Iterator[Finding]:
    """Say where each hub is looked for.

    Args:
        online: also ask each whether it answers, unless the environment forbids the network.
    """
    from xcit_hub.hub.address import offline_variable
    from xcit_hub.hub.sites import SITES
    from xcit_hub.hub.spelling import without_secret

    environment = machine.environment
    try:
        offline = offline_variable(environment)
    except InputError as error:
        yield Finding("hubs", "wrong", error.what, error.fix or "")
    else:
        if offline is not None:
            yield Finding("hubs", "ok", f"{offline}: none is asked")
            online = False
    places = {
        "hugging-face": (environment.get("HF_ENDPOINT") or _HUGGING_FACE, "HF_ENDPOINT", ("HF_TOKEN",)),
        **{
            name: (
                environment.get(site.endpoint_variable, "").strip() or site.endpoint,
                site.endpoint_variable,
                site.token_variables,
            )
            for name, site in SITES.items()
        },
    }
    for name, (place, variable, tokens) in places.items():
        title = f"hub {name}"
        try:
            place = without_secret(place)
            if not place.startswith(("https://", "http://")):
                raise HubError(f"{shown(place)} is not an address", where=variable, fix=f"Correct or unset {variable}.")
        except (XcitHubError, ValueError) as error:
            yield Finding(title, "wrong", str(error).splitlines()[0], f"Correct or unset {variable}.")
            continue
        yield _asked(title, place, variable, _token(environment, tokens), online=online)


def _token(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    """Say whether a token is there, never which."""
    name = next((name for name in names if environment.get(name)), None)
    return f"with the token of {name}" if name else f"no token in {' or '.join(names)}"


def _asked(title: str, place: str, variable: str, token: str, *, online: bool) -> Finding:
    if not online:
        return Finding(title, "ok", f"{place}, {token}, not asked")
    fault = _silence(place)
    if fault:
        do = f"See your connection and proxies, or set {variable} to a mirror."
        return Finding(title, "wrong", f"{place}, {token}: {fault}", do)
    return Finding(title, "ok", f"{place}, {token}, answers")


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Go nowhere else: a redirection is an answer."""


def _silence(place: str) -> str:
    """Say why a server does not answer; empty if it does, whatever it says. No token is sent."""
    said = [f"no answer within {_PATIENCE_SECONDS:.0f} seconds"]

    def ask() -> None:
        request = urllib.request.Request(place, method="HEAD")  # noqa: S310  (https or http: seen above)
        try:
            urllib.request.build_opener(_Stay).open(request, timeout=_PATIENCE_SECONDS).close()
        except urllib.error.HTTPError:
            said[0] = ""
        except Exception as error:  # whatever a server, a proxy or a certificate can do
            reason = getattr(error, "reason", None) or error
            said[0] = f"{type(reason).__name__}: {reason}".splitlines()[0][:200]
        else:
            said[0] = ""

    # A server that answers a byte at a time would hold this process for ever.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE_SECONDS)
    return said[0]
