"""Files as the real writers leave them: PyTorch's, timm's and MindSpore's. The network in them is read bit for bit."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_networks import TINY, network, same

from xcit_hub.checkpoints import checkpoint, translate
from xcit_hub.checkpoints.beside import Reason
from xcit_hub.checkpoints.checkpoint import StoredTensor
from xcit_hub.checkpoints.families import LAYOUTS
from xcit_hub.checkpoints.rewrite import rewrite
from xcit_hub.checkpoints.weights import Weights, load
from xcit_hub.errors import WeightsError
from xcit_hub.variants import Family

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

OURS = network()


def twin(shift: float = 0.0) -> Any:
    """timm's own network with the tiny weights."""
    from timm.models.xcit import Xcit

    model = Xcit(patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=7, eta=1.0, tokens_norm=True)
    state = {
        name: torch.from_numpy(tensor.numpy().copy() + shift)
        for name, tensor in translate.from_ours(OURS, "timm").items()
    }
    model.load_state_dict(state, strict=False)
    return model


def trained(model: Any, optimizer: Any) -> None:
    """One step with gradients of zero and no rate: state appears, no weight moves."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()


def reasons(weights: Weights) -> set[Reason]:
    return {entry.reason for entry in weights.dropped} - {Reason.BATCH_COUNTER}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


# ---- PyTorch

OPTIMIZERS = ["SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "Adagrad", "Adadelta", "ASGD"]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pytorchs_tutorial_file_with_each_of_its_optimizers(folder: Path, name: str, legacy: bool):
    model = twin()
    options = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.0, **options)
    if name not in ("Rprop", "ASGD"):  # these move weights without a gradient, or at once
        trained(model, optimizer)
    content = {
        "epoch": 3,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3).state_dict(),
        "loss": torch.tensor(0.5),
        "train_losses": torch.rand(20),
        "best_acc1": torch.tensor(71.5),
        "rng_state": torch.get_rng_state(),
        "scaler": {"scale": 65536.0, "growth_tracker": 0},
    }
    torch.save(content, folder / "x.pth", _use_new_zipfile_serialization=not legacy)
    weights = load(folder / "x.pth")
    assert same(weights.tensors, OURS)
    assert Reason.OUTSIDE not in reasons(weights)
    assert {Reason.METRIC, Reason.RANDOM_STATE} <= reasons(weights)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "bare": lambda model: model.state_dict(),
    "DataParallel": lambda model: {"state_dict": torch.nn.DataParallel(model).state_dict()},
    "compile": lambda model: torch.compile(model).state_dict(),
    "compiled in parallel": lambda model: torch.nn.DataParallel(torch.compile(model)).state_dict(),
    "Sequential": lambda model: torch.nn.Sequential(torch.nn.Identity(), model).state_dict(),
    "ModuleDict": lambda model: torch.nn.ModuleDict({"encoder": model}).state_dict(),
    "a list": lambda model: [{"net": model.state_dict()}, 3],
    "a tuple deep down": lambda model: {"a": ({"b": [model.state_dict()]},)},
    "DeepSpeed": lambda model: {
        "module": {f"_forward_module.{name}": value for name, value in model.state_dict().items()},
        "dp_world_size": 1,
        "optimizer": None,
    },
    "names with underscores": lambda model: {f"net_{name}": value for name, value in model.state_dict().items()},
    "VISSL": lambda model: {
        "classy_state_dict": {
            "base_model": {
                "model": {
                    "trunk": {f"_feature_blocks.{name}": value for name, value in model.state_dict().items()},
                    "heads": {},
                },
                "meta": {"best": None},
            },
            "train_phase_idx": 3,
        },
        "phase_idx": 3,
    },
    "a table flattened by slashes": lambda model: {
        "ckpt": {"net/" + name: value for name, value in model.state_dict().items()}
    },
    "TimmWrapper": lambda model: {f"timm_model.{name}": value for name, value in model.state_dict().items()},
    "PEFT, merged": lambda model: {f"base_model.model.{name}": value for name, value in model.state_dict().items()},
    "Lightning": lambda model: {
        "state_dict": {
            **{f"model.{name}": value for name, value in model.state_dict().items()},
            "criterion.weight": torch.ones(7),
            "val_acc.tp": torch.zeros(7, dtype=torch.int64),
            "val_loss.mean_value": torch.tensor(0.5),
        },
        "epoch": 2,
        "global_step": 10,
        "pytorch-lightning_version": "2.5.0",
        "loops": {"fit_loop": {"epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.1), "dirpath": "/x"}},
        "optimizer_states": [
            {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(3, 4)}}, "param_groups": []}
        ],
        "lr_schedulers": [],
        "hyper_parameters": argparse.Namespace(lr=0.1),
    },
}


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".pth.tar", ""])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_network_is_read_out_of_whatever_pytorch_wraps_it_in(folder: Path, wrapper: str, suffix: str):
    torch.save(WRAPPERS[wrapper](twin()), folder / f"x{suffix}")
    weights = load(folder / f"x{suffix}")
    assert same(weights.tensors, OURS)
    assert (weights.family, weights.dialect) == ("timm", "paper")
    assert reasons(weights) <= {Reason.METRIC, Reason.OPTIMIZER, Reason.COUNTER}


def test_timms_saver_with_its_average(folder: Path):
    from timm.utils import CheckpointSaver, ModelEmaV3

    model = twin()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
    trained(model, optimizer)
    average = ModelEmaV3(twin(shift=1.0))
    saver = CheckpointSaver(
        model=model,
        optimizer=optimizer,
        args=argparse.Namespace(model="xcit"),
        model_ema=average,
        checkpoint_dir=str(folder),
    )
    saver.save_checkpoint(0, metric=0.5)
    for path in (folder / "last.pth.tar", folder / "checkpoint-0.pth.tar"):
        plain, averaged = load(path), load(path, ema=True)
        assert same(plain.tensors, OURS)
        assert "both there" in plain.notes[0]
        assert (averaged.tensors["cls_token"].numpy() == OURS["cls_token"].numpy() + 1).all()
        assert reasons(plain) == {Reason.AVERAGED, Reason.OPTIMIZER}


def told(folder: Path, **args: Any) -> Path:
    """A checkpoint of timm's saver, which keeps what its train.py was told."""
    from timm.utils import CheckpointSaver

    model = twin()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = argparse.Namespace(model="xcit", **args)
    CheckpointSaver(model, optimizer, settings, checkpoint_dir=str(folder)).save_checkpoint(0, metric=0.5)
    return folder / "last.pth.tar"


