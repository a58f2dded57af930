from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mindspore import Tensor
from torch_twin import arrays_of

from xcit_hub.checkpoints import checkpoint
from xcit_hub.errors import InputError, WeightsError
from xcit_hub.models import create_model
from xcit_hub.training.freezing import settle
from xcit_hub.training.recipe_file import load_recipe
from xcit_hub.training.step import TrainStep


def frozen(model: str, **settings: Any) -> tuple[Any, list[str]]:
    network = create_model(model, num_classes=3, seed=1, dialect="paper")
    return network, settle(network, load_recipe(None, {"model": model, **settings}))


@pytest.mark.parametrize(
    ("patterns", "trained"),
    [
        (["patch_embed"], lambda name: not name.startswith("patch_embed.")),
        (["blocks.*.attn"], lambda name: not (name.startswith("blocks.") and ".attn." in name)),
        (["blocks.0", "pos_embeder"], lambda name: not name.startswith(("blocks.0.", "pos_embeder."))),
        (["cls_token"], lambda name: name != "cls_token"),
        (["*.gamma?", "*.bias"], lambda name: not (name[:-1].endswith(".gamma") or name.endswith(".bias"))),
        (["[!h]*"], lambda name: name.startswith("head.")),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)
def test_what_a_pattern_names_is_not_trained_and_the_rest_is_counted(
    mini_architecture: str, patterns: list[str], trained: Any
) -> None:
    every = {
        parameter.name: parameter.size
        for parameter in create_model(mini_architecture, num_classes=3).trainable_params()
    }
    network, notes = frozen(mini_architecture, freeze=patterns)
    left = {parameter.name for parameter in network.trainable_params()}
    assert left == {name for name in every if trained(name)}
    assert left and left != set(every)
    assert notes[-1] == f"{sum(every[name] for name in left):,} of {sum(every.values()):,} parameters are trained"
    assert [note.split("'")[1] for note in notes[:-1]] == patterns


@pytest.mark.parametrize(
    ("patterns", "says", "fix"),
    [
        (["patch_embd"], "called 'patch_embd'", "patch_embed"),
        (["head", "blocks.7"], "called 'blocks.7'", "blocks"),
        (["pos_embed.*"], r"called 'pos_embed\.\*'", ""),  # timm's name, not MindCV's
        (["*.moving_mean"], "moving_mean", ""),  # which nothing trains
        (["*"], "no parameter is left", ""),
    ],
)
def test_a_pattern_that_freezes_nothing_or_everything_is_refused(
    mini_architecture: str, patterns: list[str], says: str, fix: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        frozen(mini_architecture, freeze=patterns)
    assert fix in str(caught.value)


def test_surgery_puts_in_a_patch_projection_and_freezes_it(mini_architecture: str, tmp_path: Path) -> None:
    other = create_model(mini_architecture, num_classes=5, seed=2, dialect="paper")
    for name, parameter in other.parameters_dict().items():
        if name.endswith(".moving_mean"):
            parameter.set_data(parameter + 0.5)
    path = tmp_path / "other.ckpt"
    metadata = {
        "xcit_hub.architecture": mini_architecture,
        "xcit_hub.dialect": "paper",
        "xcit_hub.family": "mindcv",
    }
    checkpoint.write(path, arrays_of(other), metadata)
    network, notes = frozen(mini_architecture, surgery=str(path))
    own, before = arrays_of(network), arrays_of(create_model(mini_architecture, num_classes=3, seed=1, dialect="paper"))
    for name, array in arrays_of(other).items():
        if name.startswith("patch_embed."):
            np.testing.assert_array_equal(own[name], array)
        elif not name.startswith("head."):
            np.testing.assert_array_equal(own[name], before[name])
    assert not any(parameter.name.startswith("patch_embed.") for parameter in network.trainable_params())
    assert notes[0] == f"the patch projection is that of {path}, and is not trained"
    assert "parameters are trained" in notes[-1]
    with pytest.raises(WeightsError, match="patch projection is another"):
        settle(
            create_model("xcit_tiny_12_p16_224", num_classes=3, init=False, dialect="paper"),
            load_recipe(None, {"model": "xcit_tiny_12_p16_224", "surgery": str(path)}),
        )


def test_a_continued_run_reads_no_patch_projection_and_freezes_its_own(mini_architecture: str) -> None:
    recipe = load_recipe(None, {"model": mini_architecture, "surgery": "gone.ckpt"})
    network = create_model(mini_architecture, num_classes=3, seed=1, dialect="paper")
    before = arrays_of(network)
    notes = settle(network, recipe, continued=True)
    for name, array in arrays_of(network).items():
        np.testing.assert_array_equal(array, before[name])
    assert not any(parameter.name.startswith("patch_embed.") for parameter in network.trainable_params())
    assert notes[0] == "the patch projection is that of gone.ckpt, and is not trained"


@pytest.mark.slow
@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize("pattern", ["blocks.*.attn", "blocks.1"], ids=["all blocks alike", "one block"])
def test_what_is_frozen_stays_and_the_rest_moves_in_a_graph(brief_architecture: str, pattern: str) -> None:
    """Blocks that are treated alike are trained as one operation, others one by one."""
    network = create_model(brief_architecture, num_classes=3, seed=1, dialect="paper")
    # What is beside the blocks is treated alike, and each parameter that is trained takes time to compile.
    freeze = [pattern, "patch_embed", "pos_embeder", "cls_attn_blocks"]
    recipe = load_recipe(None, {"model": brief_architecture, "num_classes": 3, "freeze": freeze, "weight_decay": 0.1})
    settle(network, recipe)
    before, trained = arrays_of(network), {parameter.name for parameter in network.trainable_params()}
    step = TrainStep(network, recipe)
    images = np.random.default_rng(0).standard_normal((4, 3, 64, 64)).astype(np.float32)
    step(Tensor(images), Tensor(np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]), 0.01)
    after = arrays_of(step.network)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {name for name in moved if not name.endswith((".moving_mean", ".moving_variance"))} == trained
