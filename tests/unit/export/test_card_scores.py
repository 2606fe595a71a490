"""A card's scores: intervals against SciPy's and by hand, and what the model was scored on."""

import math

import pytest
from runs import CELL, MODEL, put_run
from scipy.stats import binomtest, norm

from leap_repro.export import scores
from leap_repro.export.card import how_to_load
from leap_repro.export.lineage import Lineage, lineage_of
from leap_repro.store.artifacts import Artifact, writing
from leap_repro.store.questions import TASKS


@pytest.mark.parametrize(("right", "count"), [(0, 20), (1, 20), (13, 25), (199, 200), (25, 25)])
def test_an_accuracys_interval_is_wilsons(right, count):
    found = scores.wilson(100 * right / count, count)
    expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert found == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-4)


def row(task, value, n=100):
    return {"task": task, "metric": "acc", "value": value, "stderr": 1.0, "n": n, "protocol": "zero-shot"}


def test_a_perfect_task_has_an_interval():
    low, high = scores.interval(row("piqa", 100.0, 25), [])
    assert low < 90
    assert high == pytest.approx(100)


def test_the_average_of_alike_tasks_is_as_sure_as_all_their_questions():
    """Six tasks of one accuracy: the interval's width is a task's by the root of six."""
    rows = [row(task, 50.0) for task in TASKS] + [row("further", 0.0), row("average", 50.0, 600)]
    low, high = scores.interval(rows[-1], rows)
    one_low, one_high = scores.wilson(50.0, 100)
    assert high - low == pytest.approx((one_high - one_low) / math.sqrt(6))
    assert (low + high) / 2 == pytest.approx(50)


def test_a_perplexitys_interval_is_by_its_standard_error():
    found = {"task": "perplexity", "metric": "perplexity@8", "value": 7.0, "stderr": 0.5, "n": 4}
    reach = norm.ppf(0.975) * 0.5
    assert scores.interval(found, [found]) == pytest.approx((7 - reach, 7 + reach), abs=1e-5)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"source": "bundled"}, "the miniature's synthetic questions"),
        ({"source": "path", "path": "/home/me/sets"}, "questions of sets."),
        ({"source": "hub", "id": "org/set", "revision": "abc"}, "questions from the hub of org/set at abc"),
        ({"source": "hub", "sets": {}}, "questions from the hub, at pinned commits"),
    ],
)
def test_the_card_names_what_the_scores_are_on(tmp_path, spec, words):
    put_run(tmp_path)
    with writing(tmp_path / "asked", {"parameters": spec}):
        pass
    evaluated = Artifact.read(tmp_path / "evaluate" / CELL)
    model, cell = Artifact.read(tmp_path / "models" / MODEL), Artifact.read(tmp_path / "harden" / CELL)
    text = scores.scores(Lineage(model, cell, evaluated=evaluated, questions=Artifact.read(tmp_path / "asked")))
    assert words in text
    assert "/home/me" not in text


def test_a_runs_own_data_are_found(tmp_path):
    put_run(tmp_path)
    lineage = lineage_of(Artifact.read(tmp_path / "models" / MODEL), Artifact.read(tmp_path / "harden" / CELL))
    assert lineage.questions.folder == tmp_path / "data/tasks"
    assert lineage.scored_text.folder == tmp_path / "data/perplexity"


@pytest.mark.parametrize(("form", "needs"), [("dense", False), ("packed", True), ("2:4", True)])
def test_the_card_says_how_to_install_what_loads_it(form, needs):
    assert ("pip install" in how_to_load(form)) == needs
