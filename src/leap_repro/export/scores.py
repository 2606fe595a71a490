"""The scores on a model card: each with its 95 % interval, and what the model was scored on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from leap_repro.export.lineage import Lineage, origin
from leap_repro.store.artifacts import Artifact
from leap_repro.store.questions import TASKS

Z = 1.959964
"""The standard normal's 97.5 % quantile."""
AVERAGE, PERPLEXITY = "average", "perplexity"
HEAD = "| metric | dense | pruned | 95 % interval | how |\n|---|---:|---:|---:|---|"
MADE_UP = "the miniature's synthetic {}, which share only names and formats with the originals"


def metric_rows(evaluated: Artifact | None) -> list[dict[str, Any]]:
    """The rows of an evaluation's metrics; none without one."""
    return pq.read_table(evaluated.file("metrics.parquet")).to_pylist() if evaluated else []


def scores(lineage: Lineage) -> str:
    """What was scored, and a table of all metrics, with the dense model's where it was evaluated in the same way; ""
    if there is no evaluation."""
    rows = metric_rows(lineage.evaluated)
    if not rows:
        return ""
    before = {(row["task"], row["metric"]): row["value"] for row in metric_rows(lineage.dense)}
    lines = []
    for row in rows:
        dense = before.get((row["task"], row["metric"]))
        name = row["metric"] if row["task"] == PERPLEXITY else f"{row['task']} (%)"
        low, high = interval(row, rows)
        numbers = f"{'' if dense is None else f'{dense:.4g}'} | {row['value']:.4g} | {low:.4g} to {high:.4g}"
        lines.append(f"| {name} | {numbers} | {row['protocol']} |")
    told = [f"Accuracies are on {named}." for named in _named(lineage.questions, "questions")]
    told += [f"Perplexities are on {named}." for named in _named(lineage.scored_text, "text")]
    told.append("Intervals of accuracies: Wilson's, over questions; of perplexities: ± 1.96 standard errors.")
    return f"{' '.join(told)}\n\n{HEAD}\n" + "\n".join(lines)


def interval(row: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[float, float]:
    """The 95 % interval of a row among its evaluation's `rows`, in the row's own unit.

    An accuracy's is Wilson's score interval (J. American Statistical Association 22, 1927), which says something even
    of 100 %. The average's is made of its tasks' (Newcombe, Statistics in Medicine 17, 1998, method 10, for a mean).
    """
    value, reach = row["value"], Z * row["stderr"]
    if row["metric"] != "acc":
        return value - reach, value + reach
    if row["task"] != AVERAGE:
        return wilson(value, row["n"])
    tasks = [other for other in rows if other["task"] in TASKS]
    if not tasks:
        return value - reach, value + reach
    ends = [wilson(task["value"], task["n"]) for task in tasks]
    values = [task["value"] for task in tasks]
    below = math.hypot(*(value - low for value, (low, _) in zip(values, ends, strict=True)))
    above = math.hypot(*(high - value for value, (_, high) in zip(values, ends, strict=True)))
    return value - below / len(tasks), value + above / len(tasks)


def wilson(percent: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` questions, in percent."""
    share, extra = percent / 100, Z**2 / count
    middle = share + extra / 2
    reach = Z * math.sqrt(share * (1 - share) / count + extra / (4 * count))
    return 100 * (middle - reach) / (1 + extra), 100 * (middle + reach) / (1 + extra)


def _named(data: Artifact | None, kind: str) -> list[str]:
    """What an evaluation was made on, in words; nothing if it is not known."""
    spec = origin(data)["parameters"]
    source = spec.get("source")
    if source == "bundled":
        return [MADE_UP.format(kind)]
    if source == "path":
        return [f"{kind} of {Path(spec['path']).name}"]
    if source == "hub":
        of = f" of {spec['id']} at {spec['revision']}" if "id" in spec and "revision" in spec else ", at pinned commits"
        return [f"{kind} from the hub{of}"]
    return []
