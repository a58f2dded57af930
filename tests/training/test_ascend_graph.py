"""The graphs that Ascend compiles, of the operations that are chosen there, compiled and run here on the CPU.

What is not here: Ascend's kernels, its queue, and the level O2, whose compiler is part of CANN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mindspore
import numpy as np
import pytest
from image_folder import write_images
from mindspore import Tensor, nn

from xcit_hub import variants
from xcit_hub.accelerated import is_accelerated, twins
from xcit_hub.data.batches import Stream
from xcit_hub.models import create_model, functions, load_weights
from xcit_hub.parameters import parameter_shapes
from xcit_hub.parity.networks import LAYOUTS, compare, random_images, random_weights, torch_network
from xcit_hub.parity.rule import GRADIENT_FLOOR, Reference
from xcit_hub.training import device, engine, scorer, update
from xcit_hub.training.hyperparameters import OPTIMIZERS
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recipe_file import load_recipe
from xcit_hub.training.step import TrainStep

pytestmark = pytest.mark.usefixtures("graph")

CLASSES, SIDE, BATCH = 10, 64, 4
TARGETS = np.random.default_rng(5).dirichlet(np.ones(CLASSES), BATCH).astype(np.float32)
CONFIGS = Path(__file__).parents[2] / "configs" / "xcit"


def choose(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """Have everything chosen as on another device, while this one computes."""
    for module in (functions, twins, update):
        monkeypatch.setattr(module, "device_target", lambda: target)


def weights_of(architecture: str, dialect: str) -> dict[str, np.ndarray]:
    tokens = (SIDE // 16) ** 2
    temperature = 1.0 if dialect == "paper" else 1.0 / tokens
    return random_weights(
        parameter_shapes(variants.architecture(architecture), num_classes=CLASSES), 3, temperature=temperature
    )


def network_of(architecture: str, dialect: str, weights: dict[str, np.ndarray]) -> Any:
    from xcit_hub.accelerated import accelerate

    network = accelerate(create_model(architecture, num_classes=CLASSES, dialect=dialect, init=False))
    load_weights(network, weights)
    return network


def recipe_of(model: str, **settings: Any) -> Recipe:
    fixed = {"model": model, "dialect": "paper", "num_classes": CLASSES, "weight_decay": 0.05}
    return load_recipe(None, {**fixed, **settings})


def test_ascend_is_given_mindspores_own_operations_and_its_own_overflow(mini_architecture: str, monkeypatch) -> None:
    weights = weights_of(mini_architecture, "paper")
    chosen = {}
    for target in ("CPU", "Ascend"):
        choose(monkeypatch, target)
        network = network_of(mini_architecture, "paper", weights)
        train = TrainStep(network, recipe_of(mini_architecture))
        chosen[target] = (
            is_accelerated(network), functions.functions().gelu["erf"], functions.functions().convolution,
            train._update.hidden_overflow,
        )  # fmt: skip
    assert chosen["Ascend"] == (False, functions.gelu_erf, nn.Conv2d, True)
    assert chosen["CPU"][1:] != chosen["Ascend"][1:]


@pytest.mark.campaign
@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
def test_evaluation_by_ascends_operations_passes_the_proof(mini_architecture: str, dialect: str, monkeypatch) -> None:
    choose(monkeypatch, "Ascend")
    weights = weights_of(mini_architecture, dialect)
    ours = network_of(mini_architecture, dialect, weights)
    theirs = torch_network(weights, variants.architecture(mini_architecture), dialect, num_classes=CLASSES)
    result = compare(ours, theirs, random_images(BATCH, 3, SIDE, SIDE))
    assert result.passed, str(result)


def torch_gradients(network: Any, images: Any) -> dict[str, Any]:
    """The gradients of the training loss by our names, in training mode; BatchNorm is left as it was."""
    import torch

    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.train()
    logits = network(images)
    loss = -(torch.from_numpy(TARGETS).to(logits.dtype) * torch.log_softmax(logits, -1)).sum(-1).mean()
    loss.backward()
    gradients = {name: entry.grad for name, entry in network.named_parameters() if entry.grad is not None}
    network.zero_grad(set_to_none=True)
    network.eval()
    for name, buffer in network.named_buffers():
        buffer.copy_(before[name])
    found = {"loss": loss.detach().reshape(1)}
    for name in NAMES[0]:
        parts = LAYOUTS["timm"].names(name)
        if all(part in gradients for part in parts):
            found[name] = torch.cat([gradients[part] for part in parts])
    return found


NAMES: list[tuple[str, ...]] = [()]  # what torch_gradients is asked for: a Reference calls it without arguments


def our_gradients(train: TrainStep, images: np.ndarray) -> dict[str, np.ndarray]:
    """Loss and gradients of one step: after the first, a velocity is the gradient, to the bit."""
    result = train(Tensor(images), Tensor(TARGETS), 1e-3)
    velocities = {
        name.removeprefix("velocity."): value for name, value in train.state().items() if name.startswith("velocity.")
    }
    return {"loss": result.loss.asnumpy().reshape(1), **velocities}


def saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the card's status tell of large gradients, which are finite."""
    all_finite = update.amp.all_finite

    def told(gradients: tuple[Tensor, ...]) -> Tensor:
        return mindspore.ops.logical_and(all_finite(gradients), gradients[-1].abs().max() < 10.0)

    monkeypatch.setattr(update.amp, "all_finite", told)


