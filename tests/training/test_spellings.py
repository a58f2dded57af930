"""Every option of timm's train.py, of facebook's main.py and of MindCV's config.py; ``fixtures/train_options.json``."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from timm.scheduler import create_scheduler_v2

from xcit_hub.errors import InputError
from xcit_hub.shipped import shipped_recipes
from xcit_hub.training import facebook_spelling, timm_only, timm_spelling
from xcit_hub.training.recipe import Recipe
from xcit_hub.training.recipe_file import load_recipe, parse_flags
from xcit_hub.training.recipe_rules import TIMMS_DEFAULTS
from xcit_hub.training.schedule import learning_rates

OPTIONS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "fixtures" / "train_options.json").read_text())
MODEL = {"model": "xcit_nano_12_p16_224"}
README = (  # facebookresearch/xcit, README.md, Training
    "--model xcit_small_12_p16 --batch-size 128 --drop-path 0.05 --output_dir /experiments/xcit_small_12_p16/ "
    "--epochs 400"
)


def names(whose: str) -> list[str]:
    return list(OPTIONS[whose]["options"])


def test_every_option_of_mindcv_is_a_key() -> None:
    assert [name for name in names("mindcv") if name not in Recipe.model_fields] == []


def test_every_option_of_timm_is_read_refused_or_dropped_and_is_only_one_of_these() -> None:
    foreign, keys = timm_spelling.NAMES, set(Recipe.model_fields)
    assert [name for name in names("timm") if name not in foreign | keys] == []
    aside = set(timm_only.REFUSED), set(timm_only.DROPPED), set(timm_spelling.RENAMED), keys
    for place, one in enumerate(aside):
        assert not one & set().union(*aside[place + 1 :])
    # Of releases since 0.4.12, the rest is the same; and two that the scheduler factory of timm 1.0.31 reads.
    earlier = set(OPTIONS["timm"]["earlier"])
    assert earlier <= foreign
    assert set(timm_only.NAMES) - set(names("timm")) - earlier == {"lr_decay_fn", "lr_stable_timescale"}
    assert set(timm_spelling.RENAMED.values()) <= keys
    assert len(names("timm")) > 170


def test_every_option_of_facebook_is_read_refused_or_dropped() -> None:
    known = facebook_spelling.NAMES | timm_spelling.NAMES | set(Recipe.model_fields)
    assert [name for name in names("facebook") if name not in known] == []
    assert facebook_spelling.NAMES - set(names("facebook")) == set()
    assert not set(facebook_spelling.REFUSED) & set(facebook_spelling.DROPPED)


def other(value: Any) -> Any:
    """Another value than a quiet one."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else "other"


REFUSED = [("timm", name, quiet) for name, (quiet, _) in timm_only.REFUSED.items()]
REFUSED += [("facebook", name, quiet) for name, (quiet, _) in facebook_spelling.REFUSED.items()]
DROPPED = [("timm", name, quiet) for name, (quiet, _) in timm_only.DROPPED.items()]
DROPPED += [("facebook", name, quiet) for name, (quiet, _) in facebook_spelling.DROPPED.items()]


@pytest.mark.parametrize(("library", "name", "quiet"), REFUSED)
def test_what_is_not_here_is_refused_by_its_name_and_what_asks_for_nothing_may_stand(
    library: str, name: str, quiet: Any
) -> None:
    base = load_recipe(None, {"library": library, **MODEL})
    assert load_recipe(None, {"library": library, **MODEL, name: quiet}) == base
    assert base.without_effect() == {}
    with pytest.raises(InputError, match=f"^{name} .* is not taken") as caught:
        load_recipe(None, {"library": library, **MODEL, name: other(quiet)})
    assert caught.value.fix == f"Leave {name} out."


@pytest.mark.parametrize(("library", "name", "quiet"), DROPPED)
def test_what_is_dropped_is_said_to_have_no_effect_with_the_reason(library: str, name: str, quiet: Any) -> None:
    assert load_recipe(None, {"library": library, **MODEL, name: quiet}).without_effect() == {}
    recipe = load_recipe(None, {"library": library, **MODEL, name: other(quiet)})
    assert list(recipe.without_effect()) == [name]
    assert recipe.model_copy(update={"lr": 0.5}).without_effect() == recipe.without_effect()
    table = timm_only.DROPPED if library == "timm" else facebook_spelling.DROPPED
    assert recipe.without_effect()[name] == table[name][1]


