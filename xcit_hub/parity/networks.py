"""Two networks, one set of weights, the same images: judged output by output, and where they first part.

The other side is always PyTorch: timm's own XCiT for the paper's dialect, its sibling in :mod:`xcit_hub.timm` for
MindCV's. Needs the ``timm`` extra.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isqrt
from typing import Any, Literal

import numpy as np

from xcit_hub import variants
from xcit_hub.checkpoints.families import LAYOUTS, MARKS
from xcit_hub.errors import XcitHubError
from xcit_hub.parameters import Shape, parameter_shapes, trainable
from xcit_hub.parity.result import Departure, ParityResult
from xcit_hub.parity.rule import GRADIENT_FLOOR, Array, Reference, Stage

Dtype = Literal["float32", "float16", "bfloat16"]

_BATCH = 2
_MULTIPLICATIONS = 10**11  # of the blocks' matrices; in double precision some ten seconds on two cores
_DEPARTURE = 10.0  # a branch deep in the network may stray a little further than its layer's tolerance
_SHOWN_BEFORE_DEPARTURE = 3


def _silent(_: str) -> None:
    pass


def random_weights(shapes: Mapping[str, Shape], seed: int = 0, *, temperature: float = 1.0) -> dict[str, Array]:
    """Draw every parameter and buffer, with gains near 1, so that no branch of the network can hide.

    Args:
        temperature: scale of XCA's temperatures. Queries and keys that nothing normalises have products that grow with
            the number of tokens; its inverse keeps their softmax from becoming a mere maximum.

    Freshly initialised weights hide whole blocks: layer scales of 1e-5 erase them, unit BatchNorm statistics make a
    missing normalisation invisible.
    """
    generator = np.random.default_rng(seed)

    def draw(kind: str, shape: Shape) -> Array:
        normal = generator.standard_normal(shape, np.float32)
        if kind == "moving_variance":
            return generator.uniform(0.5, 1.5, shape).astype(np.float32)
        if kind == "temperature":
            return generator.uniform(temperature, 3.0 * temperature, shape).astype(np.float32)
        if kind == "gamma":
            return 1.0 + 0.2 * normal
        if kind in ("gamma1", "gamma2", "gamma3"):
            return 0.5 + 0.1 * normal
        if kind in ("beta", "bias", "moving_mean"):
            return 0.2 * normal
        if kind == "cls_token":
            return normal
        normal /= np.float32(np.sqrt(np.prod(shape[1:])))
        return normal

    return {name: draw(name.rpartition(".")[2], shape).astype(np.float32, copy=False) for name, shape in shapes.items()}


def random_images(batch: int, in_chans: int, height: int, width: int, seed: int = 1) -> Array:
    """Draw normalised images, (batch, in_chans, height, width) float32."""
    return np.random.default_rng(seed).standard_normal((batch, in_chans, height, width), np.float32)


def verify_random(
    name: str,
    dialect: str = "paper",
    *,
    image_size: int = 64,
    seed: int = 0,
    gradients: bool = False,
    dtype: Dtype = "float32",
    stage: Stage = _silent,
) -> ParityResult:
    """Compare both networks of an architecture on random weights (see :func:`random_weights`).

    Raises:
        UnknownNameError: no such architecture or dialect.
        XcitHubError: the ``timm`` extra is not installed.
    """
    architecture = variants.architecture(name)
    tokens = max(image_size // architecture.patch_size, 1) ** 2
    temperature = 1.0 if variants.dialect(dialect).normalize_qk else 1.0 / tokens
    weights = random_weights(parameter_shapes(architecture), seed, temperature=temperature)
    result = verify_weights(
        weights, architecture, dialect, image_size=image_size, gradients=gradients, dtype=dtype, stage=stage
    )
    return replace(result, weights=f"random, seed {seed}")


def verify_weights(
    weights: Mapping[str, Array],
    architecture: str | variants.Architecture,
    dialect: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    global_pool: variants.GlobalPool = "token",
    image_size: int | None = None,
    gradients: bool = False,
    dtype: Dtype = "float32",
    stage: Stage = _silent,
) -> ParityResult:
    """Put these very weights into MindSpore's network and PyTorch's and judge what they compute.

    Args:
        weights: every parameter and buffer by MindCV's names.
        global_pool: what the classifier of both reads.
        image_size: side of the square input; :func:`proof_size` of the architecture if None.
        gradients: also compare the gradient of every parameter, in training mode.
        dtype: in which both networks hold the weights and compute. On a CPU ours of bfloat16 is the fused one, see
            :func:`xcit_hub.accelerated.fuse`.
        stage: told in a few words what is going on.

    Raises:
        XcitHubError: the ``timm`` extra is not installed, or MindSpore cannot compute in this dtype here.
    """
    from xcit_hub.accelerated import accelerate
    from xcit_hub.models import create_model, load_weights

    require_timm()
    weights = {name: np.asarray(array, np.float32) for name, array in weights.items()}
    entry = variants.architecture(architecture) if isinstance(architecture, str) else architecture
    side = image_size or proof_size(entry)
    stage("building both networks")
    theirs = torch_network(
        weights, entry, dialect, num_classes=num_classes, in_chans=in_chans, global_pool=global_pool, copy=False
    )
    network = create_model(
        entry, num_classes=num_classes, in_chans=in_chans, global_pool=global_pool, dialect=dialect, init=False
    )
    ours = accelerate(network, in_place=True)
    load_weights(ours, weights)
    images = random_images(_BATCH, in_chans, side, side)
    if dtype != "float32":
        ours, images = _round(ours, theirs, images, dtype, gradients)
    return compare(ours, theirs, images, gradients=gradients, stage=stage)


def proof_size(architecture: variants.Architecture) -> int:
    """Return the side of the images of a proof: the architecture's own, or less where double precision takes long.

    At most so many tokens that the matrices of the blocks cost :data:`_MULTIPLICATIONS`. The layers see every
    weight at any size; that of the images decides how many tokens there are.
    """
    # qkv, projection and MLP multiply a token of C channels by 3, 1 and 2 · ratio matrices of C × C.
    each = architecture.depth * (4 + 2 * architecture.mlp_ratio) * architecture.embed_dim**2
    affordable = isqrt(int(_MULTIPLICATIONS // (each * _BATCH))) * architecture.patch_size
    return max(min(architecture.image_size, affordable), architecture.patch_size)


def _round(ours: Any, theirs: Any, images: Array, dtype: Dtype, gradients: bool) -> tuple[Any, Array]:
    """Round PyTorch's network, in place, and the images; return ours that computes in this dtype, and the images."""
    import mindspore
    import torch

    kind = getattr(torch, dtype)
    theirs.to(kind)
    images = torch.from_numpy(images).to(kind).float().numpy()
    if dtype != "bfloat16" or mindspore.get_context("device_target") != "CPU":
        ours.cast(getattr(mindspore, dtype))
        return ours, images
    from xcit_hub.accelerated import fuse

    if gradients:
        raise XcitHubError(
            "A fused network, which is what computes in bfloat16 on a CPU, has no gradients.",
            where="gradients=…, dtype=… (--gradients, --dtype)",
            fix="Leave them out, or compare in float16 or float32.",
        )
    for parameter in ours.get_parameters():
        values = torch.from_numpy(parameter.asnumpy()).to(kind).float().numpy()
        parameter.set_data(mindspore.Tensor(values))
    return fuse(ours, "bfloat16"), images


