"""The paired difference against computations by hand, textbook analysis of variance and a bootstrap; Holm against its
definition and R's values."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from leap_repro.report.statistics import (
    ABSENT,
    Difference,
    crossed_difference,
    holm,
    mean_over_cells,
    over_seeds,
    paired_difference,
)

QUESTION = ["task", "leaf", "index"]


def outcomes(correct):
    """{(method, model, seed): {task: [0/1, ...]}} as the long table."""
    return pd.DataFrame(
        {"method": method, "model": model, "seed": seed, "task": task, "leaf": task, "index": index, "correct": hit}
        for (method, model, seed), tasks in correct.items()
        for task, hits in tasks.items()
        for index, hit in enumerate(hits)
    )


def drawn(models=("m",), seeds=(0, 1, 2), tasks=(("piqa", 40), ("mmlu", 60)), rng=0, reference_seeds=None, luck=0.3):
    """Answers that share the difficulty of their question, what it is worth to a method, and a seed's luck."""
    rng = np.random.default_rng(rng)
    difficulty = {task: rng.normal(size=size) for task, size in tasks}
    hits = {}
    for method, mean in (("leap", 0.5), ("admm", 0.2)):
        worth = {task: mean + difficulty[task] + rng.normal(size=size) for task, size in tasks}
        for model in models:
            for seed in seeds if method == "leap" else reference_seeds or seeds:
                lucky = luck * rng.normal()
                hits[method, model, seed] = {
                    task: (worth[task] + lucky + rng.normal(size=size) > 0).astype(int) for task, size in tasks
                }
    return outcomes(hits)


def test_difference_and_error_of_two_tasks_by_hand():
    table = outcomes(
        {
            ("leap", "m", 0): {"piqa": [1, 1, 0, 1], "mmlu": [0, 1]},
            ("admm", "m", 0): {"piqa": [1, 0, 0, 0], "mmlu": [1, 1]},
        }
    )
    found = paired_difference(table, "leap", "admm")
    # piqa: differences 0 1 0 1, mean 50, variance 1/3; mmlu: -1 0, mean -50, variance 1/2 (in units of 100 points)
    piqa, mmlu = 1 / 3 / 4, 1 / 2 / 2
    assert found.value == pytest.approx(0.0)
    assert found.stderr == pytest.approx(100 * math.sqrt((piqa + mmlu) / 4))
    assert found.dof == pytest.approx((piqa + mmlu) ** 2 / (piqa**2 / 3 + mmlu**2 / 1))
    assert (found.questions, found.seeds, found.models) == (6, 1, 1)


def test_tasks_weigh_the_same_whatever_their_size():
    table = outcomes(
        {
            ("leap", "m", 0): {"piqa": [1] * 10, "mmlu": [0] * 1000},
            ("admm", "m", 0): {"piqa": [0] * 10, "mmlu": [0] * 1000},
        }
    )
    found = paired_difference(table, "leap", "admm")
    assert (found.value, found.stderr) == (pytest.approx(50.0), 0)
    assert found.p_value == 0


def test_a_method_that_is_absent_has_no_difference():
    table = outcomes({("leap", "m", 0): {"piqa": [1, 0]}})
    found = paired_difference(table, "leap", "admm")
    assert found == ABSENT
    assert all(math.isnan(number) for number in (found.value, found.stderr, found.p_value, *found.interval))
    assert mean_over_cells(table.assign(sparsity_target=0.5), "leap", "admm") == ABSENT


def test_masks_that_answer_alike_differ_by_nothing():
    table = outcomes({(method, "m", 0): {"piqa": [1, 0, 1]} for method in ("leap", "admm")})
    found = paired_difference(table, "leap", "admm")
    assert (found.value, found.stderr, found.p_value, *found.interval) == (0, 0, 1, 0, 0)


def test_a_task_with_one_question_has_no_error():
    table = outcomes({(method, "m", 0): {"piqa": [hit, 0], "mmlu": [1]} for method, hit in (("leap", 1), ("admm", 0))})
    found = paired_difference(table, "leap", "admm")
    assert found.value == 25
    assert math.isnan(found.stderr)


def two_way(values):
    """(variance of the mean, mean squares of questions, seeds and rest) of a table [questions, seeds]: the analysis of
    variance of a crossed design with random rows and columns, as textbooks have it."""
    questions, seeds = values.shape
    rows, columns, all_ = values.mean(axis=1), values.mean(axis=0), values.mean()
    of_rows = seeds * sum((row - all_) ** 2 for row in rows) / (questions - 1)
    of_columns = questions * sum((column - all_) ** 2 for column in columns) / (seeds - 1)
    rest = sum((values[i, j] - rows[i] - columns[j] + all_) ** 2 for i in range(questions) for j in range(seeds)) / (
        (questions - 1) * (seeds - 1)
    )
    return (of_rows + of_columns - rest) / (questions * seeds), of_rows, of_columns, rest


