"""Two networks, one set of weights, one input: how far apart they are, and where they first part.

The other side is always PyTorch: timm's own XCiT for the paper's dialect, its sibling in :mod:`xcit_hub.timm` for
MindCV's. Needs the ``timm`` extra.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcit_hub import variants
from xcit_hub.checkpoints.families import LAYOUTS, MINDCV_MARK
from xcit_hub.errors import XcitHubError
from xcit_hub.parameters import Shape, parameter_shapes, trainable

Array = NDArray[Any]

LOGITS_BAR = 1e-5
"""Largest difference allowed in an activation, as a fraction of its standard deviation."""

GRADIENTS_BAR = 1e-3
"""Largest norm allowed of a gradient's difference, as a fraction of the gradient's norm."""

_DEPARTURE_BAR = 10 * LOGITS_BAR
_BATCH = 2
_SHOWN_BEFORE_DEPARTURE = 3


@dataclass(frozen=True)
class Check:
    """One comparison: what was compared, its relative error, and the bar it had to stay under."""

    what: str
    error: float
    bar: float

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the bar; NaN is not."""
        return self.error <= self.bar


@dataclass(frozen=True)
class Departure:
    """The first layer whose output leaves the bar, with the layers that ran just before it."""

    layer: str
    error: float
    before: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        before = ", ".join(f"{name} {error:.1e}" for name, error in self.before) or "nothing"
        return f"first departs at {self.layer} (error {self.error:.1e}); before it: {before}"


@dataclass(frozen=True)
class ParityResult:
    """What a comparison of two networks found. Errors are relative, see the bars."""

    architecture: str
    dialect: str
    image_size: tuple[int, int]
    max_error: float
    checks: tuple[Check, ...]
    departure: Departure | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every check stayed under its bar."""
        return all(check.passed for check in self.checks)

    @property
    def worst(self) -> Check:
        """The check nearest to its bar, or furthest beyond it."""
        return max(self.checks, key=lambda check: check.error / check.bar if check.error == check.error else np.inf)

    @property
    def relative_error(self) -> float:
        """Error of the logits as a fraction of their standard deviation."""
        return self.checks[0].error

    @property
    def bar(self) -> float:
        """Bar of the logits."""
        return self.checks[0].bar

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        return {
            "architecture": self.architecture,
            "dialect": self.dialect,
            "image_size": list(self.image_size),
            "passed": self.passed,
            "max_error": self.max_error,
            "relative_error": self.relative_error,
            "bar": self.bar,
            "checks": [
                {"what": check.what, "error": check.error, "bar": check.bar, "passed": check.passed}
                for check in self.checks
            ],
            "departure": str(self.departure) if self.departure else None,
            "versions": dict(self.versions),
        }

    def __str__(self) -> str:
        verdict = "equal" if self.passed else "NOT equal"
        text = (
            f"{self.architecture} ({self.dialect}) at {self.image_size[0]}×{self.image_size[1]}: {verdict}, "
            f"logits differ by {self.max_error:.1e} = {self.relative_error:.1e} × their deviation (bar {self.bar:.0e})"
        )
        if not self.passed:
            text += f"; worst: {self.worst.what} {self.worst.error:.1e} (bar {self.worst.bar:.0e})"
        return f"{text}; {self.departure}" if self.departure else text


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
        return normal / np.float32(np.sqrt(np.prod(shape[1:])))

    return {name: draw(name.rpartition(".")[2], shape).astype(np.float32) for name, shape in shapes.items()}


def random_images(batch: int, in_chans: int, height: int, width: int, seed: int = 1) -> Array:
    """Draw normalised images, (batch, in_chans, height, width) float32."""
    return np.random.default_rng(seed).standard_normal((batch, in_chans, height, width), np.float32)


def verify_random(
    name: str, dialect: str = "paper", *, image_size: int = 64, seed: int = 0, gradients: bool = False
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
    return verify_weights(weights, architecture, dialect, image_size=image_size, gradients=gradients)


def verify_weights(
    weights: Mapping[str, Array],
    architecture: str | variants.Architecture,
    dialect: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    image_size: int | None = None,
    gradients: bool = False,
) -> ParityResult:
    """Put these very weights into MindSpore's network and PyTorch's and compare what they compute.

    Args:
        weights: every parameter and buffer by MindCV's names; computed in float32.
        image_size: side of the square input; the architecture's own if None.
        gradients: also compare the gradient of every parameter, in training mode.

    Raises:
        XcitHubError: the ``timm`` extra is not installed.
    """
    from xcit_hub.accelerated import accelerate
    from xcit_hub.models import create_model, load_weights

    weights = {name: np.asarray(array, np.float32) for name, array in weights.items()}
    entry = variants.architecture(architecture) if isinstance(architecture, str) else architecture
    side = image_size or entry.image_size
    ours = accelerate(create_model(entry, num_classes=num_classes, in_chans=in_chans, dialect=dialect, init=False))
    load_weights(ours, weights)
    theirs = torch_network(weights, entry, dialect, num_classes=num_classes, in_chans=in_chans)
    images = random_images(_BATCH, in_chans, side, side)
    result = compare(ours, theirs, images)
    if not gradients:
        return result
    checks = compare_gradients(ours, theirs, images)
    return ParityResult(**{**vars(result), "checks": (*result.checks, *checks)})


def torch_network(
    weights: Mapping[str, Array],
    architecture: variants.Architecture,
    dialect: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
) -> Any:
    """Build PyTorch's network of a dialect, with these weights, in eval mode."""
    require_timm()
    import torch

    from xcit_hub.timm import create_reference

    with torch.device("meta"):
        # Values made here would be thrown away, and timm's initialisation of the large networks takes seconds.
        network = create_reference(architecture, dialect, num_classes=num_classes, in_chans=in_chans)
    state = {
        part: torch.tensor(piece)
        for name, array in weights.items()
        for part, piece in _in_timms_parts(name, array).items()
    }
    for name in network.state_dict():
        # PyTorch's batch counters, and the mark of the mindcv class: neither is a number of the network's.
        if name.endswith(("num_batches_tracked", MINDCV_MARK)):
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
                fix="Install the extra: pip install 'xcit-hub[timm]'.",
            )


