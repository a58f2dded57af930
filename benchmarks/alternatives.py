"""Ways to compute one operation on MindSpore's CPU, beside each other: the figures behind ``models/functions.py``.

    python -m benchmarks.alternatives [--rounds 15] > benchmarks/results/mindspore-2.8.0/alternatives.md

Every way is a graph of its own, warmed up, then all take turns; prints medians in milliseconds as a Markdown table.
Reading the result back is in every figure; ``x + 1`` shows what that and one pass over the numbers cost.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable

import mindspore
import numpy as np
from mindspore import Tensor, nn, ops

from benchmarks import machine
from xcit_hub.models import functions

Way = Callable[[Tensor], Tensor]

TOKENS = (8, 196, 192)
HIDDEN = (8, 196, 768)
GRID = (8, 192, 14, 14)
STEM = (8, 96, 56, 56)


def tanh_formula(x: Tensor) -> Tensor:
    scale = math.sqrt(2.0 / math.pi)
    return 0.5 * x * (1.0 + ops.tanh(scale * (x + 0.044715 * x * x * x)))


def erf_formula(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + ops.erf(x * math.sqrt(0.5)))


def one_product_and_permutation(weight: Tensor) -> Way:
    def way(x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = ops.matmul(x, weight.T).reshape(batch, tokens, 3, 4, dim // 4).transpose(2, 0, 3, 4, 1)
        return qkv[0] + qkv[1] + qkv[2]

    return way


def three_products(weight: Tensor) -> Way:
    def way(x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        parts = [
            ops.matmul(x.reshape(-1, dim), part.T).reshape(batch, tokens, dim).transpose(0, 2, 1)
            for part in ops.split(weight, dim)
        ]
        return (parts[0] + parts[1] + parts[2]).reshape(batch, 4, dim // 4, tokens)

    return way


def weight_times_tokens(weight: Tensor) -> Way:
    product = ops.BatchMatMul(transpose_b=True)

    def way(x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        channels = product(ops.broadcast_to(weight, (batch, *weight.shape)), x)  # channels first without a transpose
        parts = ops.split(channels, dim, axis=1)
        return (parts[0] + parts[1] + parts[2]).reshape(batch, 4, dim // 4, tokens)

    return way


def one_product_and_transpose(weight: Tensor) -> Way:
    def way(x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        parts = ops.split(
            ops.matmul(x.reshape(-1, dim), weight.T).reshape(batch, tokens, -1).transpose(0, 2, 1), dim, axis=1
        )
        return (parts[0] + parts[1] + parts[2]).reshape(batch, 4, dim // 4, tokens)

    return way


def gradient_of(way: Way) -> Way:
    def total(x: Tensor) -> Tensor:  # of a lambda MindSpore finds no source
        return way(x).sum()

    return mindspore.grad(total)


def plus_one(x: Tensor) -> Tensor:
    return x + 1.0


def every_other_pixel(x: Tensor) -> Tensor:
    return x[:, :, ::2, ::2]


def convolution(kind: type[nn.Conv2d], channels: int, out: int, stride: int, group: int) -> nn.Conv2d:
    return kind(channels, out, 3, stride=stride, pad_mode="pad", padding=1, group=group, has_bias=True)


def ways() -> dict[str, tuple[tuple[int, ...], dict[str, Way]]]:
    weight = Tensor(np.random.default_rng(0).standard_normal((3 * TOKENS[2], TOKENS[2]), np.float32))
    return {
        "exact GELU": (
            HIDDEN,
            {
                "`ops.gelu(approximate='none')`": functions.gelu_erf,
                "written with `ops.erf`": erf_formula,
                "from one exponential": functions.gelu_erf_from_exp,
            },
        ),
        "exact GELU and its gradient": (
            HIDDEN,
            {
                "`ops.gelu(approximate='none')`": gradient_of(functions.gelu_erf),
                "from one exponential": gradient_of(functions.gelu_erf_from_exp),
                "the same, its gradient by a formula": gradient_of(functions.GeluErfFromExp()),
            },
        ),
        "tanh GELU": (
            HIDDEN,
            {
                "`ops.gelu(approximate='tanh')`": functions.gelu_tanh,
                "written with `ops.tanh` (inexact)": tanh_formula,
                "from `ops.sigmoid`": functions.gelu_tanh_from_sigmoid,
            },
        ),
        "tanh GELU and its gradient": (
            HIDDEN,
            {
                "from `ops.sigmoid`": gradient_of(functions.gelu_tanh_from_sigmoid),
                "the same, its gradient by a formula": gradient_of(functions.GeluTanhFromSigmoid()),
            },
        ),
        "one function": (
            HIDDEN,
            {
                "`x + 1`": plus_one,
                "`ops.erf`": ops.erf,
                "`ops.tanh`": ops.tanh,
                "`ops.sigmoid`": ops.sigmoid,
                "`ops.exp`": ops.exp,
            },
        ),
        "queries, keys, values by head": (
            TOKENS,
            {
                "one product, 5-D permutation": one_product_and_permutation(weight),
                "one product, one transpose": one_product_and_transpose(weight),
                "three products, three transposes": three_products(weight),
                "the weight times the tokens, no transpose": weight_times_tokens(weight),
            },
        ),
        "LayerNorm": (TOKENS, {"`nn.LayerNorm`": nn.LayerNorm((TOKENS[2],))}),
        "depth-wise 3×3": (
            GRID,
            {
                "`nn.Conv2d`": convolution(nn.Conv2d, 192, 192, 1, 192),
                "unfold and sum": convolution(functions.UnfoldedConv2d, 192, 192, 1, 192),
            },
        ),
        "3×3, stride 2, 96 → 192": (
            STEM,
            {
                "`nn.Conv2d`": convolution(nn.Conv2d, 96, 192, 2, 1),
                "unfold and product": convolution(functions.UnfoldedConv2d, 96, 192, 2, 1),
            },
        ),
        "every other pixel": (GRID, {"strided slice": every_other_pixel}),
    }


def milliseconds(work: Way, x: Tensor) -> float:
    began = time.perf_counter()
    work(x).asnumpy()
    return 1e3 * (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    print(f"MindSpore {mindspore.__version__}, float32, milliseconds; {machine.line()}\n")
    print("| operation | shape | way | ms |\n|---|---|---|---|")
    for operation, (shape, several) in ways().items():
        x = Tensor(np.random.default_rng(0).standard_normal(shape, np.float32))
        compiled = {name: way if isinstance(way, nn.Cell) else mindspore.jit(way) for name, way in several.items()}
        times: dict[str, list[float]] = {name: [] for name in compiled}
        for number in range(rounds + 2):
            for name, way in compiled.items():
                took = milliseconds(way, x)
                times[name] += [took] if number >= 2 else []
        for name, taken in times.items():
            print(f"| {operation} | {'×'.join(map(str, shape))} | {name} | {statistics.median(taken):.2f} |")
    os._exit(0)


if __name__ == "__main__":
    main()
