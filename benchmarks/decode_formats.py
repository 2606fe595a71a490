"""One decode step in every format that an export can have: what sparsity gains, and where it is slower.

`python benchmarks/decode_formats.py` times one token through the matrices of one decoder block, in turn for every
format, and writes benchmarks/decode_formats.csv and .md. "packed, unpacked each step" keeps the packed form in memory;
"packed, unpacked once" is what `load_pruned` does, so its step is the dense one. 2:4 runs on a GPU only: torch's
kernels need one, and at least 8 tokens at once. The ratio is to the dense step beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from measure import place, write_rows

BLOCKS = {
    "SmolLM2-135M": [(576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536)],
    "Llama-3.2-1B": [(2048, 2048), (512, 2048), (512, 2048), (2048, 2048), (8192, 2048), (8192, 2048), (2048, 8192)],
}
"""[out, in] of a decoder block's matrices: q, k, v, o, gate, up, down."""
SPARSITIES = (0.5, 0.6, 0.9)
CLOSE = 2e-2
Step = Callable[[], list[Any]]


def formats(shapes: list[tuple[int, int]], sparsity: float, dtype: str) -> Iterator[tuple[str, Step, int]]:
    """(name, a function that takes a token through all matrices, bytes of the matrices) of every format."""
    import torch

    from leap_repro.export.forms import Packed

    generator, kind = torch.Generator().manual_seed(0), getattr(torch, dtype)
    dense, masks = [], []
    for shape in shapes:
        mask = torch.rand(shape, generator=generator) >= sparsity
        masks.append(mask)
        dense.append((torch.randn(shape, generator=generator) / shape[1] ** 0.5).to(kind).masked_fill(~mask, 0))
    tokens = [torch.randn(shape[1], generator=generator).to(kind) for shape in shapes]
    form = Packed()
    parts = [form.encode("", w, mask) for w, mask in zip(dense, masks, strict=True)]

    def unpacked() -> list[Any]:
        return [form.decode(p, list(s)) @ x for p, s, x in zip(parts, shapes, tokens, strict=True)]

    yield "dense with zeros", lambda: [w @ x for w, x in zip(dense, tokens, strict=True)], _bytes(dense)
    yield "packed, unpacked each step", unpacked, sum(_bytes(part.values()) for part in parts)
    if dtype == "float32":  # torch has no CSR product of half precision on a CPU
        sparse = [matrix.to_sparse_csr() for matrix in dense]
        size = sum(_bytes((m.values(), m.col_indices(), m.crow_indices())) for m in sparse)
        yield "CSR", lambda: [w @ x for w, x in zip(sparse, tokens, strict=True)], size


def two_four(shapes: list[tuple[int, int]]) -> Iterator[tuple[str, Step, int]]:
    """Dense and 2:4 on a GPU, float16, the 8 tokens that its kernel wants at least."""
    import torch
    from torch.sparse import SparseSemiStructuredTensorCUTLASS

    from leap_repro.export.forms import TwoFour

    generator, dense, sparse, size = torch.Generator().manual_seed(0), [], [], 0
    for shape in shapes:
        mask = (torch.rand(shape, generator=generator).view(-1, 4).argsort(dim=1) < 2).view(shape)
        matrix = (torch.randn(shape, generator=generator) / shape[1] ** 0.5).half().masked_fill(~mask, 0)
        parts = TwoFour().encode("", matrix, mask)
        size += _bytes(parts.values())
        values, meta = (parts[name].cuda() for name in TwoFour.parts)
        dense.append(matrix.cuda())
        sparse.append(SparseSemiStructuredTensorCUTLASS(matrix.shape, values, meta, None, None, None))
    tokens = [torch.randn(shape[1], 8, generator=generator).half().cuda() for shape in shapes]
    yield "dense with zeros, 8 tokens", lambda: [w @ x for w, x in zip(dense, tokens, strict=True)], _bytes(dense)
    yield "2:4, 8 tokens", lambda: [w @ x for w, x in zip(sparse, tokens, strict=True)], size


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def median_ms(step: Step, repeats: int, device: str) -> float:
    """Milliseconds of a step: the median of `repeats` after one that is not counted; on a CPU of its own time, which
    other jobs on the machine stretch less."""
    import torch

    step()
    times, clock = [], time.perf_counter if device == "cuda" else time.process_time
    for _ in range(repeats):
        started = clock()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - started)
    return 1000 * statistics.median(times)


def measure(
    found: Iterator[tuple[str, Step, int]], repeats: int, device: str, named: dict[str, Any]
) -> list[dict[str, Any]]:
    """A row per format; the first is the dense one, whose result every other must have."""
    import torch

    rows: list[dict[str, Any]] = []
    expected = None
    for name, step, size in found:
        result = step()
        expected = expected or result
        for mine, theirs in zip(result, expected, strict=True):
            torch.testing.assert_close(mine.float(), theirs.float(), rtol=CLOSE, atol=CLOSE)
        ms = median_ms(step, repeats, device)
        ratio = ms / rows[0]["ms"] if rows else 1.0
        verdict = "" if not rows else "SLOWER" if ratio > 1 else "faster"
        numbers = {"megabytes": round(size / 1e6, 1), "ms": round(ms, 3), "times dense": round(ratio, 2)}
        rows.append(named | {"format": name} | numbers | {"verdict": verdict})
        print(rows[-1], flush=True)
    return rows


def main(arguments: argparse.Namespace) -> None:
    """Time all, write the table."""
    import torch

    torch.set_num_threads(arguments.threads)
    rows = []
    for block in arguments.blocks:
        for sparsity, dtype in product(arguments.sparsities, ("float32", "bfloat16")):
            named = {"block of": block, "sparsity": sparsity, "type": dtype} | place()
            rows += measure(formats(BLOCKS[block], sparsity, dtype), arguments.repeats, "cpu", named)
        if torch.cuda.is_available():
            named = {"block of": block, "sparsity": 0.5, "type": "float16"} | place("cuda")
            rows += measure(two_four(BLOCKS[block]), arguments.repeats, "cuda", named)
        write_rows(arguments.output, rows, "" if torch.cuda.is_available() else "No GPU there, so 2:4 was not run.")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", nargs="+", choices=BLOCKS, default=list(BLOCKS))
    parser.add_argument("--sparsities", nargs="+", type=float, default=SPARSITIES)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