def test_the_file_that_timm_writes_beside_every_run_is_a_recipe(tmp_path: Path) -> None:
    """args.yaml: all options, most at their defaults, some of which mean nothing: null, and empty words."""
    whole = {
        name: value for name, value in OPTIONS["timm"]["options"].items() if name not in ("dr", "train_steps_per_epoch")
    }
    path = tmp_path / "args.yaml"

    def written(**settings: Any) -> Path:
        path.write_text(yaml.safe_dump({**whole, **MODEL, "library": "timm", **settings}))
        return path

    with pytest.raises(InputError, match=r"interpolation: .* not 'random'"):  # timm's default
        load_recipe(written())
    recipe = load_recipe(
        written(train_interpolation="bicubic", data_dir="images", pin_mem=True, epochs=20, lr_base=0.4)
    )
    assert (recipe.opt, recipe.lr_base, recipe.lr_base_size, recipe.label_smoothing) == ("sgd", 0.4, 256, 0.1)
    assert (recipe.epoch_size, recipe.decay_epochs, recipe.warmup_lr, recipe.min_lr) == (20, 20, 1e-5, 0.0)
    assert (recipe.interpolation, recipe.data_dir, recipe.ema, recipe.clip_grad) == ("bicubic", "images", False, False)
    assert "pin_mem" in recipe.without_effect()
    assert load_recipe(path, {"workers": 0}).num_parallel_workers == 1
    recipe = load_recipe(
        written(train_interpolation="bicubic", lr=0.05, input_size=[1, 64, 96], model_ema=True, amp=True)
    )
    assert (recipe.lr, recipe.lr_base, recipe.in_channels, recipe.input_size) == (0.05, None, 1, (64, 96))
    assert "lr_base" in recipe.without_effect()
    assert (recipe.ema, recipe.ema_form, recipe.amp_level, recipe.first_loss_scale) == (True, "timm", "O2", 65536)
    assert load_recipe(path, OPTIONS["timm"]["earlier"]) == recipe, "switches of earlier releases, all off"
    again = load_recipe(path, parse_flags(["--model-ema-warmup", "--amp-dtype", "bfloat16", "--in-chans", "3"]))
    assert (again.ema_form, again.dynamic_scaling, again.in_channels) == ("timm_warmup", False, 3)


def test_the_command_of_facebooks_readme_is_the_recipe_of_the_library() -> None:
    """All but what main.py does not decide: where it runs and writes, and the words for a rate and for noise."""
    flags = parse_flags(["--library", "facebook", "--full_crop", *README.split()])
    recipe, ours = load_recipe(None, flags), load_recipe("xcit_small_12_p16_224")
    apart = {key for key in Recipe.model_fields if getattr(recipe, key) != getattr(ours, key)}
    assert apart == {
        "distribute", "num_classes", "ckpt_save_dir", "ckpt_save_policy",
        "re_value", "lr_base", "lr_base_size", "lr_base_scale", "warmup_lr", "warmup_factor",
    }  # fmt: skip
    assert recipe.filling == ours.filling
    assert recipe.without_effect() == ours.without_effect() == {}
    assert recipe.highest_rate(1024) == pytest.approx(ours.lr)
    small = {"epoch_size": 12, "lr": recipe.highest_rate(1024), "lr_base": None}
    np.testing.assert_allclose(
        learning_rates(recipe.model_copy(update=small), 3), learning_rates(ours.model_copy(update=small), 3), rtol=1e-9
    )


