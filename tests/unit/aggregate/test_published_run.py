"""What a reader of the pages sees is what the published run wrote."""

from pathlib import Path

import pandas as pd
import pytest

from leap_repro.aggregate.layout import wide
from leap_repro.aggregate.publish import BLOCK, filled

TOP = Path(__file__).resolve().parents[3]
RUN = TOP / "figures/miniature"
PAGES = (
    "README.md",
    "docs/as-released.md",
    "docs/memory.md",
    "docs/numerics.md",
    "docs/plan.md",
    "docs/statistics.md",
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


@pytest.mark.parametrize("grid", [RUN, RUN / "extended"], ids=["default", "extended"])
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
