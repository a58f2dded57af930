"""timm's ``config.json``: one reader for all its forms, which leaves no field unaccounted for, and the writer.

The forms: nested (``pretrained_cfg`` inside), flat (everything at the root, older), transformers' ``timm_wrapper``, and
what our converter writes beside a checkpoint. What each field does was read in timm 1.0.31, ``models/_hub.py``,
``_factory.py``, ``_builder.py``, ``data/config.py`` and ``data/transforms_factory.py``; a test computes it with timm.

Every field is used, refused by name, or unused for a reason that can be listed. Unknown ones are refused in
``model_args``, which timm passes to the network's constructor, and listed elsewhere, where timm reads by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from xcit_hub.errors import HubError
from xcit_hub.hub import config as ours
from xcit_hub.hub import fields as foreign
from xcit_hub.hub.config import Description, ModelConfig
from xcit_hub.hub.fields import Reader, is_digest, malformed
from xcit_hub.hub.timm_fields import (
    CLASSIFIER,
    DIMENSIONS,
    FIRST_CONV,
    FIXED,
    UNUSED_ARGUMENTS,
    UNUSED_PRETRAINED,
    UNUSED_ROOT,
)
from xcit_hub.variants import (
    ARCHITECTURES,
    DIALECTS,
    Architecture,
    DialectName,
    has_name,
    in_timm,
    without_positions,
)
from xcit_hub.variants import architecture as architecture_of

FILE_NAME = "config.json"

_UNKNOWN = "unknown; timm does not read it"
_POOLS = ("token", "avg", "")
_WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")


def read(text: str, *, where: object = None, ignore: frozenset[str] = frozenset()) -> Description:
    """Read a ``config.json``; what timm publishes is the paper's network, and ours of the other dialect says so.

    Args:
        ignore: fields to read as if they were not there: ``name``, or ``model_args.name``.

    Returns:
        What it says. Its ``config`` is None for what our converter writes under that name beside an architecture that
        is in no table, which only its tensors describe.

    Raises:
        HubError: it is not such a file, describes another model than XCiT, or has a field that is refused.
    """
    record = foreign.parsed(text, where)
    if isinstance(record.get("xcit_hub"), dict):
        return _of_converter(record, where, ignore)
    return _Reading(record, where, ignore).description()


def held_against(
    text: str, described: Description, *, where: object = None, ignore: frozenset[str] = frozenset()
) -> Description:
    """Hold the ``config.json`` beside an ``xcit_hub.json`` against it; timm reads the one, and this package the other.

    Args:
        described: what the ``xcit_hub.json`` says; its ``config`` is used.
        ignore: as for :func:`read`.

    Returns:
        The same, with a word on the other file.

    Raises:
        HubError: the two contradict each other.
    """
    try:
        told = read(text, where=where, ignore=ignore)
    except HubError as error:
        note = f"{FILE_NAME} was not used, and timm will not read it either: {error.what}"
        is_foreign = described.config is None or in_timm(described.config.shape) is None
        return replace(
            described,
            unused={**described.unused, FILE_NAME: f"{ours.FILE_NAME} describes the model; {error.what}"},
            notes=described.notes if is_foreign else (*described.notes, note),
        )
    unused = {**described.unused, FILE_NAME: f"{ours.FILE_NAME} describes the model, and says the same"}
    listed = (foreign.IGNORED, _UNKNOWN)
    there = {name: reason for name, reason in told.unused.items() if reason in listed}
    if described.config is not None and told.config is not None:
        # As the same reader would read what would be written now: what timm's form cannot say is not a contradiction.
        try:
            expected = read(write(described.config)).config
        except HubError:
            expected = None
        apart = [] if expected is None else list(_apart(expected, told.config))
        if apart:
            raise HubError(
                f"{ours.FILE_NAME} and {FILE_NAME} contradict each other: {'; '.join(apart)}.",
                where=where,
                fix=f"Correct one of them, or read the model without one: ignore_fields=[{FILE_NAME!r}], "
                f"--ignore-field {FILE_NAME} (or {ours.FILE_NAME}).",
            )
    return replace(described, unused=unused | there)


def _apart(ours_said: ModelConfig, said: ModelConfig) -> Iterator[str]:
    for kind, one, other in (
        ("", replace(ours_said.shape, name="", image_size=0), replace(said.shape, name="", image_size=0)),
        ("", ours_said, said),
        ("preprocessing.", ours_said.preprocessing, said.preprocessing),
    ):
        for each in fields(one):
            values = [getattr(side, each.name) for side in (one, other)]
            if each.name not in ("architecture", "custom", "provenance", "preprocessing") and values[0] != values[1]:
                is_long = each.name == "labels"
                yield f"{kind}{each.name}" + ("" if is_long else f" is {values[0]} and {values[1]}")


def write(config: ModelConfig) -> str:
    """Write timm's ``config.json``.

    A network that timm's own class does not compute gets an architecture name that timm knows only after
    ``import xcit_hub.timm``, so that timm alone refuses it instead of giving other logits.
    """
    seen = config.preprocessing
    _, differing = in_timm(config.shape) or ("", {})
    model_args = dict(differing)
    if config.in_chans != 3:
        model_args["in_chans"] = config.in_chans
    if config.global_pool != "token":
        model_args["global_pool"] = config.global_pool
    record: dict[str, object] = {
        "architecture": architecture_name(config),
        "num_classes": config.num_classes,
        "num_features": config.shape.embed_dim,
        "global_pool": config.global_pool,
    }
    if model_args:
        record["model_args"] = model_args
    if config.labels:
        record["label_names"] = list(config.labels)
    record["pretrained_cfg"] = {
        "custom_load": False,
        "input_size": [config.in_chans, *seen.size],
        "interpolation": seen.interpolation,
        "crop_pct": seen.crop_pct,
        "crop_mode": seen.crop_mode,
        "mean": list(seen.mean),
        "std": list(seen.std),
        "num_classes": config.num_classes,
        "first_conv": FIRST_CONV,
        "classifier": CLASSIFIER,
    }
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def architecture_name(config: ModelConfig) -> str:
    """Return the name that ``config.json`` gives: timm's own for what its class computes, another for all else."""
    name, _ = in_timm(config.shape) or (config.architecture, {})
    return name if config.dialect == "paper" else f"{name}_{config.dialect}"


