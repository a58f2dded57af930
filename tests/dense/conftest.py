"""Small segmenters: a twin in PyTorch of random weights, and its file as mmsegmentation writes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from dense_twin import NAMES, SMALL, EncoderDecoder, Files, Twins, published, randomised

from xcit_hub.segmenters import HeadKind, Segmenter


@pytest.fixture(scope="session")
def twin() -> Twins:
    """Return the twin of a patch size and a head, always the same one."""
    made: dict[tuple[int, HeadKind], EncoderDecoder] = {}

    def make(patch: int, head: HeadKind) -> EncoderDecoder:
        if (patch, head) not in made:
            segmenter = Segmenter(head, 7, 32, 40 if head == "sem_fpn" else 0)
            made[patch, head] = randomised(EncoderDecoder(SMALL[patch], segmenter, auxiliary=16))
        return made[patch, head]

    return make


@pytest.fixture(scope="session")
def file(twin: Twins, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Return the file of a twin."""
    folder = tmp_path_factory.mktemp("segmenters")

    def make(patch: int, head: HeadKind) -> Path:
        path = folder / f"{head}_{patch}.pth"
        return path if path.exists() else published(twin(patch, head), path, NAMES)

    return make