@pytest.mark.parametrize("rng", range(6))
def test_the_error_of_one_model_and_task_is_the_textbooks(rng):
    table = drawn(tasks=(("piqa", 50),), rng=rng, luck=0.8)
    wide = table.pivot(index=QUESTION, columns=["method", "seed"], values="correct")
    variance, rows, columns, rest = two_way(100.0 * (wide["leap"] - wide["admm"]).to_numpy())
    found = paired_difference(table, "leap", "admm")
    floor = max(rows, columns) / (50 * 3)
    assert found.stderr**2 == pytest.approx(max(variance, floor))
    if columns > rest and rows > rest:
        dof = (rows + columns - rest) ** 2 / (rows**2 / 49 + columns**2 / 2)
        assert found.dof == pytest.approx(dof)
    assert (found.questions, found.seeds, found.models) == (50, 3, 1)


def test_five_models_with_three_seeds_have_ten_degrees_of_freedom_where_seeds_are_all():
    """Every question of a cell turns out the same, so that only the seeds differ."""
    rng = np.random.default_rng(0)
    hits = {
        (method, model, seed): {task: [int(rng.random() < 0.5)] * 4 for task in ("piqa", "mmlu", "arc_easy")}
        for method in ("leap", "admm")
        for model in "abcde"
        for seed in range(3)
    }
    found = paired_difference(outcomes(hits), "leap", "admm")
    means = {key: 100 * np.mean([task[0] for task in tasks.values()]) for key, tasks in hits.items()}
    spreads = [np.var([means["leap", m, s] - means["admm", m, s] for s in range(3)], ddof=1) for m in "abcde"]
    assert found.dof == pytest.approx(10)
    assert found.stderr == pytest.approx(math.sqrt(sum(spreads) / 3) / 5)


def test_a_method_without_seeds_stands_beside_each_seed_of_the_other():
    alone = drawn(reference_seeds=(0,))
    reference = alone[alone["method"] == "admm"]
    copied = pd.concat([alone[alone["method"] == "leap"], *(reference.assign(seed=seed) for seed in range(3))])
    there, back = (paired_difference(alone, *pair, ["admm"]) for pair in (("leap", "admm"), ("admm", "leap")))
    assert there == paired_difference(copied, "leap", "admm")
    assert (back.value, back.stderr, back.seeds) == (-there.value, pytest.approx(there.stderr), 3)


def test_one_run_stands_beside_every_seed_of_the_other_and_is_taken_to_spread_as_much():
    """The variance over seeds counts once for its mean of three, and once more for the other's single run."""
    once = drawn(tasks=(("piqa", 50),), reference_seeds=(1,), luck=1.5)
    found = paired_difference(once, "leap", "admm")
    wide = once.pivot(index=QUESTION, columns=["method", "seed"], values="correct")
    each = 100.0 * wide["leap"].sub(wide["admm", 1], axis=0)
    assert found.value == pytest.approx(each.mean().mean())
    assert (found.seeds, found.most_seeds) == (1, 3)
    _, rows, columns, rest = two_way(each.to_numpy())
    of_questions, of_seeds, both = rows / 150, 4 * columns / 150, 4 * rest / 150
    floor = max(of_questions, of_seeds)
    assert found.stderr**2 == pytest.approx(max(of_questions + of_seeds - both, floor))
    assert found.dof == pytest.approx(found.stderr**4 / (of_questions**2 / 49 + of_seeds**2 / 2))
    back = paired_difference(once, "admm", "leap")
    assert (back.value, back.stderr, back.dof) == pytest.approx((-found.value, found.stderr, found.dof))


def test_two_single_runs_are_paired_and_their_error_covers_questions_only():
    alone = drawn(seeds=(0,), reference_seeds=(0,))
    found = paired_difference(alone, "leap", "admm")
    assert (found.seeds, found.most_seeds) == (1, 1)
    copied = pd.concat([alone, alone.assign(seed=1)])
    assert found.value == pytest.approx(paired_difference(copied, "leap", "admm").value)