def test_facebooks_words_are_read_as_main_py_reads_them() -> None:
    def read(*words: str) -> Recipe:
        return load_recipe(None, parse_flags(["--library=facebook", "--model=xcit_nano_12_p16", *words]))

    assert read().model == "xcit_nano_12_p16_224"
    assert read("--input-size", "384").model == "xcit_nano_12_p16_384"
    assert (read("--input-size", "256").model, read("--input-size", "256").image_resize) == (
        "xcit_nano_12_p16_224", 256,
    )  # fmt: skip
    assert read().crop_pct == 0.875
    assert (read("--no-model-ema").ema, read("--no-repeated-aug").aug_repeats) == (False, 0)
    taught = read("--distillation-type", "hard", "--teacher-path", "teacher.pth")
    assert (taught.teacher, taught.teacher_ckpt) == ("timm:regnety_160", "teacher.pth")
    assert read("--distillation-type", "soft", "--teacher-model", "resnet50", "--teacher-path", "a.pth").teacher == (
        "timm:resnet50"
    )
    assert read("--teacher-model", "resnet50").teacher == "", "main.py has a name for it always"
    assert (read("--sched", "step").decay_epochs, read("--sched", "step").scheduler) == (30, "step_decay")
    assert read("--data-set", "CIFAR10").dataset == "cifar10"
    assert read("--pretrained", "weights.pth", "--surgery", "other.pth").pretrained == "weights.pth"
    assert read("--lr", "1e-3").highest_rate(256) == pytest.approx(5e-4)
    assert read("--lr_base_size", "256").highest_rate(256) == pytest.approx(5e-4), "a recipe's own name counts"
    for words, says in (
        (("--data-set", "INAT"), "INAT"),
        (("--eval",), "eval"),
        (("--sched", "plateau"), "plateau"),
        (("--distillation-type", "hard"), "teacher's weights"),
    ):
        with pytest.raises(InputError, match=says):
            read(*words)


# huggingface/pytorch-image-models, hfdocs/source/training_script.mdx: each kind of command, but for its model.
PUBLISHED = """
--sched cosine --epochs 150 --warmup-epochs 5 --lr 0.4 --reprob 0.5 --remode pixel --batch-size 256 --amp -j 4
-b 128 --sched step --epochs 450 --decay-epochs 2.4 --decay-rate .97 --opt rmsproptf --opt-eps .001 -j 8 \\
 --warmup-lr 1e-6 --weight-decay 1e-5 --drop 0.3 --drop-path 0.2 --model-ema --model-ema-decay 0.9999 \\
 --aa rand-m9-mstd0.5 --remode pixel --reprob 0.2 --amp --lr .016
-b 512 --sched step --epochs 600 --decay-epochs 2.4 --decay-rate .973 --opt rmsproptf --opt-eps .001 -j 7 \\
 --warmup-lr 1e-6 --weight-decay 1e-5 --drop 0.2 --drop-path 0.2 --model-ema --model-ema-decay 0.9999 \\
 --aa rand-m9-mstd0.5 --remode pixel --reprob 0.2 --amp --lr .064 --lr-noise 0.42 0.9
--lr 0.1 --warmup-epochs 5 --epochs 160 --weight-decay 1e-4 --sched cosine --reprob 0.4 --remode pixel -b 112
--lr 0.6 --warmup-epochs 5 --epochs 240 --weight-decay 1e-4 --sched cosine --reprob 0.4 --recount 3 \\
 --remode pixel --aa rand-m7-mstd0.5-inc1 -b 192 -j 6 --amp --dist-bn reduce
"""
ONE_KEY = {  # the one that asks for what is not here
    "-b 64 --sched cosine --epochs 200 --lr 0.05 --amp --remode pixel --reprob 0.6 --aug-splits 3 "
    "--aa rand-m9-mstd0.5-inc1 --resplit --split-bn --jsd --dist-bn reduce": "split_bn",
}
AS_TIMM = ["--library=timm", "--model=xcit_nano_12_p16_224"]


