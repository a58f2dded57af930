"""``xcit-hub list|info|load|publish|whoami|cache``: what is on the hubs, and what of it is here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from xcit_hub.hub.config import ModelConfig

Hub = Annotated[
    str | None,
    typer.Option(help="Look only there: a folder, hugging-face, an endpoint's address, mindspore-hub[:FOLDER]."),
]
CacheDir = Annotated[Path | None, typer.Option(help="Folder for fetched files; huggingface_hub's cache by default.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never touch the network.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit.")]

cache_app = typer.Typer(
    help="The models that were fetched, in huggingface_hub's cache. Other libraries' are never touched.",
    no_args_is_help=True,
)


def list_models(
    pattern: Annotated[str, typer.Argument(help="A shell pattern, such as 'xcit_tiny*'.")] = "*",
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Published checkpoints, not architectures.")] = False,
    hub: Hub = None,
    as_json: AsJson = False,
) -> None:
    """List architectures, published checkpoints, or what a hub holds.

    Examples:

        xcit-hub list 'xcit_tiny*' --pretrained

        xcit-hub list --hub ./my-hub
    """
    from fnmatch import fnmatchcase

    from xcit_hub import variants

    if hub is not None:
        names = [name for name in _store(hub).list() if fnmatchcase(name, pattern)]
    else:
        names = variants.list_models(pattern, pretrained=pretrained)
    if as_json:
        typer.echo(json.dumps(names))
    elif hub is None and pretrained:
        _console().print(_checkpoints(names))
    else:
        typer.echo("\n".join(names))


def info(
    model_id: Annotated[str, typer.Argument(metavar="ID", help="org/name, a table's name, a path or an address.")],
    revision: Revision = None,
    hub: Hub = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    as_json: AsJson = False,
) -> None:
    """Say what an id means and what is there. Fetches no weights.

    Examples:

        xcit-hub info xcit_tiny_12_p16_224.fb_in1k

        xcit-hub info mindspore/xcit_tiny_12_p16_224 --json
    """
    from xcit_hub.hub.load import info as describe

    found = describe(model_id, revision, hub=hub, cache_dir=cache_dir, offline=offline)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), ensure_ascii=False, indent=2))
        return
    from rich.table import Table

    console = _console()
    table = Table(show_header=False, box=None)
    table.add_row("address", found.address)
    table.add_row("origin", found.origin)
    table.add_row("revision", found.revision or "none: no history is kept there")
    for name, value in _facts(found.config):
        table.add_row(name, value)
    console.print(table)
    files = Table("file", "bytes", "digest", box=None)
    for path, (size, digest) in found.files.items():
        mark = " [green]← weights[/]" if path == found.weights else ""
        files.add_row(path + mark, "?" if size is None else f"{size:,}", _short(digest))
    console.print(files)
    for path in found.damaged:
        console.print(
            f"damaged: {path}: not the bytes that were published; publish it again", style="red", markup=False
        )
    _notes(console, found.notes)


def load(
    model_id: Annotated[str, typer.Argument(metavar="ID", help="org/name, a table's name, a path or an address.")],
    revision: Revision = None,
    hub: Hub = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    image: Annotated[Path | None, typer.Option(help="Classify this picture and print the five best classes.")] = None,
    dialect: Annotated[str | None, typer.Option(help="paper or mindcv, where a bare file does not say.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a model, check its hash, load it strictly, and say what it is; with --image, use it.

    Examples:

        xcit-hub load xcit_tiny_12_p16_224.fb_in1k --image cat.jpg

        xcit-hub load org/name --hub ./my-hub --json
    """
    from xcit_hub.hub.load import load as load_model
    from xcit_hub.variants import dialect as checked

    name = checked(dialect).name if dialect is not None else None
    with _working("loading"):
        network = load_model(model_id, revision, hub=hub, cache_dir=cache_dir, offline=offline, dialect=name)
        best = _classify(network, image) if image is not None else []
    source = network.config.provenance
    if source.verified == "none":
        _note_on_stderr("nothing says what bytes this file should have, so its SHA-256 was verified against nothing")
    if as_json:
        record = {
            "id": model_id,
            "architecture": network.config.architecture,
            "dialect": network.config.dialect,
            "num_classes": network.config.num_classes,
            "source": source.source,
            "revision": source.revision,
            "sha256": source.sha256,
            "verified": source.verified,
            "notes": list(source.notes),
            "classes": [{"class": label, "share": share} for label, share in best],
        }
        typer.echo(json.dumps(record, ensure_ascii=False, indent=2))
        return
    console = _console()
    verified = {"full": "in full", "prefix": "by its published prefix", "none": "against nothing"}[source.verified]
    console.print(f"{network.config.architecture}, {network.config.dialect} dialect, from {source.source}")
    console.print(f"sha256 {source.sha256}, verified {verified}")
    _notes(console, source.notes)
    for label, share in best:
        console.print(f"{share:7.1%}  {label}")


