"""Our numbers beside the published ones, never mixed: each keeps its own column and the published ones their source.

`data/published_results.csv` holds every published number that could be found (model, method, pattern, sparsity, task,
metric, value, window length or note, source). A miniature stands for a model but is not one: only the signs and the
orderings of differences compare, so the table shows differences and whether their signs agree.
"""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

from leap_repro.report.layout import (
    DENSE,
    REFERENCE,
    Methods,
    called,
    format_difference,
    format_perplexity,
    format_sparsity,
    label_of,
    seeds_in_words,
    trained_note,
    unseeded,
    wide,
)
from leap_repro.report.render import Table
from leap_repro.report.statistics import paired_difference
from leap_repro.sparsity.patterns import DENSE_TILES

log = logging.getLogger(__name__)
PUBLISHED = Path(__file__).parent / "data" / "published_results.csv"
KEY = ["source", "model", "method", "pattern", "sparsity"]
TILES = "dense/2:4"
"""What published tables call tiles of either kind, whatever their size."""
ADDRESSES = {
    "LEAP authors README (branch leap)": "https://github.com/Paramathic/patch/tree/leap",
    "OPTIMA authors README (arXiv 2512.13886)": "https://github.com/Paramathic/optima",
    "PATCH release metadata (arXiv 2509.23410)": "https://github.com/Paramathic/patch",
    "public reading notes of the paper (secondary; arXiv 2605.17289)": "https://arxiv.org/abs/2605.17289 is the paper",
}
"""{source: where it, or what it is about, can be read}"""
REFERENCES = {"Dense": DENSE, "ADMM": REFERENCE}


def read_published(path: Path = PUBLISHED) -> pd.DataFrame:
    """One row per published cell (KEY): `average` over the six tasks in percent, `perplexity` and its `length`."""
    rows = pd.read_csv(path, dtype={"seqlen_or_note": str})
    average = rows[rows["task"] == "average_6"].set_index(KEY)["value"].rename("average")
    perplexity = rows[rows["metric"] == "perplexity"].set_index(KEY)
    perplexity = perplexity[["value", "seqlen_or_note"]].set_axis(["perplexity", "length"], axis=1)
    return average.to_frame().join(perplexity).reset_index()


def published_table(
    results: pd.DataFrame, outcomes: pd.DataFrame, methods: Methods, stands_for: dict[str, str | None]
) -> Table:
    """A row per published pruned cell that this grid also ran, matched by label, pattern and sparsity.

    `stands_for` maps our models to the published names. Differences are taken within a source, to its own Dense and
    ADMM rows; ours are paired answer by answer.
    """
    published = read_published()
    _tell_renamed(published, methods)
    frame = wide(results).merge(results.groupby("method", as_index=False)["pattern"].first())
    rows = []
    for row in frame[frame["sparsity_target"] > 0].itertuples():
        theirs = published[
            (published["model"] == stands_for.get(row.model))
            & (published["method"] == _published_method(row, frame, methods))
            & (published["pattern"] == (TILES if DENSE_TILES in row.pattern else row.pattern))
            & (published["sparsity"] == row.sparsity_target)
        ]
        rows += [_row(cell, row, published, outcomes, methods) for cell in theirs.itertuples()]
    columns = ["model", "stands_for", "sparsity", "method", "pattern", "published_average", "average"]
    columns += [
        f"{kind}{name}" for name in REFERENCES.values() for kind in ("published_minus_", "minus_", "stderr_minus_")
    ]
    numbers = pd.DataFrame(rows, columns=[*columns, "published_perplexity", "published_length", "source"])
    notes = NOTES.format(seeds=seeds_in_words(results)) + trained_note(numbers["method"], methods) + _addresses(numbers)
    return Table(_caption(numbers), _shown(numbers, methods), numbers, notes=notes)


def _tell_renamed(published: pd.DataFrame, methods: Methods) -> None:
    """Warn of every line whose method is published, under another label than the line has: it gets no row."""
    names = set(published["method"])
    modules = {part for name in names for part in re.split("[-+]", name.lower())}
    for name, facts in methods.items():
        if not facts["variant_of"] and facts["module"] in modules and _head(facts["label"]) not in names:
            words = "the published table leaves out %s: no published method is called %r; they are %s"
            log.warning(words, name, _head(facts["label"]), sorted(names))


def _head(label: str) -> str:
    """A label without what stands in parentheses at its end."""
    return label.split(" (")[0]


