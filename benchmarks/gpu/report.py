"""Pages from the rows: a section for each machine and commit, a table for each part with rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from measure import REPOSITORY

from gpu.rows import ERROR, Row
from gpu.scores import real_table
from gpu.tables import fields, of_part, table
from leap_repro.errors import UserError
from leap_repro.store.atomic import write_text

PAGE, KEPT = Path("benchmarks/gpu.md"), Path("benchmarks/gpu.jsonl")
EXAMPLE = Path("examples/smollm2/gpu.md")
PLACE = ("device", "machine", "threads", "torch", "commit", "tiny")
"""Facts of a row that its section tells."""
DENSE, OPTIMISER = "dense", "float32"


def write_pages(rows: Sequence[Row], output: Path | None) -> None:
    """Write tables, the example's page and the rows, into the repository or a folder in its place.

    UserError without any row, and for a rehearsal's rows that would be published.
    """
    good = [row for row in rows if ERROR not in row]
    if not good:
        raise UserError("there is no row to report: run a part first")
    if output is None and any(row["tiny"] for row in good):
        raise UserError("rows of a rehearsal (--tiny) are not published: give --output FOLDER")
    top = output or REPOSITORY
    write_text(top / PAGE, page(rows, "What a GPU showed", TABLES))
    if any(row["part"] == "real" for row in good):
        write_text(top / EXAMPLE, page(rows, "A real model pruned on a GPU", {"": real_table}))
    write_text(top / KEPT, "".join(json.dumps(row) + "\n" for row in rows))


def page(rows: Sequence[Row], title: str, tables: dict[str, Callable[[list[Row]], str]]) -> str:
    """One page in Markdown."""
    text = [f"# {title}", "Written by `python benchmarks/gpu_quarter.py report`; see docs/gpu.md."]
    for place in dict.fromkeys(map(place_of, rows)):
        text.append(f"## {place}")
        here = [row for row in rows if place_of(row) == place]
        for heading, made in tables.items():
            found = made([row for row in here if ERROR not in row])
            text += [f"### {heading}"] * bool(found and heading) + [found] * bool(found)
        text += _failures(here)
    return "\n\n".join(text) + "\n"


def place_of(row: Row) -> str:
    """Where, with what and of which code a row was measured."""
    rehearsal = ": a rehearsal, which says nothing of speed" if row["tiny"] else ""
    return f"{row['machine']}, torch {row['torch']}, commit {row['commit']}{rehearsal}"


def _failures(rows: Iterable[Row]) -> list[str]:
    """What was tried and not measured, told as it is."""
    found = [row for row in rows if ERROR in row]
    lines = [f"* {_key(row)}: {row[ERROR]}" for row in found if not _measured_later(row, rows)]
    return ["Not measured:", "\n".join(lines)] if lines else []


def _key(row: Row) -> str:
    named = {name: value for name, value in row.items() if name not in (ERROR, *PLACE)}
    return ", ".join(f"{name} {value}" for name, value in named.items())


def _measured_later(failed: Row, rows: Iterable[Row]) -> bool:
    key = {name: value for name, value in failed.items() if name != ERROR}
    return any(ERROR not in row and key.items() <= row.items() for row in rows)


def steps_table(rows: list[Row]) -> str:
    """Steps by way, each beside the dense one of its shape and setting."""
    columns = fields(
        *("shape", "layers", "of_layers", "recompute", "micro", "compiled", "way"),
        micro_batch_seconds="micro-batch, s",
        once_seconds="once a step, s",
        paper_step_seconds="paper's step, s",
    )
    columns |= {"over dense": lambda row: over_dense(row, rows)} | fields(allocated_gb="peak, GB")
    return table((row for row in rows if row["part"] == "step"), columns)


def over_dense(row: Row, rows: list[Row]) -> float:
    """The paper's step by this way over a dense one with the same optimiser; NaN without one."""
    named = ("shape", "layers", "recompute", "micro", "compiled", "length")
    same = {name: row[name] for name in named}
    same |= {"part": "step", "way": DENSE}
    dense = [one for one in rows if same.items() <= one.items()]
    wanted = {"part": "optimiser", "shape": row["shape"], "optimiser": OPTIMISER}
    optimiser = [one for one in rows if wanted.items() <= one.items()]
    if row["way"] == DENSE or not dense or not optimiser:
        return math.nan
    return row["paper_step_seconds"] / (dense[-1]["paper_step_seconds"] + optimiser[-1]["seconds"])


TABLES: dict[str, Callable[[list[Row]], str]] = {
    "The device": of_part(
        "env",
        fields(
            *("copy_tb_s", "bfloat16_tflops", "float32_tflops"),
            *("multiprocessors", "memory_gb", "transformers"),
        ),
    ),
    "The kernels of the gates": of_part(
        "kernels",
        fields(
            *("rows", "columns", "logits", "product_error", "gradient_error", "sum_error"),
            "same_bits_again",
            *("forward_tb_s", "forward_of_copy", "backward_tb_s", "backward_of_copy"),
        ),
    ),
    "A step": steps_table,
    "The optimiser's part of a step": of_part(
        "optimiser",
        fields("shape", "layers", "optimiser", "logits", "seconds", allocated_gb="peak, GB"),
    ),
    "The low-memory line on a whole model": of_part(
        "memory",
        fields(
            *("shape", "layers", "way", "predicted_gb", "allocated_gb", "reserved_gb", "seconds"),
        ),
    ),
    "Choosing the smallest of many": of_part(
        "select",
        fields("numbers", "kthvalue_seconds", "sort_seconds", "same"),
    ),
    "One-shot methods, one matrix": of_part(
        "one_shot",
        fields("method", "rows", "columns", "kept", "seconds"),
    ),
    "The same training again": of_part(
        "repeat",
        fields(
            *("shape", "recompute", "strictly_deterministic"),
            *("same_again", "same_resumed", "resumed_after_step"),
        ),
    ),
    "The recorded loss curve": of_part("curve", fields("dtype", "within_bound", "said")),
    "A real model": real_table,
}