@pytest.mark.parametrize("models", ["ab", "abcde"])
def test_the_interval_over_models_is_students_of_the_models_differences(models):
    table = drawn(models=tuple(models), luck=0.5)
    found = paired_difference(table, "leap", "admm")
    each = [paired_difference(table[table["model"] == model], "leap", "admm").value for model in models]
    expected = stats.t.interval(0.95, len(models) - 1, np.mean(each), stats.sem(each))
    assert found.models_interval == pytest.approx(expected)
    assert found.value == pytest.approx(np.mean(each))


def test_one_model_has_no_interval_over_models():
    assert all(math.isnan(end) for end in paired_difference(drawn(), "leap", "admm").models_interval)


def test_models_with_more_cells_weigh_more_in_the_interval_over_models():
    """Of a weighted mean, by many draws: the mean square of the error is the variance of the mean."""
    rng, weights = np.random.default_rng(0), [2, 2, 1]
    levels = rng.normal(size=(3, 1, 1, 20000))
    pairs = [np.broadcast_to(level, (4, 1, 20000)) for level in levels]
    found = crossed_difference(pairs, np.array(list("aabb")), weights)
    assert (found.models_stderr**2).mean() == pytest.approx(found.value.var(), rel=0.05)


def test_seeds_are_paired_and_those_of_one_method_alone_left_out():
    table = drawn(seeds=(0, 1, 2), reference_seeds=(1, 2, 3), luck=1)
    kept = table[table["seed"].isin([1, 2])]
    assert paired_difference(table, "leap", "admm") == paired_difference(kept, "leap", "admm")
    shuffled = table.assign(seed=table["seed"].where(table["method"] == "leap", 3 - table["seed"]))
    assert paired_difference(shuffled, "leap", "admm").stderr != paired_difference(kept, "leap", "admm").stderr


def test_what_cannot_be_paired_is_refused(refused):
    with refused("leap and admm on m", "no seed in common", "0, 1 and 2, 3"):
        paired_difference(drawn(seeds=(0, 1), reference_seeds=(2, 3)), "leap", "admm")
    table = drawn(models=("a", "b"))
    with refused("leap and admm", "same questions"):
        paired_difference(table.drop(index=7), "leap", "admm")
    with refused("leap and admm", "same questions"):
        paired_difference(table[(table["model"] == "a") | (table["index"] > 0)], "leap", "admm")


def test_a_model_with_one_seed_leaves_an_error_without_seeds():
    table = drawn(models=("a", "b"))
    fewer = table[(table["model"] == "a") | (table["seed"] == 0)]
    found = paired_difference(fewer, "leap", "admm")
    means = fewer.pivot_table(index=[*QUESTION, "model"], columns="method", values="correct", aggfunc="mean")
    each = 100 * (means["leap"] - means["admm"]).groupby(QUESTION).mean()
    by_task = each.groupby("task")
    assert found.seeds == 1
    assert found.value == pytest.approx(by_task.mean().mean())
    assert found.stderr == pytest.approx(math.sqrt((by_task.var() / by_task.size()).sum() / 4))


def test_the_error_is_never_below_that_of_questions_or_seeds_alone():
    for rng in range(30):
        table = drawn(rng=rng, tasks=(("piqa", 12), ("mmlu", 9)), luck=0)
        wide = table.pivot(index=QUESTION, columns=["method", "seed"], values="correct")
        each = 100 * (wide["leap"] - wide["admm"])
        by_task = each.mean(axis=1).groupby("task")
        questions = (by_task.var() / by_task.size()).sum() / 4
        seeds = each.groupby("task").mean().mean().var() / 3
        assert paired_difference(table, "leap", "admm").stderr ** 2 >= max(questions, seeds) * (1 - 1e-12)


def test_the_mean_over_cells_counts_each_cell_once_and_its_questions_together():
    parts = [drawn(models=("a", "b"), rng=rng).assign(sparsity_target=s) for rng, s in ((1, 0.5), (2, 0.6))]
    one = mean_over_cells(parts[0], "leap", "admm")
    assert one == paired_difference(parts[0], "leap", "admm")
    both = pd.concat([parts[0], parts[1][parts[1]["model"] == "a"]])
    found = mean_over_cells(both, "leap", "admm")
    cells = [paired_difference(here, "leap", "admm").value for _, here in both.groupby(["model", "sparsity_target"])]
    assert found.value == pytest.approx(np.mean(cells))
    assert (found.questions, found.seeds, found.models) == (100, 3, 2)
    twice = pd.concat([parts[0], parts[0].assign(sparsity_target=0.6)])
    assert mean_over_cells(twice, "leap", "admm") == one, "the same answers again are no new evidence"


