"""What a card tells of the run that made or measured its weights: each field of a run record has one place here."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from cards.front_matter import is_deep
from cards.public import file_name, is_model_id
from xcit_hub.run_record import RunRecord
from xcit_hub.shipped import shipped_recipes

ELSEWHERE = frozenset(
    {"recipe", "flags", "started_from", "device", "cards", "batch_size", "image_size", "jit_level", "dataset",
     "graph_compile_seconds", "ms_per_step", "images_per_second", "params", "num_classes", "classes", "top1", "top5",
     "eval_loss", "eval_samples", "train_split", "eval_split", "preprocessing", "model", "dialect"}
)  # fmt: skip
"""Told in sections of their own, or held against the file."""

TABLE: dict[str, tuple[str, str]] = {
    "epochs": ("epochs", "训练轮数"),
    "train_samples": ("images trained on", "训练图像数"),
    "seed": ("seed", "随机种子"),
    "mode": ("mode", "运行模式"),
    "final_loss": ("training loss of the last epoch", "最后一轮的训练损失"),
    "weights": ("weights in the file", "文件中的权重"),
    "checkpoint": ("evaluated file", "评估的文件"),
    "tta": ("views of each image whose logits evaluation averaged", "评估时取 logits 平均的每张图像视图数"),
    "val_amp_level": ("precision level of evaluation", "评估的精度级别"),
    "amp_dtype": ("its type of less than float32", "其低于 float32 的类型"),
    "class_map": ("list of which output is whose", "输出与类别的对应表"),
    "real_labels": ("reassessed labels", "重新评定的标签"),
    "real_top1": ("top-1 by these (%)", "按其计算的 top-1（%）"),
    "real_top5": ("top-5 by these (%)", "按其计算的 top-5（%）"),
    "eval_seconds": ("seconds to evaluate", "评估用时（秒）"),
    "skipped_updates": ("updates left out because gradients were not finite", "因梯度非有限值而跳过的更新"),
    "unreadable": ("images that could not be read", "无法读取的图像"),
    "versions": ("software", "软件"),
}
"""Told in a table of the run, under these names."""

LEFT_OUT: dict[str, str] = {
    "curve": "drawn on the page of `card html --run`",
    "confusion": "shown on the page of `card html --run`",
    "samples": "images of somebody's data set: shown on the page of `card html --run`, and kept out of cards and hubs",
    "format": "of the record, not of the run",
    "configuration": "the recipe says every key, and the flags what was changed",
    "checkpoint_sha256": "held against the file, whose own digest the card has",
}
"""Not told, with the reason."""

# Hugging Face's own word for a folder of images a class: what a figure was measured on when nobody can say more.
UNNAMED = "imagefolder"
_UNNAMED_IN_WORDS = {"en": "a folder of images", "zh": "一个图像文件夹"}
IMAGENET = "ImageNet-1k"
_IMAGENET_NAMES = frozenset({"imagenet", "imagenet-1k", "imagenet2012", "imagenet-2012"})
_IMAGENET_IMAGES = 50_000
TRAINED_ON = ("train", "training")
"""What the images of a training are called as a part of a data set."""
_LOADERS = ("tar", "mindrecord")  # how images are packed, and no data set
_PACKED = (*_LOADERS, "cifar10", "cifar100")

_WHERE_FILES_LIE = frozenset({"ckpt_save_dir", "data_dir", "config", "resume_opt", "resume"})

_BEGIN = frozenset({"ckpt_path", "pretrained"})

_RECIPES = PurePosixPath("configs/xcit")
# A flag, and the key of a recipe that it replaces.
_SAY_THE_SAME = {"lr": "lr_base", "lr_base": "lr", "warmup_lr": "warmup_factor", "warmup_factor": "warmup_lr"}


def table(run: RunRecord, lang: str) -> list[tuple[str, str]]:
    """Return the rows of the table of a run: name and value as text; fields that say nothing are left out."""
    told = [(names[lang == "zh"], _said(name, getattr(run, name))) for name, names in TABLE.items()]
    return [(name, text) for name, text in told if text]


def dataset_of(run: RunRecord) -> str:
    """Return the name of what a run measured on. ImageNet-1k's validation set has 50,000 images and nothing less."""
    name = file_name(run.dataset or "") or UNNAMED
    if name in _LOADERS:
        return UNNAMED
    if name.lower() not in _IMAGENET_NAMES:
        return name
    return IMAGENET if run.eval_samples == _IMAGENET_IMAGES else UNNAMED


def split_of(run: RunRecord) -> str:
    """Return the name of the part of a data set that a run measured on, in the word that Hugging Face has for it."""
    name = file_name(run.eval_split or "")
    return "validation" if name in ("", "val", "valid") else name


def folders(run: RunRecord) -> tuple[str, str] | None:
    """Return the folders with a run's images, for training and evaluation; None where no folders hold them."""
    if run.dataset in _PACKED:
        return None
    return file_name(run.train_split or "train"), file_name(run.eval_split or "val")


def in_words(dataset: str, lang: str) -> str:
    """Return the name of a data set as a person reads it: one that nobody named is not called by a loader's name."""
    return _UNNAMED_IN_WORDS[lang] if dataset == UNNAMED else dataset


