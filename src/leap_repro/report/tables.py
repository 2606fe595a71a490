"""The paper's tables from the collected results: `python -m leap_repro.report.tables`.

One table per model (six tasks, average, perplexity at each length, realised sparsity, difference to ADMM), a main table
over all models (average and perplexity), and those of `variants.py` and `published.py`.
"""

from __future__ import annotations

import argparse

import pandas as pd

from leap_repro.cli import run_stage
from leap_repro.report.command import read, table_parser
from leap_repro.report.crossings import add_over_models
from leap_repro.report.layout import (
    REFERENCE,
    TASK_TITLES,
    Methods,
    best_rows,
    by_sparsity,
    called,
    format_difference,
    format_interval,
    format_perplexity,
    format_sparsity,
    format_spread,
    is_dense,
    label_of,
    perplexity_columns,
    seeds_in_words,
    shares,
    spread_of_mean,
    spreads,
    titled_tasks,
    trained_note,
    unseeded,
    wide,
)
from leap_repro.report.published import published_table
from leap_repro.report.render import Table
from leap_repro.report.statistics import ABSENT, Difference, paired_difference
from leap_repro.report.variants import variants_table

DIFFERENCE = "Δ ADMM"
OVER_MODELS = "Δ over models"
AVERAGE = TASK_TITLES["average"]
WHOLE = "zero-shot"
"""The protocol of a task of which every part was asked."""


def differences(frame: pd.DataFrame, outcomes: pd.DataFrame, methods: Methods) -> list[Difference]:
    """Each row's difference to ADMM, paired answer by answer; ABSENT for Dense and ADMM, and in a grid without ADMM."""
    found, reference = [], called(REFERENCE, methods)
    for row in frame.itertuples():
        if reference is None or row.method == reference or is_dense(row.method, methods):
            found.append(ABSENT)
            continue
        here = outcomes[outcomes["sparsity_target"] == row.sparsity_target]
        found.append(paired_difference(here, row.method, reference, unseeded(methods)))
    return found


def add_differences(shown: pd.DataFrame, numbers: pd.DataFrame, pairs: list[Difference], methods: Methods) -> None:
    """The numbers of differences to ADMM, and their columns, but in a grid without ADMM. The interval over models is
    for more than one model."""
    numbers["difference_to_admm"] = [pair.value for pair in pairs]
    numbers["difference_stderr"] = [pair.stderr for pair in pairs]
    if called(REFERENCE, methods):
        shown[DIFFERENCE] = [format_difference(pair.value, pair.stderr) for pair in pairs]
    if any(pair.models > 1 for pair in pairs):
        add_over_models(numbers, pairs)
        shown[OVER_MODELS] = [format_interval(*pair.models_interval) for pair in pairs]


def notes_of(notes: str, of: str, shown: pd.DataFrame, results: pd.DataFrame) -> str:
    """A table's notes, without what explains a column that it does not have; `of` is what differences are taken of."""
    paired = f"± its standard error, paired over questions{seeds_in_words(results)}"
    words = f"{DIFFERENCE}: difference of the {of} to ADMM {paired}. " if DIFFERENCE in shown else ""
    words += MODELS_NOTE if OVER_MODELS in shown else ""
    several = results["seed"].nunique() > 1
    return notes.format(difference=words, spread=SPREAD if several else "")


SPREAD = (
    "Accuracies and perplexities are means over seeds; ± of an average is its standard deviation over seeds. A method "
    "without ± ran with one seed, or no seed changes it; its Δ is then to the mean of the other's seeds. "
)
MODELS_NOTE = (
    f"{OVER_MODELS}: 95 % interval of Δ over models (Student's t), as if they were drawn from many; Δ ± is for these "
    "models. "
)


def model_table(model: str, results: pd.DataFrame, outcomes: pd.DataFrame, methods: Methods) -> Table:
    """One model's rows: Dense, then every method at every sparsity."""
    frame = by_sparsity(wide(results)).reset_index(drop=True)
    shown = pd.DataFrame({"Sparsity": [format_sparsity(value) for value in frame["sparsity_target"]]})
    shown["Method"] = [label_of(method, methods) for method in frame["method"]]
    numbers = frame.copy()
    bold = set()
    for task, title in titled_tasks(results).items():
        shown[title] = frame[task].map("{:.2f}".format)
        bold |= {(row, title) for row in best_rows(frame, task, False, methods)}
    over = spreads(results)[list(frame[["model", "sparsity_target", "method"]].itertuples(index=False, name=None))]
    shown[AVERAGE] = [format_spread(*pair) for pair in zip(frame["average"], over, strict=True)]
    if over.notna().any():
        numbers["average_sd"] = over.to_numpy()
    add_differences(shown, numbers, differences(frame, outcomes, methods), methods)
    for column in perplexity_columns(frame):
        title = f"PPL {column.split('@')[1]} ↓"
        shown[title] = frame[column].map(format_perplexity)
        bold |= {(row, title) for row in best_rows(frame, column, True, methods)}
    shown["Realised"] = (100 * frame["sparsity_actual"]).map("{:.2f} %".format)
    return Table(
        f"{model}: zero-shot accuracy (%) and perplexity of the hardened masks",
        shown,
        numbers,
        bold,
        f"{notes_of(NOTES, 'average', shown, results)}{trained_note(frame['method'], methods)} "
        f"{shares(results)} {scored(results)}",
    )


