"""What narrow numbers cost in accuracy: trained, exported or fused as users do it, beside float32 on unseen images.

    python -m benchmarks.int8 [--keep FOLDER] [--json FILE]

Two sets of small images, each in five folds: handwritten digits of scikit-learn, and tiles cut from photographs of
scikit-image, to be told by the photograph. A network is trained on four fifths (timm's xcit_nano_12_p8_224 at 32 × 32
pixels), exported in float32 and, calibrated on 128 of its training images, in int8, and both files classify the last
fifth under every runtime. So does the checkpoint's fused network, in float32, bfloat16 and int8, where the processor
has them; it is not calibrated. Prints Markdown. It takes some 20 minutes on two cores; ``--keep`` holds what was
trained.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from xcit_hub.files import write_text

if TYPE_CHECKING:
    from xcit_hub.accelerated.fused import FusedDtype

MODEL = "xcit_nano_12_p8_224"
SIDE = 32
CALIBRATION = 128
RUNTIMES = ("onnxruntime", "openvino")
FUSED = "xcit-hub, fused"
_MEAN, _STD = 0.45, 0.225
_EPOCHS, _BATCH, _RATE = 12, 64, 1.5e-3
_PHOTOGRAPHS = (
    *("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "hubble_deep_field"),
    *("immunohistochemistry", "rocket"),
)

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


def digits() -> tuple[Images, Labels]:
    """1,797 handwritten digits of 8 × 8 pixels, made larger: (N, 32, 32) and their classes."""
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    small = np.rint(found.images * (255 / 16)).astype(np.uint8)
    large = [np.asarray(Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for each in small]
    return np.stack(large), found.target.astype(np.int64)


def tiles() -> tuple[Images, Labels]:
    """Tiles of ten photographs that do not overlap, grey, at most 120 of each: (N, 32, 32) and which photograph."""
    from PIL import Image
    from skimage import data

    images, labels = [], []
    for label, name in enumerate(_PHOTOGRAPHS):
        photograph = np.asarray(Image.fromarray(getattr(data, name)()).convert("L"))
        rows, columns = (side // SIDE for side in photograph.shape)
        cut = photograph[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE).swapaxes(1, 2)
        chosen = np.random.default_rng(label).permutation(rows * columns)[:120]
        images.append(cut.reshape(-1, SIDE, SIDE)[chosen])
        labels.append(np.full(len(chosen), label))
    return np.concatenate(images), np.concatenate(labels)


DATA: dict[str, Callable[[], tuple[Images, Labels]]] = {"digits": digits, "tiles": tiles}


@dataclass
class Outcome:
    """What one set of images gave.

    Args:
        sizes: bytes of the two files of the last fold, by precision.
        right: (runtime, precision) → of every test image, over all folds, whether it was classified rightly.
    """

    name: str
    sizes: dict[str, int] = field(default_factory=dict)
    right: dict[tuple[str, str], list[bool]] = field(default_factory=dict)

    def count(self, runtime: str, precision: str, right: NDArray[np.bool_]) -> None:
        """Add a fold's answers."""
        self.right.setdefault((runtime, precision), []).extend(map(bool, right))

    def top1(self, runtime: str, precision: str) -> float:
        """Per cent of all test images."""
        return 100 * float(np.mean(self.right[runtime, precision]))

    def loss(self, runtime: str, precision: str) -> tuple[float, float, float]:
        """Points of top-1 that a precision loses to float32, and their interval."""
        return loss_interval(self.right[runtime, "float32"], self.right[runtime, precision])

    @property
    def narrow(self) -> list[tuple[str, str]]:
        """Who was measured in which narrow precision."""
        return [each for each in self.right if each[1] != "float32"]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "data": self.name,
            "images": len(self.right[RUNTIMES[0], "int8"]),
            "bytes": self.sizes,
            "top1": {f"{runtime} {precision}": self.top1(runtime, precision) for runtime, precision in self.right},
            "loss": {f"{runtime} {precision}": self.loss(runtime, precision) for runtime, precision in self.narrow},
        }


def loss_interval(before: list[bool], after: list[bool]) -> tuple[float, float, float]:
    """Points lost from one classifier to another on the same images, with the 95 % interval of paired proportions.

    Agresti and Min (2005): half an image is added to each of the four cells, so that an interval never has no width.

    Returns:
        loss, lower end, upper end, in percentage points.
    """
    one, other = np.asarray(before), np.asarray(after)
    lost, won = float((one & ~other).sum()) + 0.5, float((other & ~one).sum()) + 0.5
    count = len(one) + 2
    middle = (lost - won) / count
    half = 1.959964 * math.sqrt(lost + won - (lost - won) ** 2 / count) / count
    return 100 * float(one.mean() - other.mean()), 100 * (middle - half), 100 * (middle + half)


