"""PyTorch twins of facebook's pyramid and mmsegmentation's heads, written from their public definitions.

Parameters carry the names of the published files, so that a file's ``state_dict`` loads strictly. The blocks are
timm's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from timm.models.xcit import Xcit
from torch import Tensor, nn
from torch.nn import functional

from xcit_hub import parity, segmenters, variants
from xcit_hub.checkpoints.families import LAYOUTS

# Of each patch size; the names are what tensors alone tell.
SMALL = {
    patch: variants.Architecture(
        f"xcit_custom_48x4_h4_p{patch}_224",
        patch_size=patch,
        embed_dim=48,
        depth=4,
        num_heads=4,
        eta=1.0,
        tokens_norm=True,
        image_size=224,
    )
    for patch in (16, 8)
}
NAMES = tuple(f"thing {index}" for index in range(7))


class Pyramid(nn.Module):
    """facebook's backbone: four blocks' maps, enlarged, as they are, or their maxima."""

    def __init__(self, architecture: variants.Architecture, indices: Sequence[int]) -> None:
        super().__init__()
        network = Xcit(
            patch_size=architecture.patch_size,
            embed_dim=architecture.embed_dim,
            depth=architecture.depth,
            num_heads=architecture.num_heads,
            eta=architecture.eta,
        )
        self.patch_embed, self.pos_embeder, self.blocks = network.patch_embed, network.pos_embed, network.blocks
        self.indices = tuple(indices)
        dim = architecture.embed_dim

        def double() -> nn.Module:
            return nn.ConvTranspose2d(dim, dim, 2, stride=2)

        if architecture.patch_size == 16:
            self.fpn1 = nn.Sequential(double(), nn.BatchNorm2d(dim), nn.GELU(), double())
            self.fpn2, self.fpn3, self.fpn4 = nn.Sequential(double()), nn.Identity(), nn.MaxPool2d(2)
        else:
            self.fpn1, self.fpn2 = nn.Sequential(double()), nn.Identity()
            self.fpn3, self.fpn4 = nn.MaxPool2d(2), nn.MaxPool2d(4)

    def forward(self, image: Tensor) -> list[Tensor]:
        tokens, (height, width) = self.patch_embed(image)
        batch, count, dim = tokens.shape
        tokens = tokens + self.pos_embeder(batch, height, width).reshape(batch, dim, count).transpose(1, 2)
        maps = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, height, width)
            if index in self.indices:
                maps.append(tokens.transpose(1, 2).reshape(batch, dim, height, width))
        levels = (self.fpn1, self.fpn2, self.fpn3, self.fpn4)
        return [level(found) for level, found in zip(levels, maps, strict=True)]


class ConvModule(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, side: int, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, side, padding=side // 2, bias=not norm)
        self.bn = nn.BatchNorm2d(out_channels) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.bn is None else functional.relu(self.bn(x))


def resize(x: Tensor, size: Sequence[int], mode: str = "bilinear") -> Tensor:
    return functional.interpolate(x, tuple(size), mode=mode, align_corners=None if mode == "nearest" else False)


def top_down(maps: list[Tensor], mode: str) -> list[Tensor]:
    maps = list(maps)
    for level in range(len(maps) - 1, 0, -1):
        maps[level - 1] = maps[level - 1] + resize(maps[level], maps[level - 1].shape[2:], mode)
    return maps


class Neck(nn.Module):
    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(ConvModule(dim, channels, 1, norm=False) for _ in range(4))
        self.fpn_convs = nn.ModuleList(ConvModule(channels, channels, 3, norm=False) for _ in range(4))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        summed = top_down([conv(found) for conv, found in zip(self.lateral_convs, maps, strict=True)], "nearest")
        return [conv(found) for conv, found in zip(self.fpn_convs, summed, strict=True)]


class FPNHead(nn.Module):
    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.scale_heads = nn.ModuleList()
        for doublings in (0, 1, 2, 3):
            parts: list[nn.Module] = []
            for index in range(max(1, doublings)):
                parts.append(ConvModule(channels if index else in_channels, channels, 3))
                if doublings:
                    parts.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.scale_heads.append(nn.Sequential(*parts))
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        total = self.scale_heads[0](maps[0])
        for head, found in list(zip(self.scale_heads, maps, strict=True))[1:]:
            total = total + resize(head(found), total.shape[2:])
        return self.conv_seg(total)


class UPerHead(nn.Module):
    def __init__(self, dim: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), ConvModule(dim, channels, 1)) for side in (1, 2, 3, 6)
        )
        self.bottleneck = ConvModule(dim + 4 * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvModule(dim, channels, 1) for _ in range(3))
        self.fpn_convs = nn.ModuleList(ConvModule(channels, channels, 3) for _ in range(3))
        self.fpn_bottleneck = ConvModule(4 * channels, channels, 3)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        coarsest = maps[-1]
        pooled = [resize(module(coarsest), coarsest.shape[2:]) for module in self.psp_modules]
        laterals = [conv(found) for conv, found in zip(self.lateral_convs, maps[:3], strict=True)]
        summed = top_down([*laterals, self.bottleneck(torch.cat([coarsest, *pooled], 1))], "bilinear")
        outs = [conv(found) for conv, found in zip(self.fpn_convs, summed[:3], strict=True)] + [summed[3]]
        return self.conv_seg(self.fpn_bottleneck(torch.cat([resize(out, outs[0].shape[2:]) for out in outs], 1)))


class FCNHead(nn.Module):
    """UPerNet's auxiliary head: in the file, and asked for in training alone."""

    def __init__(self, dim: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(ConvModule(dim, channels, 3))
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)


