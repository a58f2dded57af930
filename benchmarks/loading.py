"""From the first line of a fresh process to a network with weights, imports included; everything is on disk.

Four ways to the same seeded random weights: :func:`xcit_hub.load` by an id, offline, from huggingface_hub's cache (hash
checked, strict); the same from a folder hub; MindSpore's own ``load_checkpoint`` into a ready network, whose building
is not counted; timm from the same cache.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import clock
from benchmarks.case import Case, Contender, NotHereError, Step

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


def load_by_id(case: Case) -> Step:
    """Load by an id from huggingface_hub's cache."""

    def step() -> int:
        import xcit_hub

        xcit_hub.load(f"hf://{_NAME}", cache_dir=Path(case.folder) / _HUB, offline=True)
        return 1

    return step


def load_from_folder(case: Case) -> Step:
    """Load from a folder hub."""

    def step() -> int:
        import xcit_hub

        xcit_hub.load(_NAME, hub=Path(case.folder) / _HUB)
        return 1

    return step


def load_with_mindspore(case: Case) -> Step:
    """Load with MindSpore alone into a ready network."""

    def step() -> int:
        import mindspore

        with clock.paused():
            from xcit_hub.models import create_model

            network = create_model(case.model, init=False)
        weights = mindspore.load_checkpoint(str(Path(case.folder) / _PLAIN), format="safetensors")
        mindspore.load_param_into_net(network, weights)
        return 1

    return step


def load_with_timm(case: Case) -> Step:
    """Load with timm from huggingface_hub's cache."""

    def step() -> int:
        try:
            import timm
        except ImportError as error:
            raise NotHereError("not installed (pip install 'xcit-hub[timm]')") from error
        timm.create_model(f"hf-hub:{_NAME}", pretrained=True, cache_dir=Path(case.folder) / _HUB)
        return 1

    return step


LOADERS: dict[str, Contender] = {
    MINDSPORE_LOAD: Contender(load_with_mindspore),
    TIMM_LOAD: Contender(load_with_timm),
    "xcit_hub.load, by id": Contender(load_by_id),
    "xcit_hub.load, folder hub": Contender(load_from_folder),
}
