"""What a model id means.

The first rule that fits decides, whatever exists elsewhere:

1.  ``hub=`` was given: the id is a name in that hub and nowhere else.
2.  The id is written as timm and huggingface write one, ``hf-hub:org/name`` or ``local-dir:/folder``, or begins with a
    scheme: ``hf://org/name``, ``modelers://``, ``modelscope://`` and ``gitcode://org/name``, ``file:///path``,
    ``https://…`` (a MindSpore Hub card, a model's page on the Hugging Face endpoint, Modelers, ModelScope, GitCode), or
    a scheme that an installed store registered (``web+https://…``).
3.  It is spelled as a path: it begins with ``/``, ``./``, ``../`` or ``~``, or ends like a checkpoint (``.ckpt`` …).
    One file of a hub's model is written with the hub: ``hf://org/name/model.safetensors``.
4.  ``mindspore/…``: MindSpore Hub, by card uid or by model name.
5.  ``timm/…``, or a bare name from the variant table: timm's own repository on Hugging Face; the official MindSpore
    checkpoint's name means its MindSpore Hub card. Facebook's and torch.hub's names of the same weights
    (``xcit_tiny_12_p16``, ``xcit_tiny_12_p16_224_dist``, ``dino_xcit_small_12_p16``, ``facebookresearch/xcit:…``) and
    the addresses they are downloaded from mean these.
6.  A file or folder of that spelling exists below the working directory.
7.  ``org/name``: the folder hub of this machine if it holds it, and Hugging Face otherwise.

So a stray folder never takes the place of a published name, and ``./name`` always means the folder.
``@revision`` may follow any id of a hub. The folder hub of this machine is ``$XCIT_HUB_HOME``, by default
``~/.local/share/xcit-hub``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from xcit_hub.errors import InputError, UnknownNameError, closest
from xcit_hub.files import is_folder, is_there
from xcit_hub.hub.sites import SITES, Site, model_of_page, of_page
from xcit_hub.hub.spelling import (
    CHECKPOINT_SUFFIXES,
    checked_name,
    one_file,
    one_revision,
    parsed,
    path_of_url,
    split_revision,
    without_secret,
)
from xcit_hub.variants import ARCHITECTURES, CHECKPOINTS, PublishedCheckpoint, checkpoint

FOLDER = "folder"
HUGGING_FACE = "hugging-face"
MINDSPORE_HUB = "mindspore-hub"
LOCAL = "local"
_HUBS = (HUGGING_FACE, "hf", MINDSPORE_HUB, *SITES)
HOME = "XCIT_HUB_HOME"  # the variable that names the folder hub of this machine
ANY = "any/model"  # where a hub is meant, and none of its models

_EXPORTED_SUFFIXES = (".onnx", ".mindir")  # files, too, which are refused by what they are

_CARD_PARTS = 4  # of a MindSpore Hub card's uid, at most
_BARE = re.compile(r"[^/\\.~:]+")  # neither a path nor an address
_SCHEME = re.compile(r"^([a-z][a-z0-9.-]*)(?:\+[a-z0-9]+)?://", re.IGNORECASE)
_HUGGING_FACES = ("huggingface.co", "hf.co", "www.huggingface.co")
# Hosts that show what another hub holds, by its protocol.
_MIRRORS = ("hf-mirror.com", "www.hf-mirror.com")
# First parts of Hugging Face's pages that are not a model's owner.
_OTHER_PAGES = (
    *("models", "datasets", "spaces", "docs", "papers", "collections", "settings", "join", "login", "blog", "api"),
    *("organizations", "new", "posts", "tasks", "learn", "pricing", "chat", "enterprise", "notifications", "kernels"),
)
# A page of MindSpore Hub's own site, https://www.mindspore.cn/resources/hub/details?MindSpore/2.5/…, by its query.
_CARD_HOSTS = ("www.mindspore.cn", "mindspore.cn")
_CARD_PAGE = re.compile(r"(?:[0-9]+/)?(?P<publisher>[A-Za-z-]+)/(?P<rest>[A-Za-z0-9._/-]+)")
_SSH = re.compile(r"^(?:ssh://)?git@([a-z.]+)[:/]", re.IGNORECASE)
_TORCH_HUB = re.compile(r"^facebookresearch/(?:xcit|dino)(?::[A-Za-z0-9._-]*(?=[/:]))?[/:]")
_DINO = re.compile(r"(?:dino_xcit_|xcit_(?=.*_dino$))([a-z]+_[0-9]+)_c?p([0-9]+)(?:_224)?(?:_dino)?")
_YES, _NO = ("1", "ON", "YES", "TRUE"), ("0", "OFF", "NO", "FALSE")  # the first are huggingface_hub's
_PAGES = ("tree", "blob", "resolve", "raw", "commit")


class OnNoHubError(InputError):
    """Published weights that are a file on the web alone."""


@dataclass(frozen=True)
class Address:
    """Where one model is looked for.

    Args:
        store: ``folder``, ``hugging-face``, ``mindspore-hub``, ``local``, ``modelers``, ``modelscope``, ``gitcode``, or
            the scheme of an installed store.
        name: the model's name in that store; for ``local`` the path.
        location: the hub's folder or endpoint; ``None`` is the store's default.
        revision: a branch, tag or commit; ``None`` is the default branch.
        file: the weights file, where the id names one of several.
    """

    store: str
    name: str
    location: str | None = None
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        place = {
            FOLDER: f"{self.location}/{self.name}",
            HUGGING_FACE: f"hf://{self.name}" if self.location is None else f"{self.location}/{self.name}",
            MINDSPORE_HUB: f"MindSpore Hub {self.name}",
            LOCAL: self.name,
        }.get(self.store, f"{self.store}+{self.location}/{self.name}")
        if self.store in SITES and not (self.location or "").startswith("http"):
            place = f"{self.store}://{self.name}"
        return place if self.revision is None else f"{place}@{self.revision}"


def parse(model_id: str, *, hub: str | os.PathLike[str] | None = None, revision: str | None = None) -> Address:
    """Say where ``model_id`` is looked for, by the rules at the head of this file. Touches no network.

    Raises:
        InputError: the id or revision has a form that no rule admits, or names two revisions.
        UnknownNameError: a bare name that is in no table; the message offers the closest.
    """
    model_id = os.fspath(model_id).strip().strip("\"'`<>")
    if not model_id or not model_id.isprintable():
        raise InputError(
            f"{model_id!r:.200} is not a model id.",
            where="the address",
            fix="Give a name such as xcit_tiny_12_p16_224.fb_in1k, or a path.",
        )
    if hub is not None:
        return _in_hub(hub, *split_revision(model_id, revision))
    prefix, _, rest = model_id.partition(":")
    prefix = prefix.lower()
    if prefix in ("hf-hub", "hf_hub"):
        return _by_written(HUGGING_FACE, rest, revision)
    if prefix == "local-dir":
        return _local(rest, revision)
    model_id = _SSH.sub(r"https://\1/", model_id)
    host, slash, _ = model_id.partition("/")
    if slash and "." in host and host.lower() in _hosts():
        model_id = f"https://{model_id}"
    scheme = _SCHEME.match(model_id)
    if scheme is not None:
        return _by_scheme(scheme.group(1).lower(), model_id, revision)
    if _is_spelled_as_path(model_id):
        return _local(model_id, revision)
    if is_there(model_id):
        is_here = True
    else:
        is_here, model_id = False, model_id if "@" in model_id else model_id.rstrip("/") or model_id
    name, revision = split_revision(model_id, revision)
    if name.startswith("mindspore/"):
        return Address(MINDSPORE_HUB, checked_name(name, most=_CARD_PARTS), revision=revision)
    published = published_name(name.removeprefix("timm/") if name.removeprefix("timm/") in ARCHITECTURES else name)
    if published is not None:
        return _by_table(published, revision)
    if name.startswith("timm/"):
        return Address(HUGGING_FACE, checked_name(name), revision=revision)
    if is_here:
        return _local(model_id, revision)
    if "/" not in name:
        raise UnknownNameError(
            f"No model is called {name!r}, and no file or folder of that name here.",
            where=Path.cwd(),
            fix=(closest(name, [*CHECKPOINTS, *ARCHITECTURES]) or "See `xcit-hub list --pretrained`.")
            + " A model of a hub is written org/name.",
        )
    home = machine_hub()
    if holds(home, name):
        return Address(FOLDER, checked_name(name), location=str(home), revision=revision)
    return Address(HUGGING_FACE, checked_name(name), revision=revision)


def _hosts() -> frozenset[str]:
    """Hosts whose addresses people paste without https://."""
    files = (urlsplit(entry.url).netloc for entry in CHECKPOINTS.values())
    sites = (host for site in SITES.values() for host in site.hosts)
    return frozenset((*_HUGGING_FACES, *_MIRRORS, *_CARD_HOSTS, "github.com", "www.github.com", *files, *sites))


