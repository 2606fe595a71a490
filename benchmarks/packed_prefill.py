"""How a prompt is best multiplied with a packed matrix: by the kernel for few tokens, or by unpacking tiles for torch?

`python benchmarks/packed_prefill.py` writes benchmarks/packed_prefill.csv and .md: milliseconds of the matrices of a
decoder block of Llama-3.2-1B in bfloat16, 50 % dropped, for each number of tokens and each way, in turn, by the median
of five passes. "dense" is torch over the dense matrices. FEW_TOKENS and TILE_BYTES of leap_repro.runtime are set by it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from measure import place, write_rows
from packed_kernels import BLOCKS, cpu_flags, timed
from torch import Tensor

from leap_repro.runtime import kernels
from leap_repro.runtime.forms import form
from leap_repro.runtime.kernels import PackedMatrix

TOKENS = (2, 4, 8, 16, 24, 32, 64, 256, 1024)
MOST_BY_KERNEL = 64
TILES = (256, 512, 1024, 2048, 4096, 8192)
"""Kilobytes."""


def one_pass(block: list[Any], product: Callable[[Any, Tensor], Tensor], tokens: int) -> Callable[[], None]:
    """A function that takes so many tokens through the block."""
    generator = torch.Generator().manual_seed(tokens)
    columns = {matrix.shape[1] for matrix in block}
    inputs = {n: torch.randn(tokens, n, generator=generator).bfloat16() for n in columns}

    def run() -> None:
        for matrix in block:
            product(matrix, inputs[matrix.shape[1]])

    return run


def by_tiles(kilobytes: int) -> Callable[[PackedMatrix, Tensor], Tensor]:
    """The product through tiles of so many kilobytes."""

    def multiply(matrix: PackedMatrix, x: Tensor) -> Tensor:
        kernels.FEW_TOKENS, kernels.TILE_BYTES = 0, 1024 * kilobytes
        return matrix.multiply(x)

    return multiply


def by_kernel(matrix: PackedMatrix, x: Tensor) -> Tensor:
    """The product by the kernel, whatever the number of tokens."""
    kernels.FEW_TOKENS = len(x)
    return matrix.multiply(x)


def ways(tokens: int) -> dict[str, Callable[[Any, Tensor], Tensor]]:
    """What is timed for so many tokens."""
    found: dict[str, Callable[[Any, Tensor], Tensor]] = {f"tiles of {size} KB": by_tiles(size) for size in TILES}
    if tokens <= MOST_BY_KERNEL:
        found["kernel"] = by_kernel
    return found | {"dense": lambda matrix, x: torch.nn.functional.linear(x, matrix)}


def main(arguments: argparse.Namespace) -> None:
    """Time all, write the table; the constants are then what they were."""
    own = kernels.FEW_TOKENS, kernels.TILE_BYTES
    try:
        measure(arguments)
    finally:
        kernels.FEW_TOKENS, kernels.TILE_BYTES = own


@torch.inference_mode()
def measure(arguments: argparse.Namespace) -> None:
    """A row for each number of threads and of tokens."""
    generator = torch.Generator().manual_seed(0)
    dense = [torch.randn(shape, generator=generator).bfloat16() for shape in BLOCKS[arguments.block]]
    for matrix in dense:
        matrix.masked_fill_(torch.rand(matrix.shape, generator=generator) < 0.5, 0)
    packed, rows = [PackedMatrix.from_dense(matrix) for matrix in dense], []
    for threads, tokens in product(arguments.threads, arguments.tokens):
        torch.set_num_threads(threads)
        chosen = ways(tokens)
        passes = {n: one_pass(dense if way == "dense" else packed, chosen[way], tokens) for n, way in enumerate(chosen)}
        seconds = timed(passes, arguments.repeats, threads)
        row = {"block of": arguments.block, "form": form(), "threads": threads, "tokens": tokens}
        row |= {f"{way} (ms)": round(1000 * seconds[n], 1) for n, way in enumerate(chosen)}
        print(row, flush=True)
        rows.append(row | {"machine": place()["machine"], "flags": cpu_flags(), "torch": torch.__version__})
        write_rows(arguments.output, rows)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--block", choices=BLOCKS, default="Llama-3.2-1B")
    parser.add_argument("--tokens", nargs="+", type=int, default=TOKENS)
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