@pytest.mark.parametrize("level", ["O0", pytest.param("O1", marks=pytest.mark.campaign)])
def test_a_training_step_by_ascends_operations_passes_the_proof_and_an_overflow_that_the_card_hides_skips_the_next(
    least_architecture: str, level: str, monkeypatch
) -> None:
    """Saturating cards give large numbers for infinities: MindSpore's status alone tells."""
    # Far fewer calls within one another than a layer takes: a step says itself how many it may take.
    mindspore.set_recursion_limit(50)
    saturate(monkeypatch)
    # A scale is a power of two, and changes no digit.
    train = assert_passes_the_proof(
        "Ascend", least_architecture, monkeypatch, jit_level=level, loss_scale=1024, loss_scale_type="dynamic"
    )
    assert (train.loss_scale, float(train.optimizer.updates)) == (1024.0, 1.0)
    before = {name: array.copy() for name, array in train.state().items()}
    result = train(Tensor(random_images(BATCH, 3, SIDE, SIDE)), Tensor(1000 * TARGETS), 1e-3)
    assert np.isfinite(float(result.norm))
    assert float(result.applied) == 0.0
    assert train.loss_scale == 512.0
    after = train.state()
    for name in train.network.parameters_dict():
        if not name.endswith((".moving_mean", ".moving_variance")):
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def test_a_training_step_by_the_cpus_operations_passes_the_proof(mini_architecture: str, monkeypatch) -> None:
    """The blocks of a CPU are one operation, compiled at once, however many they are."""
    assert_passes_the_proof("CPU", mini_architecture, monkeypatch, jit_level="O0")


def assert_passes_the_proof(
    target: str, name: str, monkeypatch: pytest.MonkeyPatch, *, jit_level: str, **settings: Any
) -> TrainStep:
    """Hold loss and gradients of a step against PyTorch's, and return what has taken it."""
    images, weights = random_images(BATCH, 3, SIDE, SIDE), weights_of(name, "paper")
    theirs = torch_network(weights, variants.architecture(name), "paper", num_classes=CLASSES)
    NAMES[0] = tuple(weights)
    reference = Reference(theirs, images, torch_gradients, floor=GRADIENT_FLOOR)
    choose(monkeypatch, target)
    recipe = recipe_of(name, jit_level=jit_level, opt="momentum", momentum=0.9, weight_decay=0.0, **settings)
    train = TrainStep(network_of(name, "paper", weights), recipe)
    found = our_gradients(train, images)
    assert found.keys() >= reference.truth.keys()
    # A loss adds rounding of its own: single elements need more than one run of PyTorch's to be judged by.
    checks = reference.check({what: found[what] for what in reference.truth}, varying=False)
    assert not [check for check in checks if not check.passed], target
    assert train._fused.jit_config_dict["jit_level"] == jit_level
    return train


# ---- every recipe --------------------------------------------------------------------------------

# What decides the graph of a step, beside the network's size: recipes that agree in it compile the same.
_OF_THE_GRAPH = (
    "dialect", "opt", "amp_level", "ema", "clip_grad", "clip_value", "loss", "loss_scale", "loss_scale_type",
    "dynamic_loss_scale", "drop_overflow_update", "gradient_accumulation_steps", "layer_decay", "weight_decay_filter",
    "freeze_bn", "recompute",
)  # fmt: skip


def recipes() -> dict[str, dict[str, Any]]:
    """The settings of each graph that the recipes of the library have, by the first recipe that has it."""
    found: dict[str, dict[str, Any]] = {}
    seen = set()
    for path in sorted(CONFIGS.glob("*.yaml")):
        recipe = load_recipe(path)
        settings = {name: getattr(recipe, name) for name in _OF_THE_GRAPH}
        # A share of dropped paths is a number in the graph: some, or none.
        settings["drop_path_rate"] = 0.1 if recipe.drop_path_rate else 0.0
        key = repr(sorted(settings.items()))
        if key not in seen:
            seen.add(key)
            found[path.stem] = settings
    return found


@pytest.mark.campaign
@pytest.mark.parametrize("name", list(recipes()))
def test_every_recipes_step_compiles_as_on_ascend_at_each_level(
    mini_architecture: str, name: str, monkeypatch, record_property
) -> None:
    choose(monkeypatch, "Ascend")
    record_property("distances", assert_levels_agree(mini_architecture, recipes()[name]))