@pytest.mark.parametrize("args", [{"gp": "avg"}, {"gp": None, "model_kwargs": {"global_pool": "avg"}}])
def test_the_pooling_that_timms_trainer_was_told_is_the_converted_networks(folder: Path, args: dict[str, Any]):
    report = rewrite(told(folder, **args), folder / "x.safetensors")
    assert report.weights.global_pool == "avg" == load(folder / "x.safetensors").global_pool
    assert [note for note in report.weights.notes if "global_pool = 'avg'" in note or "gp = 'avg'" in note]
    used = next(group["reason"] for group in report.as_dict()["left"] if "args.model" in group["names"])
    assert "its trainer was told" in used


def test_our_own_word_on_the_pooling_is_taken_before_the_trainers(folder: Path):
    content = torch.load(told(folder, gp="avg"), weights_only=False)
    torch.save({**content, "xcit_hub.global_pool": ""}, folder / "x.pth")
    weights = load(folder / "x.pth")
    assert weights.global_pool == ""
    assert "Its trainer says args.gp = 'avg', which is not used." in weights.unused


def test_a_pooling_of_timms_trainer_that_no_network_has_is_refused_by_name(folder: Path):
    with pytest.raises(WeightsError, match=r"args\.gp of the file is 'max'"):
        load(told(folder, gp="max"))


