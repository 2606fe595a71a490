"""Findings against other ways to the same numbers, on grids whose truth is known; each reaches all its verdicts."""

import math

import numpy as np
import pytest
from scipy import stats

from leap_repro.report import findings
from leap_repro.report.findings import FAILS, HOLDS, UNDECIDED, verdict
from leap_repro.report.statistics import QUESTION, Difference, paired_difference


def average(evidence, **cell):
    here = evidence.outcomes
    for key, value in cell.items():
        here = here[here[key] == value]
    return 100 * here.groupby("task")["correct"].mean().mean()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.1, 2, HOLDS), (-2, -0.1, FAILS), (-1, 1, UNDECIDED), (0, 1, UNDECIDED), (math.nan, math.nan, UNDECIDED)],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(low, high, expected):
    assert verdict(low, high) == expected
    assert verdict(low + 5, high + 5, bound=5) == expected


@pytest.mark.parametrize(("ability", "expected"), [(0.9, HOLDS), (-0.9, FAILS), (0.0, UNDECIDED)])
def test_a_lead_is_the_mean_of_its_cells_and_its_verdict_follows_the_sign(drawn, ability, expected):
    evidence = drawn({"leap": ability, "admm": 0.0})
    found = findings.lead(evidence, "leap", "admm")
    cells = [
        average(evidence, method="leap", **cell) - average(evidence, method="admm", **cell)
        for cell in ({"model": model, "sparsity_target": s} for model in "ab" for s in (0.5, 0.6))
    ]
    assert found.value == pytest.approx(np.mean(cells))
    assert found.low < found.value < found.high
    assert (found.verdict, found.seeds) == (expected, 3)
    assert found.measured == "2 models at 50 %, 60 %; 3 seeds"


def test_with_one_seed_the_interval_is_welchs_over_questions(drawn):
    """One model and seed: the average of two tasks' mean differences, each with its questions' variance."""
    evidence = drawn({"leap": 0.4, "admm": 0.0}, models=("a",), seeds={"leap": (0,), "admm": (0,)}, sparsities=(0.6,))
    found = findings.lead(evidence, "leap", "admm")
    ours, theirs = (
        evidence.outcomes[evidence.outcomes["method"] == name].set_index(QUESTION)["correct"].astype(float)
        for name in ("leap", "admm")
    )
    tasks = [100 * own for _, own in (ours - theirs).groupby(level="task")]
    parts = [own.var(ddof=1) / len(own) / 4 for own in tasks]
    dof = sum(parts) ** 2 / sum(part**2 / (len(own) - 1) for part, own in zip(parts, tasks, strict=True))
    expected = stats.t.interval(0.95, dof, np.mean([own.mean() for own in tasks]), math.sqrt(sum(parts)))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.seeds == 1
    assert found.measured == "one model at 60 %; one seed"


def test_a_curve_of_one_seed_is_no_part_of_any_finding(drawn):
    """At 70 % LEAP fails utterly, and costs of hardening are vast."""
    looks = {"leap": (lambda m, s, seed: 3 + seed / 9, lambda m, s, seed: 3 + seed / 9 + (s == 0.7))}
    abilities = {"leap": {0.5: 0.5, 0.6: 0.9}, "admm": 0.0, "wanda": -0.1}
    looks["wanda"] = (lambda m, s, seed: 4 + seed / 9, lambda m, s, seed: 4 + seed / 8)
    plain = drawn(abilities, looks=looks)
    evidence = drawn(abilities, curve={"leap": -3.0, "admm": 0.0, "wanda": 3.0}, looks=looks)
    measures = [
        lambda e: findings.lead(e, "leap", "admm"),
        lambda e: findings.lead(e, "leap", "admm", highest=True),
        lambda e: findings.weakest(e, [("leap", "admm"), ("leap", "wanda")], highest=True),
        lambda e: findings.cells_above(e, "leap", "admm"),
        lambda e: findings.grows(e, "leap", "admm"),
        lambda e: findings.of_every_seed(e, "leap", "admm"),
        lambda e: findings.rounding_gap(e, "leap"),
        lambda e: findings.foretells(e, "held_out_relaxed", "held_out_topk"),
    ]
    for measure in measures:
        found, without = measure(evidence), measure(plain)
        assert "70 %" not in found.measured
        assert (found.verdict, found.seeds) == (without.verdict, without.seeds)
    assert (evidence.outcomes["sparsity_target"] == 0.7).any()
    assert measures[1](evidence).measured.startswith("2 models at 60 %;")


