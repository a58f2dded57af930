"""What a hub may answer: a model for each kind, with bounds. Everything else is one clear error that names the hub.

:func:`checked` is where each of them passes on its way to huggingface_hub's client, which parses it with less care.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, ValidationError

from xcit_hub.errors import HubError

_MOST_FILES = 10_000
_LARGEST = 1 << 50


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that are not for printing")
    return text


def _made_printable(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)


Sha1 = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0, le=_LARGEST)]
Words = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
Remarked = Annotated[str, Field(max_length=2000), AfterValidator(_made_printable)]
Path = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_printable)]
Link = Annotated[str, Field(min_length=1, max_length=8192), AfterValidator(_printable)]


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class LargeFile(_Answer):
    """A file in large storage."""

    sha256: Sha256
    size: Size = 0
    pointerSize: Size = 0  # noqa: N815  (the protocol's name)


class Sibling(_Answer):
    """One file of a revision."""

    rfilename: Path
    size: Size | None = None
    blobId: Sha1 | None = None  # noqa: N815  (the protocol's name)
    lfs: LargeFile | None = None

    @property
    def digest(self) -> str | None:
        """SHA-256 of a large file, git's SHA-1 of a small one."""
        return self.lfs.sha256 if self.lfs is not None else self.blobId


class Revision(_Answer):
    """What ``/api/models/NAME`` says."""

    id: Words = ""
    sha: Sha1
    private: bool | None = None
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


class Model(_Answer):
    """One of the models that ``/api/models`` lists."""

    id: Annotated[str, Field(max_length=200)]  # whoever prints it looks whether it is a name


class Models(RootModel[Annotated[list[Model], Field(max_length=_MOST_FILES)]]):
    """What ``/api/models`` says."""


class Created(_Answer):
    """What ``/api/repos/create`` says."""

    url: Link


class Upload(_Answer):
    """How a file is to be sent."""

    path: Path
    uploadMode: Literal["lfs", "regular"]  # noqa: N815
    shouldIgnore: bool  # noqa: N815
    oid: Sha1 | Sha256 | None = None


class Uploads(_Answer):
    """What ``/api/models/NAME/preupload`` says."""

    files: Annotated[list[Upload], Field(max_length=_MOST_FILES)]


class Action(_Answer):
    """Where the bytes of a large file go; of several parts each has its number for a header's name."""

    href: Link
    header: Annotated[dict[Words, Link], Field(max_length=_MOST_FILES)] | None = None

    def model_post_init(self, _: Any) -> None:
        """Look at the size of the parts."""
        size = (self.header or {}).get("chunk_size", "1")
        if not re.fullmatch(r"[1-9][0-9]{0,15}", size):
            raise ValueError("its parts have no size")


class Actions(_Answer):
    """What is to be done with a large file; nothing if it is there."""

    upload: Action | None = None
    verify: Action | None = None


class Problem(_Answer):
    """Why a large file is not taken."""

    code: int
    message: Remarked


class LargeUpload(_Answer):
    """What is to be done with one large file."""

    oid: Sha256
    size: Size
    actions: Actions | None = None
    error: Problem | None = None


class Batch(_Answer):
    """What ``NAME.git/info/lfs/objects/batch`` says."""

    transfer: Words | None = None
    objects: Annotated[list[LargeUpload], Field(max_length=_MOST_FILES)]


class Committed(_Answer):
    """What ``/api/models/NAME/commit`` says."""

    commitOid: Sha1  # noqa: N815
    commitUrl: Link  # noqa: N815
    pullRequestUrl: Link | None = None  # noqa: N815


class Remark(_Answer):
    """What is to be said of a card."""

    message: Remarked = ""


class Remarks(_Answer):
    """What ``/api/validate-yaml`` says."""

    errors: Annotated[list[Remark], Field(max_length=_MOST_FILES)] = []
    warnings: Annotated[list[Remark], Field(max_length=_MOST_FILES)] = []


class Refusal(_Answer):
    """What may stand in an answer that refuses."""

    error: Remarked | Annotated[list[Remarked], Field(max_length=100)] | None = None
    errors: Annotated[list[Remark], Field(max_length=100)] | None = None
    url: Link | None = None  # of a repository that is there already


Kind = TypeVar("Kind", bound=BaseModel)

# What is asked, as its method and path → what is answered.
_KINDS: dict[re.Pattern[str], type[BaseModel]] = {
    re.compile(asked): kind
    for asked, kind in (
        (r"GET .*/api/whoami-v2", User),
        (r"GET .*/api/models", Models),
        (r"GET .*/api/models/[^/]+/[^/]+(?:/revision/[^/]+)?", Revision),
        (r"POST .*/api/repos/create", Created),
        (r"POST .*/api/validate-yaml", Remarks),
        (r"POST .*/api/models/[^/]+/[^/]+/preupload/.+", Uploads),
        (r"POST .*/api/models/[^/]+/[^/]+/commit/.+", Committed),
        (r"POST .*/info/lfs/objects/batch", Batch),
    )
}


def kind_of(method: str, path: str) -> type[BaseModel] | None:
    """Return what a hub answers to a request; None where it is a file, or nothing that anybody reads."""
    return next((kind for asked, kind in _KINDS.items() if asked.fullmatch(f"{method} {path}")), None)


def checked(kind: type[BaseModel], content: bytes, *, place: str, where: str) -> bytes:
    """Return an answer with nothing in it but what its kind knows, and all of that as it should be.

    Raises:
        HubError: it is something else.
    """
    return read(kind, content, place=place, where=where).model_dump_json(exclude_none=True).encode()


def refusal(content: bytes) -> bytes:
    """Return what an answer that refuses says, be it in plain words; a page, or data of another kind, says nothing."""
    try:
        return Refusal.model_validate_json(content).model_dump_json(exclude_none=True).encode()
    except ValidationError:
        text = content[:2000].decode("utf-8", "replace").strip()
        return b"{}" if text[:1] in ("<", "{", "[") else json.dumps({"error": text}).encode()


def read(kind: type[Kind], content: bytes | object, *, place: str, where: str) -> Kind:
    """Return an answer as a model of its kind.

    Args:
        content: the body, or what was parsed of it.

    Raises:
        HubError: it is something else.
    """
    try:
        return kind.model_validate_json(content) if isinstance(content, bytes) else kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise HubError(
            f"{place} does not answer as a hub: {at + ': ' if at else ''}{first['msg']:.120}.",
            where=where,
            fix="Check the address, HF_ENDPOINT.",
        ) from None