def publish(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of any family and format.")],
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Both: the organisation or user, and the model.")],
    to: Annotated[
        str | None,
        typer.Option(help="hugging-face, FOLDER or mindspore-hub:FOLDER; by default this machine's folder hub."),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="run.json: what training and evaluation measured.")] = None,
    meta: Annotated[Path | None, typer.Option(help="card.yaml: what nobody can measure.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch of its own; created if need be.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show files, hashes and card; send nothing.")] = False,
    model: Annotated[str | None, typer.Option(help="The architecture, where the tensors fit two.")] = None,
    dialect: Annotated[str | None, typer.Option(help="paper or mindcv, where the file does not say.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="A file with the classes' names, one on each line; or imagenet-1k.")
    ] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Take a training checkpoint's averaged weights.")] = False,
    parity: Annotated[
        bool, typer.Option("--parity/--no-parity", help="Prove the weights against PyTorch (needs the timm extra).")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Prove a checkpoint, describe it, and publish everything in one commit. Unchanged content makes none.

    Examples:

        xcit-hub publish tiny.ckpt me/xcit-tiny --to ./my-hub

        xcit-hub publish tiny.ckpt me/xcit-tiny --to hugging-face --run run.json --meta card.yaml --dry-run

        xcit-hub publish tiny.ckpt me/xcit_tiny --to mindspore-hub:../hub --meta card.yaml
    """
    from xcit_hub.hub.publish import publish as publish_model
    from xcit_hub.variants import dialect as checked

    with _working("publishing") as show:
        done = publish_model(
            checkpoint,
            name,
            to=to,
            run=run,
            meta=meta,
            private=private,
            revision=revision,
            create_pr=create_pr,
            dry_run=dry_run,
            model=model,
            dialect=checked(dialect).name if dialect is not None else None,
            labels=labels,
            ema=ema,
            parity=parity,
            on_stage=show,
        )
    if as_json:
        typer.echo(json.dumps(done.as_dict(), ensure_ascii=False, indent=2))
        return
    from rich.table import Table

    console = _console()
    table = Table("file", "bytes", "sha256", box=None)
    for file in done.files:
        table.add_row(file.path, f"{file.size:,}", _short(file.sha256))
    if dry_run:
        console.print(done.card, markup=False)
        console.print()
    console.print(table)
    verdict = "not published: --dry-run" if dry_run else "published" if done.changed else "unchanged: no commit made"
    for path in done.repaired:
        console.print(
            f"repaired: {path} was damaged where it is kept, and is whole again", style="yellow", markup=False
        )
    console.print(f"{verdict}  {done.url}" + (f"  revision {done.revision}" if done.revision else ""))
    if done.parity is None:
        console.print("[yellow]not proven against PyTorch; the card says so[/]")
    for number, step in enumerate(done.todo, 1):
        console.print(f"{number}. {step}", markup=False)


def whoami(
    endpoint: Annotated[str | None, typer.Option(help="HF_ENDPOINT, or https://huggingface.co.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say whose token huggingface_hub's login or HF_TOKEN holds.

    Examples:

        xcit-hub whoami
    """
    from xcit_hub.hub.stores.hugging_face import whoami as ask

    found = ask(endpoint)
    if as_json:
        typer.echo(json.dumps(found))
        return
    groups = f", member of {', '.join(found['orgs'])}" if found["orgs"] else ""
    typer.echo(f"{found['name']}{groups} ({found['endpoint']}, token may {found['role'] or 'read'})")


@cache_app.command("list")
def cache_list(cache_dir: CacheDir = None, as_json: AsJson = False) -> None:
    """List the cached models.

    Examples:

        xcit-hub cache list --json
    """
    from xcit_hub.hub import cache

    found = cache.entries(cache_dir or cache.default_folder())
    if as_json:
        rows = [
            {"name": e.name, "revision": e.commit, "branches": list(e.branches), "bytes": e.size, "path": str(e.folder)}
            for e in found
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.table import Table

    table = Table("model", "revision", "branches", "bytes", box=None)
    for entry in found:
        table.add_row(entry.name, entry.commit[:12], ", ".join(entry.branches), f"{entry.size:,}")
    _console().print(table if found else "The cache holds no XCiT models.")


@cache_app.command("verify")
def cache_verify(cache_dir: CacheDir = None, as_json: AsJson = False) -> None:
    """Hash every cached file. Exits 1 if one is damaged.

    Examples:

        xcit-hub cache verify
    """
    from xcit_hub.hub import cache

    with _working("hashing"):
        count, damaged = cache.verify(cache_dir or cache.default_folder())
    if as_json:
        rows = [{"name": d.name, "path": str(d.file), "expected": d.expected, "found": d.found} for d in damaged]
        typer.echo(json.dumps({"checked": count, "damaged": rows}, indent=2))
    else:
        for damage in damaged:
            typer.echo(
                f"damaged: {damage.name}: {damage.file}\n"
                "  do:    load it again, which fetches it again; in a folder hub, publish it again"
            )
        typer.echo(f"{count - len(damaged)} of {count} files are what their names promise")
    if damaged:
        raise typer.Exit(1)


@cache_app.command("prune")
def cache_prune(
    cache_dir: CacheDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove revisions that no branch names, blobs that no revision needs, and what killed processes left.

    Examples:

        xcit-hub cache prune --dry-run
    """
    from xcit_hub.hub import cache

    removed = cache.prune(cache_dir or cache.default_folder(), dry_run=dry_run)
    total = sum(size for _, size in removed)
    if as_json:
        record: dict[str, Any] = {"removed": [str(path) for path, _ in removed], "bytes": total, "dry_run": dry_run}
        typer.echo(json.dumps(record, indent=2))
        return
    for path, size in removed:
        typer.echo(f"{size:>14,}  {path}")
    typer.echo(f"{'would free' if dry_run else 'freed'} {total:,} bytes")


def _store(hub: str) -> Any:
    from xcit_hub.hub import cache
    from xcit_hub.hub.address import offline_by_environment, parse
    from xcit_hub.hub.stores import Context, open_store

    return open_store(parse("any/model", hub=hub), Context(cache.default_folder(), offline_by_environment()))


def _checkpoints(names: list[str]) -> object:
    from rich.table import Table

    from xcit_hub.variants import CHECKPOINTS

    table = Table("checkpoint", "dialect", "input", "top-1", "source", box=None)
    for name in names:
        entry = CHECKPOINTS[name]
        top1 = f"{entry.accuracies[0].top1:.2f}" if entry.accuracies else ""
        table.add_row(name, entry.dialect, str(entry.preprocessing.image_size), top1, entry.repository or entry.url)
    return table


def _facts(config: ModelConfig | None) -> list[tuple[str, str]]:
    if config is None:
        return [("description", "none: the tensors will say")]
    shape = config.preprocessing
    return [
        ("architecture", config.architecture),
        ("dialect", config.dialect),
        ("classes", f"{config.num_classes}" + (f", first {config.labels[0]!r}" if config.labels else "")),
        ("input", f"{config.in_chans}×{shape.image_size}×{shape.image_size}, crop {shape.crop_pct:g}"),
    ]


def _classify(network: Any, image: Path) -> list[tuple[str, float]]:
    import mindspore
    import numpy as np

    from xcit_hub.errors import InputError, WeightsError
    from xcit_hub.hub.load import preprocess

    logits = network(mindspore.Tensor(preprocess(network)(image)[None])).asnumpy()[0].astype(np.float64)
    if not np.isfinite(logits).all():
        raise WeightsError(
            f"The network's outputs are not finite: {int((~np.isfinite(logits)).sum())} of {logits.size} logits are "
            "NaN or infinite.",
            where=network.config.provenance.source,
            fix="The weights are damaged, or of another dialect; see where they come from.",
        )
    if not logits.size or network.config.num_classes == 0:
        raise InputError(
            "These weights have no classifier, and a backbone names no classes.",
            where=network.config.provenance.source,
            fix="Leave --image out, or load a classifier.",
        )
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    labels = network.config.labels or [f"class {index}" for index in range(len(shares))]
    return [(labels[index], float(shares[index])) for index in np.argsort(-shares)[:5]]


def _short(digest: str | None) -> str:
    return "" if digest is None else digest if len(digest) <= 16 else f"{digest[:16]}…"


def _notes(console: Console, notes: tuple[str, ...]) -> None:
    for note in notes:
        console.print(f"note: {note}", style="yellow", markup=False)


def _note_on_stderr(note: str) -> None:
    from rich.console import Console

    _notes(Console(stderr=True, highlight=False, soft_wrap=True), (note,))


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 240  # a pipe has no edge to cut names at
    return console


def _working(what: str) -> Any:
    """Show on standard error what is going on; the value is called with the name of each stage."""
    from contextlib import contextmanager

    from rich.console import Console

    @contextmanager
    def show() -> Any:
        console = Console(stderr=True)
        with console.status(what) as status:
            yield lambda stage: status.update(f"{what}: {stage}")

    return show()
