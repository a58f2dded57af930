"""Evaluation while a run trains, and how a network answers."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn
from numpy.typing import NDArray

from xcit_hub.data.batches import Worker
from xcit_hub.data.mixing import Images
from xcit_hub.data.oversampling import averaged
from xcit_hub.errors import some
from xcit_hub.models import XCiT, load_weights
from xcit_hub.training import device
from xcit_hub.training.evaluation import Answer, Evaluation, evaluate
from xcit_hub.training.inputs import eval_data, left_out, match_classes
from xcit_hub.training.journal import Journal
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.start import Weights, evaluation_network


def answer_of(network: nn.Cell) -> Answer:
    """Return the function that maps images to a network's logits, float32."""

    def answer(images: Images) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = network(Tensor(images)).asnumpy().astype(np.float32)
        return logits

    return answer


def shown_views(answer: Answer, recipe: Recipe) -> Answer:
    """Return ``answer`` to the views of an image that the recipe evaluates."""
    return averaged(answer, recipe.tta) if recipe.tta else answer


class Scorer:
    """Evaluates weights in a network of their own, whose graph is compiled once.

    Attributes:
        notes: what the user should know about the evaluation split.
    """

    def __init__(self, recipe: Recipe, like: XCiT, worker: Worker, classes: list[str]) -> None:
        self.recipe = recipe
        self.worker = worker
        self.batches = eval_data(recipe, worker)
        missing = match_classes(self.batches.source, like.num_classes, classes, whose="the training data")
        self.notes = [f"not evaluated, as {recipe.val_split} has no image of them: {some(missing)}"] if missing else []
        self.notes += left_out(self.batches.source, recipe.val_split)
        self.network = evaluation_network(
            recipe.model,
            like.num_classes,
            like.dialect.name,
            recipe.val_amp_level,
            recipe.amp_dtype,
            channels=recipe.in_channels,
        )
        device.compile_at(self.network, recipe)

    def __call__(self, arrays: Weights, journal: Journal) -> Evaluation:
        """Evaluate weights, by our names."""
        load_weights(self.network, arrays)
        scored = evaluate(
            shown_views(answer_of(self.network), self.recipe),
            self.batches,
            outputs=self.network.num_classes,
            worker=self.worker,
            max_corrupt=self.recipe.max_corrupt,
        )
        for name in scored.unreadable:
            journal.say(f"cannot be read, not evaluated: {name}")
        return scored
