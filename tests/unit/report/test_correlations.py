"""Correlations of relaxed and hardened masks against scipy, on runs made by hand."""

import math
from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from leap_repro.report import correlations
from leap_repro.report.correlations import correlate, correlations_table, gap_table

METHODS = {"leap": {"label": "LEAP"}, "leap-slow": {"label": "LEAP (slow)"}}
STEPS = (0, 10, 20, 30, 40, 50, 60)


def drawn(number, seed=0):
    generator = np.random.default_rng(seed)
    x = pd.Series(generator.normal(size=number).round(1))  # rounded, so that there are ties
    return x, (0.7 * x + generator.normal(size=number)).round(1)


@pytest.fixture
def training():
    """Four runs (two models, one of them with two methods and seeds) of seven probes, each between other steps."""
    generator = np.random.default_rng(7)
    rows = []
    runs = [("a", "leap", 0), ("a", "leap", 1), ("a", "leap-slow", 0), ("a", "leap-slow", 1), ("b", "leap", 0)]
    for model, method, seed in runs:
        for step in range(61):
            probe = {"held_out_relaxed": 3 - step / 60 + generator.normal() / 4}
            probe["held_out_objective"] = probe["held_out_relaxed"] + generator.normal()
            probe["held_out_topk"] = probe["held_out_relaxed"] + generator.uniform(0, 1)
            probe["held_out_threshold"] = probe["held_out_topk"] + 0.25
            row = {"model": model, "method": method, "sparsity_target": 0.5, "seed": seed, "step": step}
            rows.append(row | {name: value if step in STEPS else math.nan for name, value in probe.items()})
    return pd.DataFrame(rows).sample(frac=1, random_state=0, ignore_index=True)


@pytest.fixture
def results(training):
    runs = training[correlations.RUN].drop_duplicates().sort_values(correlations.RUN, ignore_index=True)
    return runs.assign(task="average", value=[60.0, 61.5, 59.0, 63.0, 50.0])


def twice(frame):
    """As many models again, with the same numbers."""
    return pd.concat([frame.assign(model=frame["model"] + number) for number in "12"])


def runs_of(training):
    probes = training.dropna(subset=["held_out_topk"]).sort_values("step")
    return {key: run for key, run in probes.groupby(correlations.RUN)}


@pytest.mark.parametrize("number", [5, 40])
def test_correlations_are_scipys_and_so_is_pearsons_interval(number):
    x, y = drawn(number)
    found, expected = correlate(x, y), stats.pearsonr(x, y)
    interval = expected.confidence_interval(0.95)
    assert (found.pearson, found.pearson_low, found.pearson_high) == pytest.approx((expected[0], *interval))
    assert found.spearman == pytest.approx(stats.spearmanr(x, y)[0])
    assert found.pairs == number


def test_spearmans_interval_is_bonetts_and_wrights():
    x, y = drawn(30)
    found, r = correlate(x, y), stats.spearmanr(*drawn(30))[0]
    reach = stats.norm.ppf(0.975) * math.sqrt((1 + r**2 / 2) / (30 - 3))
    expected = [math.tanh(math.atanh(r) + sign * reach) for sign in (-1, 1)]
    assert [found.spearman_low, found.spearman_high] == pytest.approx(expected)


def test_within_groups_their_levels_do_not_count():
    """Partial correlation given the group: scipy's of the residuals of a regression on the groups' indicators."""
    x, y = drawn(24)
    groups = pd.Series(np.repeat([0, 1, 2], 8))
    found = correlate(x + 100 * groups, y - 300 * groups, groups)
    indicators = np.eye(3)[groups]
    residuals = [v - indicators @ np.linalg.lstsq(indicators, v, rcond=None)[0] for v in (x.to_numpy(), y.to_numpy())]
    r = stats.pearsonr(*residuals)[0]
    assert found.pearson == pytest.approx(r)
    reach = stats.norm.ppf(0.975) / math.sqrt(24 - 2 - 3)
    assert found.pearson_low == pytest.approx(math.tanh(math.atanh(r) - reach))
    assert abs(correlate(x + 100 * groups, y - 300 * groups).pearson) > 0.99


def test_pairs_that_come_in_clusters_may_count_for_fewer():
    """Each pair four times over says no more than it does once."""
    x, y = drawn(20)
    once, often = correlate(x, y), correlate(*(pd.concat([v] * 4, ignore_index=True) for v in (x, y)), independent=20)
    assert astuple(often)[1:] == pytest.approx(astuple(once)[1:])


