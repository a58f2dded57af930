"""The three file formats: each module reads a mapped file into named tensors and writes them to a stream.

``kinds.py`` tells by the first bytes which of them a file is, and what else it is where it is none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xcit_hub.checkpoints.tensor import StoredTensor


@dataclass
class Content:
    """What a file holds.

    Args:
        tensors: name → tensor, in the file's order; a nested one is named by its path (``model.cls_token``).
        metadata: the strings beside them.
        values: the names of everything else that is there: numbers, settings, states of random generators.
        numbers: those of the values that are one number or truth value → that value.
        packed_with: the names of other files of the zip that it was packed in.
    """

    tensors: dict[str, StoredTensor]
    metadata: dict[str, str] = field(default_factory=dict)
    values: list[str] = field(default_factory=list)
    numbers: dict[str, bool | int | float] = field(default_factory=dict)
    packed_with: list[str] = field(default_factory=list)