@dataclass
class _Reading:
    """One pass over a record; ``taken`` are the fields somebody asked for, the rest has to have a reason."""

    record: dict[str, Any]
    where: object
    ignore: frozenset[str]
    unused: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def description(self) -> Description:
        root = dict(self.record)
        self._drop_ignored({"": root})
        is_nested = "pretrained_cfg" in root
        pretrained = self._object(root, "pretrained_cfg") if is_nested else {}
        arguments = self._object(root, "model_args")
        self._drop_ignored({"pretrained_cfg.": pretrained, "model_args.": arguments})
        if not is_nested:
            pretrained = {name: root.pop(name) for name in list(root) if name not in _ROOT_ONLY}
        args = Reader(arguments, "model_args.", self.where)
        cfg = Reader(pretrained, "pretrained_cfg." if is_nested else "", self.where)
        top = Reader(root, "", self.where)

        shape, dialect = self._architecture(top.take("architecture"))
        in_chans = args.whole("in_chans", None, least=1)
        num_classes = self._num_classes(top, cfg, args)
        self._refuse(cfg, args)
        shape = self._shape(shape, args)
        size = self._input_size(cfg, args, in_chans, shape)
        preprocessing = {
            "image_size": size[1],
            "image_width": None if size[1] == size[2] else size[2],
            # timm's defaults, also where it is null; of an empty one timm takes the default, and here it is refused.
            "crop_pct": cfg.take("crop_pct", 0.875),
            "crop_mode": cfg.take("crop_mode", "center"),
            "interpolation": cfg.take("interpolation", "bicubic"),
            "mean": cfg.take("mean", ours.IMAGENET_MEAN),
            "std": cfg.take("std", ours.IMAGENET_STD),
        }
        pool = args.one_of("global_pool", _POOLS, "token")
        pools = {f"{cfg.prefix}global_pool": cfg.take("global_pool"), "global_pool": top.take("global_pool")}
        for name, told_pool in pools.items():
            if told_pool not in (None, pool):
                self.unused[name] = f"timm does not build by it; the network has {pool!r}, as in timm"
                self.notes.append(
                    f"{name} is {told_pool!r} in the configuration, which timm does not build by; the network has "
                    f"{pool!r}, as in timm"
                )
        labels = self._labels(top, cfg, num_classes)
        follows = {
            "architecture": cfg.fields.get("architecture") if _is_same(root, pretrained) else root["architecture"],
            "num_features": shape.embed_dim,
            "first_conv": FIRST_CONV,
            "classifier": CLASSIFIER,
        }
        self._account(top, UNUSED_ROOT, "", follows)
        self._account(cfg, UNUSED_PRETRAINED, "pretrained_cfg." if is_nested else "", follows)
        self._account_arguments(args)
        if not labels and num_classes == 1000:
            labels = ours.imagenet_labels()
        config = ours.validated(
            {
                "architecture": shape.name,
                "dialect": dialect,
                "num_classes": num_classes,
                "in_chans": size[0],
                "global_pool": pool,
                "preprocessing": preprocessing,
                "labels": list(labels),
            },
            self.where,
            custom=None if ARCHITECTURES.get(shape.name) == shape else shape,
        )
        return Description(config, unused=self.unused, notes=tuple(self.notes))

    def _object(self, root: dict[str, Any], name: str) -> dict[str, Any]:
        value = root.pop(name, None)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise malformed(f"{name!r} is not an object", self.where)
        return dict(value)

    def _drop_ignored(self, levels: Mapping[str, dict[str, Any]]) -> None:
        for name in foreign.drop_ignored(levels, self.ignore):
            self.unused[name] = foreign.IGNORED
            self.notes.append(foreign.ignored_note(name))

    def _architecture(self, given: object) -> tuple[Architecture, DialectName]:
        name, dialect = _name_and_dialect(given)
        if not isinstance(given, str) or name not in ARCHITECTURES:
            raise HubError(
                f"This repository holds {given!r:.60}, which is not an XCiT architecture that timm and xcit-hub share.",
                where=self.where,
                fix="Name a repository with XCiT weights; `xcit-hub list --pretrained` has timm's.",
            )
        return ARCHITECTURES[name], dialect

    def _num_classes(self, top: Reader, cfg: Reader, args: Reader) -> int:
        told = {
            "num_classes": top.whole("num_classes", None, least=0),
            "pretrained_cfg.num_classes": cfg.whole("num_classes", None, least=0),
            "model_args.num_classes": args.whole("num_classes", None, least=0),
        }
        weights, other = told["num_classes"], told["pretrained_cfg.num_classes"]
        if weights is None:
            weights = other
        elif other not in (None, weights):
            self.unused["pretrained_cfg.num_classes"] = f"{other}; the root's num_classes says {weights}, as in timm"
        built = told["model_args.num_classes"]
        if built is not None and built != (1000 if weights is None else weights):
            raise self._refused(
                "model_args.num_classes", f"{built} classes, and the weights' number is {weights}: timm would begin a "
                "random classifier",
            )  # fmt: skip
        return 1000 if weights is None else weights

    def _shape(self, table: Architecture, args: Reader) -> Architecture:
        found: dict[str, Any] = {}
        for argument, name in DIMENSIONS.items():
            value = args.number(argument)
            if value is not None:
                if name != "mlp_ratio" and value != int(value):
                    raise self._refused(f"model_args.{argument}", f"{value!r} is not a whole number")
                found[name] = value if name == "mlp_ratio" else int(value)
        eta = args.number("eta")
        tokens_norm = args.flag("tokens_norm")
        use_pos_embed = args.flag("use_pos_embed")
        if eta is not None:
            found["eta"] = float(eta)
        if tokens_norm is not None:
            found["tokens_norm"] = tokens_norm
        if use_pos_embed is not None:
            found["use_pos_embed"] = use_pos_embed
        shape = replace(table, **found)
        # eta is an initial value: weights that were trained from another one are the table's network all the same.
        if replace(shape, eta=table.eta) == table:
            return table
        same = next((entry for entry in ARCHITECTURES.values() if replace(shape, name=entry.name) == entry), None)
        bare = without_positions(table)
        return same or (bare if replace(shape, name=bare.name) == bare else replace(shape, name=f"{table.name}_custom"))

    def _input_size(self, cfg: Reader, args: Reader, in_chans: int | None, shape: Architecture) -> tuple[int, int, int]:
        size = cfg.wholes("input_size", 3) or (3, 224, 224)
        is_fixed = cfg.flag("fixed_input_size") or False
        asked = args.take("img_size")
        if asked is not None:
            height, width = args.pair("img_size", asked)
            if height % shape.patch_size:
                raise self._refused("model_args.img_size", f"{height} is not a multiple of the patch size")
            if is_fixed:
                size = (size[0], height, width)
            else:
                self.unused["model_args.img_size"] = "says for what size the network was built; it takes any"
        if is_fixed and size[1] % shape.patch_size:
            raise self._refused("input_size", f"{size[1]} is not a multiple of the patch size, and the size is fixed")
        return (in_chans or size[0], size[1], size[2])

    def _refuse(self, cfg: Reader, args: Reader) -> None:
        if cfg.take("state_dict") is not None:
            raise self._refused("state_dict", "weights inside a description are not read")
        if cfg.take("custom_load") not in (None, False):
            raise self._refused("custom_load", "XCiT has no loader of its own")
        if cfg.take("label_offset") not in (None, 0):
            raise self._refused("label_offset", "timm would cut the classifier's first rows")
        file_name = cfg.take("hf_hub_filename")
        if file_name not in (None, *_WEIGHTS_NAMES):
            raise self._refused("hf_hub_filename", f"the weights would be another file: {file_name!r:.60}")
        for name, value in args.fields.items():
            if value is None and name not in FIXED:
                raise self._refused(f"model_args.{name}", "timm would build with null, not with a default")
        for name, (only, reason) in FIXED.items():
            if name in args.fields and args.take(name) is not only:
                raise self._refused(f"model_args.{name}", reason)

    def _labels(self, top: Reader, cfg: Reader, num_classes: int) -> tuple[str, ...]:
        forms = {
            "label_names": top.take("label_names"),
            "pretrained_cfg.label_names": cfg.take("label_names"),
            "labels": top.take("labels"),
            "pretrained_cfg.labels": cfg.take("labels"),
            "id2label": top.take("id2label"),
            "label2id": _turned_round(top.take("label2id")),
        }
        taken, labels = "", tuple[str, ...]()
        for name, value in forms.items():
            named = {} if value is None else _names_by_index(value, num_classes)
            if named is None:
                raise malformed(f"{name} does not name {num_classes} classes", self.where)
            if not named:
                if value is not None:
                    self.unused[name] = "it names no class"
            elif not taken:
                taken = name
                labels = tuple(named.get(index, f"class {index}") for index in range(num_classes))
                if len(named) < num_classes:
                    self.notes.append(
                        f"{name} names {len(named)} of {num_classes} classes; the others are called 'class N'"
                    )
            elif all(labels[index] == each for index, each in named.items()):
                self.unused[name] = f"{taken} names the classes"
            else:
                self.unused[name] = f"it names other classes than {taken}, which counts"
                self.notes.append(f"the configuration's {name} names other classes than {taken}, which was taken")
        return labels

    def _account(self, reader: Reader, reasons: Mapping[str, str], prefix: str, follows: Mapping[str, object]) -> None:
        """List what nobody took; what ``follows`` from the architecture is held against that."""
        for name in reader.rest():
            if name in reasons:
                value = reader.fields[name]
                own = follows.get(name, value)
                if value is not None:
                    self.unused[f"{prefix}{name}"] = reasons[name] if value == own else f"the network's is {own!r}"
                if value is not None and value != own:
                    self.notes.append(
                        f"{prefix}{name} is {value!r:.60} in the configuration, and the network's is {own!r}"
                    )
                continue
            self.unused[f"{prefix}{name}"] = _UNKNOWN
            self.notes.append(f"the configuration's field {prefix}{name} is not known, and was not used")

    def _account_arguments(self, args: Reader) -> None:
        for name in args.rest():
            if name not in UNUSED_ARGUMENTS:
                raise self._refused(f"model_args.{name}", "timm would pass it to the network, and it is not known here")
            value = args.number(name)
            if value is None or not 0 <= value < 1:
                raise self._refused(f"model_args.{name}", f"{args.fields[name]!r:.40} is not a rate")
            if value:
                self.unused[f"model_args.{name}"] = UNUSED_ARGUMENTS[name]

    def _refused(self, name: str, reason: str) -> HubError:
        return HubError(
            f"The configuration's field {name} cannot be followed: {reason}.",
            where=self.where,
            fix=f"Correct the file, or read it without that field: ignore_fields=[{name!r}], --ignore-field {name}.",
        )


