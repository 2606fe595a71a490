"""How much of the gain OPTIMA's public solver leaves: its calls of MPAX beside the exact optimum, and beside ours.

    pip install -r envs/benchmarks.txt
    python benchmarks/optima_released.py --output benchmarks/optima_released.csv

The public code minimises d' C d / 2 with C = X'X / n, in float32, by MPAX's restarted primal-dual method: no linear
term, absolute and relative tolerance 1e-2 (the job script's: 1e-3), and as bounds the dropped weights fixed to within
1e-4. What it finds is rounded to bfloat16 and added to the weights in bfloat16. What its tolerances are
relative to, the largest gradient and the objective, is as small as inputs and weights are, so that small ones are
solved to the absolute tolerance alone. `ours` is `solver: as_released`, which tests hold to this table.
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
from measure import clock, make_layer, place, resize, write_rows
from mpax import create_qp, raPDHG
from torch import Tensor

from leap_repro.cli import run_stage
from leap_repro.prune.methods import optima, wanda

ROWS, COLUMNS = 64, 256
SIZES = ((1.0, 1.0), (1.0, 0.05), (0.1, 0.05), (0.1, 0.02))
"""Root mean square of the inputs, and of the weights: a language model's are near 0.02 to 0.05."""
TOLERANCES = (1e-2, 1e-3)


def solve_as_released(covariance: Tensor, weight: Tensor, keep: Tensor, tolerance: float) -> tuple[Tensor, int]:
    """The changes [rows, columns] that the public code's solver finds, in float32, and the most iterations of a row, of
    which MPAX reports one less than it makes."""
    size, square = weight.shape[1], jnp.array(covariance.numpy())
    none, ones = jnp.zeros((1, size)), jnp.ones((1, size))

    def one(low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
        bound = -1e5 * jnp.ones(1)
        program = create_qp(
            square, jnp.zeros(size), none, jnp.zeros(1), ones, bound, low, high, use_sparse_matrix=False
        )
        solver = raPDHG(eps_abs=tolerance, eps_rel=tolerance, verbose=False, iteration_limit=100_000)
        result = solver.optimize(program)
        return result.primal_solution, result.iteration_count

    low = torch.where(keep, -torch.inf, -weight)
    high = torch.where(keep, torch.inf, -weight + 1e-4)
    changes, iterations = jax.vmap(one)(jnp.array(low.numpy()), jnp.array(high.numpy()))
    return torch.from_numpy(np.array(changes)), int(iterations.max()) + 1


def loss(covariance: Tensor, change: Tensor) -> float:
    """The sum over rows of d' C d, in float64."""
    change = change.double()
    return float(((change @ covariance.double()) * change).sum())


def compare(inputs: float, weights: float, tolerance: float) -> dict[str, Any]:
    """The shares of the exact gain on one layer that the public solver, its rounded result and our option recover."""
    layer = resize(make_layer(ROWS, COLUMNS, Fraction(1, 2)), inputs, weights)
    weight, covariance = layer.weight, layer.statistics.gram / layer.statistics.tokens
    keep = wanda.prune_layer(layer, wanda.Options()).keep
    exact, _ = optima.optimal_values(layer, keep, optima.Options())
    ours, row = optima.released_values(layer, keep, optima.Options(solver="as_released", tolerance=tolerance))
    found = []
    times = clock(lambda: found.append(solve_as_released(covariance, weight, keep, tolerance)), 1)
    change, iterations = found[0]
    rounded = ((weight.bfloat16() + change.bfloat16()) * keep).float()
    changes = {"recovered": torch.where(keep, change, -weight), "in_bfloat16": rounded - weight, "ours": ours - weight}
    masked = loss(covariance, weight * ~keep)
    gain = masked - loss(covariance, exact - weight)
    return (
        {"inputs_rms": inputs, "weights_rms": weights, "tolerance": tolerance, "iterations": iterations}
        | {"our_iterations": row["iterations"]}
        | {name: round((masked - loss(covariance, each)) / gain, 4) for name, each in changes.items()}
        | {"other_values": round(float((ours != rounded)[keep].double().mean()), 4)}
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
        note = "other_values: the share of kept weights where theirs and ours differ in bfloat16."
        write_rows(arguments.output, rows, f"{layers} {note}")


def parser() -> argparse.ArgumentParser:
    """The benchmark's arguments."""
    parser = argparse.ArgumentParser(prog="python benchmarks/optima_released.py", description=__doc__)
    parser.add_argument("--output", required=True, type=Path)
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