def test_settings_of_timms_trainer_that_are_not_used_are_named_and_the_usual_ones_are_not(folder: Path):
    usual = {
        "gp": None, "bn_eps": None, "mean": [0.485, 0.456, 0.406], "std": None, "interpolation": "", "crop_pct": None,
        "img_size": 224, "input_size": [3, 224, 224], "model_kwargs": {"tokens_norm": True, "drop_path_rate": 0.1},
    }  # fmt: skip
    assert load(told(folder, **usual)).unused == ()
    apart = {
        "bn_eps": 1e-3, "mean": [0.5, 0.5, 0.5], "std": [0.5], "interpolation": "bilinear", "crop_pct": 0.9,
        "img_size": 384, "input_size": [3, 224, 288], "model_kwargs": {"tokens_norm": False, "norm_layer": None},
    }  # fmt: skip
    weights = load(told(folder, **apart))
    named = {note.split()[3].rstrip(",") for note in weights.unused}
    assert named == {
        "args.bn_eps", "args.mean", "args.std", "args.interpolation", "args.crop_pct", "args.img_size",
        "args.input_size", "args.model_kwargs.tokens_norm", "args.model_kwargs.norm_layer",
    }  # fmt: skip
    assert "Its trainer says args.model_kwargs.tokens_norm = False, which is not used." in weights.notes


def test_pytorchs_averaged_model(folder: Path):
    averaged = torch.optim.swa_utils.AveragedModel(twin())
    torch.save({"model": twin(shift=1.0).state_dict(), "swa_model": averaged.state_dict()}, folder / "x.pth")
    weights = load(folder / "x.pth", ema=True)
    assert same(weights.tensors, OURS)
    assert "swa_model.n_averaged" in [entry.name for entry in weights.dropped]


def test_adapters_inside_the_network_are_refused_by_name(folder: Path):
    state = {f"base_model.model.{name}": value for name, value in twin().state_dict().items()}
    state["base_model.model.blocks.0.attn.qkv.lora_A.default.weight"] = torch.zeros(4, 16)
    torch.save(state, folder / "x.pth")
    with pytest.raises(WeightsError, match=r"unexpected: 'blocks.0.attn.qkv.lora_A.default.weight'"):
        load(folder / "x.pth")


def test_a_fine_tuners_own_head_is_listed_by_name(folder: Path):
    state = {f"backbone.{name}": value for name, value in twin().state_dict().items() if not name.startswith("head")}
    torch.save({"state_dict": {**state, "classifier.weight": torch.zeros(3, 16)}}, folder / "x.pth")
    weights = load(folder / "x.pth")
    assert weights.kind == "backbone"
    assert reasons(weights) == {Reason.OUTSIDE}
    assert any("state_dict.classifier.weight" in note for note in weights.notes)


@pytest.mark.parametrize("scale", [1, 255])
def test_a_robust_wrappers_normalisation_becomes_the_configurations(folder: Path, scale: int):
    import json

    from xcit_hub.checkpoints.rewrite import rewrite

    mean, std = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
    state = {f"model.{name}": value for name, value in twin().state_dict().items()}
    state |= {"normalize.mean": scale * torch.tensor(mean).view(1, 3, 1, 1)}
    state |= {"normalize.std": scale * torch.tensor(std).view(1, 3, 1, 1)}
    torch.save(state, folder / "x.pth")
    report = rewrite(folder / "x.pth", folder / "y.safetensors")
    assert np.allclose(report.as_dict()["normalization"], [mean, std], rtol=1e-6)
    config = json.loads((folder / "y.config.json").read_text())
    assert np.allclose([config["mean"], config["std"]], [mean, std], rtol=1e-6)
    for dtype in (torch.float8_e4m3fn, torch.complex64, torch.bool):
        torch.save({**state, "normalize.mean": state["normalize.mean"].to(dtype)}, folder / "x.pth")
        with pytest.raises(WeightsError, match="normalisation beside the network is of"):
            load(folder / "x.pth")
    state["normalize.std"][0, 0] = 0
    torch.save(state, folder / "x.pth")
    with pytest.raises(WeightsError, match="normalisation"):
        load(folder / "x.pth")


def _of_two_robust_networks() -> dict[str, Any]:
    """A student and a teacher, each in a wrapper that normalises images otherwise."""
    levels = {"student": ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), "teacher": ((0.7, 0.6, 0.5), (0.4, 0.3, 0.2))}
    state: dict[str, Any] = {}
    for name, (mean, std) in levels.items():
        state |= {f"{name}.model.{each}": value for each, value in twin().state_dict().items()}
        state |= {f"{name}.normalize.mean": torch.tensor(mean), f"{name}.normalize.std": torch.tensor(std)}
    return state


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_each_network_of_a_file_has_the_normalisation_of_its_own_wrapper(folder: Path, name: str):
    state = _of_two_robust_networks()
    torch.save(state, folder / "x.pth")
    weights = load(folder / "x.pth", select=name)
    assert weights.normalization is not None
    assert np.allclose(weights.normalization[0], state[f"{name}.normalize.mean"])
    assert np.allclose(weights.normalization[1], state[f"{name}.normalize.std"])


