"""timm's config.json in all its forms: what timm does by a field is done alike, or the field is refused or listed."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import warnings
from pathlib import Path

import mindspore
import numpy as np
import pytest
from PIL import Image

import xcit_hub
from xcit_hub.errors import HubError
from xcit_hub.hub import timm_config
from xcit_hub.parity import failed_checks, random_images

timm = pytest.importorskip("timm")
torch = pytest.importorskip("torch")

from timm.data import create_transform, resolve_data_config  # noqa: E402
from timm.models import PretrainedCfg  # noqa: E402
from timm.models._builder import resolve_pretrained_cfg  # noqa: E402
from timm.models._hub import load_model_config_from_path, save_for_hf  # noqa: E402
from timm.models.xcit import Xcit  # noqa: E402

NANO = "xcit_nano_12_p16_224"
NAMES = [f"thing {index}" for index in range(10)]
IMAGES = random_images(2, 3, 64, 64)
# Not Pillow's noise, which is another one in every run.
_NOISE = np.random.default_rng(0).normal(128, 60, (170, 300)).clip(0, 255).astype(np.uint8)
PHOTOGRAPH = Image.fromarray(_NOISE).convert("RGB").resize((311, 173))


@pytest.fixture(scope="module")
def weights(tmp_path_factory, nano_timm) -> Path:
    path = tmp_path_factory.mktemp("matrix") / "model.safetensors"
    path.write_bytes(nano_timm["model.safetensors"])
    return path


@pytest.fixture(scope="module")
def shallow(tmp_path_factory, weights) -> Path:
    """Of the same weights the first block alone and what is no block: where a field of model_args is looked at."""
    from safetensors.numpy import load_file, save_file

    path = tmp_path_factory.mktemp("matrix") / "shallow.safetensors"
    held = load_file(weights)
    kept = {name: held[name] for name in held if not name.startswith("blocks.") or name.startswith("blocks.0.")}
    save_file(kept, path, {"format": "pt"})
    return path


@pytest.fixture
def folder(tmp_path, weights, shallow):
    """Make a folder of one configuration and the same weights, of one block where that is its depth."""

    def make(record: object, name: str = "it") -> Path:
        place = tmp_path / name
        place.mkdir(exist_ok=True)
        if not (place / "model.safetensors").exists():
            is_shallow = isinstance(record, dict) and (record.get("model_args") or {}).get("depth") == 1
            os.link(shallow if is_shallow else weights, place / "model.safetensors")
        (place / "config.json").write_text(record if isinstance(record, str) else json.dumps(record))
        return place

    return make


def nested(pretrained: dict, arguments: dict | None = None, **root: object) -> dict:
    record = {"architecture": NANO, "num_classes": 10, "num_features": 128, **root, "pretrained_cfg": pretrained}
    return record if arguments is None else {**record, "model_args": arguments}


def flat(pretrained: dict, **root: object) -> dict:
    return {"architecture": NANO, "num_classes": 10, **root, **pretrained}


def wrapper(pretrained: dict, **root: object) -> dict:
    """What transformers' TimmWrapper writes."""
    own = {
        "architectures": ["TimmWrapperForImageClassification"],
        "do_pooling": True,
        "initializer_range": 0.02,
        "label_names": NAMES,
        "model_args": {},
        "model_type": "timm_wrapper",
        "torch_dtype": "float32",
        "transformers_version": "4.50.0",
    }
    return {**nested(pretrained), **own, **root}


def timm_transform(place: Path, in_chans: int = 3):
    """The transform that timm's documentation makes of a model, without the model."""
    cfg, name, _ = load_model_config_from_path(place)
    data = resolve_data_config({}, pretrained_cfg=resolve_pretrained_cfg(name, cfg).to_dict())
    assert data["input_size"][0] == in_chans
    return create_transform(**data)


def timm_logits(place: Path) -> np.ndarray:
    model = timm.create_model(f"local-dir:{place}", pretrained=True).eval()
    with torch.no_grad():
        return model(torch.from_numpy(IMAGES)).numpy()