def _by_written(store: str, written: str, revision: str | None) -> Address:
    """Read ``org/name``, ``org/name@revision``, and either with one file of it behind, as people write them."""
    name, revision = split_revision(written.strip("/"), revision)
    owner, _, rest = name.partition("/")
    model, _, file = rest.partition("/")
    # The revision may stand behind the model, before the file: hf://org/name@v1/model.safetensors.
    if "@" in written and not file and revision is not None and revision.lower().endswith(CHECKPOINT_SUFFIXES):
        inside, _, file = revision.rpartition("/")
        name, revision = one_revision(name, inside or None, None)
    most = SITES[store].parts if store in SITES else 2
    if file.lower().endswith(CHECKPOINT_SUFFIXES):
        inside, _, last = file.rpartition("/")
        if inside and inside.count("/") < most - 2:  # files stand in no folder: it is one more part of the name
            model, file = f"{model}/{inside}", last
        return Address(store, checked_name(f"{owner}/{model}", most), revision=revision, file=one_file(file, written))
    return Address(store, checked_name(name, most), revision=revision)


def published_name(name: str) -> str | None:
    """Return the table's name for weights under any name that their publishers give them, or None.

    Known are timm's, with or without its repository, facebook's (``xcit_tiny_12_p16``, ``…_224_dist``,
    ``xcit_small_12_cp16_dino``), torch.hub's (``dino_xcit_small_12_p16``, ``facebookresearch/xcit:main/…``),
    MMPretrain's (``xcit-nano-12-p16_3rdparty_in1k``), RobustBench's and every published file's own.
    """
    name = _TORCH_HUB.sub("", name)
    if name in CHECKPOINTS or name in ARCHITECTURES:
        return name
    called = next((entry.name for entry in CHECKPOINTS.values() if name in _called(entry)), None)
    if called is not None:
        return called
    dino = _DINO.fullmatch(name)
    if dino is not None:
        name = f"xcit_{dino.group(1)}_p{dino.group(2)}_224.fb_dino"
    else:
        stem = name.removesuffix("_dist")
        if stem not in ARCHITECTURES:
            stem += "_224"
        name = f"{stem}.{'fb_dist_in1k' if name.endswith('_dist') else 'fb_in1k'}"
    return name if name in CHECKPOINTS else None


