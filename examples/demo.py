"""The main job, end to end: XCiT weights from timm to MindSpore, proven, published to a folder, loaded back, used.

Run it with ``make demo``. Every stage calls what a user would call; the first that fails ends the demo, exit code 1.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("GLOG_v", "3")  # MindSpore: errors only
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_VERBOSITY", "error")

import numpy as np
from rich.console import Console
from rich.table import Table

import xcit_hub
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.errors import XcitHubError
from xcit_hub.variants import checkpoint

NAME = "xcit_tiny_12_p16_224.fb_in1k"
ENTRY = "demo/xcit_tiny_12_p16_224.fb_in1k"

console = Console(highlight=False, soft_wrap=True)
times: list[tuple[str, float]] = []


@contextmanager
def stage(title: str) -> Iterator[None]:
    console.print(f"[bold cyan]{len(times) + 1}. {title}[/]")
    started = time.perf_counter()
    with console.status(title):
        yield
    times.append((title, time.perf_counter() - started))
    console.print(f"   [dim]{times[-1][1]:.1f} s[/]")


def main() -> None:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="xcit-hub-demo-") as scratch:
        folder = Path(scratch)
        with stage(f"Take {NAME}"):
            source, is_published = take(folder)
        with stage("Convert it from timm to MindSpore"):
            checkpoint_file = folder / "xcit_tiny_12_p16_224.ckpt"
            report = rewrite(source, checkpoint_file, model=NAME.partition(".")[0])
            console.print(
                f"   {len(report.tensors)} tensors, {report.weights.dialect} dialect "
                f"({report.weights.evidence}); sha256 {report.target['sha256'][:16]}…"
            )
        with stage("Verify: both networks, the same weights and images"):
            show_parity(checkpoint_file)
        with stage("Prove every block and publish to a hub in a folder"):
            publication = xcit_hub.publish(
                checkpoint_file, ENTRY, to=folder / "hub", labels="imagenet-1k", meta=card_yaml(folder, is_published)
            )
            for file in publication.files:
                console.print(f"   {file.path:20} {file.size:>11,} bytes  {file.sha256[:16]}…")
        with stage("Load it back by its id"):
            network = xcit_hub.load(ENTRY, hub=folder / "hub")
            where = network.config.provenance
            console.print(
                f"   revision {where.revision}, sha256 {(where.sha256 or '')[:16]}…, verified: {where.verified}"
            )
        with stage("Classify a photograph"):
            classify(network, is_published)
    show_times(time.perf_counter() - started)


def take(folder: Path) -> tuple[Path, bool]:
    """Fetch the published weights, or, where no hub can be reached, draw seeded random ones of the same shapes."""
    from xcit_hub.hub.locate import locate

    try:
        source, digest = locate(NAME).fetch()
    except XcitHubError as error:
        console.print(f"   [yellow]No hub can be reached ({error.what})[/]")
        console.print(
            "   [yellow]SEEDED RANDOM WEIGHTS of the same architecture take their place:[/] conversion, proof, "
            "publication and loading are as real; [yellow]the classes at the end mean nothing.[/]"
        )
        return random_weights(folder / f"{NAME}.safetensors"), False
    console.print(f"   {source.stat().st_size:,} bytes, sha256 {digest[:16]}…")
    return source, True


def random_weights(path: Path) -> Path:
    """Write a file as timm's hub would hold it: timm's names, every parameter and statistic random, seed 0."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model(NAME.partition(".")[0]).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point():
                tensor.add_(0.05 * torch.randn_like(tensor))
    save_file(model.state_dict(), path)
    return path


def show_parity(checkpoint_file: Path) -> None:
    """Compute logits with both frameworks, print the first of each, and fail unless they agree."""
    import mindspore
    import torch

    from xcit_hub.checkpoints.weights import load
    from xcit_hub.parity import Reference, random_images, torch_network

    weights = load(checkpoint_file)
    ours = xcit_hub.load(str(checkpoint_file))
    theirs = torch_network(weights.arrays(), weights.architecture, weights.dialect)
    images = random_images(2, 3, 224, 224)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images)).numpy()
    found = ours(mindspore.Tensor(images)).asnumpy()
    table = Table("  logits", *map(str, range(5)), box=None, padding=(0, 2), header_style="dim")
    table.add_row("  PyTorch", *(f"{value:+.6f}" for value in expected[0, :5]))
    table.add_row("  MindSpore", *(f"{value:+.6f}" for value in found[0, :5]))
    console.print(table)
    (check,) = Reference(theirs, images).check({"logits": found})
    console.print(
        f"   all {expected.size:,} logits: distance from float64 {check.error:.1e}, PyTorch's own "
        f"{check.pytorch_error:.1e} (tolerance {check.bar:.1e}); publishing compares every block as well"
    )
    if not check.passed:
        raise XcitHubError("The two networks do not agree.", fix="This is a fault of ours: report it.")


def card_yaml(folder: Path, is_published: bool) -> Path:
    """Write what only the author knows; here, where the weights are from."""
    entry = checkpoint(NAME)
    origin = f"from {entry.repository}" if is_published else "seeded random numbers, of no use but for this demo"
    fields = {
        "author": "xcit-hub's demo",
        "summary": f"XCiT tiny, 12 layers, {origin}.",
        "base_model": [entry.repository] if is_published else [],
    }
    path = folder / "card.yaml"
    path.write_text(json.dumps(fields), encoding="utf-8")  # JSON is YAML
    return path


def classify(network: Any, is_published: bool) -> None:
    """Show the network a photograph that scikit-image ships, and print its five best classes."""
    import mindspore
    import skimage.data
    from PIL import Image

    photograph = Image.fromarray(skimage.data.coffee())
    image = xcit_hub.preprocess(network.config)(photograph)
    logits = network(mindspore.Tensor(image[None])).asnumpy()[0].astype(np.float64)
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    console.print(f"   a cup of coffee, {photograph.width}×{photograph.height} pixels (scikit-image)")
    table = Table("  class", "share", box=None, padding=(0, 2), header_style="dim")
    for index in np.argsort(-logits)[:5]:
        table.add_row(f"  {network.config.labels[index]}", f"{shares[index]:.1%}")
    console.print(table)
    if not is_published:
        console.print("   [yellow]random weights: these names show that the labels travel, nothing else[/]")


def show_times(total: float) -> None:
    """Print how long each stage took."""
    table = Table("stage", "seconds", title="Done", title_style="bold green", title_justify="left")
    table.columns[1].justify = "right"
    for title, seconds in times:
        table.add_row(title, f"{seconds:.1f}")
    table.add_section()
    table.add_row("all", f"{total:.1f}")
    console.print(table)


if __name__ == "__main__":
    code = 0
    try:
        main()
    except XcitHubError as error:
        console.print(f"error: {error}", style="red", markup=False)
        code = 1
    sys.stdout.flush()
    # MindSpore's cells print when the interpreter takes them down in its own order.
    os._exit(code)
