"""Every suite in one table: who competes, what is compared, in which unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import converting, deploying, feeding, loading, predicting, starting
from benchmarks.case import Case, Contender, Work
from benchmarks.converting import CONVERTERS, COPY_AND_HASH, MINDSPORE_FILES
from benchmarks.deploying import EXPORTED
from benchmarks.feeding import FEEDERS, TIMM_LOADER
from benchmarks.growth import QUANTITIES, cases_around
from benchmarks.loading import LOADERS, MINDSPORE_LOAD, TIMM_LOAD
from benchmarks.networks import (
    FUSED,
    FUSED_BFLOAT16,
    FUSED_INT8,
    LIMITS,
    MINDCV,
    NETWORKS,
    OURS,
    PYNATIVE,
    TIMM,
    TIMM_COMPILED,
    UNCOMPILED,
)
from benchmarks.predicting import APART, PREDICTORS
from benchmarks.starting import PYTHON, STARTERS
from xcit_hub import variants
from xcit_hub.errors import InputError, UnknownNameError, closest

_DEFAULT_MODEL = "xcit_tiny_12_p16_224"
_SCALING_SIDES = (224, 448, 896, 1344, 1792)


@dataclass(frozen=True)
class Unit:
    """How a suite says its figures.

    Args:
        name: of the column.
        of: the figure from seconds an image (a file, a load).
    """

    name: str
    of: Callable[[float], float]


MILLISECONDS = Unit("ms/image", lambda seconds: 1e3 * seconds)
SECONDS = Unit("seconds", lambda seconds: seconds)
RATE = Unit("images/s", lambda seconds: 1 / seconds)


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; what was left out is the suite's own choice.

    Args:
        sizes: (height, width) of the images in pixels.
        photographs: a folder of class folders for the input pipeline.
    """

    models: Sequence[str] = ()
    works: Sequence[str] = ()
    batches: Sequence[int] = ()
    sizes: Sequence[tuple[int, int]] = ()
    workers: Sequence[int] = ()
    photographs: Path | None = None


@dataclass(frozen=True)
class Suite:
    """One kind of comparison.

    Args:
        explanation: a sentence for the help and the table.
        contenders: by name, in the table's order.
        references: those whom the others are compared with, the first one before all.
        models, batches, sizes, workers, works: what is measured by default; without sizes each model's own.
        fresh: each round starts a new process and measures its first step.
        warm_up: a first round that does not count.
        unit: of the table's figures.
        prepare: makes the files that the contenders need in the case's folder.
        environment: of the contenders' processes, beside the user's.
        scales: time and memory are fitted to powers of these of :data:`benchmarks.growth.QUANTITIES`; with several,
            each is varied around a model, by :func:`benchmarks.growth.cases_around`.
    """

    explanation: str
    contenders: Mapping[str, Contender]
    references: tuple[str, ...]
    models: tuple[str, ...] = (_DEFAULT_MODEL,)
    batches: tuple[int, ...] = (1,)
    sizes: tuple[tuple[int, int], ...] = ()
    workers: tuple[int, ...] = (1,)
    works: tuple[Work, ...] = ("inference",)
    fresh: bool = False
    warm_up: bool = True
    unit: Unit = MILLISECONDS
    prepare: Callable[[Case], None] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    scales: tuple[str, ...] = ()

    def cases(self, wanted: Wanted, folder: Path) -> list[Case]:
        """Return what is to be compared; prepared files lie in a folder for each model in ``folder``.

        Raises:
            UnknownNameError: no such architecture.
            InputError: an image does not divide into patches, or there is no such work, or there are no photographs.
        """
        if wanted.photographs is not None and not wanted.photographs.is_dir():
            raise InputError("The folder of photographs does not exist.", where=wanted.photographs)
        for work in wanted.works:
            if work not in self.works:
                raise InputError(
                    f"This benchmark has no {work}.", where="--work", fix=f"It has: {', '.join(self.works)}."
                )
        cases = []
        for model in wanted.models or self.models:
            architecture = variants.architecture(model)
            place = wanted.photographs.resolve() if wanted.photographs else folder / architecture.name
            side = architecture.image_size
            for size in wanted.sizes:
                _check(size, architecture)
            base = Case(architecture.name, height=side, width=side, folder=str(place))
            if len(self.scales) > 1:
                cases += cases_around(base, wanted.sizes, wanted.batches)
                continue
            cases += [
                replace(base, height=height, width=width, batch=batch, workers=workers, work=work)
                for height, width in wanted.sizes or self.sizes or ((side, side),)
                for work in self.works
                if work in (wanted.works or self.works)
                for batch in wanted.batches or self.batches
                for workers in wanted.workers or self.workers
            ]
        return cases