# What stands at the root in either form; in a flat file everything else is pretrained_cfg's.
_ROOT_ONLY = frozenset(
    ("architecture", "num_classes", "label_names", "labels", "id2label", "label2id", "global_pool", *UNUSED_ROOT)
) - {"label_descriptions"}


def _name_and_dialect(given: object) -> tuple[str, DialectName]:
    """Split a name of timm's or ours: without its tag and timm's older "_dist", which say the weights."""
    name = str(given).partition(".")[0]
    bare, _, said = name.rpartition("_")
    name, dialect = (bare, DIALECTS[said].name) if said in DIALECTS else (name, DIALECTS["paper"].name)
    return name.removesuffix("_dist"), dialect


def _is_same(root: Mapping[str, Any], pretrained: Mapping[str, Any]) -> bool:
    """Whether the two names of the architecture are the same but for the weights' tag."""
    return _name_and_dialect(root["architecture"]) == _name_and_dialect(pretrained.get("architecture"))


def _names_by_index(value: object, num_classes: int) -> dict[int, str] | None:
    """Return index → name of a list of all names, or of a dict of some; None of what is neither."""
    if isinstance(value, list) and len(value) in (0, num_classes):
        named = dict(enumerate(value))
    elif isinstance(value, dict) and all(re.fullmatch("0|[1-9][0-9]{0,8}", index) for index in value):
        named = {int(index): name for index, name in value.items()}
    else:
        return None
    is_sound = all(index < num_classes and isinstance(name, str) for index, name in named.items())
    return named if is_sound else None


