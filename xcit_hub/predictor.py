"""A classifier that travels: what every worker of a cluster is given, and what ``xcit-hub predict`` runs on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from xcit_hub.data.shards import COLUMNS, Encoded
from xcit_hub.errors import InputError
from xcit_hub.exported import ExportedNetwork, is_exported
from xcit_hub.files import is_folder, is_there, state_of
from xcit_hub.hub import address
from xcit_hub.prediction import Answer, answers, refuse_unless_positive
from xcit_hub.variants import DialectName, dialect

if TYPE_CHECKING:
    from xcit_hub.data.transforms import ImageLike
    from xcit_hub.hub.network import XCiT

_PATHS = ("path", "file", "filename")
_OF_CHECKPOINTS = {
    "revision": "--revision", "hub": "--hub", "cache_dir": "--cache-dir", "offline": "--offline",
    "dialect": "--dialect", "ignore_fields": "--ignore-field", "token_env": "--token-env",
}  # fmt: skip
_ADDED = ("class", "index", "share", "problem")


@dataclass(frozen=True)
class Predictor:
    """Classifies columns of images.

    It holds where a network is, not a network, and can therefore be pickled; the network is built at first use, once a
    process. Ray Data takes it as it is, as an instance or as a class::

        dataset.map_batches(xcit_hub.Predictor("timm/xcit_tiny_12_p16_224.fb_in1k"))
        dataset.map_batches(xcit_hub.Predictor, fn_constructor_kwargs={"model": "xcit.onnx"}, compute=…)

    Args:
        model: what :func:`xcit_hub.load` takes, or an ONNX file of ``xcit-hub export``. Paths become absolute.
        top: classes of an answer; 5 by default, or all where there are fewer.
        batch: how many images go through the network at once.
        exif: turn images as their EXIF orientation says.
        column: where the images are; by default the first of image, bytes, jpg, jpeg, png, webp, path, file, filename.
        revision, hub, cache_dir, offline, dialect, ignore_fields: as for :func:`xcit_hub.load`.
        token_env: the environment variable that holds the hub's token, in the process that loads.
        threads: with which it computes; as many as cores by default.

    Raises:
        InputError, UnknownNameError: an option has no meaning.
    """

    model: str
    top: int | None = None
    batch: int = 16
    exif: bool = False
    column: str | None = None
    revision: str | None = None
    hub: str | None = None
    cache_dir: str | None = None
    offline: bool = False
    dialect: DialectName | None = None
    ignore_fields: tuple[str, ...] = ()
    token_env: str | None = None
    threads: int | None = None

    _LOADING: ClassVar = (
        "model", "revision", "hub", "cache_dir", "offline", "dialect", "ignore_fields", "token_env", "threads",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("top", "threads"):
            if (number := getattr(self, name)) is not None:
                refuse_unless_positive(number, name)
        refuse_unless_positive(self.batch, "batch")
        if self.dialect is not None:
            dialect(self.dialect)
        # Workers stand in folders of their own.
        settled = {"model": _settled(os.fspath(self.model), self.hub), "ignore_fields": tuple(self.ignore_fields)}
        if self.hub is not None:
            settled["hub"] = str(Path(self.hub).absolute()) if is_there(self.hub) else os.fspath(self.hub)
        if self.cache_dir is not None:
            settled["cache_dir"] = str(Path(self.cache_dir).expanduser().absolute())
        for name, value in settled.items():
            object.__setattr__(self, name, value)

    @property
    def network(self) -> XCiT | ExportedNetwork:
        """The network, in eval mode; one for all predictors of the process that name it alike.

        Where the files of a path were replaced since, it is built anew.

        Raises:
            HubError, WeightsError, InputError: see :func:`xcit_hub.load`; it is raised again at the next use.
        """
        key = (os.getpid(), *(getattr(self, name) for name in self._LOADING))  # a fork's threads are not there
        with _lock:
            state = _state(self.model) if self.hub is None else frozenset()
            held = _networks.get(key)
            if held is None or (state and held[0] != state):  # what is gone was not replaced
                held = state, self._build()
                _networks[key] = held
            return held[1]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped or assumed of the model, as far as its reader has to know it; see :attr:`network`."""
        return self.network.config.provenance.notes

    def _build(self) -> XCiT | ExportedNetwork:
        if is_exported(self.model):
            for name, flag in _OF_CHECKPOINTS.items():
                if getattr(self, name):
                    raise InputError(
                        f"{flag} means nothing for an exported file.", where=self.model, fix="Leave it out."
                    )
            return ExportedNetwork(self.model, threads=self.threads)
        from xcit_hub.hub.load import load

        with _cores(self.threads):
            network = load(
                self.model,
                self.revision,
                hub=self.hub,
                cache_dir=self.cache_dir,
                offline=self.offline,
                token=_token(self.token_env),
                dialect=self.dialect,
                ignore_fields=self.ignore_fields,
            )
            if self.threads is not None:  # threads are counted when they are first needed
                side = network.architecture.patch_size
                answer = network(_tensor(np.zeros((2, network.in_chans, side, side), np.float32)))
                answer.asnumpy()
        return network

    def answers(self, images: Iterable[ImageLike]) -> Iterator[Answer]:
        """Yield an answer an image, in their order, those that cannot be read among them.

        Raises:
            InputError, WeightsError: see :func:`xcit_hub.predict` and :attr:`network`.
        """
        return answers(self.network, images, top=self.top, batch=self.batch, exif=self.exif)

    def __call__(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Map columns to columns: what came in without the images' bytes and pixels, and an answer a row.

        Args:
            columns: of equal lengths, lists or arrays. An image is a path, the bytes of a file, ``{"bytes": …}`` as in
                Hugging Face's data sets, a PIL image, or uint8 pixels (H, W) or (H, W, C).

        Returns:
            The columns that came in, but for the images unless they are paths; ``class``, ``index`` and ``share``, the
            most probable class first, an array each (str, int64, float64; empty where there is a problem); ``problem``.

        Raises:
            InputError: there is no column of images, or one of the answers' names is taken; and as :meth:`answers`.
        """
        column = self._column(columns)
        taken = [name for name in _ADDED if name in columns]
        if taken:
            raise InputError(
                f"There is a column {taken[0]!r} already.", where=f"the column {taken[0]!r}", fix="Rename it."
            )
        values = list(columns[column])
        are_paths = _are_paths(column, values)
        found = list(self.answers([_image(value, number) for number, value in enumerate(values)]))
        kept = {name: values for name, values in columns.items() if name != column or are_paths}
        return {
            **kept,
            "class": [np.array([each.label for each in answer.classes], str) for answer in found],
            "index": [np.array([each.index for each in answer.classes], np.int64) for answer in found],
            "share": [np.array([each.probability for each in answer.classes], np.float64) for answer in found],
            "problem": np.array([answer.problem for answer in found], object),
        }

    def _column(self, columns: Mapping[str, Any]) -> str:
        wanted = (*COLUMNS, *_PATHS) if self.column is None else (self.column,)
        for name in wanted:
            if name in columns:
                return name
        raise InputError(
            f"There is no column of images: {', '.join(columns) or 'no column at all'}.",
            where="column=… (--column)",
            fix=f"Name it: column=…; by itself one of {', '.join(wanted)} is taken.",
        )


_State = frozenset[tuple[str, tuple[int, ...]]]
_networks: dict[tuple[Any, ...], tuple[_State, XCiT | ExportedNetwork]] = {}
_lock = Lock()


def _state(model: str) -> _State:
    """Return the states of the files that a path's network is read from; none where it is a hub's, or nothing is there.

    Beside a file its weights, parts or description may stand, whose names begin as its own does, or ``config.json``.
    """
    if not os.path.isabs(model) or not is_there(model):  # settled paths are absolute  # noqa: PTH117
        return frozenset()
    folder, name = (model, "") if is_folder(model) else os.path.split(model)
    found: set[tuple[str, tuple[int, ...]]] = set()
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(name.partition(".")[0]) or entry.name == "config.json":
                with suppress(OSError):  # it has gone since
                    if entry.is_file():  # a folder's state changes with what is written into it, drawings perhaps
                        found.add((entry.name, state_of(entry.path)))
    return frozenset(found)


def _settled(model: str, hub: object) -> str:
    """Return an id as it was given, and a path as an absolute one."""
    if is_exported(model):
        return str(Path(model).expanduser().absolute())
    if hub is None:
        found = address.parse(model)
        if found.store == address.LOCAL:
            return str(Path(found.name).absolute())
    return model


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise InputError(f"The variable {variable} is not set.", where="token_env", fix="Export it.")
    return os.environ[variable]


def _tensor(values: Any) -> Any:
    import mindspore

    return mindspore.Tensor(values)


def _are_paths(column: str, values: list[Any]) -> bool:
    """Whether a column holds paths, some of them empty perhaps: all batches have the same columns."""
    from PIL import Image

    if any(isinstance(each, bytes | bytearray | memoryview | np.ndarray | Mapping | Image.Image) for each in values):
        return False
    return column in _PATHS or any(isinstance(each, str | os.PathLike) for each in values)


def _image(value: Any, number: int) -> ImageLike:
    from PIL import Image

    if isinstance(value, Mapping):
        value = value.get("bytes")
    if isinstance(value, bytes | bytearray | memoryview):
        return Encoded(f"image {number}", bytes(value))
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.size:
        pixels = value[..., 0] if value.ndim == len("HWC") and value.shape[-1] == 1 else value
        if pixels.ndim == len("HW") or (pixels.ndim == len("HWC") and pixels.shape[-1] in (3, 4)):
            return Image.fromarray(np.ascontiguousarray(pixels))
    return value  # what is not an image is answered so


@contextmanager
def _cores(threads: int | None) -> Iterator[None]:
    """Let what counts the cores count so many; the threads that it makes may run on all of them afterwards."""
    cores: set[int] | None = os.sched_getaffinity(0) if threads is not None else None
    if cores is None or threads is None or threads >= len(cores):
        yield
        return
    os.sched_setaffinity(0, sorted(cores)[:threads])
    try:
        yield
    finally:
        for task in os.listdir("/proc/self/task"):  # noqa: PTH208  (names alone)
            try:
                os.sched_setaffinity(int(task), cores)
            except OSError:  # it has ended since
                continue
