"""Conversions of a whole file beside copying and hashing it, and beside MindSpore's own functions.

Imports are done before the clock starts. Our conversions end with the result on the disk (fsync) and hash both source
and target; ``cp`` and MindSpore do neither, "cp and sha256" reads the file a second time to hash it.
"""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.case import Case, Contender, Step
from xcit_hub.variants import Family

COPY_AND_HASH = "cp and sha256"
MINDSPORE_FILES = "mindspore load_checkpoint + save_checkpoint"

_TIMM = "timm.safetensors"
_OURS = "ours.ckpt"
_FACEBOOK = "facebook.pth"


def prepare(case: Case) -> None:
    """Write a network's random weights in three formats."""
    from xcit_hub.checkpoints import checkpoint, translate
    from xcit_hub.checkpoints.checkpoint import StoredTensor
    from xcit_hub.checkpoints.rewrite import rewrite
    from xcit_hub.parameters import parameter_shapes
    from xcit_hub.variants import architecture

    folder = Path(case.folder)
    generator = np.random.default_rng(0)
    weights = {
        # Positive numbers: a variance may not be negative.
        name: StoredTensor.of(np.abs(generator.standard_normal(shape, np.float32)) * np.float32(0.02))
        for name, shape in parameter_shapes(architecture(case.model)).items()
    }
    checkpoint.write(folder / _TIMM, translate.from_ours(weights, "timm"), {"format": "pt"})
    rewrite(folder / _TIMM, folder / _OURS)
    checkpoint.write(folder / _FACEBOOK, translate.from_ours(weights, "facebook"))


def conversion(case: Case, *, source: str, target: str, to: Family) -> Step:
    """Convert with our converter."""
    from xcit_hub.checkpoints.rewrite import rewrite

    folder = _emptied(case)

    def step() -> int:
        rewrite(folder / source, folder / target, to=to)
        return 1

    return step


def copy(case: Case, *, synced: bool = False, hashed: bool = False) -> Step:
    """Copy the file with ``cp``."""
    from xcit_hub.files import sha256_of

    folder = _emptied(case)

    def step() -> int:
        target = folder / "out.copy"
        subprocess.run(["cp", folder / _TIMM, target], check=True)  # the user's own cp
        if synced:
            with target.open("rb") as stream:
                os.fsync(stream.fileno())
        if hashed:
            sha256_of(folder / _TIMM)
        return 1

    return step


def mindspore_files(case: Case) -> Step:
    """Load and save with MindSpore."""
    import mindspore

    folder = _emptied(case)

    def step() -> int:
        mindspore.save_checkpoint(mindspore.load_checkpoint(str(folder / _OURS)), str(folder / "out.ckpt"))
        return 1

    return step


def _emptied(case: Case) -> Path:
    folder = Path(case.folder)
    for earlier in folder.glob("out*"):
        earlier.unlink()
    return folder


CONVERTERS: dict[str, Contender] = {
    "cp": Contender(copy),
    "cp, fsync": Contender(partial(copy, synced=True)),
    COPY_AND_HASH: Contender(partial(copy, hashed=True)),
    MINDSPORE_FILES: Contender(mindspore_files),
    ".safetensors (timm) → .safetensors": Contender(
        partial(conversion, source=_TIMM, target="out.safetensors", to="xcit-hub")
    ),
    ".safetensors (timm) → .ckpt": Contender(partial(conversion, source=_TIMM, target="out.ckpt", to="xcit-hub")),
    ".ckpt → .safetensors (timm)": Contender(partial(conversion, source=_OURS, target="out.safetensors", to="timm")),
    ".pth (facebook) → .safetensors": Contender(
        partial(conversion, source=_FACEBOOK, target="out.safetensors", to="xcit-hub")
    ),
}
