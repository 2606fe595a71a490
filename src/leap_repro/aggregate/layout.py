"""How tables lay out and word their numbers: one row per (sparsity, method), shared by every table."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from leap_repro.aggregate.statistics import over_seeds

Methods = dict[str, dict[str, Any]]
"""{method: {"module": whose code it runs, "label": how tables call it, "variant_of": the method it varies, or None,
"changes": how it does}}"""

TASK_TITLES = {
    "mmlu": "MMLU",
    "piqa": "PIQA",
    "arc_easy": "ARC-E",
    "arc_challenge": "ARC-C",
    "winogrande": "WinoG",
    "openbookqa": "OBQA",
    "average": "Average",
}
REFERENCE, DENSE = "admm", "dense"
"""The modules of the method that others are compared with, and of the model as it came."""


def is_dense(name: str, methods: Methods) -> bool:
    """Whether a method is the model as it came, whatever the grid calls it."""
    return methods[name]["module"] == DENSE


def called(module: str, methods: Methods) -> str | None:
    """What the grid calls its method of a module, variants left aside; None without one."""
    return next((n for n, facts in methods.items() if facts["module"] == module and not facts["variant_of"]), None)


def shares(results: pd.DataFrame) -> str:
    """What the prunable weights are of all weights in the decoder blocks and in the model, in words for a note."""
    models = results.drop_duplicates("model").set_index("model")
    parts = [
        f"{100 * row.prunable / row.block_parameters:.2f} % of the weights in the decoder blocks and "
        f"{100 * row.prunable / row.parameters:.1f} % of all"
        for row in models.itertuples()
    ]
    if len(parts) > 1:
        parts = [f"{model} {part}" for model, part in zip(models.index, parts, strict=True)]
    return f"Prunable weights: {', '.join(parts)}."


def wide(results: pd.DataFrame) -> pd.DataFrame:
    """One row per (model, sparsity, method) in the order of the results; one column per task and perplexity length."""
    means = over_seeds(results)
    means["column"] = means["task"].where(means["metric"] == "acc", means["metric"])
    order = means[["model", "sparsity_target", "method"]].drop_duplicates()
    values = means.pivot_table(
        index=["model", "sparsity_target", "method"], columns="column", values="value", sort=False
    )
    actual = means.groupby(["model", "sparsity_target", "method"])["sparsity_actual"].first()
    return order.merge(values.join(actual).reset_index(), on=["model", "sparsity_target", "method"])


def titled_tasks(results: pd.DataFrame) -> dict[str, str]:
    """{column: title} of the six tasks and their average, then of the tasks beyond them that were scored."""
    scored = dict.fromkeys(results.loc[results["metric"] == "acc", "task"])
    return TASK_TITLES | {task: task for task in scored if task not in TASK_TITLES}


def perplexity_columns(frame: pd.DataFrame) -> list[str]:
    """ "perplexity@<length>" columns, shortest length first."""
    found = [column for column in frame.columns if column.startswith("perplexity@")]
    return sorted(found, key=lambda column: int(column.split("@")[1]))


def by_sparsity(frame: pd.DataFrame) -> pd.DataFrame:
    """Dense first, then one group per sparsity, methods in the order of the config."""
    position = {method: index for index, method in enumerate(dict.fromkeys(frame["method"]))}
    return frame.sort_values(
        ["sparsity_target", "method"], key=lambda column: column.map(position) if column.name == "method" else column
    )


def best_rows(frame: pd.DataFrame, column: str, lowest: bool) -> set[int]:
    """Positions of the best pruned method of each sparsity, ties included."""
    best = set()
    for sparsity, group in frame.reset_index(drop=True).groupby("sparsity_target"):
        if sparsity > 0:
            target = group[column].min() if lowest else group[column].max()
            best |= set(group.index[group[column] == target])
    return best


def format_sparsity(sparsity: float) -> str:
    """A share as a percentage: 0.5 is "50 %"."""
    return f"{100 * sparsity:g} %"


def format_difference(value: float, stderr: float) -> str:
    """A signed difference with its standard error, in points; empty for NaN."""
    return "" if math.isnan(value) else f"{value:+.2f} ± {stderr:.2f}".replace("-", "−")


def format_perplexity(value: float) -> str:
    """Three decimals below 10, two below 1000, three significant digits above."""
    return f"{value:.3g}" if value >= 1000 else f"{value:.2f}" if value >= 10 else f"{value:.3f}"
