"""A file ↔ named tensors. Knows formats, knows no model; formats but safetensors are imported where a file has one."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from xcit_hub.checkpoints.formats import Content, kinds, safetensors
from xcit_hub.checkpoints.formats.kinds import Format, Kind
from xcit_hub.checkpoints.hashing import hashed
from xcit_hub.checkpoints.mapped import MappedFile
from xcit_hub.checkpoints.tensor import StoredTensor
from xcit_hub.errors import CheckpointError, first_line
from xcit_hub.files import atomic_write, is_folder

__all__ = ["SUFFIXES", "Checkpoint", "Format", "StoredTensor", "read", "write"]

# What a suffix means to a writer. To a reader it is a hint: the first bytes tell.
SUFFIXES: dict[str, Format] = {
    ".safetensors": "safetensors",
    ".ckpt": "ckpt",
    ".pth": "pth",
    ".pt": "pth",
    ".bin": "pth",
}

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
_PADDLES = (".pdparams", ".pdopt", ".pdema")
_MOST_SHARDS = 1000


class Checkpoint:
    """An open file of named tensors, which stay in the mapped file until they are asked for.

    A context manager. The tensors outlive it: the file is unmapped when the last of them is gone.

    Attributes:
        path: the file; of a checkpoint in several files, its index.
        format: its format.
        tensors: name → tensor, in the file's order.
        metadata: the strings it carries beside them.
        values: the names of what else it carries: numbers, settings, states of random generators.
        numbers: those of the values that are one number or truth value → that value.
        packed_with: the names of other files of the zip that it was packed in, which nothing reads.
    """

    def __init__(self, files: list[MappedFile], file_format: Format, content: Content) -> None:
        self.path = files[0].path
        self.format = file_format
        self.tensors: Mapping[str, StoredTensor] = content.tensors
        self.metadata = content.metadata
        self.values = content.values
        self.numbers = content.numbers
        self.packed_with = content.packed_with
        self._files = files

    @property
    def nbytes(self) -> int:
        """Bytes of the file that was opened, or of the files in all."""
        return sum(map(len, self._files))

    @property
    def sha256(self) -> str:
        """The SHA-256 of the file that was opened, as 64 hex digits, whatever stands under its name by now.

        Of a checkpoint in several files: that of the digests of its index and of each, in the order of their names.

        Raises:
            CheckpointError: a checksum that the file has of its tensors is another one.
        """
        if len(self._files) == 1:
            return self._files[0].sha256
        return hashlib.sha256("\n".join(file.sha256 for file in self._files).encode()).hexdigest()

    @property
    def parts(self) -> tuple[MappedFile, ...]:
        """The files that an index names, open; none of a whole checkpoint."""
        return tuple(self._files[1:])

    def compare(self) -> None:
        """Compare the checksums that the file has of its tensors, where it has any and nobody has yet.

        Raises:
            CheckpointError: one is another one.
        """
        for file in self._files:
            file.compare()

    def check_unchanged(self) -> None:
        """Make sure that the tensors and the digest that were read are those of one and the same file.

        Raises:
            CheckpointError: the file was written to, replaced or removed since it was opened.
        """
        for file in self._files:
            file.check_unchanged()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tensors = {}


def format_of(path: str | os.PathLike[str]) -> Format:
    """Return the format that a file's suffix stands for, which is the one it is written in.

    Raises:
        CheckpointError: no format has that suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise CheckpointError(
            f"{Path(path).name} has the suffix {suffix!r}, which is not a checkpoint format's.",
            where=path,
            fix=f"Use one of {', '.join(SUFFIXES)}.",
        )
    return SUFFIXES[suffix]


def opened(path: str | os.PathLike[str]) -> MappedFile:
    """Open the file that a name stands for: itself, or the index of the several files of which it is one.

    Raises:
        CheckpointError: there is no such file, or it is not a regular one.
    """
    source = Path(path)
    if is_folder(source):
        raise CheckpointError(
            f"{path} is a folder, not a checkpoint.",
            where=source,
            fix="Name a file in it, or convert all of them: xcit-hub convert --all FOLDER OUT.",
        )
    return MappedFile.open(_index_of_shard(source) or source)


def read(path: str | os.PathLike[str] | MappedFile, *, late: bool = False) -> Checkpoint:
    """Open a checkpoint; its first bytes say in which format, whatever it is called.

    Only the names, shapes and dtypes are read, and nothing in it is executed. A zip that holds one checkpoint is
    opened; of a checkpoint in several files, its index or any of them opens all.

    Args:
        path: the file, or what :func:`opened` made of it: then it is not opened again.
        late: the checksums that the file has of its tensors are left to :attr:`Checkpoint.sha256`, which reads all of
            it, too.

    Raises:
        CheckpointError: there is no such file, or it is not a whole checkpoint; what it is instead is said.
    """
    file = path if isinstance(path, MappedFile) else opened(path)
    kind = kinds.kind_of(file.view)
    found = _read_shards(file) if kind is Kind.SHARD_INDEX else _read_whole(file, kind)
    if not late:
        found.compare()
    return found


