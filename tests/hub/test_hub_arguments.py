"""What callers get wrong, and what they must be told: one clear error or warning each."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from PIL import Image

import xcit_hub
from xcit_hub.checkpoints import checkpoint
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.errors import HubError, InputError, WeightsError, XcitHubError


@pytest.fixture
def network(nano_ckpt):
    return xcit_hub.load(str(nano_ckpt))


def test_a_replaced_classifier_and_stem_are_told(nano_ckpt):
    with pytest.warns(UserWarning, match="10 classes was replaced by a fresh, untrained one of 2000") as caught:
        network = xcit_hub.load(str(nano_ckpt), num_classes=2000)
    assert [each.filename for each in caught] == [__file__]
    assert "fresh, untrained" in network.config.provenance.notes[-1]
    with pytest.warns(UserWarning, match="adapted from 3 to 1 channels"):
        xcit_hub.load(str(nano_ckpt), in_chans=1)
    with pytest.warns(UserWarning, match="classifier of 10 classes was left out"):
        assert xcit_hub.load(str(nano_ckpt), num_classes=0).config.num_classes == 0


def test_nothing_is_told_where_nothing_was_replaced(nano_ckpt):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xcit_hub.load(str(nano_ckpt), num_classes=10, in_chans=3)


@pytest.mark.parametrize("option", [{"num_classes": -1}, {"num_classes": 2.5}, {"num_classes": True}, {"in_chans": 0}])
def test_impossible_counts_are_refused(nano_ckpt, option):
    with pytest.raises(InputError, match=f"{next(iter(option))} is"):
        xcit_hub.load(str(nano_ckpt), **option)


def test_a_classifier_that_nothing_trained_is_not_published(nano_ckpt, tmp_path):
    rewrite(nano_ckpt, tmp_path / "grown.ckpt", num_classes=1000)
    with pytest.raises(WeightsError, match="never trained"):
        xcit_hub.publish(tmp_path / "grown.ckpt", "org/nano", to=tmp_path / "hub", parity=False)
    assert not (tmp_path / "hub").exists()


def test_a_fresh_classifier_is_called_untrained_wherever_it_is_saved_until_something_trains_it(nano_ckpt, tmp_path):
    with pytest.warns(UserWarning, match="fresh, untrained"):
        network = xcit_hub.load(str(nano_ckpt), num_classes=3)
    network.save_pretrained(tmp_path / "fresh")
    with pytest.warns(UserWarning, match="never trained"):
        again = xcit_hub.load(str(tmp_path / "fresh"))
    assert any("never trained" in note for note in again.config.provenance.notes)
    again.save_pretrained(tmp_path / "again")
    with pytest.raises(WeightsError, match="never trained"):
        xcit_hub.publish(tmp_path / "again" / "model.safetensors", "org/nano", to=tmp_path / "hub", parity=False)
    network.head.bias.set_data(network.head.bias + 1.0)
    network.save_pretrained(tmp_path / "trained")
    again.reset_classifier(3)
    again.head.weight.set_data(network.head.weight)
    again.save_pretrained(tmp_path / "taken over")
    with warnings.catch_warnings(action="error"):
        for name in ("trained", "taken over"):
            xcit_hub.load(str(tmp_path / name))
    with pytest.warns(UserWarning, match="left out") as told:
        xcit_hub.load(str(tmp_path / "fresh"), num_classes=0)
    assert not any("never trained" in str(warning.message) for warning in told)


def test_publish_takes_paths_and_says_so(network, nano_ckpt, tmp_path):
    to = tmp_path / "hub"
    with pytest.raises(InputError, match="checkpoint is a XCiT, and has to be a file's path") as caught:
        xcit_hub.publish(network, "org/nano", to=to)
    assert "push_to_hub" in str(caught.value)
    with pytest.raises(InputError, match="labels is a list"):
        xcit_hub.publish(nano_ckpt, "org/nano", to=to, labels=["a", "b"])
    with pytest.raises(InputError, match="name is a NoneType"):
        xcit_hub.publish(nano_ckpt, None, to=to)
    with pytest.raises(InputError, match="run is a dict"):
        xcit_hub.publish(nano_ckpt, "org/nano", to=to, run={})
    assert not to.exists()


@pytest.mark.parametrize("given", [{"private": True}, {"create_pr": True}, {"revision": "a" * 40}, {"token": "secret"}])
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_a_folder_has_not_is_refused_by_name_in_a_dry_run_as_well(nano_ckpt, tmp_path, given, dry_run):
    with pytest.raises(InputError) as caught:
        xcit_hub.publish(nano_ckpt, "org/nano", to=tmp_path / "hub", parity=False, dry_run=dry_run, **given)
    assert f"{next(iter(given))}=" in str(caught.value.where)
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"cache_dir": "cache"},
        {"cache_dir": "cache", "pyramid": True},
        {"cache_dir": "cache", "features_only": True},
        {"seed": 0, "init": False},
    ],
)
def test_an_option_of_fetched_or_fresh_weights_is_refused_by_name_where_there_are_none(options):
    with pytest.raises(InputError) as caught:
        xcit_hub.create_model("xcit_nano_12_p16_224", **options)
    assert f"{next(iter(options))}=" in str(caught.value.where) + str(caught.value.what)


@pytest.mark.parametrize("option", [{"seed": -1}, {"num_classes": "10"}, {"seed": -1, "pyramid": True}])
def test_a_number_that_nothing_can_be_begun_with_is_refused_by_name(option):
    with pytest.raises(InputError, match=f"{next(iter(option))} is"):
        xcit_hub.create_model("xcit_nano_12_p16_224", **option)


def test_what_is_on_this_machine_is_not_fetched_again(nano_ckpt, tmp_path):
    for asked in ({"id": nano_ckpt}, {"id": "org/name", "hub": tmp_path}):
        with pytest.raises(InputError, match="nothing is fetched again"):
            xcit_hub.load(**asked, force_download=True)


@pytest.mark.parametrize("model_id", ["hf://org/name", "modelers://org/name", "xcit_tiny_12_p16_224.ms_in1k"])
def test_fetching_again_is_refused_offline(model_id, monkeypatch):
    with pytest.raises(InputError, match="Offline mode forbids fetching a model again"):
        xcit_hub.load(model_id, offline=True, force_download=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="HF_HUB_OFFLINE"):
        xcit_hub.load(model_id, force_download=True)


def test_a_token_is_refused_where_nobody_asks_for_one(nano_ckpt, tmp_path):
    for asked in ({"id": nano_ckpt}, {"id": "org/name", "hub": tmp_path}, {"id": "org/name", "hub": "mindspore-hub"}):
        for read in (xcit_hub.load, xcit_hub.info):
            with pytest.raises(InputError, match="takes no token") as caught:
                read(**asked, token="hf_secret")
            assert "hf_secret" not in str(caught.value)
    assert xcit_hub.info(nano_ckpt, token=False).weights == nano_ckpt.name


def test_preprocess_takes_a_network_or_its_description(network):
    image = Image.fromarray(np.arange(300 * 260 * 3, dtype=np.uint32).astype(np.uint8).reshape(300, 260, 3))
    pixels = xcit_hub.preprocess(network)(image)
    assert pixels.shape == (3, 224, 224)
    assert np.array_equal(pixels, xcit_hub.preprocess(network.config)(image))


@pytest.mark.parametrize("wrong", [None, "xcit_nano_12_p16_224", {}])
def test_preprocess_refuses_what_has_no_description(wrong):
    with pytest.raises(InputError, match="has no description"):
        xcit_hub.preprocess(wrong)


@pytest.mark.parametrize("wrong", [None, 3, np.zeros((8, 8, 3))])
def test_the_preprocessing_refuses_what_is_not_an_image(network, wrong):
    with pytest.raises(InputError, match="is not an image"):
        xcit_hub.preprocess(network)(wrong)


def test_a_network_made_here_has_no_description_to_prepare_by(nano_arrays):
    with pytest.raises(InputError, match="has no description"):
        xcit_hub.preprocess(xcit_hub.create_model("xcit_nano_12_p16_224", init=False))


def test_outputs_that_are_not_finite_are_an_error_in_json_too(run_here, nano_arrays, tmp_path):
    arrays = nano_arrays | {"head.weight": np.full_like(nano_arrays["head.weight"], 3e38)}
    checkpoint.write(tmp_path / "bad.ckpt", arrays, {"xcit_hub.dialect": "paper"})
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    done = run_here("load", str(tmp_path / "bad.ckpt"), "--image", str(tmp_path / "red.png"), "--json")
    assert done.returncode == 2
    error = json.loads(done.stderr)
    assert error.keys() == {"error"}
    assert "outputs are not finite" in error["error"]["what"]
    assert done.stdout == ""


def test_a_backbone_classifies_nothing(run_here, nano_arrays, tmp_path):
    arrays = {name: array for name, array in nano_arrays.items() if not name.startswith("head.")}
    checkpoint.write(tmp_path / "backbone.ckpt", arrays, {"xcit_hub.dialect": "paper"})
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    done = run_here("load", str(tmp_path / "backbone.ckpt"), "--image", str(tmp_path / "red.png"))
    assert (done.returncode, "no classifier" in done.stderr) == (2, True)
    assert json.loads(run_here("load", str(tmp_path / "backbone.ckpt"), "--json").stdout)["num_classes"] == 0


@pytest.mark.parametrize(
    ("model_id", "classes"),
    [
        ("xcit_nano_12_p16_224.fb_in1k", 1000),
        ("timm/xcit_tiny_12_p8_384.fb_dist_in1k", 1000),
        ("dino_xcit_small_12_p16", 0),
        ("hf-hub:timm/xcit_tiny_12_p8_384.fb_dist_in1k", 1000),
        ("https://huggingface.co/timm/xcit_tiny_12_p8_384.fb_dist_in1k/blob/main/model.safetensors", 1000),
        ("https://dl.fbaipublicfiles.com/xcit/xcit_tiny_12_p16_224.pth", 1000),
    ],
)
def test_what_the_table_knows_needs_no_network(model_id, classes):
    found = xcit_hub.info(model_id, offline=True)
    assert found.config.num_classes == classes
    assert any("no hub was asked" in note for note in found.notes)
    with pytest.raises(HubError, match="offline mode forbids"):
        xcit_hub.info("org/name", offline=True)
    with pytest.raises(HubError, match="offline mode forbids"):  # the table knows one revision alone
        xcit_hub.info("hf-hub:timm/xcit_tiny_12_p8_384.fb_dist_in1k@other", offline=True)


@pytest.mark.parametrize("content", [b"{", b'{"architecture": "resnet50"}'])
def test_what_a_hub_answers_wrongly_is_never_hidden_behind_the_table(server, nano_timm, content):
    name = "timm/xcit_nano_12_p16_224.fb_in1k"
    server.add(name, nano_timm | {"config.json": content})
    with pytest.raises(HubError, match=r"config\.json|XCiT|resnet50"):
        xcit_hub.info(name)


@pytest.mark.parametrize("offline", [False, True])
def test_a_field_that_cannot_be_ignored_is_refused_for_names_of_the_table_too(server, nano_timm, offline):
    name = "timm/xcit_nano_12_p16_224.fb_in1k"
    server.add(name, nano_timm)
    with pytest.raises(XcitHubError, match="not in the cache" if offline else "no field 'typo'"):
        xcit_hub.info(name, ignore_fields=["typo"], offline=offline)


def test_a_token_is_refused_for_mindspore_hubs_names_of_the_table_too():
    with pytest.raises(InputError, match="takes no token"):
        xcit_hub.info("xcit_tiny_12_p16_224.ms_in1k", token="hf_secret")


def test_a_hub_that_does_not_answer_leaves_the_table(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    found = xcit_hub.info("xcit_nano_12_p16_224.fb_in1k")
    assert any("no hub was asked: http://127.0.0.1:9 cannot be reached" in note for note in found.notes)