def _called(entry: PublishedCheckpoint) -> tuple[str, ...]:
    return (entry.file.removesuffix(".tar").rpartition(".")[0], *entry.aliases)


def parse_target(target: str | os.PathLike[str] | None, name: str, revision: str | None = None) -> Address:
    """Say where ``publish --to target`` writes ``name``: ``None`` is the folder hub of this machine.

    Raises:
        InputError: the name or target has no valid form, or is a bare word that is neither a hub nor a folder here.
    """
    name, revision = split_revision(name, revision)
    if "/" not in name and _owner_in(target) is None:
        raise InputError(
            f"{name!r} lacks its organisation or user: models are published as ORG/NAME.",
            where="the name of the model",
            fix=f"Write me/{name}, with your own name before the slash.",
        )
    if isinstance(target, str) and _BARE.fullmatch(target) and target.lower() not in _HUBS and not is_folder(target):
        raise InputError(
            f"{target!r} is neither a hub nor a folder that is here.",
            where="--to",
            fix=closest(target, _HUBS) or f"Write ./{target} for a new folder, or one of {', '.join(_HUBS)}.",
        )
    owned = _owner_in(target)
    if owned is not None:
        name = f"{owned[1]}/{name.rpartition('/')[2]}"
    return _in_hub(machine_hub() if target is None else target, name, revision)


