"""What is minimised. Targets are always dense: one row of class probabilities an image."""

from __future__ import annotations

from typing import Literal

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from xcit_hub.training.hyperparameters import LossKind

_JSD_WEIGHT = 12.0
_GAMMA_OTHERS = 4.0
_MARGIN, _LEAST = 0.05, 1e-8


class SoftTargetLoss(nn.Cell):
    """What is minimised against dense targets. Label smoothing and mixing are in the targets already.

    ``CE`` is cross-entropy (timm, ``SoftTargetCrossEntropy``), ``BCE`` the binary one of every class (MindCV,
    ``BinaryCrossEntropySmooth``), ``JSD`` cross-entropy of the untouched images and the divergence between the
    predictions of an image's views (AugMix, arXiv:1912.02781), ``ASL_SINGLE_LABEL`` and ``ASL_MULTI_LABEL`` asymmetric
    losses (arXiv:2009.14119) with MindCV's parameters.

    Args:
        kind: one of these.
        reduction: ``mean`` over the batch (of BCE over classes, too), or ``sum``. As in MindCV it does not apply to the
            divergence, nor to ASL, whose single-label form is a mean and whose multi-label form a sum.
        views: of an image in a batch, for JSD: the batch is that many equal parts, the first one untouched.
    """

    def __init__(self, kind: LossKind, reduction: Literal["mean", "sum"] = "mean", views: int = 1) -> None:
        super().__init__()
        self.kind = kind
        self.summed = reduction == "sum"
        self.views = views

    def construct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Map logits and targets, both (B, classes), to a float32 scalar."""
        logits = logits.astype(mstype.float32)
        if self.kind == "BCE":
            # max(x, 0) − x·t + log(1 + e^−|x|) never overflows.
            each = ops.relu(logits) - logits * targets + ops.log1p(ops.exp(-ops.abs(logits)))
            return each.sum() if self.summed else each.mean()
        if self.kind == "JSD":
            return self._jsd(logits, targets)
        if self.kind == "ASL_SINGLE_LABEL":
            return _asymmetric_single(logits, targets)
        if self.kind == "ASL_MULTI_LABEL":
            return _asymmetric_multi(logits, targets)
        return self._cross_entropy(logits, targets)

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        each = -(targets * _log_softmax(logits)).sum(-1)
        return each.sum() if self.summed else each.mean()

    def _jsd(self, logits: Tensor, targets: Tensor) -> Tensor:
        images = logits.shape[0] // self.views
        shares = ops.softmax(logits, -1).reshape(self.views, images, -1)
        mixture = ops.log(ops.clamp(shares.mean(0), 1e-7, 1.0))
        logarithms = _log_softmax(logits).reshape(self.views, images, -1)
        divergence = (shares * (logarithms - mixture)).sum() / images / self.views
        return self._cross_entropy(logits[:images], targets[:images]) + _JSD_WEIGHT * divergence


class _LogSoftmax(nn.Cell):
    """Logarithms of the shares along the last axis, with a derivative of its own.

    The gradient of MindSpore's own is 2.5e-6 off on a CPU. It is not built of ``ops.exp`` either: there the last bit
    depends on how often it was called before, so that a continued run would differ from an undisturbed one.
    """

    def construct(self, logits: Tensor) -> Tensor:
        return ops.log_softmax(logits, -1)

    def bprop(self, logits: Tensor, out: Tensor, up: Tensor) -> tuple[Tensor]:  # noqa: ARG002  # MindSpore gives it
        return (up - ops.softmax(logits, -1) * up.sum(-1, keepdims=True),)


_log_softmax = _LogSoftmax()


def _asymmetric_single(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy whose terms weigh (1 − p)^1 for the label and p^4 for the other classes."""
    logarithms = _log_softmax(logits)
    on, off = Tensor(1.0, mstype.float32), Tensor(0.0, mstype.float32)
    label = ops.one_hot(targets.argmax(-1), logits.shape[-1], on, off)
    share = ops.exp(logarithms)
    weight = ops.select(label > 0.5, 1.0 - share, ops.pow(share, _GAMMA_OTHERS))
    return -(targets * logarithms * weight).sum(-1).mean()


def _asymmetric_multi(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy whose terms weigh by how far they are from the target; sum over classes and batch."""
    share = ops.sigmoid(logits)
    other = ops.minimum(1.0 - share + _MARGIN, ops.ones_like(share))
    least = ops.full_like(share, _LEAST)
    each = targets * ops.log(ops.maximum(share, least)) + (1.0 - targets) * ops.log(ops.maximum(other, least))
    near = share * targets + other * (1.0 - targets)
    return -(each * ops.pow(1.0 - near, targets + _GAMMA_OTHERS * (1.0 - targets))).sum()


class PixelLoss(nn.Cell):
    """Cross-entropy of every pixel, mean over all of them; those of no class add nothing, as in mmsegmentation 0.11."""

    def construct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Map logits (B, K, H, W) and classes (B, H, W) int32, negative where there is none, to a float32 scalar."""
        shares = ops.log_softmax(logits.astype(mstype.float32), 1)  # in one tensor: maps are large
        counts = (targets >= 0).astype(mstype.float32)
        taken = ops.gather_elements(shares, 1, ops.expand_dims(ops.maximum(targets, 0), 1))
        return -(taken[:, 0] * counts).mean()


class DistillationLoss(nn.Cell):
    """A base loss mixed with agreement with a teacher on the same images (DeiT, arXiv:2012.12877, section 4).

    XCiT has no distillation token: the teacher's loss reads the same logits (facebookresearch/xcit, losses.py).

    Args:
        base: loss against the targets.
        kind: ``soft``: divergence from the teacher's softened probabilities; ``hard``: cross-entropy with its arg-max.
        alpha: weight of the teacher's part, in 0…1.
        tau: temperature of the soft form.
    """

    def __init__(self, base: nn.Cell, kind: Literal["soft", "hard"], alpha: float, tau: float) -> None:
        super().__init__()
        self.base = base
        self.kind = kind
        self.alpha = alpha
        self.tau = tau

    def construct(self, logits: Tensor, targets: Tensor, teacher_logits: Tensor) -> Tensor:
        """Map the student's logits, the targets and the teacher's logits, all (B, classes), to a float32 scalar."""
        logits = logits.astype(mstype.float32)
        teacher_logits = teacher_logits.astype(mstype.float32)
        if self.kind == "soft":
            student = _log_softmax(logits / self.tau)
            teacher = _log_softmax(teacher_logits / self.tau)
            # Mean over all elements, as DeiT divides by numel.
            agreement = (ops.exp(teacher) * (teacher - student)).mean() * (self.tau * self.tau)
        else:
            chosen = ops.one_hot(
                teacher_logits.argmax(-1),
                logits.shape[-1],
                Tensor(1.0, mstype.float32),
                Tensor(0.0, mstype.float32),
            )
            agreement = -(chosen * _log_softmax(logits)).sum(-1).mean()
        return self.base(logits, targets) * (1.0 - self.alpha) + agreement * self.alpha
