"""The networks that are measured, ours and the peers', and the machine's own limit. float32 but where named, CPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.case import Case, Contender, NotHereError, Step
from benchmarks.flops import multiply_adds

if TYPE_CHECKING:
    from xcit_hub.accelerated.fused import FusedDtype

_CLASSES = 1000
_RATE = 1e-4
_PRODUCT_SIDE = 2048

TIMM = "timm, eager"
TIMM_COMPILED = "timm, torch.compile"
MINDCV = "MindCV, graph"
OURS = "xcit-hub, graph"
FUSED = "xcit-hub, graph, fused"
FUSED_BFLOAT16 = "xcit-hub, graph, fused, bfloat16"
FUSED_INT8 = "xcit-hub, graph, fused, int8"
PYNATIVE = "xcit-hub, PyNative"
UNCOMPILED = "xcit-hub, graph, no compiler"
TORCH_LIMIT = "limit: torch matmul"
MINDSPORE_LIMIT = "limit: MindSpore matmul"


def timm_network(case: Case, *, layout: str = "", compiled: bool = False, dtype: str = "float32") -> Step:
    """Run timm's network: eager, in another memory layout, compiled, or in another dtype."""
    try:
        import timm
        import torch
    except ImportError as error:
        raise NotHereError("not installed (pip install 'xcit-hub[timm]')") from error
    if compiled and not any(map(shutil.which, ("g++", "clang++"))):
        raise NotHereError("torch.compile needs a C++ compiler (g++ or clang++), and there is none")
    depth = {"depth": case.depth} if case.depth else {}
    network = timm.create_model(case.model, **depth).train(case.work == "training")
    images, labels = (torch.from_numpy(array) for array in random_batch(case))
    if layout:
        network, images = (each.to(memory_format=getattr(torch, layout)) for each in (network, images))
    network, images = (each.to(getattr(torch, dtype)) for each in (network, images))
    run = torch.compile(network) if compiled else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE)

    def infer() -> int:
        with torch.inference_mode():
            run(images).float().numpy()
        return case.batch

    def train() -> int:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(run(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()
        return case.batch

    return train if case.work == "training" else infer


def mindcv_network(case: Case, *, graph: bool) -> Step:
    """Run MindCV's network, and train it as MindCV does: MindSpore's one-step cell around AdamWeightDecay."""
    try:
        from mindcv.models import create_model
    except ImportError as error:
        raise NotHereError("not installed (pip install mindcv)") from error
    import mindspore
    from mindspore import nn

    mindspore.set_context(mode=mindspore.GRAPH_MODE if graph else mindspore.PYNATIVE_MODE)
    try:
        network = create_model(case.model)
    except RuntimeError as error:
        raise NotHereError(f"MindCV has no {case.model}") from error
    images, labels = (mindspore.Tensor(array) for array in random_batch(case))
    if case.work == "training":
        optimizer = nn.AdamWeightDecay(network.trainable_params(), _RATE)
        step = nn.TrainOneStepCell(nn.WithLossCell(network, nn.CrossEntropyLoss()), optimizer).set_train()
        return _reading(partial(step, images, labels.astype(mindspore.int32)), case)
    return _reading(partial(network.set_train(False), images), case)


def our_network(
    case: Case, *, graph: bool, fused: bool = False, native: bool = True, dtype: FusedDtype = "float32"
) -> Step:
    """Run our network, and train it with the step that ``xcit-hub train`` uses.

    Args:
        native: False computes as without a compiler.
        dtype: of a fused network's products.
    """
    if fused and case.work == "training":
        raise NotHereError("a fused network cannot be trained")
    import mindspore

    import xcit_hub
    from xcit_hub.accelerated.build import SWITCH, extension_absence

    if not native:
        os.environ[SWITCH] = "0"
    if dtype != "float32" and (absence := extension_absence(dtype)):
        raise NotHereError(absence)

    mindspore.set_context(mode=mindspore.GRAPH_MODE if graph else mindspore.PYNATIVE_MODE)
    network = xcit_hub.create_model(case.architecture, seed=0)
    images, labels = random_batch(case)
    if case.work == "training":
        from xcit_hub.training.recipe import Recipe
        from xcit_hub.training.step import TrainStep

        step = TrainStep(network, Recipe.model_validate({"model": case.model, "dialect": "paper"}))
        targets = np.eye(_CLASSES, dtype=np.float32)[labels]
        train = partial(step, mindspore.Tensor(images), mindspore.Tensor(targets), _RATE)
        return _reading(lambda: train().loss, case)
    network.set_train(False)
    if fused:
        network = network.fuse(dtype)
    # from_numpy shares the images; a copy beside them would be the peak of a large one.
    return _reading(partial(network, mindspore.Tensor.from_numpy(images)), case)


def torch_product(case: Case) -> Step:
    """Multiply two matrices with torch; the case does not matter."""
    del case
    try:
        import torch
    except ImportError as error:
        raise NotHereError("not installed (pip install 'xcit-hub[timm]')") from error
    left, right = (torch.from_numpy(matrix) for matrix in _matrices())

    def multiply() -> int:
        torch.matmul(left, right).numpy()
        return 1

    return multiply


def mindspore_product(case: Case) -> Step:
    """Multiply two matrices with MindSpore; the case does not matter."""
    del case
    import mindspore

    left, right = (mindspore.Tensor(matrix) for matrix in _matrices())

    def multiply() -> int:
        mindspore.ops.matmul(left, right).asnumpy()
        return 1

    return multiply


def _reading(compute: Callable[[], Any], case: Case) -> Step:
    """Wait for the result: MindSpore computes behind one's back until it is read."""

    def step() -> int:
        compute().asnumpy()
        return case.batch

    return step


def random_batch(case: Case) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the images that every network sees, (batch, 3, height, width), and labels."""
    images = np.random.default_rng(0).standard_normal((case.batch, 3, case.height, case.width), np.float32)
    return images, np.arange(case.batch) % _CLASSES


def _matrices() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    generator = np.random.default_rng(0)
    left, right = (generator.standard_normal((_PRODUCT_SIDE, _PRODUCT_SIDE), np.float32) for _ in range(2))
    return left, right


def network_flops(case: Case) -> int:
    """Return the floating-point operations that the paper's network needs for a case."""
    training = case.work == "training"
    return 2 * multiply_adds(case.architecture, case.height, case.width, batch=case.batch, training=training)


def _product_flops(_: Case) -> int:
    return 2 * _PRODUCT_SIDE**3


NETWORKS: dict[str, Contender] = {
    TIMM: Contender(timm_network, network_flops),
    "timm, channels_last": Contender(partial(timm_network, layout="channels_last"), network_flops),
    TIMM_COMPILED: Contender(partial(timm_network, compiled=True), network_flops),
    f"{TIMM_COMPILED}, bfloat16": Contender(partial(timm_network, compiled=True, dtype="bfloat16"), network_flops),
    MINDCV: Contender(partial(mindcv_network, graph=True), network_flops),
    "MindCV, PyNative": Contender(partial(mindcv_network, graph=False), network_flops),
    OURS: Contender(partial(our_network, graph=True), network_flops),
    FUSED: Contender(partial(our_network, graph=True, fused=True), network_flops),
    FUSED_BFLOAT16: Contender(partial(our_network, graph=True, fused=True, dtype="bfloat16"), network_flops),
    FUSED_INT8: Contender(partial(our_network, graph=True, fused=True, dtype="int8"), network_flops),
    UNCOMPILED: Contender(partial(our_network, graph=True, native=False), network_flops),
    PYNATIVE: Contender(partial(our_network, graph=False), network_flops),
}
LIMITS: dict[str, Contender] = {
    TORCH_LIMIT: Contender(torch_product, _product_flops),
    MINDSPORE_LIMIT: Contender(mindspore_product, _product_flops),
}
