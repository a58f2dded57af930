"""timm's XCiT in MindCV's dialects: ``timm.create_model`` runs MindSpore-trained weights.

Importing this module registers the tags ``ms_in1k`` (dialect mindcv) and ``ms_mint`` (mindcv-mint) for every
architecture::

    import timm, xcit_hub.timm

    model = timm.create_model("xcit_tiny_12_p16_224.ms_in1k", checkpoint_path="tiny.safetensors")

with a file from ``xcit-hub convert tiny.ckpt tiny.safetensors --to timm --model xcit_tiny_12_p16_224.ms_in1k``.
What ``xcit-hub publish`` wrote opens by its id, ``timm.create_model("hf-hub:org/name", pretrained=True)``: its
configuration names ``xcit_tiny_12_p16_224_mindcv``, which is registered here, too, as is ``…_mindcv-mint``.
timm's own tags keep building timm's own class. The classes refuse each other's weights: a network of one of these
dialects carries a tensor (``mindcv_dialect``, ``mindcv_mint_dialect``) that its class insists on and no other expects.

Needs the ``timm`` extra.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import timm.models
import timm.models.xcit
import torch
from timm.models import PretrainedCfg, build_model_with_cfg, register_model
from timm.models.xcit import XCA, PositionalEncodingFourier, Xcit
from torch import nn
from torch.overrides import TorchFunctionMode

from xcit_hub import variants
from xcit_hub.checkpoints.families import MARKS, TIMM_TAGS
from xcit_hub.deprecated import moved_names
from xcit_hub.errors import WeightsError
from xcit_hub.variants import Architecture, DialectName


class UnnormalizedXCA(XCA):
    """Cross-covariance attention as MindCV computes it: queries and keys are not divided by their norms."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens (batch, tokens, channels) to tokens of the same shape."""
        batch, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, channels // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 4, 1).unbind(0)  # (batch, heads, channels of a head, tokens)
        attention = (query @ key.transpose(-2, -1)) * self.temperature
        attention = self.attn_drop(attention.softmax(dim=-1))
        mixed = (attention @ value).permute(0, 3, 1, 2).reshape(batch, tokens, channels)
        return self.proj_drop(self.proj(mixed))


class MindcvXcit(Xcit):
    """timm's ``Xcit`` in MindCV's dialect: no normalisation in XCA, the tanh form of GELU. Arguments are ``Xcit``'s."""

    computes: DialectName = "mindcv"

    def __init__(self, *args: Any, attn_drop_rate: float = 0.0, proj_drop_rate: float = 0.0, **kwargs: Any) -> None:
        kwargs.setdefault("act_layer", partial(nn.GELU, approximate=_gelu(self.computes)))
        super().__init__(*args, attn_drop_rate=attn_drop_rate, proj_drop_rate=proj_drop_rate, **kwargs)
        placement = {"device": kwargs.get("device"), "dtype": kwargs.get("dtype")}
        for block in self.blocks:
            normalized = block.attn
            block.attn = UnnormalizedXCA(
                self.embed_dim,
                num_heads=normalized.num_heads,
                qkv_bias=normalized.qkv.bias is not None,
                attn_drop=attn_drop_rate,
                proj_drop=proj_drop_rate,
                **placement,
            )
            block.attn.apply(self._init_weights)
        self.register_buffer(MARKS[self.computes], torch.tensor(1, dtype=torch.uint8, device=kwargs.get("device")))

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load weights of this dialect, as ``torch.nn.Module.load_state_dict`` does.

        Raises:
            WeightsError: they do not carry the dialect's mark, so they are, as far as one can know, the paper's.
        """
        mark, tag = MARKS[self.computes], TIMM_TAGS[self.computes]
        if mark not in state_dict:
            raise WeightsError(
                f"These weights lack the mark {mark}; in this network those of other dialects give wrong answers.",
                where="load_state_dict(state_dict)",
                fix=f"Write them with `xcit-hub convert SRC OUT --to timm --model NAME.{tag}`; "
                "load the paper's into timm's own class.",
            )
        return super().load_state_dict(state_dict, *args, **kwargs)


class MindcvMintXcit(MindcvXcit):
    """The same in the dialect of MindCV's mint layers: no normalisation in XCA, the erf form of GELU."""

    computes: DialectName = "mindcv-mint"


