"""``xcit-hub predict``: the classes of many images."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xcit_hub.cli.shared import (
    Address,
    AsJson,
    CacheDir,
    Dialect,
    Hub,
    IgnoreField,
    Offline,
    Revision,
    TokenEnv,
    console,
    print_notes,
    working,
)
from xcit_hub.errors import InputError

if TYPE_CHECKING:
    from xcit_hub.prediction import Answer

_OF_CLASSIFIERS = (
    "top", "batch", "csv", "parquet", "html", "attention", "engine", "address", "workers", "ignore_field",
)  # fmt: skip
_OF_SEGMENTERS = ("masks", "window", "stride", "classes")


def predict(
    context: typer.Context,
    model_id: Annotated[
        str, typer.Argument(metavar="ID", help="What `xcit-hub load` takes, or an exported .onnx file.")
    ],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="Files, folders, shell patterns, tar archives, Parquet tables; - reads a list of files.",
        ),
    ],
    revision: Revision = None,
    hub: Hub = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    token_env: TokenEnv = None,
    dialect: Dialect = None,
    ignore_field: IgnoreField = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="How many classes an image; 5, or all where there are fewer.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="How many images at once.")] = 16,
    exif: Annotated[bool, typer.Option("--exif", help="Turn images as their EXIF orientation says.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write a row an image and class.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write a new table: a row an image.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page: images, bars, class attention.")] = None,
    attention: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw the class attention over each image, as PNG files.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Of Parquet tables: where the images are; image, bytes, jpg, jpeg, png or webp.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: the workers of a Ray cluster.")] = "local",
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The cluster; by default one of this machine is started.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Of the cluster; one for two cores by default.")] = None,
    segment: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="ID is a segmenter: paint the classes of all pixels, with a legend."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="With --segment: write the classes as PNG of one value a pixel, from 0 on."
        ),
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="With --segment: a window that slides, 512 or 512x683, or whole.")
    ] = None,
    stride: Annotated[str | None, typer.Option(help="How far the window moves; two thirds of it by default.")] = None,
    classes: Annotated[Path | None, typer.Option(help="With --segment: names of the classes, one a line.")] = None,
    as_json: AsJson = False,
) -> None:
    """Classify images. Those that cannot be read are named; the exit code is then 1.

    Examples:

        xcit-hub predict timm/xcit_tiny_12_p16_224.fb_in1k photographs/ --csv classes.csv

        find . -name '*.jpg' | xcit-hub predict ./mine.ckpt - --html sheet.html --attention maps

        xcit-hub predict xcit.onnx shards/*.tar table.parquet --engine ray --address HOST:6379 --parquet classes.parquet

        xcit-hub predict ./sem_fpn_xcit_tiny_12_p16.pth photographs/ --segment painted
    """
    _of_one_task(context, segments=segment is not None)
    if segment is not None:
        from xcit_hub.cli.segment import segment_images

        segmenter = Address(model_id, revision, hub, cache_dir, offline, token_env, dialect)
        segment_images(
            segmenter,
            images,
            segment,
            masks=masks,
            window=window,
            stride=stride,
            names=classes,
            column=column,
            exif=exif,
            as_json=as_json,
        )
        return
    from xcit_hub.answering import Engine, Wanted, answer_all
    from xcit_hub.data.folders import readable
    from xcit_hub.files import check_apart, check_folders, check_numbered, check_outputs
    from xcit_hub.prediction import sources
    from xcit_hub.predictor import Predictor

    wanted = Wanted(csv=csv, parquet=parquet, html=html, attention=attention)
    predictor = Predictor(
        model_id,
        top=top,
        batch=batch,
        exif=exif,
        revision=revision,
        hub=hub,
        cache_dir=None if cache_dir is None else str(cache_dir),
        offline=offline,
        dialect=dialect,
        ignore_fields=tuple(ignore_field or ()),
        token_env=token_env,
    )
    outputs = {"--csv": csv, "--parquet": parquet, "--html": html}
    check_folders({"--attention": attention})
    found = sources(images, (sys.stdin or ()) if "-" in images else (), column=column)
    read = [model_id, *(str(getattr(each, "shard", each)) for each in found.images)]
    check_outputs(outputs, read)
    check_numbered({"--attention": attention}, ".png", [each.stem for each in found.images], read)
    check_apart({"--attention": attention, **outputs}, "place")
    with working("loading") as show:
        answered = answer_all(
            predictor,
            found.images,
            wanted,
            Engine(engine, address, workers),
            title=f"{readable(model_id)}, {len(found.images)} images",
            stage=show,
        )
    if as_json:
        typer.echo(json.dumps([_record(each) for each in answered.answers], ensure_ascii=False, indent=2))
    elif csv is None and html is None and parquet is None:
        _print(answered.answers)
    unread = [f"{each.image}: {each.problem}" for each in answered.answers if each.problem]
    print_notes((*answered.notes, *found.notes), stderr=True)
    problems = (*found.problems, *unread, *answered.problems)
    print_notes(problems, stderr=True)
    if problems:
        count = len(found.problems) + len(unread)
        if count:
            console(stderr=True).print(f"{count:,} not answered, {len(answered.answers) - len(unread):,} answered")
        raise typer.Exit(1 if any(not each.problem for each in answered.answers) else 2)


def _of_one_task(context: typer.Context, *, segments: bool) -> None:
    """Refuse the options of the other task."""
    sources = {name: context.get_parameter_source(name) for name in (_OF_CLASSIFIERS if segments else _OF_SEGMENTERS)}
    refused = [f"--{name.replace('_', '-')}" for name, source in sources.items() if source and source.name != "DEFAULT"]
    if refused:
        whose, fix = ("classifiers", "Leave it out.") if segments else ("segmenters", "Give --segment FOLDER, too.")
        raise InputError(f"{', '.join(refused)}: only of {whose}.", where="xcit-hub predict", fix=fix)


def _record(answer: Answer) -> dict[str, object]:
    if answer.problem:
        return {"image": answer.image, "problem": answer.problem}
    return {
        "image": answer.image,
        "classes": [{"class": each.label, "index": each.index, "share": each.probability} for each in answer.classes],
    }


def _print(answered: list[Answer]) -> None:
    out = console()
    for answer in answered:
        if answer.classes:
            out.print(answer.image, markup=False)
        for each in answer.classes:
            out.print(f"{each.probability:7.1%}  {each.label}", markup=False)
