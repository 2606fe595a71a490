"""What a training's looks at held-out text foretell and what hardening costs, against scipy."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from leap_repro.report import findings
from leap_repro.report.correlations import EARLY, GROUP
from leap_repro.report.findings import FAILS, HOLDS, UNDECIDED


def looked(slope, noise, seed=0):
    """Looks of a line whose hardened loss follows the relaxed one, with noise; models differ in level."""
    rng = np.random.default_rng(seed)
    table = {(m, s, n): (rng.normal(), rng.normal()) for m in "ab" for s in (0.5, 0.6) for n in range(3)}

    def relaxed(model, sparsity, run):
        return 3 + 5 * (model == "b") + table[model, sparsity, run][0]

    def topk(model, sparsity, run):
        own, other = table[model, sparsity, run]
        return 3 - 9 * (model == "b") + slope * own + noise * other

    return relaxed, topk


LINES = [f"leap-{number}" for number in range(8)]


@pytest.mark.parametrize(("slope", "expected"), [(1, HOLDS), (-1, FAILS), (0, UNDECIDED)])
def test_relaxed_loss_foretells_within_model_sparsity_and_seed_each_line_counted_once(drawn, slope, expected):
    looks = {name: looked(slope, 0.4, seed=number) for number, name in enumerate(LINES)}
    evidence = drawn(dict.fromkeys(LINES, 0.0), looks=looks)
    found = findings.foretells(evidence, "held_out_relaxed", "held_out_topk")
    last = evidence.training[evidence.training["step"] == 9]
    both = ["held_out_relaxed", "held_out_topk"]
    centred = last[both] - last.groupby([*GROUP, "seed"])[both].transform("mean")
    r = stats.pearsonr(*centred.to_numpy().T)[0]
    reach = 1.959964 / math.sqrt(32 - 4 + 1 - 3)
    expected_ends = [math.tanh(math.atanh(r) + sign * reach) for sign in (-1, 1)]
    assert (found.value, found.low, found.high) == pytest.approx((r, *expected_ends), abs=1e-6)
    assert found.verdict == expected
    assert found.measured == "96 trainings, of 32 methods in 12 cells and seeds"


def test_the_loss_after_a_quarter_of_the_steps_foretells_the_end(drawn):
    """At step 1 of 10 each training's relaxed loss is its last one and a half nat more."""
    looks = {name: looked(1, 0.4, seed=number) for number, name in enumerate(LINES)}
    evidence = drawn(dict.fromkeys(LINES, 0.0), looks=looks)
    early = findings.foretells(evidence, EARLY, "held_out_topk")
    assert early.value == pytest.approx(findings.foretells(evidence, "held_out_relaxed", "held_out_topk").value)
    late = evidence.training[evidence.training["step"] != 1]
    without = findings.CollectedTables(evidence.results, evidence.outcomes, late, evidence.methods, (0.5, 0.6))
    assert findings.foretells(without, EARLY, "held_out_topk") is None, "the first step is no prediction"


@pytest.mark.parametrize(("sign", "expected"), [(-1, HOLDS), (1, FAILS)])
def test_accuracy_is_foretold_where_it_falls_with_the_relaxed_loss(drawn, sign, expected):
    looks = {name: looked(1, 0.4, seed=number) for number, name in enumerate(LINES)}
    evidence = drawn(dict.fromkeys(LINES, 0.0), looks=looks)
    last = evidence.training[evidence.training["step"] == 9]
    results = last.assign(task="average", metric="acc", value=sign * last["held_out_relaxed"] ** 3)
    results.loc[results.index[::7], "value"] *= 0.1
    found = findings.foretells(findings.CollectedTables(results, *vars_of(evidence)), "held_out_relaxed", "accuracy")
    assert found.verdict == expected
    assert sign * found.value > 0, "the coefficient of the table of correlations, not its negative"


def vars_of(evidence):
    return evidence.outcomes, evidence.training, evidence.methods, evidence.sparsities


def test_nothing_is_foretold_without_looks_or_with_one_training_a_cell(drawn):
    assert findings.foretells(drawn({"leap": 0.0}), "held_out_relaxed", "accuracy") is None
    alone = drawn({"leap": 0.0}, looks={"leap": looked(1, 0)})
    assert findings.foretells(alone, "held_out_relaxed", "accuracy") is None


def gap_of(gap, spread):
    return {"leap": (lambda m, s, seed: 3.0 + gap + spread * (seed - 1) + spread * (m == "a"), lambda m, s, seed: 3.0)}


@pytest.mark.parametrize(
    ("gap", "spread", "expected"),
    [
        (0.0, 0.001, HOLDS),
        (-0.005, 0.001, HOLDS),
        (-0.05, 0.001, FAILS),
        (0.05, 0.001, FAILS),
        (-0.01, 0.001, UNDECIDED),
        (0.0, 0.05, UNDECIDED),
    ],
)
def test_hardening_changes_nothing_if_the_whole_interval_is_within_a_hundredth(drawn, gap, spread, expected):
    evidence = drawn({"leap": 0.0, "leap-slow": 0.0}, looks=gap_of(gap, spread) | {"leap-slow": looked(1, 1)})
    found = findings.rounding_gap(evidence, "leap")
    gaps = [gap + spread * (seed - 1) + spread * (m == "a") for m in "ab" for _ in (0.5, 0.6) for seed in range(3)]
    ends = stats.t.interval(0.95, 11, np.mean(gaps), stats.sem(gaps))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(gaps), *ends))
    assert found.verdict == expected
    least, most = (f"{value:+.3f}".replace("-", "−") for value in (min(gaps), max(gaps)))
    assert found.measured == f"relaxed − hardened, 12 trainings, from {least} to {most}"


def test_one_training_has_a_gap_without_an_interval(drawn):
    evidence = drawn({"leap": {0.5: 0.0}}, models=("a",), seeds={"leap": (0,)}, looks=gap_of(0.0, 0.001))
    found = findings.rounding_gap(evidence, "leap")
    assert (found.verdict, math.isnan(found.low)) == (UNDECIDED, True)
    assert findings.rounding_gap(drawn({"leap": 0.0}), "leap") is None
    nothing = pd.DataFrame({"method": ["leap"], "sparsity_target": [0.5], "held_out_topk": [math.nan]})
    bare = findings.CollectedTables(evidence.results, evidence.outcomes, nothing, evidence.methods, (0.5,))
    assert findings.rounding_gap(bare, "leap") is None