@pytest.mark.campaign
@pytest.mark.parametrize(("library", "opt"), [(library, opt) for library, kinds in OPTIMIZERS.items() for opt in kinds])
def test_every_optimizers_step_compiles_as_on_ascend_at_each_level(
    least_architecture: str, library: str, opt: str, monkeypatch, record_property
) -> None:
    choose(monkeypatch, "Ascend")
    settings = {"dialect": "paper", "drop_path_rate": 0.0, "library": library, "opt": opt}
    record_property("distances", assert_levels_agree(least_architecture, settings))


def assert_levels_agree(architecture: str, settings: dict[str, Any]) -> list[float]:
    """Compile a step at O0 and at O1, take it twice, and hold the losses against each other; return their distances."""
    weights, images = weights_of(architecture, settings["dialect"]), random_images(BATCH, 3, 32, 32)
    losses = {}
    for level in ("O0", "O1"):
        recipe = recipe_of(architecture, **{**settings, "jit_level": level})
        network = create_model(
            architecture,
            num_classes=CLASSES,
            dialect=recipe.dialect,
            drop_path_rate=recipe.drop_path_rate,
            init=False,
        )
        load_weights(network, weights)
        from xcit_hub.training.precision import mix_precision
        from xcit_hub.training.start import copy_of

        average = copy_of(network) if recipe.ema else None
        mix_precision(network, recipe.amp_level)
        if recipe.recompute:
            network.set_grad_checkpointing()
        train = TrainStep(network, recipe, ema=average)
        losses[level] = [float(train(Tensor(images), Tensor(TARGETS), 1e-3).loss) for _ in range(2)]
    assert np.isfinite(losses["O0"]).all()
    assert losses["O1"][0] == pytest.approx(losses["O0"][0], rel=1e-4)
    # The second loss shows the update, in 16 bits less exactly.
    assert losses["O1"][1] == pytest.approx(losses["O0"][1], rel=1e-4 if recipe.amp_level == "O0" else 1e-2)
    return [abs(one / zero - 1) for zero, one in zip(losses["O0"], losses["O1"], strict=True)]


# ---- shapes, reads and the queue -----------------------------------------------------------------


@pytest.fixture
def run(least_architecture: str, tmp_path: Path, monkeypatch) -> Callable[..., Any]:
    """Train with the operations of Ascend, and return the steps and the networks that were built for it."""
    choose(monkeypatch, "Ascend")
    data = write_images(tmp_path / "data", train=7, val=3)  # 21 and 9 images
    built: list[Any] = []

    def kept(kind: Callable[..., Any]) -> Callable[..., Any]:
        def build(*args: Any, **kwargs: Any) -> Any:
            built.append(kind(*args, **kwargs))
            return built[-1]

        return build

    monkeypatch.setattr(engine, "TrainStep", kept(engine.TrainStep))
    monkeypatch.setattr(scorer, "evaluation_network", kept(scorer.evaluation_network))

    def train(folder: str = "run", **settings: Any) -> SimpleNamespace:
        built.clear()
        fixed = {"dataset": "imagefolder", "data_dir": str(data), "num_classes": 3, "image_resize": 32, "batch_size": 8}
        fixed |= {"epoch_size": 2, "warmup_epochs": 0, "decay_epochs": 2, "val_while_train": True}
        fixed |= {"num_parallel_workers": 1, "ckpt_save_dir": str(tmp_path / folder)}
        recipe = recipe_of(least_architecture, **{**fixed, **settings})
        record = engine.train(recipe, as_json=True)
        network, train_step = built
        return SimpleNamespace(record=record, step=train_step, network=network)

    return train


@pytest.mark.campaign
@pytest.mark.parametrize(("keys", "graphs"), [({}, 1), ({"drop_remainder": False}, 2)], ids=["dropped", "kept"])
def test_an_epoch_has_one_graph_unless_its_last_batch_is_smaller(
    run, capsys, keys: dict[str, Any], graphs: int
) -> None:
    done = run(**keys)
    assert len(done.step._fused.compile_cache) == graphs
    assert len(done.network.compile_cache) == 1, "the last batch of an evaluation is filled up"
    assert ("a smaller batch" in capsys.readouterr().out) == (graphs == 2)


