"""LEAP minus ADMM at every sparsity, per model and in the mean, beside what is published.

`python -m leap_repro.figures.forest`. Differences in points of the six-task average of
hardened masks, paired over questions, with 95 % intervals.
"""

from __future__ import annotations

import argparse

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leap_repro.aggregate.collect import OUTCOMES, read_models
from leap_repro.aggregate.layout import REFERENCE, Methods, called, format_sparsity
from leap_repro.aggregate.published import read_published
from leap_repro.aggregate.statistics import Difference, paired_difference
from leap_repro.cli import json_argument, run_stage
from leap_repro.errors import UserError
from leap_repro.figures.accuracy import MEAN
from leap_repro.figures.style import (
    LEAP,
    LEARNED,
    entries_of,
    figure_parser,
    legend_below,
    panels,
    save,
    use_style,
)

ROW = 0.2
"""Inches of a model's row."""
PUBLISHED = {"marker": "s", "markerfacecolor": "none", "color": "#1A1A1A", "linestyle": "none", "zorder": 4}
COLUMNS = ["model", "sparsity_target", "difference", "stderr", "low", "high", "p_value", "seeds", "questions"]


def compared(methods: Methods) -> tuple[str, str]:
    """What the grid calls LEAP and ADMM; UserError in a grid without one of them."""
    found = called(LEARNED, methods), called(REFERENCE, methods)
    if None in found:
        raise UserError(f"the forest figure compares {LEARNED} with {REFERENCE}; this grid has {[*methods]}")
    return found


def differences(outcomes: pd.DataFrame, methods: Methods, stands_for: dict[str, str | None]) -> pd.DataFrame:
    """A row per sparsity and model, and one for the mean of several models that all have both methods.

    `published`: the paper's difference for the model that ours stands for, NaN without; in the mean's row their mean,
    if there is one for each.
    """
    ours, reference = compared(methods)
    published = published_differences()
    rows = []
    for sparsity, here in outcomes[outcomes["method"].isin([ours, reference])].groupby("sparsity_target"):
        models = list(dict.fromkeys(here["model"]))
        pairs = {model: paired_difference(here[here["model"] == model], ours, reference) for model in models}
        pairs = {model: pair for model, pair in pairs.items() if pair.models}
        theirs = pd.Series({m: published.get((stands_for.get(m), sparsity), float("nan")) for m in pairs}, dtype=float)
        rows += [[*_row(model, sparsity, pair), theirs[model]] for model, pair in pairs.items()]
        if len(pairs) > 1 and len(pairs) == outcomes["model"].nunique():
            rows.append([*_row(MEAN, sparsity, paired_difference(here, ours, reference)), theirs.mean(skipna=False)])
    return pd.DataFrame(rows, columns=[*COLUMNS, "published"])


def _row(model: str, sparsity: float, pair: Difference) -> list:
    return [model, sparsity, pair.value, pair.stderr, *pair.interval, pair.p_value, pair.seeds, pair.questions]


def published_differences() -> dict[tuple[str, float], float]:
    """{(published model, sparsity): LEAP minus ADMM in points, within one source}, unstructured."""
    rows = read_published()
    rows = rows[rows["pattern"] == "unstructured"]
    ours, theirs = (rows[rows["method"] == name] for name in ("LEAP", "ADMM"))
    pairs = ours.merge(theirs, on=["source", "model", "sparsity"], suffixes=("", "_reference"))
    pairs["difference"] = pairs["average"] - pairs["average_reference"]
    return pairs.groupby(["model", "sparsity"])["difference"].first().to_dict()


def plot(data: pd.DataFrame, methods: Methods) -> Figure:
    """One panel per sparsity, two a row; a row per model, the number beside its interval."""
    names = list(dict.fromkeys(data["model"]))
    names = [name for name in names if name != MEAN] + [MEAN] * (MEAN in names)
    ours, reference = (methods[name]["label"] for name in compared(methods))
    sparsities = sorted(data["sparsity_target"].unique())
    height = ROW * len(names) + (0.75 if len(sparsities) < 3 else 0.55)
    xlabel = f"{ours} − {reference} (points)"
    figure, axes = panels(len(sparsities), xlabel, "", height=height, columns=2, sharex=True, sharey=True)
    for axis, sparsity in zip(axes, sparsities, strict=True):
        draw(axis, data[data["sparsity_target"] == sparsity], names, f"{ours} − {reference}, hardened masks")
        axis.set_title(f"{format_sparsity(sparsity)} sparse")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    legend_below(figure, entries_of(*axes), note(data))
    return figure


def draw(axis: Axes, panel: pd.DataFrame, names: list[str], label: str) -> None:
    """One sparsity: points with intervals and numbers, the published as hollow squares, a line at no difference."""
    axis.axvline(0, color="#808080", linewidth=1, zorder=0)
    axis.grid(axis="y", visible=False)
    for is_mean, part in panel.groupby(panel["model"] == MEAN):
        rows = part["model"].map(names.index)
        reach = [part["difference"] - part["low"], part["high"] - part["difference"]]
        look = {"color": LEAP["color"], "linestyle": "none", "elinewidth": 1.6, "capsize": 2}
        named = {"marker": "D"} if is_mean else {"marker": "o", "label": label}
        axis.errorbar(part["difference"], rows, xerr=reach, **look, **named)
        theirs = None if is_mean or part["published"].isna().all() else "published, of the model that it stands for"
        axis.plot(part["published"], rows, label=theirs, **PUBLISHED)
        for row, values in zip(rows, part.itertuples(), strict=True):
            place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
            words = {"fontsize": 7, "fontweight": "bold" if is_mean else "normal"}
            axis.annotate(number(values), (1, row), (4, 0), **place, **words)


def number(values: tuple) -> str:
    """A difference and its interval in words: "+2.59 [+1.20, +3.98]"."""
    return f"{values.difference:+.2f} [{values.low:+.2f}, {values.high:+.2f}]".replace("-", "−")


def note(data: pd.DataFrame) -> str:
    """What the intervals hold."""
    seeds = sorted(data["seeds"].unique())
    held = "questions, of one seed" if seeds == [1] else f"questions and {' or '.join(map(str, seeds))} seeds"
    return f"Bars: 95 % intervals over {held}"


def main(arguments: argparse.Namespace) -> None:
    """Read the outcomes, plot, save."""
    use_style()
    outcomes = read_models(arguments.root, arguments.models, OUTCOMES)
    data = differences(outcomes, arguments.methods, arguments.stands_for)
    save(plot(data, arguments.methods), data, arguments.output)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    found = figure_parser("forest", __doc__)
    found.add_argument("--stands-for", type=json_argument, default={}, help="{model: its name in published tables}")
    return found


if __name__ == "__main__":
    run_stage(main, parser())
