"""What a reader of the pages sees is what the published run wrote."""

from pathlib import Path

import pandas as pd
import pytest
from ahead import PAIRED_BY_SEED

from leap_repro.report.layout import wide
from leap_repro.report.pages import BLOCK, filled
from leap_repro.store.sums import ALL, checked_files

TOP = Path(__file__).resolve().parents[3]
RUN = TOP / "figures/miniature"
PAGES = (
    "README.md",
    "docs/as-released.md",
    "docs/choosing-a-method.md",
    "docs/claims.md",
    "docs/export-formats.md",
    "docs/memory.md",
    "docs/numerics.md",
    "docs/plan.md",
    "docs/scaling.md",
    "docs/serving.md",
    "docs/statistics.md",
    "docs/why-numbers-differ.md",
    "docs/methods/optima.md",
)


@pytest.fixture(scope="module")
def main():
    return pd.read_csv(RUN / "main.csv").set_index(["sparsity_target", "method"])


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_is_the_file_that_it_names(page):
    text = (TOP / page).read_text(encoding="utf-8")
    assert BLOCK.search(text)
    assert filled(text, TOP) == text


GRIDS = pytest.mark.parametrize(
    "grid", [RUN, RUN / "extended", RUN / "evidence"], ids=["default", "extended", "evidence"]
)


@GRIDS
def test_every_file_is_the_one_that_was_published(grid):
    there = {path for path in grid.iterdir() if path.is_file()} - {grid / ALL}
    assert set(checked_files(grid / ALL)) == there


@GRIDS
def test_the_main_table_says_what_the_results_say(grid):
    shown = pd.read_csv(grid / "main.csv").set_index(["sparsity_target", "method"])
    rows = wide(pd.read_parquet(grid / "results.parquet")).set_index(["sparsity_target", "method"])
    for model, own in rows.groupby("model"):
        assert (shown[model].dropna() - own["average"]).abs().max() < 1e-9
        assert (shown[f"perplexity@128 {model}"].dropna() - own["perplexity@128"]).abs().max() < 1e-9


def test_the_main_table_shows_nine_methods_and_five_models(main):
    assert len(main.index.get_level_values("method").unique()) == 9
    assert len(pd.read_parquet(RUN / "results.parquet")["model"].unique()) == 5


def test_every_promised_budget_is_met_to_the_weight():
    cells = pd.read_parquet(RUN / "results.parquet").drop_duplicates(["model", "method", "sparsity_target", "seed"])
    for cell in cells.itertuples():
        assert abs(cell.prunable - cell.nonzero - cell.sparsity_target * cell.prunable) < 28, "half a weight a matrix"


def test_leap_leads_admm_as_the_readme_says(main):
    """Its claim: ahead by more than two standard errors at both sparsities, and by more at 60 %."""
    at = {sparsity: main.loc[(sparsity, "leap")] for sparsity in (0.5, 0.6)}
    assert at[0.5]["difference_to_admm"] < at[0.6]["difference_to_admm"]
    assert all(row["difference_to_admm"] > 2 * row["difference_stderr"] for row in at.values())


def test_the_dense_models_know_the_world_and_pruning_hurts(main):
    """Chance is 50 % on PIQA and WinoGrande, 25 % on the other four tasks."""
    chance = (2 * 50 + 4 * 25) / 6
    models = [column for column in main.columns if column.endswith("-mini") and "@" not in column]
    assert (main.loc[(0.0, "dense"), models] >= chance + 25).all()
    assert main.loc[(0.0, "dense"), "Mean"] - main.loc[(0.6, "magnitude"), "Mean"] >= 8


EVIDENCE = RUN / "evidence"


def lead(averages, method, reference, sparsities):
    """The mean over sparsities and models of the difference of the means over seeds; what only one has is left out."""
    pairs = pd.concat([averages[name].rename(name) for name in (method, reference)], axis=1)
    pairs = pairs.dropna() if PAIRED_BY_SEED else pairs
    found = pairs[pairs.index.get_level_values("sparsity_target").isin(sparsities)]
    means = found.groupby(["sparsity_target", "model"]).mean()
    return (means[method] - means[reference]).mean()


def test_the_evidence_has_three_seeds_of_what_is_drawn_and_the_budgets_hold(averages):
    seeds = averages.reset_index().groupby(["method", "sparsity_target", "model"])["seed"].nunique()
    drawn = ["wanda", "sparsegpt", "thanos", "admm", "wanda+optima", "leap"]
    assert (seeds.loc[drawn, [0.5, 0.6]] == 3).all()
    assert (seeds.loc["maskllm"] == 3).all()
    assert averages.index.get_level_values("model").nunique() == 5


def test_the_evidence_has_other_schedules_with_three_seeds_on_two_models_and_a_curve(averages):
    cells = averages.reset_index()
    schedules = pd.read_csv(EVIDENCE / "schedules.csv")
    annealed = cells[cells["method"].isin(schedules["method"])]
    assert (annealed.groupby(["method", "model"])["seed"].nunique() == 3).all()
    assert annealed["method"].nunique() == 8
    assert annealed["model"].nunique() == 2
    curve = cells[cells["sparsity_target"].isin([0.4, 0.7])]
    assert (curve.groupby(["method", "sparsity_target"])["model"].nunique() == 5).all()
    assert set(curve["method"]) >= {"magnitude", "wanda", "sparsegpt", "thanos", "admm", "wanda+optima", "leap"}


def test_claims_and_differences_say_what_the_results_say(averages):
    claims = pd.read_csv(EVIDENCE / "claims.csv")
    differences = pd.read_csv(EVIDENCE / "differences.csv")
    mean = lead(averages, "leap", "admm", (0.5, 0.6))
    assert claims["value"].iloc[0] == pytest.approx(mean)
    whole = differences[(differences["method"] == "leap") & (differences["model"] == "mean of all cells")].iloc[0]
    assert (whole["difference"], whole["published"]) == pytest.approx((mean, 2.59), abs=1e-3)
    for method, label in (("alps", "ALPS"), ("ria", "RIA"), ("elsa", "ELSA")):
        found = claims[claims["claim"].str.contains(f"LEAP is above {label}")]["value"].iloc[0]
        assert found == pytest.approx(lead(averages, "leap", method, (0.5, 0.6)))


def test_every_verdict_of_a_lead_follows_from_its_interval():
    claims = pd.read_csv(EVIDENCE / "claims.csv").query("unit == 'points'")
    assert len(claims) > 10
    for row in claims.itertuples():
        expected = "holds" if row.low > 0 else "does not hold" if row.high < 0 else "undecided here"
        assert row.verdict == expected, row.claim


EXTENDED = RUN / "extended"


def test_every_variant_is_what_the_results_say_beside_its_base_on_the_same_models(variants):
    results = pd.read_parquet(EXTENDED / "results.parquet").query("task == 'average'")
    averages = results.set_index(["method", "sparsity_target", "model"])["value"].sort_index()
    assert averages.index.is_unique, "one seed"
    for (method, sparsity), row in variants.iterrows():
        own, base = averages[method, sparsity], averages[row["variant_of"], sparsity]
        assert row["average"] == pytest.approx(own.mean())
        assert row["models"] == len(own)
        assert row["difference"] == pytest.approx((own - base[own.index]).mean())
