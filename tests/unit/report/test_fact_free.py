"""LEAP and ADMM on several texts: every number against NumPy on the answers."""

import numpy as np
import pytest

from leap_repro.errors import UserError
from leap_repro.report.fact_free import MEAN, fact_free_table
from leap_repro.report.statistics import contrast, paired_difference

ABILITIES = {"leap": 0.6, "admm": 0.2, "leap-control": 0.5, "admm-control": 0.2, "leap-free": 0.1, "admm-free": 0.2}
TEXTS = {"control": "control", "free": "fact-free"}


def methods_of(collected):
    return {name: facts | {"text": TEXTS.get(name.partition("-")[2])} for name, facts in collected.methods.items()}


@pytest.fixture(scope="module")
def collected(drawn):
    return drawn(ABILITIES, sparsities=(0.6,))


@pytest.fixture(scope="module")
def numbers(collected):
    return fact_free_table(collected.outcomes, methods_of(collected)).numbers.set_index(["model", "quantity"])


def average(outcomes, method, model, seed=None):
    """The mean of task means, in points, of one seed or of all."""
    own = outcomes.query("method == @method and model == @model")
    own = own if seed is None else own[own["seed"] == seed]
    return 100 * np.mean([own.loc[own["task"] == task, "correct"].mean() for task in sorted(set(own["task"]))])


def test_every_quantity_is_there_for_each_model_and_for_their_mean(collected, numbers):
    for model in ("a", "b"):
        found = {name: average(collected.outcomes, name, model) for name in ABILITIES}
        lead, leap, admm = (numbers.loc[(model, quantity)] for quantity in ("lead", "leap", "admm"))
        assert leap["usual"] == pytest.approx(found["leap"])
        assert admm["fact-free"] == pytest.approx(found["admm-free"])
        assert lead["control"] == pytest.approx(found["leap-control"] - found["admm-control"])
        assert lead["usual − fact-free"] == pytest.approx(lead["usual"] - lead["fact-free"])
        assert leap["control − fact-free"] == pytest.approx(found["leap-control"] - found["leap-free"])
    for column in ("usual", "usual − control", "control − fact-free"):
        own = [numbers.loc[(model, "lead")][column] for model in ("a", "b")]
        assert numbers.loc[(MEAN, "lead")][column] == pytest.approx(np.mean(own))


def test_the_seeds_have_a_column_of_their_own(collected, numbers):
    leads = {}
    for model in ("a", "b"):
        leap, admm = (
            [average(collected.outcomes, name, model, seed) for seed in range(3)] for name in ("leap", "admm")
        )
        leads[model] = np.std(np.subtract(leap, admm), ddof=1)
    assert numbers.loc[("a", "lead")]["sd usual"] == pytest.approx(leads["a"])
    assert numbers.loc[(MEAN, "lead")]["sd usual"] == pytest.approx(np.hypot(*leads.values()) / 2)


def test_what_the_texts_do_is_found_and_its_interval_holds_the_truth(numbers):
    """LEAP loses most of its ability between the control and the fact-free text, ADMM nothing anywhere."""
    row = numbers.loc[(MEAN, "lead")]
    assert row["low control − fact-free"] > 0
    assert row["low control − fact-free"] < row["control − fact-free"] < row["high control − fact-free"]
    assert row["low over models control − fact-free"] < row["low control − fact-free"], (
        "two models say little of others"
    )
    admm = numbers.loc[(MEAN, "admm")]
    assert admm["low usual − fact-free"] < 0 < admm["high usual − fact-free"]


def test_a_contrast_of_two_is_their_paired_difference(collected):
    assert contrast(collected.outcomes, {"leap": 1, "admm": -1}) == paired_difference(
        collected.outcomes, "leap", "admm"
    )


def test_the_table_shows_the_texts_in_their_order(collected):
    table = fact_free_table(collected.outcomes, methods_of(collected))
    assert list(table.shown.columns[3:6]) == ["On usual text", "On control text", "On fact-free text"]
    assert list(table.shown.columns[7:]) == ["usual − control", "control − fact-free", "usual − fact-free"]
    assert list(table.shown["Model"]) == ["a"] * 3 + ["b"] * 3 + [MEAN] * 3
    assert list(table.shown["What"])[:3] == ["LEAP − ADMM", "LEAP", "ADMM"]
    assert len(table.numbers) == len(table.shown)


def test_a_text_that_one_of_the_two_was_not_run_on_is_refused(collected):
    methods = methods_of(collected)
    del methods["admm-free"]
    with pytest.raises(UserError, match="on the text 'fact-free' there is no method of admm"):
        fact_free_table(collected.outcomes, methods)