def scored(results: pd.DataFrame) -> str:
    """Which text a perplexity is over: window length, BOS and scored tokens of each length, as they were evaluated; and
    which part of the questions was asked, if not all, and how many of them were cut."""
    protocols = results.loc[results["task"] == "perplexity", "protocol"]
    subjects = "".join(f" {title}: {part}." for title, part in _parts(results, "subjects").items())
    text = "Perplexity over: " + "; ".join(dict.fromkeys(protocols)) + "." + subjects + sampled(results)
    cut = "; ".join(f"{title} {part}" for title, part in _parts(results, "tokens").items())
    return f"{text} Questions longer than the model's positions: {cut}." if cut else text


def sampled(results: pd.DataFrame) -> str:
    """A sentence on the tasks of which a sample of the questions was asked; nothing where all were."""
    found = "; ".join(f"{title} {part}" for title, part in _parts(results, "questions").items())
    return f" Questions (a sample, the same in every cell): {found}." if found else ""


def _parts(results: pd.DataFrame, what: str) -> dict[str, str]:
    """{title: "N of M <what>"} of the tasks whose protocol says so."""
    found = {}
    for task, title in titled_tasks(results).items():
        protocols = dict.fromkeys(results.loc[results["task"] == task, "protocol"].fillna(""))
        said = [protocol.split(", ") for protocol in protocols if protocol.startswith(f"{WHOLE}, ")]
        parts = [part for protocol in said for part in protocol if part.endswith(what)]
        if parts:
            found[title] = "; ".join(dict.fromkeys(parts))
    return found


NOTES = (
    "Higher is better, except for perplexity (PPL at the given window length in tokens). Bold: best pruned method at "
    "that sparsity, among those that train weights and among those that do not. {spread}{difference}Realised: share "
    "of prunable weights that the hard mask drops."
)


def main_table(results: pd.DataFrame, outcomes: pd.DataFrame, methods: Methods) -> Table:
    """Average accuracy of every model and of their mean, the mean's difference to ADMM, and mean log perplexity."""
    frame = wide(results)
    models = list(dict.fromkeys(frame["model"]))
    longest = perplexity_columns(frame)[-1]
    accuracy = _by_model(frame, "average")[models]
    perplexity = _by_model(frame, longest)[models]
    accuracy["Mean"] = accuracy.mean(axis=1, skipna=False)
    rows = by_sparsity(accuracy.reset_index()).reset_index(drop=True)
    places = list(zip(rows["sparsity_target"], rows["method"], strict=True))
    perplexity = perplexity.loc[places].reset_index(drop=True)
    shown = pd.DataFrame({"Sparsity": [format_sparsity(value) for value in rows["sparsity_target"]]})
    shown["Method"] = [label_of(method, methods) for method in rows["method"]]
    over = _by_model(spreads(results).rename("sd").reset_index(), "sd").reindex(accuracy.index, columns=models)
    over = over.assign(Mean=spread_of_mean(over)).loc[places].reset_index(drop=True)
    bold = set()
    for column in [*models, "Mean"]:
        cells = pd.Series([format_spread(*pair) for pair in zip(rows[column], over[column], strict=True)])
        if column != "Mean":
            cells = cells + " / " + perplexity[column].map(format_perplexity)
        shown[column] = cells.where(rows[column].notna(), "")
        bold |= {(row, column) for row in best_rows(rows, column, False, methods)}
    everywhere = rows["Mean"].notna()
    pairs = [
        pair if whole else ABSENT for pair, whole in zip(differences(rows, outcomes, methods), everywhere, strict=True)
    ]
    numbers = rows.join(perplexity.add_prefix(f"{longest} "))
    if over.notna().any(axis=None):
        numbers = numbers.join(over.add_prefix("sd "))
    add_differences(shown, numbers, pairs, methods)
    length = longest.split("@")[1]
    caption = f"Average accuracy over six zero-shot tasks (%) / perplexity at {length} tokens, hardened masks"
    notes = notes_of(MAIN_NOTES, "mean", shown, results) + shares(results) + sampled(results)
    notes += trained_note(rows["method"], methods)
    return Table(caption, shown, numbers, bold, notes)


MAIN_NOTES = (
    "Bold: best average accuracy of a pruned method at that sparsity, among those that train weights and among those "
    "that do not. Mean: over the models, which answer the same "
    "questions; only for methods that ran on all of them. {spread}{difference}"
)


def _by_model(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    return frame.pivot_table(index=["sparsity_target", "method"], columns="model", values=column, sort=False)


def build_table(kind: str, results: pd.DataFrame, outcomes: pd.DataFrame, arguments: argparse.Namespace) -> Table:
    """The table of that kind."""
    methods = arguments.methods
    if kind == "model":
        return model_table(arguments.models[0], results, outcomes, methods)
    if kind == "published":
        return published_table(results, outcomes, methods, arguments.stands_for)
    if kind == "main":
        return main_table(_part(results, arguments), _part(outcomes, arguments), methods)
    return variants_table(results, outcomes, methods)


def _part(frame: pd.DataFrame, arguments: argparse.Namespace) -> pd.DataFrame:
    """The rows of the given methods and, if any are given, of the given sparsities."""
    wanted = frame["method"].isin(arguments.methods)
    if arguments.sparsities:
        wanted &= frame["sparsity_target"].isin(arguments.sparsities)
    return frame[wanted]


def main(arguments: argparse.Namespace) -> None:
    """Read the collected tables of the models and write the table in its three forms."""
    build_table(arguments.kind, *read(arguments), arguments).write(arguments.output)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = table_parser("tables", __doc__)
    parser.add_argument("kind", choices=("model", "main", "variants", "published"))
    parser.add_argument("--sparsities", type=float, nargs="*", help="main: sparsities to show; default: all")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
