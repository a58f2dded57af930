"""The public network: what ``create_model``, ``load`` and ``from_pretrained`` return, and what can be saved and pushed.

The network itself is :class:`xcit_hub.models.XCiT`; this adds where it came from and how it travels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from xcit_hub import accelerated, models, variants
from xcit_hub.checkpoints.identify import UNTRAINED_NOTE
from xcit_hub.checkpoints.strings import fit
from xcit_hub.errors import InputError, readable
from xcit_hub.hub import config as descriptions
from xcit_hub.hub import entry
from xcit_hub.hub.config import ModelConfig
from xcit_hub.hub.locate import Located, PathLike, locate
from xcit_hub.hub.read import Filling, filling, notes_of, owned
from xcit_hub.lasting import lasting
from xcit_hub.models.functions import device_target
from xcit_hub.models.private import no_init_parameters
from xcit_hub.models.xcit import check_count
from xcit_hub.variants import GlobalPool, Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self, Unpack

    from xcit_hub.accelerated.fused import FusedDtype
    from xcit_hub.hub.saving import Pushing

Dtype = Literal["float32", "float16", "bfloat16"]
Mode = Literal["graph", "pynative"]


class Rates(TypedDict):
    """Drop rates, as :class:`xcit_hub.models.XCiT` takes them."""

    drop_rate: float
    pos_drop_rate: float
    proj_drop_rate: float
    attn_drop_rate: float
    drop_path_rate: float


NO_RATES: Rates = {
    "drop_rate": 0.0,
    "pos_drop_rate": 0.0,
    "proj_drop_rate": 0.0,
    "attn_drop_rate": 0.0,
    "drop_path_rate": 0.0,
}


class XCiTFeatures(models.XCiTFeatures):
    """The backbone of a feature pyramid, see :class:`xcit_hub.models.XCiTFeatures`."""

    def fuse(self, dtype: FusedDtype = "float32") -> Self:
        """Return a faster copy for inference alone, see :func:`xcit_hub.accelerated.fuse`."""
        return accelerated.fuse(self, dtype)

    def portable(self) -> Self:
        """Return a network of MindSpore's own operations alone, see :func:`xcit_hub.accelerated.portable`."""
        return accelerated.portable(self)


