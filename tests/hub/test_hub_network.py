"""The network as huggingface_hub's users know one: its three methods do what they expect."""

from __future__ import annotations

import subprocess
import sys
from inspect import Parameter, signature

import mindspore
import numpy as np
import pytest
from hub_server import Fault
from huggingface_hub import ModelHubMixin, constants

import xcit_hub
from xcit_hub import models
from xcit_hub.errors import HubError, InputError, WeightsError
from xcit_hub.hub.saving import Pushing
from xcit_hub.parity import random_images


@pytest.fixture(scope="module")
def network(nano_ckpt):
    """One for all that saves, pushes and compares; no test changes it."""
    return xcit_hub.load(str(nano_ckpt))


@pytest.fixture
def endpoint(server, monkeypatch):
    """The whole client pointed at the loopback hub, as HF_ENDPOINT does in a fresh process."""
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    return server


def same(one, other) -> bool:
    pairs = zip(one.get_parameters(), other.get_parameters(), strict=True)
    return all(a.name == b.name and np.array_equal(a.asnumpy(), b.asnumpy()) for a, b in pairs)


def test_what_load_returns_is_the_network(network):
    assert isinstance(network, models.XCiT)
    assert isinstance(network, xcit_hub.XCiT)


@pytest.mark.parametrize(
    ("method", "left_out"),  # the description that is saved is the network's own
    [("from_pretrained", set()), ("save_pretrained", {"config"}), ("push_to_hub", {"config"})],
)
def test_the_three_methods_take_what_huggingface_hubs_mixin_takes(method, left_out):
    ours = signature(getattr(xcit_hub.XCiT, method)).parameters
    theirs = signature(getattr(ModelHubMixin, method)).parameters.values()
    named = {parameter.name for parameter in theirs if parameter.kind is not Parameter.VAR_KEYWORD}
    assert named - set(ours) - set(Pushing.__annotations__) == left_out


def test_loading_imports_nothing_that_only_a_push_needs(nano_ckpt):
    program = f"import sys, xcit_hub; xcit_hub.load({str(nano_ckpt)!r}); print(sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "'huggingface_hub'" in ran.stdout
    for module in ("huggingface_hub.hub_mixin", "huggingface_hub.hf_api", "httpx", "httpx2"):
        assert repr(module) not in ran.stdout


@pytest.mark.parametrize("option", [{"repo_id": "org/nano"}, {"private": True}, {"commit_message": "one"}])
def test_what_only_a_push_would_use_is_refused_where_nothing_is_pushed(network, tmp_path, option):
    with pytest.raises(InputError, match=rf"{next(iter(option))} would be used by a push alone"):
        network.save_pretrained(tmp_path / "saved", **option)
    assert not (tmp_path / "saved").exists()


def test_saved_folders_come_back(network, tmp_path):
    network.save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "README.md", "config.json", "model.safetensors", "xcit_hub.json",
    }  # fmt: skip
    again = xcit_hub.XCiT.from_pretrained(tmp_path / "saved")
    assert same(network, again)
    images = mindspore.Tensor(random_images(1, 3, 64, 64))
    assert np.array_equal(network(images).asnumpy(), again(images).asnumpy())
    assert same(network, xcit_hub.load(str(tmp_path / "saved")))


def test_pushed_networks_come_back_in_one_commit(network, endpoint, tmp_path):
    url = network.push_to_hub("org/pushed", commit_message="first")
    assert "/org/pushed/" in url
    titles = [commit.title for commit in endpoint.repositories["org/pushed"].commits.values()]
    assert titles == ["initial commit", "first"]
    again = xcit_hub.XCiT.from_pretrained("org/pushed", cache_dir=tmp_path / "elsewhere")
    assert same(network, again)
    network.push_to_hub("org/pushed")
    assert len(endpoint.repositories["org/pushed"].commits) == 2


def test_nothing_is_pushed_into_a_public_repository_as_private(network, endpoint):
    network.push_to_hub("org/public")
    endpoint.forget()
    with pytest.raises(HubError, match=r"is public\. No file was sent"):
        network.push_to_hub("org/public", private=True, commit_message="second")
    assert not [method for method, _, _ in endpoint.requests if method in ("POST", "PUT")]
    network.push_to_hub("org/new", private=True)
    assert endpoint.repositories["org/new"].private


@pytest.mark.parametrize(
    ("where", "body"), [("POST /api/repos/create", b"[]"), ("POST .*/commit/", b'{"commitOid": "../x"}')]
)
def test_a_hub_that_answers_oddly_to_a_push_is_one_clear_error(network, endpoint, where, body):
    endpoint.faults = [Fault(where, "answer", 200, times=9, body=body)]
    with pytest.raises(HubError, match="does not answer as a hub"):
        network.push_to_hub("org/odd")


def test_saving_can_push(network, endpoint, tmp_path):
    network.save_pretrained(tmp_path / "nano", push_to_hub=True, repo_id="org/saved")
    assert "model.safetensors" in endpoint.repositories["org/saved"].at("main").files


