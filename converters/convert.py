"""THE conversion: a file or a published name in, another family's file out, proven by running what was written."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from converters import prove
from converters.fetch import source_file
from converters.reports import check_report, check_report_of_parts, write_report
from xcit_hub.checkpoints.mapped import MappedFile
from xcit_hub.checkpoints.report import Report
from xcit_hub.checkpoints.rewrite import Progress, rewrite
from xcit_hub.deprecated import moved_names
from xcit_hub.errors import InputError
from xcit_hub.files import check_outputs
from xcit_hub.variants import DialectName, Family

# "no larger than small": beyond this width the proof takes longer than anyone waits for without having asked.
_WIDEST_BY_DEFAULT = 384


@dataclass(frozen=True)
class Options:
    """What :func:`convert` is to do; its arguments of the same names."""

    to: Family | None = None
    model: str | None = None
    dialect: DialectName | None = None
    ema: bool = False
    select: str | None = None
    prefix: str | None = None
    num_classes: int | None = None
    in_chans: int | None = None
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    family: Family | None = None


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    to: Family | None = None,
    model: str | None = None,
    dialect: DialectName | None = None,
    ema: bool = False,
    select: str | None = None,
    prefix: str | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    family: Family | None = None,
    verify: bool | None = None,
    report: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    stage: Callable[[str], None] = lambda _: None,
) -> Report:
    """Convert one checkpoint into another family's and format, and prove what was written by running it.

    The numbers are the source's, bit for bit, unless ``in_chans`` or ``dtype`` asks for others. Beside the target a
    configuration is written. What fails its proof does not become the target: what stood there before stays, and
    :attr:`Report.target` is None.

    Args:
        source: a file of any family and format, or a name of ``xcit_hub.variants.CHECKPOINTS``, which is fetched.
        target: the file to write; its suffix says in which format.
        to: the family to write; our own where it is not said.
        model: the architecture it must be; decides between 224 and 384, which have the same parameters. May name a
            checkpoint: ``ms_in1k`` is the tag of ``xcit_hub.timm``'s class.
        dialect: which network it belongs to, for files that do not tell.
        ema: take the averaged weights rather than the plain ones.
        select: which of several networks in the file, by a part of its prefix ("teacher").
        prefix: under which prefix exactly the network is.
        num_classes: fewer than there are keep the classifier's first rows; more begin another, random one, as timm
            does, which is marked as untrained; 0 drops it.
        in_chans: input channels of the first convolution, adapted as timm does.
        dtype: round the numbers to it.
        family: whose file the source must be.
        verify: whether to prove it; None where it costs little (networks up to small, with timm installed).
        report: where to write :meth:`Report.as_dict` as JSON.
        progress: called with the bytes done and the bytes in all.
        stage: told in a few words what is going on.

    Raises:
        CheckpointError: the source is not a whole checkpoint, or the target's format cannot hold it.
        WeightsError: it is not one XCiT's weights, or the target family has no such network.
        InputError: the options ask for what cannot be, or the report would overwrite something.
        HubError: a published name cannot be fetched.
    """
    options = Options(to, model, dialect, ema, select, prefix, num_classes, in_chans, dtype, family)
    check_outputs({"the target": Path(target)})
    if report is not None:
        check_report(report, source, target)
    file, published = source_file(source)
    stage(f"converting {(file.path if isinstance(file, MappedFile) else file).name}")

    def proven(written: Path, made: Report) -> dict[str, Any] | None:
        if report is not None:
            check_report_of_parts(report, (part.path for part in made.weights.file.parts))
        hindrance = prove.hindrance(made)
        if verify and hindrance:
            raise InputError(f"The result cannot be verified: {hindrance}.", where=target, fix="Leave out --verify.")
        is_wide = made.weights.architecture.embed_dim > _WIDEST_BY_DEFAULT
        if not verify and (verify is False or hindrance or is_wide):
            return None
        stage(f"verifying {Path(target).name}")
        return prove.proof(written, made, stage)

    asked = {**asdict(options), "model": model or published}
    made = rewrite(file, target, progress=progress, prove=proven, **asked)
    if report is not None:
        write_report(report, made, asdict(options))
    return made


if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = moved_names(__name__)
