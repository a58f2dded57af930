"""What a command costs before and after its work: from its start to the prompt, imports included."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.case import Case, Contender, Step
from benchmarks.programs import python

PYTHON = "python alone"

_SMALL = "small.safetensors"
_COMMAND = ("-c", "from xcit_hub.cli import main; main()")


def prepare(case: Case) -> None:
    """Write weights of almost no size."""
    from xcit_hub.checkpoints import checkpoint, translate
    from xcit_hub.checkpoints.checkpoint import StoredTensor
    from xcit_hub.parameters import parameter_shapes
    from xcit_hub.variants import Architecture

    small = Architecture("small", 8, 16, 1, 2, 1.0, True, 224)
    zeros = {name: StoredTensor.of(np.zeros(shape, np.float32)) for name, shape in parameter_shapes(small).items()}
    checkpoint.write(Path(case.folder) / _SMALL, translate.from_ours(zeros, "timm"))


def command(case: Case, *, arguments: tuple[str, ...]) -> Step:
    """Run Python with arguments in the case's folder."""
    return python(*arguments, folder=case.folder)


STARTERS: dict[str, Contender] = {
    PYTHON: Contender(partial(command, arguments=("-c", "pass")), programs_of=()),
    "xcit-hub --version": Contender(partial(command, arguments=(*_COMMAND, "--version")), programs_of=("numpy",)),
    "xcit-hub list": Contender(partial(command, arguments=(*_COMMAND, "list")), programs_of=("numpy",)),
    "timm2ms of almost nothing": Contender(
        partial(command, arguments=("-m", "converters.timm2ms", _SMALL, "out.ckpt", "--no-verify")),
        programs_of=("numpy",),
    ),
}