def folds(images: Images, labels: Labels, count: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield the training and the test images' indices of each fold, every class in its share."""
    from sklearn.model_selection import StratifiedKFold

    yield from StratifiedKFold(count, shuffle=True, random_state=0).split(images, labels)


def train(images: Images, labels: Labels, target: Path, *, seed: int, epochs: int = _EPOCHS) -> None:
    """Train timm's network on grey images and write it as a checkpoint that says how its images are prepared."""
    import timm
    import torch
    from safetensors.torch import save_file

    from xcit_hub.checkpoints.strings import PREPROCESSING
    from xcit_hub.hub import metadata
    from xcit_hub.variants import Preprocessing

    torch.manual_seed(seed)
    order = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    network = timm.create_model(MODEL, num_classes=classes)
    optimizer = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=0.05)
    steps = len(labels) // _BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=epochs * steps)
    x, y = torch.from_numpy(prepared(images)), torch.from_numpy(labels)
    network.train()
    for _ in range(epochs):
        for chosen in order.permutation(len(labels))[: steps * _BATCH].reshape(steps, _BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x[chosen]), y[chosen]).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    preprocessing = Preprocessing(SIDE, crop_pct=1.0, mean=(_MEAN,) * 3, std=(_STD,) * 3)
    marks = {
        "xcit_hub.architecture": MODEL,
        "xcit_hub.dialect": "paper",
        PREPROCESSING: metadata.preprocessing_to_metadata(preprocessing, 3),
    }
    save_file(network.state_dict(), target, marks)


def prepared(images: Images) -> NDArray[np.float32]:
    """Grey images (N, H, W) as the network takes them, (N, 3, H, W)."""
    pixels = ((images / np.float32(255)) - np.float32(_MEAN)) / np.float32(_STD)
    return np.repeat(pixels[:, None], 3, axis=1)


def exported(checkpoint: Path, images: Images, folder: Path) -> dict[str, Path]:
    """Export a checkpoint in float32, proven, and in int8, calibrated on the images."""
    from PIL import Image

    from xcit_hub.deploy import export

    calibration = folder / "calibration"
    calibration.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).convert("RGB").save(calibration / f"{number:03}.png")
    return {
        "float32": export(checkpoint, folder / "float32.onnx").files[0],
        "int8": export(checkpoint, folder / "int8.onnx", int8=calibration).files[0],
    }


def fused(checkpoint: Path) -> dict[str, Any]:
    """Load a checkpoint's fused network in every precision that this processor multiplies."""
    import xcit_hub
    from xcit_hub.accelerated.build import extension_absence

    network = xcit_hub.load(str(checkpoint))
    wanted: tuple[FusedDtype, ...] = ("float32", "bfloat16", "int8")
    return {dtype: network.fuse(dtype) for dtype in wanted if dtype == "float32" or not extension_absence(dtype)}


def measure(name: str, *, count: int = 5, keep: Path | None = None, epochs: int = _EPOCHS) -> Outcome:
    """Train, export, fuse and classify all folds of a set of images.

    Args:
        keep: where trained checkpoints are, or will be; by default they are forgotten.
    """
    import mindspore

    from xcit_hub.exporters import runtimes

    images, labels = DATA[name]()
    outcome = Outcome(name)
    for fold, (seen, unseen) in enumerate(folds(images, labels, count)):
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint = (keep or Path(scratch)) / f"{name}-{fold}.safetensors"
            if not checkpoint.exists():
                train(images[seen], labels[seen], checkpoint, seed=fold, epochs=epochs)
            chosen = np.random.default_rng(fold).permutation(seen)[:CALIBRATION]
            for precision, file in exported(checkpoint, images[chosen], Path(scratch)).items():
                outcome.sizes[precision] = file.stat().st_size
                for runtime in RUNTIMES:
                    logits = runtimes.run(runtime, file, [prepared(images[unseen])])[0]["logits"]
                    outcome.count(runtime, precision, logits.argmax(-1) == labels[unseen])
            for precision, network in fused(checkpoint).items():
                logits = network(mindspore.Tensor(prepared(images[unseen]))).asnumpy()
                outcome.count(FUSED, precision, logits.argmax(-1) == labels[unseen])
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as a Markdown table."""
    lines = [
        "| images | runtime | in | top-1 float32 | top-1 | loss, points (95 % interval) | bytes float32 | bytes |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for each in outcomes:
        for runtime, precision in each.narrow:
            loss, low, high = each.loss(runtime, precision)
            count = len(each.right[runtime, precision])
            sizes = [f"{each.sizes[kind]:,}" if runtime in RUNTIMES else "" for kind in ("float32", "int8")]
            lines.append(
                f"| {each.name}, {count:,} | {runtime} | {precision} | {each.top1(runtime, 'float32'):.2f} "
                f"| {each.top1(runtime, precision):.2f} | {loss:.2f} ({low:.2f} to {high:.2f}) | {' | '.join(sizes)} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", choices=list(DATA), help="only this set; may be repeated")
    parser.add_argument("--keep", type=Path, help="a folder for what is trained; what is there is not trained again")
    parser.add_argument("--json", type=Path, help="also write the figures")
    asked = parser.parse_args()
    if asked.keep is not None:
        asked.keep.mkdir(parents=True, exist_ok=True)
    outcomes = [measure(name, keep=asked.keep) for name in asked.data or DATA]
    print(
        f"{', '.join(f'{runtime} {version(runtime)}' for runtime in RUNTIMES)}, {machine.description()['processor']}\n"
    )
    print(table(outcomes))
    if asked.json is not None:
        record = {"machine": machine.description(), "outcomes": [each.as_dict() for each in outcomes]}
        write_text(asked.json, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
