"""How images were prepared and what classes are called goes with the weights, from a checkpoint's strings to `load`."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import xcit_hub
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.checkpoints.strings import PREPROCESSING
from xcit_hub.errors import HubError, WeightsError, XcitHubError
from xcit_hub.prediction import predict

NANO = "xcit_nano_12_p16_224"
NAMES = [f"digit {index}" for index in range(10)]
SEEN = {
    "input_size": [3, 32, 48],
    "mean": [0.1, 0.2, 0.3],
    "std": [0.3, 0.2, 0.1],
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "squash",
}


@pytest.fixture
def trained(tmp_path, nano_arrays):
    """Write a checkpoint as training does."""

    def write(**strings: str) -> Path:
        path = tmp_path / "trained.ckpt"
        marks = {"xcit_hub.architecture": NANO, "xcit_hub.dialect": "paper", **strings}
        checkpoint.write(path, nano_arrays, marks)
        return path

    return write


@pytest.fixture
def described(trained) -> Path:
    return trained(**{"xcit_hub.preprocessing": json.dumps(SEEN), "xcit_hub.classes": json.dumps(NAMES)})


IMAGE = Image.fromarray(np.random.default_rng(0).normal(128, 80, (70, 90)).clip(0, 255).astype(np.uint8)).convert("RGB")


def is_as_trained(config) -> bool:
    from timm.data import create_transform

    shape = config.preprocessing
    wanted = create_transform(
        (3, 32, 48), mean=SEEN["mean"], std=SEEN["std"], interpolation="bilinear", crop_pct=1.0, crop_mode="squash"
    )(IMAGE)
    pixels = xcit_hub.preprocess(config)(IMAGE)
    return (
        list(config.labels) == NAMES
        and (shape.size, shape.crop_mode) == ((32, 48), "squash")
        and pixels.shape == (3, 32, 48)
        and float(np.abs(pixels - wanted.numpy()).max()) <= 1e-3
    )


def test_a_bare_file_says_how_it_was_trained(described):
    assert is_as_trained(xcit_hub.load(str(described)).config)


def test_it_survives_publishing_and_timm_reads_it_too(described, tmp_path):
    from timm.data import create_transform, resolve_data_config
    from timm.models._builder import resolve_pretrained_cfg
    from timm.models._hub import load_model_config_from_path

    from xcit_hub.files import sha256_of

    done = xcit_hub.publish(described, "me/nano", to=tmp_path / "hub", parity=False)
    network = xcit_hub.load("me/nano", hub=tmp_path / "hub")
    assert is_as_trained(network.config)
    assert done.config.provenance.sha256 == sha256_of(described)
    assert json.loads((tmp_path / "hub/me/nano/xcit_hub.json").read_text())["provenance"]["sha256"] == sha256_of(
        described
    )
    cfg, name, _ = load_model_config_from_path(tmp_path / "hub" / "me" / "nano")
    assert cfg["label_names"] == NAMES
    data = resolve_data_config({}, pretrained_cfg=resolve_pretrained_cfg(name, cfg).to_dict())
    pixels = xcit_hub.preprocess(network)(IMAGE)
    assert np.abs(pixels - create_transform(**data)(IMAGE).numpy()).max() <= 1e-3
    assert predict(network, IMAGE, top=1)[0].label in NAMES


def test_it_survives_saving(described, tmp_path):
    xcit_hub.load(str(described)).save_pretrained(tmp_path / "saved")
    assert is_as_trained(xcit_hub.load(str(tmp_path / "saved")).config)
    (tmp_path / "saved" / "xcit_hub.json").unlink()  # what timm's own file says is the same
    assert is_as_trained(xcit_hub.load(str(tmp_path / "saved")).config)


@pytest.fixture(scope="module")
def saved_whole(tmp_path_factory, nano_arrays) -> Path:
    """A folder of a network whose weights say all of themselves that its configuration does."""
    folder = tmp_path_factory.mktemp("saved")
    strings = {"preprocessing": json.dumps(SEEN), "classes": json.dumps(NAMES), "global_pool": "avg"}
    marks = {"architecture": NANO, "dialect": "paper", **strings}
    checkpoint.write(folder / "x.ckpt", nano_arrays, {f"xcit_hub.{name}": value for name, value in marks.items()})
    xcit_hub.load(str(folder / "x.ckpt")).save_pretrained(folder / "whole")
    (folder / "whole" / "xcit_hub.json").unlink()
    return folder / "whole"


def test_of_a_files_own_strings_that_are_its_descriptions_nothing_is_said(saved_whole):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xcit_hub.load(str(saved_whole))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label_names": [f"other {index}" for index in range(10)]}, r"xcit_hub\.classes names other .* were taken"),
        ({"label_names": None}, r"xcit_hub\.classes names other classes \(digit 0, .* the description names none"),
        ({"model_args": {"global_pool": "token"}}, r"own xcit_hub\.global_pool is 'avg'; .* 'token' was taken"),
        ({"crop_pct": 0.5}, r"own xcit_hub\.preprocessing\.crop_pct is 1\.0; the description's 0\.5 was taken"),
        ({"input_size": [3, 32, 32]}, r"own xcit_hub\.preprocessing\.image_width is 48; .* None was taken"),
    ],
)
def test_what_a_files_own_strings_say_otherwise_than_its_description_is_named(saved_whole, tmp_path, change, said):
    folder = shutil.copytree(saved_whole, tmp_path / "beside")
    written = json.loads((folder / "config.json").read_text())
    inner = {name: value for name, value in change.items() if name in SEEN}
    record = {**written, **{k: v for k, v in change.items() if k not in inner}}
    record["pretrained_cfg"] = {**written["pretrained_cfg"], **inner}
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.warns(UserWarning, match=said):
        network = xcit_hub.load(str(folder))
    assert any("the weights' own" in note for note in network.config.provenance.notes)


def test_levels_that_are_the_same_as_they_are_published_are_not_said_to_differ(trained, tmp_path):
    own = {**SEEN, "mean": [0.5] * 3, "std": [0.25] * 3}
    folder = tmp_path / "beside"
    xcit_hub.load(str(trained(**{"xcit_hub.preprocessing": json.dumps(own)}))).save_pretrained(folder)
    (folder / "xcit_hub.json").unlink()
    record = json.loads((folder / "config.json").read_text())
    for mean, differs in (([0.5], False), ([0.5001] * 3, False), ([0.502] * 3, True), ([0.5, 0.5, 0.4], True)):
        record["pretrained_cfg"]["mean"] = mean
        (folder / "config.json").write_text(json.dumps(record))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            xcit_hub.load(str(folder))
        assert any("own xcit_hub.preprocessing.mean" in str(each.message) for each in said) == differs, mean


@pytest.mark.parametrize("source", ["the file", "labels"])
def test_the_card_of_what_is_published_lists_the_classes_that_are_published(trained, described, tmp_path, source):
    labels = None
    if source == "labels":
        labels, described = tmp_path / "labels.txt", trained()
        labels.write_text("\n".join(NAMES))
    xcit_hub.publish(described, "me/nano", to=tmp_path / "hub", parity=False, labels=labels)
    for card in ("README.md", "README_zh.md"):
        text = (tmp_path / "hub/me/nano" / card).read_text(encoding="utf-8")
        assert all(f"{index} {name}" in text for index, name in enumerate(NAMES))


def test_given_labels_come_before_the_files_own(described, tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(f"other {index}" for index in range(10)))
    done = xcit_hub.publish(
        described, "me/nano", to=tmp_path / "hub", parity=False, labels=tmp_path / "labels.txt", dry_run=True
    )
    assert done.config.labels[3] == "other 3"


@pytest.mark.parametrize(
    "strings",
    [
        {"xcit_hub.classes": json.dumps(NAMES[:9])},
        {"xcit_hub.classes": "digits"},
        {"xcit_hub.classes": json.dumps({"0": "zero"})},
        {"xcit_hub.preprocessing": "{"},
        {"xcit_hub.preprocessing": json.dumps({"mean": [0.5]})},
        {"xcit_hub.preprocessing": json.dumps(SEEN | {"crop_mode": "cubist"})},
        {"xcit_hub.preprocessing": json.dumps(SEEN | {"gamma": 2.2})},
        {"xcit_hub.preprocessing": json.dumps(SEEN | {"input_size": [3, 0, 4]})},
        {"xcit_hub.preprocessing": json.dumps(SEEN | {"input_size": [1, 32, 48]})},
        {"xcit_hub.preprocessing": json.dumps(SEEN | {"mean": [0.5, 0.5]})},
        {"xcit_hub.preprocessing": json.dumps(SEEN | {"std": [0.5] * 4})},
        {"xcit_hub.normalization": "[[0.5, 0.5], [0.5, 0.5]]"},
    ],
)
def test_strings_that_say_nothing_sound_are_refused(trained, strings):
    with pytest.raises(HubError, match="cannot be used"):
        xcit_hub.load(str(trained(**strings)))


@pytest.fixture(scope="module")
def assumed(nano_mindcv) -> object:
    """How images are prepared for a file that says nothing of them."""
    return xcit_hub.load(str(nano_mindcv)).config.preprocessing


@pytest.mark.parametrize("name", ["mean", "std", "interpolation", "crop_pct", "crop_mode"])
def test_what_the_string_of_a_file_does_not_say_is_named_with_what_was_assumed(trained, assumed, name):
    lacking = json.dumps({field: value for field, value in SEEN.items() if field != name})
    file = trained(**{"xcit_hub.preprocessing": lacking, "xcit_hub.dialect": "mindcv"})
    with pytest.warns(UserWarning, match=f"xcit_hub.preprocessing does not say {name}: .* was assumed"):
        network = xcit_hub.load(str(file))
    assert getattr(network.config.preprocessing, name) == getattr(assumed, name)
    assert len(_assumed(network.config.provenance.notes)) == 1


def _assumed(notes: tuple[str, ...]) -> list[str]:
    return [note for note in notes if "was assumed" in note and "does not say" in note]


def test_publishing_names_all_that_the_string_of_a_file_does_not_say(trained, tmp_path):
    file = trained(**{"xcit_hub.preprocessing": json.dumps({"input_size": [3, 32, 48]}), "xcit_hub.dialect": "mindcv"})
    done = xcit_hub.publish(file, "me/nano", to=tmp_path / "hub", parity=False, dry_run=True)
    with pytest.warns(UserWarning, match="was assumed"):
        assert _assumed(done.notes) == _assumed(xcit_hub.load(str(file)).config.provenance.notes)
    for name in ("mean", "std", "interpolation", "crop_pct", "crop_mode"):
        assert any(f"does not say {name}: " in note for note in done.notes)


def test_of_a_file_that_says_all_of_its_images_nothing_is_said(trained):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xcit_hub.load(str(trained(**{"xcit_hub.preprocessing": json.dumps(SEEN)})))


def test_what_a_run_evaluated_is_what_is_published(trained, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"preprocessing": SEEN, "classes": NAMES, "top1": 50.0}))
    xcit_hub.publish(trained(), "me/nano", to=tmp_path / "hub", parity=False, run=tmp_path / "run.json")
    assert is_as_trained(xcit_hub.load("me/nano", hub=tmp_path / "hub").config)


@pytest.mark.parametrize("steps", [("a.safetensors",), ("a.pth", "b.ckpt"), ("model.safetensors", "b.safetensors")])
def test_it_survives_conversion_through_timms_layout_and_every_format(described, tmp_path, steps):
    source = described
    for step, name in enumerate(steps):
        rewrite(source, tmp_path / name, to="timm" if step == 0 else "xcit-hub")
        source = tmp_path / name
        assert is_as_trained(xcit_hub.load(str(source)).config)
    if "model" in steps[0]:  # a folder's description, from which no weights are read
        assert is_as_trained(xcit_hub.info(str(tmp_path)).config)


def test_a_conversion_that_changes_the_network_keeps_what_still_holds(described, tmp_path):
    fewer = rewrite(described, tmp_path / "fewer.ckpt", num_classes=6, in_chans=1)
    config = xcit_hub.load(str(tmp_path / "fewer.ckpt")).config
    assert (list(config.labels), config.preprocessing.size) == (NAMES[:6], (32, 48))
    assert json.loads(checkpoint.read(tmp_path / "fewer.ckpt").metadata["xcit_hub.preprocessing"])["input_size"][0] == 1
    assert not any("Dropped xcit_hub" in note for note in fewer.weights.notes)
    fresh = rewrite(described, tmp_path / "fresh.ckpt", num_classes=12)
    assert any("Dropped xcit_hub.classes" in note for note in fresh.weights.notes)
    assert "xcit_hub.classes" not in checkpoint.read(tmp_path / "fresh.ckpt").metadata


def test_a_string_that_does_not_hold_is_left_behind_and_listed(trained, tmp_path):
    source = trained(**{"xcit_hub.classes": json.dumps(NAMES[:9]), "xcit_hub.preprocessing": "[]"})
    notes = rewrite(source, tmp_path / "out.ckpt").weights.notes
    assert [any(f"Dropped xcit_hub.{name}" in note for note in notes) for name in ("classes", "preprocessing")] == [
        True,
        True,
    ]
    assert xcit_hub.load(str(tmp_path / "out.ckpt")).config.labels == ()


@pytest.mark.parametrize(
    "text", ["null", "[]", "[[0.5]]", "[[0.5], [0.5, 0.5]]", "[[true], [1]]", '{"mean": [1]}', "[[1e400], [1]]",
             f"[[{10**400}], [1]]", "[" * 100_000, "[[0.5], [0]]", "[[0.5], [-1]]", "[[NaN], [1]]"],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_a_normalisation_that_is_none_is_refused_by_its_name(trained, tmp_path, text):
    source = trained(**{"xcit_hub.normalization": text})
    for read in (lambda: xcit_hub.load(str(source)), lambda: rewrite(source, tmp_path / "out.ckpt")):
        with pytest.raises(WeightsError, match=r"xcit_hub\.normalization|normalisation"):
            read()


MEAN, STD = (0.25, 0.5, 0.375), (0.5, 0.25, 0.125)


@pytest.fixture(params=[("normalize.mean", "normalize.std"), ("mu", "sigma"), ("0.mean", "0.std")])
def wrapped(request, tmp_path, nano_timm) -> Path:
    """A network inside a module that normalises its images, as robust models are saved."""
    from safetensors.numpy import load, save_file

    mean, std = request.param
    prefix = "1." if mean.startswith("0.") else "model."
    tensors = {f"{prefix}{name}": value for name, value in load(nano_timm["model.safetensors"]).items()}
    shape = (1, 3, 1, 1)
    tensors |= {mean: np.reshape(np.float32(MEAN), shape), std: np.reshape(np.float32(STD), shape)}
    path = tmp_path / "robust.safetensors"
    save_file(tensors, path, {"format": "pt"})
    return path


def levels(network_id: object, **options: object) -> tuple[object, object]:
    seen = xcit_hub.load(str(network_id), **options).config.preprocessing
    return seen.mean, seen.std


def test_the_normalisation_of_a_wrapper_becomes_the_configs(wrapped, tmp_path):
    assert levels(wrapped) == (MEAN, STD)
    rewrite(wrapped, tmp_path / "model.ckpt")
    assert levels(tmp_path / "model.ckpt") == (MEAN, STD)


# Whatever the wrapper called it: from the first file on it is in the same string.
@pytest.mark.parametrize("wrapped", [("normalize.mean", "normalize.std")], indirect=True, ids=["normalize"])
def test_the_normalisation_of_a_wrapper_goes_all_the_way(wrapped, tmp_path):
    rewrite(wrapped, tmp_path / "model.ckpt")
    rewrite(tmp_path / "model.ckpt", tmp_path / "back.pth", to="timm")
    assert levels(tmp_path / "back.pth") == (MEAN, STD)
    xcit_hub.publish(wrapped, "me/robust", to=tmp_path / "hub", parity=False)
    assert levels("me/robust", hub=tmp_path / "hub") == (MEAN, STD)
    written = json.loads((tmp_path / "hub/me/robust/config.json").read_text())["pretrained_cfg"]
    assert (tuple(written["mean"]), tuple(written["std"])) == (MEAN, STD)


def test_it_goes_before_what_a_description_says_which_is_noted(wrapped, nano_timm, tmp_path):
    folder = tmp_path / "beside"
    folder.mkdir()
    wrapped.replace(folder / "model.safetensors")
    (folder / "config.json").write_bytes(nano_timm["config.json"])
    config = xcit_hub.load(str(folder)).config
    assert (config.preprocessing.mean, config.preprocessing.std) == (MEAN, STD)
    assert any("weights' own mean" in note for note in config.provenance.notes)


def test_a_wrapper_and_the_files_own_string_that_contradict_each_other_are_refused(wrapped, tmp_path):
    from safetensors.numpy import load_file, save_file

    said = {"input_size": [3, 32, 32], "mean": list(MEAN), "std": list(STD), "interpolation": "bilinear",
            "crop_pct": 1.0, "crop_mode": "center"}  # fmt: skip
    for told, holds in ((said, True), (said | {"mean": [0.9]}, False), (said | {"std": [0.9, 0.25, 0.125]}, False)):
        strings = {"format": "pt", "xcit_hub.preprocessing": json.dumps(told)}
        save_file(load_file(wrapped), tmp_path / "told.safetensors", strings)
        if holds:
            rewrite(tmp_path / "told.safetensors", tmp_path / "out.ckpt")
            continue
        with pytest.raises(WeightsError, match=r"the file's own xcit_hub\.preprocessing says"):
            rewrite(tmp_path / "told.safetensors", tmp_path / "out.ckpt")


def test_a_converters_configuration_is_read_whole(described, tmp_path):
    rewrite(described, tmp_path / "model.ckpt")
    record = json.loads((tmp_path / "config.json").read_text())
    for change, fault in (
        ({"crop_mode": "cubist"}, "crop_mode"),
        ({"label_names": NAMES[:3]}, "labels"),
        ({"input_size": [1, 32, 48]}, "input_size"),
        ({"mean": ["a"]}, "mean"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(record | change))
        with pytest.raises(HubError, match=fault):
            xcit_hub.info(str(tmp_path))
    (tmp_path / "config.json").write_text(
        json.dumps(record | {"gamma": 2, "xcit_hub": record["xcit_hub"] | {"hue": 1}})
    )
    found = xcit_hub.info(str(tmp_path))
    assert {"gamma", "xcit_hub.hue"} <= found.unused.keys()
    assert len([note for note in found.notes if "is not known" in note]) == 2


@pytest.mark.parametrize("dialect", ["mindcv", "mindcv-mint"])
def test_published_weights_of_mindcvs_dialects_open_in_timm_by_the_name_their_config_carries(
    dialect, nano_arrays, tmp_path
):
    import mindspore
    import timm

    import xcit_hub.timm
    from xcit_hub import parity

    # Without normalisation of queries and keys a softmax of random weights is nearly a maximum.
    calm = {name: value / 64 if name.endswith("temperature") else value for name, value in nano_arrays.items()}
    checkpoint.write(tmp_path / "x.ckpt", calm, {"xcit_hub.architecture": NANO, "xcit_hub.dialect": dialect})
    done = xcit_hub.publish(tmp_path / "x.ckpt", "me/nano", to=tmp_path / "hub", parity=False)
    entry = tmp_path / "hub" / "me" / "nano"
    assert json.loads((entry / "config.json").read_text())["architecture"] == f"{NANO}_{dialect}"
    theirs = timm.create_model(f"local-dir:{entry}", pretrained=True).eval()
    assert type(theirs) is xcit_hub.timm.CLASSES[dialect]
    network = xcit_hub.load("me/nano", hub=tmp_path / "hub")
    assert network.dialect.name == dialect
    images = parity.random_images(2, 3, 64, 64)
    assert not parity.failed_checks(network(mindspore.Tensor(images)).asnumpy(), theirs, images)
    for card in (done.card, (entry / "README_zh.md").read_text()):
        assert "import xcit_hub.timm" in card
        assert 'timm.create_model("hf-hub:me/nano", pretrained=True)' in card
    other = {"mindcv": "ms_mint", "mindcv-mint": "ms_in1k"}[dialect]
    with pytest.raises(WeightsError, match="lack the mark"):
        timm.create_model(f"{NANO}.{other}", num_classes=10).load_state_dict(theirs.state_dict())
    paper = timm.create_model(NANO, num_classes=10)
    with pytest.raises(RuntimeError, match="dialect"):
        paper.load_state_dict(theirs.state_dict())


def test_a_network_without_positions_goes_all_the_way_and_timm_opens_it(tmp_path, nano_arrays, run_cli):
    import mindspore
    import timm

    from xcit_hub import parity

    kept = {name: value for name, value in nano_arrays.items() if not name.startswith("pos_embeder.")}
    checkpoint.write(tmp_path / "bare.ckpt", kept, {"xcit_hub.dialect": "paper"})
    shown = run_cli("inspect", str(tmp_path / "bare.ckpt"))
    assert "no positional encoding" in shown.stdout + shown.stderr  # as a file that lost it would be
    with pytest.raises(WeightsError, match=f"--model {NANO}_nopos"):
        rewrite(tmp_path / "bare.ckpt", tmp_path / "x.safetensors")
    rewrite(tmp_path / "bare.ckpt", tmp_path / "x.safetensors", to="timm", model=f"{NANO}_nopos")
    rewrite(tmp_path / "x.safetensors", tmp_path / "y.ckpt")  # the file says it of itself now
    xcit_hub.publish(tmp_path / "y.ckpt", "me/nopos", to=tmp_path / "hub")
    entry = tmp_path / "hub" / "me" / "nopos"
    written = json.loads((entry / "config.json").read_text())
    assert (written["architecture"], written["model_args"]) == (NANO, {"use_pos_embed": False})
    images = parity.random_images(2, 3, 64, 64)
    theirs = timm.create_model(f"local-dir:{entry}", pretrained=True).eval()
    network = xcit_hub.load("me/nopos", hub=tmp_path / "hub")
    assert not network.architecture.use_pos_embed
    network.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "xcit_hub.json").unlink()
    for source in (entry, tmp_path / "y.ckpt", tmp_path / "saved"):
        again = xcit_hub.load(str(source))
        assert again.config.architecture == f"{NANO}_nopos"
        assert not parity.failed_checks(again(mindspore.Tensor(images)).asnumpy(), theirs, images)
    built = xcit_hub.create_model(NANO, num_classes=10, use_pos_embed=False, init=False)
    assert built.architecture == network.architecture
    xcit_hub.load_weights(built, str(tmp_path / "y.ckpt"))


def test_what_looks_untrained_or_damaged_is_named_by_load_and_publish(tmp_path, nano_arrays):
    zero, tiny, still = "blocks.3.attn.proj.weight", "blocks.5.mlp.fc1.weight", "patch_embed.proj.0.1.moving_variance"
    variance = nano_arrays[still].copy()
    variance[3] = 0
    changed = {zero: 0 * nano_arrays[zero], tiny: np.full_like(nano_arrays[tiny], 1e-40), still: variance}
    marks = {"xcit_hub.architecture": NANO, "xcit_hub.dialect": "paper"}
    checkpoint.write(tmp_path / "x.ckpt", nano_arrays | changed, marks)
    with pytest.warns(UserWarning, match="Untrained or damaged") as said:
        xcit_hub.load(str(tmp_path / "x.ckpt"))
    done = xcit_hub.publish(tmp_path / "x.ckpt", "me/x", to=tmp_path / "hub", parity=False)
    for text in (" ".join(str(each.message) for each in said), " ".join(done.notes)):
        assert all(f"{name}: " in text for name in (zero, tiny, still))


def test_imagenets_words_are_not_written_as_the_names_of_class_folders(tmp_path):
    from xcit_hub.hub.config import of_published
    from xcit_hub.hub.metadata import to_metadata
    from xcit_hub.variants import checkpoint as published

    described = of_published(published(f"{NANO}.fb_in1k"))
    assert (len(described.labels), len(set(described.labels))) == (1000, 999)  # two kinds of crane
    assert to_metadata(described).keys() == {"xcit_hub.preprocessing"}
    own = tuple(f"own {index}" for index in range(1000))
    assert json.loads(to_metadata(replace(described, labels=own))["xcit_hub.classes"])[999] == "own 999"


@pytest.fixture
def averaged(trained, nano_arrays) -> Path:
    """A training checkpoint that holds plain and averaged weights, and names neither architecture nor classes."""
    path = trained().with_name("run.ckpt")
    both = {**nano_arrays, **{f"ema.{name}": value + np.float32(0.01) for name, value in nano_arrays.items()}}
    checkpoint.write(path, both, {"xcit_hub.dialect": "paper"})
    return path


def record(folder: Path, **fields: object) -> Path:
    path = folder / "run.json"
    path.write_text(json.dumps({"format": 2, "num_classes": 10, "top1": 70.0, **fields}))
    return path


@pytest.mark.parametrize(
    ("weights", "ema", "said"),
    [
        (None, True, "of the file's plain weights, and its averaged ones would"),
        ("trained", True, "of the file's plain weights, and its averaged ones would"),
        ("average", False, "of the file's averaged weights, and its plain ones would"),
        ("average", True, None),
        (None, False, None),
        ("trained", False, None),
    ],
)
def test_figures_of_a_files_other_weights_are_not_published(averaged, tmp_path, weights, ema, said):
    run = record(tmp_path, weights=weights)

    def publish() -> object:
        return xcit_hub.publish(
            averaged, "me/nano", to=tmp_path / "hub", parity=False, dry_run=True, run=run, ema=ema
        ).notes

    if said is None:
        assert any("were both there" in note for note in publish())
        return
    with pytest.raises(XcitHubError, match=said):
        publish()


def test_a_run_that_names_the_classes_in_another_order_is_refused_and_one_that_names_others_is_said(
    described, tmp_path
):
    def publish(classes: list[str]) -> tuple[str, ...]:
        run = record(tmp_path, classes=classes)
        return xcit_hub.publish(described, "me/nano", to=tmp_path / "hub", parity=False, dry_run=True, run=run).notes

    assert publish(NAMES) == ()
    with pytest.raises(XcitHubError, match="in another order"):
        publish(NAMES[::-1])
    assert publish(["cat", "dog"]) == (
        "run.json names 2 classes (cat, dog …), which are not those that were published",
    )


def test_publishing_says_what_was_assumed_and_the_run_decides_between_what_tensors_cannot(averaged, tmp_path):
    def publish(**options: object) -> object:
        return xcit_hub.publish(averaged, "me/nano", to=tmp_path / "hub", parity=False, dry_run=True, **options)

    (tmp_path / "run.config.json").write_text('{"pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}')
    notes = " ".join(publish().notes)
    assert f"Assumed {NANO}; xcit_nano_12_p16_384 has the same parameters" in notes
    assert "what it says of mean was not used" in notes
    decided = publish(run=record(tmp_path, model="xcit_nano_12_p16_384"))
    assert decided.config.architecture == "xcit_nano_12_p16_384"
    assert not any("Assumed" in note for note in decided.notes)


def test_publishing_says_that_it_assumed_how_images_are_prepared_wherever_nothing_says_it(nano_ckpt, tmp_path):
    assumed = (
        "nothing says how images are prepared: size 224×224, crop_pct 1.0, interpolation bicubic, "
        "mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225) were assumed."
    )

    def publish(file: Path, **options: object) -> object:
        return xcit_hub.publish(file, "me/nano", to=tmp_path / "hub", parity=False, **options)

    bare = publish(nano_ckpt)
    (note,) = (note for note in bare.notes if "images" in note)
    assert note.startswith(assumed) and "--run" in note and PREPROCESSING in note
    entry = tmp_path / "hub" / "me" / "nano"
    (report,) = entry.rglob("conversion.json")
    assert json.loads(report.read_text())["notes"] == [note]
    for card in (bare.card, report.with_name("README_zh.md").read_text()):
        assert note.replace("|", "\\|") in card
    seen = {
        "input_size": [3, 224, 224], "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "crop_pct": 0.9,
        "crop_mode": "center",
    }  # fmt: skip
    told = publish(nano_ckpt, run=record(tmp_path, preprocessing=seen))
    assert not any("images" in note for note in told.notes)
    arrays = {name: tensor.numpy() for name, tensor in checkpoint.read(nano_ckpt).tensors.items()}
    strings = {"xcit_hub.architecture": NANO, "xcit_hub.dialect": "paper"}
    checkpoint.write(tmp_path / "own.ckpt", arrays, strings | {PREPROCESSING: json.dumps(seen)})
    assert not any("assumed" in note for note in publish(tmp_path / "own.ckpt").notes)
    del seen["crop_pct"]
    checkpoint.write(tmp_path / "own.ckpt", arrays, strings | {PREPROCESSING: json.dumps(seen)})
    said = f"{PREPROCESSING} does not say crop_pct: 1.0 was assumed"
    in_part = publish(tmp_path / "own.ckpt")
    assert said in in_part.notes and said in in_part.card


def test_imagenets_names_that_only_a_files_name_tells_are_said(tmp_path, nano_arrays):
    wide = {**nano_arrays, "head.weight": np.zeros((1000, 128), np.float32), "head.bias": np.ones(1000, np.float32)}
    file = tmp_path / "imagenet_of_mine.ckpt"
    checkpoint.write(file, wide, {"xcit_hub.architecture": NANO, "xcit_hub.dialect": "paper"})
    said = "the classes are called by ImageNet's names because of the file's name, imagenet_of_mine.ckpt"
    for labels, is_said in ((None, True), ("imagenet-1k", False)):
        done = xcit_hub.publish(file, "me/nano", to=tmp_path / "hub", parity=False, dry_run=True, labels=labels)
        assert (said in done.notes) == is_said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"1\n2\n", "2 labels for 10 classes"),
        (b"\n".join(b"%d" % i for i in range(11)), "11 labels for 10 classes"),
        (b"1\n\n" + b"\n".join(b"%d" % i for i in range(8)), "Line 2 of the labels is empty"),
        (b"\xff", "utf-8"),
        (None, "not a"),
    ],
)
def test_labels_that_do_not_name_every_class_once_are_refused(described, tmp_path, content, said):
    (tmp_path / "labels.txt").write_bytes(content or b"")
    labels = tmp_path / "labels.txt" if content is not None else Path("/dev/zero")
    with pytest.raises(XcitHubError, match=said):
        xcit_hub.publish(described, "me/nano", to=tmp_path / "hub", parity=False, labels=labels, dry_run=True)


def test_a_byte_order_mark_is_not_a_part_of_a_name_and_one_name_for_two_classes_is_said(described, tmp_path):
    names = ["one", "one", *map(str, range(8))]
    (tmp_path / "labels.txt").write_text("\ufeff" + "\r\n".join(names), encoding="utf-8")
    done = xcit_hub.publish(
        described, "me/nano", to=tmp_path / "hub", parity=False, labels=tmp_path / "labels.txt", dry_run=True
    )
    assert list(done.config.labels) == names
    assert done.notes == ("several classes have one name: one",)