def test_lines_are_compared_at_the_sparsities_that_both_have(drawn):
    evidence = drawn({"leap": 0.5, "maskllm": {0.5: 0.0}, "leap-layer": {0.6: 0.0}})
    assert findings.lead(evidence, "leap", "maskllm", highest=True).measured == "2 models at 50 %; 3 seeds"
    assert findings.lead(evidence, "leap", "leap-layer").measured == "2 models at 60 %; 3 seeds"
    assert findings.lead(evidence, "maskllm", "leap-layer") is None
    assert findings.lead(evidence, "leap", "ria") is None
    assert findings.grows(evidence, "leap", "maskllm") is None, "one sparsity"


def test_a_line_that_ran_once_stands_beside_every_seed_and_says_so(drawn):
    evidence = drawn({"leap": 0.5, "owl": 0.0}, seeds={"owl": (0,)}, only={"owl": ("b",)}, luck=0.5)
    found = findings.lead(evidence, "leap", "owl")
    expected = [
        average(evidence, method="leap", model="b", sparsity_target=s)
        - average(evidence, method="owl", model="b", sparsity_target=s)
        for s in (0.5, 0.6)
    ]
    assert found.value == pytest.approx(np.mean(expected))
    assert found.seeds == 1
    assert found.measured == "one model at 50 %, 60 %; one seed beside 3"


def test_what_no_seed_changes_stands_beside_every_seed(drawn):
    evidence = drawn({"admm": 0.4, "magnitude": 0.0})
    assert findings.lead(evidence, "admm", "magnitude").seeds == 3
    assert findings.cells_above(evidence, "admm", "magnitude").seeds == 3
    assert findings.of_every_seed(evidence, "admm", "magnitude").seeds == 3
    grown = findings.grows(evidence, "admm", "magnitude")
    rise = {s: average(evidence, method="admm", sparsity_target=s) for s in (0.5, 0.6)}
    rise = {s: value - average(evidence, method="magnitude", sparsity_target=s) for s, value in rise.items()}
    assert grown.value == pytest.approx(rise[0.6] - rise[0.5])


def leads(values, stderr=1.0, dof=40.0):
    return [Difference(float(value), stderr, dof, 100, 3, 2) for value in values]


def test_the_smallest_of_several_has_the_least_lower_end_and_the_least_upper_of_all_together():
    found = [*leads([2.0, 1.0]), Difference(1.5, 3.0, 4.0, 100, 3, 2)]
    value, low, high = findings.smallest(found)
    assert value == 1.0
    assert low == pytest.approx(1.5 + 3 * stats.t.ppf(0.025, 4)), "the one known least"
    assert high == pytest.approx(1.0 + stats.t.ppf(1 - 0.025 / 3, 40))
    assert findings.smallest(leads([1.5])) == (1.5, *leads([1.5])[0].interval)
    over = [Difference(value, 9.0, 9.0, 100, 3, 5, models_stderr=error) for value, error in ((2.0, 1.0), (1.0, 0.5))]
    value, low, high = findings.smallest(over, over_models=True)
    assert (value, low) == pytest.approx((1.0, 2 + stats.t.ppf(0.025, 4)))
    assert high == pytest.approx(1.0 + 0.5 * stats.t.ppf(1 - 0.025 / 2, 4))


@pytest.mark.parametrize("others", [0.0, 50.0])
def test_the_interval_of_the_smallest_holds_the_truth(others):
    """Nine true leads, the smallest of them 0: all alike, where one by one they would be refuted far too often, and
    where the smallest is alone."""
    truth = np.array([0.0, *[others] * 8])
    rng = np.random.default_rng(1)
    drawn = truth + rng.normal(size=(1500, 9))
    ends = np.array([findings.smallest(leads(row, dof=1e6))[1:] for row in drawn])
    assert np.mean(ends[:, 0] > 0) < 0.035
    assert np.mean(ends[:, 1] < 0) < 0.035
    if not others:
        assert np.mean((drawn + 1.96 < 0).any(axis=1)) > 0.15, "what one of nine by itself would say"


@pytest.mark.parametrize(
    ("ability", "expected"),
    [({"x": 0.6, "y": 0.5}, HOLDS), ({"x": 0.6, "y": -0.6}, FAILS), ({"x": 0.6, "y": 0}, UNDECIDED)],
)
def test_the_weakest_lead_decides(drawn, ability, expected):
    evidence = drawn(ability | {"admm": 0.0})
    found = findings.weakest(evidence, [("x", "admm"), ("y", "admm")], highest=True)
    assert found.verdict == expected
    assert found.value == pytest.approx(findings.lead(evidence, "y", "admm", highest=True).value)
    assert found.measured == "Y − ADMM, the smallest of 2; 2 models at 60 %; 3 seeds"