@pytest.mark.parametrize("command", [line for line in PUBLISHED.replace("\\\n", "").splitlines() if line])
def test_the_commands_that_timm_publishes_are_taken_as_they_are(command: str) -> None:
    recipe = load_recipe(None, parse_flags([*AS_TIMM, *command.split()]))
    words = command.split()
    said = dict(pairwise(words))
    assert (recipe.lr, recipe.epoch_size) == (float(said["--lr"]), int(said["--epochs"]))
    assert recipe.lr_epoch_stair and not recipe.warmup_prefix
    assert recipe.filling == "pixel"
    assert recipe.amp_level == ("O2" if "--amp" in words else "O0")
    if "--decay-epochs" in words:
        rate = float(said["--decay-rate"])
        assert (recipe.decay_epochs, recipe.decay_rate, recipe.opt) == (2.4, rate, "rmsproptf")
    assert recipe.lr_noise == ((0.42, 0.9) if "--lr-noise" in words else None)


def test_flags_of_several_values_and_of_none_are_read_as_timms_parser_reads_them() -> None:
    words = (
        "--mean 0.5 --std 0.5 0.25 0.5 --input-size 3 192 256 --opt-betas 0.9 0.95 --decay-milestones 30 "
        "--sched multistep --cutmix-minmax 0.2 0.8 --torchcompile --wandb-tags a b"
    )
    recipe = load_recipe(None, parse_flags([*AS_TIMM, *words.split()]))
    assert (recipe.mean, recipe.std) == ((127.5,) * 3, (127.5, 63.75, 127.5))
    assert (recipe.input_size, recipe.betas, recipe.cutmix_minmax) == ((192, 256), (0.9, 0.95), (0.2, 0.8))
    assert recipe.multi_step_decay_milestones == (30,)
    assert {"torchcompile", "wandb_tags"} <= recipe.without_effect().keys()


@pytest.mark.parametrize(
    ("command", "key"),
    [
        *((f"--sched {word} --epochs 30 --cooldown-epochs 5", "cooldown_epochs") for word in ("step", "multistep")),
        ("--epochs 20 --decay-epochs 30", "decay_epochs"),
        ("--sched poly --epochs 20 --decay-epochs 30", "decay_epochs"),
    ],
)
def test_epochs_that_timm_does_not_read_in_a_schedule_are_said_to_have_no_effect(command: str, key: str) -> None:
    recipe = load_recipe(None, parse_flags([*AS_TIMM, *command.split()]))
    assert list(recipe.without_effect()) == [key]
    assert recipe.epoch_size == int(command.split("--epochs ")[1].split()[0])


@pytest.mark.parametrize("quiet", ["--sched step --cooldown-epochs 0", "--sched cosine --decay-epochs 90"])
def test_what_timm_writes_for_nothing_beside_its_epochs_is_not_told(quiet: str) -> None:
    assert load_recipe(None, parse_flags([*AS_TIMM, "--epochs", "20", *quiet.split()])).without_effect() == {}


@pytest.mark.parametrize("word", ["cosine", "step"])
@pytest.mark.parametrize("said", ["", "--warmup-epochs 5"])
def test_a_run_is_longer_by_the_warm_up_that_it_has(word: str, said: str) -> None:
    words = f"--sched {word} --epochs 10 --warmup-prefix {said}".split()
    recipe = load_recipe(None, parse_flags([*AS_TIMM, *words]))
    assert recipe.epoch_size == 10 + recipe.warmup_epochs


@pytest.mark.parametrize("said", ["", "--warmup-epochs 2", "--warmup-prefix", "--warmup-prefix --warmup-epochs 2"])
def test_without_a_schedule_a_run_is_as_long_as_timms_and_the_warm_up_that_is_not_made_is_told(said: str) -> None:
    words = said.split()
    recipe = load_recipe(None, parse_flags([*AS_TIMM, "--sched=none", "--epochs=10", *words]))
    _, epochs = create_scheduler_v2(
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1),
        "none",
        num_epochs=10,
        warmup_epochs=2 if "2" in words else OPTIONS["timm"]["options"]["warmup_epochs"],
        warmup_prefix="--warmup-prefix" in words,
    )
    assert (recipe.epoch_size, recipe.warmup_epochs, recipe.scheduler) == (epochs, 0, "constant")
    assert set(recipe.without_effect()) == ({"warmup_epochs"} if said == "--warmup-epochs 2" else set())


