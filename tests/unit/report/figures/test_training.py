"""The training figure from made-up probes: curves are means over seeds, bands their range, only of the most pruned."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from leap_repro.errors import UserError
from leap_repro.report.figures import training
from leap_repro.report.figures.style import LEAP_LOOK, save, use_style

NAN = float("nan")


def frame(models=("a", "b")):
    """Probes at steps 0 and 2; `value` tells every number of a run from every other's."""
    rows = []
    for number, (model, sparsity, seed) in enumerate(
        (m, s, seed) for m in models for s in (0.5, 0.6) for seed in (0, 3)
    ):
        for step in range(3):
            value = 1 + number + step / 4
            probed = {"held_out_relaxed": value, "held_out_topk": value + 0.5, "held_out_threshold": value + 1}
            probed |= {"agreement": NAN if step == 0 else 0.5 + seed / 10, "undecided": 0.1 * step}
            row = {"model": model, "method": "leap", "sparsity_target": sparsity, "seed": seed, "step": step}
            rows.append(row | {name: NAN if step == 1 else number for name, number in probed.items()})
    return pd.DataFrame(rows)


def curve(data, model, name):
    rows = data[(data["model"] == model) & (data["curve"] == name)]
    return rows[["step", "mean", "min", "max", "size"]].to_numpy().tolist()


def test_probes_are_means_and_ranges_over_seeds_at_the_highest_sparsity():
    data = training.probes(frame(), "leap")
    assert set(data["sparsity_target"]) == {0.6}
    assert curve(data, "a", "held_out_relaxed") == [[0, 3.5, 3.0, 4.0, 2], [2, 4.0, 3.5, 4.5, 2]]  # runs number 2 and 3
    assert curve(data, "b", "held_out_topk") == [[0, 8.0, 7.5, 8.5, 2], [2, 8.5, 8.0, 9.0, 2]]
    assert curve(data, "a", "agreement") == [[2, 65.0, 50.0, 80.0, 2]]  # nothing to agree with at the first
    assert curve(data, "a", "undecided") == [[0, 0.0, 0.0, 0.0, 2], [2, 20.0, 20.0, 20.0, 2]]


def test_a_sparsity_with_fewer_seeds_is_not_shown():
    found = frame()
    data = training.probes(found[(found["sparsity_target"] == 0.5) | (found["seed"] == 0)], "leap")
    assert set(data["sparsity_target"]) == {0.5}
    assert set(data["size"]) == {2}


def test_every_curve_says_whether_its_mask_is_relaxed_or_hardened():
    use_style()
    figure = training.plot(training.probes(frame(), "leap"), "LEAP")
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert [label.split()[0] for label in lines] == ["relaxed", "hardened", "hardened"]
    topk = lines["hardened to the exact budget (top-k)"]
    assert topk.get_color() == LEAP_LOOK["color"]
    assert np.array_equal(topk.get_xydata(), [[0, 4.0], [2, 4.5]])
    text = " ".join(found.get_text() for found in figure.findobj(plt.Text))
    assert "LEAP, 60 % sparse; mean of 2 seeds, band: their range" in text


@pytest.mark.parametrize("count", [1, 2, 4])
def test_there_are_two_panels_for_each_model(count):
    models = "abcd"[:count]
    figure = training.plot(training.probes(frame(models), "leap"), "LEAP")
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == 2 * count
    assert [axis.get_title() for axis in shown if axis.get_title()] == list(models)


def test_a_method_without_probes_is_refused():
    with pytest.raises(UserError, match="'wanda'"):
        training.probes(frame(), "wanda")
    with pytest.raises(UserError, match="'leap'"):
        training.probes(frame().assign(held_out_topk=NAN), "leap")


def test_the_same_figure_is_saved_to_the_same_bytes(tmp_path):
    data = training.probes(frame(), "leap")
    for name in ("one", "two"):
        save(training.plot(data, "LEAP"), data, tmp_path / name)
    for suffix in ("png", "pdf", "csv"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()