def test_a_claim_about_several_is_not_measured_on_some(drawn):
    evidence = drawn({"x": 1.0, "admm": 0.0})
    assert findings.weakest(evidence, [("x", "admm"), ("y", "admm")]) is None
    assert findings.weakest(evidence, []) is None


def test_cells_are_counted_and_sure_by_holms_steps(drawn):
    evidence = drawn({"leap": {0.5: 0.04, 0.6: 0.4}, "admm": 0.0}, models=("a", "b", "c"))
    found = findings.cells_above(evidence, "leap", "admm")
    cells = [
        paired_difference(here, "leap", "admm") for _, here in evidence.outcomes.groupby(["model", "sparsity_target"])
    ]
    cells.sort(key=lambda cell: cell.p_value)
    sure = 0
    while sure < len(cells) and cells[sure].p_value * (len(cells) - sure) < 0.05:
        sure += 1
    ahead, behind = (sum(sign * cell.value > 0 for cell in cells[:sure]) for sign in (1, -1))
    assert 0 < ahead < 6
    assert (found.value, found.low, found.high) == (sum(cell.value > 0 for cell in cells), ahead, 6 - behind)
    assert found.verdict == UNDECIDED
    assert found.measured == f"6 cells; 3 seeds; surely ahead in {ahead}, behind in {behind}"


@pytest.mark.parametrize(("at_60", "expected", "ends"), [(0.9, HOLDS, (4, 4)), (-0.9, FAILS, (2, 2))])
def test_every_cell_is_ahead_or_one_is_surely_behind(drawn, at_60, expected, ends):
    found = findings.cells_above(drawn({"leap": {0.5: 0.9, 0.6: at_60}, "admm": 0.0}), "leap", "admm")
    assert (found.verdict, (found.low, found.high)) == (expected, ends)


@pytest.mark.parametrize(("at_60", "expected"), [(1.2, HOLDS), (-0.6, FAILS), (0.3, UNDECIDED)])
def test_a_growth_is_that_of_answers_paired_through(drawn, at_60, expected):
    """By another way: each seed's answers, ours minus theirs, as if they were two methods' at one sparsity."""
    evidence = drawn({"leap": {0.5: 0.3, 0.6: at_60}, "admm": 0.0}, seeds={"admm": (1, 2, 3)})
    found = findings.grows(evidence, "leap", "admm")
    answers = evidence.outcomes.assign(correct=evidence.outcomes["correct"].astype(float))
    keys = ["model", "seed", *QUESTION, "sparsity_target"]
    ours, theirs = (answers[answers["method"] == name].set_index(keys)["correct"] for name in ("leap", "admm"))
    rows = (ours - theirs).dropna().reset_index()
    assert set(rows["seed"]) == {1, 2}, "the seeds that both have"
    rows["method"] = rows["sparsity_target"].map({0.5: "low", 0.6: "high"})
    other = paired_difference(rows, "high", "low")
    assert (found.value, found.low, found.high) == pytest.approx((other.value, *other.interval))
    assert found.verdict == expected
    assert found.measured == "2 models, 60 % against 50 %; 2 seeds"


def test_a_lead_that_does_not_change_with_the_questions_luck_is_known_better_paired(drawn):
    """Both ends answer the same questions: their common part is not counted twice."""
    evidence = drawn({"leap": 0.5, "admm": 0.0}, luck=0.0)
    grown = findings.grows(evidence, "leap", "admm")
    apart = [evidence.difference("leap", "admm", (s,)).stderr for s in (0.5, 0.6)]
    assert grown.high - grown.low < 2 * 1.96 * math.hypot(*apart)


@pytest.mark.parametrize(("ability", "expected"), [(0.9, HOLDS), (-0.9, FAILS), (0.0, UNDECIDED)])
def test_a_lead_of_every_seed_is_the_smallest_of_the_seeds(drawn, ability, expected):
    evidence = drawn({"leap": ability, "admm": 0.0}, luck=0.2)
    found = findings.of_every_seed(evidence, "leap", "admm")
    by_seed = {
        seed: average(evidence, method="leap", seed=seed) - average(evidence, method="admm", seed=seed)
        for seed in (0, 1, 2)
    }
    assert found.value == pytest.approx(min(by_seed.values()))
    assert found.measured == f"seed {min(by_seed, key=by_seed.get)}, the smallest of 3; 2 models at 50 %, 60 %"
    assert (found.verdict, found.seeds) == (expected, 3)


def test_one_seed_is_no_evidence_of_every_seed(drawn):
    evidence = drawn({"leap": 0.9, "admm": 0.0}, seeds={"admm": (0,)})
    assert findings.of_every_seed(evidence, "leap", "admm") is None
    assert findings.of_every_seed(evidence, "leap", "ria") is None
