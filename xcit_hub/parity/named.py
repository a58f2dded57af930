"""The proof of what a user names: an architecture on random weights, or a file's own weights."""

from __future__ import annotations

from dataclasses import replace

from xcit_hub import variants
from xcit_hub.checkpoints.weights import load
from xcit_hub.files import is_there
from xcit_hub.parity.networks import Dtype, verify_random, verify_weights
from xcit_hub.parity.result import ParityResult
from xcit_hub.parity.rule import Stage
from xcit_hub.variants import DialectName

_SIDE = 64  # of architectures: random weights show a fault at any size


def is_file(name: str) -> bool:
    """Whether a name is that of a file, and of no architecture or published checkpoint."""
    return name not in variants.ARCHITECTURES and name not in variants.CHECKPOINTS and is_there(name)


def verify(
    name: str,
    dialect: DialectName | None = None,
    *,
    image_size: int | None = None,
    gradients: bool = False,
    dtype: Dtype = "float32",
    stage: Stage = lambda _: None,
) -> ParityResult:
    """Compare both networks of an architecture, on random weights, or of a file, on its own; the result says which.

    Args:
        name: an architecture's or published checkpoint's, whose weights are not fetched, or a file.
        dialect: of an architecture paper by default, of a published checkpoint its own; files know theirs.
        image_size: side of the input in pixels; 64 of architectures, a file's own of files.
        gradients, dtype, stage: as for :func:`verify_weights`.

    Raises:
        UnknownNameError: there is no such architecture.
        CheckpointError, WeightsError: the file is not one XCiT's weights, or nothing tells its dialect.
        XcitHubError: the ``timm`` extra is not installed, or MindSpore cannot compute in this dtype here.
    """
    if not is_file(name):
        published = variants.CHECKPOINTS.get(name)
        dialect = dialect or (published.dialect if published else "paper")
        return verify_random(
            name, dialect, image_size=image_size or _SIDE, gradients=gradients, dtype=dtype, stage=stage
        )
    weights = load(name, dialect=dialect)
    found = verify_weights(
        weights.arrays(),
        weights.architecture,
        weights.dialect,
        num_classes=weights.num_classes,
        in_chans=weights.in_chans,
        global_pool=weights.global_pool,
        image_size=image_size,
        gradients=gradients,
        dtype=dtype,
        stage=stage,
    )
    return replace(
        found, notes=tuple(weights.notes), weights=f"{weights.file.path.name}, SHA-256 {weights.file.sha256}"
    )
