"""From the start of a process to a network with weights, imports included; everything is on disk.

Four ways to the same seeded random weights: :func:`xcit_hub.load` by an id, offline, from huggingface_hub's cache (hash
checked, strict); the same from a folder hub; MindSpore's own ``load_checkpoint``, which builds no network; timm from
the same cache.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.case import Case, Contender, NotHereError, Step
from benchmarks.programs import python

MINDSPORE_LOAD = "mindspore.load_checkpoint"
TIMM_LOAD = "timm.create_model"

_NAME = "bench/model"
_HUB = "hub"  # a folder hub, in the layout of huggingface_hub's cache as well
_PLAIN = "plain.safetensors"


def prepare(case: Case) -> None:
    """Publish random weights, and keep them under MindSpore's own names, so that nothing has to be translated."""
    import xcit_hub
    from xcit_hub.checkpoints import checkpoint
    from xcit_hub.checkpoints.rewrite import rewrite
    from xcit_hub.parameters import parameter_shapes
    from xcit_hub.parity import random_weights
    from xcit_hub.variants import architecture

    folder = Path(case.folder)
    ours = folder / "ours.safetensors"
    marks = {"xcit_hub.architecture": case.model, "xcit_hub.dialect": "paper"}
    checkpoint.write(ours, random_weights(parameter_shapes(architecture(case.model))), marks)
    xcit_hub.publish(ours, _NAME, to=folder / _HUB, parity=False)
    rewrite(ours, folder / _PLAIN, to="xcit-hub")


def load(case: Case, *, program: str) -> Step:
    """Run a program that loads and then ends at once: what a library takes down when it ends is not counted."""
    library = program.split()[1].rstrip(";")
    if find_spec(library) is None:
        raise NotHereError(f"not installed (pip install 'xcit-hub[{library}]')")
    return python("-c", f"{program}; import os; os._exit(0)", folder=case.folder)


LOADERS: dict[str, Contender] = {
    MINDSPORE_LOAD: Contender(
        partial(load, program=f"import mindspore; mindspore.load_checkpoint('{_PLAIN}', format='safetensors')"),
        programs_of=("mindspore",),
    ),
    TIMM_LOAD: Contender(
        partial(load, program=f"import timm; timm.create_model('hf-hub:{_NAME}', pretrained=True, cache_dir='{_HUB}')"),
        programs_of=("timm", "torch"),
    ),
    "xcit_hub.load, by id": Contender(
        partial(load, program=f"import xcit_hub; xcit_hub.load('hf://{_NAME}', cache_dir='{_HUB}', offline=True)"),
        programs_of=("mindspore",),
    ),
    "xcit_hub.load, folder hub": Contender(
        partial(load, program=f"import xcit_hub; xcit_hub.load('{_NAME}', hub='{_HUB}')"), programs_of=("mindspore",)
    ),
}
