"""The paper's tables from the collected results: `python -m leap_repro.aggregate.tables`.

One table per model (six tasks, average, perplexity at each length, realised sparsity, difference to ADMM) and a main
table over all models (average and perplexity).
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import pandas as pd

from leap_repro.aggregate.collect import OUTCOMES, RESULTS, read_models
from leap_repro.aggregate.render import Table
from leap_repro.aggregate.statistics import over_seeds, paired_difference
from leap_repro.cli import run_stage

TASK_TITLES = {
    "mmlu": "MMLU",
    "piqa": "PIQA",
    "arc_easy": "ARC-E",
    "arc_challenge": "ARC-C",
    "winogrande": "WinoG",
    "openbookqa": "OBQA",
    "average": "Average",
}
REFERENCE = "admm"
DENSE = "dense"
DIFFERENCE = "Δ ADMM"


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


def differences(frame: pd.DataFrame, outcomes: pd.DataFrame) -> list[tuple[float, float]]:
    """(difference to ADMM, standard error) of each row, paired question by question; NaN for Dense and ADMM."""
    found = []
    for row in frame.itertuples():
        if row.method in (DENSE, REFERENCE):
            found.append((math.nan, math.nan))
            continue
        here = outcomes[outcomes["sparsity_target"] == row.sparsity_target]
        found.append(paired_difference(here, row.method, REFERENCE))
    return found


def best_rows(frame: pd.DataFrame, column: str, lowest: bool) -> set[int]:
    """Positions of the best pruned method of each sparsity, ties included."""
    best = set()
    for sparsity, group in frame.reset_index(drop=True).groupby("sparsity_target"):
        if sparsity > 0:
            target = group[column].min() if lowest else group[column].max()
            best |= set(group.index[group[column] == target])
    return best


def model_table(model: str, results: pd.DataFrame, outcomes: pd.DataFrame, labels: dict[str, str]) -> Table:
    """One model's rows: Dense, then every method at every sparsity."""
    frame = by_sparsity(wide(results)).reset_index(drop=True)
    shown = pd.DataFrame({"Sparsity": [_percent(value) for value in frame["sparsity_target"]]})
    shown["Method"] = [labels.get(method, method) for method in frame["method"]]
    numbers = frame.copy()
    bold = set()
    for task, title in TASK_TITLES.items():
        shown[title] = frame[task].map("{:.2f}".format)
        bold |= {(row, title) for row in best_rows(frame, task, lowest=False)}
    pairs = differences(frame, outcomes)
    shown[DIFFERENCE] = [_plus_minus(*pair) for pair in pairs]
    numbers["difference_to_admm"], numbers["difference_stderr"] = zip(*pairs, strict=True)
    for column in perplexity_columns(frame):
        title = f"PPL {column.split('@')[1]} ↓"
        shown[title] = frame[column].map(_perplexity)
        bold |= {(row, title) for row in best_rows(frame, column, lowest=True)}
    shown["Realised"] = (100 * frame["sparsity_actual"]).map("{:.2f} %".format)
    return Table(f"{model}: zero-shot accuracy (%) and perplexity of the hardened masks", shown, numbers, bold, NOTES)


NOTES = (
    "Higher is better but for perplexity (PPL at the given window length in tokens). Bold: best pruned method at that "
    "sparsity. Δ ADMM: difference of the average to ADMM ± its standard error, paired over questions. Realised: share "
    "of prunable weights that the hard mask drops."
)


def main_table(results: pd.DataFrame, outcomes: pd.DataFrame, labels: dict[str, str]) -> Table:
    """Average accuracy of every model and of their mean, the mean's difference to ADMM, and mean log perplexity."""
    frame = wide(results)
    models = list(dict.fromkeys(frame["model"]))
    longest = perplexity_columns(frame)[-1]
    accuracy = _by_model(frame, "average")[models]
    perplexity = _by_model(frame, longest)[models]
    accuracy["Mean"] = accuracy.mean(axis=1)
    rows = by_sparsity(accuracy.reset_index()).reset_index(drop=True)
    perplexity = perplexity.loc[list(zip(rows["sparsity_target"], rows["method"], strict=True))].reset_index(drop=True)
    shown = pd.DataFrame({"Sparsity": [_percent(value) for value in rows["sparsity_target"]]})
    shown["Method"] = [labels.get(method, method) for method in rows["method"]]
    bold = set()
    for column in [*models, "Mean"]:
        cells = rows[column].map("{:.2f}".format)
        if column != "Mean":
            cells = cells + " / " + perplexity[column].map(_perplexity)
        shown[column] = cells
        bold |= {(row, column) for row in best_rows(rows, column, lowest=False)}
    pairs = differences(rows, outcomes)
    shown[DIFFERENCE] = [_plus_minus(*pair) for pair in pairs]
    numbers = rows.join(perplexity.add_prefix(f"{longest} "))
    numbers["difference_to_admm"], numbers["difference_stderr"] = zip(*pairs, strict=True)
    length = longest.split("@")[1]
    caption = f"Average accuracy over six zero-shot tasks (%) / perplexity at {length} tokens, hardened masks"
    return Table(caption, shown, numbers, bold, MAIN_NOTES)


MAIN_NOTES = (
    "Bold: best average accuracy of a pruned method at that sparsity. Mean: over the models. Δ ADMM: difference of the "
    "mean to ADMM ± its standard error, paired over questions (the models answer the same ones)."
)


def _by_model(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    return frame.pivot_table(index=["sparsity_target", "method"], columns="model", values=column, sort=False)


def _percent(sparsity: float) -> str:
    return f"{100 * sparsity:g} %"


def _plus_minus(value: float, stderr: float) -> str:
    return "" if math.isnan(value) else f"{value:+.2f} ± {stderr:.2f}".replace("-", "−")


def _perplexity(value: float) -> str:
    return f"{value:.3g}" if value >= 1000 else f"{value:.2f}" if value >= 10 else f"{value:.3f}"


def main(arguments: argparse.Namespace) -> None:
    """Read the collected tables of the models and write the table in its three forms."""
    results = read_models(arguments.root, arguments.models, RESULTS)
    outcomes = read_models(arguments.root, arguments.models, OUTCOMES)
    labels = json.loads(arguments.labels)
    if arguments.main:
        table = main_table(results, outcomes, labels)
    else:
        table = model_table(arguments.models[0], results, outcomes, labels)
    table.write(arguments.output)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.aggregate.tables", description=__doc__)
    parser.add_argument("--root", required=True, type=Path, help="the scale's results folder")
    parser.add_argument("--models", required=True, nargs="+")
    parser.add_argument("--main", action="store_true", help="the table over all models")
    parser.add_argument("--labels", default="{}", help="JSON, {method: how tables call it}")
    parser.add_argument("--output", required=True, type=Path, help="path without suffix")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
