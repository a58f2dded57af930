"""What is measured: a case, and a contender who does its work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from xcit_hub import variants
from xcit_hub.variants import Architecture

Work = Literal["inference", "training", "evaluation"]

# Does the work of a case once and returns how many images (files, loads) went through.
Step = Callable[[], int]


@dataclass(frozen=True)
class Case:
    """What all contenders of one comparison do.

    Args:
        model: an architecture's name.
        work: forward, a training step, or for the input pipeline what its images are for.
        batch: images a call of a network, or a batch of the input pipeline.
        height, width: of the network's input in pixels.
        workers: processes that decode images.
        folder: where the suite's prepared files lie.
        depth: cross-covariance blocks, if others than the model's; 0 otherwise.
        cores: which the contender's process may use, at most; 0 for all.
    """

    model: str
    work: Work = "inference"
    batch: int = 1
    height: int = 224
    width: int = 224
    workers: int = 1
    folder: str = ""
    depth: int = 0
    cores: int = 0

    @property
    def architecture(self) -> Architecture:
        """What the network is built of."""
        own = variants.architecture(self.model)
        return replace(own, depth=self.depth) if self.depth else own


class NotHereError(Exception):
    """A contender that this machine cannot run, with the reason in words."""


@dataclass(frozen=True)
class Contender:
    """Somebody who can do the work.

    Args:
        build: makes everything ready and returns the step that is timed. Runs in the contender's own process.
        flops: floating-point operations of one step, where they are known.
        programs_of: the libraries that a step uses which is a program of its own, and whose memory is that program's;
            None where a step runs in the contender's process.
    """

    build: Callable[[Case], Step]
    flops: Callable[[Case], int] | None = None
    programs_of: tuple[str, ...] | None = None