@pytest.mark.parametrize(
    ("library", "command"),
    [
        ("timm", "--epochs 10 --sched constant --warmup-epochs 3"),
        ("timm", "--epochs 10 --sched step --warmup-epochs 0"),
        ("timm", "--model-ema false --model-ema-warmup false"),
        ("facebook", "--reprob 0"),
        ("facebook", "--no-model-ema"),
        ("facebook", "--warmup-epochs 0"),
        ("facebook", "--sched step"),
        ("facebook", "--sched none"),
        ("facebook", "--opt sgd"),
        ("facebook", "--teacher-model regnety_160"),
    ],
)
def test_a_setting_that_nobody_gave_is_not_told_to_be_without_effect(library: str, command: str) -> None:
    recipe = load_recipe(None, parse_flags([f"--library={library}", *AS_TIMM[1:], *command.split()]))
    assert recipe.without_effect() == {}


@pytest.mark.parametrize(
    ("library", "command", "key"),
    [
        ("timm", "--epochs 100 --cooldown-epochs 10 --epoch-size 50", "cooldown_epochs"),
        ("facebook", "--teacher-model resnet50", "teacher"),
        ("facebook", "--teacher timm:resnet50", "teacher"),
    ],
)
def test_what_another_setting_leaves_without_a_reader_is_told(library: str, command: str, key: str) -> None:
    recipe = load_recipe(None, parse_flags([f"--library={library}", *AS_TIMM[1:], *command.split()]))
    assert set(recipe.without_effect()) == {key}


@pytest.mark.parametrize(
    ("library", "said", "flag", "key"),
    [
        ("timm", {"aa": "original"}, "--aa null", "auto_augment"),
        ("timm", {"clip_grad": 1.0}, "--clip-grad null", "clip_grad"),
        ("timm", {"drop_path": 0.3}, "--drop-path null", "drop_path_rate"),
        ("timm", {"opt_eps": 0.1}, "--opt-eps null", "eps"),
        ("timm", {"initial_checkpoint": "a.pth"}, "--initial-checkpoint=", "ckpt_path"),
        ("facebook", {"aa": None}, "", "auto_augment"),
        ("facebook", {"drop_path": None}, "", "drop_path_rate"),
    ],
)
def test_nothing_takes_back_what_was_said_before(
    library: str, said: dict[str, Any], flag: str, key: str, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"library": library, **MODEL, **said}))
    recipe = load_recipe(tmp_path / "recipe.yaml", parse_flags(flag.split()))
    assert getattr(recipe, key) == Recipe.model_fields[key].default


@pytest.mark.parametrize(
    ("said", "flag", "key", "value"),
    [
        ({"bce_loss": True}, "--loss CE", "loss", "CE"),
        ({"loss": "CE"}, "--bce-loss", "loss", "BCE"),
        ({"clip_grad": 1.0}, "--clip-value 5", "clip_value", 5.0),
        ({"clip_value": 5.0, "clip_grad": True}, "--clip-grad 1", "clip_value", 1.0),
        ({"amp": True}, "--amp-level O0", "loss_scale_type", "fixed"),
    ],
)
def test_of_timms_word_and_the_recipes_own_that_which_is_said_last_counts(
    said: dict[str, Any], flag: str, key: str, value: object, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"library": "timm", **MODEL, **said}))
    assert getattr(load_recipe(tmp_path / "recipe.yaml", parse_flags(flag.split())), key) == value


def test_two_bounds_of_the_gradient_in_one_recipe_are_refused() -> None:
    with pytest.raises(InputError, match="clip_grad and clip_value say the same"):
        load_recipe(None, {"library": "timm", **MODEL, "clip_grad": 1.0, "clip_value": 5.0})


@pytest.mark.parametrize(("command", "key"), ONE_KEY.items())
def test_a_command_of_timms_that_asks_for_what_is_not_here_names_the_key(command: str, key: str) -> None:
    with pytest.raises(InputError, match=f"^{key} .* is not taken"):
        load_recipe(None, parse_flags([*AS_TIMM, *command.split()]))