def device_of(run: RunRecord) -> str:
    """Return on what a run was measured: devices and MindSpore's version."""
    software = f"MindSpore {run.versions.mindspore}" if run.versions.mindspore else None
    machine = f"{run.cards or 1} × {run.device}" if run.device else None
    return ", ".join(part for part in (machine, software) if part) or "run.json"


def measured_by(run: RunRecord) -> str:
    """Return on what a run was measured, and what else decides its figures: views, precision, a list of classes."""
    fields = {"tta": run.tta, "val_amp_level": run.val_amp_level, "class_map": file_name(run.class_map or "")}
    others = [f"{name} {value}" for name, value in fields.items() if value not in (None, 0, "O0", "")]
    return ", ".join([device_of(run), *others])


def changes(run: RunRecord) -> dict[str, str]:
    """Return the recipe's keys that the command line changed, with their values as they were written there."""
    return {name: _flag(value) for name, value in run.flags.items() if name not in _WHERE_FILES_LIE}


def published_recipe(run: RunRecord) -> str | None:
    """Return the path of a run's recipe as the project has it, where the file is the project's and says what was used.

    Of any other file only the name: the disk is nobody's business.
    """
    if run.recipe is None:
        return None
    written = PurePosixPath(run.recipe.replace("\\", "/"))
    shipped, name = shipped_recipes(), written.name.removesuffix(".yaml")
    is_alone = len(written.parts) == 1 and (not written.suffix or run.configuration is not None)
    is_called_so = is_alone or written.parts[-3:-1] == _RECIPES.parts
    is_projects = is_called_so and name in shipped and _says_what_was_used(shipped[name], run)
    return str(_RECIPES / f"{name}.yaml") if is_projects else written.name


def is_of_the_project(recipe: str | None) -> bool:
    """Say whether a recipe's path in a card is that of one that comes with the library."""
    path = PurePosixPath(recipe or "")
    return path.parent == _RECIPES and path.suffix == ".yaml" and path.stem in shipped_recipes()


def _says_what_was_used(recipe: Path, run: RunRecord) -> bool:
    """Whether each key of a recipe's file has the value of the run, but for those that the command line changed."""
    used, said = run.configuration or {}, yaml.safe_load(recipe.read_text(encoding="utf-8"))
    changed = {*run.flags, *(_SAY_THE_SAME[name] for name in run.flags if name in _SAY_THE_SAME), *_WHERE_FILES_LIE}
    return all(used[key] == value for key, value in said.items() if key in used and key not in changed)


def data_folder(dataset: str | None) -> str:
    """Return a stand-in for the folder where somebody keeps a data set."""
    name = "images" if dataset in (None, UNNAMED) else dataset.lower()
    words = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    return f"/path/to/{words or 'images'}"


def command(run: RunRecord) -> str:
    """Return the command that repeats a training run."""
    several = f"msrun --bind_core=True --worker_num {run.cards} --local_worker_num {run.cards} python -m xcit_hub train"
    recipe = ["--config", shlex.quote(run.recipe)] if run.recipe else []
    return _line([several if (run.cards or 1) > 1 else "xcit-hub train", *recipe, *_flags(run, frozenset())])


def validation(run: RunRecord, weights: str) -> str:
    """Return the command that measures the weights as the run did; what only begins a training run is left out."""
    recipe = ["-c", shlex.quote(run.recipe)] if run.recipe else []
    return _line(["xcit-hub eval", *recipe, *_flags(run, _BEGIN), "--ckpt_path", shlex.quote(f"/path/to/{weights}")])


def _flags(run: RunRecord, without: frozenset[str]) -> list[str]:
    told = {name: value for name, value in changes(run).items() if name not in without}
    flags = [shlex.quote(word) for name, value in told.items() for word in (f"--{name}", value)]
    return ["--data_dir", data_folder(dataset_of(run)), *flags]


def _line(words: list[str]) -> str:
    # On one line nothing can end the block of code that the command stands in.
    return " ".join(" ".join(words).split())


def origin(run: RunRecord) -> str | None:
    """Return the model id or the file name of the weights that a run began with."""
    start = run.started_from
    return start if start is None or is_model_id(start) else file_name(start) or None


def _flag(value: Any) -> str:
    told = "…" if isinstance(value, (list, dict)) and is_deep(value) else _anywhere(value)
    return json.dumps(told, ensure_ascii=False) if isinstance(told, (list, dict)) else str(told)


def _anywhere(value: Any) -> Any:
    """Return the same value with a stand-in for each path of somebody's disk; the name of a model stays."""
    if isinstance(value, list):
        return [_anywhere(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _anywhere(entry) for key, entry in value.items()}
    if isinstance(value, str) and re.search(r"[/\\]", value) and not is_model_id(value):
        return f"/path/to/{file_name(value)}"
    return value


def _said(name: str, value: Any) -> str:
    if name == "versions":
        said = value.model_dump(exclude_none=True)
        return ", ".join(f"{key} {version}" for key, version in said.items())
    if name == "unreadable":
        return str(len(value)) if value else ""
    if name == "tta":
        return str(value or "")
    if name == "val_amp_level":
        return "" if value == "O0" else value or ""
    if name in ("checkpoint", "class_map", "real_labels"):
        return file_name(value) if value else ""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
