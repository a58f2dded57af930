from __future__ import annotations

from pathlib import Path

import pytest

timm = pytest.importorskip("timm")
torch = pytest.importorskip("torch")

import xcit_hub.timm as module  # noqa: E402
from xcit_hub import parity  # noqa: E402
from xcit_hub.checkpoints import (  # noqa: E402
    checkpoint,
    families,
    identify,
)
from xcit_hub.checkpoints.checkpoint import StoredTensor  # noqa: E402
from xcit_hub.checkpoints.rewrite import rewrite  # noqa: E402
from xcit_hub.checkpoints.weights import load  # noqa: E402
from xcit_hub.errors import UnknownNameError, WeightsError  # noqa: E402
from xcit_hub.parameters import parameter_shapes  # noqa: E402
from xcit_hub.variants import TIMM_ARCHITECTURES, Architecture, architecture  # noqa: E402

NAME = "xcit_nano_12_p16_224"


def conditioned(name: str) -> dict:
    """Random weights at which attention without normalisation is not chaotic: its sums run over all tokens."""
    weights = parity.random_weights(parameter_shapes(architecture(name)))
    return {key: value / 196 if key.endswith("temperature") else value for key, value in weights.items()}


@pytest.mark.parametrize("name", TIMM_ARCHITECTURES)
def test_the_tag_exists_for_every_architecture_and_builds_our_class(name: str):
    with torch.device("meta"), module.WithoutValues():
        model = timm.create_model(f"{name}.ms_in1k")
        theirs = timm.create_model(name)
    assert type(model) is module.MindcvXcit
    assert type(theirs) is timm.models.xcit.Xcit
    assert set(model.state_dict()) - set(theirs.state_dict()) == {families.MARKS["mindcv"]}
    assert model.pretrained_cfg["input_size"] == (3, architecture(name).image_size, architecture(name).image_size)
    assert model.pretrained_cfg["crop_pct"] == 0.875


def test_timms_own_tags_stay_timms():
    assert len([name for name in timm.list_models("xcit_*") if not name.endswith(("_mindcv", "_mindcv-mint"))]) == 28
    assert len(timm.list_pretrained("xcit_*")) == 42
    for tag in ("fb_in1k", "fb_dist_in1k"):
        model = timm.create_model(f"{NAME}.{tag}")
        assert type(model) is timm.models.xcit.Xcit
        assert model.pretrained_cfg["hf_hub_id"] == f"timm/{NAME}.{tag}"


def test_timms_options_reach_our_class():
    model = timm.create_model(f"{NAME}.ms_in1k", num_classes=5, in_chans=4, drop_path_rate=0.1, attn_drop_rate=0.2)
    assert model(torch.zeros(1, 4, 64, 64)).shape == (1, 5)
    assert model.blocks[0].attn.attn_drop.p == 0.2
    assert isinstance(model.blocks[0].drop_path1, torch.nn.Identity) is False
    features = timm.create_model(f"{NAME}.ms_in1k", features_only=True)
    assert features(torch.zeros(1, 3, 64, 64))[0].shape == (1, 128, 4, 4)


def test_mindspore_trained_weights_run_in_timm_create_model_with_our_logits(tmp_path: Path):
    import mindspore
    import numpy as np

    from xcit_hub.models import create_model, load_weights

    weights = conditioned(NAME)
    checkpoint.write(tmp_path / "trained.ckpt", weights)
    out = tmp_path / "timm.safetensors"
    rewrite(tmp_path / "trained.ckpt", out, to="timm", model=f"{NAME}.ms_in1k", dialect="mindcv")
    theirs = timm.create_model(f"{NAME}.ms_in1k", checkpoint_path=str(out)).eval()
    ours = create_model(NAME, dialect="mindcv")
    load_weights(ours, load(tmp_path / "trained.ckpt", dialect="mindcv").arrays())
    ours.set_train(False)
    images = parity.random_images(2, 3, 224, 224)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images)).numpy()
    found = ours(mindspore.Tensor(images)).asnumpy()
    assert not parity.failed_checks(found, theirs, images)
    with torch.no_grad():
        paper = timm.create_model(NAME).eval()
        paper.load_state_dict({k: v for k, v in theirs.state_dict().items() if k != families.MARKS["mindcv"]})
        apart = paper(torch.from_numpy(images)).numpy()
    assert np.abs(apart - expected).max() > 0.1 * expected.std()  # the dialect is what makes the difference


def test_the_two_classes_refuse_each_others_weights():
    ours, theirs = timm.create_model(f"{NAME}.ms_in1k"), timm.create_model(NAME)
    with pytest.raises(RuntimeError, match=families.MARKS["mindcv"]):
        theirs.load_state_dict(ours.state_dict())
    for strict in (True, False):
        with pytest.raises(WeightsError, match="lack the mark"):
            ours.load_state_dict(theirs.state_dict(), strict=strict)
    ours.load_state_dict(ours.state_dict())


def test_what_our_class_saves_is_known_to_be_mindcvs(tmp_path: Path):
    from safetensors.torch import save_file

    save_file(timm.create_model(f"{NAME}.ms_in1k").state_dict(), tmp_path / "x.safetensors")
    assert load(tmp_path / "x.safetensors").dialect == "mindcv"
    rewrite(tmp_path / "x.safetensors", tmp_path / "x.ckpt", to="mindcv")


@pytest.mark.parametrize("dialect", ["paper", "mindcv"])
def test_a_reference_can_be_built_for_any_width(dialect: str):
    custom = Architecture("custom", 8, 16, 1, 2, 1.0, True, 224)
    model = module.create_reference(custom, dialect, num_classes=3)
    shapes = {name: StoredTensor.of(value.numpy()).shape for name, value in model.state_dict().items()}
    assert identify.of_shapes(shapes).architecture.embed_dim == 16
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    with pytest.raises(UnknownNameError):
        module.create_reference("xcit_none", dialect)
    with pytest.raises(UnknownNameError):
        module.create_reference(NAME, "other")