@pytest.mark.parametrize("option", ["config", "privat"])
def test_what_saving_and_pushing_do_not_take_is_refused_by_name(network, tmp_path, option):
    for push in (False, True):
        with pytest.raises(TypeError, match=f"'{option}'"):
            network.save_pretrained(tmp_path / "saved", push_to_hub=push, **{option: {}})
    with pytest.raises(TypeError, match=f"'{option}'"):
        network.push_to_hub("org/nano", **{option: {}})
    assert not (tmp_path / "saved").exists()


def test_a_network_that_cannot_be_saved_leaves_the_folder_as_it_was(network, tmp_path):
    network.save_pretrained(tmp_path / "saved")
    before = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    for folder in ("saved", "new"):
        with pytest.raises(InputError, match="fused network is not a checkpoint"):
            network.fuse().save_pretrained(tmp_path / folder)
    assert {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_a_replaced_classifier_is_saved_as_it_is_now(nano_ckpt, tmp_path):
    network = xcit_hub.load(str(nano_ckpt))
    network.reset_classifier(3)
    network.save_pretrained(tmp_path / "three")
    again = xcit_hub.XCiT.from_pretrained(tmp_path / "three")
    assert again.config.num_classes == 3
    assert same(network, again)


def test_from_pretrained_takes_the_options_of_load(endpoint, network, tmp_path):
    network.push_to_hub("org/nano")
    folder = tmp_path / "c"
    first = xcit_hub.XCiT.from_pretrained("org/nano", cache_dir=folder, num_classes=4)
    assert first.config.num_classes == 4
    endpoint.forget()
    xcit_hub.XCiT.from_pretrained("org/nano", cache_dir=folder, local_files_only=True)
    assert not endpoint.requests
    xcit_hub.XCiT.from_pretrained("org/nano", cache_dir=folder, force_download=True)
    assert endpoint.storage_requests
    with pytest.raises(HubError):
        xcit_hub.XCiT.from_pretrained("org/nano", cache_dir=folder, token=False, revision="nowhere")


def test_a_subclass_gets_itself_back(network, tmp_path):
    class Mine(xcit_hub.XCiT):
        """A network with a method of its own."""

    network.save_pretrained(tmp_path / "saved")
    again = Mine.from_pretrained(tmp_path / "saved")
    assert type(again) is Mine
    assert same(network, again)
    again.save_pretrained(tmp_path / "mine")
    assert type(Mine.from_pretrained(tmp_path / "mine")) is Mine


def test_a_created_network_is_of_the_class_that_load_returns_and_can_be_saved(network, tmp_path):
    made = xcit_hub.create_model("xcit_nano_12_p16_224", num_classes=10, seed=3)
    assert type(made) is type(network) is xcit_hub.XCiT
    made.save_pretrained(tmp_path / "made")
    again = xcit_hub.XCiT.from_pretrained(tmp_path / "made")
    assert same(made, again)
    assert again.config.dialect == "paper"


def test_create_model_takes_weights_as_timm_does(nano_ckpt, network, tmp_path, server, endpoint, nano_timm):
    server.add("timm/xcit_nano_12_p16_224.fb_in1k", nano_timm)
    images = mindspore.Tensor(random_images(1, 3, 64, 64))
    wanted = network(images).asnumpy()
    for options in (
        {"pretrained": True},
        {"pretrained": str(nano_ckpt)},
        {"pretrained": "timm/xcit_nano_12_p16_224.fb_in1k"},
    ):
        made = xcit_hub.create_model("xcit_nano_12_p16_224", cache_dir=tmp_path / "c", **options)
        assert type(made) is xcit_hub.XCiT
        assert np.array_equal(made(images).asnumpy(), wanted)
        assert (made.num_classes, made.training) == (10, False)
    by_path = xcit_hub.create_model(str(nano_ckpt), pretrained=True)
    assert np.array_equal(by_path(images).asnumpy(), wanted)


def test_create_models_options_reach_pretrained_networks(nano_ckpt, network):
    with pytest.warns(UserWarning, match=r"fresh, untrained one of 4|adapted from 3 to 1"):
        made = xcit_hub.create_model(
            "xcit_nano_12_p16_224", pretrained=str(nano_ckpt), num_classes=4, in_chans=1, global_pool="avg",
            drop_rate=0.5, drop_path_rate=0.1, seed=7,
        )  # fmt: skip
    assert (made.num_classes, made.in_chans, made.global_pool) == (4, 1, "avg")
    assert made.head_drop.p == 0.5
    assert made.config.labels == ()
    with pytest.warns(UserWarning, match="untrained"):
        twin = xcit_hub.create_model("xcit_nano_12_p16_224", pretrained=str(nano_ckpt), num_classes=4, seed=7)
    assert np.array_equal(made.head.weight.asnumpy(), twin.head.weight.asnumpy())
    for options in ({}, {"num_classes": 10}, {"num_classes": 0}, {"features_only": True}):
        with pytest.raises(InputError, match="nothing is begun"):
            xcit_hub.create_model("xcit_nano_12_p16_224", pretrained=str(nano_ckpt), seed=7, **options)
    backbone = xcit_hub.create_model(
        "xcit_nano_12_p16_224", pretrained=str(nano_ckpt), features_only=True, out_indices=(3, 5)
    )
    maps = backbone(mindspore.Tensor(random_images(1, 3, 64, 64)))
    assert [each.shape for each in maps] == [(1, 128, 4, 4)] * 2
    weights = {name: value.asnumpy() for name, value in backbone.parameters_dict().items()}
    whole = network.parameters_dict()
    assert all(np.array_equal(value, whole[name].asnumpy()) for name, value in weights.items())


def test_weights_of_another_architecture_are_not_taken(nano_ckpt):
    from xcit_hub.errors import InputError, WeightsError

    with pytest.raises(WeightsError, match="xcit_tiny_12_p16_224 was asked for"):
        xcit_hub.create_model("xcit_tiny_12_p16_224", pretrained=str(nano_ckpt))
    assert xcit_hub.create_model("xcit_nano_12_p16_384", pretrained=str(nano_ckpt)).num_classes == 10
    for wrong in ("", 3):
        with pytest.raises(InputError, match="pretrained is"):
            xcit_hub.create_model("xcit_nano_12_p16_224", pretrained=wrong)
    with pytest.raises(InputError, match="architecture of one's own"):
        xcit_hub.create_model(models.variants.ARCHITECTURES["xcit_nano_12_p16_224"], pretrained=True)
    with pytest.raises(InputError, match="drop_rate is 1"):
        xcit_hub.load(str(nano_ckpt), drop_rate=1.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"out_indices": (1, 2)}, "out_indices"),
        ({"features_only": True, "num_classes": 5}, "Features have no classifier, and num_classes"),
        ({"features_only": True, "drop_rate": 0.1}, "drop_rate"),
        ({"features_only": True, "global_pool": "avg"}, "global_pool"),
        ({"init": False, "pretrained": True}, "init=False"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused_by_name(options, says):
    from xcit_hub.errors import InputError

    with pytest.raises(InputError, match=says):
        xcit_hub.create_model("xcit_nano_12_p16_224.fb_in1k", **options)


def test_editors_see_every_option():
    import inspect

    for function in (xcit_hub.create_model, xcit_hub.load, xcit_hub.XCiT.from_pretrained):
        parameters = inspect.signature(function).parameters
        rates = {"drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"}
        assert rates | {"num_classes", "in_chans", "global_pool", "dialect", "cache_dir"} <= set(parameters)
        # Keywords of a typed dictionary are as complete as written ones.
        loose = [each for each in parameters.values() if each.kind is each.VAR_KEYWORD]
        assert all(str(each.annotation).startswith("Unpack[") for each in loose)
        assert all(name in function.__doc__ for name in parameters if name not in ("cls",))


@pytest.fixture(scope="module")
def of_one_block(tmp_path_factory):
    """A network of a block of each kind: a graph in half precision is compiled block by block."""
    folder = tmp_path_factory.mktemp("weights") / "least"
    shape = {"depth": 1, "cls_attn_layers": 1, "eta": 1.0, "num_classes": 10}
    xcit_hub.create_model("xcit_nano_12_p16_224", seed=3, **shape).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["pynative", "graph"])
