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
    token_in,
    working,
)
from xcit_hub.errors import InputError

if TYPE_CHECKING:
    from xcit_hub.prediction import Answer


def predict(
    model_id: Annotated[str, typer.Argument(metavar="ID", help="What `xcit-hub load` takes.")],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Files, folders, shell patterns; - reads a list of files.")
    ],
    revision: Revision = None,
    hub: Hub = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    token_env: TokenEnv = None,
    dialect: Dialect = None,
    ignore_field: IgnoreField = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes an image.")] = 5,
    batch: Annotated[int, typer.Option(min=1, help="How many images at once.")] = 16,
    exif: Annotated[bool, typer.Option("--exif", help="Turn images as their EXIF orientation says.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write a row an image and class.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page: images, bars, class attention.")] = None,
    attention: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw the class attention over each image, as PNG files.")
    ] = None,
    segment: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="ID is a segmenter: paint the classes of all pixels, with a legend."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --segment: write the classes as PNG of one value a pixel."),
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

        xcit-hub predict ./sem_fpn_xcit_tiny_12_p16.pth photographs/ --segment painted
    """
    if segment is not None:
        from xcit_hub.cli.segment import segment_images

        if csv is not None or html is not None or attention is not None:
            raise InputError(
                "--csv, --html and --attention are of classifiers.", where="--segment", fix="Leave them out."
            )
        address = Address(model_id, revision, hub, cache_dir, offline, token_env, dialect)
        segment_images(
            address,
            images,
            segment,
            masks=masks,
            window=window,
            stride=stride,
            names=classes,
            exif=exif,
            as_json=as_json,
        )
        return
    if any(option is not None for option in (masks, window, stride, classes)):
        raise InputError(
            "--masks, --window, --stride and --classes are of segmenters.", fix="Give --segment FOLDER, too."
        )
    from xcit_hub.answering import Wanted, answer_all
    from xcit_hub.hub.load import load
    from xcit_hub.prediction import sources
    from xcit_hub.variants import dialect as checked

    wanted = Wanted(top=top, batch=batch, exif=exif, csv=csv, html=html, attention=attention)
    found = sources(images, sys.stdin if "-" in images else ())
    with working("loading") as show:
        network = load(
            model_id,
            revision,
            hub=hub,
            cache_dir=cache_dir,
            offline=offline,
            token=token_in(token_env),
            dialect=checked(dialect).name if dialect is not None else None,
            ignore_fields=ignore_field or (),
        )
        answered = answer_all(
            network, found.images, wanted, title=f"{model_id}, {len(found.images)} images", stage=show
        )
    if as_json:
        typer.echo(json.dumps([_record(each) for each in answered], ensure_ascii=False, indent=2))
    elif csv is None and html is None:
        _print(answered)
    problems = (*found.problems, *(f"{each.image}: {each.problem}" for each in answered if each.problem))
    print_notes(problems, stderr=True)
    if problems:
        raise typer.Exit(1 if any(not each.problem for each in answered) else 2)


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