def test_what_a_recipe_in_timms_words_leaves_out_and_timm_has_otherwise_is_said() -> None:
    words = ["--epochs=10", "--lr=0.1", "--warmup-lr=0", "--opt=sgd"]
    recipe = load_recipe(None, parse_flags([*AS_TIMM, *words]))
    assert recipe.unlike_timm() == {
        "weight_decay": 2e-5, "warmup_epochs": 5, "min_lr": 0.0, "lr_epoch_stair": True, "ratio": (3 / 4, 4 / 3),
        "interpolation": "random", "label_smoothing": 0.1,
    }  # fmt: skip
    assert "warmup_epochs" not in load_recipe(None, parse_flags([*AS_TIMM, "--sched", "none"])).unlike_timm()
    own = load_recipe(None, {"library": "timm", **MODEL, "epoch_size": 5})
    assert own.unlike_timm() == {}, "a recipe in its own words means its own defaults"
    assert load_recipe(None, parse_flags(["--library=facebook", *AS_TIMM[1:]])).unlike_timm() == {}
    for path in shipped_recipes().values():
        assert load_recipe(path).unlike_timm() == {}


def test_the_defaults_of_timm_are_timms() -> None:
    """All that a recipe has another default of; what is nothing in timm (null) is what its network says."""
    names = {**timm_spelling.RENAMED, "epochs": "epoch_size", "train_interpolation": "interpolation"}
    told = {name: value for name, value in OPTIONS["timm"]["options"].items() if value not in (None, "")}
    options = {names.get(name, name): value for name, value in told.items()}
    known = {keys[0]: default for keys, default in TIMMS_DEFAULTS}
    for key, default in known.items():
        if key in options:
            assert np.array_equal(options[key], default), key
    untold = {"data_dir", "val_split", "ckpt_save_dir", "num_parallel_workers", "log_interval", "dataset", "model"}
    for key in (options.keys() & Recipe.model_fields.keys()) - known.keys() - untold:
        assert np.array_equal(options[key] or 0, Recipe.model_fields[key].default or 0), key


def test_of_a_file_and_a_flag_the_flag_counts_whichever_name_it_has(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "library: timm\nmodel: xcit_nano_12_p16_224\nscheduler: step_decay\nimage_resize: 64\nwarmup_factor: 0.1\n"
        "ema: true\nema_form: mindcv\nloss: JSD\naug_splits: 3\nauto_augment: augmix\n"
    )
    recipe = load_recipe(
        path,
        parse_flags(["--sched", "tanh", "--img-size", "32", "--warmup-lr", "1e-6", "--model-ema-warmup", "--bce-loss"]),
    )
    assert (recipe.scheduler, recipe.image_resize, recipe.ema_form, recipe.loss) == (
        "tanh_decay", 32, "timm_warmup", "BCE",
    )  # fmt: skip
    assert (recipe.warmup_lr, "warmup_factor" in recipe.model_fields_set) == (1e-6, False)
    path.write_text("library: timm\nmodel: xcit_nano_12_p16_224\nsched: step\nwarmup_lr: 1e-6\nlr: 0.5\n")
    recipe = load_recipe(path, parse_flags(["--scheduler", "constant", "--warmup_factor", "0.2", "--lr_base", "0.1"]))
    assert (recipe.scheduler, recipe.warmup_lr, recipe.warmup_factor, recipe.lr_base) == ("constant", None, 0.2, 0.1)


TWO_NAMES: list[tuple[dict[str, Any], str]] = [
    ({"full_crop": False, "crop_pct": 1.0}, "full_crop and crop_pct"),
    ({"lr": 1e-3, "lr_base": 5e-4}, "lr and lr_base"),
    ({"lr": 1e-3, "lr_base_size": 256}, "lr and lr_base_size"),
    ({"input_size": 384, "img_size": 224}, "input_size and img_size"),
    ({"data_set": "IMNET", "dataset": "cifar10"}, "data_set and dataset"),
    ({"repeated_aug": True, "aug_repeats": 2}, "repeated_aug and aug_repeats"),
    ({"no_repeated_aug": True, "repeated_aug": True}, "no_repeated_aug and repeated_aug"),
    ({"no_model_ema": True, "model_ema": True}, "no_model_ema and model_ema"),
    ({"teacher_model": "resnet50", "teacher": "timm:resnet18"}, "teacher_model and teacher"),
    *(({name: "a", ours: "b"}, f"{name} and {ours}") for name, ours in facebook_spelling.RENAMED.items()),
]


