"""The recorded curve is what is trained here, and another training is not taken for it."""

import loss_curve
import pytest

from leap_repro.prune.methods import leap


@pytest.fixture(scope="module")
def curve(project):
    return loss_curve.read_curve(project / loss_curve.DEFAULT)


def test_steps_trained_here_are_the_recorded_ones(curve):
    rows = loss_curve.train("float32", steps=3)
    assert [row["loss_lm"] for row in rows] == pytest.approx(curve[:3], rel=loss_curve.BOUNDS["float32"])


def test_the_curve_has_a_loss_for_each_step(curve):
    assert len(curve) == loss_curve.OPTIONS["steps"] == 50
    assert leap.Options(**loss_curve.OPTIONS).noise_source == "counter"


@pytest.mark.parametrize(("off", "within"), [(0.0, True), (9e-6, True), (2e-5, False)])
def test_a_difference_is_named_with_its_step_and_its_bound(off, within, curve):
    found = [*curve[:7], curve[7] * (1 + off), *curve[8:]]
    said, verdict = loss_curve.compare(found, curve, 1e-5)
    assert verdict is within
    assert ("step 7 differs most" if off else "to the last bit") in said
    assert ("NOT within" in said) is not within


def test_what_is_no_curve_is_refused(tmp_path, refused, curve):
    (tmp_path / "curve.csv").write_text("step\n0\n")
    with refused(str(tmp_path / "curve.csv"), "is no loss curve"):
        loss_curve.read_curve(tmp_path / "curve.csv")
    with refused("50 steps", "49"):
        loss_curve.compare(curve[:49], curve, 1e-5)
