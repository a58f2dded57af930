"""Whose token a hub is sent: its own, over https or on this machine, and never another hub's."""

from __future__ import annotations

import json
import os
from pathlib import Path

from xcit_hub.errors import InputError
from xcit_hub.hub import guard, spelling
from xcit_hub.hub.sites import GITCODE, MODELSCOPE, Site

_LONGEST_LOGIN = 1 << 16


def token_for_site(site: Site, endpoint: str, given: str | bool | None) -> tuple[str | None, bool]:
    """Return the token that a hub's client is given, and whether it may look for a login of its own.

    A token from the environment or a login is for the configured endpoint alone; any other is given with the request.

    Raises:
        InputError: a token was given for an address that would carry it unencrypted, or is asked for and is not there.
    """
    parts = spelling.parsed(endpoint)
    is_private = parts.scheme == "https" or guard.is_loopback(parts)
    if isinstance(given, str):
        if not is_private:
            raise InputError(
                f"A token would travel to {endpoint} for everybody on the way to read.",
                where="token=… (--token-env)",
                fix="Give an https address.",
            )
        return given, False
    is_ours = endpoint == site.configured
    if given is True and not is_ours:
        raise InputError(
            f"{' and '.join(site.token_variables)} are for {site.configured}, not for {endpoint}.",
            where="token=… (--token-env)",
            fix="Give that hub's own token: token=, or --token-env and the name of a variable.",
        )
    if given is False or not is_ours or not is_private:
        return None, False
    token = next((os.environ[name] for name in site.token_variables if os.environ.get(name)), None)
    if token is None and site is GITCODE:
        token = _gitcode_login(Path.home() / ".gitcode" / "config.json")
    return token, token is None and site is MODELSCOPE and endpoint == site.endpoint


def _gitcode_login(path: Path) -> str | None:
    """Return the token that ``gitcode login`` keeps."""
    try:
        if not path.is_file() or path.stat().st_size > _LONGEST_LOGIN:
            return None
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    token = kept.get("token") if isinstance(kept, dict) else None
    return token if isinstance(token, str) and token.isprintable() and token else None