@pytest.mark.parametrize(("settings", "says"), TWO_NAMES, ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_a_setting_under_two_names_of_facebooks_is_refused(settings: dict[str, Any], says: str, turned: bool) -> None:
    said = dict(reversed(settings.items())) if turned else settings
    with pytest.raises(InputError, match=rf"^{says} say the same\.\n") as caught:
        load_recipe(None, {"library": "facebook", **MODEL, **said})
    assert caught.value.fix == "Give one of them."


@pytest.mark.parametrize("turned", [False, True])
def test_a_setting_under_two_names_of_timms_is_refused_whichever_comes_first(turned: bool) -> None:
    settings = {"aa": "rand-m9", "auto_augment": "rand-m7"}
    said = dict(reversed(settings.items())) if turned else settings
    with pytest.raises(InputError, match=r"^aa and auto_augment say the same\.\n"):
        load_recipe(None, {"library": "timm", **MODEL, **said})


@pytest.mark.parametrize(
    ("said", "scale", "dynamic"),
    [
        ({}, 65536.0, True),
        ({"loss_scale_type": "dynamic"}, 65536.0, True),
        ({"loss_scale": 128.0}, 128.0, True),
        ({"loss_scale_type": "fixed"}, 1.0, False),
        ({"loss_scale_type": "Fixed", "loss_scale": 128.0}, 128.0, False),
    ],
    ids=str,
)
def test_the_scale_that_timms_amp_begins_with_is_of_a_dynamic_one_alone(
    said: dict[str, Any], scale: float, dynamic: bool
) -> None:
    recipe = load_recipe(None, {"library": "timm", **MODEL, "amp": True, **said})
    assert (recipe.first_loss_scale, recipe.dynamic_scaling) == (scale, dynamic)


def test_null_for_facebooks_schedule_and_distillation_is_main_pys_own_word() -> None:
    said = {"library": "facebook", "model": "xcit_nano_12_p16"}
    for key in ("sched", "distillation_type"):
        assert load_recipe(None, {**said, key: None}) == load_recipe(None, said)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"library": "timm", "input_size": [3, 64]}, "channels, height and width"),
        ({"library": "timm", "input_size": [3, 64, 64], "image_resize": 32}, "say the same"),
        ({"library": "timm", "input_size": [3, "a", 64]}, "image_resize"),
        ({"library": "timm", "train_interpolation": "bicubic", "interpolation": "bilinear"}, "differ"),
        ({"library": "timm", "pretrained_path": "a.pth", "initial_checkpoint": "b.pth"}, "say the same"),
        ({"library": "timm", "sched": "step", "scheduler": "constant"}, "say the same"),
        ({"library": "timm", "sched": ["step"]}, "sched"),
        ({"library": "timm", "amp": "apex"}, "amp"),
        ({"library": "timm", "foo": None}, "no key 'foo'"),
        ({"library": "timm", "full_crop": True}, "facebook's name"),
        ({"library": "mindcv", "in_chans": 3}, "timm's name"),
        ({"library": "mindcv", "k_decay": 2.0}, "k_decay"),
        ({"library": "facebook", "full_crop": 1}, "full_crop"),
        ({"library": "facebook", "data_set": ["IMNET"]}, "data_set"),
        ({"library": "facebook", "model": ["xcit_nano_12_p16"]}, "model"),
        ({"library": "facebook", "teacher_model": ["a"]}, "teacher_model"),
        ({"library": ["facebook"]}, "library"),
        ({"library": "Facebook"}, "did you mean facebook"),
        ({"library": "timm", "epochs": 3, "lr_cycle_mul": 10, "lr_cycle_limit": 10**8}, "beyond all bounds"),
        ({"scale": []}, "scale: "),
        ({"warmup_lr": 1e-6, "warmup_factor": 0.1}, "say the same"),
    ],
    ids=str,
)
def test_a_wrong_word_is_refused_by_its_name(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_recipe(None, {**MODEL, **settings})
