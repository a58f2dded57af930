from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor

from xcit_hub.training.losses import DistillationLoss, SoftTargetLoss

torch = pytest.importorskip("torch")
functional = torch.nn.functional

RNG = np.random.default_rng(0)
LOGITS = (RNG.standard_normal((6, 11)) * 20).astype(np.float32)
TEACHER = RNG.standard_normal((6, 11)).astype(np.float32)
TARGETS = RNG.dirichlet(np.ones(11), 6).astype(np.float32)


def test_cross_entropy_is_timms_soft_target_loss() -> None:
    from timm.loss import SoftTargetCrossEntropy

    expected = SoftTargetCrossEntropy()(torch.from_numpy(LOGITS), torch.from_numpy(TARGETS))
    assert float(SoftTargetLoss("CE")(Tensor(LOGITS), Tensor(TARGETS))) == pytest.approx(expected.item(), rel=1e-5)


def test_binary_cross_entropy_is_torchs() -> None:
    expected = functional.binary_cross_entropy_with_logits(torch.from_numpy(LOGITS), torch.from_numpy(TARGETS))
    assert float(SoftTargetLoss("BCE")(Tensor(LOGITS), Tensor(TARGETS))) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_distillation_is_deits(kind: str) -> None:
    student, teacher = torch.from_numpy(LOGITS), torch.from_numpy(TEACHER)
    base = -(torch.from_numpy(TARGETS) * functional.log_softmax(student, -1)).sum(-1).mean()
    tau, alpha = 3.0, 0.25
    if kind == "soft":
        divergence = functional.kl_div(
            functional.log_softmax(student / tau, 1),
            functional.log_softmax(teacher / tau, 1),
            reduction="sum",
            log_target=True,
        )
        agreement = divergence * tau * tau / student.numel()
    else:
        agreement = functional.cross_entropy(student, teacher.argmax(1))
    expected = base * (1 - alpha) + agreement * alpha
    loss = DistillationLoss(SoftTargetLoss("CE"), kind, alpha, tau)  # type: ignore[arg-type]
    assert float(loss(Tensor(LOGITS), Tensor(TARGETS), Tensor(TEACHER))) == pytest.approx(expected.item(), rel=1e-5)