def _turned_round(label2id: object) -> object:
    """Return name → index as index → name; two classes of one name have one entry, the last.

    What names one class twice is returned as it is, and is no table of names.
    """
    if not isinstance(label2id, dict):
        return label2id
    turned = {str(index): name for name, index in label2id.items()}
    return turned if len(turned) == len(label2id) else label2id


# What the converter's own part says, and who reads it.
_CONVERTER = {
    "family": "the weights' names show it",
    "version": "of the xcit-hub that wrote it",
    "file": "a name, and files are told by their SHA-256",
    "sha256": "held against the weights beside it",
    "architecture_assumed": "the weights' own string says it, too",
    "head_untrained": "the weights' own string says it, too",
}


_BY_TENSORS = "the architecture is in no table: the weights' own shapes and strings say it"


def _of_converter(record: Mapping[str, Any], where: object, ignore: frozenset[str]) -> Description:
    level = {"": {k: v for k, v in record.items() if k != "xcit_hub"}, "xcit_hub.": dict(record["xcit_hub"])}
    ignored = foreign.drop_ignored(level, ignore)
    unused = dict.fromkeys(ignored, foreign.IGNORED)
    notes = [foreign.ignored_note(name) for name in ignored]
    top, own = (Reader(written, prefix, where) for prefix, written in level.items())
    architecture, dialect = top.take("architecture"), own.take("dialect")
    digest = own.fields.get("sha256")
    if not is_digest(digest) and "xcit_hub.sha256" not in ignored:  # the dialect is of that file, and of no other
        raise malformed(f"xcit_hub.sha256 is {digest!r:.70}, and no SHA-256 of the file it is of", where)
    given: dict[str, Any] = {name: top.take(name) for name in ("num_classes", "in_chans") if name in top.fields}
    size = top.wholes("input_size", 3)
    seen = {name: top.take(name) for name in ("mean", "std", "interpolation", "crop_pct", "crop_mode")}
    labels = top.take("label_names")
    pool, arguments = top.take("global_pool"), top.take("model_args")
    if arguments not in (None, {"global_pool": pool}):  # what timm builds by, and nothing else, is written there
        raise malformed("model_args does not say the global_pool that the configuration does", where)
    if pool is not None:
        given["global_pool"] = pool
    for reader in (top, own):
        for name in reader.rest():
            is_known = reader is own and name in _CONVERTER
            unused[f"{reader.prefix}{name}"] = _CONVERTER[name] if is_known else "unknown; of a later version?"
            if not is_known:
                notes.append(f"the configuration's field {reader.prefix}{name} is not known, and was not used")
    if not isinstance(architecture, str) or not (has_name(architecture) or architecture.startswith("xcit_custom_")):
        raise malformed(f"architecture {architecture!r:.60} is in no table", where)
    if not has_name(architecture):
        told = {name for name in top.fields if name in top.taken}
        unused |= dict.fromkeys(sorted(told), _BY_TENSORS)
        return Description(unused=unused, notes=tuple(notes), converted=digest)
    shape = architecture_of(architecture)
    custom = None if architecture in ARCHITECTURES else shape
    read = ours.validated({**given, "architecture": architecture, "dialect": dialect}, where, custom=custom)
    described = ours.of_architecture(shape, read.dialect, num_classes=read.num_classes, in_chans=read.in_chans)
    fields = asdict(described.preprocessing) | {name: value for name, value in seen.items() if value is not None}
    if size is not None:
        if size[0] != read.in_chans:
            raise malformed(f"input_size has {size[0]} channels, in_chans is {read.in_chans}", where)
        fields |= {"image_size": size[1], "image_width": None if size[1] == size[2] else size[2]}
    if labels is None:
        labels = ours.imagenet_labels() if read.num_classes == 1000 else ()
    config = {**given, "architecture": architecture, "dialect": dialect, "preprocessing": fields, "labels": labels}
    read_as = ours.validated(config, where, custom=custom)
    return Description(read_as, unused=unused, notes=tuple(notes), converted=digest)