def pigeonhole(wide, replicates, rng):
    """Variance of the average when questions are drawn again within their task, and seeds within their model."""

    def drawn_again(groups):
        """How often each is drawn, as its weight in the mean of the groups' means: [replicates, all of them]."""
        counts = np.zeros((replicates, len(groups)))
        for group in set(groups):
            size = (groups == group).sum()
            counts[:, groups == group] = rng.multinomial(size, np.full(size, 1 / size), replicates) / size
        return counts / len(set(groups))

    questions = drawn_again(wide.index.get_level_values("task"))
    seeds = drawn_again(wide.columns.get_level_values("model"))
    return np.einsum("rq,qs,rs->r", questions, wide.to_numpy(), seeds, optimize=True).var(ddof=1)


def test_with_many_seeds_a_pigeonhole_bootstrap_finds_the_same_error():
    """Owen, Annals of Applied Statistics 1, 2007: with 40 seeds it takes away little, and what it counts three times
    of the answers' own noise is little."""
    table = drawn(models=("a", "b"), seeds=range(40), tasks=(("piqa", 150), ("mmlu", 100)), luck=0.5)
    wide = table.pivot(index=QUESTION, columns=["method", "model", "seed"], values="correct")
    each = 100.0 * (wide["leap"] - wide["admm"])
    boot = pigeonhole(each, 10000, np.random.default_rng(0))
    found = paired_difference(table, "leap", "admm")
    by_task = each.mean(axis=1).groupby("task")
    alone = math.sqrt((by_task.var() / by_task.size()).sum() / 4)
    assert found.stderr == pytest.approx(math.sqrt(boot), rel=0.03)
    assert alone < 0.9 * found.stderr, "the seeds count"


def test_interval_and_p_value_are_students():
    found = Difference(1.5, 0.6, 7.5, 100, 3, 5)
    assert found.interval == pytest.approx(stats.t.interval(0.95, 7.5, 1.5, 0.6))
    assert found.p_value == pytest.approx(2 * stats.t.sf(1.5 / 0.6, 7.5))
    assert Difference(-1.5, 0.6, 7.5, 100, 3, 5).p_value == found.p_value


def closed_test(p_values):
    """Holm by its definition: the closure of Bonferroni's test. A hypothesis falls with every family it is in."""
    places = range(len(p_values))
    families = [family for size in range(1, len(p_values) + 1) for family in combinations(places, size)]
    bonferroni = {family: min(1, len(family) * min(p_values[i] for i in family)) for family in families}
    return [max(p for family, p in bonferroni.items() if i in family) for i in places]


@pytest.mark.parametrize("rng", range(10))
def test_holm_is_the_closure_of_bonferroni(rng):
    p_values = np.random.default_rng(rng).random(8) ** 4
    p_values[3] = p_values[5]
    assert list(holm(p_values)) == pytest.approx(closed_test(p_values))


R_VALUES = """
5.23656777208e-05 5.2365677720800005e-04   0.00028140506198 2.5326455578199999e-03
0.0149877310796 1.1990184863680001e-01     0.0202732688798 1.4191288215860001e-01
0.177096952723 1   0.642193923795 1   0.680845947633 1   0.71626938238 1   0.838541367553 1   0.967833824309 1
"""


def test_holm_finds_what_rs_multtest_finds():
    """Values of R's mt.rawp2adjp, published with the tests of statsmodels (stats/tests/test_multi.py)."""
    p_values, adjusted = np.array(R_VALUES.split(), dtype=float).reshape(-1, 2).T
    order = np.random.default_rng(0).permutation(len(p_values))
    assert holm(p_values[order]) == pytest.approx(adjusted[order], rel=1e-12)
    assert list(holm([0.001, 0.002, 0.003, 0.004, 0.005, 0.05, 0.06, 0.07, 0.08, 0.09])) == pytest.approx(
        [0.01, 0.018, 0.024, 0.028, 0.03, 0.25, 0.25, 0.25, 0.25, 0.25]
    )


def test_what_was_not_tested_is_not_in_the_family():
    assert holm([0.02, math.nan, 0.01]) == pytest.approx([0.02, math.nan, 0.02], nan_ok=True)
    assert holm([]).shape == (0,)


def test_seeds_are_averaged_and_their_spread_is_kept():
    rows = pd.DataFrame(
        {
            "model": "m",
            "method": "leap",
            "sparsity_target": 0.5,
            "task": "average",
            "metric": "acc",
            "value": [60.0, 62.0, 64.0],
            "seed": [0, 1, 2],
            "sparsity_actual": 0.5,
        }
    )
    row = over_seeds(rows).iloc[0]
    assert (row["value"], row["sd"], row["seeds"]) == (62.0, 2.0, 3)
