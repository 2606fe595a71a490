"""What docs/claims.md and docs/statistics.md compute from the published run, beside its tables, is so."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

TOP = Path(__file__).resolve().parents[3]
EVIDENCE = TOP / "figures/miniature/evidence"
CELL = ["model", "sparsity_target"]


@pytest.fixture(scope="module")
def page():
    return " ".join((TOP / "docs/claims.md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def leads(averages):
    """LEAP − ADMM, by sparsity, model and seed."""
    found = (averages["leap"] - averages["admm"]).dropna()
    return found[found.index.get_level_values("sparsity_target").isin([0.5, 0.6])]


def over_models(values):
    """A mean and its interval over models, as the page writes them."""
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return f"{values.mean():+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")


def test_the_intervals_over_models(page, leads):
    by_model = leads.groupby(["sparsity_target", "model"]).mean().unstack("sparsity_target")
    cells, high = by_model.mean(axis=1), by_model[0.6]
    assert f"all ten cells {over_models(cells)}, 60 % alone {over_models(high)}" in page
    assert f"without gemma the ten cells' mean is {cells.drop('gemma3-1b-mini').mean():+.2f}" in page
    statistics = " ".join((TOP / "docs/statistics.md").read_text(encoding="utf-8").split())
    assert "the mean of all cells includes 0, that of the mean at 60 % does not" in statistics


def test_the_seeds_of_the_lead(page, leads):
    spread = leads.groupby(["sparsity_target", "model"]).std()
    assert f"varies more: {spread.min():.2f} to {spread.max():.2f} points" in page


@pytest.fixture(scope="module")
def runs():
    """One row a training of 500 steps: its last probe, and its relaxed loss at step 124."""
    probes = pd.read_csv(EVIDENCE / "rounding.csv").query("sparsity_target in [0.5, 0.6]")
    keys = ["model", "method", "sparsity_target", "seed"]
    early = probes[probes["step"] == 124].set_index(keys)["held_out_relaxed"].rename("early")
    return probes[probes["step"] == 499].join(early, on=keys)


def within(runs, keys):
    """The runs of groups with more than one, and what numbers each group."""
    groups = runs.groupby(keys)
    several = runs[groups["method"].transform("size") > 1]
    return several, several.groupby(keys)


def test_the_correlations_that_the_table_lacks(page, runs):
    several, groups = within(runs, CELL)
    ranks = [groups[name].rank() - groups[name].rank().groupby([several[k] for k in CELL]).transform("mean")
             for name in ("early", "held_out_topk")]  # fmt: skip
    assert f"within model and sparsity, has ρ {np.corrcoef(*ranks)[0, 1]:.2f}" in page
    several, groups = within(runs, [*CELL, "seed"])
    centred = [several[name] - groups[name].transform("mean") for name in ("held_out_relaxed", "accuracy")]
    assert f"the same seed, r is {np.corrcoef(*centred)[0, 1]:.2f}".replace("-", "−") in page


def test_perplexities_in_cells_and_seeds(page):
    results = pd.read_parquet(EVIDENCE / "results.parquet").query("metric == 'perplexity@128'")
    losses = np.log(results.set_index(["method", "sparsity_target", "model", "seed"])["value"])
    ratio = (losses["leap"] - losses["admm"]).dropna()
    ratio = ratio[ratio.index.get_level_values("sparsity_target").isin([0.5, 0.6])]
    below = -100 * np.expm1(ratio.groupby("sparsity_target").mean())
    assert f"in {(ratio < 0).sum()} of {len(ratio)} cells and seeds" in page
    assert f"by {below[0.5]:.1f} % on average at 50 % and {below[0.6]:.1f} % at 60 %" in page


def test_what_is_the_masks(page, averages):
    crossed = averages["leap+optima"] - averages["admm+leap-budget"]
    assert f"the difference is {crossed.mean():+.2f}" in page
    mask = (averages["leap"] - averages["admm+leap-budget"]).dropna().mean()
    assert f"is {mask:.1f} points above ADMM" in page
    assert f"at least {crossed.mean():.1f} of {mask:.1f} points is the mask" in page


def test_what_a_cell_costs(page):
    jobs = pd.read_csv(EVIDENCE / "time.csv").query("stage == 'prune'").set_index("method")
    seconds = jobs["total"] / jobs["jobs"]
    assert f"A cell of LEAP takes {seconds['leap']:.0f} s, one of ADMM {seconds['admm']:.1f} s" in page


def test_what_is_chosen_and_what_is_written(page):
    rows = pd.read_csv(TOP / "benchmarks/choice_or_text.csv").set_index("method")
    choice, text = rows["right by choice"], rows["right by text"]
    for method, words in (
        ("admm", f"ADMM chooses right in {choice['admm']} % and writes the right answer, greedily and in one line, in"),
        ("leap", f"LEAP {choice['leap']} % and"),
        ("dense", f"dense {choice['dense']} % and"),
    ):
        assert f"{words} {text[method]} %" in page
    hits = (rows["questions"] / 100 * rows[["right by choice", "right by text"]].T).round().T
    leads = 100 * (hits.loc["leap"] - hits.loc["admm"]) / rows["questions"].iloc[0]
    assert f"By choice LEAP leads by {leads.iloc[0]:.1f} points, by text by {leads.iloc[1]:.1f}" in page