def machine_hub(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder hub of this machine; it need not exist yet.

    Raises:
        InputError: ``XCIT_HUB_HOME`` is set to what is no folder and cannot become one, or may not be read.
    """
    configured = environment.get(HOME)
    if not configured:
        return expanded(environment.get("XDG_DATA_HOME") or "~/.local/share") / "xcit-hub"
    home = expanded(configured)
    there = next(each for each in (home.absolute(), *home.absolute().parents) if os.path.lexists(each))
    can_be_read = is_folder(there) and os.access(there, os.R_OK | os.X_OK)
    if not can_be_read or not _can_be_called(home):
        raise InputError(
            f"{HOME} is {configured!r}, and {home if can_be_read else there} is not a folder that can be read.",
            where=f"the environment variable {HOME}",
            fix="Set it to the folder hub of this machine, or unset it.",
        )
    return home


def _can_be_called(path: Path) -> bool:
    """Whether the system can look for a path: its parts are not too long, and no loop of links."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder that ``~`` or ``~user`` means.

    Raises:
        InputError: nobody has it.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{os.fspath(path)!r}: {error}", where="the path", fix="Write the home folder out.") from None


def offline_by_environment() -> bool:
    """Whether ``HF_HUB_OFFLINE``, or ``TRANSFORMERS_OFFLINE`` in its place, forbids the network.

    Raises:
        InputError: it has a value that says neither yes nor no.
    """
    return offline_variable(os.environ) is not None


def offline_variable(environment: Mapping[str, str]) -> str | None:
    """Return the name of the variable that forbids the network; None where none does.

    Raises:
        InputError: it has a value that says neither yes nor no.
    """
    # huggingface_hub, too, asks the second where the first is empty.
    name = next((each for each in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if environment.get(each)), None)
    if name is None or environment[name].upper() in _NO:
        return None
    if environment[name].upper() not in _YES:
        raise InputError(
            f"{name} is {environment[name]!r:.40}, which says neither yes nor no.",
            where=f"the environment variable {name}",
            fix=f"Set it to {', '.join(_YES)}, or to {', '.join(_NO)}, or unset it.",
        )
    return name


def holds(folder: Path, name: str) -> bool:
    """Whether a folder hub has an entry called ``name``, of either of the two forms it reads."""
    return is_folder(folder / f"models--{name.replace('/', '--')}" / "refs") or is_folder(folder / name)


def _owner_in(hub: str | os.PathLike[str] | None) -> tuple[str, str] | None:
    """Return the scheme and the owner of ``modelscope://OWNER``."""
    scheme, _, owner = os.fspath(hub or "").partition("://")
    return (scheme.lower(), owner.strip("/")) if scheme.lower() in SITES and owner.strip("/") else None


def _in_hub(hub: str | os.PathLike[str], name: str, revision: str | None) -> Address:
    place = os.fspath(hub)
    if not place.strip():
        raise InputError("The hub has an empty name.", where="hub", fix="Name a folder, . for this one, or a hub.")
    site, _, rest = place.partition("://")
    if site.lower() in SITES:
        # An owner's models: the name may leave him out, and no other owner's is looked for there.
        owned = _owner_in(hub)
        if owned is not None and name != ANY:
            name = f"{owned[1]}/{name}" if "/" not in name else name
            if name.rpartition("/")[0] != owned[1]:
                raise InputError(
                    f"{name} is not a model of {owned[1]}.",
                    where="hub=… (--hub)",
                    fix=f"Write {site}://{name}, or --hub {site}.",
                )
        name = checked_name(name, most=SITES[site.lower()].parts)
        return Address(site.lower(), name, location=place if owned else None, revision=revision)
    # A hub may be spelled in capitals, but for a folder that is here and is spelled so.
    spelled = place.lower() if isinstance(hub, str) and not is_folder(place) else place
    kind, rest = spelled.partition(":")[0], place.partition(":")[2]
    if kind == MINDSPORE_HUB and not rest.startswith("//"):
        name = checked_name(name, most=_CARD_PARTS)
        return Address(MINDSPORE_HUB, name, location=rest or None, revision=revision)
    name = checked_name(name)
    if spelled in (HUGGING_FACE, "hf"):
        return Address(HUGGING_FACE, name, revision=revision)
    scheme = _SCHEME.match(place)
    if scheme is None:
        return Address(FOLDER, name, location=str(expanded(place)), revision=revision)
    known = scheme.group(1).lower()
    if known == "file":
        return Address(FOLDER, name, location=path_of_url(place), revision=revision)
    if known in ("http", "https"):
        return Address(HUGGING_FACE, name, location=without_secret(place).rstrip("/"), revision=revision)
    return Address(known, name, location=place.partition("+")[2] or place, revision=revision)


def _by_scheme(scheme: str, model_id: str, revision: str | None) -> Address:
    if scheme == "file":
        return _local(path_of_url(model_id), revision)
    if scheme == "hf":
        return _by_written(HUGGING_FACE, model_id.partition("://")[2], revision)
    if scheme in ("http", "https"):
        return _by_web_address(model_id, revision)
    if scheme in SITES and "+" not in model_id.partition("://")[0]:
        return _by_written(scheme, model_id.partition("://")[2], revision)
    # An installed store: everything up to the last two parts of the path is the hub, the rest the name.
    link, revision = split_revision(model_id, revision)
    parts = (link.partition("+")[2] or link).rstrip("/").rsplit("/", 2)
    if len(parts) != 3:
        raise InputError(
            f"{model_id!r} lacks a model.", where="the address", fix=f"Write {scheme}+https://HOST/org/name."
        )
    return Address(scheme, checked_name(f"{parts[1]}/{parts[2]}"), location=parts[0], revision=revision)


def _by_web_address(link: str, revision: str | None) -> Address:
    parts = parsed(without_secret(link))
    host = parts.netloc.lower()
    address = f"https://{host}{parts.path}"  # its publishers serve either scheme
    known = next((entry.name for entry in CHECKPOINTS.values() if entry.url == address), None)
    if known is not None:
        return _by_table(known, revision)
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if host in (*_HUGGING_FACES, urlsplit(endpoint).netloc, *_MIRRORS):
        found = _by_page([unquote(part) for part in parts.path.strip("/").split("/")], link, revision)
        shown = parse_qs(parts.query).get("show_file_info", [""])[-1]  # the page's panel on one file
        if found.file is None and shown.lower().endswith(CHECKPOINT_SUFFIXES):
            found = replace(found, file=one_file(shown, link))
        return replace(found, location=f"https://{_MIRRORS[0]}") if host in _MIRRORS else found
    card = _CARD_PAGE.fullmatch(unquote(parts.query)) if host in _CARD_HOSTS and "/hub/details" in parts.path else None
    if card is not None:
        uid = f"{card['publisher'].lower()}/{card['rest'].strip('/')}"
        return Address(MINDSPORE_HUB, checked_name(uid, most=_CARD_PARTS), revision=revision)
    is_card = "/assets/" in parts.path and parts.path.endswith(".md")  # MindSpore Hub's are on GitCode too
    site = of_page(parts)
    if site is not None and not is_card:
        return _by_site_page(site, parts, link, revision)
    if host in ("github.com", "www.github.com") and not parts.path.endswith(".md"):
        raise InputError(
            f"The link {link!r} leads to a repository of code.",
            where="the address",
            fix="Link to a card (….md), or download the checkpoint and give its path.",
        )
    if not parts.path.endswith(".md") and "/assets/" not in parts.path and "hub" not in parts.netloc:
        raise InputError(
            f"The link {link!r} is neither a MindSpore Hub card nor a page of {endpoint} or of another known hub.",
            where="the address",
            fix="Link to a card (….md), or download the checkpoint and give its path.",
        )
    return Address(MINDSPORE_HUB, link, revision=revision)


def _by_page(parts: list[str], link: str, revision: str | None) -> Address:
    """Read a page of a Hugging Face endpoint: a repository, one revision of it (``tree``), or a file (``blob`` …)."""
    if len(parts) < 2 or parts[0] in _OTHER_PAGES:
        raise InputError(
            f"The link {link!r} is not a model's page.",
            where="the address",
            fix="Link to the model's own page: https://HOST/org/name.",
        )
    name, revision = split_revision("/".join(parts[:2]).removesuffix(".git"), revision)
    kind, rest = (parts[2], parts[3:]) if len(parts) > 2 else ("", [])
    if kind not in _PAGES or not rest:
        return Address(HUGGING_FACE, checked_name(name), revision=revision)
    length = 3 if rest[:2] == ["refs", "pr"] else 1
    shown = "/".join(rest[:length])
    name, revision = one_revision(name, None if shown == "main" else shown, revision)
    file = "/".join(rest[length:]) or None
    if kind != "tree" and file is not None and file.lower().endswith(CHECKPOINT_SUFFIXES):
        return Address(HUGGING_FACE, checked_name(name), revision=revision, file=one_file(file, link))
    return Address(HUGGING_FACE, checked_name(name), revision=revision)


def _by_site_page(site: Site, parts: SplitResult, link: str, revision: str | None) -> Address:
    path = [unquote(part) for part in parts.path.strip("/").split("/")]
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    inside: str | None = None
    if path and "@" in path[-1]:
        path[-1], _, inside = path[-1].partition("@")
    found = model_of_page(site, path, query)
    if found is None:
        raise InputError(
            f"The link {link!r:.200} shows no model of {site.title}.",
            where="the address",
            fix=f"Write {site.scheme}://org/name.",
        )
    name, shown, file = found
    name, revision = one_revision(name, inside or shown, revision)
    if file is not None and file.lower().endswith(CHECKPOINT_SUFFIXES):
        return Address(site.scheme, checked_name(name, site.parts), revision=revision, file=one_file(file, link))
    return Address(site.scheme, checked_name(name, site.parts), revision=revision)


def _by_table(name: str, revision: str | None) -> Address:
    published = checkpoint(name)
    if published.repository is not None:
        return Address(HUGGING_FACE, published.repository, revision=revision)
    if published.name == f"{published.architecture}.ms_in1k":  # the one that its card links to
        return Address(MINDSPORE_HUB, f"mindspore/{published.architecture}", revision=revision)
    same = f" The same weights are {published.copy_of}, which is on a hub." if published.copy_of else ""
    raise OnNoHubError(
        f"The weights {name!r} are on no hub.",
        where=published.url,
        fix=f"Download that file and give its path.{same}",
    )


def _local(path: str, revision: str | None) -> Address:
    if revision is not None:
        raise InputError(
            f"A path has no revisions, and {revision!r} was asked for.",
            where=path,
            fix="Leave the revision out, or name the model in its hub: hub=FOLDER.",
        )
    return Address(LOCAL, str(expanded(path)))


def _is_spelled_as_path(model_id: str) -> bool:
    return (
        model_id in (".", "..", "~")
        or model_id.startswith(("/", "./", "../", "~/"))
        or model_id.lower().endswith((*CHECKPOINT_SUFFIXES, *_EXPORTED_SUFFIXES))
    )
