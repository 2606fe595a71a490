"""How much of the gain OPTIMA's public solver leaves: its calls of MPAX beside the exact optimum, row by row.

    pip install -r envs/benchmarks.txt
    python benchmarks/optima_released.py --output benchmarks/optima_released.csv

The public code minimises d' C d / 2 with C = X'X / n, in float32, by MPAX's restarted primal-dual method: no linear
term, relative tolerance 1e-2, absolute tolerance 1e-2 (the job script's: 1e-3), and as bounds the dropped weights fixed
to within 1e-4. What it finds is rounded to bfloat16 and added to the weights in bfloat16. Without a linear term nothing
is relative but the gap, so inputs and weights of another size are solved to another accuracy.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from measure import clock, make_layer, place, write_rows
from mpax import create_qp, raPDHG
from torch import Tensor

from leap_repro.cli import run_stage
from leap_repro.prune.methods import optima, wanda

ROWS, COLUMNS = 64, 256
SIZES = ((1.0, 1.0), (1.0, 0.05), (0.1, 0.05), (0.1, 0.02))
"""Root mean square of the inputs, and of the weights: a language model's are near 0.02 to 0.05."""
TOLERANCES = (1e-2, 1e-3)


def solve_as_released(covariance: Tensor, weight: Tensor, keep: Tensor, tolerance: float) -> tuple[Tensor, int]:
    """The changes [rows, columns] that the public code's solver finds, in float32, and the most iterations of a row."""
    size, square = weight.shape[1], jnp.array(covariance.numpy())
    none, ones = jnp.zeros((1, size)), jnp.ones((1, size))

    def one(low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
        bound = -1e5 * jnp.ones(1)
        program = create_qp(
            square, jnp.zeros(size), none, jnp.zeros(1), ones, bound, low, high, use_sparse_matrix=False
        )
        solver = raPDHG(eps_abs=tolerance, eps_rel=1e-2, verbose=False, iteration_limit=100_000)
        result = solver.optimize(program)
        return result.primal_solution, result.iteration_count

    low = torch.where(keep, -torch.inf, -weight)
    high = torch.where(keep, torch.inf, -weight + 1e-4)
    changes, iterations = jax.vmap(one)(jnp.array(low.numpy()), jnp.array(high.numpy()))
    return torch.from_numpy(np.array(changes)), int(iterations.max())


def loss(covariance: Tensor, change: Tensor) -> float:
    """The sum over rows of d' C d, in float64."""
    change = change.double()
    return float(((change @ covariance.double()) * change).sum())


def compare(inputs: float, weights: float, tolerance: float) -> dict[str, Any]:
    """The shares of the exact gain on one layer that the public solver, its rounded result and our option recover."""
    layer = make_layer(ROWS, COLUMNS, Fraction(1, 2))
    gram = layer.statistics.gram
    gram *= inputs**2 * layer.statistics.tokens * COLUMNS / gram.diagonal().sum()
    weight, covariance = layer.weight.mul_(weights), gram / layer.statistics.tokens
    keep = wanda.prune_layer(layer, wanda.Options()).keep
    masked = loss(covariance, weight * ~keep)
    exact, ours = (optima.optimal_values(layer, keep, optima.Options(tolerance=each))[0] for each in (0, 0.01))
    found = []
    times = clock(lambda: found.append(solve_as_released(covariance, weight, keep, tolerance)), 1)
    change, iterations = found[0]
    rounded = ((weight.bfloat16() + change.bfloat16()) * keep).float() - weight
    changes = {"recovered": torch.where(keep, change, -weight), "in_bfloat16": rounded, "our_option": ours - weight}
    gain = masked - loss(covariance, exact - weight)
    return (
        {"inputs_rms": inputs, "weights_rms": weights, "tolerance": tolerance, "iterations": iterations}
        | {name: round((masked - loss(covariance, each)) / gain, 3) for name, each in changes.items()}
        | {"cpu_seconds": times["cpu_seconds"], **place()}
    )


@torch.no_grad()
def main(arguments: argparse.Namespace) -> None:
    """A row for each size and tolerance."""
    rows = []
    for size, tolerance in product(SIZES, TOLERANCES):
        rows.append(compare(*size, tolerance))
        print(rows[-1], flush=True)
        layers = f"Layers of {ROWS} x {COLUMNS}, Wanda's masks at 50 %, MPAX {version('mpax')}."
        write_rows(arguments.output, rows, f"{layers} our_option: `tolerance: 0.01`.")


def parser() -> argparse.ArgumentParser:
    """The benchmark's arguments."""
    parser = argparse.ArgumentParser(prog="python benchmarks/optima_released.py", description=__doc__)
    parser.add_argument("--output", required=True, type=Path)
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