def test_two_normalisations_of_one_network_that_differ_are_refused(folder: Path):
    state = {f"model.{name}": value for name, value in twin().state_dict().items()}
    for wrapper, level in (("normalize", 0.5), ("preprocess", 0.4)):
        state |= {f"{wrapper}.{part}": torch.full((3,), level) for part in ("mean", "std")}
    torch.save(state, folder / "x.pth")
    with pytest.raises(WeightsError, match=r"differ: normalize\.mean and preprocess\.mean"):
        load(folder / "x.pth")


def test_a_wrapper_that_only_divides_bytes_is_one_of_bytes(folder: Path):
    state = {f"model.{name}": value for name, value in twin().state_dict().items()}
    torch.save({**state, "normalize.mean": torch.zeros(3), "normalize.std": torch.full((3,), 255.0)}, folder / "x.pth")
    assert load(folder / "x.pth").normalization == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize("channels", [2, 4])
def test_a_normalisation_of_other_channels_than_the_images_is_refused(folder: Path, channels: int):
    state = {f"model.{name}": value for name, value in twin().state_dict().items()}
    levels = {f"normalize.{part}": torch.full((channels,), 0.5) for part in ("mean", "std")}
    torch.save({**state, **levels}, folder / "x.pth")
    with pytest.raises(WeightsError, match=f"of {channels} channels, and its images have 3"):
        load(folder / "x.pth")


def test_inspect_shows_the_normalisation_that_a_conversion_writes(folder: Path):
    from xcit_hub.checkpoints.inspection import inspect
    from xcit_hub.checkpoints.rewrite import rewrite

    state = {f"model.{name}": value for name, value in twin().state_dict().items()}
    levels = {"normalize.mean": torch.tensor([123.675, 116.28, 103.53]), "normalize.std": torch.full((3,), 58.0)}
    torch.save({**state, **levels}, folder / "x.pth")
    told = rewrite(folder / "x.pth", folder / "y.safetensors").as_dict()["normalization"]
    for path in (folder / "x.pth", folder / "y.safetensors"):
        assert inspect(path).normalization == tuple(map(list, told))


# ---- MindSpore


class Net:
    """A cell with the tiny network's parameters under MindCV's names."""

    def __new__(cls) -> Any:
        import mindspore
        from mindspore import nn

        cell = nn.Cell()
        for name, tensor in OURS.items():
            parameter = mindspore.Parameter(mindspore.Tensor(tensor.numpy().copy()), name=name)
            parameter.requires_grad = "moving" not in name
            cell.insert_param_to_cell(name.replace(".", "-"), parameter)
            parameter.name = name
        return cell


def mindspore_optimizers() -> dict[str, Callable[[Any], Any]]:
    from mindspore import mint, nn
    from mindspore.experimental import optim

    made: dict[str, Callable[[Any], Any]] = {
        "Momentum": lambda params: nn.Momentum(params, 0.1, 0.9),
        "Adam amsgrad": lambda params: nn.Adam(params, use_amsgrad=True),
        "RMSProp centered": lambda params: nn.RMSProp(params, centered=True),
        "LARS": lambda params: nn.LARS(nn.Momentum(params, 0.1, 0.9)),
        "AdaFactor": lambda params: nn.AdaFactor(params, learning_rate=None),
    }
    plain = "SGD Adam AdamWeightDecay Adagrad FTRL Lamb LazyAdam ProximalAdagrad AdaMax Adadelta ASGD Rprop AdamOffload"
    made |= {name: _with_learning_rate(getattr(nn, name)) for name in plain.split()}
    experimental = "ASGD Adadelta Adagrad Adam AdamW Adamax NAdam RAdam RMSprop Rprop SGD"
    made |= {f"experimental {name}": _with_rate(getattr(optim, name)) for name in experimental.split()}
    made |= {f"mint {name}": _with_rate(getattr(mint.optim, name)) for name in ("Adam", "AdamW", "SGD")}
    return made


