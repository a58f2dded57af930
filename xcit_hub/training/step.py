"""One training step: forward, backward, reduce, unscale, clip, update, average. The same in graph mode and PyNative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mindspore
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore import dtype as mstype

from xcit_hub.accelerated import accelerate, is_fused
from xcit_hub.accelerated.stacked import Arrays, StackedXCiT, by_layer, fill, members, stacked
from xcit_hub.data.batches import Worker
from xcit_hub.errors import InputError
from xcit_hub.models import XCiT
from xcit_hub.models.private import recomputes
from xcit_hub.training.device import compile_at
from xcit_hub.training.losses import DistillationLoss, SoftTargetLoss
from xcit_hub.training.optimizers import create_optimizer, parameter_settings
from xcit_hub.training.randomness import seed_dropout
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.update import Update, add, clear, for_each, multiplied


@dataclass(frozen=True)
class StepResult:
    """What one step says: float32 scalars on the device.

    Args:
        loss: mean loss of this worker's batch, unscaled.
        norm: global L2 norm of the gradients before clipping; not finite after an overflow.
        applied: 1 if the weights were updated, 0 if the update was skipped or is still accumulating.
    """

    loss: Tensor
    norm: Tensor
    applied: Tensor


class _Backward(nn.Cell):
    """Loss and gradients of one batch; the gradients are scaled by the loss scale."""

    def __init__(
        self,
        network: XCiT,
        loss: nn.Cell,
        weights: ParameterTuple,
        teacher: nn.Cell | None,
        shares: int,
        *,
        told: bool,
        classes: int,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss = loss
        self.teacher = teacher
        self.told = told  # what a teacher answered, beside the targets
        self.classes = classes
        self.share = 1.0 / shares
        self.value_and_grad = mindspore.value_and_grad(self._scaled_loss, None, weights, has_aux=True)

    def _scaled_loss(self, images: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(images)
        if self.told:
            loss = self.loss(logits, targets[:, : self.classes], targets[:, self.classes :])
        elif self.teacher is None:
            loss = self.loss(logits, targets)
        else:
            loss = self.loss(logits, targets, ops.stop_gradient(self.teacher(images)))
        return loss * scale * self.share, loss

    def construct(self, images: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        (_, loss), gradients = self.value_and_grad(images, targets, scale)
        return loss, gradients


class _FusedStep(nn.Cell):
    """Backward and update as one graph, where nothing accumulates."""

    def __init__(self, backward: _Backward, update: Update) -> None:
        super().__init__(auto_prefix=False)
        self.backward = backward
        self.update = update

    def construct(self, images: Tensor, targets: Tensor, learning_rate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loss, gradients = self.backward(images, targets, self.update.of_loss)
        norm, applied = self.update(gradients, learning_rate)
        return loss, norm, applied


class _Accumulate(nn.Cell):
    """Backward, and the gradients added to what is there."""

    def __init__(self, backward: _Backward, scale: Tensor, sums: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.backward = backward
        self.scale = scale
        self.sums = sums

    def construct(self, images: Tensor, targets: Tensor) -> Tensor:
        loss, gradients = self.backward(images, targets, self.scale)
        for_each(add, self.sums, gradients)
        return loss


class _ApplySums(nn.Cell):
    """Update from the accumulated gradients, and start again from zero."""

    def __init__(self, update: Update, sums: ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.update = update
        self.sums = sums
        self.one = Tensor(1.0, mstype.float32)

    def construct(self, learning_rate: Tensor) -> tuple[Tensor, Tensor]:
        norm, applied = self.update(for_each(ops.partial(multiplied, self.one), self.sums), learning_rate)
        for_each(clear, self.sums)
        return norm, applied


class TrainStep:
    """A network under training: call it with one batch after another.

    Args:
        network: the student. Its parameters are trained; load weights, freeze, recompute, hook and replace its
            classifier before. Read it from :attr:`network` after, which is computed by compiled code where that serves:
            where its blocks are trained as one cell (see :mod:`xcit_hub.accelerated.stacked`) they are as they were
            until that brings them up to date.
        recipe: loss, optimizer, clipping, scaling, accumulation, averaging.
        ema: the network that holds the moving average, a copy of ``network`` at the start; its parameters are renamed
            ``ema.…``. None without averaging. Read it from :attr:`ema`.
        teacher: the distillation teacher, in evaluation mode; None without one.
        told: what a teacher answered stands in the targets, after those of the data.
        worker: this one of the data-parallel workers; their gradients are averaged.

    Raises:
        InputError: the network is fused or its own average, or is to be recomputed in PyNative mode.
    """

    def __init__(
        self,
        network: XCiT,
        recipe: Recipe,
        *,
        ema: XCiT | None = None,
        teacher: nn.Cell | None = None,
        told: bool = False,
        worker: Worker | None = None,
    ) -> None:
        worker = worker or Worker()
        graph = mindspore.get_context("mode") == mindspore.GRAPH_MODE
        _check(network, ema, recipe, graph)
        # Synchronised batch normalisation is not a compiled operation: the plain network has it.
        network = network if recipe.synchronises(worker.count) else accelerate(network)
        ema = None if ema is None else accelerate(ema)
        teacher = accelerate(teacher) if isinstance(teacher, XCiT) else teacher
        self._network = network
        self._ema = ema
        self.accumulation = recipe.gradient_accumulation_steps
        self._freeze_bn = recipe.freeze_bn
        self._sums: Sequence[Parameter] = ()
        # How many batches the sums are of.
        self._position = Parameter(Tensor(0, mstype.int32), name="accumulated", requires_grad=False)
        if ema is not None:
            for parameter in ema.get_parameters():
                parameter.name = f"ema.{parameter.name}"
                parameter.requires_grad = False
        settings = {setting.parameter.name: setting for setting in parameter_settings(network, recipe)}
        treatment = {name: (each.rate, each.decay) for name, each in settings.items()}
        # Without a graph there is no compilation to shorten, and what all blocks keep at once costs memory.
        self._trained = stacked(network, treatment) if graph else network
        self._averaged = StackedXCiT(ema) if ema is not None and self._trained is not network else ema
        self._dropout_step = seed_dropout(self._trained, recipe.seed, worker.rank)
        if teacher is not None:
            for parameter in teacher.get_parameters():
                parameter.name = f"teacher.{parameter.name}"
                parameter.requires_grad = False
            teacher.set_train(False)
        loss: nn.Cell = SoftTargetLoss(recipe.loss, recipe.reduction, recipe.views)
        if (teacher is not None or told) and recipe.distillation_type != "none":
            loss = DistillationLoss(loss, recipe.distillation_type, recipe.distillation_alpha, recipe.distillation_tau)
        self.optimizer = create_optimizer(
            [replace(settings[members(entry)[0]], parameter=entry) for entry in self._trained.trainable_params()],
            recipe,
        )
        backward = _Backward(
            self._trained,
            loss,
            self.optimizer.weights,
            teacher,
            self.accumulation,
            told=told,
            classes=network.num_classes,
        )
        self._update = Update(self._trained, self.optimizer, recipe, self._averaged, worker.count)
        if self.accumulation == 1:
            self._fused = _FusedStep(backward, self._update)
            compile_at(self._fused, recipe)
        else:
            self._sums = self.optimizer.weights.clone(prefix="gradient_sum", init="zeros")
            self._accumulate = _Accumulate(backward, self._update.of_loss, self._sums)
            self._apply_sums = _ApplySums(self._update, self._sums)
            compile_at(self._accumulate, recipe)
            compile_at(self._apply_sums, recipe)
        self._cells = [backward, self._update, *([self._fused] if self.accumulation == 1 else [])]
        self.set_train()

    @property
    def network(self) -> XCiT:
        """The student as trained so far."""
        return _up_to_date(self._network, self._trained)

    @property
    def ema(self) -> XCiT | None:
        """The moving average so far."""
        return None if self._ema is None else _up_to_date(self._ema, self._averaged)

    def set_train(self) -> None:
        """Put the network into training mode; frozen BatchNorm stays in evaluation mode."""
        for network in (self._network, self._trained):
            network.set_train(True)
            if self._freeze_bn:
                _freeze(network)

    def __call__(self, images: Tensor, targets: Tensor, learning_rate: float | Tensor) -> StepResult:
        """Train on one batch: images (B, C, H, W), dense targets (B, classes), twice as wide if told; float32."""
        rate = learning_rate if isinstance(learning_rate, Tensor) else Tensor(learning_rate, mstype.float32)
        result = (
            self._fused_step(images, targets, rate) if self.accumulation == 1 else self._part(images, targets, rate)
        )
        if self._dropout_step is not None:
            ops.assign_add(self._dropout_step, Tensor(1, mstype.int32))
        return result

    @property
    def in_graph(self) -> nn.Cell | None:
        """A step that a graph can hold: images, targets and rate to loss, norm and whether it was applied.

        None where a step is more than one graph: it accumulates, or counts for its dropout.
        """
        return self._fused if self.accumulation == 1 and self._dropout_step is None else None

    def _fused_step(self, images: Tensor, targets: Tensor, rate: Tensor) -> StepResult:
        return StepResult(*self._fused(images, targets, rate))

    def _part(self, images: Tensor, targets: Tensor, rate: Tensor) -> StepResult:
        loss = self._accumulate(images, targets)
        position = (int(self._position) + 1) % self.accumulation
        self._position.set_data(Tensor(position, mstype.int32))
        if position:
            return StepResult(loss, Tensor(0.0, mstype.float32), Tensor(0.0, mstype.float32))
        return StepResult(loss, *self._apply_sums(rate))

    @property
    def loss_scale(self) -> float:
        """The current loss scale."""
        return float(self._update.scale)

    def state(self) -> Arrays:
        """Return everything a continued run needs by name: weights, moments, averages, scale and counters.

        The arrays are views of what the next step changes.
        """
        return by_layer(self._state())

    def restore(self, arrays: Arrays) -> None:
        """Go on from what :meth:`state` returned."""
        fill(self._state(), arrays)

    def _state(self) -> list[Parameter]:
        return [
            *self._weights(),
            *self.optimizer.kept(),
            self._update.scale,
            self._update.quiet_steps,
            *([self._position, *self._sums] if self._sums else []),
            *([] if self._dropout_step is None else [self._dropout_step]),
        ]

    def _weights(self) -> list[Parameter]:
        """The parameters of the network and of the average, as they are trained."""
        networks = [self._trained] if self._averaged is None else [self._trained, self._averaged]
        return [parameter for network in networks for parameter in network.get_parameters()]

    def own(self) -> list[Parameter]:
        """Return what each worker has of its own, so that its mean over all is to be taken before one state is written.

        The running statistics of BatchNorm, the network's and the average's, which no gradient moves, where they are
        not frozen; and the sums of gradients, while an accumulation is under way.
        """
        statistics = [entry for entry in self._weights() if entry.name.endswith((".moving_mean", ".moving_variance"))]
        return [*([] if self._freeze_bn else statistics), *(self._sums if int(self._position) else [])]


def _check(network: XCiT, ema: XCiT | None, recipe: Recipe, graph: bool) -> None:
    if is_fused(network):
        raise InputError(
            "A fused network cannot be trained.", where="network", fix="Train the network that fuse() was called on."
        )
    if ema is network:
        raise InputError("The moving average cannot be the network itself.", where="ema", fix="Give it a copy.")
    if not graph and not recipe.freeze_bn and any(recomputes(block) for block in network.blocks):
        raise InputError(
            "Recomputation in PyNative mode would move BatchNorm's statistics twice at every step.",
            where="recompute",
            fix="Train in graph mode (mode: 0), or with freeze_bn.",
        )


def _up_to_date(network: XCiT, trained: XCiT | None) -> XCiT:
    if isinstance(trained, StackedXCiT):
        trained.spread()
    return network


def _freeze(cell: nn.Cell) -> None:
    if isinstance(cell, nn.BatchNorm2d):
        cell.set_train(False)
    for child in cell.cells():
        _freeze(child)
