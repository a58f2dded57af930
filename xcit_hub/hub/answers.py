"""What a hub may answer: a model for each kind, with bounds. Everything else is one clear error that names the hub."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from xcit_hub.errors import HubError

_MOST_FILES = 10_000
_LARGEST = 1 << 50


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that are not for printing")
    return text


Sha1 = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0, le=_LARGEST)]
Words = Annotated[str, Field(max_length=200), AfterValidator(_printable)]


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class LargeFile(_Answer):
    """A file in large storage."""

    sha256: Sha256


class Sibling(_Answer):
    """One file of a revision."""

    rfilename: Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_printable)]
    size: Size | None = None
    blobId: Sha1 | None = None  # noqa: N815  (the protocol's name)
    lfs: LargeFile | None = None

    @property
    def digest(self) -> str | None:
        """SHA-256 of a large file, git's SHA-1 of a small one."""
        return self.lfs.sha256 if self.lfs is not None else self.blobId


class Revision(_Answer):
    """What ``/api/models/NAME`` says."""

    sha: Sha1
    siblings: Annotated[list[Sibling], Field(max_length=_MOST_FILES)] = []


class Listed(_Answer):
    """One file of a revision, as a hub's own client lists it."""

    path: Annotated[str, Field(min_length=1, max_length=1024)]
    size: Size | None = None
    digest: Sha1 | Sha256 | None = None


class Listing(_Answer):
    """A revision, as a hub's own client lists it."""

    commit: Sha1 | None
    files: Annotated[list[Listed], Field(max_length=_MOST_FILES)]


class AccessToken(_Answer):
    """What a token may do."""

    role: Words | None = None


class Auth(_Answer):
    """How somebody is logged in."""

    accessToken: AccessToken | None = None  # noqa: N815


class Organisation(_Answer):
    """One somebody is a member of."""

    name: Words


class User(_Answer):
    """What ``/api/whoami-v2`` says."""

    name: Words
    orgs: Annotated[list[Organisation], Field(max_length=_MOST_FILES)] = []
    auth: Auth = Auth()


Kind = TypeVar("Kind", bound=_Answer)


def read(kind: type[Kind], content: bytes | object, *, place: str, where: str) -> Kind:
    """Return an answer as a model of its kind.

    Args:
        content: the body, or what was parsed of it.

    Raises:
        HubError: it is something else.
    """
    try:
        return kind.model_validate_json(content) if isinstance(content, bytes) else kind.model_validate(content)
    except (ValidationError, RecursionError, UnicodeDecodeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "is not JSON"}
        at = ".".join(map(str, first["loc"]))
        raise HubError(
            f"{place} does not answer as a hub: {at + ': ' if at else ''}{first['msg']:.120}.",
            where=where,
            fix="Check the address, HF_ENDPOINT.",
        ) from None
