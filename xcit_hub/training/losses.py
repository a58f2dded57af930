"""What is minimised. Targets are always dense: one row of class probabilities an image."""

from __future__ import annotations

from typing import Literal

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype


class SoftTargetLoss(nn.Cell):
    """Cross-entropy (``CE``) or binary cross-entropy (``BCE``) against dense targets, mean over the batch.

    Label smoothing and mixing are in the targets already (timm, ``SoftTargetCrossEntropy``). BCE is the mean over
    batch and classes (MindCV's ``BinaryCrossEntropySmooth``).
    """

    def __init__(self, kind: Literal["CE", "BCE"]) -> None:
        super().__init__()
        self.kind = kind

    def construct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Map logits and targets, both (B, classes), to a float32 scalar."""
        logits = logits.astype(mstype.float32)
        if self.kind == "CE":
            return -(targets * ops.log_softmax(logits, -1)).sum(-1).mean()
        # max(x, 0) − x·t + log(1 + e^−|x|) never overflows.
        return (ops.relu(logits) - logits * targets + ops.log1p(ops.exp(-ops.abs(logits)))).mean()


class PixelLoss(nn.Cell):
    """Cross-entropy of every pixel, mean over all of them; those of no class add nothing, as in mmsegmentation 0.11."""

    def construct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Map logits (B, K, H, W) and classes (B, H, W) int32, negative where there is none, to a float32 scalar."""
        shares = ops.log_softmax(logits.astype(mstype.float32), 1)
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
            student = ops.log_softmax(logits / self.tau, -1)
            teacher = ops.log_softmax(teacher_logits / self.tau, -1)
            # Mean over all elements, as DeiT divides by numel.
            agreement = (ops.exp(teacher) * (teacher - student)).mean() * (self.tau * self.tau)
        else:
            chosen = ops.one_hot(
                teacher_logits.argmax(-1),
                logits.shape[-1],
                Tensor(1.0, mstype.float32),
                Tensor(0.0, mstype.float32),
            )
            agreement = -(chosen * ops.log_softmax(logits, -1)).sum(-1).mean()
        return self.base(logits, targets) * (1.0 - self.alpha) + agreement * self.alpha
