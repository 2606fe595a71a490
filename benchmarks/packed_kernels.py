"""One token through the matrices of a decoder block of Llama-3.2-1B: packed kernels against dense ones, and against the
speed at which memory can be read at all.

`python benchmarks/packed_kernels.py` writes benchmarks/packed_kernels.csv and .md. All contenders of a type are timed
in turn; a time is the median of five passes over so many copies of the block that they do not fit into the last level
of cache. It is of CPU time, divided by the number of threads, which other jobs on the machine stretch less. "own dense"
is the same kernel over the dense matrix. The last column is the time of the fastest dense contender of the type over
that of the row. The plain form, many times slower, is left out.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from measure import place, write_rows
from torch import Tensor

from leap_repro.runtime import forms
from leap_repro.runtime.kernels import PackedMatrix, multiply_dense

BLOCKS = {
    "SmolLM2-135M": [(576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536)],
    "Llama-3.2-1B": [(2048, 2048), (512, 2048), (512, 2048), (2048, 2048), (8192, 2048), (8192, 2048), (2048, 8192)],
}
"""[out, in] of a decoder block's matrices: q, k, v, o, gate, up, down."""
TYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "int8": torch.int8}
FLAGS = ("avx2", "avx512f", "avx512vbmi", "avx512_vbmi2", "avx512_bf16", "amx_bf16")
CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
BEYOND_CACHE = 1.5


@dataclass
class Contender:
    """What is timed: a product with each matrix of each copy of the block."""

    name: str
    form: str
    copies: list[list[Any]]
    product: Callable[[Any, Tensor], Tensor]
    block_bytes: int


def contenders(shapes: list[tuple[int, int]], dtype: str, sparsity: float, beyond: int) -> Iterator[Contender]:
    """Dense ones first."""
    generator = torch.Generator().manual_seed(0)
    masks = [torch.rand(shape, generator=generator) >= sparsity for shape in shapes]
    dense = [_weights(mask, TYPES[dtype], generator) for mask in masks]
    packed = [_packed(matrix, mask) for matrix, mask in zip(dense, masks, strict=True)]
    copies = _copies(dense, Tensor.clone, beyond)
    size = sum(matrix.nbytes for matrix in dense)
    if dtype != "int8":
        yield Contender("torch dense", "", copies, lambda w, x: torch.nn.functional.linear(x, w), size)
    compiled = [form for form in forms.compiled() if form != "plain"]
    scales = {len(matrix): torch.ones(len(matrix), 1) for matrix in dense} if dtype == "int8" else {}
    for form in compiled:
        yield Contender("own dense", form, copies, lambda w, x: multiply_dense(w, x, scales.get(len(w))), size)
    copies, size = _copies(packed, _copy, beyond), sum(matrix.nbytes for matrix in packed)
    for form in compiled:
        yield Contender("packed", form, copies, PackedMatrix.multiply, size)