def _with_learning_rate(optimizer: Any) -> Callable[[Any], Any]:
    return lambda params: optimizer(params, learning_rate=0.1)


def _with_rate(optimizer: Any) -> Callable[[Any], Any]:
    return lambda params: optimizer(params, lr=0.1)


def test_mindspores_files_with_every_optimizer_its_loss_scale_and_appended_values(folder: Path):
    import mindspore

    for name, make in mindspore_optimizers().items():
        net = Net()
        optimizer = make(net.trainable_params())
        listed = {parameter.name: parameter for parameter in (*net.get_parameters(), *optimizer.get_parameters())}
        listed["scale_sense"] = mindspore.Parameter(mindspore.Tensor(1024.0), name="scale_sense")
        entries = [{"name": key, "data": parameter} for key, parameter in listed.items()]
        path = folder / "x.ckpt"
        mindspore.save_checkpoint(entries, str(path), append_dict={"lr": 0.1, "epoch_num": 3, "note": "text"})
        weights = load(path)
        assert same(weights.tensors, OURS), name
        assert weights.dialect == "mindcv", name
        assert reasons(weights) <= {Reason.OPTIMIZER, Reason.COUNTER}, (name, weights.dropped)
        assert len(weights.dropped) == len(listed) - len(OURS) + 2, name
        path.chmod(0o600)
        path.unlink()


def test_mindspores_callback_and_average(folder: Path):
    import mindspore

    net = Net()
    average = [{"name": f"ema.{parameter.name}", "data": parameter + 1} for parameter in net.get_parameters()]
    entries = [{"name": parameter.name, "data": parameter} for parameter in net.get_parameters()]
    mindspore.save_checkpoint([*entries, *average], str(folder / "x.ckpt"), crc_check=True)
    assert same(load(folder / "x.ckpt").tensors, OURS)
    averaged = load(folder / "x.ckpt", ema=True)
    assert (averaged.tensors["cls_token"].numpy() == OURS["cls_token"].numpy() + 1).all()


def test_mindspores_safetensors(folder: Path):
    import mindspore

    entries = [{"name": parameter.name, "data": parameter} for parameter in Net().get_parameters()]
    mindspore.save_checkpoint(entries, str(folder / "x"), format="safetensors")
    weights = load(folder / "x.safetensors", dialect="paper")
    assert same(weights.tensors, OURS)
    assert weights.architecture.embed_dim == TINY.embed_dim


