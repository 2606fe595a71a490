"""What the command says at its end is about this cell: no score of an older evaluation in the same run folder."""

from pathlib import Path

import pytest
from runs import CELL, DENSE, evaluate, put_cell, put_data, put_model, put_run

from leap_repro.own_model.summary import summary
from leap_repro.pipeline.grid import Cell


@pytest.fixture
def root(tmp_path):
    put_run(tmp_path)
    return tmp_path


def said(root):
    model, method, sparsity, seed = CELL.split("/")
    cell = Cell(model, method, sparsity, int(seed))
    return summary(root, cell, root / "export", root, Path("grid.yaml"), 1.0)


def test_the_scores_of_the_cell_and_of_the_dense_model_are_shown(root):
    words = said(root)
    assert "7.25 before, 7.25 after" in words
    assert "61.5 before, 61.5 after" in words


def another_model(root):
    put_model(root, b"another")
    for cell in (CELL, DENSE):
        put_cell(root, cell)


def another_run(root):
    put_cell(root, CELL, kept=40)


def another_text(root):
    put_data(root, "perplexity", "other")
    evaluate(root, CELL)


@pytest.mark.parametrize("change", [another_model, another_run, another_text])
def test_scores_of_another_model_run_or_text_are_not(root, change):
    change(root)
    words = said(root)
    assert "weights kept" in words
    assert "before," not in words
