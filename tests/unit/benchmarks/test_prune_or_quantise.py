"""What docs/prune-or-quantise.md says is what was measured, and the benchmark's sums are right."""

import math
import sys
from importlib import import_module

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from leap_repro.report.pages import BLOCK, filled

PAGE = "docs/prune-or-quantise.md"
MODULES = ("measure", "prune_or_quantise_table", "prune_or_quantise_engines", "prune_or_quantise")


@pytest.fixture(autouse=True)
def scripts(project, monkeypatch):
    monkeypatch.syspath_prepend(str(project / "benchmarks"))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def tables():
    return import_module("prune_or_quantise_table")


@pytest.fixture(scope="module")
def measured(project):
    return pd.read_csv(project / "benchmarks/prune_or_quantise.csv")


def test_every_block_of_the_page_is_the_file_that_it_names(project):
    text = (project / PAGE).read_text(encoding="utf-8")
    assert BLOCK.search(text)
    assert filled(text, project) == text


def test_a_ratio_of_perplexities_has_the_error_of_the_windows_differences(tables):
    dense = {"length": 8, "losses": [1.0, 2.0, 4.0]}
    pruned = {"length": 8, "losses": [1.5, 2.5, 4.5]}
    found = tables.perplexity(pruned, dense)
    assert found["perplexity"] == pytest.approx(math.exp(8.5 / 3), abs=1e-3)
    assert found["times dense's"] == pytest.approx(math.exp(0.5), abs=1e-4)
    assert found["times dense's ±"] == 0
    assert found["perplexity ±"] == pytest.approx(math.exp(8.5 / 3) * math.sqrt(7 / 3 / 3), abs=1e-2)


@pytest.mark.parametrize(
    ("limit", "said"), [(9.0, "below 50 %"), (8.0, "below 50 %"), (7.0, "55 %"), (5.0, "65 %"), (3.0, "above 70 %")]
)
def test_the_break_even_sparsity_lies_where_the_line_between_two_measurements_crosses(tables, limit, said):
    assert tables.crossing([(0.5, 8.0), (0.6, 6.0), (0.7, 4.0)], limit) == said


def test_bits_of_a_packed_export_are_those_of_all_its_parts(tables, tmp_path):
    kept = torch.ones(5, dtype=torch.bfloat16)
    parts = {"a.kept": kept, "a.mask": torch.zeros(2, dtype=torch.uint8), "b": torch.ones(7)}
    save_file(parts, tmp_path / "sparse-model.safetensors")
    (tmp_path / "sparse.json").write_text('{"tensors": {"a": {"shape": [2, 8]}}}')
    assert tables.packed_bits(tmp_path) == (5 * 16 + 2 * 8) / 16


def test_engines_are_run_in_turn_and_the_first_turn_is_not_counted():
    engines = import_module("prune_or_quantise_engines")
    order, speeds = [], iter(range(100))

    def turn(name):
        order.append(name)
        return next(speeds), 1.0

    found = engines.in_turn({"a": lambda: turn("a"), "absent": None, "b": lambda: turn("b")})
    assert order == ["a", "b"] * (engines.REPEATS + 1)
    assert found["a"]["prefill"] == 6  # the median of 2, 4, 6, 8, 10
    assert found["b"]["prefill"] == 7
