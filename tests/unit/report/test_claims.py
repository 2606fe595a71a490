"""The table of claims: which stand in it, what a reader sees of each, and the command."""

import json
import math
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from leap_repro.report import claims
from leap_repro.report.claims import claims_table, estimate, full_sparsities
from leap_repro.report.collect import DENSITY, OUTCOMES, RESULTS, TRAINING
from leap_repro.report.findings import (
    CELLS,
    COEFFICIENT,
    NATS,
    PERCENT,
    POINTS,
    SHARE,
    CollectedTables,
    verdict,
)
from leap_repro.store.artifacts import writing
from leap_repro.store.sums import write_sums

ANNEALED = ["leap-cosine", "leap-slow"]
ABILITIES = {
    "admm": 0.2,
    "leap": 0.9,
    "wanda": 0.0,
    "magnitude": -0.9,
    "maskllm": {0.5: 0.1},
    "owl": 0.0,
    "leap-cosine": {0.6: 0.8},
    "leap-slow": {0.6: -0.9},
    "wanda+leap-budget": {0.6: 0.0},
    "admm+recover": {0.6: 2.5},
    "elsa": {0.6: 2.5},
}
ONCE = {name: (0,) for name in ("owl", "wanda+leap-budget", "admm+recover")}


@pytest.fixture(scope="module")
def evidence(drawn):
    looks = {name: (lambda m, s, n: 3 + n / 7, lambda m, s, n: 3 + n / 7) for name in ("leap", *ANNEALED)}
    only = dict.fromkeys(ANNEALED, ("a",))
    evidence = drawn(ABILITIES, seeds=ONCE, only=only, looks=looks, curve={"leap": -3.0, "admm": 3.0})
    seconds = {"stage": "prune", "method": ["admm", "leap"], "jobs": [12, 4], "total": [120.0, 240.0]}
    return replace(evidence, density=densities(), seconds=pd.DataFrame(seconds))


def densities():
    """Of LEAP's masks: matrices differ by tenths, seeds by hundredths."""
    rng, rows = np.random.default_rng(0), []
    for model, sparsity, block, kind in product("ab", (0.5, 0.6), range(4), ("q_proj", "up_proj")):
        level = 400 + 100 * block + (kind == "q_proj")
        for seed in range(3):
            cell = {"model": model, "method": "leap", "sparsity_target": sparsity, "seed": seed}
            kept = level + int(rng.integers(0, 10))
            rows.append(cell | {"block": block, "kind": kind, "kept": kept, "numel": 1000})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def table(evidence):
    return claims_table(evidence, ANNEALED)


@pytest.fixture(scope="module")
def rows(table):
    return table.numbers.set_index("claim")


def test_claims_of_what_did_not_run_are_left_out_and_each_other_one_has_one_row(rows):
    assert rows.index.is_unique
    text = " | ".join(rows.index)
    for absent in ("DSnoT", "RIA", "OPTIMA", "one budget for the model", "OWL's budgets, by outliers, make ADMM"):
        assert absent not in text
    assert dict(rows["whose"].value_counts()) == {"paper": 7, "readers": 6, "ours": 6}
    tables = {"differences", "main", "correlations", "gap", "annealing", "crossings", "time", "density (figure)"}
    assert set(rows["table"]) == tables


