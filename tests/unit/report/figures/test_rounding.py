"""The rounding figure: every probe once, its run's last with the accuracy, coefficients as in the table."""

import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from leap_repro.report.correlations import WITHIN, correlations_table
from leap_repro.report.figures import rounding
from leap_repro.report.figures.style import LEAP_LOOK, save, use_style

METHODS = {
    "leap": {"module": "leap", "label": "LEAP", "variant_of": None},
    "leap-slow": {"module": "leap", "label": "LEAP (slow)", "variant_of": "leap"},
}
RUNS = [("a", "leap", 0), ("a", "leap", 1), ("a", "leap-slow", 0), ("a", "leap-slow", 1), ("b", "leap", 0)]
ACCURACY = [60.0, 62.0, 61.0, 58.0, 50.0]


def training():
    rows = []
    for number, (model, method, seed) in enumerate(RUNS):
        for step in range(9):
            relaxed = 3 + number / 10 - step / 8
            row = {"model": model, "method": method, "sparsity_target": 0.5, "seed": seed, "step": step}
            losses = {"held_out_relaxed": relaxed, "held_out_objective": relaxed + 1}
            losses |= {"held_out_topk": relaxed + (8 - step) ** 2 / 64, "held_out_threshold": relaxed + 1}
            rows.append(row | {name: math.nan if step % 2 else value for name, value in losses.items()})
    return pd.DataFrame(rows)


def results():
    rows = [
        {"model": model, "method": method, "sparsity_target": 0.5, "seed": seed, "task": "average", "value": value}
        for (model, method, seed), value in zip(RUNS, ACCURACY, strict=True)
    ]
    return pd.DataFrame(rows)


def drawn():
    data = rounding.points(training(), results(), METHODS)
    return rounding.plot(data, correlations_table(training(), results(), METHODS), METHODS), data


def test_points_are_the_probes_and_accuracy_stands_at_each_runs_last():
    data = rounding.points(training(), results(), METHODS)
    assert len(data) == 5 * len(RUNS)
    run = data[(data["model"] == "a") & (data["method"] == "leap-slow") & (data["seed"] == 1)]
    assert list(run["progress"]) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert list(run["held_out_topk"] - run["held_out_relaxed"]) == pytest.approx([1.0, 36 / 64, 16 / 64, 4 / 64, 0.0])
    assert list(run["accuracy"].dropna()) == [58.0]
    assert data["accuracy"].count() == len(RUNS)


def test_both_panels_show_relaxed_against_hardened():
    use_style()
    figure, data = drawn()
    left, right = figure.axes[:2]
    assert sum(len(part.get_offsets()) for part in left.collections) == len(data)
    assert "relaxed mask" in left.get_xlabel()
    assert "hardened mask" in left.get_ylabel()
    ends = {tuple(point): tuple(part.get_edgecolor()[0]) for part in right.collections for point in part.get_offsets()}
    own = [value - 60.25 for value in ACCURACY[:4]]  # of model a, whose mean is 60.25; model b has one run
    assert sorted(accuracy for _, accuracy in ends) == pytest.approx(sorted(own))
    assert sum(loss for loss, _ in ends) == pytest.approx(0)
    orange = plt.matplotlib.colors.to_rgba(LEAP_LOOK["color"])
    assert sorted(y for (_, y), colour in ends.items() if colour == orange) == pytest.approx([-0.25, 1.75])


def test_the_coefficients_are_the_tables():
    figure, _ = drawn()
    shown = correlations_table(training(), results(), METHODS).shown
    left, right = (axis.get_title() for axis in figure.axes[:2])
    steps = shown[(shown["Over"] == "steps of a run") & (shown["Relaxed"] == "relaxed loss")]["Spearman"].item()
    assert left.endswith(f"ρ = {steps}")
    within = shown[(shown["Over"] == WITHIN) & (shown["Relaxed"] == "relaxed loss")]
    assert right.endswith(f"ρ = {within[within['With'] == 'accuracy']['Spearman'].item()}")


def test_the_same_figure_is_saved_to_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        save(*drawn(), tmp_path / name)
    for suffix in ("png", "pdf", "csv"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()