def test_within_groups_ranks_are_those_of_the_group():
    x, y = pd.Series([1.0, 2, 3, 101, 102, 103]), pd.Series([1.0, 2, 3, 3, 1, 2])
    found = correlate(x, y, pd.Series([0, 0, 0, 1, 1, 1]))
    assert found.spearman == pytest.approx((1 + stats.spearmanr([1, 2, 3], [3, 1, 2])[0]) / 2)


def test_no_interval_of_few_pairs_or_of_a_perfect_coefficient_and_no_coefficient_of_a_constant():
    few = correlate(pd.Series([1.0, 2, 4]), pd.Series([1.0, 4, 2]))
    assert not math.isnan(few.pearson)
    assert math.isnan(few.pearson_low)
    perfect = correlate(pd.Series(range(9)), 2 * pd.Series(range(9)))
    assert perfect.spearman == pytest.approx(1)
    assert math.isnan(perfect.pearson_low)
    assert math.isnan(correlate(pd.Series([1.0] * 5), pd.Series(range(5))).pearson)


def test_over_steps_is_the_mean_over_runs_and_their_range(training, results):
    numbers = correlations_table(training, results, METHODS).numbers
    row = numbers[(numbers["over"] == correlations.STEPS) & (numbers["relaxed"] == "objective")].iloc[0]
    each = [stats.pearsonr(r["held_out_objective"], r["held_out_topk"])[0] for r in runs_of(training).values()]
    found = [row["runs"], row["pearson"], row["pearson_low"], row["pearson_high"]]
    assert found == pytest.approx([5, np.mean(each), min(each), max(each)])


def test_a_runs_first_step_is_left_out_beside_them_all(training, results):
    numbers = correlations_table(training, results, METHODS).numbers
    row = numbers[(numbers["over"] == correlations.LATER) & (numbers["relaxed"] == "relaxed loss")].iloc[0]
    each = [stats.spearmanr(r["held_out_relaxed"][1:], r["held_out_topk"][1:])[0] for r in runs_of(training).values()]
    found = [row["runs"], row["pairs"], row["spearman"], row["spearman_low"], row["spearman_high"]]
    assert found == pytest.approx([5, 5 * 6, np.mean(each), min(each), max(each)])


def last_values(training, results):
    accuracy = results.set_index(correlations.RUN)["value"]
    rows = [
        (run["held_out_relaxed"].iloc[-1], run["held_out_topk"].iloc[-1], accuracy[key])
        for key, run in runs_of(training).items()
    ]
    return np.array(rows).T


def test_over_runs_takes_the_last_probe_of_each(training, results):
    numbers = correlations_table(training, results, METHODS).numbers.set_index(["over", "relaxed", "outcome"])
    relaxed, hardened, accuracy = last_values(training, results)
    for outcome, values in (("hardened loss", hardened), ("accuracy", accuracy)):
        found = numbers.loc[("all runs", "relaxed loss", outcome)]
        assert found["pearson"] == pytest.approx(stats.pearsonr(relaxed, values)[0])
        assert found["spearman"] == pytest.approx(stats.spearmanr(relaxed, values)[0])
        assert found["runs"] == 5


def test_runs_of_one_model_and_sparsity_stand_alone_and_pooled(training, results):
    numbers = correlations_table(training, results, METHODS).numbers.set_index(["over", "relaxed", "outcome"])
    relaxed, _, accuracy = (values[:4] for values in last_values(training, results))  # the four runs of model a
    expected = stats.pearsonr(relaxed, accuracy)[0]
    for over in ("runs of a, 50 %", "runs, within model and sparsity"):  # model b's one run has nothing beside it
        found = numbers.loc[(over, "relaxed loss", "accuracy")]
        assert found["pearson"] == pytest.approx(expected)
        assert found["runs"] == 4
    assert "runs of b, 50 %" not in numbers.index.get_level_values("over")


def test_other_methods_runs_are_left_out(training, results):
    numbers = correlations_table(training, results, {"leap": {}}).numbers
    assert set(numbers["runs"]) == {3}
    assert set(numbers["over"]) == {correlations.STEPS, correlations.LATER}  # three runs are too few


def test_runs_of_another_length_are_left_out(training, results):
    short = training[(training["model"] != "b") | (training["step"] < 40)]
    assert len(correlations.last_probes(correlations.probes_of(short, METHODS), results)) == 4


