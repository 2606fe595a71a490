"""OPTIMA's two solvers on the same masks: a factor for each row, and conjugate gradients with the shared Hessian.

    python benchmarks/optima_solvers.py --output benchmarks/optima_solvers.csv
    python benchmarks/optima_solvers.py --output … --model FOLDER --tokens SHARD --block 3     # real inputs, rows added

Masks by Wanda, seconds of CPU time. Factors are timed on a sample of rows and multiplied up. `gflops`: operations that
`operations.py` counts for the steps taken, per second. `residual`: the worst row's, relative to its right side.
`excess`: the worst sampled row's output error above that of its factor's answer, relative. `taken`: by the rule.
"""

from __future__ import annotations

from leap_repro.portable import pin

pin()  # before torch is loaded

import argparse
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import add_row, clock, make_layer, place
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from leap_repro.cli import run_stage
from leap_repro.portable.install import use_portable_kernels
from leap_repro.prune.layerwise import operations
from leap_repro.prune.layerwise.conjugate_gradients import Solved, solve_by_gradients
from leap_repro.prune.layerwise.layer import Layer
from leap_repro.prune.layerwise.masked_solve import solve_exactly
from leap_repro.prune.layerwise.statistics import InputStatistics
from leap_repro.prune.methods import wanda

MATRICES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")


def real_layers(folder: Path, shard: Path, block: int, tokens: int, sparsity: Fraction) -> Iterator[Layer]:
    """Four matrices of one block of a Llama with the inputs that `tokens` tokens of a shard give them, dense."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.model.layers = model.model.layers[: block + 1]
    found = {name: model.model.layers[block].get_submodule(name) for name in MATRICES}
    statistics = {name: InputStatistics(m.in_features, torch.device("cpu"), True) for name, m in found.items()}
    for name, module in found.items():
        module.register_forward_pre_hook(lambda _, x, name=name: statistics[name].add(x[0].flatten(0, -2)))
    sequences = next(iter(load_file(shard).values())).long()
    for sequence in sequences[: -(-tokens // sequences.shape[1])]:
        model.model(sequence.unsqueeze(0))
    for name, module in found.items():
        yield Layer(f"{name} of block {block}", module.weight.clone(), statistics[name], sparsity)


def compare(layer: Layer, rows_timed: int) -> dict[str, Any]:
    """A row of the table."""
    weight, hessian = layer.weight, layer.statistics.hessian
    keep = wanda.prune_layer(layer, wanda.Options()).keep
    right, (rows, columns), kept = weight * ~keep @ hessian * keep, keep.shape, float(keep.sum()) / len(keep)
    sample = torch.linspace(0, rows - 1, min(rows, rows_timed)).long()
    found: list[Solved] = []
    one = clock(lambda: found.append(factored(hessian, right[sample], keep[sample], layer.name)), 1)["cpu_seconds"]
    other = clock(lambda: found.append(solve_by_gradients(hessian, right, keep)), 1)["cpu_seconds"]
    one = round(one * rows / len(sample), 4)
    counted = operations.of_factors(rows, kept), operations.of_gradients(rows, columns, found[1].steps)
    change = [(x - (weight * ~keep)[sample]).double() for x in (found[0].x, found[1].x[sample])]
    error, approximate = (((each @ hessian.double()) * each).sum(dim=1) for each in change)
    return {
        "inputs": layer.name,
        "columns": columns,
        "rows": rows,
        "taken": "gradients" if operations.gradients_pay(rows, columns, kept) else "factors",
        "factors_seconds": one,
        "gradients_seconds": other,
        "times_faster": round(one / max(other, 1e-4), 1),
        "steps": found[1].steps,
        "factors_residual": f"{float(found[0].residual.max()):.1e}",
        "gradients_residual": f"{float(found[1].residual.max()):.1e}",
        "excess": f"{float(((approximate - error) / error).max()):.0e}",
        "factors_gflops": round(counted[0] / max(one, 1e-4) / 1e9, 1),
        "gradients_gflops": round(counted[1] / max(other, 1e-4) / 1e9, 1),
        "rows_timed": len(sample),
    } | place()


def factored(hessian: Tensor, right: Tensor, keep: Tensor, name: str) -> Solved:
    """The factors' answer, with its residual."""
    x = solve_exactly(hessian, right, keep, name)
    return Solved(x, ((right - x @ hessian) * keep).norm(dim=1) / right.norm(dim=1), 0)


@torch.no_grad()
def main(arguments: argparse.Namespace) -> None:
    """Rows for layers with made inputs, or for a model's block."""
    torch.set_num_threads(1)
    sparsity = Fraction(arguments.sparsity)
    layers = [partial(make_layer, min(width, arguments.rows), width, sparsity) for width in arguments.widths]
    if arguments.model:
        found = real_layers(arguments.model, arguments.tokens, arguments.block, arguments.token_count, sparsity)
        layers = [partial(_named, arguments.model_name, layer) for layer in found]
    for make in layers:
        row = compare(make(), arguments.rows_timed)
        print(row, flush=True)
        add_row(arguments.output, row, ("inputs",))


def _named(model: str, layer: Layer) -> Layer:
    return Layer(f"{model}: {layer.name}", layer.weight, layer.statistics, layer.sparsity)


def parser() -> argparse.ArgumentParser:
    """The benchmark's arguments."""
    parser = argparse.ArgumentParser(prog="python benchmarks/optima_solvers.py", description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--rows", type=int, default=1024, help="of layers with made inputs, at most")
    parser.add_argument("--sparsity", default="0.5")
    parser.add_argument("--rows-timed", type=int, default=32, help="rows that factors are timed on, at most")
    parser.add_argument("--model", type=Path, help="folder of a Llama whose inputs are used instead of made ones")
    parser.add_argument("--model-name", default="a model", help="what the table calls it")
    parser.add_argument("--tokens", type=Path, help="its token shard")
    parser.add_argument("--token-count", type=int, default=16384, help="tokens of the shard, at least")
    parser.add_argument("--block", type=int, default=0)
    parser.add_argument("--output", required=True, type=Path)
    return parser


if __name__ == "__main__":
    use_portable_kernels("float32")
    run_stage(main, parser())
