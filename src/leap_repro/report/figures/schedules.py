"""`python -m leap_repro.report.figures.schedules`: LEAP's masks under other schedules of temperature and logit scale.

Left, each variant's six-task average minus LEAP's, paired over questions, with its 95 % interval; right, its change of
perplexity at the longest window. All masks are hardened.
"""

from __future__ import annotations

import argparse
import logging
import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leap_repro.cli import run_stage
from leap_repro.errors import UserError
from leap_repro.report.collect import OUTCOMES, RESULTS, read_models
from leap_repro.report.figures.style import (
    LEAP_LOOK,
    OTHERS,
    entries_of,
    figure_parser,
    legend_below,
    panels,
    save,
    use_style,
)
from leap_repro.report.layout import LEAP, Methods, called, format_sparsity
from leap_repro.report.statistics import paired_difference

log = logging.getLogger(__name__)
GROUPS = {
    "Shape": {"tau_schedule", "kappa_schedule"},
    "Start temperature": {"tau_start"},
    "End temperature": {"tau_end"},
    "Start of the logit scale κ": {"kappa_start"},
    "End of the logit scale κ": {"kappa_end"},
}
"""{group: options}: a variant is of the first group of whose options it changes one, or else of OTHER."""
OTHER = "Other"
ORDER = [*list(GROUPS)[1:], "Shape", OTHER]
ROW = 0.19
"""Inches of a variant's row."""
COLUMNS = ["group", "method", "label", "sparsity_target", "difference", "stderr", "low", "high", "models", "seeds"]
COLUMNS += ["perplexity_change", "perplexity_least", "perplexity_greatest"]


def changes(results: pd.DataFrame, outcomes: pd.DataFrame, methods: Methods) -> pd.DataFrame:
    """A row per variant and sparsity at which both it and LEAP ran, group by group in the order of the results.

    Only models and seeds that both ran on count. Differences in points; changes of perplexity in percent: geometric
    mean over models and seeds, least and greatest of one. UserError without LEAP or without a variant.
    """
    base = called(LEAP, methods)
    shown = [name for name, facts in methods.items() if facts["variant_of"] == base]
    variants = [name for name in dict.fromkeys(results["method"]) if name in shown]
    if base is None or not variants:
        raise UserError(f"the figure of schedules shows {LEAP} and its variants; this grid has {[*methods]}")
    rows = []
    for name in variants:
        for sparsity in sorted(results.loc[results["method"] == name, "sparsity_target"].unique()):
            own, answers = (frame[frame["sparsity_target"] == sparsity] for frame in (results, outcomes))
            pair = paired_difference(answers, name, base)
            facts = [group_of(methods[name]), name, short(methods[name]["label"]), sparsity]
            numbers = [pair.value, pair.stderr, *pair.interval, pair.models, pair.seeds]
            rows += [[*facts, *numbers, *perplexity(own, name, base)]] if pair.models else []
    data = pd.DataFrame(rows, columns=COLUMNS)
    for name in shown:
        if name not in set(data["method"]):
            log.warning("the figure of schedules leaves out %s, because it has no cell in common with %s", name, base)
    return data.sort_values("group", key=lambda column: column.map(ORDER.index), kind="stable", ignore_index=True)


def perplexity(results: pd.DataFrame, name: str, base: str) -> list[float]:
    """[mean, least, greatest] change of perplexity in percent, at the longest window."""
    rows = results[results["task"] == "perplexity"]
    lengths = rows["metric"].str.split("@").str[1].astype(int)
    wide = rows[lengths == lengths.max()].pivot(index=["model", "seed"], columns="method", values="value")
    logs = np.log(wide[name] / wide[base]).dropna()
    return [100 * float(np.expm1(value)) for value in (logs.mean(), logs.min(), logs.max())]


def group_of(facts: dict) -> str:
    """The group that a variant's options put it in: `facts["options"]` are those in which it differs from its base."""
    changed = set(facts["options"])
    return next((group for group, options in GROUPS.items() if options & changed), OTHER)


def short(label: str) -> str:
    """What stands in the label's parentheses: "LEAP (cosine schedules)" is "cosine schedules"."""
    found = re.fullmatch(r"[^()]*\((.*)\)", label)
    return found[1] if found else label


def plot(data: pd.DataFrame, label: str) -> Figure:
    """Two panels with a row per variant under its group's name; `label` is what LEAP is called."""
    places, ticks = rows_of(data)
    height = ROW * (max(ticks) + 2) + 0.5
    figure, (left, right) = panels(2, "", "", height=height, sharey=True, width_ratios=[1.4, 1])
    sparsities = sorted(data["sparsity_target"].unique())
    for number, sparsity in enumerate(sparsities):
        rows = data[data["sparsity_target"] == sparsity]
        shift = 0.22 * (number - (len(sparsities) - 1) / 2)
        draw(left, right, rows, rows["method"].map(places) + shift, number)
    for axis in (left, right):
        axis.axvline(0, color=LEAP_LOOK["color"], linewidth=LEAP_LOOK["linewidth"], zorder=0, label=label)
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
    left.set_xlabel(f"Average accuracy minus {label}'s\n(points, hardened masks)")
    right.set_xlabel("Change of perplexity (%)\nhardened masks")
    left.set_yticks([*ticks], ticks.values())
    left.set_ylim(max(ticks) + 0.6, -0.6)
    for text in left.get_yticklabels():
        text.set_fontweight("bold" if text.get_text() in ORDER else "normal")
    legend_below(figure, entries_of(left), note(data))
    return figure


def rows_of(data: pd.DataFrame) -> tuple[dict[str, int], dict[int, str]]:
    """({method: its row}, {row: what stands beside it}); a group's name has a row of its own."""
    places: dict[str, int] = {}
    ticks: dict[int, str] = {}
    for group, rows in data.groupby("group", sort=False):
        ticks[len(ticks)] = group
        for method, label in dict(zip(rows["method"], rows["label"], strict=True)).items():
            places[method] = len(ticks)
            ticks[len(ticks)] = label
    return places, ticks


def draw(left: Axes, right: Axes, rows: pd.DataFrame, heights: pd.Series, number: int) -> None:
    """The points of one sparsity: intervals on the left, least to greatest on the right."""
    look: dict[str, Any] = OTHERS[number] | {"linestyle": "none", "elinewidth": 1.2, "capsize": 2}
    label = f"variant, {format_sparsity(rows['sparsity_target'].iloc[0])} sparse"
    for axis, (middle, low, high) in (
        (left, ("difference", "low", "high")),
        (right, ("perplexity_change", "perplexity_least", "perplexity_greatest")),
    ):
        reach = [rows[middle] - rows[low], rows[high] - rows[middle]]
        axis.errorbar(rows[middle], heights, xerr=reach, label=label, **look)


def note(data: pd.DataFrame) -> str:
    """What the bars are."""
    seeds = data["seeds"].max()
    held = "questions" if seeds == 1 else f"questions and up to {seeds} seeds"
    return f"Bars, left: 95 % intervals over {held}; right: smallest to largest of a model and seed"


def main(arguments: argparse.Namespace) -> None:
    """Read results and outcomes, plot, save."""
    use_style()
    results, outcomes = (read_models(arguments.root, arguments.models, table) for table in (RESULTS, OUTCOMES))
    data = changes(results, outcomes, arguments.methods)
    save(plot(data, arguments.methods[called(LEAP, arguments.methods)]["label"]), data, arguments.output)


if __name__ == "__main__":
    run_stage(main, figure_parser("schedules", __doc__))
