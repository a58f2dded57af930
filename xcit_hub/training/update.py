"""From the gradients of a step to new weights, a new loss scale and a new moving average; and sums of gradients."""

from __future__ import annotations

from mindspore import Parameter, ParameterTuple, Tensor, amp, nn, ops
from mindspore import dtype as mstype

from xcit_hub.accelerated import available
from xcit_hub.accelerated.operations import squared_sum
from xcit_hub.models import XCiT
from xcit_hub.models.functions import device_target
from xcit_hub.training.optimizers import Optimizer
from xcit_hub.training.recipe import Recipe

_SCALE_WINDOW = 2000  # as in torch.amp.GradScaler and MindCV: steps without overflow before the scale doubles
_AT_ONCE = 1e9  # 1 − exp of it is 1: the average is at its full decay from the first update
_EMA_POWER = 2 / 3  # of timm's ModelEmaV3
_CLIP_EPSILON = 1e-6  # torch.nn.utils.clip_grad_norm_

for_each = ops.HyperMap()
multiplied = ops.MultitypeFuncGraph("multiplied")
_single = ops.MultitypeFuncGraph("single")
_average = ops.MultitypeFuncGraph("average")
add = ops.MultitypeFuncGraph("add")
clear = ops.MultitypeFuncGraph("clear")


@multiplied.register("Tensor", "Tensor")
def _multiply_one(factor: Tensor, gradient: Tensor) -> Tensor:
    return gradient.astype(mstype.float32) * factor


@_single.register("Tensor")
def _single_one(gradient: Tensor) -> Tensor:
    return gradient.astype(mstype.float32)


@_average.register("Tensor", "Tensor", "Tensor")
def _average_one(decay: Tensor, average: Parameter, weight: Tensor) -> bool:
    ops.assign(average, average * decay + weight * (1.0 - decay))
    return True


@add.register("Tensor", "Tensor")
def _add_one(total: Parameter, gradient: Tensor) -> bool:
    ops.assign(total, total + gradient.astype(mstype.float32))
    return True


@clear.register("Tensor")
def _clear_one(total: Parameter) -> bool:
    ops.assign(total, ops.zeros_like(total))
    return True


class _SquaredSum(nn.Cell):
    """The sum of a gradient's squares, (1), by MindSpore's operations: two passes over it on one core of a CPU."""

    def construct(self, gradient: Tensor) -> Tensor:
        return (gradient * gradient).sum().reshape((1,))


class Update(nn.Cell):
    """From scaled gradients to new weights, a new loss scale and a new moving average."""

    def __init__(self, network: XCiT, optimizer: Optimizer, recipe: Recipe, ema: XCiT | None, workers: int) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.reduce = (
            nn.DistributedGradReducer(optimizer.weights, mean=True, degree=workers) if workers > 1 else nn.Identity()
        )
        self.clip = recipe.clip_value if recipe.clip_grad else 0.0
        self.guarded = recipe.guarded
        self.dynamic = recipe.dynamic_scaling
        # Else the gradients are what they are, and nobody need pass over them.
        self.scaled = recipe.dynamic_scaling or recipe.first_loss_scale != 1.0
        self.scaler = amp.DynamicLossScaler(recipe.first_loss_scale, scale_factor=2, scale_window=_SCALE_WINDOW)
        self.scale, self.quiet_steps = self.scaler.scale_value, self.scaler.counter
        self.scale.name, self.quiet_steps.name = "loss_scale", "quiet_steps"
        self.of_loss = self.scale if self.scaled else Tensor(1.0, mstype.float32)
        for parameter in (self.scale, self.quiet_steps):
            parameter.requires_grad = False
        # There the hardware keeps the overflow to itself: the first cards saturate instead of giving infinity. Each
        # knows of its own alone, and the sum of saturated gradients does not tell the others.
        self.hidden_overflow = device_target() == "Ascend"
        self.together = ops.AllReduce() if self.hidden_overflow and workers > 1 else nn.Identity()
        self.squared_sum = squared_sum() if available() else _SquaredSum()
        self.decay = Tensor(recipe.ema_decay, mstype.float32)
        # A branch on it in the graph would lose the optimizer's update, whose count one of the sides does not read.
        self.haste = 1.0 / recipe.ema_warmup if recipe.ema_warmup else _AT_ONCE
        self.form = recipe.ema_form
        self.averaged = ema is not None
        self.weights = ParameterTuple(list(network.get_parameters()))
        averages = {} if ema is None else {each.name: each for each in ema.get_parameters()}
        self.averages = ParameterTuple([averages[f"ema.{each.name}"] for each in self.weights] if averages else [])

    def construct(self, gradients: tuple[Tensor, ...], learning_rate: Tensor) -> tuple[Tensor, Tensor]:
        """Update by the gradients; return their global norm, and 1.0 or, where the update was skipped, 0.0."""
        gradients = self.reduce(gradients)
        if self.scaled:
            gradients = for_each(ops.partial(multiplied, 1.0 / self.scale), gradients)
        else:
            gradients = for_each(_single, gradients)
        norm = ops.sqrt(ops.addn([self.squared_sum(gradient) for gradient in gradients])).reshape(())
        finite = ops.isfinite(norm)
        if self.hidden_overflow:
            overflows = self.together(1.0 - amp.all_finite(gradients).astype(mstype.float32))
            finite = ops.logical_and(finite, overflows == 0.0)
        if self.clip > 0.0:
            factor = ops.minimum(self.clip / (norm + _CLIP_EPSILON), Tensor(1.0, mstype.float32))
            gradients = for_each(ops.partial(multiplied, factor), gradients)
        if self.guarded:
            if finite:
                self._apply(gradients, learning_rate)
        else:
            self._apply(gradients, learning_rate)
        if self.dynamic:
            self.scaler.adjust(finite)
        applied = finite.astype(mstype.float32) if self.guarded else Tensor(1.0, mstype.float32)
        return norm, applied

    def _apply(self, gradients: tuple[Tensor, ...], learning_rate: Tensor) -> None:
        updates = self.optimizer(gradients, learning_rate)
        if self.averaged:
            for_each(ops.partial(_average, self._kept(updates)), self.averages, self.weights)

    def _kept(self, updates: Tensor) -> Tensor:
        """Return what the average keeps of itself at update number ``updates``, from 1 on; both float32 scalars."""
        if self.form == "mindcv":
            # decay · (1 − exp(−t/2000)), so that the initial weights are soon forgotten.
            return self.decay * -ops.expm1(-updates * self.haste)
        if self.form == "timm":
            return self.decay * (updates > 1.0).astype(mstype.float32)
        # ModelEmaV3's get_decay: its step is the update before this one, its gamma 1.
        return ops.minimum(self.decay, 1.0 - ops.pow(updates, -_EMA_POWER))