def test_mindspores_own_training_loop_with_its_callback_and_loss_scale(folder: Path):
    """What `Model.train` leaves with a ModelCheckpoint, a momentum optimizer and a loss scale."""
    import mindspore
    from mindspore import nn
    from mindspore.train import CheckpointConfig, FixedLossScaleManager, Model, ModelCheckpoint

    from xcit_hub.models import create_model

    class Loop(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            shape = {"embed_dim": 16, "depth": 2, "num_heads": 2}
            self.network = create_model("xcit_tiny_12_p8_224", num_classes=7, **shape)
            for name, parameter in self.network.parameters_and_names():
                parameter.set_data(mindspore.Tensor(OURS[name].numpy().copy()))
            self.rate = mindspore.Parameter(mindspore.Tensor(1.0), name="rate")

        def construct(self, images: Any, labels: Any) -> Any:
            return (images.mean() - labels.mean()) * self.rate

    loop = Loop()
    data = mindspore.dataset.NumpySlicesDataset((np.ones((2, 3), np.float32), np.zeros((2, 1), np.float32))).batch(2)
    optimizer = nn.Momentum([*loop.network.trainable_params(), loop.rate], 0.0, 0.9)
    config = CheckpointConfig(append_info=["epoch_num", "step_num", {"lr": 0.1}], keep_checkpoint_max=1)
    model = Model(loop, None, optimizer, loss_scale_manager=FixedLossScaleManager(1024, drop_overflow_update=False))
    model.train(1, data, callbacks=ModelCheckpoint("xcit", str(folder), config), dataset_sink_mode=False)
    saved = next(folder.glob("*.ckpt"))
    weights = load(saved)
    assert same(weights.tensors, OURS)
    assert weights.dialect == "mindcv"
    assert reasons(weights) <= {Reason.OPTIMIZER, Reason.COUNTER}
    assert len(weights.dropped) > len(OURS) // 2


# ---- The matrix: what wraps a network × whose names it has × who wrote it

PREFIXES = [
    "",
    "module.",
    "model.",
    "network.",
    "_backbone.",
    "_network.",
    "encoder.",
    "0.",
    "base_model.model.",
    "timm_model.",
    "_forward_module.",
    "model._orig_mod.module.",
    "student.backbone.",
    "trunk._feature_blocks.",
    "net_",
]


def _torch_zip(path: Path, state: dict[str, np.ndarray]) -> None:
    torch.save({"state_dict": {name: torch.from_numpy(array) for name, array in state.items()}}, path)


def _torch_legacy(path: Path, state: dict[str, np.ndarray]) -> None:
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    torch.save([tensors], path, _use_new_zipfile_serialization=False)


def _safetensors(path: Path, state: dict[str, np.ndarray]) -> None:
    import safetensors.numpy

    safetensors.numpy.save_file(state, path, {"format": "pt"})


def _mindspore(path: Path, state: dict[str, np.ndarray]) -> None:
    import mindspore

    entries = [{"name": name, "data": mindspore.Tensor(array)} for name, array in state.items()]
    mindspore.save_checkpoint(entries, str(path))


WRITERS = {"x.pth": _torch_zip, "x.th": _torch_legacy, "x.safetensors": _safetensors, "x.ckpt": _mindspore}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("family", list(LAYOUTS))
def test_every_wrapper_in_every_familys_names_by_every_writer_is_read_bit_for_bit(
    folder: Path, family: Family, writer: str
):
    layout = LAYOUTS[family]
    theirs = translate.from_ours(OURS, family)
    for prefix in PREFIXES:
        state = {f"{prefix}{layout.placed(name)}": tensor.numpy().copy() for name, tensor in theirs.items()}
        WRITERS[writer](folder / writer, state)
        # MindSpore's names tell no dialect, and facebook's in MindSpore's files do not either.
        asked = "paper" if family in ("mindcv", "xcit-hub") or (family == "facebook" and writer == "x.ckpt") else None
        weights = load(folder / writer, dialect=asked)
        assert same(weights.tensors, OURS), prefix
        assert weights.family == ("mindcv" if family == "xcit-hub" else family), prefix
        assert not weights.dropped, prefix
        (folder / writer).chmod(0o600)
        (folder / writer).unlink()


# ---- Numbers that no training leaves


def test_weights_of_zeros_denormal_numbers_and_variances_of_zero_are_named(folder: Path):
    tensors = translate.from_ours(OURS, "timm")
    changes = {
        "blocks.0.attn.qkv.weight": 0.0,
        "blocks.1.mlp.fc1.weight": 1e-40,
        "patch_embed.proj.0.1.running_var": 0.0,
        "blocks.0.mlp.fc1.bias": 0.0,
    }
    for name, value in changes.items():
        tensors[name] = StoredTensor.of(np.full(tensors[name].shape, value, np.float32))
    variance = tensors["blocks.0.local_mp.bn.running_var"].numpy().copy()
    variance[3] = 0
    tensors["blocks.0.local_mp.bn.running_var"] = StoredTensor.of(variance)
    checkpoint.write(folder / "x.safetensors", tensors)
    from xcit_hub.checkpoints.inspection import inspect
    from xcit_hub.checkpoints.rewrite import rewrite

    for notes in (
        load(folder / "x.safetensors").notes,
        inspect(folder / "x.safetensors").notes,
        rewrite(folder / "x.safetensors", folder / "y.ckpt").weights.notes,
    ):
        told = [note for note in notes if note.startswith("Untrained or damaged?")]
        assert len(told) == 3
        assert "blocks.0.attn.qkv.weight, patch_embed.proj.0.1.running_var: nothing but zeros" in told[0] or (
            "patch_embed.proj.0.1.running_var, blocks.0.attn.qkv.weight: nothing but zeros" in told[0]
        )
        assert "blocks.1.mlp.fc1.weight: nothing but denormal" in told[1]
        assert "blocks.0.local_mp.bn.running_var: variances of zero" in told[2]
    checkpoint.write(folder / "x.safetensors", translate.from_ours(OURS, "timm"))
    assert not any("Untrained" in note for note in load(folder / "x.safetensors").notes)
