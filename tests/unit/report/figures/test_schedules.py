"""The figure of schedules: each variant beside LEAP on the same models and seeds, in the group of its options."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from leap_repro.errors import UserError
from leap_repro.report.figures import schedules
from leap_repro.report.figures.style import save, use_style
from leap_repro.report.statistics import paired_difference

LABELS = {
    "leap": "LEAP",
    "leap-cosine": "LEAP (cosine schedules)",
    "leap-warmer": "LEAP (tau starts at 8)",
    "leap-cold": "LEAP (no warm start)",
}
OPTIONS = {"leap-cosine": ["kappa_schedule", "tau_schedule"], "leap-warmer": ["tau_start"]}
METHODS = {
    name: {"module": "leap", "label": label, "variant_of": None, "changes": "", "options": OPTIONS.get(name, [])}
    for name, label in LABELS.items()
}
for name in METHODS:
    METHODS[name]["variant_of"] = None if name == "leap" else "leap"
CELLS = [("leap", model, sparsity, seed) for model in "ab" for sparsity in (0.5, 0.6) for seed in (0, 1)]
CELLS += [(name, model, 0.6, 0) for name in ("leap-cosine", "leap-cold") for model in "ab"]
CELLS += [("leap-warmer", "a", 0.6, seed) for seed in (0, 1)]
PERPLEXITY = {"leap": {"a": 10.0, "b": 20.0}, "leap-cosine": {"a": 11.0, "b": 18.0}}


def frames():
    """(results, outcomes): LEAP on two models and seeds, variants on fewer."""
    generator = np.random.default_rng(5)
    results, outcomes = [], []
    for name, model, sparsity, seed in CELLS:
        cell = {"method": name, "model": model, "sparsity_target": sparsity, "seed": seed}
        for length, factor in ((64, 9), (128, 1)):
            value = factor * PERPLEXITY.get(name, {}).get(model, 15.0)
            results.append(cell | {"task": "perplexity", "metric": f"perplexity@{length}", "value": value})
        for task in ("piqa", "mmlu"):
            answers = {"index": range(40), "correct": generator.integers(0, 2, 40)}
            outcomes.append(pd.DataFrame(answers).assign(**cell, task=task, leaf=task))
    return pd.DataFrame(results), pd.concat(outcomes, ignore_index=True)


def row(name):
    return schedules.changes(*frames(), METHODS).set_index("method").loc[name]


def test_differences_are_paired_on_the_models_and_seeds_that_both_ran_on():
    _, outcomes = frames()
    here = outcomes[outcomes["sparsity_target"] == 0.6]
    expected = paired_difference(here, "leap-cosine", "leap")
    found = row("leap-cosine")
    assert (found["difference"], found["low"], found["high"]) == (expected.value, *expected.interval)
    assert (found["models"], found["seeds"]) == (2, 1)
    means = here[here["model"].isin(["a", "b"])].groupby("method")["correct"].mean()
    assert found["difference"] == pytest.approx(100 * (means["leap-cosine"] - means["leap"]))
    assert (row("leap-warmer")["models"], row("leap-warmer")["seeds"]) == (1, 2)


def test_perplexity_changes_by_the_geometric_mean_at_the_longest_window():
    found = row("leap-cosine")
    assert found["perplexity_change"] == pytest.approx(100 * ((1.1 * 0.9) ** 0.5 - 1))
    assert (found["perplexity_least"], found["perplexity_greatest"]) == pytest.approx((-10, 10))


@pytest.mark.parametrize(
    ("options", "group"),
    [
        (["tau_start"], "Start temperature"),
        (["tau_end"], "End temperature"),
        (["kappa_start"], "Start of the logit scale κ"),
        (["kappa_end"], "End of the logit scale κ"),
        (["kappa_schedule", "tau_schedule"], "Shape"),
        (["tau_schedule", "tau_start"], "Shape"),
        ([], "Other"),
        (["looks"], "Other"),
    ],
)
def test_options_say_the_group_whatever_the_label_says(options, group):
    assert schedules.group_of({"label": "LEAP (kappa ends)", "changes": "", "options": options}) == group


def test_a_variant_that_ran_nowhere_beside_leap_is_told(caplog):
    methods = METHODS | {"leap-lost": METHODS["leap-warmer"]}
    found = schedules.changes(*frames(), methods)
    assert "leap-lost" not in set(found["method"])
    assert [record.message for record in caplog.records] == [
        "the figure of schedules leaves out leap-lost, because it has no cell in common with leap"
    ]


def test_rows_stand_under_their_groups_with_what_the_labels_say():
    use_style()
    data = schedules.changes(*frames(), METHODS)
    figure = schedules.plot(data, "LEAP")
    left, right = figure.axes
    texts = [text.get_text() for text in left.get_yticklabels()]
    assert texts == ["Start temperature", "tau starts at 8", "Shape", "cosine schedules", "Other", "no warm start"]
    for axis, column in ((left, "difference"), (right, "perplexity_change")):
        points = axis.containers[0].lines[0].get_xydata()
        assert points[:, 0].tolist() == data[column].tolist()
        assert points[:, 1].tolist() == [1, 3, 5]
    ends = np.array(left.containers[0].lines[2][0].get_segments())[:, :, 0]
    assert ends == pytest.approx(data[["low", "high"]].to_numpy())
    said = " ".join(text.get_text() for text in figure.findobj(plt.Text))
    assert "hardened masks" in said
    assert "95 % intervals over questions and up to 2 seeds" in said


def test_a_grid_without_variants_is_refused():
    results, outcomes = frames()
    with pytest.raises(UserError, match="leap"):
        schedules.changes(results, outcomes, {"leap": METHODS["leap"]})


def test_the_same_figure_is_saved_to_the_same_bytes(tmp_path):
    data = schedules.changes(*frames(), METHODS)
    for name in ("one", "two"):
        save(schedules.plot(data, "LEAP"), data, tmp_path / name)
    for suffix in ("png", "pdf", "csv"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()
