"""Many images answered at once, and what is written of it: tables, a page, drawings of the attention."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xcit_hub._version import __version__
from xcit_hub.data.folders import readable
from xcit_hub.data.shards import need_pyarrow
from xcit_hub.errors import InputError
from xcit_hub.files import atomic_write, numbered, write_text
from xcit_hub.prediction import Answer, answers

if TYPE_CHECKING:
    from PIL import Image

    from xcit_hub.data.shards import Stored
    from xcit_hub.exported import ExportedNetwork
    from xcit_hub.hub.network import XCiT
    from xcit_hub.predictor import Predictor

_GROUP = 4096  # answers in a row group of a Parquet table


@dataclass(frozen=True)
class Wanted:
    """What is written of answers.

    Args:
        csv: where a table goes: a row an image and class, one with the problem for what cannot be read.
        parquet: where a table goes that is not there yet: a row an image, with lists of its classes.
        html: where a page goes, see :mod:`xcit_hub.contact_sheet`.
        attention: the folder for a drawing of each image, ``NUMBER-NAME.png``.
    """

    csv: Path | None = None
    parquet: Path | None = None
    html: Path | None = None
    attention: Path | None = None


@dataclass(frozen=True)
class Engine:
    """What computes the answers.

    Args:
        name: ``local``, this process; or ``ray``, the workers of a Ray cluster.
        address, workers: see :func:`xcit_hub.ray_engine.answers_on_ray`.
    """

    name: str = "local"
    address: str | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Answered:
    """What :func:`answer_all` did.

    Args:
        answers: in the images' order.
        problems: what could not be done beside the images' own problems.
        notes: what was dropped or assumed of the model.
    """

    answers: list[Answer]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def answer_all(
    predictor: Predictor,
    images: Sequence[Path | Stored],
    wanted: Wanted,
    engine: Engine | None = None,
    *,
    title: str = "",
    stage: Callable[[str], None] = lambda _: None,
) -> Answered:
    """Classify images and write what is wanted of it.

    Args:
        title: of the page.
        stage: told how far it is.

    Raises:
        InputError: the engine is not one or cannot do it, the network has no classifier, or what is wanted cannot be
            written.
        XcitHubError: see :class:`xcit_hub.Predictor` and :func:`xcit_hub.ray_engine.answers_on_ray`.
    """
    engine = engine or Engine()
    _check(engine, wanted)
    # One for all of it: asked again, a predictor builds what meanwhile stands under the model's name.
    network = predictor.network if images and engine.name == "local" else None
    drawing = wanted.html is not None or wanted.attention is not None
    answered: list[Answer] = []
    drawings: dict[int, Image.Image] = {}  # of the page, by the image's number
    problems: list[str] = []
    notes: dict[str, None] = {}
    with ExitStack() as stack:
        add = stack.enter_context(_parquet(wanted.parquet, predictor.model)) if wanted.parquet is not None else None
        for number, answer in enumerate(_answers(predictor, network, images, engine, stage, notes)):
            if not number and wanted.attention is not None:
                _make(wanted.attention)
            answered.append(answer)
            stage(f"{number + 1:,} of {len(images):,} images")
            if add is not None:
                add(answer)
            if drawing and network is not None and not answer.problem:
                try:
                    drawn = _drawn(network, images[number], predictor.exif)
                except InputError as error:  # a file that was exported without its attention, or another image by now
                    drawing = not _is_exported(predictor)
                    problems.append(_sentence(error))
                    continue
                if wanted.html is not None:
                    drawings[number] = drawn
                if wanted.attention is not None:
                    with atomic_write(wanted.attention / numbered(number, images[number].stem, ".png")) as target:
                        drawn.save(target, "PNG")
    if wanted.csv is not None:
        write_text(wanted.csv, _table(answered))
    if wanted.html is not None:
        from xcit_hub.contact_sheet import contact_sheet

        write_text(wanted.html, contact_sheet(title, answered, images, drawings, exif=predictor.exif))
    return Answered(answered, tuple(problems), tuple(notes))


def _check(engine: Engine, wanted: Wanted) -> None:
    if engine.name not in ("local", "ray"):
        raise InputError(f"There is no engine {engine.name!r}.", where="--engine", fix="Choose local or ray.")
    if engine.name == "local":
        for option, value in (("--address", engine.address), ("--workers", engine.workers)):
            if value is not None:
                raise InputError(f"{option} is the ray engine's.", where=option, fix="Add --engine ray.")
    elif wanted.html is not None or wanted.attention is not None:
        raise InputError(
            "The ray engine draws nothing.",
            where="--html, --attention",
            fix="Leave them out, or draw some images here.",
        )
    if wanted.parquet is not None:
        need_pyarrow(wanted.parquet)
        if os.path.lexists(wanted.parquet):
            raise InputError(
                "There is something already.", where=wanted.parquet, fix="Name another file, or remove it."
            )


def _answers(
    predictor: Predictor,
    network: XCiT | ExportedNetwork | None,
    images: Sequence[Path | Stored],
    engine: Engine,
    stage: Callable[[str], None],
    notes: dict[str, None],
) -> Iterator[Answer]:
    """Yield an answer an image, of the network or else of a cluster; note what was dropped or assumed of the model."""

    def tell(found: Sequence[str]) -> None:
        notes.update(dict.fromkeys(found))

    if not images:
        return
    if network is not None:
        tell(network.config.provenance.notes)
        yield from answers(network, images, top=predictor.top, batch=predictor.batch, exif=predictor.exif)
        return
    from xcit_hub.ray_engine import answers_on_ray

    yield from answers_on_ray(predictor, images, address=engine.address, workers=engine.workers, stage=stage, tell=tell)


def _drawn(network: XCiT | ExportedNetwork, image: Path | Stored, exif: bool) -> Image.Image:
    from xcit_hub.attention_maps import attention, draw_attention, seen

    return draw_attention(seen(network, image, exif=exif), attention(network, image, exif=exif).map())


def _is_exported(predictor: Predictor) -> bool:
    from xcit_hub.exported import is_exported

    return is_exported(predictor.model)


def _sentence(error: InputError) -> str:
    return " ".join(filter(None, (error.what, error.fix, f"({error.where})" if error.where else "")))


def _table(answered: Sequence[Answer]) -> str:
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(("image", "rank", "index", "class", "share", "problem"))
    for answer in answered:
        if answer.problem:
            rows.writerow((answer.image, "", "", "", "", answer.problem))
        for rank, each in enumerate(answer.classes, 1):
            rows.writerow((answer.image, rank, each.index, each.label, f"{each.probability:.6g}", ""))
    return written.getvalue()


@contextmanager
def _parquet(target: Path, model: str) -> Iterator[Callable[[Answer], None]]:
    """Give what adds an answer to a table, which stands there whole at the end, or not at all."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(
        {
            "image": pyarrow.string(),
            "class": pyarrow.list_(pyarrow.string()),
            "index": pyarrow.list_(pyarrow.int64()),
            "share": pyarrow.list_(pyarrow.float64()),
            "problem": pyarrow.string(),
        },
        {
            "xcit_hub.version": __version__,
            "xcit_hub.model": readable(Path(model).name if Path(model).is_absolute() else model),
        },
    )
    waiting: list[Answer] = []
    with atomic_write(target) as stream, pyarrow.parquet.ParquetWriter(stream, schema, compression="zstd") as table:

        def write() -> None:
            columns = [
                [answer.image for answer in waiting],
                [[each.label for each in answer.classes] for answer in waiting],
                [[each.index for each in answer.classes] for answer in waiting],
                [[each.probability for each in answer.classes] for answer in waiting],
                [answer.problem or None for answer in waiting],
            ]
            arrays = [pyarrow.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            table.write_table(pyarrow.table(arrays, schema))
            waiting.clear()

        def add(answer: Answer) -> None:
            waiting.append(answer)
            if len(waiting) == _GROUP:
                write()

        yield add
        write()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write there: {error.strerror}.", where=str(folder), fix="Name a folder.") from error
