"""The page of input norms shows its table, and the README says what the page says."""

import pandas as pd
import pytest
import torch
from scripts import loaded

from leap_repro.miniature.bundled import bundled_models


@pytest.fixture(scope="module")
def input_norms(project):
    with loaded(project / "benchmarks/input_norms.py") as module:
        yield module


def test_the_page_shows_the_table(project, input_norms):
    rows = pd.read_csv(project / "benchmarks/input_norms.csv")
    assert (project / "benchmarks/input_norms.md").read_text(encoding="utf-8") == input_norms.page(rows)


def test_the_miniatures_inputs_differ_far_less_than_the_real_model_s(project):
    rows = pd.read_csv(project / "benchmarks/input_norms.csv")
    medians = rows.groupby("model")["largest_by_median"].median()
    real = medians.pop("smollm2-135m")
    assert medians.between(1.5, 3.5).all()
    assert 16.5 < real < 17.5


def test_norms_are_those_of_the_inputs_that_a_matrix_sees(input_norms):
    found = input_norms.norms(bundled_models()["qwen2.5-0.5b-mini"], "miniature")
    one, other = (found[f"model.layers.0.self_attn.{kind}_proj.weight"] for kind in "qk")
    torch.testing.assert_close(one, other)
    assert all(norms.gt(0).all() for norms in found.values())
