"""A checkpoint that somebody packed: a zip with one in it, unpacked into a file without a name."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path

from xcit_hub.checkpoints.mapped import MappedFile
from xcit_hub.errors import CheckpointError

_LARGEST_UNPACKED = 16 << 30


def unpacked(file: MappedFile, archive: zipfile.ZipFile, suffixes: Collection[str]) -> tuple[MappedFile, list[str]]:
    """Return the one checkpoint in a zip, and the names of the other files in it.

    Args:
        suffixes: by which a checkpoint is known in it.

    Raises:
        CheckpointError: there is none in it or there are several, it is of a format that is not read, or it would be
            larger than its packed bytes can make it.
        zipfile.BadZipFile: its length or checksum is another than the zip says.
    """
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    meant = _only_one(file, entries, suffixes)
    return _unpacked(file, archive, meant), [entry.filename for entry in entries if entry is not meant]


def _only_one(file: MappedFile, entries: Sequence[zipfile.ZipInfo], suffixes: Collection[str]) -> zipfile.ZipInfo:
    if any(entry.filename == "model.weights.h5" for entry in entries):
        raise CheckpointError(
            f"{file.path.name} is not a checkpoint: it is a Keras model.",
            where=file.path,
            fix="Save its weights as .safetensors from Keras.",
        )
    if entries and all(entry.filename.endswith(".npy") for entry in entries):
        raise CheckpointError(
            f"{file.path.name} is not a checkpoint: it is an archive of numpy arrays (.npz).",
            where=file.path,
            fix="Save the arrays as .safetensors: safetensors.numpy.save_file(dict(numpy.load(PATH)), OUT).",
        )
    found = [
        entry
        for entry in entries
        if not set(suffixes).isdisjoint(Path(entry.filename).suffixes) and not entry.filename.startswith("__MACOSX/")
    ]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(entry.filename for entry in found[:5])
    raise CheckpointError(
        f"{file.path.name} is a zip with {f'{len(found)} checkpoints ({listed})' if found else 'no checkpoint'} in it.",
        where=file.path,
        fix="Unpack it, and give the one that is meant." if found else "Check that it is the file that is meant.",
    )


def _unpacked(file: MappedFile, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> MappedFile:
    # zipfile compares length and checksum.
    if not 0 < entry.file_size <= min(_LARGEST_UNPACKED, 1000 * entry.compress_size):
        raise CheckpointError(
            f"{entry.filename} in {file.path.name} would have {entry.file_size:,} bytes, unpacked from "
            f"{entry.compress_size:,}.",
            where=file.path,
            fix="Do not use this file.",
        )
    with archive.open(entry) as packed, tempfile.TemporaryFile() as stream:
        remaining = entry.file_size
        while piece := packed.read(1 << 20):
            remaining -= len(piece)
            if remaining < 0:
                raise zipfile.BadZipFile(f"{entry.filename} is longer than its entry says")
            stream.write(piece)
        stream.flush()
        if remaining:
            raise zipfile.BadZipFile(f"{entry.filename} is shorter than its entry says")
        return MappedFile(file.path, stream)
