"""The forest figure: its rows are the paired differences, its hollow markers the published ones."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from leap_repro.errors import UserError
from leap_repro.report.differences import ALL, MEAN, differences_table
from leap_repro.report.figures import forest
from leap_repro.report.figures.style import SINGLE, save, use_style
from leap_repro.report.layout import format_interval
from leap_repro.report.statistics import mean_over_cells, paired_difference

METHODS = {
    name: {"module": name, "label": name.upper(), "variant_of": None} for name in ("dense", "admm", "leap", "wanda")
}
STANDS_FOR = {"a": "LLaMA-3.2 1B", "b": "Gemma-3 1B"}


def outcomes(models=("a", "b"), seeds=(0, 1, 2), sparsities=(0.5, 0.6)):
    """Two tasks of thirty questions; LEAP is right more often, on a by more than on b."""
    generator = np.random.default_rng(3)
    frames = []
    cells = [(m, n, s, seed) for m in models for n in ("admm", "leap", "wanda") for s in sparsities for seed in seeds]
    for model, name, sparsity, seed in cells:
        chance = {"admm": 0.5, "leap": 0.75 if model == "a" else 0.6, "wanda": 0.4}[name]
        for task in ("piqa", "mmlu"):
            answers = {"index": range(30), "correct": (generator.random(30) < chance).astype(int)}
            cell = {
                "model": model,
                "method": name,
                "sparsity_target": sparsity,
                "seed": seed,
                "task": task,
                "leaf": task,
            }
            frames.append(pd.DataFrame(answers).assign(**cell))
    return pd.concat(frames, ignore_index=True)


def lines(drawn):
    return [line for line in drawn.get_segments() if len(line)]


def row(data, model, sparsity):
    return data.set_index(["model", "sparsity_target"]).loc[(model, sparsity)]


def test_rows_are_the_paired_differences_of_each_model_and_of_all():
    frame = outcomes()
    data = forest.differences(frame, METHODS, STANDS_FOR)
    assert list(data["model"]) == ["a", "b", MEAN] * 2 + [ALL]
    for model, part in (("a", frame[frame["model"] == "a"]), (MEAN, frame)):
        expected = paired_difference(part[part["sparsity_target"] == 0.6], "leap", "admm")
        found = row(data, model, 0.6)
        assert (found["difference"], found["low"], found["high"]) == (expected.value, *expected.interval)
    means = frame[frame["sparsity_target"] == 0.5].groupby(["model", "method"])["correct"].mean()
    by_hand = 100 * (means["a", "leap"] - means["a", "admm"])
    assert row(data, "a", 0.5)["difference"] == pytest.approx(by_hand)


def test_published_differences_stand_beside_those_of_the_models_that_stand_for_theirs():
    data = forest.differences(outcomes(sparsities=(0.4, 0.5)), METHODS, STANDS_FOR)
    assert row(data, "a", 0.5)["published"] == pytest.approx(44.81 - 43.05)
    assert row(data, "b", 0.5)["published"] == pytest.approx(44.93 - 44.56)
    assert row(data, MEAN, 0.5)["published"] == pytest.approx((1.76 + 0.37) / 2)
    assert math.isnan(row(data, "a", 0.4)["published"])
    partly = forest.differences(outcomes(), METHODS, {"a": "LLaMA-3.2 1B", "b": None})
    assert math.isnan(row(partly, MEAN, 0.5)["published"])


def test_points_intervals_and_numbers_are_the_rows():
    use_style()
    data = forest.differences(outcomes(), METHODS, STANDS_FOR)
    figure = forest.plot(data, METHODS)
    for axis, sparsity in zip(figure.axes, (0.5, 0.6), strict=True):
        assert axis.get_title() == f"{100 * sparsity:g} % sparse, 3 seeds"
        panel = data[data["sparsity_target"] == sparsity]
        points = np.concatenate([drawn.lines[0].get_xdata() for drawn in axis.containers])
        assert list(points) == list(panel["difference"])
        ends = np.concatenate([drawn.lines[2][0].get_segments() for drawn in axis.containers])[:, :, 0]
        assert ends == pytest.approx(panel[["low", "high"]].to_numpy())
        text = [words.get_text() for words in axis.texts]
        assert text == [forest.number(values) for values in panel.itertuples()]
        (mean,) = panel[panel["model"] == MEAN].itertuples()
        thin = [np.array(line) for drawn in axis.collections if drawn.get_linewidth()[0] < 1 for line in lines(drawn)]
        (over_models,) = [line[:, 0] for line in thin if not np.isnan(line).any()]
        assert list(over_models) == pytest.approx([mean.low_over_models, mean.high_over_models])
    said = " ".join(words.get_text() for words in figure.findobj(plt.Text))
    assert "LEAP − ADMM, hardened masks" in said
    assert "Bars: 95 % intervals over questions, and seeds where there are several." in " ".join(said.split())


def test_a_sparsity_with_fewer_seeds_is_shown_but_no_part_of_the_mean_of_all_cells():
    frame = outcomes()
    frame = frame[(frame["sparsity_target"] == 0.5) | (frame["seed"] == 0)]
    data = forest.differences(frame, METHODS, STANDS_FOR)
    assert dict(zip(data["sparsity_target"], data["seeds"], strict=True)) == {0.5: 3, 0.6: 1}  # one sparsity is no mean
    every = forest.differences(outcomes(), METHODS, STANDS_FOR).iloc[-1]
    assert every["difference"] == mean_over_cells(outcomes(), "leap", "admm").value
    note = forest.note(forest.differences(outcomes(), METHODS, STANDS_FOR))
    over_models = format_interval(every["low_over_models"], every["high_over_models"])
    assert f"Mean of the 4 cells with 3 seeds: {forest.number(every)}, over models {over_models}; published: " in note


def test_rows_are_those_of_the_table_of_differences():
    data, table = (
        forest.differences(outcomes(), METHODS, STANDS_FOR),
        differences_table(outcomes(), METHODS, STANDS_FOR),
    )
    expected = table.numbers[table.numbers["method"] == "leap"].drop(columns="p_holm").reset_index(drop=True)
    pd.testing.assert_frame_equal(data, expected)


def test_numbers_are_signed():
    values = pd.DataFrame({"difference": [-0.126], "low": [-2.0], "high": [1.5]})
    assert forest.number(next(values.itertuples())) == "−0.13 [−2.00, +1.50]"


def test_one_seed_one_sparsity_and_nothing_published_take_a_column_and_say_so():
    use_style()
    data = forest.differences(outcomes(seeds=(0,), sparsities=(0.5,)), METHODS, {})
    figure = forest.plot(data, METHODS)
    assert figure.get_figwidth() == SINGLE
    assert forest.note(data) == "Bars: 95 % intervals over questions. Thin line: over models."
    assert figure.axes[0].get_title() == "50 % sparse, 1 seed"
    assert "published" not in " ".join(words.get_text() for words in figure.findobj(plt.Text))
    figure.canvas.draw()
    assert figure.axes[0].texts[0].get_window_extent().x1 <= figure.bbox.x1


def test_a_model_without_one_of_both_has_no_row_and_there_is_no_mean():
    frame = outcomes()
    data = forest.differences(frame[(frame["model"] == "a") | (frame["method"] == "leap")], METHODS, {})
    assert list(data["model"]) == ["a", "a", ALL]


def test_a_grid_without_admm_is_refused():
    with pytest.raises(UserError, match="admm"):
        forest.compared({"leap": METHODS["leap"]})


def test_the_same_figure_is_saved_to_the_same_bytes(tmp_path):
    data = forest.differences(outcomes(), METHODS, STANDS_FOR)
    for name in ("one", "two"):
        save(forest.plot(data, METHODS), data, tmp_path / name)
    for suffix in ("png", "pdf", "csv"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()