@pytest.mark.parametrize(
    ("claim", "verdict", "seeds", "measured"),
    [
        ("LEAP is above ADMM on the mean of all cells (published: +2.59)", "holds", 3, "2 models at 50 %, 60 %"),
        ("LEAP is above ADMM in every cell", "holds", 3, "4 cells; 3 seeds; surely ahead in 4, behind in 0"),
        ("LEAP is above MaskLLM's 2:4 masks at the same sparsity", "holds", 3, "2 models at 50 %; 3 seeds"),
        ("LEAP is above ADMM under every other annealing schedule", "does not hold", 3, "LEAP-SLOW − ADMM"),
        ("The paper's annealing schedule is better than every other one", "undecided here", 3, "the smallest of 2"),
        ("Mask: LEAP is above Wanda with the same budget for each matrix", "holds", 1, "2 models at 60 %; one seed"),
        ("LEAP is above ADMM's mask with its weights trained on as many tokens", "does not hold", 1, "one seed"),
        ("LEAP is above ELSA, which trains the weights on as many tokens", "does not hold", 3, "3 seeds"),
        (
            "LEAP's perplexity is below ADMM's, on the mean of all cells",
            "holds",
            3,
            "below in 12 of 12 cells and seeds",
        ),
        ("LEAP's densities differ between matrices by more than between seeds", "holds", 3, "8 matrices, 3 seeds"),
        ("LEAP takes longer than ADMM", "holds", 0, "60.0 s against 10.0 s a cell, means of 4 and 12 jobs"),
        ("LEAP is above OWL, on the mean of all cells", "holds", 1, "2 models at 50 %, 60 %; one seed"),
        (
            "At the end of LEAP's training, hardening changes the mean loss by less than 0.01",
            "holds",
            3,
            "12 trainings",
        ),
    ],
)
def test_a_claim_has_its_verdict_and_says_what_it_was_measured_on(rows, claim, verdict, seeds, measured):
    found = rows.loc[claim]
    assert (found["verdict"], found["seeds"]) == (verdict, seeds)
    assert measured in found["measured"]


def test_the_layerwise_methods_are_those_of_the_grid(rows):
    found = rows.loc["ADMM is above the paper's other layer-wise methods, on the mean of all cells"]
    assert "ADMM − WANDA, the smallest of 2" in found["measured"]


def test_a_verdict_of_one_seed_or_for_these_models_alone_says_so(table):
    words = dict(zip(table.shown["Claim"], table.shown["Verdict"], strict=True))
    assert words["LEAP is above ADMM in every cell"] == "holds"
    numbers = table.numbers.set_index("claim")
    for claim, row in numbers.iterrows():
        low, high = row["low_over_models"], row["high_over_models"]
        below = claim.startswith("LEAP's perplexity")
        sure = math.isnan(low) or verdict(*((-high, -low) if below else (low, high))) == row["verdict"]
        decided = row["verdict"] != "undecided here"
        expected = row["verdict"] + (" for these models" if decided and not sure else "")
        assert words[claim] == expected + (", one seed" if row["seeds"] == 1 else ""), claim
    assert any(said.endswith("for these models") for said in words.values())
    assert words["LEAP is above OWL, on the mean of all cells"].endswith(", one seed")


def test_what_several_seeds_decide_over_models_too_is_bold(table):
    bold = {table.shown["Claim"][index] for index, _ in table.bold}
    plain = table.shown["Verdict"].isin(["holds", "does not hold"]) & table.numbers["seeds"].gt(1)
    assert bold == set(table.numbers.loc[plain, "claim"])
    assert bold
    assert "LEAP is above OWL, on the mean of all cells" not in bold


def test_the_interval_over_models_stands_beside(table):
    row = table.numbers.set_index("claim").loc["LEAP is above ADMM on the mean of all cells (published: +2.59)"]
    shown = table.shown.set_index("Claim")["[95 %] over models"]
    assert shown[row.name] == f"[{row['low_over_models']:+.2f}, {row['high_over_models']:+.2f}]".replace("-", "−")
    assert shown["LEAP is above ADMM in every cell"] == ""


def test_a_lead_names_its_two_methods_for_who_computes_it_anew(rows):
    assert tuple(rows.loc["LEAP is above OWL, on the mean of all cells", ["method", "reference"]]) == ("leap", "owl")
    assert rows.loc["LEAP is above ADMM in every cell", ["method", "reference"]].isna().all()


def test_html_and_latex_are_bold_too(table):
    assert "<b>does not hold</b>" in table.html()
    assert "*" not in table.html()
    assert r"\textbf{does not hold}" in table.latex()


def test_a_reader_sees_what_cells_count_and_that_one_seed_is_too_few(table):
    assert "[those surely ahead, those not surely behind]" in table.notes
    assert "its spread over seeds is taken to be the other's" in table.notes
    assert "paired over 150 questions" in table.notes


def test_the_table_is_words_on_the_left(table):
    head, rule = table.markdown().splitlines()[2:4]
    assert head == "| Claim | Verdict | Estimate [95 %] | [95 %] over models | Measured on | Whose | Table |"
    assert "---:" not in rule
    assert max(map(len, table.shown["Claim"])) < 90


