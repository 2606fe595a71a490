"""What the benchmarks share: a layer of any size with inputs like a language model's, clocks, and a table that says
where it was measured."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from publish import filled

from leap_repro.prune.layerwise.layer import Layer
from leap_repro.prune.layerwise.statistics import InputStatistics
from leap_repro.seeds import named_seed
from leap_repro.store.atomic import write_text

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_FACTORS = 32
TOKENS_PER_INPUT = 2
ENOUGH_SECONDS = 15.0


def make_layer(rows: int, columns: int, sparsity: Fraction, device: str = "cpu") -> Layer:
    """Normal weights [rows, columns]; inputs with features of different size that share a few strong factors."""
    generator = torch.Generator().manual_seed(named_seed("benchmark", rows, columns))
    tokens = TOKENS_PER_INPUT * columns
    sizes = torch.rand(columns, generator=generator) * 2.7 + 0.3
    factors = torch.randn(SHARED_FACTORS, columns, generator=generator)
    shared = torch.randn(tokens, SHARED_FACTORS, generator=generator) / torch.arange(1, SHARED_FACTORS + 1)
    inputs = torch.randn(tokens, columns, generator=generator) * sizes + shared @ factors
    collected = InputStatistics(columns, torch.device(device), needs_gram=True)
    collected.add(inputs.to(device))
    weight = torch.randn(rows, columns, generator=generator).to(device)
    return Layer(f"layer of {rows} x {columns}", weight, collected, sparsity)


def resize(layer: Layer, inputs: float, weights: float) -> Layer:
    """The layer with inputs of the root mean square `inputs`, and its normal weights times `weights`; in place."""
    gram = layer.statistics.gram
    gram *= inputs**2 * layer.statistics.tokens * len(gram) / gram.diagonal().sum()
    layer.weight.mul_(weights)
    return layer


def clock(function: Callable[[], Any], repeats: int, device: str = "cpu") -> dict[str, Any]:
    """Medians over up to `repeats` runs, fewer once they have used ENOUGH_SECONDS: seconds by the wall, and seconds of
    CPU time, which other jobs on the machine stretch less."""
    wall, cpu = [], []
    while len(cpu) < repeats and sum(cpu) < ENOUGH_SECONDS:
        started, used = time.perf_counter(), time.process_time()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return {
        "repeats": len(cpu),
        "wall_seconds": round(statistics.median(wall), 4),
        "cpu_seconds": round(statistics.median(cpu), 4),
    }


def place(device: str = "cpu") -> dict[str, Any]:
    """The columns that say where and with what a row was measured."""
    machine = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    return {"device": device, "machine": machine, "threads": torch.get_num_threads(), "torch": torch.__version__}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write_rows(path: Path, rows: list[dict[str, Any]], note: str = "") -> None:
    """Write the rows as CSV, and beside it as the Markdown that pages show, with `note` below it.

    What all rows share (the machine, mostly) stands once, above the Markdown table.
    """
    table = pd.DataFrame(rows)
    write_text(path, table.to_csv(index=False, lineterminator="\n"))
    write_text(path.with_suffix(".md"), markdown(table, note))


def add_row(path: Path, row: dict[str, Any], key: tuple[str, ...]) -> None:
    """Put a row into the table in place of an earlier one with the same values of `key`, or below all others."""
    rows = pd.read_csv(path, dtype=str).to_dict("records") if path.exists() else []
    write_rows(path, [old for old in rows if any(str(old[name]) != str(row[name]) for name in key)] + [row])


def markdown(table: pd.DataFrame, note: str) -> str:
    """A pipe table of the columns that differ between rows, and a line of those that do not."""
    same = [column for column in table.columns if len(table) > 1 and table[column].astype(str).nunique() == 1]
    shown = table.drop(columns=same)
    lines = [shown.columns, ["---"] * len(shown.columns), *shown.astype(object).fillna("").astype(str).to_numpy()]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    shared = ", ".join(f"{column} {table[column].iloc[0]}" for column in same)
    parts = (f"In all rows: {shared}." if same else "", body, note)
    return "\n\n".join(part for part in parts if part) + "\n"


def show(page: str) -> None:
    """Put the tables that a page of this repository shows into it, as they now are."""
    path = REPOSITORY / page
    write_text(path, filled(path.read_text(encoding="utf-8"), REPOSITORY))