def _read_whole(file: MappedFile, kind: Kind) -> Checkpoint:
    if file.path.name.endswith(".index.json"):
        raise CheckpointError(
            f"{file.path.name} is not the index of a checkpoint.", where=file.path, fix="Fetch it again."
        )
    return Checkpoint([file], *_content(file, kind))


def write(
    path: str | os.PathLike[str],
    tensors: Mapping[str, StoredTensor | npt.NDArray[np.generic]],
    metadata: Mapping[str, str] | None = None,
    under: str = "model",
) -> str:
    """Write named tensors and strings to a file, whole or not at all; its suffix says in which format.

    Tensors are streamed: a few megabytes of them are in memory at a time. ``.safetensors`` carries ``metadata`` in its
    header, ``.ckpt`` as ``append_dict`` entries, which ``mindspore.load_checkpoint`` returns as strings, and ``.pth``
    beside the tensors.

    Args:
        under: where the table of the tensors is in a ``.pth``.

    Returns:
        The SHA-256 of the file as 64 hex digits.

    Raises:
        CheckpointError: the format cannot hold a tensor, or the suffix is not a format's.
        XcitHubError: the file cannot be written.
    """
    file_format = format_of(path)
    stored = {
        name: tensor if isinstance(tensor, StoredTensor) else StoredTensor.of(tensor)
        for name, tensor in tensors.items()
    }
    size = sum(tensor.nbytes for tensor in stored.values())
    with atomic_write(path, expected=size) as stream, hashed(stream) as (announced, digest):
        if file_format == "pth":
            from xcit_hub.checkpoints.formats import pytorch_write

            pytorch_write.write(announced, stored, metadata or {}, under)
        elif file_format == "ckpt":
            from xcit_hub.checkpoints.formats import mindspore

            mindspore.write(announced, stored, metadata or {})
        else:
            safetensors.write(announced, stored, metadata or {})
    return digest.result()


# ---- What the first bytes say --------------------------------------------------------------------


def _content(file: MappedFile, kind: Kind, *, packed: bool = False) -> tuple[Format, Content]:
    if kind is Kind.ZIP:
        return _of_zip(file, packed=packed)
    if kind is Kind.TORCH_LEGACY:
        from xcit_hub.checkpoints.formats import pytorch

        return "pth", pytorch.read_legacy(file)
    if kind is Kind.SAFETENSORS:
        return "safetensors", _with_tensors(file, kind, safetensors.read(file))
    if kind is Kind.PICKLE:
        raise _of_pickle(file)
    hint = SUFFIXES.get(file.path.suffix.lower())
    if kind is Kind.UNKNOWN and hint == "safetensors":
        return hint, safetensors.read(file)  # which says what is wrong with it
    if kind is Kind.CKPT or (kind is Kind.UNKNOWN and hint == "ckpt"):
        from xcit_hub.checkpoints.formats import mindspore

        return "ckpt", mindspore.read(file)
    claimed = "a PyTorch checkpoint" if hint == "pth" else "a checkpoint"
    says = f" ({kinds.beginning(file.view)} …)" if kind in (Kind.JSON, Kind.TEXT) else ""
    raise CheckpointError(
        f"{file.path.name} is not {claimed}: it is {kind.value}{says}.", where=file.path, fix=kinds.ADVICE[kind]
    )


def _with_tensors(file: MappedFile, kind: Kind, content: Content) -> Content:
    if not content.tensors:
        raise CheckpointError(
            f"{file.path.name} is {kind.value} that holds no tensor.", where=file.path, fix="Fetch the file again."
        )
    return content


def _of_pickle(file: MappedFile) -> CheckpointError:
    from xcit_hub.checkpoints.formats import pickled

    names = pickled.names_in(file.stream())
    what, fix = "a Python pickle, which is not read: a pickle can run any code", "Save the weights as .safetensors."
    if "StructuredToParameterName@@" in names or file.path.suffix.lower() in _PADDLES:
        what = "a PaddlePaddle checkpoint (a pickle), which is not read: a pickle can run any code"
        fix = "Save its state as .safetensors with Paddle; the layout of PaddleViT's XCiT is read from there."
    elif any(name.startswith("numpy.") for name in names):
        what = "a pickle of numpy arrays, which is not read: a pickle can run any code"
        fix = "Save the arrays as .safetensors: safetensors.numpy.save_file(arrays, PATH)."
    return CheckpointError(f"{file.path.name} is not a checkpoint: it is {what}.", where=file.path, fix=fix)