def _weights(mask: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if dtype == torch.int8:
        return torch.randint(-127, 128, mask.shape, generator=generator).to(dtype).masked_fill_(~mask, 0)
    return torch.randn(mask.shape, generator=generator).to(dtype).masked_fill_(~mask, 0)


def _packed(matrix: Tensor, mask: Tensor) -> PackedMatrix:
    scales = torch.ones(len(matrix), 1) if matrix.dtype == torch.int8 else None
    bits = PackedMatrix.from_dense(mask.float()).mask
    return PackedMatrix(matrix[mask], bits, (matrix.shape[0], matrix.shape[1]), scales)


def _copy(matrix: PackedMatrix) -> PackedMatrix:
    return PackedMatrix(matrix.values.clone(), matrix.mask.clone(), matrix.shape, matrix.scales)


def _copies(block: list[Any], copied: Callable[[Any], Any], beyond: int) -> list[list[Any]]:
    """So many copies of the matrices that they are more than `beyond` bytes."""
    count = beyond // sum(matrix.nbytes for matrix in block) + 1
    return [[copied(matrix) for matrix in block] for _ in range(count)]


def timed(passes: dict[int, Callable[[], None]], repeats: int, threads: int) -> dict[int, float]:
    """Seconds of each by the median of `repeats`, in turn, after one that is not counted."""
    seconds: dict[int, list[float]] = {key: [] for key in passes}
    for repeat, (key, run) in product(range(repeats + 1), passes.items()):
        started = time.process_time()
        run()
        if repeat:
            seconds[key].append((time.process_time() - started) / threads)
    return {key: statistics.median(found) for key, found in seconds.items()}


def one_pass(contender: Contender, tokens: list[Tensor]) -> Callable[[], None]:
    """A function that takes the tokens through every copy of the block."""

    def run() -> None:
        if contender.form:
            os.environ[forms.VARIABLE] = contender.form
            forms.form.cache_clear()
        for block in contender.copies:
            for matrix, x in zip(block, tokens, strict=True):
                contender.product(matrix, x)

    return run


def reader(beyond: int, threads: int) -> Callable[[], None]:
    """A function that only reads `beyond` bytes."""
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "read_memory.so")
        source = Path(__file__).with_name("read_memory.c")
        subprocess.run(["cc", "-O3", "-fopenmp", "-fPIC", "-shared", source, "-o", built], check=True)
        read = ctypes.CDLL(str(built)).read_memory
    read.restype = ctypes.c_uint64
    memory = torch.ones(beyond // 8, dtype=torch.int64)
    return lambda: read(ctypes.c_void_p(memory.data_ptr()), ctypes.c_size_t(len(memory)), threads)


def measure(dtype: str, sparsity: float, arguments: argparse.Namespace, threads: int) -> list[dict[str, Any]]:
    """A row a contender, and one of the loop that only reads."""
    shapes, beyond = BLOCKS[arguments.block], arguments.bytes
    x_type = torch.float32 if dtype == "float32" else torch.bfloat16
    tokens = [torch.randn(1, shape[1], generator=torch.Generator().manual_seed(1)).to(x_type) for shape in shapes]
    found = list(contenders(shapes, dtype, sparsity, beyond))
    passes = {number: one_pass(contender, tokens) for number, contender in enumerate(found)}
    seconds = timed(passes | {-1: reader(beyond, threads)}, arguments.repeats, threads)
    limit = beyond / seconds[-1]
    ms = [1000 * seconds[number] / len(contender.copies) for number, contender in enumerate(found)]
    fastest = min(time for time, contender in zip(ms, found, strict=True) if "dense" in contender.name)
    named = {"threads": threads, "type": dtype, "sparsity": sparsity}
    rows = [
        named | {"what": contender.name, "form": contender.form} | _numbers(contender, time, limit, fastest)
        for contender, time in zip(found, ms, strict=True)
    ]
    return [*rows, named | {"what": "memory only read", "GB/s": round(limit / 1e9, 1)}]


def _numbers(contender: Contender, ms: float, limit: float, fastest: float) -> dict[str, Any]:
    speed = contender.block_bytes / ms * 1000
    return {
        "megabytes": round(contender.block_bytes / 1e6, 1),
        "ms": round(ms, 2),
        "GB/s": round(speed / 1e9, 1),
        "of reading (%)": round(100 * speed / limit),
        "times the fastest dense": round(fastest / ms, 2),
    }


def cpu_flags() -> str:
    """Those of this processor that the kernels, torch's or ours, ask for."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return " ".join(flag for flag in FLAGS if flag in flags)


def beyond_cache() -> int:
    """Bytes that do not fit into the last level of cache."""
    try:
        kilobytes = int(CACHE.read_text(encoding="ascii").strip().removesuffix("K"))
    except OSError:
        kilobytes = 64 * 1024
    return int(BEYOND_CACHE * kilobytes * 1024)


@torch.inference_mode()
def main(arguments: argparse.Namespace) -> None:
    """Time all, write the table."""
    chosen = f"--types {' '.join(arguments.types)} --threads {' '.join(map(str, arguments.threads))}"
    command = f"python benchmarks/packed_kernels.py {chosen}"
    rows = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        where = {"machine": place()["machine"], "flags": cpu_flags(), "torch": torch.__version__}
        for dtype, sparsity in product(arguments.types, arguments.sparsities):
            found = measure(dtype, sparsity, arguments, threads)
            rows += [{"block of": arguments.block} | row | where | {"command": f"`{command}`"} for row in found]
            print(*found, sep="\n", flush=True)
            write_rows(arguments.output, rows)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--block", choices=BLOCKS, default="Llama-3.2-1B")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=list(TYPES))
    parser.add_argument("--sparsities", nargs="+", type=float, default=(0.5, 0.6, 0.7))
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=beyond_cache(), help="that the copies of a block exceed")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