@pytest.mark.parametrize(
    ("unit", "numbers", "expected"),
    [
        (POINTS, (1.234, -0.5, 2.967), "+1.23 [−0.50, +2.97] points"),
        (NATS, (-0.0042, -0.0051, 0.001), "−0.004 [−0.005, +0.001] nats"),
        (COEFFICIENT, (-0.6, -0.8, -0.25), "r −0.60 [−0.80, −0.25]"),
        (COEFFICIENT, (1.0, math.nan, math.nan), "r +1.00 [no interval]"),
        (COEFFICIENT, (math.nan, math.nan, math.nan), "r none [no interval]"),
        (PERCENT, (-8.44, -9.0, -7.9), "−8.4 [−9.0, −7.9] %"),
        (SHARE, (0.98, 0.97, 0.99), "0.980 [0.970, 0.990] of the variance"),
        (CELLS, (9, 7, 10), "9 [7, 10] cells"),
    ],
)
def test_an_estimate_is_in_its_unit(unit, numbers, expected):
    row = SimpleNamespace(unit=unit, **dict(zip(("value", "low", "high"), numbers, strict=True)))
    assert estimate(row) == expected


def test_a_curve_of_one_seed_is_not_among_the_full_sparsities(evidence):
    assert full_sparsities(evidence.outcomes, "leap") == (0.5, 0.6)
    assert full_sparsities(evidence.outcomes, "maskllm") == (0.5,)
    assert full_sparsities(evidence.outcomes, "ria") == ()


@pytest.mark.parametrize("without", ["leap", "admm"])
def test_a_grid_without_one_of_them_has_fewer_claims(evidence, without, tmp_path):
    outcomes = evidence.outcomes[evidence.outcomes["method"] != without]
    methods = {name: facts for name, facts in evidence.methods.items() if name != without}
    sparsities = full_sparsities(outcomes, "leap")
    table = claims_table(CollectedTables(evidence.results, outcomes, evidence.training, methods, sparsities), [])
    assert not table.numbers["claim"].str.contains("LEAP is above ADMM ").any()
    assert table.numbers.empty == (without == "leap")
    table.write(tmp_path / "claims")


def test_a_claim_that_is_left_out_is_told_with_the_method_that_the_grid_lacks(evidence, caplog):
    outcomes = evidence.outcomes[evidence.outcomes["method"] != "owl"]
    claims_table(CollectedTables(evidence.results, outcomes, evidence.training, evidence.methods, (0.5, 0.6)), [])
    told = [record.getMessage() for record in caplog.records]
    assert "claim left out, the grid ran no method owl: LEAP is above OWL, on the mean of all cells" in told
    assert (
        "claim left out, the grid ran no method owl: Allocation: OWL's budgets, by outliers, make Wanda better" in told
    )
    sentence = "LEAP is above ADMM under every other annealing schedule"
    assert f"claim left out, the grid has nothing to measure it on: {sentence}" in told, "no schedules are given"


def test_the_command_reads_what_was_collected_and_writes_the_table(evidence, table, tmp_path):
    frames = {RESULTS: evidence.results, OUTCOMES: evidence.outcomes, TRAINING: evidence.training}
    frames[DENSITY] = evidence.density
    evidence.seconds.to_csv(tmp_path / "time.csv", index=False)
    write_sums(tmp_path / "time.sha256", [tmp_path / "time.csv"])
    for model in "ab":
        with writing(tmp_path / "aggregate" / model, {}) as (payload, _):
            for name, frame in frames.items():
                frame[frame["model"] == model].to_parquet(payload / name, index=False)
    given = ["--root", tmp_path, "--models", "a", "b", "--methods", json.dumps(evidence.methods)]
    given += ["--time", tmp_path / "time.csv", "--annealed", *ANNEALED, "--output", tmp_path / "claims"]
    claims.main(claims.parser().parse_args([str(argument) for argument in given]))
    assert (tmp_path / "claims.md").read_text(encoding="utf-8") == table.markdown()
    assert list(pd.read_csv(tmp_path / "claims.csv")["verdict"]) == list(table.numbers["verdict"])
    assert all((tmp_path / f"claims.{suffix}").is_file() for suffix in ("tex", "html"))
