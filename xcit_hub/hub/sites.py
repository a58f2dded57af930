"""The hubs that are reached through a client of their own: what each is called, where it is, what it admits.

Pure data, for :mod:`xcit_hub.hub.address` as for the stores. The rules are those of the clients' own checks, so that
what a client would refuse in the middle is refused before anything is sent.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from urllib.parse import SplitResult


@dataclass(frozen=True)
class Site:
    """One hub.

    Args:
        scheme: what ids begin with (``modelers://org/name``), and what ``--to`` and ``--hub`` take.
        title: its name, for people.
        endpoint: where its client finds it.
        endpoint_variable: the variable that says otherwise.
        token_variables: where a token for the endpoint is looked for, in this order.
        page: the address that a model's page begins with, ``{page}/org/name``.
        hosts: the hosts whose pages are this hub's.
        domains: each with what is below it; a token of the endpoint stays in the endpoint's own.
        storages: where else its client goes, without a token; None is every public host.
        takes_any_endpoint: whether the client goes to an endpoint outside of ``domains``.
        branch: the default branch.
        package: the client's distribution, which the extra of that name installs.
        module: what the client is imported as.
        owner, model, revision: what the client admits, and ``rules`` says to people.
        makes_branches: whether the client can create a branch.
        has_commits: whether the client says which commit a branch is at.
        parts: the most that a model's name has.
    """

    scheme: str
    title: str
    endpoint: str
    endpoint_variable: str
    token_variables: tuple[str, ...]
    page: str
    hosts: tuple[str, ...]
    domains: tuple[str, ...]
    storages: tuple[str, ...] | None
    takes_any_endpoint: bool
    branch: str
    package: str
    module: str
    owner: re.Pattern[str]
    model: re.Pattern[str]
    revision: re.Pattern[str]
    rules: str
    makes_branches: bool
    has_commits: bool
    parts: int = 2

    @property
    def configured(self) -> str:
        """The endpoint, as the environment or the client has it."""
        return (os.environ.get(self.endpoint_variable, "").strip() or self.endpoint).rstrip("/")

    @property
    def own(self) -> str:
        """Its name, as an owner's: ``Modelers'``."""
        return f"{self.title}'" if self.title.endswith("s") else f"{self.title}'s"

    def admits(self, host: str) -> bool:
        """Whether the client takes an endpoint on this host."""
        own = any(host == domain or host.endswith(f".{domain}") for domain in self.domains)
        return own or self.takes_any_endpoint


# openmind_hub 1.3.0, plugins.openmind: constants (the three lists of hosts) and utils._validators.
_OPENMIND_OWNER = re.compile(r"[A-Za-z](?:[-_.][A-Za-z0-9]|[A-Za-z0-9]){2,39}")
_OPENMIND_MODEL = re.compile(r"(?!.*\.git$)[A-Za-z0-9._-]{1,100}")
_OPENMIND_REVISION = re.compile(r"[A-Za-z0-9_-]{1,100}")
_OPENMIND_RULES = "owners begin with a letter and have 3 to 40 characters, branches are letters, digits, '_' and '-'"
_OPENMIND_DOMAINS = ("openmind.cn", "osinfra.cn", "modelers.cn", "gitcode.com", "gitcode.net", "mindspore.cn")

MODELERS = Site(
    scheme="modelers",
    title="Modelers",
    endpoint="https://modelers.cn",
    endpoint_variable="OPENMIND_HUB_ENDPOINT",
    token_variables=("MODELERS_TOKEN",),
    page="https://modelers.cn/models",
    hosts=("modelers.cn", "www.modelers.cn"),
    domains=_OPENMIND_DOMAINS,
    storages=("myhuaweicloud.com",),
    takes_any_endpoint=False,
    branch="main",
    package="openmind-hub",
    module="openmind_hub",
    owner=_OPENMIND_OWNER,
    model=_OPENMIND_MODEL,
    revision=_OPENMIND_REVISION,
    rules=_OPENMIND_RULES,
    makes_branches=True,
    has_commits=True,
)
# GitCode's own client, `gitcode` 1.2.0, is openmind_hub with this endpoint.
GITCODE = replace(
    MODELERS,
    scheme="gitcode",
    title="GitCode",
    endpoint="https://hub.gitcode.com",
    endpoint_variable="GITCODE_ENDPOINT",
    token_variables=("GITCODE_TOKEN",),
    page="https://ai.gitcode.com",
    hosts=("gitcode.com", "www.gitcode.com", "hub.gitcode.com", "ai.gitcode.com"),
    owner=re.compile(f"{_OPENMIND_OWNER.pattern}(?:/[A-Za-z0-9._-]{{1,100}})?"),
    parts=3,  # of a mirror: hf_mirrors/org/name
)
MODELSCOPE = Site(
    scheme="modelscope",
    title="ModelScope",
    endpoint="https://modelscope.cn",
    endpoint_variable="MODELSCOPE_ENDPOINT",
    token_variables=("MODELSCOPE_API_TOKEN",),
    page="https://modelscope.cn/models",
    hosts=("modelscope.cn", "www.modelscope.cn", "modelscope.ai", "www.modelscope.ai"),
    domains=("modelscope.cn", "modelscope.ai"),
    storages=None,
    takes_any_endpoint=True,
    branch="master",
    package="modelscope-hub",
    module="modelscope_hub",
    owner=re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*"),
    model=re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*"),
    revision=re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*"),
    rules="an owner and a model, of letters, digits, '.', '_' and '-'",
    makes_branches=False,
    has_commits=False,
)

SITES: dict[str, Site] = {site.scheme: site for site in (MODELERS, MODELSCOPE, GITCODE)}

# What follows a model's name in the address of one of its pages.
_PAGES = frozenset({"tree", "blob", "resolve", "raw", "media", "commits", "file", "files", "summary"})


def of_page(parts: SplitResult) -> Site | None:
    """Return the hub that a web address is a page of."""
    host = (parts.netloc if parts.port else parts.hostname or "").lower()
    for site in SITES.values():
        configured = site.configured
        if host in site.hosts or (configured != site.endpoint and configured.partition("://")[2].lower() == host):
            return site
    return None


def model_of_page(site: Site, path: list[str], query: dict[str, str]) -> tuple[str, str | None, str | None] | None:
    """Return a model's name, the revision and the file that a page shows; None where it shows no model.

    Args:
        path: the parts of the address's path.
        query: its query; ModelScope's pages name a revision there.
    """
    is_clone = len(path) > 1 and path[-1].endswith(".git")  # the address that git clone takes has no /models/
    if is_clone:
        path = [*path[:-1], path[-1].removesuffix(".git")]
    if site.page.endswith("/models") and not (is_clone and path[0] != "models"):
        if path[:1] != ["models"]:
            return None
        path = path[1:]
    kind = next((index for index, part in enumerate(path) if index > 1 and part in _PAGES), len(path))
    name, rest = path[:kind], path[kind:]
    if not 2 <= len(name) <= site.parts:
        return None
    if rest[:2] == ["file", "view"]:  # ModelScope's page of one file
        rest = rest[1:]
    revision = query.get("version") or query.get("Revision") or (rest[1] if len(rest) > 1 else None)
    shown = None if revision == site.branch else revision
    file = "/".join(rest[2:]) or None if rest[:1] != ["tree"] else None
    return "/".join(name), shown, file
