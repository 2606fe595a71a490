"""The cells of the real model in one table, each beside ADMM on the same text."""

from __future__ import annotations

import base64
import math
from functools import partial

import numpy as np

from gpu.folder import C4
from gpu.rows import Row
from gpu.tables import table

REFERENCE = {"cell": "admm", "calibration": "all"}
"""ADMM calibrated on all of the text that LEAP is trained on."""


def real_table(rows: list[Row]) -> str:
    """Perplexities and the tasks' average, with paired differences to ADMM; empty without rows."""
    cells = [row for row in rows if row["part"] == "real"]
    if not cells:
        return ""
    texts = list(cells[0]["perplexity"])
    columns = {
        "sparsity": lambda row: row.get("sparsity"),
        "method": name_of,
        "text": lambda row: row.get("text"),
        "tokens": lambda row: row.get("tokens") or row.get("calibration_tokens"),
        **{f"PPL, {text}": lambda row, text=text: row["perplexity"][text] for text in texts},
        **{f"ln PPL − ADMM's, {text}": partial(log_ratio, cells, text) for text in texts},
        "six tasks, %": lambda row: average(row["accuracy"]),
        "− ADMM's": lambda row: points(row, cells),
        "changed of the start": lambda row: row.get("changed_of_start"),
        "tokens/s": lambda row: row.get("tokens_a_second"),
        "seconds": lambda row: row.get("seconds"),
    }
    in_order = sorted(cells, key=lambda row: (row.get("sparsity", "0"), row.get("text", "")))
    return f"{table(in_order, columns)}\n\n{note(cells)}"


def note(cells: list[Row]) -> str:
    """What stands below the table."""
    tasks, asked = cells[0]["accuracy"], cells[0]["task_questions"]
    questions = ", ".join(f"{name} {count}" for name, count in zip(tasks, asked, strict=True))
    windows = ", ".join(f"{name} {len(found)}" for name, found in cells[0]["window_losses"].items())
    return (
        "Differences are to ADMM calibrated on all of the text that LEAP reads, ± one standard error: "
        "of log perplexities paired over windows, of accuracies paired over questions; what another "
        f"seed of a training would change is not in it. Windows: {windows}. Questions: {questions}."
    )


def name_of(row: Row) -> str:
    """What the table calls a cell."""
    return f"LEAP, {row['schedule']}" if row["cell"] == "leap" else row["cell"]


def average(accuracy: dict[str, float]) -> float:
    """The plain mean over tasks, percent."""
    return sum(accuracy.values()) / len(accuracy)


def reference(row: Row, cells: list[Row]) -> Row | None:
    """ADMM's cell at the row's sparsity, if there is one and the row is another."""
    wanted = REFERENCE | {"sparsity": row.get("sparsity"), "text": row.get("text", C4)}
    found = next((cell for cell in cells if wanted.items() <= cell.items()), None)
    return None if found is row else found


def log_ratio(cells: list[Row], text: str, row: Row) -> str:
    """ln(PPL / PPL of ADMM) ± its standard error over windows."""
    other = reference(row, cells)
    if other is None:
        return ""
    gaps = np.subtract(row["window_losses"][text], other["window_losses"][text])
    return f"{gaps.mean():+.4f} ± {gaps.std(ddof=1) / math.sqrt(len(gaps)):.4f}"


def points(row: Row, cells: list[Row]) -> str:
    """The six tasks' average minus ADMM's in points ± its standard error over questions."""
    other = reference(row, cells)
    if other is None:
        return ""
    gaps = 100.0 * (right_answers(row) - right_answers(other))
    ends = np.cumsum(row["task_questions"])[:-1]
    by_task = np.split(gaps, ends)
    means = [part.mean() for part in by_task]
    errors = [part.std(ddof=1) / math.sqrt(len(part)) for part in by_task]
    return f"{np.mean(means):+.2f} ± {math.hypot(*errors) / len(errors):.2f}"


def right_answers(row: Row) -> np.ndarray:
    """1 or 0 for each question, task by task."""
    packed = np.frombuffer(base64.b64decode(row["answers"]), dtype=np.uint8)
    return np.unpackbits(packed, count=sum(row["task_questions"])).astype(np.int8)
