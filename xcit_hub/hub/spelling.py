"""How the parts of an id are spelled: names, revisions, files, web addresses."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit

from xcit_hub.errors import InputError

CHECKPOINT_SUFFIXES = (".ckpt", ".safetensors", ".pth", ".pt", ".bin", ".pth.tar", ".th", ".pkl", ".index.json")
_AUTHORITY = re.compile(r"^[^/]*://[^/]*")  # an @ in there would be a user's name, not a revision
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,3}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")


def is_name(name: str) -> bool:
    """Whether a string can name a model in a hub."""
    return _REPOSITORY.fullmatch(name) is not None and ".." not in name and "--" not in name


def checked_name(name: str, most: int = 2) -> str:
    """Return a name that a model in a hub can have.

    Args:
        most: parts that it may have.

    Raises:
        InputError: it is not one.
    """
    if not is_name(name):
        raise InputError(
            f"{name[:200]!r} is not the name of a model in a hub.",
            where="the name of the model",
            fix="Write org/name: letters, digits, '.', '_' and '-', no '..' and no '--'.",
        )
    if name.count("/") >= most:
        raise InputError(
            f"{name[:200]!r} has more parts than the name of a model in a hub.",
            where="the name of the model",
            fix=f"Write org/name. A path is written ./{name[:200]}, one file of a hub's model hf://org/name/FILE.",
        )
    return name


def split_revision(name: str, revision: str | None) -> tuple[str, str | None]:
    """Take ``@revision`` off an id; the other one is what an option says, and they must not differ."""
    authority = _AUTHORITY.match(name)
    start = 0 if authority is None else authority.end()
    path, _, inside = name[start:].partition("@")
    return one_revision(name[:start] + path, inside or None, revision)


def one_revision(name: str, inside: str | None, given: str | None) -> tuple[str, str | None]:
    """Return an id with the one revision that it, or an option, names.

    Raises:
        InputError: they name two, or what is not a revision.
    """
    if inside is not None and given is not None and inside != given:
        raise InputError(
            f"The id asks for revision {inside!r} and the option for {given!r}.",
            where=name,
            fix="Give one of them.",
        )
    revision = inside if inside is not None else given
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision or revision.endswith("/")):
        raise InputError(
            f"{revision!r} is not a revision.",
            where=name,
            fix="Give a branch, a tag or a commit, such as main.",
        )
    return name, revision


def one_file(file: str, where: str) -> str:
    """Return a file of a repository that stands in no folder of it.

    Raises:
        InputError: it does.
    """
    if "/" in file:
        raise InputError(
            f"The file {file!r:.200} stands in a folder of its repository.",
            where=where,
            fix="Download it and give its path.",
        )
    return file


def without_secret(place: str) -> str:
    """Return an address that holds no user's name and no password: it may be printed and stored.

    Raises:
        InputError: it holds one, or is not an address.
    """
    parts = parsed(place)
    if "@" in parts.netloc:
        raise InputError(
            f"The address of {parts.hostname} holds a user's name or a password; such an address is not taken.",
            where="the address",
            fix="Leave them out, and give a token: token=, or --token-env and the name of a variable.",
        )
    return place


def parsed(url: str) -> SplitResult:
    """Parse an address; its host and port are sound afterwards.

    Raises:
        InputError: it is not one. The message does not repeat what stands before an ``@``.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port, parts.hostname
    except ValueError as error:
        shown = re.sub(r"//[^/]*@", "//…@", url)
        raise InputError(
            f"{shown!r:.200} is not an address: {error}.", where="the address", fix="Check its host and port."
        ) from None
    return parts


def path_of_url(url: str) -> str:
    """Return the path of a ``file://`` address.

    Raises:
        InputError: it names a host.
    """
    parts = parsed(url)
    if parts.netloc not in ("", "localhost"):
        raise InputError(
            f"The address {url!r} names the host {parts.netloc!r}.",
            where="the address",
            fix="A file:// address has three slashes: file:///path/to/model.safetensors.",
        )
    return unquote(parts.path)
