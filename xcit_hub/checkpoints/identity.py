"""What a checkpoint's network was found to be: the result of the step *identify*."""

from __future__ import annotations

from dataclasses import dataclass

from xcit_hub.checkpoints.families import Kind, Layout, shapes_of
from xcit_hub.parameters import Shape
from xcit_hub.variants import Architecture, Family


@dataclass(frozen=True)
class Identity:
    """What the names and shapes of a network's tensors say it is.

    Args:
        layout: whose names and layout these are. MindSpore's are "mindcv" here: names alone do not tell MindCV's from
            ours.
        notes: what had to be assumed, in sentences.
        assumed: whether the architecture was chosen between two of the same parameters.
        head_untrained: whether the classifier is random numbers.
        unused: those of the notes that say which settings of its trainer were not used.
    """

    layout: Layout
    architecture: Architecture
    kind: Kind
    num_classes: int
    in_chans: int
    notes: tuple[str, ...]
    assumed: bool = False
    head_untrained: bool = False
    unused: tuple[str, ...] = ()

    @property
    def naming(self) -> Family:
        """Whose names these are."""
        return self.layout.family

    @property
    def shapes(self) -> dict[str, Shape]:
        """The names, ours, and shapes that the whole network has to have."""
        return shapes_of(self.architecture, self.kind, self.num_classes, self.in_chans)