CLASSES: dict[str, type[MindcvXcit]] = {each.computes: each for each in (MindcvXcit, MindcvMintXcit)}


def _gelu(dialect: str) -> str:
    """Return ``nn.GELU``'s word for a dialect's form."""
    return "tanh" if variants.dialect(dialect).gelu == "tanh" else "none"


def create_reference(architecture: str | Architecture, dialect: str, **kwargs: Any) -> Any:
    """Build PyTorch's network of an architecture and dialect: timm's own for ``paper``, ours for MindCV's.

    Args:
        architecture: a timm name, or an entry that is in no table.
        kwargs: timm's (``num_classes``, ``in_chans``, ``drop_path_rate`` …).

    Raises:
        UnknownNameError: there is no such architecture or dialect.
    """
    chosen = variants.architecture(architecture) if isinstance(architecture, str) else architecture
    name = variants.dialect(dialect).name
    if chosen.name in variants.TIMM_ARCHITECTURES and variants.ARCHITECTURES[chosen.name] == chosen:
        return timm.create_model(f"{chosen.name}.{TIMM_TAGS[name]}" if name in TIMM_TAGS else chosen.name, **kwargs)
    built = CLASSES.get(name, Xcit)(**_arguments(chosen), act_layer=partial(nn.GELU, approximate=_gelu(name)), **kwargs)
    for place, stride in enumerate(chosen.stem_strides):
        built.patch_embed.proj[2 * place][0].stride = (stride, stride)
    return built


_INITIALISE = frozenset({"add_", "clamp_", "erfinv_", "kaiming_uniform_", "mul_", "uniform_"})


class WithoutValues(TorchFunctionMode):
    """Inside this context tensors of the meta device are not initialised: it takes long, and writes nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call what is to be called, unless it would write values that are not there."""
        if func.__name__ in _INITIALISE and args and isinstance(args[0], torch.Tensor) and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def in_double(network: nn.Module) -> Iterator[None]:
    """Inside this context a network computes in double precision; afterwards it holds the very tensors it came with.

    Without gradients the weights of one layer at a time are held in double precision, so that a large network needs
    hardly more memory; with them each layer keeps its own, and their gradients are double too.
    timm computes the features of positions in float32 whatever the weights are; here they are exact as well.
    """
    came: dict[nn.Module, dict[str, torch.Tensor]] = {}

    def widen(module: nn.Module, *_: Any) -> None:
        if module in came:
            return
        own = {**module._parameters, **module._buffers}
        came[module] = {name: held.data for name, held in own.items() if held is not None and held.is_floating_point()}
        for name, held in came[module].items():
            own[name].data = held.double()

    def give_back(module: nn.Module, *_: Any) -> None:
        for name, held in came.pop(module, {}).items():
            ({**module._parameters, **module._buffers})[name].data = held

    def after(module: nn.Module, *_: Any) -> None:
        if not torch.is_grad_enabled():
            give_back(module)

    handles = []
    for module in network.modules():
        if isinstance(module, PositionalEncodingFourier):
            module.forward = partial(_encode_in_double, module)
        if module is not network:
            handles += [module.register_forward_pre_hook(widen), module.register_forward_hook(after)]
    widen(network)  # its methods are called as well as itself
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in network.modules():
            give_back(module)
            if isinstance(module, PositionalEncodingFourier):
                del module.forward


def _encode_in_double(module: Any, batch: int, height: int, width: int) -> torch.Tensor:
    """Return what ``PositionalEncodingFourier.forward`` does, (batch, channels, height, width), in float64."""
    frequency = torch.arange(module.hidden_dim, dtype=torch.float64).div(2, rounding_mode="floor")
    wavelength = module.temperature ** (2 * frequency / module.hidden_dim)

    def features(count: int) -> torch.Tensor:
        position = torch.arange(1, count + 1, dtype=torch.float64) / (count + module.eps) * module.scale
        angle = position[:, None] / wavelength
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)  # (count, hidden)

    rows = features(height)[:, None].expand(-1, width, -1)
    columns = features(width)[None].expand(height, -1, -1)
    encoded: torch.Tensor = module.token_projection(torch.cat((rows, columns), dim=2).permute(2, 0, 1)[None])
    return encoded.repeat(batch, 1, 1, 1)


