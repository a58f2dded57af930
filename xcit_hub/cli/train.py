"""``xcit-hub train`` and ``xcit-hub eval``; ``train.py`` and ``validate.py`` are the same commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from xcit_hub.cli.shared import IgnoreField, print_notes, refuse_beside
from xcit_hub.errors import InputError
from xcit_hub.process import answer_in_json

# Every key of a recipe is a flag; typer passes what it does not know on.
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="The recipe: a YAML file, or one that is shipped, by its name.")
]
AsJson = Annotated[
    bool, typer.Option("--json", callback=answer_in_json, help="Print JSON lines instead of a progress bar.")
]
Keys = Annotated[bool, typer.Option("--keys", help="List every key of a recipe with its default, and exit.")]


Task = Literal["classify", "segment"]


def train(
    context: typer.Context,
    config: Config = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in ckpt_save_dir.")] = False,
    task: Annotated[
        Task, typer.Option(help="segment: a segmenter, on ADE20K's folders, images/SPLIT and annotations/SPLIT.")
    ] = "classify",
    head: Annotated[
        str | None,
        typer.Option(help="With --task segment: sem_fpn or upernet; by default that of ckpt_path, or sem_fpn."),
    ] = None,
    classes: Annotated[Path | None, typer.Option(help="With --task segment: names of the classes, one a line.")] = None,
    as_json: AsJson = False,
    keys: Keys = False,
) -> None:
    """Train a network as a recipe says. Every key is a flag: --epoch_size 2 --lr 1e-4, or --set epoch_size=2.

    Checkpoints, curves and run.json go to ckpt_save_dir.

    Examples:

        xcit-hub train --config configs/xcit/cpu_smoke.yaml --data_dir DIR

        xcit-hub train --config configs/xcit/xcit_tiny_12_p16_ascend.yaml --data_dir DIR --distribute False

        xcit-hub train --config cpu_smoke --data_dir DIR --set opt=lion --set lr=1e-4

        xcit-hub train --config configs/xcit/cpu_smoke.yaml --data_dir DIR --resume

        msrun --bind_core=True --worker_num 8 python train.py --config configs/xcit/xcit_tiny_12_p16_ascend.yaml
        --data_dir DIR

        xcit-hub train --task segment --model xcit_tiny_12_p16_224 --classes names.txt --data_dir DIR --epoch_size 30
    """
    if keys:
        refuse_beside("--keys", context)
        _print_keys()
        return
    if task == "segment":
        if resume:
            raise InputError("A segmenter's training cannot be resumed.", where="--resume", fix="Leave it out.")
        from xcit_hub.cli.segment import train_segmenter

        train_segmenter(config, context.args, head=head, names=classes, as_json=as_json)
        return
    if head is not None or classes is not None:
        raise InputError(
            "--head and --classes are of segmenters.", where="the command line", fix="Say --task segment, too."
        )
    from xcit_hub.recipe_runs import train as run
    from xcit_hub.training.recipe_file import parse_flags

    say = partial(print_notes, stderr=True)
    recipe, record = run(config, parse_flags(context.args), resume=resume, as_json=as_json, say=say)
    from xcit_hub.training.device import is_first, leave
    from xcit_hub.training.engine import RUN

    if as_json and is_first():
        typer.echo(json.dumps({"kind": "run", **record.model_dump(mode="json")}))
    elif record.top1 is not None and is_first():
        typer.echo(f"best top-1 {record.top1:.3f}%, recorded in {Path(recipe.ckpt_save_dir) / RUN}")
    leave()


def evaluate(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(help="A model id, as `xcit-hub load` takes it; else the recipe's ckpt_path.")
    ] = None,
    config: Config = None,
    compare: Annotated[
        Literal["timm"] | None, typer.Option(help="Evaluate timm's network with the same weights on the same images.")
    ] = None,
    ignore_field: IgnoreField = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", help="Write run.json, per_class.csv and confusion.png there; of segmenters miou.json."
        ),
    ] = None,
    task: Annotated[
        Task, typer.Option(help="segment: mIoU of a segmenter on ADE20K's folders, images/SPLIT and annotations/SPLIT.")
    ] = "classify",
    window: Annotated[
        str | None, typer.Option(help="With --task segment: a window that slides, 512 or 512x683, or whole.")
    ] = None,
    stride: Annotated[str | None, typer.Option(help="How far the window moves; two thirds of it by default.")] = None,
    models: Annotated[
        str | None,
        typer.Option(help="Evaluate many: all, a pattern of published names, or a text file with an id a line."),
    ] = None,
    results_file: Annotated[
        Path | None, typer.Option(help="With --models: the CSV of a row each; one that is there is gone on with.")
    ] = None,
    as_json: AsJson = False,
    keys: Keys = False,
) -> None:
    """Evaluate weights on a data set: top-1 and top-5 with 95% intervals, every image once.

    Examples:

        xcit-hub eval -c configs/xcit/xcit_tiny_12_p16_224_ascend.yaml --data_dir DIR --ckpt_path FILE

        xcit-hub eval timm/xcit_nano_12_p16_224.fb_in1k --data_dir DIR --compare timm

        xcit-hub eval timm/xcit_nano_12_p16_224.fb_in1k --data_dir DIR --tta 10 --real_labels real.json

        xcit-hub eval --models 'xcit_tiny*' --results-file results.csv --data_dir DIR

        xcit-hub eval sem_fpn_xcit_tiny_12_p16.pth --task segment --data_dir ADEChallengeData2016
    """
    if keys:
        refuse_beside("--keys", context)
        _print_keys()
        return
    from xcit_hub.files import check_apart, check_folders, check_outputs

    check_apart({"--output": output, "--results-file": results_file}, "place")
    check_folders({"--output": output})
    check_outputs({"--results-file": results_file}, [] if models is None else [models])
    words = list(context.args)
    if model is not None and model.startswith("-"):
        words, model = [model, *words], None
    if task == "segment":
        others: dict[str, object] = {"--config": config, "--compare": compare, "--ignore-field": ignore_field or None}
        others |= {"--models": models, "--results-file": results_file}
        given = [name for name, value in others.items() if value is not None]
        if given:
            raise InputError(
                f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} of classifiers.",
                where="--task segment",
                fix="Leave out what is of classifiers.",
            )
        from xcit_hub.cli.segment import evaluate_segmenter

        evaluate_segmenter(model, words, window=window, stride=stride, output=output, as_json=as_json)
        return
    if window is not None or stride is not None:
        raise InputError(
            "--window and --stride are of segmenters.", where="the command line", fix="Say --task segment, too."
        )
    if models is not None or results_file is not None:
        if models is None or results_file is None or model or compare or output or ignore_field or as_json:
            raise InputError(
                "--models goes with --results-file, --config and recipe keys alone.",
                where="--models",
                fix="Give both, and leave the others out; or evaluate one model: xcit-hub eval ID.",
            )
        _evaluate_all(models, results_file, config, words)
        return
    from xcit_hub.recipe_runs import evaluate as run
    from xcit_hub.training.device import leave
    from xcit_hub.training.recipe_file import parse_flags

    report = run(
        model,
        config,
        parse_flags(words),
        ignore_fields=ignore_field or (),
        against_timm=compare is not None,
        output=output,
        as_json=as_json,
        say=partial(print_notes, stderr=True),
    )
    if report is not None:
        typer.echo(json.dumps(report.as_dict()) if as_json else str(report))
    leave()


def _evaluate_all(models: str, table: Path, config: Path | None, words: Sequence[str]) -> None:
    from xcit_hub.bulk_evaluation import evaluate_all, named
    from xcit_hub.training.recipe_file import parse_flags

    rows = evaluate_all(named(models), table, config=config, flags=parse_flags(words), say=typer.echo)
    failed = sum(bool(row["error"]) for row in rows)
    if failed:
        typer.echo(f"{failed} of {len(rows)} could not be evaluated; {table} says why", err=True)
        raise typer.Exit(1)


def _print_keys() -> None:
    from xcit_hub.training.recipe import Recipe

    for name, field in Recipe.model_fields.items():
        default = "(required)" if field.is_required() else repr(field.default)
        typer.echo(f"--{name:32} {default:40} {field.description or ''}".rstrip())