def compare(ours: Any, theirs: Any, images: Array) -> ParityResult:
    """Compare logits, the final tokens and every block's output of two networks in eval mode.

    Args:
        ours: an :class:`xcit_hub.models.XCiT`.
        theirs: a PyTorch network with timm's interface.
        images: (B, in_chans, H, W) float32.
    """
    import mindspore
    import torch

    ours.set_train(False)
    theirs.eval()
    ours_in, theirs_in = mindspore.Tensor(images), torch.from_numpy(images)
    with torch.no_grad():
        their_logits = theirs(theirs_in).numpy()
        their_features, their_maps = theirs.forward_intermediates(theirs_in)
    our_logits = ours(ours_in).asnumpy()
    our_features, our_maps = ours.forward_intermediates(ours_in)
    checks = [Check("logits", _deviation(our_logits, their_logits), LOGITS_BAR)]
    checks.append(Check("features", _deviation(our_features.asnumpy(), their_features.numpy()), LOGITS_BAR))
    checks += [
        Check(f"blocks.{index}", _deviation(our_map.asnumpy(), their_map.numpy()), LOGITS_BAR)
        for index, (our_map, their_map) in enumerate(zip(our_maps, their_maps, strict=True))
    ]
    passed = all(check.passed for check in checks)
    return ParityResult(
        architecture=ours.architecture.name,
        dialect=ours.dialect.name,
        image_size=(images.shape[2], images.shape[3]),
        max_error=float(np.abs(our_logits - their_logits).max()),
        checks=tuple(checks),
        departure=None if passed else first_departure(ours, theirs, images),
        versions=_versions(),
    )