def our_logits(place: Path) -> np.ndarray:
    return xcit_hub.load(str(place))(mindspore.Tensor(IMAGES)).asnumpy()


def our_pixels(place: Path) -> np.ndarray:
    return xcit_hub.preprocess(xcit_hub.info(str(place)).config)(PHOTOGRAPH)


def timm_pixels(place: Path) -> np.ndarray:
    return timm_transform(place)(PHOTOGRAPH).numpy()


def is_close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return ours.shape == theirs.shape and float(np.abs(ours - theirs).max()) <= 1e-3


# One value of each column a combination; the steps have no factor in common, so that every value meets many others.
SMALL = {"depth": 1, "cls_attn_layers": 1, "embed_dim": 32, "num_heads": 2}
COLUMNS: dict[str, tuple[object, ...]] = {
    "form": ("nested", "wrapper", "flat"),
    "args": (
        {},
        {"global_pool": "avg"},
        {"global_pool": ""},
        {"use_pos_embed": False},
        {"tokens_norm": True},
        {"in_chans": 1},
        {"mlp_ratio": 2.5, "patch_size": 8},
        {"drop_rate": 0.3, "drop_path_rate": 0.1, "attn_drop_rate": 0.1, "proj_drop_rate": 0.1, "pos_drop_rate": 0.1},
        {"img_size": 96, "eta": 0.5, "qkv_bias": True},
        {"num_classes": 0},
        {"num_classes": 1000, "cls_attn_layers": 2},
    ),
    "size": ((64, 64), (64, 96), (50, 70), (96, 33)),
    "crop_mode": ("center", "squash", "border", None),
    "crop_pct": (0.875, 1.0, 1.1, 0.6, None),
    "interpolation": ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming", None),
    "levels": (((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5,), (0.25,)), (None, None)),
}
MATRIX = [
    {name: values[(index // (1 + 2 * column)) % len(values)] for column, (name, values) in enumerate(COLUMNS.items())}
    for index in range(77)
]


def test_the_matrix_is_large_and_has_every_value() -> None:
    assert len({str(each) for each in MATRIX}) == len(MATRIX) >= 60
    for name, values in COLUMNS.items():
        assert {str(each[name]) for each in MATRIX} == {str(value) for value in values}


@pytest.fixture(scope="module")
def made_by_timm(tmp_path_factory):
    """Let timm make a network of some arguments, once, and save it with a configuration, into a folder."""
    networks: dict[str, torch.nn.Module] = {}

    def make(combination: dict) -> Path:
        arguments = dict(combination["args"]) if combination["form"] == "flat" else SMALL | combination["args"]
        if combination["form"] == "flat":  # of which only classes and channels can be other than the name's
            arguments = {name: value for name, value in arguments.items() if name in ("in_chans", "num_classes")}
        arguments = {"num_classes": 10, **arguments}
        key = json.dumps(arguments)
        if key not in networks:
            torch.manual_seed(len(networks))
            networks[key] = timm.create_model(NANO, **arguments).eval()
            for name, value in networks[key].state_dict().items():
                if name.endswith(("running_mean", "running_var", "norm1.weight", "gamma1")):
                    value.uniform_(0.5, 1.5)
        mean, std = combination["levels"]
        place = tmp_path_factory.mktemp("made")
        size = (arguments.get("in_chans", 3), *combination["size"])
        seen = {name: combination[name] for name in ("crop_mode", "crop_pct", "interpolation")}
        seen |= {"mean": mean, "std": std, "input_size": size, "fixed_input_size": False}
        given = {"pretrained_cfg": {"input_size": size}}
        save_for_hf(networks[key], place, safe_serialization=True, model_config=given)
        record = json.loads((place / "config.json").read_text())
        record["pretrained_cfg"] |= seen
        if combination["form"] == "wrapper":
            record = {**wrapper({}), **record, "label_names": [f"thing {i}" for i in range(arguments["num_classes"])]}
        elif combination["form"] == "flat":
            inner = record.pop("pretrained_cfg")
            record = {name: record[name] for name in ("architecture", "num_classes", "num_features")} | inner
        (place / "config.json").write_text(json.dumps(record))
        return place

    return make


def departures(place: Path) -> list[str]:
    """What of pixels and logits is not timm's."""
    model = timm.create_model(f"local-dir:{place}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config({}, model=model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = xcit_hub.load(str(place))
    image = PHOTOGRAPH.convert("L") if network.in_chans == 1 else PHOTOGRAPH
    pixels = xcit_hub.preprocess(network)(PHOTOGRAPH)
    if network.in_chans == 1:  # timm's loader, not its transform, averages what is said of three channels
        seen = resolve_data_config({}, model=model)
        transform = create_transform(**seen | {n: (sum(seen[n]) / len(seen[n]),) for n in ("mean", "std")})
    found = [] if is_close(pixels, transform(image).numpy()) else ["pixels"]
    batch = np.stack([pixels, pixels[:, ::-1]])
    logits = network(mindspore.Tensor(batch)).asnumpy()
    return found + [str(check) for check in failed_checks(logits, model, batch)]


def _ids(combination: dict) -> str:
    return json.dumps(list(combination.values()))[:90]


@pytest.mark.parametrize("combination", MATRIX[::7], ids=_ids)
def test_pixels_and_logits_of_what_timm_made_are_timms(made_by_timm, combination) -> None:
    assert departures(made_by_timm(combination)) == []


@pytest.mark.campaign
@pytest.mark.parametrize("combination", MATRIX, ids=_ids)
def test_pixels_and_logits_are_timms_in_the_whole_matrix(made_by_timm, combination) -> None:
    assert departures(made_by_timm(combination)) == []


@pytest.mark.parametrize(
    "record",
    [
        nested({}, {"depth": 1, "global_pool": "avg"}, global_pool="token"),
        nested({}, {"depth": 1, "global_pool": "token"}, global_pool="avg"),
        nested({}, None, global_pool="avg"),
        nested({}, {"depth": 1, "tokens_norm": True}),
        nested({}, {"depth": 1, "drop_rate": 0.5, "drop_path_rate": 0.3, "attn_drop_rate": 0.1, "pos_drop_rate": 0.2}),
        nested({}, {"embed_dim": 128, "depth": 12, "num_heads": 4, "patch_size": 16, "mlp_ratio": 4.0}),
        nested(
            {}, {"depth": 1, "img_size": 96, "eta": 1e-5, "qkv_bias": True, "use_pos_embed": True, "act_layer": None}
        ),
        nested({"num_classes": 10, "architecture": NANO, "fixed_input_size": True, "input_size": [3, 96, 96]}),
        {**nested({}), "architecture": f"{NANO}.fb_in1k"},
        flat({}, num_features=128),
        wrapper({}),
    ],
    ids=lambda record: json.dumps(record.get("model_args") or sorted(record))[:60],
)
def test_the_network_is_timms(folder, record) -> None:
    place = folder(record)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, theirs = our_logits(place), timm_logits(place)
    # 3e-5: these are ten random classes; a wrong pooling or norm is a hundred thousand times that.
    assert np.abs(ours - theirs).max() <= 3e-5 * theirs.std()


def test_a_network_without_positions_is_timms(folder, weights) -> None:
    from safetensors.numpy import load_file, save_file

    place = folder(nested({}, {"use_pos_embed": False}))
    notes = xcit_hub.load(place).config.provenance.notes
    assert [note for note in notes if re.match(r"Dropped \d tensors of the positional encoding", note)]
    kept = {name: value for name, value in load_file(weights).items() if not name.startswith("pos_embed")}
    (place / "model.safetensors").unlink()
    save_file(kept, place / "model.safetensors", {"format": "pt"})
    theirs = timm_logits(place)
    assert np.abs(our_logits(place) - theirs).max() <= 3e-5 * theirs.std()


@pytest.mark.parametrize(
    ("record", "named"),
    [
        (nested({}, label_names=NAMES), NAMES),
        (nested({"label_names": NAMES}), NAMES),
        (nested({}, labels=NAMES), NAMES),
        (flat({}, labels=NAMES), NAMES),
        (flat({}, label_names=NAMES), NAMES),
        (nested({}, label_names={str(index): name for index, name in enumerate(NAMES)}), NAMES),
        (nested({}, label_names={"3": "three"}), [f"class {i}" if i != 3 else "three" for i in range(10)]),
        (nested({}, id2label={str(index): name for index, name in enumerate(NAMES)}), NAMES),
        (nested({}, label2id={name: index for index, name in enumerate(NAMES)}), NAMES),
        (nested({}, label_names=NAMES, label_descriptions={"thing 0": "a thing"}), NAMES),
        (wrapper({}), NAMES),
        (nested({}), []),
        (nested({"label_names": None}, label_names=None), []),
    ],
)
def test_labels_are_read_in_every_form(folder, record, named) -> None:
    assert list(xcit_hub.info(str(folder(record))).config.labels) == named


def test_labels_that_contradict_each_other_are_said_and_gaps_are(folder) -> None:
    numbered = {str(index): name for index, name in enumerate(NAMES)}
    turned = {name: index for index, name in enumerate(NAMES)}
    wrong = dict(zip(NAMES, reversed(range(10)), strict=True))
    for record, name, reason in (
        (
            nested({}, label_names=NAMES, id2label=numbered, label2id=turned),
            "label2id",
            "label_names names the classes",
        ),
        (
            nested({}, id2label=numbered, label2id=wrong),
            "label2id",
            "it names other classes than id2label, which counts",
        ),
        (nested({"label_names": NAMES[::-1]}, label_names=NAMES), "pretrained_cfg.label_names", "it names other"),
        (nested({}, label_names=[], labels=NAMES), "label_names", "it names no class"),
    ):
        found = xcit_hub.info(str(folder(record)))
        assert found.unused[name].startswith(reason)
        assert list(found.config.labels) == NAMES
        assert any(f"{name} names other classes" in note for note in found.notes) == ("other" in reason)
    found = xcit_hub.info(str(folder(nested({}, label_names={"3": "three"}))))
    assert any("label_names names 1 of 10 classes; the others are called" in note for note in found.notes)


@pytest.mark.parametrize(
    ("record", "name", "own"),
    [
        (nested({}, num_features=999), "num_features", "128"),
        (nested({"num_features": 999}), "pretrained_cfg.num_features", "128"),
        (nested({"classifier": "fc"}), "pretrained_cfg.classifier", "'head'"),
        (flat({"first_conv": "conv1"}), "first_conv", "'patch_embed.proj.0.0'"),
        (nested({"architecture": "xcit_tiny_12_p16_224"}), "pretrained_cfg.architecture", f"'{NANO}'"),
    ],
)
def test_what_follows_from_the_architecture_and_is_said_otherwise_is_named(folder, record, name, own) -> None:
    found = xcit_hub.info(str(folder(record)))
    assert found.unused[name] == f"the network's is {own}"
    assert any(note.startswith(f"{name} is ") and note.endswith(f"the network's is {own}") for note in found.notes)
    for right in (nested({"architecture": f"{NANO}.fb_in1k", "classifier": "head"}), nested({}, num_features=128)):
        assert not xcit_hub.info(str(folder(right))).notes


def test_a_thousand_classes_of_ones_own_are_not_called_by_imagenets_names() -> None:
    own = [f"own {index}" for index in range(1000)]
    for record in (flat({}, labels=own), nested({}, labels=own), nested({"label_names": own})):
        read = timm_config.read(json.dumps(record | {"num_classes": 1000})).config
        assert read.labels[281] == "own 281"


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (nested({}, {"num_classes": 5}), "model_args.num_classes"),
        (nested({}, {"qkv_bias": False}), "model_args.qkv_bias"),
        (nested({}, {"act_layer": "relu"}), "model_args.act_layer"),
        (nested({}, {"norm_layer": "layernorm"}), "model_args.norm_layer"),
        (nested({}, {"device": "cuda"}), "model_args.device"),
        (nested({}, {"dtype": "float16"}), "model_args.dtype"),
        (nested({}, {"dynamic_img_size": True}), "model_args.dynamic_img_size"),
        (nested({}, {"pruned": True}), "model_args.pruned"),
        (nested({}, {"drop_rate": None}), "model_args.drop_rate"),
        (nested({}, {"depth": None}), "model_args.depth"),
        (nested({}, {"depth": "12"}), "model_args.depth"),
        (nested({}, {"depth": 1e300}), "dimensions"),
        (nested({}, {"use_pos_embed": None}), "model_args.use_pos_embed"),
        (nested({}, {"tokens_norm": None}), "model_args.tokens_norm"),
        (nested({}, {"global_pool": None}), "model_args.global_pool"),
        (nested({"mean": [0.5, 0.5]}), "mean"),
        (nested({"std": [0.5] * 4}), "std"),
        (nested({}, {"global_pool": "max"}), "model_args.global_pool"),
        (nested({}, {"img_size": 100}), "model_args.img_size"),
        (nested({"state_dict": {}}), "state_dict"),
        (nested({"custom_load": True}), "custom_load"),
        (nested({"label_offset": 1}), "label_offset"),
        (nested({"hf_hub_filename": "other.bin"}), "hf_hub_filename"),
        (nested({"crop_mode": "cubist"}), "crop_mode"),
        (nested({"interpolation": "random"}), "interpolation"),
        (nested({"input_size": [3, 224]}), "input_size"),
        (nested({"input_size": [3, 100, 96], "fixed_input_size": True}), "input_size"),
        (nested({"std": [0.2, 0.0, 0.2]}), "std"),
        (nested({"mean": ["a", 0, 0]}), "mean"),
        (nested({"mean": []}), "mean: 0 numbers"),
        (nested({"std": []}), "std: 0 numbers"),
        (nested({"interpolation": ""}), "interpolation: ''"),
        (nested({"crop_mode": ""}), "crop_mode: ''"),
        (nested({"crop_pct": 0}), "crop_pct: 0"),
        (nested({"crop_pct": -1}), "crop_pct"),
        (nested({"crop_pct": 1e-9}), "crop_pct"),
        (nested({"std": [0.2, -0.2, 0.2]}), "std"),
        (nested({}, label_names=NAMES[:9]), "label_names"),
        (nested({}, label_names=0), "label_names"),
        (nested({}, labels=""), "labels"),
        (nested({}, id2label=False), "id2label"),
        (nested({}, id2label={"1_0": "ten"}), "id2label"),
        (nested({}, id2label={"\u0661": "one"}), "id2label"),
        (nested({}, label2id={"one": "first"}), "label2id"),
        (nested({}, label2id={"one": 0, "uno": 0}), "label2id"),
        (nested({}, label_names={"12": "too far"}), "label_names"),
        (nested({}, num_classes=-1), "num_classes"),
        ({"architecture": "resnet50", "pretrained_cfg": {}}, "resnet50"),
        ({"pretrained_cfg": {"architecture": NANO}}, "None"),
        ({"architecture": [NANO]}, "xcit_nano"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_followed_is_refused_by_name(folder, record, field) -> None:
    with pytest.raises(HubError) as caught:
        xcit_hub.load(str(folder(record)))
    assert field in str(caught.value)


@pytest.mark.parametrize("name", ["num_classes", "global_pool"])
def test_what_the_root_says_otherwise_is_listed_as_not_used(folder, name) -> None:
    told = {"num_classes": 9, "global_pool": "avg"}[name]
    assert f"pretrained_cfg.{name}" in xcit_hub.info(str(folder(nested({name: told})))).unused
    same = {"num_classes": 10, "global_pool": "token"}[name]
    assert not xcit_hub.info(str(folder(nested({name: same})))).unused.keys() & {f"pretrained_cfg.{name}", name}
    for form in (flat({"global_pool": "avg"}), nested({}, global_pool="avg")):
        assert "global_pool" in xcit_hub.info(str(folder(form))).unused


def test_a_refused_field_can_be_ignored_which_is_recorded(folder, run_cli) -> None:
    place = folder(nested({"crop_mode": "squash"}, {"qkv_bias": False}, strange=1))
    with pytest.warns(UserWarning, match="qkv_bias was ignored"):
        network = xcit_hub.load(str(place), ignore_fields=["model_args.qkv_bias"])
    notes = " ".join(network.config.provenance.notes)
    assert "model_args.qkv_bias was ignored" in notes
    assert "strange is not known" in notes
    assert xcit_hub.info(str(place), ignore_fields=["qkv_bias", "crop_mode"]).config.preprocessing.crop_mode == (
        "center"
    )
    shown = run_cli("info", str(place), "--ignore-field", "model_args.qkv_bias")
    assert (shown.returncode, "unused: strange: unknown" in shown.stdout) == (0, True), shown.stderr


# Every field that timm's PretrainedCfg and Xcit know → a value other than the default's. Those of a computed effect are
# compared with timm; the rest must leave timm's own answer as it is, and be listed.
PRETRAINED: dict[str, object] = {
    "url": "https://example.org/x.pth", "file": None, "state_dict": {"a": 1}, "hf_hub_id": "org/x",
    "hf_hub_filename": "other.bin", "source": "hf-hub", "architecture": "xcit_tiny_12_p16_224", "tag": "fb_in1k",
    "custom_load": True, "input_size": [3, 64, 96], "test_input_size": [3, 384, 384], "min_input_size": [3, 32, 32],
    "fixed_input_size": True, "interpolation": "nearest", "crop_pct": 0.7, "test_crop_pct": 0.5, "crop_mode": "squash",
    "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "num_classes": 10, "label_offset": 1, "label_names": NAMES,
    "label_descriptions": {"thing 0": "a thing"}, "pool_size": [7, 7], "test_pool_size": [7, 7],
    "first_conv": "patch_embed.proj.0.0", "classifier": "head", "license": "mit", "description": "words",
    "origin_url": "https://example.org", "paper_name": "XCiT", "paper_ids": "arXiv:2106.09681", "notes": ["words"],
}  # fmt: skip
ARGUMENTS: dict[str, object] = {
    "img_size": 96, "patch_size": 16, "in_chans": 3, "num_classes": 10, "global_pool": "avg", "embed_dim": 128,
    "depth": 1, "num_heads": 4, "mlp_ratio": 4.0, "qkv_bias": False, "drop_rate": 0.3, "pos_drop_rate": 0.3,
    "proj_drop_rate": 0.3, "attn_drop_rate": 0.3, "drop_path_rate": 0.3, "act_layer": "gelu", "norm_layer": "ln",
    "cls_attn_layers": 2, "use_pos_embed": False, "eta": 0.5, "tokens_norm": True, "device": "cpu", "dtype": "float16",
}  # fmt: skip


def test_every_field_that_timm_knows_is_walked() -> None:
    assert set(PRETRAINED) == {each.name for each in dataclasses.fields(PretrainedCfg)}
    assert set(ARGUMENTS) == set(inspect.signature(Xcit.__init__).parameters) - {"self"}
    transform = set(inspect.signature(create_transform).parameters)
    assert {"input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode"} <= transform & set(PRETRAINED)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, weights, shallow) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for level, held, record in (
        ("pretrained_cfg", weights, nested({})), ("model_args", shallow, nested({}, {"depth": 1})),
    ):  # fmt: skip
        place = tmp_path_factory.mktemp(level)
        os.link(held, place / "model.safetensors")
        (place / "config.json").write_text(json.dumps(record))
        found |= {level: timm_logits(place), "pixels": timm_pixels(place)}
    return found


@pytest.mark.parametrize(
    ("level", "name"),
    [*(("pretrained_cfg", each) for each in PRETRAINED), *(("model_args", each) for each in ARGUMENTS)],
)
def test_a_field_is_used_as_timm_does_or_refused_or_listed(folder, plain, level, name) -> None:
    value = (PRETRAINED if level == "pretrained_cfg" else ARGUMENTS)[name]
    place = folder(nested({name: value}) if level == "pretrained_cfg" else nested({}, {"depth": 1, name: value}))
    try:
        found = xcit_hub.info(str(place))
    except HubError as error:
        assert name in str(error)
        return
    # Whatever timm makes of it, we make as well.
    theirs = timm_pixels(place)
    assert is_close(our_pixels(place), theirs)
    logits = plain[level]
    if level == "model_args" or name in ("num_classes", "fixed_input_size", "classifier", "architecture"):
        try:
            logits = timm_logits(place)
        except RuntimeError:  # the weights are of another shape: timm says so, and so do we
            with pytest.raises(HubError, match="another architecture"):
                xcit_hub.load(str(place))
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert np.abs(our_logits(place) - logits).max() <= 3e-5 * logits.std()
    if any(each.endswith(name) for each in found.unused):
        assert np.array_equal(theirs, plain["pixels"])
        assert np.array_equal(logits, plain[level])
        assert found.unused[next(each for each in found.unused if each.endswith(name))]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", [[0.4], [0.5, 0.4, 0.3]])
def test_grey_networks_are_fed_as_timms_validation_feeds_them(channels, levels) -> None:
    from timm.data.loader import adapt_to_chs

    record = nested({"input_size": [channels, 64, 64], "mean": levels, "std": levels})
    config = timm_config.read(json.dumps(record)).config
    assert config.in_chans == channels
    image = PHOTOGRAPH.convert("L" if channels == 1 else "RGB")
    mean = adapt_to_chs(tuple(levels), channels)
    theirs = create_transform((channels, 64, 64), mean=mean, std=mean, crop_pct=0.875, interpolation="bicubic")(image)
    assert is_close(xcit_hub.preprocess(config)(PHOTOGRAPH), theirs.numpy())


def test_what_is_written_reads_back_and_timm_agrees(folder) -> None:
    read = timm_config.read(
        json.dumps(
            nested({"crop_mode": "border", "input_size": [3, 64, 96], "mean": [0.5], "std": [0.5]}, labels=NAMES)
        )
    ).config
    place = folder(timm_config.write(read))
    assert timm_config.read(timm_config.write(read)).config == read
    assert is_close(our_pixels(place), timm_pixels(place))
    from xcit_hub.hub.config import from_json

    assert from_json(read.to_json()).config == read
    assert json.loads(read.to_json())["format"] == "xcit-hub/2"


@pytest.mark.parametrize("dialect", ["paper", "mindcv", "mindcv-mint"])
def test_every_architecture_is_written_so_that_it_reads_back_and_timm_knows_its_name(dialect) -> None:
    import xcit_hub.timm  # noqa: F401  (registers the names of the other dialects)
    from xcit_hub.hub.config import of_architecture
    from xcit_hub.variants import ARCHITECTURES, in_timm, without_positions

    for entry in [*ARCHITECTURES.values(), without_positions(ARCHITECTURES["xcit_tiny_12_p8_384"])]:
        described = of_architecture(entry, dialect, num_classes=10)
        record = json.loads(timm_config.write(described))
        read = timm_config.read(json.dumps(record)).config
        # eta is an initial value, and a name may stand for two image sizes: preprocessing says which.
        same = dataclasses.replace(read.shape, name=entry.name, eta=entry.eta, image_size=entry.image_size)
        assert (same, read.dialect, read.preprocessing) == (entry, dialect, described.preprocessing)
        assert timm.is_model(record["architecture"]) == (in_timm(entry) is not None)
    assert in_timm(ARCHITECTURES["xcit_small_12_p4_32"]) is None
    assert in_timm(ARCHITECTURES["xcit_medium_12_p16_224"]) == ("xcit_small_12_p16_224", {"embed_dim": 512})