def _published_method(row: Any, frame: pd.DataFrame, methods: Methods) -> str | None:
    """What published tables call the method: the label that it varies if only its pattern does, else its own.

    Other variants (as released, ablations) have no published row.
    """
    base = methods[row.method]["variant_of"]
    if base and (frame.loc[frame["method"] == base, "pattern"] == row.pattern).any():
        return None
    return _head(methods[base or row.method]["label"])


def _row(cell: Any, ours: Any, published: pd.DataFrame, outcomes: pd.DataFrame, methods: Methods) -> list:
    numbers = [ours.model, cell.model, cell.sparsity, ours.method, cell.pattern, cell.average, ours.average]
    peers = published[(published["source"] == cell.source) & (published["model"] == cell.model)]
    for label, name in REFERENCES.items():
        reference = peers[(peers["method"] == label) & peers["sparsity"].isin([0, cell.sparsity])]
        theirs = cell.average - reference["average"].iloc[0] if len(reference) and cell.method != label else math.nan
        numbers += [theirs, *_our_difference(ours, called(name, methods), methods, outcomes)]
    return [*numbers, cell.perplexity, cell.length, cell.source]


def _our_difference(ours: Any, reference: str | None, methods: Methods, outcomes: pd.DataFrame) -> tuple[float, float]:
    """(our average minus the reference's on the same model, standard error), NaN where there is nothing to compare."""
    if reference is None or ours.method == reference:
        return math.nan, math.nan
    own, at = outcomes[outcomes["model"] == ours.model], ours.sparsity_target
    sparsity = own["method"].map({ours.method: at, reference: at} | {called(DENSE, methods): 0.0})
    here = own[own["sparsity_target"] == sparsity]
    found = paired_difference(here, ours.method, reference, unseeded(methods))
    return found.value, found.stderr


def published_differences(label: str, reference: str = "ADMM") -> dict[tuple[str, float], float]:
    """{(model, sparsity): published average of the method of that label minus that of the reference}, within a source;
    empty where none has both."""
    cells = read_published().set_index(["source", "model", "sparsity", "method"])["average"].unstack("method")
    if label not in cells:
        return {}
    return (cells[label] - cells[reference]).dropna().groupby(["model", "sparsity"]).first().to_dict()


def signs(numbers: pd.DataFrame, reference: str) -> tuple[int, int]:
    """(differences to `reference` whose sign is the published one's, differences that both have)."""
    both = numbers.dropna(subset=[f"published_minus_{reference}", f"minus_{reference}"])
    same = (both[f"published_minus_{reference}"] > 0) == (both[f"minus_{reference}"] > 0)
    return int(same.sum()), len(both)


def _addresses(numbers: pd.DataFrame) -> str:
    """Where the sources of the rows can be read, for the note."""
    sources = dict.fromkeys(numbers["source"])
    return f" Sources: {'; '.join(f'{source}: {ADDRESSES[source]}' for source in sources)}." if sources else ""


def _caption(numbers: pd.DataFrame) -> str:
    same, both = signs(numbers, REFERENCE)
    said = f"{same} of {both} differences to ADMM have the published sign"  # those to Dense can hardly have another
    return f"Comparison with published numbers, hardened masks: {said}"


def _shown(numbers: pd.DataFrame, methods: Methods) -> pd.DataFrame:
    shown = pd.DataFrame({"Published model": numbers["stands_for"], "Ours": numbers["model"]})
    shown["Sparsity"] = numbers["sparsity"].map(format_sparsity)
    shown["Method"] = [label_of(name, methods) for name in numbers["method"]]
    shown["Published average"] = numbers["published_average"].map("{:.2f}".format)
    shown["Our average"] = numbers["average"].map("{:.2f}".format)
    for label, name in REFERENCES.items():
        shown[f"Published Δ {label}"] = [signed(value) for value in numbers[f"published_minus_{name}"]]
        pairs = zip(numbers[f"minus_{name}"], numbers[f"stderr_minus_{name}"], strict=True)
        shown[f"Our Δ {label}"] = [format_difference(*pair) for pair in pairs]
    lengths = numbers["published_length"].fillna("")
    ppl = [format_perplexity(value) for value in numbers["published_perplexity"]]
    shown["Published PPL (length)"] = [f"{value} ({length})" for value, length in zip(ppl, lengths, strict=True)]
    shown["Source"] = numbers["source"]
    return shown


def signed(value: float) -> str:
    """A difference in points with its sign; empty for NaN."""
    return "" if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


NOTES = (
    "Average: six zero-shot tasks, in percent. Δ: difference in points within a source, or within our run (± standard "
    "error, paired over questions{seeds}). A miniature is not the published model that it stands for: compare signs "
    "and orderings, never values. Published perplexities are of WikiText-2, with the window length that the source "
    "states."
)
