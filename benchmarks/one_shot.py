"""Time every one-shot method on layers of three shapes: `snakemake --cores 1 benchmark_methods`.

What is timed is the rule itself, by the kernels that a job has, given the layer's input statistics, which every method
shares.
"""

from __future__ import annotations

from leap_repro.portable import pin

pin()  # before torch is loaded

import argparse
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from measure import clock, make_layer, place, write_rows

from leap_repro.cli import json_argument, run_stage
from leap_repro.portable.install import use_portable_kernels
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.run import load_method, load_selector

SHAPES = ((256, 256), (512, 1536), (1024, 4096))


def prune(layer: Layer, description: dict[str, Any]) -> PrunedLayer:
    """One method, by module and options; a reconstruction runs its selector first."""
    method, options = load_method(description["module"], description["options"])
    original = replace(layer, weight=layer.weight.clone())
    selector = load_selector(description.get("selector"))
    if selector is None:
        return method.rule(original, options)
    return method.rule(layer, selector.method.rule(original, selector.options), options)


@torch.no_grad()
def main(arguments: argparse.Namespace) -> None:
    """Time each method on the CPU and, where there is one, on the GPU."""
    rows = []
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    for device, (height, width) in product(devices, arguments.shapes):
        layer = make_layer(height, width, Fraction(arguments.sparsity), device)
        for name, description in arguments.methods.items():
            times = clock(partial(prune, layer, description), arguments.repeats, device)
            sizes = {"rows": height, "columns": width, "sparsity": arguments.sparsity}
            rows.append({"method": name, **sizes, **times, **place(device)})
            print(rows[-1], flush=True)
            write_rows(arguments.output, rows)


def shape(text: str) -> tuple[int, int]:
    """(rows, columns) of "ROWSxCOLUMNS"; ValueError for anything else."""
    rows, columns = map(int, text.split("x"))
    return rows, columns


def parser() -> argparse.ArgumentParser:
    """The benchmark's arguments."""
    parser = argparse.ArgumentParser(prog="python benchmarks/one_shot.py", description=__doc__)
    parser.add_argument("--methods", required=True, type=json_argument, help="{name: {module, options, selector}}")
    parser.add_argument("--shapes", type=shape, nargs="+", default=SHAPES, help="ROWSxCOLUMNS of the layers")
    parser.add_argument("--sparsity", default="0.5")
    parser.add_argument("--repeats", type=int, default=3, help="at most; fewer of a slow method")
    parser.add_argument("--output", required=True, type=Path)
    return parser


if __name__ == "__main__":
    use_portable_kernels("float32")
    run_stage(main, parser())