class EncoderDecoder(nn.Module):
    def __init__(self, architecture: variants.Architecture, head: segmenters.Segmenter, auxiliary: int = 0) -> None:
        super().__init__()
        self.backbone = Pyramid(architecture, segmenters.pyramid_indices(architecture.depth))
        dim = architecture.embed_dim
        if head.head == "sem_fpn":
            self.neck: nn.Module = Neck(dim, head.neck)
            self.decode_head: nn.Module = FPNHead(head.neck, head.channels, head.num_classes)
        else:
            self.neck = nn.Identity()
            self.decode_head = UPerHead(dim, head.channels, head.num_classes)
            if auxiliary:
                self.auxiliary_head = FCNHead(dim, auxiliary, head.num_classes)

    def forward(self, image: Tensor) -> Tensor:
        return resize(self.decode_head(self.neck(self.backbone(image))), image.shape[2:])


Twins = Callable[[int, segmenters.HeadKind], EncoderDecoder]
Files = Callable[[int, segmenters.HeadKind], Path]


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Fill every parameter and buffer as the proof does, so that no branch can hide; in evaluation mode."""
    ours = {value: key for key, value in LAYOUTS["facebook"].leaves.items() if key not in ("gamma", "beta")}
    kinds = {}
    for name, value in network.state_dict().items():
        parent, _, leaf = name.rpartition(".")
        module = network.get_submodule(parent)
        norm = isinstance(module, nn.BatchNorm2d | nn.LayerNorm)
        leaf = ours.get(leaf, {"weight": "gamma", "bias": "beta"}.get(leaf, leaf) if norm else leaf)
        kinds[f"{name}.{leaf}"] = (name, tuple(value.shape))
    drawn = parity.random_weights({key: shape for key, (_, shape) in kinds.items()}, seed)
    state = {kinds[key][0]: torch.from_numpy(np.array(value)) for key, value in drawn.items()}
    state |= {name: torch.tensor(7) for name in state if name.endswith("num_batches_tracked")}
    network.load_state_dict(state)
    return network.eval()


def published(network: nn.Module, path: Path, classes: Sequence[str] = (), config: str = "") -> Path:
    """Save a network as mmcv saves a checkpoint, batch counters and all."""
    meta = {"CLASSES": tuple(classes), "PALETTE": [[120, 120, 120]], "config": config, "mmseg_version": "0.11.0"}
    torch.save({"meta": meta, "state_dict": network.state_dict()}, path)
    return path
