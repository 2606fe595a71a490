"""Does LEAP lead because it has read the answers? `python -m leap_repro.report.fact_free`.

LEAP and ADMM on the usual text and on others. Between the usual text and a control, which is without as many facts that
no question asks for, lies what leaving facts out does by itself; between the control and a text without the tested
facts, what it does that these are the tested ones. A row for each model and for their mean, of LEAP − ADMM, of LEAP and
of ADMM.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from itertools import combinations

import pandas as pd

from leap_repro.cli import run_stage
from leap_repro.errors import UserError
from leap_repro.report.command import read, table_parser
from leap_repro.report.layout import (
    LEAP,
    REFERENCE,
    Methods,
    called,
    format_difference,
    format_interval,
    format_sparsity,
    spread_of_mean,
)
from leap_repro.report.render import Table
from leap_repro.report.statistics import Difference, contrast

USUAL, MEAN = "usual", "mean of the models"
Lines = dict[str, dict[str, str]]
"""{text: {module: the line of the grid that reads it}}, the usual text first."""
Weights = dict[str, int]
"""{method: how often its average counts}"""


def lines_by_text(methods: Methods) -> Lines:
    """LEAP's and ADMM's lines on the usual text, and their variants on others; UserError unless each other text has
    both."""
    base = {module: called(module, methods) for module in (LEAP, REFERENCE)}
    found: Lines = {USUAL: {module: name for module, name in base.items() if name}}
    for name, facts in methods.items():
        if facts.get("text") and facts["variant_of"] and facts["variant_of"] == base.get(facts["module"]):
            found.setdefault(facts["text"], {})[facts["module"]] = name
    for text, lines in found.items():
        if len(lines) < len(base):
            raise UserError(f"on the text {text!r} there is no method of {' and '.join(set(base) - set(lines))}")
    return found


def quantities(lines: dict[str, str]) -> dict[str, Weights]:
    """What is compared over texts, of one text's lines."""
    leap, admm = lines[LEAP], lines[REFERENCE]
    return {"lead": {leap: 1, admm: -1}, LEAP: {leap: 1}, REFERENCE: {admm: 1}}


def fact_free_table(outcomes: pd.DataFrame, methods: Methods) -> Table:
    """Every quantity on every text, its standard deviation over seeds, and its differences between texts."""
    texts = lines_by_text(methods)
    of_texts = {text: quantities(lines) for text, lines in texts.items()}
    titles = {"lead": "LEAP − ADMM", LEAP: methods[texts[USUAL][LEAP]]["label"]}
    titles[REFERENCE] = methods[texts[USUAL][REFERENCE]]["label"]
    named = [name for lines in texts.values() for name in lines.values()]
    rows, shown = [], []
    for sparsity, model, here in _parts(outcomes, named):
        for quantity, title in titles.items():
            weights = {text: own[quantity] for text, own in of_texts.items()}
            number, words = _row(here, weights)
            place = {"sparsity_target": sparsity, "model": model, "quantity": quantity}
            rows.append(place | number)
            shown.append({"Sparsity": format_sparsity(sparsity), "Model": model, "What": title} | words)
    return Table(CAPTION, pd.DataFrame(shown), pd.DataFrame(rows), notes=NOTES, words=3)


def _parts(outcomes: pd.DataFrame, named: list[str]) -> Iterator[tuple[float, str, pd.DataFrame]]:
    """(sparsity, model or MEAN, its answers) where all these methods ran."""
    for sparsity, here in outcomes[outcomes["method"].isin(named)].groupby("sparsity_target"):
        whole = [model for model, own in here.groupby("model", sort=False) if own["method"].nunique() == len(named)]
        yield from ((float(sparsity), model, here[here["model"] == model]) for model in whole)
        if len(whole) > 1:
            yield float(sparsity), MEAN, here[here["model"].isin(whole)]


def _row(outcomes: pd.DataFrame, weights: dict[str, Weights]) -> tuple[dict[str, float], dict[str, str]]:
    """A quantity's numbers, and as they are shown; `weights` by text."""
    numbers: dict[str, float] = {}
    words: dict[str, str] = {}
    for text, own in weights.items():
        found, spread = contrast(outcomes, own), _over_seeds(outcomes, own)
        numbers |= {text: found.value, f"stderr {text}": found.stderr, f"sd {text}": spread, "seeds": found.seeds}
        is_lead = len(own) > 1
        words[f"On {text} text"] = _signed(found) if is_lead else f"{found.value:.2f}"
    words["SD over seeds"] = " / ".join(_rounded(numbers[f"sd {text}"]) for text in weights)
    texts = list(weights)
    neighbours_first = sorted(combinations(texts, 2), key=lambda pair: texts.index(pair[1]) - texts.index(pair[0]))
    for one, other in neighbours_first:
        found, title = contrast(outcomes, minus(weights[one], weights[other])), f"{one} − {other}"
        low, high = found.interval
        numbers |= {title: found.value, f"stderr {title}": found.stderr}
        numbers |= {f"low {title}": low, f"high {title}": high}
        words[title] = f"{_signed(found)} {format_interval(low, high)}"
        numbers[f"p {title}"] = found.p_value
        low, high = found.models_interval
        numbers |= {f"low over models {title}": low, f"high over models {title}": high}
    return numbers, words


def minus(weights: Weights, other: Weights) -> Weights:
    """One sum of averages less another, of other methods."""
    return weights | {name: -weight for name, weight in other.items()}


def _over_seeds(outcomes: pd.DataFrame, weights: Weights) -> float:
    """The standard deviation over seeds, which are drawn for each model, of a sum of averages; NaN of one seed."""
    own = outcomes[outcomes["method"].isin(weights)]
    by_task = own.groupby(["model", "method", "seed", "task"])["correct"].mean()
    averages = 100 * by_task.groupby(["model", "method", "seed"]).mean().unstack("method")
    totals = pd.Series(0.0, averages.index)
    for name, weight in weights.items():
        totals += weight * averages[name]
    return float(spread_of_mean(totals.groupby("model").std()))


def _signed(found: Difference) -> str:
    return format_difference(found.value, found.stderr)


def _rounded(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


CAPTION = "LEAP and ADMM on text with and without the tested facts, hardened masks"
NOTES = (
    "Points of the six-task average; ± is a standard error, which covers questions and seeds, and brackets are its "
    "95 % interval for these models; the CSV has the intervals over models. SD over seeds: on each text, in the order "
    "of the columns. The control text lacks as many facts as the fact-free text, but no tested one: usual − control is "
    "the effect of fewer facts, and control − fact-free is the effect of the tested facts. Dense is the same on all "
    "texts. See docs/fact-free.md."
)


def main(arguments: argparse.Namespace) -> None:
    """Read the collected tables of the models and write the table."""
    _, outcomes = read(arguments)
    fact_free_table(outcomes, arguments.methods).write(arguments.output)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    return table_parser("fact_free", __doc__)


if __name__ == "__main__":
    run_stage(main, parser())
