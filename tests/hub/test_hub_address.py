"""What an id means."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xcit_hub.errors import InputError, UnknownNameError, XcitHubError
from xcit_hub.hub.address import FOLDER, HUGGING_FACE, LOCAL, MINDSPORE_HUB, Address, parse, parse_target
from xcit_hub.variants import CHECKPOINTS


@pytest.mark.parametrize("name", ["a/b/c", "a/b/c/d", "./a/b", "a/../b", "a//b"])
def test_a_name_in_a_hub_has_two_parts_in_a_folder_too(name, tmp_path):
    for hub in (tmp_path, f"file://{tmp_path}", "hugging-face", "https://hub.example.org", "modelscope"):
        with pytest.raises(InputError, match="name of a model in a hub"):
            parse(name, hub=hub)
        with pytest.raises(InputError, match="name of a model in a hub"):
            parse_target(hub, name)
    assert parse("a/b/c", hub="mindspore-hub").name == "a/b/c"  # a card's uid has up to four


def test_three_parts_are_told_how_paths_and_files_are_written():
    with pytest.raises(InputError) as caught:
        parse("org/name/more")
    assert "./org/name/more" in caught.value.fix and "hf://" in caught.value.fix


@pytest.mark.parametrize("name", ["x.onnx", "X.ONNX", "folder/x.mindir"])
def test_an_exported_file_is_a_path_like_a_checkpoint(name):
    assert parse(name) == Address(LOCAL, name)


@pytest.mark.parametrize(
    ("model_id", "meant"),
    [
        ("hf://org/name@v1", Address(HUGGING_FACE, "org/name", revision="v1")),
        ("file:///tmp/a%20b.ckpt", Address(LOCAL, "/tmp/a b.ckpt")),
        ("https://huggingface.co/org/name/tree/main", Address(HUGGING_FACE, "org/name")),
        ("./org/name", Address(LOCAL, "org/name")),
        ("/weights", Address(LOCAL, "/weights")),
        ("some/tiny.safetensors", Address(LOCAL, "some/tiny.safetensors")),
        ("tiny.pth", Address(LOCAL, "tiny.pth")),
        ("mindspore/xcit_tiny_12_p16_224", Address(MINDSPORE_HUB, "mindspore/xcit_tiny_12_p16_224")),
        (
            "mindspore/2.5/xcit_tiny_12_p16_224_imagenet2012",
            Address(MINDSPORE_HUB, "mindspore/2.5/xcit_tiny_12_p16_224_imagenet2012"),
        ),
        ("xcit_tiny_12_p16_224.ms_in1k", Address(MINDSPORE_HUB, "mindspore/xcit_tiny_12_p16_224")),
        ("xcit_tiny_12_p16_224", Address(HUGGING_FACE, "timm/xcit_tiny_12_p16_224.fb_in1k")),
        ("timm/anything", Address(HUGGING_FACE, "timm/anything")),
        ("org/name", Address(HUGGING_FACE, "org/name")),
        ("org/name@refs/pr/1", Address(HUGGING_FACE, "org/name", revision="refs/pr/1")),
        ("hf-hub:org/name@v1", Address(HUGGING_FACE, "org/name", revision="v1")),
        ("hf_hub:timm/anything", Address(HUGGING_FACE, "timm/anything")),
        ("local-dir:/weights", Address(LOCAL, "/weights")),
        ("local-dir:weights", Address(LOCAL, "weights")),
        ("huggingface.co/org/name", Address(HUGGING_FACE, "org/name")),
        ("https://huggingface.co/org/name/tree/v2", Address(HUGGING_FACE, "org/name", revision="v2")),
        ("https://hf.co/org/name/blob/refs%2Fpr%2F3/x.md", Address(HUGGING_FACE, "org/name", revision="refs/pr/3")),
        ("xcit_tiny_12_p16", Address(HUGGING_FACE, "timm/xcit_tiny_12_p16_224.fb_in1k")),
        ("xcit_tiny_12_p16_dist", Address(HUGGING_FACE, "timm/xcit_tiny_12_p16_224.fb_dist_in1k")),
        ("xcit_nano_12_p8_384_dist", Address(HUGGING_FACE, "timm/xcit_nano_12_p8_384.fb_dist_in1k")),
        ("facebookresearch/xcit:main/xcit_nano_12_p8", Address(HUGGING_FACE, "timm/xcit_nano_12_p8_224.fb_in1k")),
        (
            "https://dl.fbaipublicfiles.com/xcit/xcit_nano_12_p16_224_dist.pth",
            Address(HUGGING_FACE, "timm/xcit_nano_12_p16_224.fb_dist_in1k"),
        ),
        ("HF-Hub:org/name", Address(HUGGING_FACE, "org/name")),
        ("hf-hub://org/name/", Address(HUGGING_FACE, "org/name")),
        ('"xcit_tiny_12_p16_224"', Address(HUGGING_FACE, "timm/xcit_tiny_12_p16_224.fb_in1k")),
        ("timm/xcit_tiny_12_p16_224", Address(HUGGING_FACE, "timm/xcit_tiny_12_p16_224.fb_in1k")),
        ("HTTPS://HuggingFace.co/org/name/", Address(HUGGING_FACE, "org/name")),
        ("https://hf-mirror.com/org/name", Address(HUGGING_FACE, "org/name", "https://hf-mirror.com")),
        ("hf-mirror.com/org/name/tree/v2", Address(HUGGING_FACE, "org/name", "https://hf-mirror.com", "v2")),
        (
            "http://dl.fbaipublicfiles.com/xcit/xcit_nano_12_p16_224.pth?download=1",
            Address(HUGGING_FACE, "timm/xcit_nano_12_p16_224.fb_in1k"),
        ),
        ("Model.CKPT", Address(LOCAL, "Model.CKPT")),
        ("model_best.pth.tar", Address(LOCAL, "model_best.pth.tar")),
        ("pytorch_model.bin.index.json", Address(LOCAL, "pytorch_model.bin.index.json")),
        ("xcit_tiny_12_p16_224-bd90776e-910v2", Address(MINDSPORE_HUB, "mindspore/xcit_tiny_12_p16_224")),
        ("plain+https://host/models/org/name", Address("plain", "org/name", "https://host/models")),
        ("timm/xcit_tiny_12_p16_224/", Address(HUGGING_FACE, "timm/xcit_tiny_12_p16_224.fb_in1k")),
        ("org/name/", Address(HUGGING_FACE, "org/name")),
        ("`org/name`", Address(HUGGING_FACE, "org/name")),
        ("<https://huggingface.co/org/name>", Address(HUGGING_FACE, "org/name")),
        ("https://huggingface.co/org/name.git", Address(HUGGING_FACE, "org/name")),
        ("git@hf.co:org/name", Address(HUGGING_FACE, "org/name")),
        ("ssh://git@hf.co/org/name.git", Address(HUGGING_FACE, "org/name")),
        ("https://www.modelscope.cn/org/name.git", Address("modelscope", "org/name")),
        ("https://modelers.cn/organ/name.git", Address("modelers", "organ/name")),
        ("https://gitcode.com/organ/name.git", Address("gitcode", "organ/name")),
        ("www.modelscope.cn/models/org/name", Address("modelscope", "org/name")),
        ("modelers.cn/models/organ/name", Address("modelers", "organ/name")),
        (
            "dl.fbaipublicfiles.com/xcit/xcit_nano_12_p16_224.pth",
            Address(HUGGING_FACE, "timm/xcit_nano_12_p16_224.fb_in1k"),
        ),
        (
            "https://www.mindspore.cn/resources/hub/details?MindSpore/2.5/xcit_tiny_12_p16_224_imagenet2012",
            Address(MINDSPORE_HUB, "mindspore/2.5/xcit_tiny_12_p16_224_imagenet2012"),
        ),
        (
            "https://mindspore.cn/resources/hub/details/en?2505/MindSpore/ascend/0.7/googlenet_v1.0_cifar10",
            Address(MINDSPORE_HUB, "mindspore/ascend/0.7/googlenet_v1.0_cifar10"),
        ),
    ],
)
def test_an_id_has_one_meaning(model_id, meant):
    assert str(parse(model_id).name) == meant.name or meant.store == LOCAL
    assert parse(model_id).store == meant.store
    assert parse(model_id).revision == meant.revision
    assert parse(model_id).location == meant.location


def test_every_timm_checkpoint_means_timms_own_repository():
    names = [entry.name for entry in CHECKPOINTS.values() if entry.repository]
    assert len(names) == 42
    assert {parse(name) for name in names} == {Address(HUGGING_FACE, f"timm/{name}") for name in names}


def test_a_given_hub_is_the_only_place(tmp_path):
    for model_id in ("mindspore/x", "xcit_tiny_12_p16_224", "timm/x", "org/name"):
        assert parse(model_id, hub=tmp_path) == Address(FOLDER, model_id, str(tmp_path))
    assert parse("mindspore/x", hub="hugging-face").store == HUGGING_FACE
    assert parse("org/name", hub="https://hub.example") == Address(HUGGING_FACE, "org/name", "https://hub.example")
    assert parse("org/name", hub="mindspore-hub").store == MINDSPORE_HUB


def test_published_names_come_before_folders_and_folders_before_hubs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mindspore/xcit_tiny_12_p16_224", "timm/x", "xcit_tiny_12_p16_224", "org/name"):
        (tmp_path / name).mkdir(parents=True)
    assert parse("mindspore/xcit_tiny_12_p16_224").store == MINDSPORE_HUB
    assert parse("timm/x").store == HUGGING_FACE
    assert parse("xcit_tiny_12_p16_224").store == HUGGING_FACE
    assert parse("./xcit_tiny_12_p16_224").store == LOCAL
    assert parse("org/name").store == LOCAL


def test_this_machines_hub_comes_before_hugging_face(tmp_path, monkeypatch):
    monkeypatch.setenv("XCIT_HUB_HOME", str(tmp_path))
    assert parse("org/name").store == HUGGING_FACE
    (tmp_path / "models--org--name" / "refs").mkdir(parents=True)
    assert parse("org/name") == Address(FOLDER, "org/name", str(tmp_path))
    assert parse("hf://org/name").store == HUGGING_FACE


def test_publishing_stays_on_this_machine_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("XCIT_HUB_HOME", str(tmp_path))
    assert parse_target(None, "org/name") == Address(FOLDER, "org/name", str(tmp_path))
    assert parse_target("hugging-face", "org/name").store == HUGGING_FACE
    assert parse_target("mindspore-hub:checkout", "org/name") == Address(MINDSPORE_HUB, "org/name", "checkout")


def test_a_hub_is_the_hub_however_it_is_spelled_but_for_a_folder_of_that_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for spelled in ("HF", "Hugging-Face"):
        assert parse_target(spelled, "org/name") == Address(HUGGING_FACE, "org/name")
    assert parse_target("MindSpore-Hub:Checkout", "org/name") == Address(MINDSPORE_HUB, "org/name", "Checkout")
    (tmp_path / "HF").mkdir()
    assert parse_target("HF", "org/name").store == FOLDER


def test_a_wrong_name_gets_the_closest_ones():
    with pytest.raises(UnknownNameError, match="xcit_tiny_12_p16_224") as caught:
        parse("xcit_tinny_12_p16_224")
    assert "did you mean" in str(caught.value)


@pytest.mark.parametrize(
    "model_id",
    ["", "hf://../etc", "mindspore/../../x", "org/na--me", "org/name@../x", "org/name@a/", "hf://org/name@-x", "a b/c"],
)
def test_ids_that_could_leave_their_folder_are_refused(model_id):
    with pytest.raises((InputError, UnknownNameError)):
        parse(model_id)


def test_two_revisions_are_one_too_many():
    with pytest.raises(InputError, match="asks for revision"):
        parse("org/name@v1", revision="v2")
    assert parse("org/name@v1", revision="v1").revision == "v1"
    with pytest.raises(InputError, match="no revisions"):
        parse("./weights", revision="v1")


def test_a_web_page_that_is_no_card_is_refused():
    with pytest.raises(InputError, match="neither a MindSpore Hub card"):
        parse("https://example.org/weights")


_WORDS = "org name mindspore timm xcit_tiny_12_p16_224 main .ckpt hf https file web+http // :// .. -- %2f ?x=1"
_PIECES = st.sampled_from([*_WORDS.split(), *"/.@~ \0[]\\:#é"])


@settings(max_examples=400)
@given(model_id=st.one_of(st.lists(_PIECES, max_size=8).map("".join), st.text(max_size=30)), hub=st.booleans())
def test_any_text_is_an_address_or_one_clear_error(tmp_path, model_id, hub):
    try:
        found = parse(model_id, hub=tmp_path if hub else None)
    except XcitHubError as error:
        assert error.fix
        return
    if found.store == FOLDER:
        assert (tmp_path / found.name).resolve().is_relative_to(tmp_path)
    if found.store == HUGGING_FACE:
        assert ".." not in found.name
        assert not found.name.startswith("/")


def test_a_files_page_means_that_file():
    found = parse("https://huggingface.co/org/name/resolve/main/pytorch_model.bin?download=true")
    assert found == Address(HUGGING_FACE, "org/name", file="pytorch_model.bin")
    for folder in ("https://huggingface.co/org/name/blob/main/onnx/model.safetensors", "hf://org/name/a/b.ckpt"):
        with pytest.raises(InputError, match="in a folder of its repository"):
            parse(folder)


@pytest.mark.parametrize(
    ("written", "revision"),
    [
        ("hf://org/name/model.safetensors", None),
        ("hf-hub:org/name/model.safetensors", None),
        ("hf://org/name@v1/model.safetensors", "v1"),
        ("hf://org/name@refs/pr/1/model.safetensors", "refs/pr/1"),
        ("hf://org/name/model.safetensors@v1", "v1"),
        ("https://huggingface.co/org/name/tree/main?show_file_info=model.safetensors", None),
    ],
)
def test_one_file_of_a_model_is_written_with_its_hub(written, revision):
    assert parse(written) == Address(HUGGING_FACE, "org/name", revision=revision, file="model.safetensors")
    assert parse("modelscope://org/name/a.CKPT") == Address("modelscope", "org/name", file="a.CKPT")


def test_a_path_that_looks_like_a_file_of_a_hub_is_a_path_and_the_hubs_spelling_is_told(tmp_path, monkeypatch):
    import xcit_hub

    monkeypatch.chdir(tmp_path)
    for written in ("org/name/model.safetensors", "org/name@v1/model.safetensors"):
        with pytest.raises(XcitHubError, match="no such file") as caught:
            xcit_hub.info(written)
        assert f"hf://{written}" in caught.value.fix
    for path in ("runs/best.ckpt", "/org/name/model.safetensors", "a/b/c/d.ckpt"):
        with pytest.raises(XcitHubError, match="no such file") as caught:
            xcit_hub.info(path)
        assert "hf://" not in caught.value.fix


@pytest.mark.parametrize(
    "name", ["dino_xcit_small_12_p16", "xcit_small_12_cp16_dino", "facebookresearch/dino:main/dino_xcit_small_12_p16"]
)
def test_dinos_names_mean_its_backbones(name):
    from xcit_hub.hub.address import published_name

    assert published_name(name) == "xcit_small_12_p16_224.fb_dino"
    with pytest.raises(InputError, match="are on no hub"):
        parse(name)


@pytest.mark.parametrize("link", ["https://[::1/x", "https://host:abc/x.md", "https://me:pw@hub.example/x.md"])
def test_what_is_not_a_sound_address_is_refused(link):
    with pytest.raises(InputError) as caught:
        parse(link)
    assert "me:pw" not in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    "link",
    [
        "https://huggingface.co/models?search=xcit",
        "https://huggingface.co/timm",
        "https://huggingface.co/datasets/org/name",
        "https://hf-mirror.com/spaces/org/name",
        "https://huggingface.co/api/models/org/name",
        "https://github.com/facebookresearch/xcit",
        "github.com/mindspore-lab/mindcv/tree/main/configs/xcit",
    ],
)
def test_a_page_that_is_not_a_models_is_refused_without_a_request(link):
    with pytest.raises(InputError, match=r"is not a model.s page|leads to a repository of code"):
        parse(link)


@pytest.mark.parametrize(
    ("model_id", "name", "advice"),
    [
        ("xcit_tiny_12_p16_best", "xcit_tiny_12_p16_224.ms_in1k_best", "Download"),
        (
            "https://download.mindspore.cn/toolkits/mindcv/xcit/xcit_tiny_12_p16_224-1b1c9301.ckpt",
            "xcit_tiny_12_p16_224.ms_in1k_1b1c9301",
            "Download",
        ),
        ("xcit-tiny-12-p16_3rdparty_in1k", "xcit_tiny_12_p16_224.mm_in1k", "same weights are xcit_tiny_12_p16_224.fb"),
        ("maskrcnn_xcit_small_24_p8", "xcit_small_24_p8_224.fb_coco_mask_rcnn", "Download"),
        ("debenedetti2022light_xcit_s12_cifar10_linf", "xcit_small_12_p4_32.linf_cifar10", "Download"),
    ],
)
def test_what_is_on_no_hub_is_called_by_the_tables_name_and_never_taken_for_another(model_id, name, advice):
    with pytest.raises(InputError, match=f"'{name}' are on no hub") as caught:
        parse(model_id)
    assert advice in caught.value.fix


@pytest.mark.parametrize(
    ("written", "first"),
    [
        ("XCIT_TINY_12_P16_224", "xcit_tiny_12_p16_224,"),
        ("XCiT-Tiny-12-p16-224.FB_in1k", "xcit_tiny_12_p16_224.fb_in1k,"),
        ("xcit_tiny_12", "xcit_tiny_12_p16_224.fb_in1k,"),
        ("xcit_small_24_p8_384.fb", "xcit_small_24_p8_384.fb_dist_in1k"),
        ("xcit_tinny_12_p16_224", "xcit_tiny_12_p16_224"),
    ],
)
def test_the_closest_name_is_the_one_that_was_meant(written, first):
    with pytest.raises(UnknownNameError) as caught:
        parse(written)
    assert caught.value.fix.startswith(f"did you mean {first}")
