"""A hub in a folder: revisions, damage, links, several writers, and a layout that other tools read."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import xcit_hub
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.errors import CardError, HubError, InputError, WeightsError, XcitHubError
from xcit_hub.hub import cache
from xcit_hub.hub.locate import list_hub
from xcit_hub.hub.stores import Context
from xcit_hub.hub.stores.folder import FolderStore
from xcit_hub.parameters import parameter_shapes
from xcit_hub.variants import architecture


@pytest.fixture
def hub(tmp_path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def publish(hub, nano_ckpt, published_nano):
    """Publish a nano; what most tests begin with was published before, and is copied."""
    first, said = published_nano

    def run(name="org/nano", **options):
        if name == "org/nano" and not options and not hub.exists():
            shutil.copytree(first, hub, symlinks=True)
            return replace(said, url=said.url.replace(str(first), str(hub)))
        return xcit_hub.publish(options.pop("checkpoint", nano_ckpt), name, to=hub, parity=False, **options)

    return run


def same(network, arrays) -> bool:
    found = {name: value.asnumpy() for name, value in network.parameters_dict().items()}
    return found.keys() == arrays.keys() and all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_what_is_published_loads_back_bit_for_bit(hub, publish, nano_arrays):
    done = publish()
    network = xcit_hub.load("org/nano", hub=hub)
    assert same(network, nano_arrays)
    assert network.config.provenance.revision == done.revision
    assert network.config.provenance.verified == "full"
    assert network.config.dialect == "paper"


def test_the_plain_view_shows_the_latest_files(hub, publish):
    publish()
    names = {path.name for path in (hub / "org" / "nano").iterdir()}
    assert names >= {"config.json", "model.safetensors", "model.ckpt", "README.md", "xcit_hub.json"}
    assert not xcit_hub.load(str(hub / "org" / "nano")).training


def test_huggingface_hub_reads_the_folder_as_its_cache(hub, publish):
    from huggingface_hub import hf_hub_download, scan_cache_dir

    publish()
    found = hf_hub_download("org/nano", "config.json", cache_dir=hub, local_files_only=True)
    assert Path(found).read_text() == (hub / "org" / "nano" / "config.json").read_text()
    assert [repository.repo_id for repository in scan_cache_dir(hub).repos] == ["org/nano"]


def test_mindspore_itself_loads_the_ckpt(hub, publish, nano_arrays):
    import mindspore

    publish()
    path = hub / "org" / "nano" / "model.ckpt"
    found = mindspore.load_checkpoint(str(path))
    assert all(np.array_equal(found[name].asnumpy(), nano_arrays[name]) for name in nano_arrays)
    digest, name = (hub / "org" / "nano" / "model.ckpt.sha256").read_text().split()
    assert (cache.digest_like(digest)(path), name) == (digest, "model.ckpt")


def test_revisions_stay_and_unchanged_content_makes_none(hub, publish, nano_mindcv):
    first = publish()
    again = publish()
    assert (again.changed, again.revision) == (False, first.revision)
    second = publish(checkpoint=nano_mindcv)
    assert second.changed
    assert xcit_hub.load("org/nano", hub=hub).config.dialect == "mindcv"
    assert xcit_hub.load("org/nano", first.revision, hub=hub).config.dialect == "paper"
    branch = publish(revision="old")
    assert (branch.changed, branch.revision) == (True, first.revision)
    assert xcit_hub.load("org/nano@old", hub=hub).config.dialect == "paper"
    with pytest.raises(HubError, match="no revision 'v9'"):
        xcit_hub.load("org/nano@v9", hub=hub)
    with pytest.raises(InputError, match="commits cannot be published to"):
        publish(revision=first.revision)


def test_what_goes_of_an_earlier_publication_is_named(hub, publish, tmp_path, run_cli, nano_ckpt):
    (tmp_path / "more").write_text("{}")
    store = FolderStore(str(hub), Context(tmp_path / "cache"))
    store.publish("org/nano", {"README.md": tmp_path / "more", "parity.json": tmp_path / "more"}, message="")
    foretold = publish(dry_run=True)
    shown = run_cli("publish", str(nano_ckpt), "org/nano", "--to", str(hub), "--no-parity").stdout
    assert foretold.removed == ("parity.json",)
    assert "removed: parity.json is gone: it was an earlier publication's" in shown
    assert publish(revision="other").removed == ()


def test_damage_is_found_before_a_byte_is_parsed_and_publishing_mends_it(hub, publish, nano_arrays):
    publish()
    blob = (hub / "org" / "nano" / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(HubError, match="damaged"):
        xcit_hub.load("org/nano", hub=hub)
    publish()
    assert same(xcit_hub.load("org/nano", hub=hub), nano_arrays)


def test_info_names_every_damaged_file_and_publishing_says_what_it_repaired(hub, publish, run_here, nano_ckpt):
    assert publish().repaired == ()
    assert publish().repaired == ()
    assert xcit_hub.info("org/nano", hub=hub).damaged == ()
    view = hub / "org" / "nano"
    blob = (view / "model.ckpt").resolve()
    blob.write_bytes(blob.read_bytes()[:-1])
    (view / "conversion.json").resolve().unlink()
    assert xcit_hub.load("org/nano", hub=hub).config.provenance.verified == "full"  # model.safetensors is whole
    assert xcit_hub.info("org/nano", hub=hub).damaged == ("conversion.json", "model.ckpt")
    shown = run_here("info", "org/nano", "--hub", str(hub))
    assert (shown.returncode, "damaged: model.ckpt" in shown.stdout) == (0, True), shown.stderr
    assert json.loads(run_here("info", "org/nano", "--hub", str(hub), "--json").stdout)["damaged"] == [
        "conversion.json", "model.ckpt",
    ]  # fmt: skip
    again = run_here("publish", str(nano_ckpt), "org/nano", "--to", str(hub), "--no-parity")
    assert "repaired: model.ckpt" in again.stdout
    assert "repaired: conversion.json" in again.stdout
    assert "no commit made" in again.stdout
    assert xcit_hub.info("org/nano", hub=hub).damaged == ()


def test_publishing_puts_back_links_that_an_editor_replaced_or_somebody_removed(hub, publish):
    publish()
    view = hub / "org" / "nano"
    (view / "README.md").unlink()
    (view / "README.md").write_text("mine")
    (view / "model.ckpt").unlink()
    done = publish()
    assert (done.changed, done.repaired) == (False, ("README.md", "model.ckpt"))
    assert (view / "README.md").read_text() == done.card
    assert not list(hub.rglob("*.tmp"))


def test_links_that_leave_the_folder_are_refused(hub, publish, tmp_path):
    publish()
    secret = tmp_path / "secret.safetensors"
    secret.write_bytes(b"secret")
    view = (hub / "org" / "nano").resolve()
    (view / "model.safetensors").unlink()
    (view / "model.safetensors").symlink_to(secret)
    with pytest.raises(HubError, match="leaves"):
        xcit_hub.load("org/nano", hub=hub)
    plain = hub / "org" / "plain"
    plain.mkdir()
    (plain / "config.json").symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(XcitHubError, match="leaves"):
        xcit_hub.load("org/plain", hub=hub)
    (hub / "org" / "away").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leaves"):
        xcit_hub.load("org/away", hub=hub)


def test_a_copied_folder_without_the_layout_still_loads(hub, publish, nano_arrays, tmp_path):
    publish()
    shutil.copytree(hub / "org" / "nano", tmp_path / "copy" / "org" / "nano", symlinks=False)
    network = xcit_hub.load("org/nano", hub=tmp_path / "copy")
    assert same(network, nano_arrays)
    assert network.config.provenance.verified == "full"  # xcit_hub.json has the digest
    weights = tmp_path / "copy" / "org" / "nano" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(HubError, match="not the ones that were published"):
        xcit_hub.load("org/nano", hub=tmp_path / "copy")


def test_a_hub_that_does_not_exist_is_not_an_empty_one(tmp_path):
    with pytest.raises(HubError, match="does not exist"):
        list_hub(tmp_path / "nowhere")


def test_a_wrong_name_lists_the_closest_and_where_it_looked(hub, publish):
    publish("org/xcit-nano")
    with pytest.raises(HubError) as caught:
        xcit_hub.load("org/xcit-nanno", hub=hub)
    assert "org/xcit-nano" in str(caught.value)
    assert str(hub) in str(caught.value)
    with pytest.raises(HubError, match="no such folder hub"):
        xcit_hub.load("org/nano", hub=hub / "missing")


def test_without_a_hub_publishing_and_loading_use_this_machines(nano_ckpt, nano_arrays):
    done = xcit_hub.publish(nano_ckpt, "org/nano", parity=False)
    assert done.url.startswith(os.environ["XCIT_HUB_HOME"])
    assert same(xcit_hub.load("org/nano"), nano_arrays)


def test_what_cannot_be_written_is_one_clear_error(nano_ckpt, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HubError, match="Cannot publish"):
        xcit_hub.publish(nano_ckpt, "org/nano", to=tmp_path / "file", parity=False)


def test_a_folder_has_no_private_models_and_says_so_before_anything_is_written(hub, publish):
    with pytest.raises(InputError, match="no private models: the file system says"):
        publish(private=True)
    assert not hub.exists()


def test_a_disk_that_fills_up_midway_shows_the_old_revision(hub, publish, nano_mindcv, monkeypatch):
    first = publish()
    copies = []

    def copy_until_full(source):
        def write(stream):
            copies.append(source)
            stream.write(b"half")
            if len(copies) > 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            stream.seek(0)
            stream.write(source.read_bytes())

        return write

    with monkeypatch.context() as patched:
        patched.setattr(cache, "copy_into", copy_until_full)
        with pytest.raises(HubError, match="No space left"):
            publish(checkpoint=nano_mindcv)
    assert xcit_hub.info("org/nano", hub=hub).revision == first.revision
    assert xcit_hub.load("org/nano", hub=hub).config.dialect == "paper"
    assert not list(hub.rglob("*.tmp"))
    assert publish(checkpoint=nano_mindcv).changed


def test_load_weights_fills_a_network_of_ones_own_and_no_other(hub, publish, nano_arrays):
    publish()
    network = xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=10)
    described = xcit_hub.load_weights(network, "org/nano", hub=hub)
    assert same(network, nano_arrays)
    assert described.architecture == "xcit_nano_12_p16_224"
    other = xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=10, dialect="mindcv")
    with pytest.raises(WeightsError, match="dialect"):
        xcit_hub.load_weights(other, "org/nano", hub=hub)
    with pytest.raises(WeightsError, match="do not fit"):
        xcit_hub.load_weights(xcit_hub.create_model("xcit_nano_12_p16_224"), "org/nano", hub=hub)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"tokens_norm": True}, "tokens_norm is False, the network's True"),
        ({"global_pool": "avg"}, "global_pool is 'token', the network's 'avg'"),
        (
            {"patch_size": 4, "strides": (1, 1, 2, 2)},
            r"patch_size is 16, the network's 4; strides is \(2, 2, 2, 2\), the network's \(1, 1, 2, 2\)",
        ),
    ],
)
def test_load_weights_refuses_a_network_that_has_the_tensors_and_computes_something_else(hub, publish, option, words):
    publish()
    network = xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=10, init=False, **option)
    before = network.head.bias.asnumpy()
    with pytest.raises(WeightsError, match=words):
        xcit_hub.load_weights(network, "org/nano", hub=hub)
    assert (network.head.bias.asnumpy() == before).all()


def test_load_weights_takes_a_network_of_another_image_size_and_what_a_bare_file_cannot_tell(
    hub, publish, nano_arrays, tmp_path
):
    publish()
    larger = xcit_hub.create_model("xcit_nano_12_p16_384", num_classes=10, init=False)
    xcit_hub.load_weights(larger, "org/nano", hub=hub)
    assert same(larger, nano_arrays)
    checkpoint.write(tmp_path / "bare.ckpt", nano_arrays, {})
    options = {"num_classes": 10, "init": False}
    finer = xcit_hub.create_model("xcit_nano_12_p16_224", patch_size=4, strides=(1, 1, 2, 2), **options)
    xcit_hub.load_weights(finer, str(tmp_path / "bare.ckpt"), dialect="paper")
    assert same(finer, nano_arrays)
    other = xcit_hub.create_model("xcit_nano_12_p16_224", tokens_norm=True, **options)
    with pytest.raises(WeightsError, match="tokens_norm"):
        xcit_hub.load_weights(other, str(tmp_path / "bare.ckpt"), dialect="paper")


def test_load_weights_warns_of_what_load_warns_of(nano_ckpt, tmp_path):
    rewrite(nano_ckpt, tmp_path / "grown.ckpt", num_classes=12)
    network = xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=12, init=False)
    with pytest.warns(UserWarning, match="never trained") as caught:
        xcit_hub.load_weights(network, str(tmp_path / "grown.ckpt"))
    assert [each.filename for each in caught] == [__file__]


def test_a_network_filled_with_other_weights_is_saved_as_what_it_then_holds(nano_ckpt, nano_arrays, tmp_path):
    said = {"xcit_hub.dialect": "paper", "xcit_hub.classes": json.dumps([f"b{number}" for number in range(10)])}
    checkpoint.write(tmp_path / "b.safetensors", {name: each + 0.5 for name, each in nano_arrays.items()}, said)
    network = xcit_hub.load(str(nano_ckpt))
    described = xcit_hub.load_weights(network, str(tmp_path / "b.safetensors"))
    assert network.config.provenance == described.provenance
    assert network.description().labels[0] == "b0"
    rewrite(nano_ckpt, tmp_path / "grown.ckpt", num_classes=12)
    grown = xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=12, init=False)
    with pytest.warns(UserWarning, match="never trained"):
        xcit_hub.load_weights(grown, str(tmp_path / "grown.ckpt"))
    assert grown.head_untrained
    grown.reset_classifier(10)
    xcit_hub.load_weights(grown, str(nano_ckpt))
    assert not grown.head_untrained


def test_what_a_file_cannot_tell_of_a_network_that_it_fills_stays_the_networks(nano_arrays, tmp_path):
    checkpoint.write(tmp_path / "bare.ckpt", nano_arrays, {})
    options = {"num_classes": 10, "init": False, "patch_size": 4, "strides": (1, 1, 2, 2)}
    finer = xcit_hub.create_model("xcit_nano_12_p16_224", **options)
    xcit_hub.load_weights(finer, str(tmp_path / "bare.ckpt"), dialect="paper")
    assert finer.description().shape.stem_strides == (1, 1, 2, 2)


@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
def test_an_assumed_architecture_stays_an_assumption_when_it_is_published_or_saved(nano_arrays, tmp_path, dialect):
    checkpoint.write(tmp_path / "bare.ckpt", nano_arrays, {"xcit_hub.dialect": dialect})
    hub, saved = tmp_path / "hub", tmp_path / "saved"
    xcit_hub.publish(tmp_path / "bare.ckpt", "me/x", to=hub, parity=False)
    (told,) = hub.rglob("conversion.json")
    report = json.loads(told.read_text())
    assert report["architecture_assumed"] is True
    assert sum(note.startswith("Assumed xcit_nano_12_p16_224") for note in report["notes"]) == 1
    xcit_hub.load(str(tmp_path / "bare.ckpt")).save_pretrained(saved)
    for file in (told.parent / "model.safetensors", told.parent / "model.ckpt", saved / "model.safetensors"):
        strings = checkpoint.read(file).metadata
        assert strings["xcit_hub.architecture_assumed"] == "true"
        assert strings["xcit_hub.architecture"] == "xcit_nano_12_p16_224"
    xcit_hub.load("me/x", hub=hub)
    xcit_hub.load(str(saved))


def test_levels_of_four_channels_are_left_behind_where_three_are_made_of_them(tmp_path):
    shapes = parameter_shapes(architecture("xcit_nano_12_p16_224"), num_classes=10, in_chans=4)
    arrays = {name: np.full(shape, 0.01, np.float32) for name, shape in shapes.items()}
    said = {"input_size": [4, 224, 224], "mean": [0.5] * 4, "std": [0.25] * 4, "interpolation": "bicubic"}
    said |= {"crop_pct": 1.0, "crop_mode": "center"}
    strings = {"xcit_hub.dialect": "paper", "xcit_hub.architecture": "xcit_nano_12_p16_224"}
    for name, text in (("preprocessing", said), ("normalization", [[0.5] * 4, [0.25] * 4])):
        checkpoint.write(tmp_path / "four.ckpt", arrays, strings | {f"xcit_hub.{name}": json.dumps(text)})
        report = rewrite(tmp_path / "four.ckpt", tmp_path / "three.ckpt", in_chans=3)
        assert "Dropped mean and deviation: they are not of 3 channels." in report.weights.notes
        xcit_hub.load(str(tmp_path / "three.ckpt"))
        with pytest.warns(UserWarning, match="mean and deviation are not of 3 channels"):
            network = xcit_hub.load(str(tmp_path / "four.ckpt"), in_chans=3)
        network.save_pretrained(tmp_path / name)
        assert len(xcit_hub.load(str(tmp_path / name)).config.preprocessing.mean) == 3


def test_rounding_a_network_trains_no_classifier(nano_ckpt):
    import mindspore

    with pytest.warns(UserWarning, match="untrained"):
        network = xcit_hub.load(str(nano_ckpt), num_classes=5)
    network.cast(mindspore.float16)
    assert network.head_untrained


@pytest.mark.parametrize("in_chans", [1, 4])
def test_heads_channels_and_dtypes_can_be_changed_on_the_way(hub, publish, nano_arrays, in_chans):
    import mindspore
    import torch
    from timm.models._manipulate import adapt_input_conv

    publish()
    with pytest.warns(UserWarning, match="replaced by a fresh|adapted from"):
        network = xcit_hub.load("org/nano", hub=hub, num_classes=3, in_chans=in_chans, dtype="float16")
    assert network.config.num_classes == 3
    assert len(network.config.provenance.notes) == 2
    assert network.head.weight.dtype == mindspore.float16
    stem = network.parameters_dict()["patch_embed.proj.0.0.weight"].asnumpy()
    expected = adapt_input_conv(in_chans, torch.from_numpy(nano_arrays["patch_embed.proj.0.0.weight"])).numpy()
    np.testing.assert_allclose(stem, expected, rtol=1e-2, atol=1e-3)


def test_a_contradicted_dialect_is_refused(hub, publish):
    publish()
    with pytest.raises(InputError, match="of the paper dialect"):
        xcit_hub.load("org/nano", hub=hub, dialect="mindcv")
    for option in ({"dtype": "int8"}, {"mode": "eager"}):
        with pytest.raises(InputError, match="There is no"):
            xcit_hub.load("org/nano", hub=hub, **option)


def test_a_bare_file_loads_and_a_folder_of_several_asks_which(nano_ckpt, nano_mindcv, nano_arrays, tmp_path):
    network = xcit_hub.load(str(nano_ckpt))
    assert same(network, nano_arrays)
    assert network.config.provenance.verified == "none"
    assert xcit_hub.load(f"file://{nano_mindcv}").config.dialect == "mindcv"
    shutil.copy(nano_ckpt, tmp_path / "a.ckpt")
    assert same(xcit_hub.load(str(tmp_path)), nano_arrays)
    shutil.copy(nano_mindcv, tmp_path / "b.ckpt")
    with pytest.raises(HubError, match=r"2 checkpoints here: a\.ckpt, b\.ckpt"):
        xcit_hub.load(str(tmp_path))
    with pytest.raises(HubError, match="no such file"):
        xcit_hub.load(str(tmp_path / "c.ckpt"))


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '{"format": "xcit-hub/9"}',
        '{"format": "xcit-hub/1", "architecture": "resnet50", "dialect": "paper"}',
        '{"format": "xcit-hub/1", "architecture": "xcit_nano_12_p16_224", "dialect": "latin"}',
        '{"format": "xcit-hub/1", "architecture": "xcit_nano_12_p16_224", "dialect": "paper", "num_classes": -1}',
        '{"format": "xcit-hub/1", "architecture": "xcit_nano_12_p16_224", "dialect": "paper", "weights": {"a": "b"}}',
    ],
)  # fmt: skip
def test_a_malformed_description_is_one_clear_error(publish, hub, text, tmp_path):
    publish()
    shutil.copytree(hub / "org" / "nano", tmp_path / "copy", symlinks=False)
    (tmp_path / "copy" / "xcit_hub.json").write_text(text)
    with pytest.raises(HubError, match="description cannot be used"):
        xcit_hub.load(str(tmp_path / "copy"))


# ---- nothing leaves the machine before every check has passed


def test_a_checkpoint_of_another_model_is_not_published(hub, tmp_path):
    from safetensors.numpy import save_file

    save_file({"conv1.weight": np.zeros((3, 3), np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError):
        xcit_hub.publish(tmp_path / "other.safetensors", "org/other", to=hub, parity=False)
    assert not hub.exists()


def test_a_failed_parity_stops_everything(hub, nano_ckpt, monkeypatch):
    from types import SimpleNamespace

    from xcit_hub import parity

    monkeypatch.setattr(parity, "verify_weights", lambda *_, **__: SimpleNamespace(passed=False, checks=()))
    with pytest.raises(XcitHubError, match="do not agree"):
        xcit_hub.publish(nano_ckpt, "org/nano", to=hub)
    assert not hub.exists()


def test_weights_whose_outputs_are_no_numbers_are_named_as_the_cause(hub, nano_arrays, tmp_path):
    from xcit_hub.checkpoints import checkpoint

    arrays = nano_arrays | {"head.weight": np.full_like(nano_arrays["head.weight"], 3e38)}
    checkpoint.write(tmp_path / "bad.ckpt", arrays, {"xcit_hub.dialect": "paper"})
    with pytest.raises(WeightsError, match="outputs are not finite") as caught:
        xcit_hub.publish(tmp_path / "bad.ckpt", "org/nano", to=hub)
    assert "fault of ours" not in str(caught.value)
    assert not hub.exists()


@pytest.mark.parametrize("target", ["hub", "hugging-face", "mindspore-hub:hub"])
def test_a_name_without_an_organisation_is_refused_everywhere(nano_ckpt, target):
    with pytest.raises(InputError, match="ORG/NAME"):
        xcit_hub.publish(nano_ckpt, "noorg", to=target, parity=False)
    assert not Path("hub").exists()


def test_a_copy_that_nothing_vouches_for_loads_and_says_so_on_standard_error(hub, publish, run_cli, run_here, tmp_path):
    publish()
    copy = tmp_path / "copy" / "org" / "nano"
    shutil.copytree(hub / "org" / "nano", copy, symlinks=False)
    vouched = run_cli("load", "org/nano", "--hub", str(tmp_path / "copy"), "--json")
    assert (vouched.returncode, vouched.stderr) == (0, "")
    (copy / "xcit_hub.json").unlink()
    done = run_here("load", "org/nano", "--hub", str(tmp_path / "copy"), "--json")
    assert (done.returncode, json.loads(done.stdout)["verified"]) == (0, "none")
    assert "note: " in done.stderr
    assert "verified against nothing" in done.stderr


def test_without_timm_parity_has_to_be_left_out_knowingly(hub, nano_ckpt, monkeypatch):
    from xcit_hub import parity

    def missing() -> None:
        raise XcitHubError("timm is not installed.", fix="Install it.")

    monkeypatch.setattr(parity, "require_timm", missing)
    with pytest.raises(XcitHubError, match="timm is not installed") as caught:
        xcit_hub.publish(nano_ckpt, "org/nano", to=hub)
    assert "--no-parity" in str(caught.value)
    assert not hub.exists()
    assert xcit_hub.publish(nano_ckpt, "org/nano", to=hub, parity=False).parity is None


def test_a_card_with_a_fault_stops_everything(hub, nano_ckpt, tmp_path):
    said = {"license": "a licence of my own"}
    (tmp_path / "card.yaml").write_text(json.dumps(said))
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    with pytest.raises(InputError, match="2 labels for 10 classes"):
        xcit_hub.publish(nano_ckpt, "org/nano", to=hub, parity=False, labels=tmp_path / "labels.txt")
    with pytest.raises(CardError, match="does not pass its hub's rules"):
        xcit_hub.publish(nano_ckpt, "org/nano", to=hub, parity=False, meta=tmp_path / "card.yaml")
    assert not hub.exists()


def test_a_run_record_of_another_checkpoint_is_refused(hub, nano_ckpt, tmp_path):
    (tmp_path / "run.json").write_text('{"checkpoint_sha256": "' + "0" * 64 + '", "top1": 50.0}')
    with pytest.raises(InputError, match="another checkpoint"):
        xcit_hub.publish(nano_ckpt, "org/nano", to=hub, parity=False, run=tmp_path / "run.json")


def test_run_and_labels_reach_the_entry(hub, nano_ckpt, tmp_path):
    from xcit_hub.files import sha256_of

    digest = sha256_of(nano_ckpt)
    (tmp_path / "run.json").write_text(f'{{"checkpoint_sha256": "{digest}", "top1": 51.25, "device": "CPU"}}')
    (tmp_path / "labels.txt").write_text("\n".join(f"thing {index}" for index in range(10)))
    done = xcit_hub.publish(
        nano_ckpt, "org/nano", to=hub, parity=False, run=tmp_path / "run.json", labels=tmp_path / "labels.txt"
    )
    assert "51.25" in done.card
    assert xcit_hub.load("org/nano", hub=hub).config.labels[3] == "thing 3"
