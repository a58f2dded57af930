"""What stands beside a network in its file and is not taken over, each kind recognised by what it is."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

from xcit_hub.checkpoints.tensor import StoredTensor
from xcit_hub.errors import WeightsError


class Reason(Enum):
    """Why a tensor of the file is not taken over. The value says it in words."""

    BATCH_COUNTER = "PyTorch's batch counter, unused by a BatchNorm with momentum"
    DISTILLATION_HEAD = "a distillation head, which XCiT does not use at inference"
    PROFILER = "a profiler's counter (thop)"
    OPTIMIZER = "optimizer or training state, which no network is made of"
    COUNTER = "a counter, loss or setting of the training run: a single number"
    METRIC = "the state of a metric or loss of the training run"
    RANDOM_STATE = "the state of a random generator"
    OTHER_HEAD = "a head of the detector, segmenter or self-supervised objective around the backbone"
    AUXILIARY_HEAD = "the auxiliary head of a segmenter, which serves its training and not its answers"
    NORMALIZATION = "the normalisation of images, which the configuration carries"
    PLAIN = "the plain weights, which were not asked for"
    AVERAGED = "the averaged weights, which were not asked for"
    NOT_SELECTED = "another network of the file, which was not selected"
    OUTSIDE = "outside of the network's own names: it looks like a part of something around it"
    CLASSIFIER = "the classifier, which --num-classes did not want"
    PYRAMID = "the feature pyramid of a detector or segmenter, which the target has no network for"


@dataclass(frozen=True)
class Dropped:
    """A tensor of the file that is not taken over, and why."""

    name: str
    reason: Reason


# Training state, under whatever prefix: MindSpore's optimizers put a word before the parameter's name, PyTorch's hold
# `state.NUMBER.WORD`. What shares a parameter's shape under a prefix of its own is found without this table.
_SLOTS = (
    r"adam_[mv]|moments?|moment[12s]|lamb_[mv]|lion_m|exp_avg(_sq)?(_row|_col)?|max_exp_avg_sq|exp_inf|accum(_update)?|stat|"
    r"momentum_buf(fer)?|mean_square|mean_grad|vhat|prev|step_size|ax_?|square_avg|acc_delta|sum"
)
_TRAINING = (
    r"optimizers?|optim|opt|optimizer_states?|optimizer_state_dict|optimizer_dict|schedulers?|lr_schedulers?|"
    r"scheduler_state_dict|lr_scheduler_state_dict|scaler|amp_scaler|fp16_scaler|loss_scaler|grad_scaler|scaler_state_dict|amp"
)

# (pattern of the name within its prefix, reason). Everything else inside a network that is not its own is an error.
TABLE: tuple[tuple[str, Reason], ...] = (
    (r"(.*\.)?num_batches_tracked", Reason.BATCH_COUNTER),
    (r"(.*\.)?head_dist\.(weight|bias)", Reason.DISTILLATION_HEAD),
    (r"(.*\.)?total_(ops|params)", Reason.PROFILER),
    (rf"({_SLOTS})\..*", Reason.OPTIMIZER),
    (rf"(.*\.)?({_TRAINING})\..*", Reason.OPTIMIZER),
    (r"(.*\.)?state\.\d+\.\w+(\.\d+)?", Reason.OPTIMIZER),
    (
        rf"({_SLOTS}|mu|eta)_(cls_token|(blocks|cls_attn_blocks|norm|head|pos_embed\w*|patch_embed)\..*)",
        Reason.OPTIMIZER,
    ),
    (r"(global_step|learning_rate|fake_lr|fake_param|weight_decay|momentum|beta[12]_power|updates)", Reason.OPTIMIZER),
    (r"(loss_scale|scale_sense|scale_value|scale_factor|growth_tracker|cur_iter|state_step|step_t)", Reason.OPTIMIZER),
    (r"(current_iterator_step|last_overflow_iterator_step|ema_decay|current_step)", Reason.OPTIMIZER),
    (r"(epoch_num|step_num|cur_epoch_num|cur_step_num|epoch|step)", Reason.OPTIMIZER),
    (r"(best_acc|best_metric|best|metric|max_accuracy)", Reason.OPTIMIZER),
    (r"(.*\.)?(?=[\w-]*rng)[\w-]+(\.\d+)?", Reason.RANDOM_STATE),
    (
        r"(.*\.)?(criterion|loss_\w+|callbacks?|message_hub|[a-z_]*metrics?|[a-z_]*acc(uracy)?\d?)\..*",
        Reason.METRIC,
    ),
    (r"(.*\.)?(train_|val_|valid_|test_)?loss(es)?(_history|_curve)?(\.\d+)?", Reason.METRIC),
    (r"(.*\.)?(tp|fp|tn|fn|confmat|correct|total|mean_value|sum_value)", Reason.METRIC),
    (r"dino_loss\..*", Reason.OTHER_HEAD),
    (r"(.*\.)?(neck|rpn_head|roi_head|bbox_head|mask_head|decode_head|auxiliary_head)\..*", Reason.OTHER_HEAD),
    (r"(.*\.)?head\.(mlp|last_layer)\..*", Reason.OTHER_HEAD),
    (
        r"(projector|proj\w*_head|predictor|prototypes|online_classifier|ssl_head|linear_probe)\..*",
        Reason.OTHER_HEAD,
    ),
)
_BELOW = r"(.*\.)?"  # what so begins is found below any prefix


def _any(patterns: Iterable[str]) -> re.Pattern[str]:
    """Join patterns into one that says no at once to what is in none of them: to nearly every name of a network."""
    below: list[str] = []
    whole: list[str] = []
    for pattern in patterns:
        (below if pattern.startswith(_BELOW) else whole).append(pattern.removeprefix(_BELOW))
    joined = f"{_BELOW}({'|'.join(below)})|{'|'.join(whole)}"
    return re.compile(re.sub(r"(?<!\\)\((?!\?)", "(?:", joined))


@cache  # most files are asked for no more than that
def _any_of_the_table() -> re.Pattern[str]:
    return _any(pattern for pattern, _ in TABLE)


def is_training_state(prefix: str) -> bool:
    """Whether a prefix is a word that optimizers put before a parameter's name."""
    return any(re.fullmatch(_SLOTS, part) for part in prefix.split("."))