def test_the_early_loss_is_that_of_the_last_probe_in_the_first_quarter(training, results):
    runs = correlations.last_probes(correlations.probes_of(training, METHODS), results).set_index(correlations.RUN)
    expected = {key: run.loc[run["step"] == 10, "held_out_relaxed"].item() for key, run in runs_of(training).items()}
    assert runs[correlations.EARLY].to_dict() == expected, "11 of 61 steps; 21 are more than a quarter"


def test_within_a_seed_lines_alone_are_compared(training, results):
    numbers = correlations_table(training, results, METHODS).numbers.set_index(["over", "relaxed", "outcome"])
    found = numbers.loc[(correlations.WITHIN_SEED, "relaxed loss", "accuracy")]
    relaxed, _, accuracy = (values[:4] for values in last_values(training, results))
    seeds = np.array([0, 1, 0, 1])  # leap, leap, leap-slow, leap-slow
    centred = [values - np.array([values[seeds == seed].mean() for seed in seeds]) for values in (relaxed, accuracy)]
    assert found["pearson"] == pytest.approx(stats.pearsonr(*centred)[0])


def test_the_table_words_ranges_and_intervals_apart(training, results):
    table = correlations_table(*(twice(frame) for frame in (training, results)), METHODS)
    words = dict(zip(table.shown["Over"], table.shown["Pearson"], strict=True))
    assert " to " in words[correlations.STEPS]
    assert "[" in words["all runs"]
    assert "−" in table.markdown()


def test_seeds_of_a_line_are_counted_as_one_in_an_interval(training, results):
    numbers = correlations_table(*(twice(frame) for frame in (training, results)), METHODS).numbers
    found = numbers.set_index(["over", "relaxed", "outcome"]).loc[("all runs", "relaxed loss", "accuracy")]
    assert found["runs"] == 10
    reach = stats.norm.ppf(0.975) / math.sqrt(2 * 3 - 3)  # three lines of each copy
    assert found["pearson_high"] == pytest.approx(math.tanh(math.atanh(found["pearson"]) + reach))


def test_variants_are_no_part_of_the_gap_where_there_is_a_base(training):
    varied = METHODS | {"leap-slow": METHODS["leap-slow"] | {"variant_of": "leap"}}
    table = gap_table(training, varied)
    assert set(table.numbers["runs"]) == {3}
    assert table.caption.endswith(": " + varied["leap"]["label"])


def test_the_gap_is_relaxed_minus_hardened_at_up_to_six_steps_first_and_last_among_them(training):
    table = gap_table(training, METHODS)
    assert list(table.numbers["step"]) == [0, 10, 20, 40, 50, 60]
    last = table.numbers.iloc[-1]
    gaps = [run["held_out_relaxed"].iloc[-1] - run["held_out_topk"].iloc[-1] for run in runs_of(training).values()]
    found = [last["runs"], last["gap_topk"], last["gap_topk_least"], last["gap_topk_greatest"]]
    assert found == pytest.approx([5, np.mean(gaps), min(gaps), max(gaps)])
    assert last["gap_threshold"] == pytest.approx(np.mean(gaps) - 0.25)
    assert last["relaxed"] - last["topk"] == pytest.approx(last["gap_topk"])


def test_runs_that_were_not_probed_are_refused(training, refused):
    with refused("leap", "held-out"):
        gap_table(training.assign(held_out_topk=math.nan), METHODS)
    with refused("leap", "held-out"):
        gap_table(training[correlations.RUN], METHODS)


@pytest.mark.parametrize("groups", [[0] * 8, [0] * 5 + [1] * 3])
def test_a_perfect_order_has_the_interval_of_one_in_which_two_neighbours_changed_places(groups):
    x, groups = pd.Series(range(8), dtype=float), pd.Series(groups)
    perfect = correlate(x, x**3, groups)
    swapped = correlate(x, pd.Series([1, 0, *range(2, 8)], dtype=float) ** 3, groups)
    assert perfect.spearman == pytest.approx(1)
    assert math.isnan(correlate(x, 2 * x, groups).pearson_low)
    numerator = math.sqrt(1 + perfect.spearman**2 / 2)
    reach = 1.959964 * numerator / math.sqrt(8 - groups.nunique() + 1 - 3)
    assert perfect.spearman_low == pytest.approx(math.tanh(math.atanh(swapped.spearman) - reach), rel=1e-5)
    assert correlate(x, -(x**3), groups).spearman_high == pytest.approx(-perfect.spearman_low)
