"""What each variant and each as-released switch changes: its row beside the method that it varies."""

from __future__ import annotations

import pandas as pd

from leap_repro.report.crossings import add_over_models, format_ratio, line_rows, minus, shown_lines
from leap_repro.report.layout import Methods, format_difference, seeds_in_words, trained_note
from leap_repro.report.render import Table

NOTES = (
    "Averages are over the models that a variant ran on. Δ: the variant's six-task average minus that of the method it "
    "varies, in points ± standard error, paired over the questions and models of both{seeds}. PPL ratio: geometric "
    "mean over these models of the variant's perplexity divided by the method's, at the longest window. Realised: "
    "share of prunable weights that the hard masks drop."
)


def variants_table(results: pd.DataFrame, outcomes: pd.DataFrame, methods: Methods) -> Table:
    """One row per (variant, sparsity) at which the variant ran; hardened masks throughout."""
    numbers = line_rows(results, methods, [name for name, facts in methods.items() if facts["variant_of"]])
    shown = shown_lines(numbers, methods, "Variant")
    pairs = minus(numbers, numbers["variant_of"], outcomes, methods)
    place = list(numbers.columns).index("perplexity_ratio")
    numbers.insert(place, "difference", [pair.value for pair in pairs])
    numbers.insert(place + 1, "stderr", [pair.stderr for pair in pairs])
    shown["Δ"] = [format_difference(pair.value, pair.stderr) for pair in pairs]
    shown["PPL ratio"] = [format_ratio(ratio) for ratio in numbers["perplexity_ratio"]]
    shown["Realised"] = (100 * numbers["sparsity_actual"]).map("{:.2f} %".format)
    add_over_models(numbers, pairs)
    notes = NOTES.format(seeds=seeds_in_words(results)) + trained_note(numbers["method"], methods)
    return Table("What each variant changes, hardened masks", shown, numbers, notes=notes)