class XCiT(models.XCiT):
    """An XCiT that can be saved, pushed and loaded: what every public function of this package returns.

    Build one with :func:`xcit_hub.create_model` or :func:`xcit_hub.load`. A subclass's :meth:`from_pretrained` gives
    that subclass, if its constructor takes what :class:`xcit_hub.models.XCiT` takes.

    Attributes:
        config: architecture, dialect, preprocessing, labels and provenance; on loaded networks only.

    Example:

        >>> network = xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=10)
        >>> network.save_pretrained("mine")
        >>> again = xcit_hub.XCiT.from_pretrained("mine")
        >>> again.push_to_hub("org/mine")
    """

    config: ModelConfig

    @classmethod
    def of_config(
        cls,
        config: ModelConfig,
        arrays: Mapping[str, NDArray[np.generic]],
        rates: Rates = NO_RATES,
        *,
        copy: bool = True,
    ) -> Self:
        """Build the network that ``config`` describes and fill it, strictly; it is in eval mode.

        Args:
            arrays: every parameter and buffer by MindCV's names.
            rates: drop rates for training; none by default.
            copy: as for :func:`xcit_hub.models.load_weights`.

        Raises:
            WeightsError: a tensor is missing, unexpected or of another shape.
        """
        with lasting(), no_init_parameters():
            network = cls(
                config.shape,
                variants.dialect(config.dialect),
                num_classes=config.num_classes,
                in_chans=config.in_chans,
                global_pool=config.global_pool,
                **rates,
            )
        models.load_weights(network, arrays, copy=copy)
        network.config = config
        network.set_train(False)
        return network

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: PathLike,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: PathLike | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        hub: PathLike | None = None,
        num_classes: int | None = None,
        in_chans: int | None = None,
        global_pool: GlobalPool | None = None,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        dtype: Dtype | None = None,
        mode: Mode | None = None,
        dialect: variants.DialectName | None = None,
        ignore_fields: Sequence[str] = (),
    ) -> Self:
        """Load by id, or from a folder that :meth:`save_pretrained` wrote; the same as :func:`xcit_hub.load`.

        Args:
            pretrained_model_name_or_path: any id that :func:`xcit_hub.load` takes.
            force_download: fetch again what the cache holds.
            token: overrides huggingface_hub's login and ``HF_TOKEN``; False sends none.
            cache_dir: where fetched files are kept; huggingface_hub's cache by default.
            local_files_only: never touch the network.
            revision: branch, tag or commit.
            hub, num_classes, in_chans, global_pool, dtype, mode, dialect, ignore_fields: as for
                :func:`xcit_hub.load`.
            drop_rate, pos_drop_rate, proj_drop_rate, attn_drop_rate, drop_path_rate: for training; as for
                :func:`xcit_hub.create_model`.

        Returns:
            A network of this class in eval mode; ``.config`` describes it.

        Raises:
            HubError, WeightsError, InputError, UnknownNameError: as :func:`xcit_hub.load`.
        """
        located = locate(
            str(pretrained_model_name_or_path), revision, hub=hub, cache_dir=cache_dir, offline=local_files_only,
            token=token, force=force_download, ignore_fields=ignore_fields,
        )  # fmt: skip
        rates = checked_rates(drop_rate, pos_drop_rate, proj_drop_rate, attn_drop_rate, drop_path_rate)
        return cls.of_located(
            located, lambda: filling(located, dialect), num_classes=num_classes, in_chans=in_chans,
            global_pool=global_pool, rates=rates, dtype=dtype, mode=mode,
        )  # fmt: skip

    @classmethod
    def of_located(
        cls,
        located: Located,
        filled: Callable[[], Filling],
        *,
        num_classes: int | None = None,
        in_chans: int | None = None,
        global_pool: GlobalPool | None = None,
        rates: Rates = NO_RATES,
        dtype: Dtype | None = None,
        mode: Mode | None = None,
        seed: int | None = None,
    ) -> Self:
        """Build the network that was located; warns the caller's caller of what is not the file's.

        Args:
            filled: reads the weights, or waits for them: :func:`xcit_hub.hub.read.filling`, maybe begun before.
            seed: makes a replaced classifier's values reproducible.
        """
        check_count(num_classes, "num_classes", least=0)
        check_count(in_chans, "in_chans", least=1)
        read = filled()
        weights, described, arrays = read.weights, read.described, read.arrays
        if seed is not None and num_classes in (None, 0, described.num_classes):
            raise InputError(
                f"seed is {seed!r:.40}, and nothing is begun: every weight is the file's.",
                where="seed=…",
                fix="Leave it out, or give another num_classes: the classifier is then a fresh one.",
            )
        notes: list[str] = []
        told = notes_of(located, weights, described)
        if in_chans is not None and in_chans != described.in_chans:
            notes.append(f"the first convolution was adapted from {described.in_chans} to {in_chans} channels")
            arrays = _with_channels(arrays, in_chans)
            described, left = _of_channels(described, in_chans)
            notes += left
        if global_pool is not None:
            described = replace(described, global_pool=global_pool)
        network = cls.of_config(described, arrays, rates, copy=False)
        if num_classes is not None and num_classes != described.num_classes:
            had = f"the classifier of {described.num_classes} classes"
            replaced = f"{had} was replaced by a fresh, untrained one of {num_classes}"
            notes.append(replaced if num_classes else f"{had} was left out")
            network.reset_classifier(num_classes)
            if seed is not None:
                models.initialize(network.head.get_parameters(), described.shape.eta, seed)
            described = replace(described, num_classes=num_classes, labels=())
        elif weights.head_untrained:
            told.append(UNTRAINED_NOTE)
        provenance = replace(described.provenance, notes=(*described.provenance.notes, *notes))
        network.config = replace(described, provenance=provenance)
        network._architecture_assumed = weights.assumed
        _prepare(network, dtype, mode)
        if weights.head_untrained or num_classes not in (None, weights.num_classes):
            network._remember_head()
        for note in (*told, *notes):
            warnings.warn(f"{located.snapshot.name}: {readable(note)}", stacklevel=3)
        return accelerated.accelerate(network, in_place=True)

    def fuse(self, dtype: FusedDtype = "float32") -> Self:
        """Return a faster copy for inference alone, see :func:`xcit_hub.accelerated.fuse`."""
        return accelerated.fuse(self, dtype)

    def portable(self) -> Self:
        """Return a network of MindSpore's own operations alone, see :func:`xcit_hub.accelerated.portable`."""
        return accelerated.portable(self)

    @contextmanager
    def step_by_step(self) -> Iterator[None]:
        """Do nothing: hooks see every cell since 0.2.0. Removed in 0.3.0."""
        warnings.warn("step_by_step() is not needed any more and goes in 0.3.0.", DeprecationWarning, stacklevel=3)
        yield

    def take_apart(self) -> None:
        """Do nothing: hooks and other precisions work without it since 0.2.0. Removed in 0.3.0."""
        warnings.warn("take_apart() is not needed any more and goes in 0.3.0.", DeprecationWarning, stacklevel=2)

    def reset_classifier(self, num_classes: int, global_pool: GlobalPool | None = None) -> None:
        """Replace the classifier by a freshly initialised one, and the pooling if one is given; saved so, it says so.

        Raises:
            InputError: the pooling is unknown, or there cannot be so many classes.
        """
        super().reset_classifier(num_classes, global_pool)
        self._remember_head()

    def cast(self, dtype: Any) -> None:
        """Round every parameter to ``dtype`` and compute in it, see :meth:`xcit_hub.models.XCiT.cast`."""
        untrained = self.head_untrained
        super().cast(dtype)
        if untrained:  # rounded, and trained no more than before
            self._remember_head()

    def _take_over(self, described: ModelConfig, *, head_untrained: bool, told: bool) -> None:
        """Keep what is said of the weights that the network was filled with, in place of what was said of others."""
        self.config = described
        if told:  # which architecture it is
            self._architecture_assumed = False
        self._head_began_as: str | None = None
        if head_untrained:
            self._remember_head()

    def _remember_head(self) -> None:
        """Keep what the classifier, nothing but random numbers, begins as."""
        self._head_began_as = entry.digest_of(self.head)

    @property
    def head_untrained(self) -> bool:
        """Whether the classifier is the random numbers that it began as."""
        began_as = getattr(self, "_head_began_as", None)
        return began_as is not None and began_as == entry.digest_of(self.head)

    def _writer(self) -> Callable[[Path], object]:
        """Return what writes the network as it is now into a folder; what cannot be written is refused before."""
        marks = {"head_untrained": self.head_untrained, "assumed": getattr(self, "_architecture_assumed", False)}
        arrays, description = self.arrays(), self.description()
        return lambda folder: entry.write_weights(folder, arrays, description, **marks)

    def save_pretrained(
        self,
        save_directory: PathLike,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **options: Unpack[Pushing],
    ) -> str | None:
        """Write ``model.safetensors``, ``config.json``, ``xcit_hub.json`` and, where there is none, ``README.md``.

        Args:
            save_directory: is made where it does not exist.
            repo_id: the repository to push to; the folder's name by default.
            push_to_hub: upload it as well.
            options: as for :meth:`push_to_hub`; but for ``model_card_kwargs`` only with ``push_to_hub``.

        Returns:
            The commit's address; None where nothing was pushed.

        Raises:
            InputError: the network is fused, or something is given that only a push would use.
            HubError: as :meth:`push_to_hub`.
        """
        from xcit_hub.hub.saving import Saved, refuse_others

        refuse_others(options)
        given = {"repo_id": repo_id, **{name: value for name, value in options.items() if name != "model_card_kwargs"}}
        unused = sorted(name for name, value in given.items() if value is not None)
        if unused and not push_to_hub:
            raise InputError(
                f"{', '.join(unused)} would be used by a push alone, and nothing is pushed.",
                where="save_pretrained",
                fix="Give push_to_hub=True, or leave it out.",
            )
        folder = Path(save_directory)
        return Saved(self._writer()).save_pretrained(folder, repo_id=repo_id, push_to_hub=push_to_hub, **options)

    def push_to_hub(self, repo_id: str, **options: Unpack[Pushing]) -> str:
        """Upload what :meth:`save_pretrained` writes in one commit; return the commit's address.

        Args:
            repo_id: ``org/name``; is made where it does not exist.
            options: as for huggingface_hub's ``ModelHubMixin.push_to_hub`` (``commit_message``, ``private``, ``token``
                …).

        Raises:
            HubError: the hub's answers are beyond the bounds of :mod:`xcit_hub.hub.guard`, or it is to be private and
                the repository is public; what the hub refuses is huggingface_hub's own error.
        """
        from xcit_hub.hub.saving import Saved, refuse_others

        refuse_others(options)
        return Saved(self._writer()).push_to_hub(repo_id, **options)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return every parameter and buffer as float32 arrays, by MindCV's names.

        Raises:
            InputError: the network is fused: its parameters are another network's.
        """
        return entry.arrays_of(self)

    def description(self) -> ModelConfig:
        """Return ``config`` as the network is now: its classifier and pooling may have been replaced."""
        known: ModelConfig | None = getattr(self, "config", None)
        if known is None:
            known = descriptions.of_architecture(self.architecture, self.dialect.name)
        return replace(
            known,
            num_classes=int(self.num_classes),
            in_chans=int(self.in_chans),
            global_pool=self.global_pool,
            labels=known.labels if len(known.labels) == self.num_classes else (),
        )


def checked_rates(drop: float, pos_drop: float, proj_drop: float, attn_drop: float, drop_path: float) -> Rates:
    """Return the five drop rates together.

    Raises:
        InputError: one of them is not in [0, 1).
    """
    rates: Rates = {
        "drop_rate": drop,
        "pos_drop_rate": pos_drop,
        "proj_drop_rate": proj_drop,
        "attn_drop_rate": attn_drop,
        "drop_path_rate": drop_path,
    }
    for option, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.0 <= rate < 1.0:
            raise InputError(
                f"{option} is {rate!r}.", where=f"{option}=…", fix="A drop rate is at least 0 and less than 1."
            )
    return rates


def _with_channels(arrays: Mapping[str, NDArray[np.float32]], in_chans: int) -> dict[str, NDArray[np.float32]]:
    from xcit_hub.checkpoints.dtypes import adapt_input_conv
    from xcit_hub.checkpoints.tensor import StoredTensor

    name = "patch_embed.proj.0.0.weight"
    return {**arrays, name: owned(adapt_input_conv(StoredTensor.of(arrays[name]), in_chans).numpy())}


def _of_channels(described: ModelConfig, in_chans: int) -> tuple[ModelConfig, list[str]]:
    """Return the description of a network of other channels, and what is said of mean and deviation left behind."""
    seen, usual = described.preprocessing, Preprocessing()
    described = replace(described, in_chans=in_chans)
    if fit(in_chans, seen.mean, seen.std):
        return described, []
    seen = replace(seen, mean=usual.mean, std=usual.std)
    note = f"mean and deviation are not of {in_chans} channels: {usual.mean} and {usual.std} were assumed"
    return replace(described, preprocessing=seen), [note]


def _prepare(network: models.XCiT, dtype: Dtype | None, mode: Mode | None) -> None:
    import mindspore

    if dtype is not None and dtype != "float32":
        if dtype not in ("float16", "bfloat16"):
            raise InputError(
                f"There is no dtype {dtype!r}.", where="dtype=… (--dtype)", fix="Choose float32, float16 or bfloat16."
            )
        if dtype == "bfloat16" and device_target() == "CPU":
            raise InputError(
                "MindSpore has no kernels for bfloat16 on a CPU.",
                where="dtype=… (--dtype)",
                fix="Load it in float32 and call network.fuse(dtype='bfloat16'), where the processor has AVX512-BF16.",
            )
        network.cast(getattr(mindspore, dtype))
    if mode is not None:
        modes = {"graph": mindspore.GRAPH_MODE, "pynative": mindspore.PYNATIVE_MODE}
        if mode not in modes:
            raise InputError(f"There is no mode {mode!r}.", where="mode=…", fix="Choose graph or pynative.")
        mindspore.set_context(mode=modes[mode])