@pytest.mark.parametrize("image_dtype", ["float16", "float32"])
def test_a_network_loaded_in_half_precision_answers(kind, nano_ckpt, of_one_block, image_dtype):
    source = str(of_one_block if kind == "graph" else nano_ckpt)
    images = random_images(2, 3, 64, 64)
    wanted = xcit_hub.load(source)(mindspore.Tensor(images)).asnumpy()
    half = xcit_hub.load(source, dtype="float16", mode=kind)
    found = half(mindspore.Tensor(images.astype(image_dtype))).asnumpy().astype(np.float32)
    assert np.abs(found - wanted).max() < 0.02 * wanted.std()


def test_numbers_too_large_for_half_precision_are_refused_by_name_and_the_network_is_as_it_was(of_one_block, tmp_path):
    network = xcit_hub.load(str(of_one_block))
    network.norm.beta.set_data(network.norm.beta + 65519.0)  # rounds to the largest number of float16
    network.save_pretrained(tmp_path / "least")
    assert xcit_hub.load(str(tmp_path / "least"), dtype="float16").norm.beta.asnumpy().max() == 65504
    network.norm.beta.set_data(network.norm.beta + 1.0)
    network.save_pretrained(tmp_path / "least")
    with pytest.raises(WeightsError, match=r"norm\.beta holds 65520, which is too large for float16"):
        xcit_hub.load(str(tmp_path / "least"), dtype="float16")
    with pytest.raises(WeightsError, match="too large for float16"):
        network.cast(mindspore.float16)
    assert {parameter.dtype for parameter in network.get_parameters()} == {mindspore.float32}
