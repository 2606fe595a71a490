"""What GGUF's quantisations do to the zeros of a pruned matrix: `pip install gguf==0.19.0`, then
`python benchmarks/gguf_zeros.py`.

A normal matrix of a decoder's shape, pruned by Wanda's score, goes through the quantisers of the gguf package and back.
Counted are the zeros that are still exactly 0, and the kept weights that became 0. Writes benchmarks/gguf_zeros.csv and
.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from measure import write_rows

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_0", "Q4_0", "Q5_1", "Q4_1")
SHAPE = (512, 2048)


def through(weights: np.ndarray, name: str) -> tuple[np.ndarray, float]:
    """(the matrix after it was written as `name` and read again, bits a weight)."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    kind = GGMLQuantizationType[name]
    stored = quantize(weights, kind)
    return dequantize(stored, kind), 8 * stored.nbytes / weights.size


def row(weights: np.ndarray, name: str, sparsity: float) -> dict[str, Any]:
    """One line of the table."""
    after, bits = through(weights, name)
    dropped = weights == 0
    return {
        "type": name,
        "sparsity": sparsity,
        "bits a weight": round(bits, 4),
        "zeros that stay 0 (%)": round(100 * float((after[dropped] == 0).mean()), 2),
        "kept weights that become 0 (%)": round(100 * float((after[~dropped] == 0).mean()), 2),
    }


def pruned(sparsity: float) -> np.ndarray:
    """A normal float32 matrix whose rows drop what is smallest times its input's norm; norms are log-normal."""
    generator = np.random.default_rng(0)
    weights = generator.standard_normal(SHAPE).astype(np.float32) / SHAPE[1] ** 0.5
    scores = np.abs(weights) * generator.lognormal(sigma=0.5, size=SHAPE[1])
    weights[scores < np.quantile(scores, sparsity, axis=1, keepdims=True)] = 0
    return weights


def main(arguments: argparse.Namespace) -> None:
    """Count, write."""
    write_rows(arguments.output, [row(pruned(sparsity), name, sparsity) for sparsity in (0.5, 0.6) for name in TYPES])


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