def reason_of(name: str, tensor: StoredTensor | None = None) -> Reason | None:
    """Say what a tensor beside a network is, by its name and size; None if nothing says."""
    found = None
    if _any_of_the_table().fullmatch(name):
        found = next(reason for pattern, reason in TABLE if re.fullmatch(pattern, name))
    if found is None and tensor is not None and tensor.size <= 1:
        return Reason.COUNTER
    return found


_MEANS = {"mean": "std", "mu": "sigma", "new_mean": "new_std", "pixel_mean": "pixel_std", "image_mean": "image_std"}


def normalization(
    tensors: Mapping[str, StoredTensor], network: str = "", others: Sequence[str] = ()
) -> tuple[str, str] | None:
    """Return the names of the mean and the deviation of a network's images, where a wrapper around it keeps them.

    Robust and dense models do: ``normalize.mean`` (RobustBench), ``mu`` and ``sigma``, ``0.mean`` of a Sequential.
    Where a file holds several networks, each has those that stand nearest to it.

    Args:
        network: what stands before the network's names; ``others`` the same of the file's other networks.

    Raises:
        WeightsError: there are several of the network, and they differ.
    """
    nearness: dict[tuple[str, str], int] = {}
    for name, tensor in tensors.items():
        parent, dot, leaf = name.rpartition(".")
        other = f"{parent}{dot}{_MEANS.get(leaf, leaf)}"
        if leaf in _MEANS and other in tensors and tensor.size == tensors[other].size and 1 <= tensor.size <= 4:
            near = _shared(name, network)
            if all(near >= _shared(name, each) for each in others):
                nearness[name, other] = near
    best = max(nearness.values(), default=0)
    nearest = [pair for pair, near in nearness.items() if near == best]
    for pair in nearest[1:]:
        if any(tensors[one].raw() != tensors[two].raw() for one, two in zip(pair, nearest[0], strict=True)):
            raise WeightsError(
                f"The file holds two normalisations of the network's images, which differ: {nearest[0][0]} and "
                f"{pair[0]}.",
                fix="Save the network alone, and say in its configuration how images are normalised.",
            )
    return nearest[0] if nearest else None


def _shared(name: str, prefix: str) -> int:
    """How many parts two dotted names begin with alike."""
    pairs = zip(name.split("."), prefix.split("."), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