def _of_zip(file: MappedFile, *, packed: bool) -> tuple[Format, Content]:
    from xcit_hub.checkpoints.formats import pytorch
    from xcit_hub.checkpoints.formats.packed import unpacked

    try:
        with zipfile.ZipFile(file.stream()) as archive:
            names = archive.namelist()
            described = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
            if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
                raise CheckpointError(
                    f"{file.path.name} is a TorchScript program, not a checkpoint.",
                    where=file.path,
                    fix="Save its weights in PyTorch: torch.save(torch.jit.load(PATH).state_dict(), OUT).",
                )
            if len(described) == 1:
                return "pth", pytorch.read_archive(file, archive)
            if packed:
                raise CheckpointError(f"{file.path.name} is a zip in a zip.", where=file.path, fix="Unpack it.")
            inner, others = unpacked(file, archive, SUFFIXES)
    except (OSError, ValueError, LookupError, RuntimeError, EOFError, zipfile.BadZipFile, struct.error) as error:
        # zipfile's words for a missing end are that it is not a zip at all.
        why = first_line(error).replace("File is not a zip file", "its end is missing, the file was cut short")
        raise CheckpointError(
            f"{file.path.name} is a PyTorch archive or another zip, and damaged: {why}.",
            where=file.path,
            fix="Fetch the file again and compare its SHA-256.",
        ) from error
    file_format, content = _content(inner, kinds.kind_of(inner.view), packed=True)
    inner.compare()
    return file_format, replace(content, packed_with=others)


# ---- A checkpoint in several files ---------------------------------------------------------------


def shard_index_of(path: Path) -> Path | None:
    """Return where the index of a checkpoint in several files stands, for one of them; None for a whole one."""
    match = _SHARD.fullmatch(path.name)
    if match is None or int(match["count"]) < 2:
        return None
    return path.with_name(f"{match['stem']}{match['suffix']}.index.json")


def _index_of_shard(path: Path) -> Path | None:
    """The index beside one file of several; None if the file is a whole one.

    Raises:
        CheckpointError: it is one of several, and the index is not there.
    """
    index = shard_index_of(path)
    if index is not None and not index.exists():
        raise CheckpointError(
            f"{path.name} is one of several files of a checkpoint, and their index {index.name} is not beside it.",
            where=path,
            fix="Fetch the index and the other files into the same folder.",
        )
    return index


def _read_shards(index: MappedFile) -> Checkpoint:
    table = kinds.shard_index(index.view) or {}
    names = sorted(set(table.values()))
    if len(names) > _MOST_SHARDS or any(Path(name).name != name or name in ("", ".", "..") for name in names):
        raise CheckpointError(
            f"{index.path.name} names files outside of its folder, or too many.",
            where=index.path,
            fix="Do not use this checkpoint.",
        )
    whole, formats, files = Content({}), set(), [index]
    for name in names:
        file = MappedFile.open(index.path.with_name(name))
        if (kind := kinds.kind_of(file.view)) is Kind.SHARD_INDEX:
            raise CheckpointError(
                f"{index.path.name} names another index, {name}, as one of its files.",
                where=file.path,
                fix="Fetch the index and all its files again.",
            )
        file_format, content = _content(file, kind)
        files.append(file)
        formats.add(file_format)
        promised = {tensor for tensor, holder in table.items() if holder == name}
        if promised != content.tensors.keys():
            apart = sorted(promised ^ content.tensors.keys())
            raise CheckpointError(
                f"{index.path.name} and {name} do not hold the same tensors: {', '.join(apart[:3])} "
                f"({len(apart)} in all) is in one alone.",
                where=file.path,
                fix="Fetch the index and all its files again.",
            )
        if apart := [key for key, text in content.metadata.items() if whole.metadata.get(key, text) != text]:
            raise CheckpointError(
                f"The files of {index.path.name} say different things of {', '.join(map(repr, apart[:3]))}.",
                where=file.path,
                fix="Fetch the index and all its files again.",
            )
        whole.tensors.update(content.tensors)
        whole.metadata.update(content.metadata)
        whole.values += content.values
        whole.numbers |= content.numbers
    if len(formats) != 1:
        raise CheckpointError(
            f"The files of {index.path.name} are of different formats.",
            where=index.path,
            fix="Write all files of the index anew in one format: .safetensors, or PyTorch's.",
        )
    return Checkpoint(files, formats.pop(), whole)
