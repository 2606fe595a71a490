"""The tiny grid end to end: every rule runs, every promised file is there and says what it should."""

import json

import pandas as pd
import pytest
from scratch import planned, snakemake

CELLS = {("dense", 0.0), ("wanda", 0.5), ("admm", 0.5), ("leap", 0.5)}
TASKS = {"mmlu", "piqa", "arc_easy", "arc_challenge", "winogrande", "openbookqa", "average"}


@pytest.fixture(scope="module")
def results(finished):
    return pd.read_parquet(finished / "results/tiny/results.parquet")


def test_every_cell_has_every_metric(results):
    assert set(zip(results["method"], results["sparsity_target"], strict=True)) == CELLS
    for _, cell in results.groupby("method"):
        assert set(cell.loc[cell["metric"] == "acc", "task"]) == TASKS
        assert set(cell.loc[cell["task"] == "perplexity", "metric"]) == {"perplexity@32", "perplexity@64"}


def test_every_row_can_be_traced(results):
    for column in ("revision", "calibration_sha256", "mask_sha256", "code_prune", "code_evaluate", "git_commit"):
        assert results[column].str.len().min() > 6, column
    assert set(json.loads(results["versions"].iloc[0])) >= {"torch", "transformers", "lm_eval"}
    assert results.loc[results["method"] == "leap", "tokens_sha256"].notna().all()
    assert results["calibration_sha256"].nunique() == 1


def test_the_budget_is_met_to_the_weight(results):
    pruned = results[results["method"] != "dense"]
    assert (2 * pruned["nonzero"] == pruned["prunable"]).all()
    dense = results[results["method"] == "dense"]
    assert (dense["nonzero"] == dense["prunable"]).all()


@pytest.mark.parametrize("suffix", ["md", "csv", "tex"])
@pytest.mark.parametrize("table", ["main", "mini", "time", "published"])
def test_every_table_is_written_in_three_forms(finished, table, suffix):
    assert (finished / f"results/tiny/tables/{table}.{suffix}").read_text().strip()


def test_the_model_table_has_the_promised_columns(finished):
    text = (finished / "results/tiny/tables/mini.md").read_text()
    header = next(line for line in text.splitlines() if line.startswith("| Sparsity"))
    for column in ("MMLU", "PIQA", "ARC-E", "ARC-C", "WinoG", "OBQA", "Average", "PPL 32", "PPL 64", "Realised"):
        assert column in header
    assert [line.split("|")[2].strip() for line in text.splitlines() if "%" in line and "|" in line] == [
        "Dense",
        "Wanda",
        "ADMM",
        "LEAP",
    ]


@pytest.mark.parametrize("figure", ["density", "accuracy"])
def test_figures_are_written_with_their_data(finished, figure):
    folder = finished / "results/tiny/figures"
    assert (folder / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / f"{figure}.pdf").read_bytes().startswith(b"%PDF")
    assert len(pd.read_csv(folder / f"{figure}.csv"))


def test_leap_logs_every_step(finished):
    log = pd.read_parquet(finished / "results/tiny/prune/mini/leap/0.5/0/payload/log.parquet")
    assert list(log["step"]) == [0, 1, 2, 3]
    assert {"loss_lm", "density_relaxed", "density_hard", "tau", "kappa", "learning_rate"} <= set(log.columns)


def test_the_time_table_counts_every_job(finished):
    times = pd.read_csv(finished / "results/tiny/tables/time.csv")
    assert times.loc[times["stage"] == "prune", "jobs"].sum() == len(CELLS)
    assert times.loc[times["stage"] == "evaluate", "jobs"].sum() == len(CELLS)


def test_the_extended_target_adds_the_variants_and_leaves_the_default_tables_alone(checkout):
    before = (checkout / "results/tiny/tables/main.md").read_bytes()
    snakemake(checkout, "extended")
    assert (checkout / "results/tiny/tables/main.md").read_bytes() == before
    extended = pd.read_parquet(checkout / "results/tiny/extended/results.parquet")
    assert set(zip(extended["method"], extended["sparsity_target"], strict=True)) == {*CELLS, ("admm-as-released", 0.5)}
    variants = pd.read_csv(checkout / "results/tiny/extended/tables/variants.csv")
    assert list(variants["method"]) == ["admm-as-released"]
    averages = extended[extended["task"] == "average"].set_index("method")["value"]
    assert variants["difference"].iloc[0] == pytest.approx(averages["admm-as-released"] - averages["admm"])
    assert planned(checkout) == {}


def test_the_evidence_has_seeds_a_curve_crossings_and_verdicts(checkout):
    before = (checkout / "results/tiny/tables/main.md").read_bytes()
    snakemake(checkout, "evidence")
    assert (checkout / "results/tiny/tables/main.md").read_bytes() == before
    root = checkout / "results/tiny/evidence"
    results = pd.read_parquet(root / "results.parquet")
    cells = set(results[["method", "sparsity_target", "seed"]].itertuples(index=False, name=None))
    assert {("leap", 0.5, 0), ("leap", 0.5, 1), ("leap", 0.7, 0), ("owl", 0.5, 0), ("leap-tau", 0.5, 1)} < cells
    assert not {("leap", 0.7, 1), ("owl", 0.5, 1), ("dense", 0.0, 1)} & cells
    budgets = results[results["method"].isin(["leap", "leap+optima", "admm+leap-budget"])]
    assert budgets[budgets["sparsity_target"] == 0.5]["nonzero"].nunique() == 1
    tables = {path.stem for path in (root / "tables").glob("*.md")}
    assert {"main", "differences", "crossings", "annealing", "correlations", "gap", "overlap", "claims"} < tables
    assert {path.stem for path in (root / "figures").glob("*.png")} >= {"forest", "density_by_kind", "schedules"}
    main = pd.read_csv(root / "tables/main.csv")
    assert set(main["method"]) == {"dense", "wanda", "admm", "leap", "owl"}, "variants have a table of their own"
    assert set(main["sparsity_target"]) == {0, 0.5}, "the curve is for the figure"
    claims = pd.read_csv(root / "tables/claims.csv")
    assert set(claims["verdict"]) <= {"holds", "does not hold", "undecided here"}
    overlap = pd.read_csv(root / "tables/overlap.csv").set_index(["sparsity_target", "method", "other"])["jaccard"]
    assert overlap[0.5, "leap", "leap+optima"] == 1
    assert overlap[0.5, "leap", "leap"] < 1
    assert planned(checkout, "evidence") == {}
    snakemake(checkout, "--report", "report.html")
    assert 'class=\\"front\\"' in (checkout / "report.html").read_text(), "the first page has the main table"
