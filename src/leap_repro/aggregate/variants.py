"""What each variant and each as-released switch changes: its row beside the method that it varies."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from leap_repro.aggregate.layout import (
    Methods,
    format_difference,
    format_sparsity,
    perplexity_columns,
    wide,
)
from leap_repro.aggregate.render import Table
from leap_repro.aggregate.statistics import paired_difference

NOTES = (
    "Averages over the models that a variant ran on. Δ: the variant's six-task average minus that of the method it "
    "varies, in points ± standard error, paired over the questions and models of both. PPL ratio: geometric mean over "
    "these models of the variant's perplexity divided by the method's, at the longest window. Realised: share of "
    "prunable weights that the hard masks drop."
)


COLUMNS = ["method", "variant_of", "models", "sparsity_target", "average", "difference", "stderr"]
COLUMNS += ["perplexity_ratio", "sparsity_actual"]


def variants_table(results: pd.DataFrame, outcomes: pd.DataFrame, methods: Methods) -> Table:
    """One row per (variant, sparsity) at which both the variant and its method ran; hardened masks throughout."""
    frame = wide(results)
    ppl = perplexity_columns(frame)[-1]
    rows = [
        _row(frame[frame["sparsity_target"] == sparsity], outcomes, name, facts["variant_of"], ppl)
        for name, facts in methods.items()
        if facts["variant_of"]
        for sparsity in sorted(frame.loc[frame["method"] == name, "sparsity_target"].unique())
    ]
    numbers = pd.DataFrame(rows, columns=COLUMNS)
    shown = pd.DataFrame(
        {
            "Variant": [methods[name]["label"] for name in numbers["method"]],
            "What it changes": [methods[name].get("changes", "") for name in numbers["method"]],
            "Of": [methods[name]["label"] for name in numbers["variant_of"]],
            "Models": numbers["models"].astype(str),
            "Sparsity": numbers["sparsity_target"].map(format_sparsity),
            "Average": numbers["average"].map("{:.2f}".format),
            "Δ": [format_difference(*pair) for pair in zip(numbers["difference"], numbers["stderr"], strict=True)],
            "PPL ratio": ["" if math.isnan(ratio) else f"{ratio:.3f}" for ratio in numbers["perplexity_ratio"]],
            "Realised": (100 * numbers["sparsity_actual"]).map("{:.2f} %".format),
        }
    )
    return Table("What each variant changes, hardened masks", shown, numbers, notes=NOTES)


def _row(here: pd.DataFrame, outcomes: pd.DataFrame, name: str, base: str, ppl: str) -> list:
    """`here` are the wide rows of one sparsity, all models."""
    variant = here[here["method"] == name].set_index("model")
    reference = here[here["method"] == base].set_index("model")
    sparsity = variant["sparsity_target"].iloc[0]
    pair = paired_difference(outcomes[outcomes["sparsity_target"] == sparsity], name, base)
    ratio = math.exp(np.log(variant[ppl] / reference[ppl]).mean()) if len(reference) else math.nan
    average, actual = variant["average"].mean(), variant["sparsity_actual"].mean()
    return [name, base, len(variant), sparsity, average, pair.value, pair.stderr, ratio, actual]