def _check(size: tuple[int, int], architecture: variants.Architecture) -> None:
    patch = architecture.patch_size
    if min(size) < 1 or size[0] % patch or size[1] % patch:
        raise InputError(
            f"An image of {size[0]}×{size[1]} pixels does not divide into {architecture.name}'s patches.",
            where="--size",
            fix=f"Give multiples of {patch}.",
        )


def _some(*names: str) -> dict[str, Contender]:
    return {name: NETWORKS[name] for name in names}


SUITES: dict[str, Suite] = {
    "inference": Suite(
        "logits from images",
        {**NETWORKS, **LIMITS},
        (TIMM, TIMM_COMPILED, MINDCV, OURS),
        batches=(1, 16),
    ),
    "training": Suite(
        "one training step: forward, backward, AdamW",
        {**_some(TIMM, "timm, channels_last", TIMM_COMPILED, MINDCV, OURS, UNCOMPILED), **LIMITS},
        (TIMM, TIMM_COMPILED, MINDCV),
        batches=(16,),
        works=("training",),
    ),
    "compile": Suite(
        "the first call in a new process: compilation and one run",
        _some(MINDCV, TIMM_COMPILED, OURS, FUSED, UNCOMPILED),
        (MINDCV, TIMM_COMPILED),
        batches=(1,),
        works=("inference", "training"),
        fresh=True,
        warm_up=False,
        unit=SECONDS,
        environment={"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"},
    ),
    "load": Suite(
        "a cached model from the start of a process, imports included",
        LOADERS,
        (MINDSPORE_LOAD, TIMM_LOAD),
        unit=SECONDS,
        prepare=loading.prepare,
        environment={"HF_HUB_OFFLINE": "1"},
    ),
    "convert": Suite(
        "a checkpoint converted, in a new process, without its imports",
        CONVERTERS,
        (COPY_AND_HASH, MINDSPORE_FILES),
        models=("xcit_large_24_p8_224",),
        fresh=True,
        unit=SECONDS,
        prepare=converting.prepare,
    ),
    "start": Suite(
        "a command from its start to the prompt",
        STARTERS,
        (PYTHON,),
        unit=SECONDS,
        prepare=starting.prepare,
    ),
    "input": Suite(
        "photographs on disk become batches",
        FEEDERS,
        (TIMM_LOADER,),
        batches=(32,),
        workers=(1, 2),
        works=("evaluation", "training"),
        unit=RATE,
        prepare=feeding.prepare,
    ),
    "predict": Suite(
        "photographs on disk become classes, as `xcit-hub predict` makes them",
        PREDICTORS,
        (APART,),
        batches=(16,),
        unit=RATE,
        prepare=predicting.prepare,
    ),
    "deployment": Suite(
        "logits from an exported file, by the runtimes it is deployed with",
        {**_some(TIMM, TIMM_COMPILED, FUSED, FUSED_BFLOAT16, FUSED_INT8), **EXPORTED, **LIMITS},
        (TIMM, TIMM_COMPILED, FUSED),
        batches=(1, 16),
        prepare=deploying.prepare,
    ),
    "scaling": Suite(
        "time and memory against the number of tokens",
        {**_some(TIMM, OURS, FUSED, PYNATIVE), **LIMITS},
        (TIMM,),
        sizes=tuple((side, side) for side in _SCALING_SIDES),
        scales=("tokens",),
    ),
    "growth": Suite(
        "time and memory against tokens, batch, depth, width and cores, each alone",
        _some(TIMM, OURS, FUSED),
        (TIMM,),
        models=("xcit_nano_12_p16_224",),
        scales=tuple(QUANTITIES),
    ),
    "zoo": Suite(
        "every architecture at its own size",
        {**_some(TIMM, TIMM_COMPILED, OURS, FUSED), **LIMITS},
        (TIMM, TIMM_COMPILED),
        models=tuple(variants.ARCHITECTURES),
    ),
}


def suite(name: str) -> Suite:
    """Return a suite by its name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in SUITES:
        raise UnknownNameError(
            f"There is no benchmark called {name!r}.",
            fix=closest(name, SUITES) or f"Choose one of {', '.join(SUITES)}.",
        )
    return SUITES[name]
