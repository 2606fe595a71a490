"""How tables lay out and word their numbers: one row per (sparsity, method), shared by every table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from leap_repro.report.statistics import over_seeds

Methods = dict[str, dict[str, Any]]
"""{method: {"module": whose code it runs, "label": how tables call it, "variant_of": the method it varies, or None,
"changes": how it does, "seeded": whether another seed makes another cell; true if it is not said, "trains_weights":
whether the weights that stay are trained; false if it is not said}}"""

TASK_TITLES = {
    "mmlu": "MMLU",
    "piqa": "PIQA",
    "arc_easy": "ARC-E",
    "arc_challenge": "ARC-C",
    "winogrande": "WinoG",
    "openbookqa": "OBQA",
    "average": "Average",
}
REFERENCE, DENSE, LEAP = "admm", "dense", "leap"
"""The modules of the method that others are compared with, of the model as it came, and of the paper's own."""
TRAINED = "†"
"""The mark of a method that trains the weights that stay: it has more freedom than one that selects a mask, or that
solves for the weights layer by layer."""


def is_dense(name: str, methods: Methods) -> bool:
    """Whether a method is the model as it came, whatever the grid calls it."""
    return methods[name]["module"] == DENSE


def called(module: str, methods: Methods) -> str | None:
    """What the grid calls its method of a module, variants left aside; None without one."""
    return next((n for n, facts in methods.items() if facts["module"] == module and not facts["variant_of"]), None)


def trains_weights(name: str, methods: Methods) -> bool:
    """Whether a method trains the weights that stay."""
    return bool(methods[name].get("trains_weights", False))


def label_of(name: str, methods: Methods) -> str:
    """What tables call a method, with the mark of those that train weights."""
    return methods[name]["label"] + (f" {TRAINED}" if trains_weights(name, methods) else "")


def trained_note(names: Iterable[str], methods: Methods) -> str:
    """What the mark means, for the note of a table that shows these methods; empty without a marked one."""
    marked = any(trains_weights(name, methods) for name in names)
    return f" {TRAINED}: trains the kept weights." if marked else ""


def unseeded(methods: Methods) -> frozenset[str]:
    """The methods that have one run because no seed changes them."""
    return frozenset(n for n, facts in methods.items() if is_dense(n, methods) or not facts.get("seeded", True))


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


def spreads(results: pd.DataFrame) -> pd.Series:
    """The standard deviation over seeds of the six-task average, NaN for one seed, by model, sparsity and method."""
    averages = over_seeds(results[results["task"] == "average"])
    return averages.set_index(["model", "sparsity_target", "method"])["sd"]


def spread_of_mean(spreads: pd.Series | pd.DataFrame) -> float | pd.Series:
    """That of the plain mean over models (the last axis), whose seeds are drawn for each; NaN if one has none."""
    axis = spreads.ndim - 1
    return (spreads**2).sum(axis=axis, skipna=False) ** 0.5 / spreads.shape[axis]


def seeds_in_words(results: pd.DataFrame) -> str:
    """What a paired standard error holds besides questions, for a note."""
    counts = results.groupby(["model", "method", "sparsity_target"])["seed"].nunique()
    most = counts.max()
    if most == 1:
        return " (one seed)"
    return f" and {most} seeds" if counts.min() == most else f" and the up to {most} seeds that both have"


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


def best_rows(frame: pd.DataFrame, column: str, lowest: bool, methods: Methods) -> set[int]:
    """Positions of the best pruned method of each sparsity among those that train weights, and among those that do not,
    ties included."""
    best, trained = set(), [trains_weights(name, methods) for name in frame["method"]]
    for (sparsity, _), group in frame.reset_index(drop=True).groupby(["sparsity_target", trained]):
        if sparsity > 0:
            target = group[column].min() if lowest else group[column].max()
            best |= set(group.index[group[column] == target])
    return best


def format_sparsity(sparsity: float) -> str:
    """A share as a percentage: 0.5 is "50 %"."""
    return f"{100 * sparsity:g} %"


def format_difference(value: float, stderr: float) -> str:
    """A signed difference with its standard error, in points; empty for NaN."""
    return "" if math.isnan(value) else format_spread(value, stderr, "+").replace("-", "−")


def format_interval(low: float, high: float) -> str:
    """The ends of an interval of a difference, in points; empty for NaN."""
    return "" if math.isnan(low) else f"[{low:+.2f}, {high:+.2f}]".replace("-", "−")


def format_p(p: float) -> str:
    """A p-value to three decimals, "< .001" below; empty for NaN."""
    return "" if math.isnan(p) else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def format_spread(value: float, spread: float, sign: str = "") -> str:
    """Two decimals each; the value alone where the spread is NaN."""
    return f"{value:{sign}.2f}" + ("" if math.isnan(spread) else f" ± {spread:.2f}")


def format_perplexity(value: float) -> str:
    """Three decimals below 10, two below 1000, three significant digits above."""
    return f"{value:.3g}" if value >= 1000 else f"{value:.2f}" if value >= 10 else f"{value:.3f}"
