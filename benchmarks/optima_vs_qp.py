"""OPTIMA's exact solve against a general QP solver (OSQP) on the same masks, and how its time grows with width.

    pip install -r envs/benchmarks.txt
    python benchmarks/optima_vs_qp.py --output benchmarks/optima_vs_qp.csv

Square layers, masks by Wanda at 50 %, one thread for both. OSQP solves one row at a time, in float64, with the loosest
tolerance at which its residual is no larger than ours; it is timed on a sample of rows and multiplied up to all of
them (`rows_timed` against `rows`). Two forms: "as written" (all weights free, the dropped ones fixed by equality
constraints: the paper's problem) and "reduced" (the kept weights only, no constraints: part of our own solution).
"""

from __future__ import annotations

import argparse
import math
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import osqp
import scipy.sparse as sparse
import torch
from measure import clock, make_layer, place, write_rows

from leap_repro.cli import run_stage
from leap_repro.prune.layerwise.layer import Layer
from leap_repro.prune.methods import optima, wanda

TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
FORMS = ("as written", "reduced")


def solve_row(form: str, hessian: np.ndarray, weight: np.ndarray, keep: np.ndarray, eps: float) -> np.ndarray:
    """The kept weights' change [n], zero where dropped, by OSQP with the absolute and relative tolerance `eps`."""
    problem, change = osqp.OSQP(), np.zeros(len(weight))
    settings = {"eps_abs": eps, "eps_rel": eps, "max_iter": 100_000, "verbose": False}
    if form == "reduced":
        right = hessian[np.ix_(keep, ~keep)] @ weight[~keep]
        problem.setup(sparse.triu(hessian[np.ix_(keep, keep)], format="csc"), -right, None, None, None, **settings)
        change[keep] = problem.solve(raise_error=True).x
    else:
        fixed = sparse.eye(len(weight), format="csr")[~keep].tocsc()
        bound = -weight[~keep]
        problem.setup(sparse.triu(hessian, format="csc"), 0 * weight, fixed, bound, bound, **settings)
        change[keep] = problem.solve(raise_error=True).x[keep]
    return change


def time_osqp(form: str, layer: Layer, hessian: torch.Tensor, keep: torch.Tensor, rows: int, goal: float) -> dict:
    """Seconds for all rows from a sample of `rows`, and the worst residual in it."""
    sample = torch.linspace(0, len(keep) - 1, rows).long()
    h, w, k = hessian.double().numpy(), layer.weight[sample].double().numpy(), keep[sample].numpy()
    solved = np.zeros_like(w)

    def solve_all(eps: float) -> None:
        for i in range(rows):
            solved[i] = solve_row(form, h, w[i], k[i], eps)

    for eps in TOLERANCES:
        times = clock(partial(solve_all, eps), 1)
        weight, kept = layer.weight[sample], keep[sample]
        residual = optima.kkt_residual(hessian, weight, weight * kept + torch.from_numpy(solved), kept)
        if residual <= goal:
            break
    share = len(keep) / rows
    times |= {unit: round(times[unit] * share, 4) for unit in ("wall_seconds", "cpu_seconds")}
    return {"solver": f"OSQP {osqp.__version__} {form}", "rows_timed": rows, "residual": residual} | times


def time_ours(layer: Layer, keep: torch.Tensor, repeats: int) -> dict[str, Any]:
    """The whole of OPTIMA's reconstruction, float32, residual check included."""
    found = []
    times = clock(lambda: found.append(optima.optimal_values(layer, keep, optima.Options())), repeats)
    return {"solver": "ours", "rows_timed": len(keep), "residual": found[0][1]["kkt_residual"]} | times


@torch.no_grad()
def main(arguments: argparse.Namespace) -> None:
    """One block of the table per width; speedups are ratios of CPU time."""
    torch.set_num_threads(1)
    rows, ours = [], {}
    for width in arguments.widths:
        layer = make_layer(width, width, Fraction(1, 2))
        keep = wanda.prune_layer(layer, wanda.Options()).keep
        hessian = layer.statistics.hessian
        hessian.diagonal().add_(optima.Options().damping * hessian.diagonal().mean())
        block = [time_ours(layer, keep, arguments.repeats)]
        ours[width] = block[0]["cpu_seconds"]
        if width <= arguments.qp_up_to:
            goal = block[0]["residual"]
            block += [time_osqp(form, layer, hessian, keep, arguments.qp_rows, goal) for form in FORMS]
        for row in block:
            slower = round(row["cpu_seconds"] / ours[width], 1)
            residual = f"{row['residual']:.1e}"
            rows.append({"width": width, "rows": width} | row | {"residual": residual, "slower_than_ours": slower})
            rows[-1] |= place()
            print(rows[-1], flush=True)
    exponent = np.polyfit(np.log(list(ours)), np.log(list(ours.values())), 1)[0]
    last = math.log(
        ours[arguments.widths[-1]] / ours[arguments.widths[-2]], arguments.widths[-1] / arguments.widths[-2]
    )
    growth = f"Our time grows like width^{exponent:.1f} over {list(ours)}, like width^{last:.1f} over the last step."
    print(growth)
    write_rows(arguments.output, rows, growth)


def parser() -> argparse.ArgumentParser:
    """The benchmark's arguments."""
    parser = argparse.ArgumentParser(prog="python benchmarks/optima_vs_qp.py", description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 512, 1024, 2048])
    parser.add_argument("--qp-up-to", type=int, default=1024, help="widest layer that OSQP is timed on")
    parser.add_argument("--qp-rows", type=int, default=8, help="rows that OSQP is timed on")
    parser.add_argument("--repeats", type=int, default=1, help="of our solve; the median counts")
    parser.add_argument("--output", required=True, type=Path)
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