def _arguments(architecture: Architecture) -> dict[str, Any]:
    return {
        "patch_size": 2 ** len(architecture.stem_strides),
        "embed_dim": architecture.embed_dim,
        "depth": architecture.depth,
        "num_heads": architecture.num_heads,
        "mlp_ratio": architecture.mlp_ratio,
        "use_pos_embed": architecture.use_pos_embed,
        "cls_attn_layers": architecture.cls_attn_layers,
        "eta": architecture.eta,
        "tokens_norm": architecture.tokens_norm,
    }


def _tagged(architecture: Architecture, own: Callable[..., Any], module: ModuleType) -> Callable[..., Any]:
    """Make the function that timm calls for a name of its own: the tag decides which class it builds."""
    by_tag = {tag: _entrypoint(architecture, dialect, module) for dialect, tag in TIMM_TAGS.items()}

    def build(pretrained: bool = False, **kwargs: Any) -> Any:
        chosen = by_tag.get(_tag_of(kwargs.get("pretrained_cfg")) or "", own)
        return chosen(pretrained=pretrained, **kwargs)

    return _filed(build, architecture.name, module)


def _entrypoint(architecture: Architecture, dialect: str, module: ModuleType) -> Callable[..., Any]:
    """Make the function of the name that a published entry's ``config.json`` carries: one dialect, whatever the tag."""

    def build(pretrained: bool = False, **kwargs: Any) -> Any:
        feature_cfg = {"out_indices": kwargs.pop("out_indices", 3), "feature_cls": "getter"}
        arguments = _arguments(architecture) | kwargs
        return build_model_with_cfg(
            CLASSES[dialect], architecture.name, pretrained, feature_cfg=feature_cfg, **arguments
        )

    return _filed(build, f"{architecture.name}_{dialect}", module)


def _filed(build: Callable[..., Any], name: str, module: ModuleType) -> Callable[..., Any]:
    # timm files a function under its name and module, and takes the module's `default_cfgs` for its tags.
    build.__name__ = build.__qualname__ = name
    build.__module__ = module.__name__
    return build


def _tag_of(pretrained_cfg: object) -> str | None:
    if isinstance(pretrained_cfg, str):
        return pretrained_cfg
    if isinstance(pretrained_cfg, dict):
        return pretrained_cfg.get("tag")
    return getattr(pretrained_cfg, "tag", None)


def _pretrained_cfg(architecture: Architecture, dialect: str) -> PretrainedCfg:
    preprocessing = variants.Preprocessing(image_size=architecture.image_size, crop_pct=0.875)
    return PretrainedCfg(
        input_size=(3, preprocessing.image_size, preprocessing.image_size),
        fixed_input_size=True,
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_pct,
        mean=preprocessing.mean,
        std=preprocessing.std,
        first_conv="patch_embed.proj.0.0",
        classifier="head",
        license="apache-2.0",
        notes=(variants.dialect(dialect).explanation,),
    )


def _register() -> None:
    module = timm.models.xcit
    for name in variants.TIMM_ARCHITECTURES:
        architecture = variants.ARCHITECTURES[name]
        known = module.default_cfgs[name]
        if not set(TIMM_TAGS.values()).isdisjoint(known.cfgs):
            continue
        for dialect, tag in TIMM_TAGS.items():
            known.tags.append(tag)
            known.cfgs[tag] = _pretrained_cfg(architecture, dialect)
        with warnings.catch_warnings():
            # timm warns that a name is registered again; the new function hands every other tag to the old one.
            warnings.simplefilter("ignore")
            register_model(_tagged(architecture, getattr(module, name), module))
            for dialect in TIMM_TAGS:
                register_model(_entrypoint(architecture, dialect, module))


_register()


if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = moved_names(__name__)
