from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mindcv_inputs import drawn_logits
from mindspore import Tensor

from xcit_hub.data.mixing import dense_targets
from xcit_hub.training.losses import DistillationLoss, SoftTargetLoss
from xcit_hub.training.recipe_file import load_recipe

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


MINDCVS: dict[str, float] = json.loads((Path(__file__).parent / "fixtures" / "mindcv_losses.json").read_text())


@pytest.mark.parametrize("case", MINDCVS)
def test_every_loss_is_mindcvs(case: str) -> None:
    """The numbers are those of mindcv.loss 0.5, by fixtures/write_mindcv.py, on labels; here targets are dense."""
    kind, reduction, smoothing = case.split()
    settings: dict[str, Any] = {"model": "xcit_nano_12_p16_224", "loss": kind.lower(), "reduction": reduction}
    if kind == "JSD":
        settings |= {"aug_splits": 3, "auto_augment": "augmix-m5"}
    recipe = load_recipe(None, settings | {"label_smoothing": float(smoothing)})
    logits, labels = drawn_logits()
    targets = dense_targets(labels, logits.shape[1], recipe.smoothing)
    loss = SoftTargetLoss(recipe.loss, recipe.reduction, recipe.views)
    assert float(loss(Tensor(logits), Tensor(targets))) == pytest.approx(MINDCVS[case], rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_jsd_is_timms(smoothing: float) -> None:
    from timm.loss import JsdCrossEntropy

    logits, labels = drawn_logits()
    expected = JsdCrossEntropy(3, smoothing=smoothing)(torch.from_numpy(logits), torch.from_numpy(labels))
    targets = dense_targets(labels, logits.shape[1], smoothing)
    assert float(SoftTargetLoss("JSD", views=3)(Tensor(logits), Tensor(targets))) == pytest.approx(
        expected.item(), rel=1e-5
    )


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