class Queue:
    """Stands in for the device's queue: it hands out rows, and notes what happens between them."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def data_sink(self, function: Callable[..., Any], dataset: Any, *, jit_config: Any) -> Callable[[], Any]:
        self.level = None if jit_config is None else jit_config.jit_config_dict["jit_level"]
        if jit_config is not None:  # as data_sink does; its own graph also holds what takes the row
            function = mindspore.jit(function, jit_level=self.level or "O0")
        rows = dataset.create_tuple_iterator(num_epochs=1)
        dataset.__transfer_dataset__ = SimpleNamespace(
            stop_send=lambda: self.events.append("stop"), release=lambda: self.events.append("release")
        )
        iterator = iter(rows)

        def sunk() -> Any:
            self.events.append("step")
            return function(*next(iterator))

        return sunk


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    made = Queue()
    monkeypatch.setattr(device, "has_queue", lambda: True)
    monkeypatch.setattr(mindspore, "data_sink", made.data_sink)
    for name in ("asnumpy", "_item", "__float__", "__int__", "__bool__"):
        reading = getattr(Tensor, name)

        def read(self: Tensor, *args: Any, reading: Any = reading) -> Any:
            made.events.append("read")
            return reading(self, *args)

        monkeypatch.setattr(Tensor, name, read)
    return made


def test_nothing_is_read_while_the_queue_is_being_emptied_and_it_is_stopped_at_the_end(run, queue: Queue) -> None:
    # Each parameter that is trained takes time to compile.
    done = run(log_interval=3, batch_size=2, freeze=["patch_embed", "pos_embeder", "blocks", "cls_*"])
    steps = "".join({"step": "s", "read": "r", "stop": "x", "release": "y"}[event] for event in queue.events)
    groups = [part for part in "".join(steps).replace("x", "").replace("y", "").split("r") if part]
    # 10 steps an epoch: one that compiles; then figures are read after the third, the sixth, the ninth and the last.
    assert groups == ["s", "ss", "sss", "sss", "s"] * 2
    assert steps.count("xy") == 1
    assert steps.index("xy") > steps.rindex("s")
    assert queue.level == ""
    assert done.record.epochs == 2


@pytest.mark.campaign
def test_a_run_through_the_queue_is_the_same_run(run, queue: Queue, tmp_path: Path) -> None:
    sunk = run("sunk", jit_level="O0")
    assert queue.level == "O0"
    fed = run("fed", jit_level="O0", dataset_sink_mode=False)
    assert sunk.record.final_loss == pytest.approx(fed.record.final_loss, rel=1e-6)
    ours, theirs = sunk.step.state(), fed.step.state()
    assert max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours) < 1e-6
    assert sunk.record.ms_per_step is not None


def test_the_queue_is_stopped_when_a_run_breaks_off(queue: Queue) -> None:
    def rows() -> Iterator[tuple[np.ndarray]]:
        for number in range(4):
            yield (np.full(2, number, np.float32),)

    results = device.fed(lambda row: row, Stream(rows, ["row"], 4), sink=True)
    next(results)
    results.close()
    assert queue.events[-2:] == ["stop", "release"]


@pytest.mark.campaign
def test_where_a_step_is_more_than_a_graph_the_queue_feeds_it_step_by_step(run, queue: Queue) -> None:
    run(gradient_accumulation_steps=2)
    assert queue.level is None


def test_seconds_of_steps_that_were_computed_together_are_shared_out() -> None:
    from xcit_hub.training.meters import Clock

    progress = SimpleNamespace(first_step=None, timed_steps=0, timed_seconds=0.0)
    clock = Clock(progress)
    clock.step(9.0)
    for seconds, complete in ((3.0, False), (0.0, False), (0.0, True), (2.0, False), (0.0, True)):
        clock.step(seconds, complete=complete)
    assert progress.first_step == 9.0
    assert (progress.timed_steps, progress.timed_seconds) == (4, 4.0)
    assert clock.rate(6) == pytest.approx(6 * 6 / 14)


# ---- depth ---------------------------------------------------------------------------------------


@pytest.mark.campaign
@pytest.mark.gigabytes(7)  # MindSpore's front end, whatever the width
@pytest.mark.parametrize("target", ["Ascend", "CPU"])
def test_the_deepest_networks_are_trained_by_mindspores_own_operations(target: str, monkeypatch) -> None:
    choose(monkeypatch, target)
    monkeypatch.setattr(twins, "library", lambda: None)
    deepest = max(entry.depth for entry in variants.ARCHITECTURES.values())
    deep = variants.reshaped(variants.architecture("xcit_nano_12_p16_224"), {"depth": deepest})
    monkeypatch.setitem(variants.ARCHITECTURES, deep.name, deep)
    mindspore.set_recursion_limit(1000)  # MindSpore's own
    train = TrainStep(network_of(deep.name, "paper", weights_of(deep.name, "paper")), recipe_of(deep.name))
    assert not is_accelerated(train.network)
    before = train.state()["head.weight"].copy()
    result = train(Tensor(random_images(BATCH, 3, 32, 32)), Tensor(TARGETS), 1e-3)
    assert np.isfinite(float(result.loss))
    assert not np.array_equal(train.state()["head.weight"], before)