def torch_network(
    weights: Mapping[str, Array],
    architecture: variants.Architecture,
    dialect: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    global_pool: variants.GlobalPool = "token",
    copy: bool = True,
) -> Any:
    """Build PyTorch's network of a dialect, with these weights, in eval mode.

    Args:
        global_pool: what the classifier reads.
        copy: False lets it hold the memory of those arrays that can be written to.
    """
    require_timm()
    import torch

    from xcit_hub.timm import WithoutValues, create_reference

    with torch.device("meta"), WithoutValues():
        # Values made here would be thrown away, and timm's initialisation of the large networks takes seconds.
        network = create_reference(
            architecture, dialect, num_classes=num_classes, in_chans=in_chans, global_pool=global_pool
        )
    state = {
        part: torch.tensor(piece) if copy or not piece.flags.writeable else torch.from_numpy(piece)
        for name, array in weights.items()
        for part, piece in _in_timms_parts(name, array).items()
    }
    for name in network.state_dict():
        # PyTorch's batch counters, and the marks of MindCV's dialects: none is a number of the network's.
        if name.endswith(("num_batches_tracked", *MARKS.values())):
            state[name] = torch.tensor(0)
    network.load_state_dict(state, strict=True, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return network.eval()


def require_timm() -> None:
    """Raise XcitHubError unless PyTorch and timm can be imported."""
    for module in ("torch", "timm"):
        if importlib.util.find_spec(module) is None:
            raise XcitHubError(
                f"Parity runs PyTorch's network beside MindSpore's, and {module} is not installed.",
                where=sys.executable,
                fix="Install the extra: pip install 'xcit-hub[timm]'.",
            )


def compare(ours: Any, theirs: Any, images: Array, *, gradients: bool = False, stage: Stage = _silent) -> ParityResult:
    """Judge logits, the final tokens and every block's output of two networks in eval mode, by the rule of the proof.

    Args:
        ours: an :class:`xcit_hub.models.XCiT`.
        theirs: a PyTorch network with timm's interface and the same weights.
        images: (B, in_chans, H, W) float32.
        gradients: also the gradient of every parameter and BatchNorm's statistics after a step, both in training mode;
            drop rates must be 0, and BatchNorm's statistics of ``ours`` are moved by it.
        stage: told in a few words what is going on.
    """
    from xcit_hub.accelerated import is_fused

    ours.set_train(False)
    theirs.eval()
    reference = Reference(theirs, images, _torch_outputs, stage)
    stage("MindSpore's network")
    checks = reference.check(our_outputs(ours, images))
    one_piece = is_fused(ours)  # its layers cannot be looked at one by one
    departure = None if one_piece or all(check.passed for check in checks) else first_departure(ours, theirs, images)
    runs = reference.runs
    del reference
    if gradients:
        names = tuple(ours.parameters_dict())
        reference = Reference(theirs, images, partial(_torch_gradients, names=names), stage, GRADIENT_FLOOR)
        stage("MindSpore's gradients")
        # A gradient may well be the same for all elements of a small parameter.
        checks += reference.check(_our_gradients(ours, images), varying=False)
        runs = max(runs, reference.runs)
    return ParityResult(
        architecture=ours.architecture.name,
        dialect=ours.dialect.name,
        image_size=(images.shape[2], images.shape[3]),
        checks=checks,
        departure=departure,
        dtype=_dtype_of(theirs),
        pytorch_runs=runs,
        instruction_set=_instruction_set(),
        versions=_versions(),
    )


def first_departure(ours: Any, theirs: Any, images: Array) -> Departure | None:
    """Run both networks layer by layer and return the first layer whose output leaves its tolerance, if one does.

    None although :func:`compare` failed says that the layers are right and that what computes several of them in one
    piece is not; the failed checks name the block.
    """

    layers = tuple(_layers(ours))
    reference = Reference(theirs, images, partial(_torch_layers, layers=layers))
    found: dict[str, Array] = {}
    cells = dict(ours.cells_and_names())

    def keep(name: str) -> Any:
        def hook(_: Any, __: Any, output: Any) -> None:
            found.setdefault(name, _first(output).asnumpy())

        return hook

    handles = [cells[name].register_forward_hook(keep(name)) for name in layers]
    try:
        ours(_tensor(ours, images))
    finally:
        for handle in handles:
            handle.remove()
    checks = reference.check(found)
    for limit in (_DEPARTURE, 1.0):
        for index, check in enumerate(checks):
            if not check.of_tolerance <= limit:
                return Departure(check, checks[max(index - _SHOWN_BEFORE_DEPARTURE, 0) : index])
    return None


def _torch_outputs(network: Any, images: Any) -> dict[str, Any]:
    import torch

    with torch.no_grad():
        features, maps = network.forward_intermediates(images)
        outputs = {"logits": network.forward_head(features), "features": features}
    return outputs | {f"blocks.{index}": tokens for index, tokens in enumerate(maps)}


def our_outputs(network: Any, images: Array, *, in_one_pass: bool = False) -> dict[str, Array]:
    """Return logits, final tokens (``features``) and the maps of every block (``blocks.N``) of one of our networks.

    Args:
        in_one_pass: take the logits from those tokens, in half the time; else from the network as it is called.
    """
    batch = _tensor(network, images)
    features, maps = network.forward_intermediates(batch)
    logits = network.forward_head(features) if in_one_pass else network(batch)
    outputs = {"logits": logits, "features": features} | {f"blocks.{index}": each for index, each in enumerate(maps)}
    return {what: value.asnumpy() for what, value in outputs.items()}


def _torch_layers(network: Any, images: Any, layers: Sequence[str]) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {}
    modules = dict(network.named_modules())

    def keep(name: str) -> Any:
        def hook(_: Any, __: Any, output: Any) -> None:
            found[name] = _first(output)

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in layers]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _torch_gradients(network: Any, images: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return gradients of :func:`_probe`'s sum and BatchNorm's statistics after the step, by our ``names``."""
    import torch

    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.train()
    try:
        logits = network(images)
        logits.backward(torch.from_numpy(_probe(logits.shape)).to(logits.dtype))
        values = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
        values |= {name: buffer.clone() for name, buffer in network.named_buffers()}
    finally:
        network.eval()
        network.zero_grad(set_to_none=True)
        for name, buffer in network.named_buffers():
            buffer.copy_(before[name])
    found = {}
    for name in names:
        parts = LAYOUTS["timm"].names(name)
        if all(part in values for part in parts):
            found[_after_a_step(name)] = torch.cat([values.pop(part) for part in parts])
    return found


def _our_gradients(network: Any, images: Array) -> dict[str, Array]:
    import mindspore

    batch = _tensor(network, images)
    probe = mindspore.Tensor(_probe(network(batch).shape)).astype(batch.dtype)
    parameters = network.trainable_params()
    network.set_train(True)
    try:
        _, gradients = mindspore.value_and_grad(lambda image: (network(image) * probe).sum(), None, parameters)(batch)
    finally:
        network.set_train(False)
    found = {parameter.name: gradient for parameter, gradient in zip(parameters, gradients, strict=True)}
    found |= {name: value for name, value in network.parameters_dict().items() if not trainable(name)}
    return {_after_a_step(name): value.asnumpy() for name, value in found.items()}


def _after_a_step(name: str) -> str:
    return f"gradient of {name}" if trainable(name) else f"{name} after a step"


def _probe(shape: Sequence[int]) -> Array:
    """Draw the weights of the sum of logits whose gradients are compared.

    A loss would add its own rounding, and show little but the labels' classes.
    """
    return np.random.default_rng(2).standard_normal(tuple(shape), np.float32)


def _tensor(network: Any, images: Array) -> Any:
    import mindspore

    return mindspore.Tensor(images).astype(network.cls_token.dtype)


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _layers(network: Any) -> Iterator[str]:
    """Names, in the order they run, of the layers whose outputs both frameworks can show."""
    yield "patch_embed"
    for index in range(network.depth):
        for part in ("norm1", "attn", "norm3", "local_mp", "norm2", "mlp"):
            yield f"blocks.{index}.{part}"
    for index in range(len(network.cls_attn_blocks)):
        for part in ("attn", "mlp"):
            yield f"cls_attn_blocks.{index}.{part}"
    yield "head"


def _in_timms_parts(name: str, array: Array) -> dict[str, Array]:
    parts = LAYOUTS["timm"].names(name)
    return dict(zip(parts, np.split(array, len(parts)), strict=True))


def _dtype_of(network: Any) -> str:
    return str(next(network.parameters()).dtype).removeprefix("torch.")


def _instruction_set() -> str:
    import torch

    return str(torch.backends.cpu.get_cpu_capability())


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("mindspore", "torch", "timm", "numpy")}
