"""What pages say in their own words is what the published run's tables say."""

import re
from pathlib import Path

import pandas as pd
import pytest
from ahead import NEW
from scipy import optimize, stats

from leap_repro.pipeline.reading import read_config
from leap_repro.report.statistics import holm

TOP = Path(__file__).resolve().parents[3]
RUN = TOP / "figures/miniature"
EVIDENCE, EXTENDED = RUN / "evidence", RUN / "extended"


def text_of(page):
    """A page's words, without its line breaks."""
    return " ".join((TOP / page).read_text(encoding="utf-8").split())


def said(value):
    """A difference as pages write it."""
    return f"{value:+.2f}".replace("-", "−")


@pytest.fixture(scope="module")
def claims():
    return text_of("docs/claims.md")


def test_the_readme_says_the_mean_of_the_cells_and_how_many_intervals_include_0():
    text = (TOP / "README.md").read_text(encoding="utf-8")
    first = pd.read_csv(EVIDENCE / "claims.csv").iloc[0]
    assert f"{first.value:+.2f} points, 95 % interval {first.low:+.2f} to {first.high:+.2f}" in text
    rows = pd.read_csv(EVIDENCE / "differences.csv").query("method == 'leap'").dropna(subset=["p_holm"])
    undecided = rows[(rows["low"] < 0) & (rows["high"] > 0)].groupby("sparsity_target").size()
    assert dict(undecided) == {0.5: 4, 0.6: 2}
    assert "at 50 % four of the five intervals include 0, at 60 % two do" in " ".join(text.split())


def test_the_claims_page_says_how_relaxed_and_hard_come_together(claims):
    gap = pd.read_csv(EVIDENCE / "gap.csv").set_index(["sparsity_target", "step"])["gap_topk"]
    costs = [f"{-gap[sparsity, 124]:.2f}" for sparsity in (0.5, 0.6)]
    more = f"costs {costs[0]} nats more on average at 50 %, {costs[1]} at 60 %"
    assert f"At step 124 of 500 the hardened mask {more}" in claims
    assert all(abs(gap[sparsity, 312]) < 0.01 for sparsity in (0.5, 0.6))
    assert "at step 312 less than 0.01 at both" in claims
    assert all(abs(gap[sparsity, 499]) < 0.0005 for sparsity in (0.5, 0.6))
    found = pd.read_csv(EVIDENCE / "correlations.csv").query("relaxed == 'relaxed loss'")
    found = found.set_index(["over", "outcome"])
    later, all_steps = (found.loc[(over, "hardened loss"), "pearson"] for over in LATER)
    assert f"(mean r over the steps of a run {later:.2f}; with the first step {all_steps:.2f})" in claims
    within = found.loc["runs, within model and sparsity"]["spearman"]
    assert f"(ρ {within['hardened loss']:.2f})" in claims
    assert f"(ρ {within['accuracy']:.2f})".replace("-", "−") in claims


LATER = ("steps of a run after its first", "steps of a run")


def test_the_claims_page_says_which_schedules_cost_and_how_much(claims):
    data = pd.read_csv(EVIDENCE / "schedules.csv").set_index("method")
    below = set(data.index[data["high"] < 0])
    assert below == {"leap-tau-from-16", "leap-kappa-to-1000"}
    assert f"two of {NUMBERS[len(data)]} other schedules are below the paper's" in claims
    assert f"a start at τ 16, by {-data.loc['leap-tau-from-16', 'difference']:.1f} points" in claims
    assert f"a κ that ends at 1000, by {-data.loc['leap-kappa-to-1000', 'difference']:.1f}" in claims
    assert min(holm(p_values(data))) > 0.05
    assert "taken together (Holm) neither is sure" in claims
    worse = data[data["perplexity_least"] > 0]["perplexity_change"]
    assert f"{NUMBERS[len(worse)].capitalize()} of the {NUMBERS[len(data)]} have a higher perplexity" in claims
    assert f"with every seed of both models, by {worse.min():.1f} to {worse.max():.1f} %" in claims
    leads = pd.read_csv(EVIDENCE / "annealing.csv")["minus_admm"]
    assert f"the mean stays above ADMM's, by {leads.min():.1f} to {leads.max():.1f} points" in claims


def p_values(data):
    """Of differences, from their standard errors and the quantiles that their intervals tell."""
    reach = (data["high"] - data["difference"]) / data["stderr"]
    dof = [optimize.brentq(lambda n, r=r: stats.t.ppf(0.975, n) - r, 1, 1e6) for r in reach]
    return list(2 * stats.t.sf((data["difference"] / data["stderr"]).abs(), dof))


NUMBERS = {5: "five", 6: "six", 7: "seven", 8: "eight"}


def test_the_claims_page_says_how_far_seeds_are_apart(claims):
    results = pd.read_parquet(EVIDENCE / "results.parquet").query("task == 'average' and method == 'leap'")
    results = results[results["sparsity_target"].isin([0.5, 0.6])]
    spread = results.groupby(["model", "sparsity_target"])["value"].std()
    assert f"standard deviation of {spread.min():.1f} to {spread.max():.1f} points" in claims


def test_every_switch_that_the_page_names_has_a_row(variants):
    page = (TOP / "docs/as-released.md").read_text(encoding="utf-8")
    switches = page.split("|---|---|---|---|\n")[1].split("\n\n")[0].splitlines()
    named = {name for row in switches for name in re.findall(r"`([a-z][a-z0-9+-]+)`", row.rsplit("|", 2)[1])}
    known = set(read_config(project=TOP)["methods"])
    assert len(named & known) >= 25
    assert named & known <= set(variants.index.get_level_values("method")) | NEW
    assert named - known <= {"calibration", "dtype"}


def test_the_page_says_what_the_authors_training_changes_and_how_lucky_the_seed_is(variants, averages):
    page = text_of("docs/as-released.md")
    whole = variants.loc[("leap-as-released", 0.6)]
    assert f"is {-whole['difference']:.2f} ± {whole['stderr']:.2f} points below ours" in page
    parts = ("noise-per-pass", "late-schedules", "grouped", "bfloat16", "clipped", "threshold")
    below = [-variants.loc[(f"leap-{part}", 0.6), "difference"] for part in parts]
    assert f"alone is between {min(below):.2f} and {max(below):.2f} below" in page
    models = ["qwen2.5-0.5b-mini", "llama3.2-3b-mini"]
    seeds = averages["leap", 0.6][models].unstack("seed")
    assert f"{seeds[0].mean() - seeds.mean(axis=1).mean():.2f} points above" in page


def test_recovery_stands_as_its_page_says(variants):
    page = (TOP / "docs/methods/recover.md").read_text(encoding="utf-8")
    for method, verb in (("wanda+recover", "Wanda+recovery is"), ("admm+recover", "ADMM+recovery")):
        row = variants.loc[(method, 0.6)]
        assert f"{verb} {said(row['difference'])} ± {row['stderr']:.2f}" in page
    table = pd.read_csv(EXTENDED / "qwen2.5-0.5b-mini.csv").set_index(["method", "sparsity_target"])["average"]
    for line, method in (("Wanda+recovery", "wanda+recover"), ("LEAP+recovery", "leap+recover"), ("LEAP", "leap")):
        shown = next(row for row in page.splitlines() if row.startswith(f"| {line} |")).split("|")[3]
        assert float(shown) == round(table[method, 0.6], 2)