def compare_gradients(ours: Any, theirs: Any, images: Array) -> list[Check]:
    """Compare gradients of a cross-entropy loss for every parameter, and BatchNorm's statistics after the step.

    Both networks run in training mode; their drop rates must be 0. A gradient that one side lacks is an infinite error.
    """
    import mindspore
    import torch

    labels = np.arange(len(images)) % max(ours.num_classes, 1)
    theirs.train()
    theirs.zero_grad(set_to_none=True)
    torch.nn.functional.cross_entropy(theirs(torch.from_numpy(images)), torch.from_numpy(labels)).backward()
    their_values = {
        name: parameter.grad.numpy() for name, parameter in theirs.named_parameters() if parameter.grad is not None
    }
    their_values |= {name: buffer.numpy() for name, buffer in theirs.named_buffers()}
    expected = {}
    for name in ours.parameters_dict():
        parts = LAYOUTS["timm"].names(name)
        if all(part in their_values for part in parts):
            expected[name] = np.concatenate([their_values[part] for part in parts])
    theirs.eval()

    ours.set_train(True)
    targets = mindspore.Tensor(labels.astype(np.int32))

    def loss(batch: Any) -> Any:
        return mindspore.ops.cross_entropy(ours(batch), targets)

    parameters = ours.trainable_params()
    _, gradients = mindspore.value_and_grad(loss, None, parameters)(mindspore.Tensor(images))
    found = {parameter.name: gradient.asnumpy() for parameter, gradient in zip(parameters, gradients, strict=True)}
    found |= {name: value.asnumpy() for name, value in ours.parameters_dict().items() if not trainable(name)}
    ours.set_train(False)

    checks = []
    for name in ours.parameters_dict():
        what = f"gradient of {name}" if trainable(name) else f"{name} after a step"
        error = _distance(found[name], expected[name]) if name in expected and name in found else float("inf")
        checks.append(Check(what, error, GRADIENTS_BAR))
    return checks


def first_departure(ours: Any, theirs: Any, images: Array) -> Departure | None:
    """Run both networks layer by layer and return the first layer whose output leaves the bar, if one does.

    None although :func:`compare` failed says that the layers are right and that what computes several of them in one
    piece is not; the failed checks name the block.
    """
    import mindspore
    import torch

    layers = list(_layers(ours))
    our_outputs: dict[str, Array] = {}
    their_outputs: dict[str, Array] = {}
    modules = dict(theirs.named_modules())
    cells = dict(ours.cells_and_names())

    def keep(store: dict[str, Array], name: str) -> Any:
        def hook(_: Any, __: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            store.setdefault(name, first.detach().numpy() if isinstance(first, torch.Tensor) else first.asnumpy())

        return hook

    handles = []
    for name in layers:
        handles.append(cells[name].register_forward_hook(keep(our_outputs, name)))
        handles.append(modules[name].register_forward_hook(keep(their_outputs, name)))
    try:
        with torch.no_grad():
            theirs(torch.from_numpy(images))
            ours(mindspore.Tensor(images))
    finally:
        for handle in handles:
            handle.remove()

    errors = [(name, _deviation(our_outputs[name], their_outputs[name])) for name in layers]
    # A branch deep in the network may stray a little by rounding alone; what departs goes further.
    for bar in (_DEPARTURE_BAR, LOGITS_BAR):
        for index, (name, error) in enumerate(errors):
            if not error <= bar:
                return Departure(name, error, tuple(errors[max(index - _SHOWN_BEFORE_DEPARTURE, 0) : index]))
    return None


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


def _deviation(found: Array, expected: Array) -> float:
    """Largest difference as a fraction of the expected values' standard deviation.

    Values that do not vary prove nothing, as of a network of zeros: that is infinitely far.
    """
    deviation = float(expected.std())
    if found.shape != expected.shape or deviation == 0.0:
        return float("inf")
    return float(np.abs(found - expected).max() / deviation)


def _distance(found: Array, expected: Array) -> float:
    """Norm of the difference as a fraction of the expected values' norm."""
    if found.shape != expected.shape:
        return float("inf")
    return float(np.linalg.norm(found - expected) / max(float(np.linalg.norm(expected)), 1e-30))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("mindspore", "torch", "timm", "numpy")}
