"""An export is of the model that the cell was made from, and shows no scores but that cell's."""

import shutil

import pytest
from runs import CELL, DENSE, MODEL, evaluate, put_cell, put_data, put_model, put_run

from leap_repro.export.lineage import lineage_of
from leap_repro.models.identity import WEIGHTS
from leap_repro.store.artifacts import Artifact, writing


@pytest.fixture
def root(tmp_path):
    put_run(tmp_path)
    return tmp_path


def found(root):
    return lineage_of(Artifact.read(root / "models" / MODEL), Artifact.read(root / "harden" / CELL))


def test_a_whole_run_is_found_beside_the_cell(root):
    lineage = found(root)
    assert lineage.pruned.folder == root / "prune" / CELL
    assert (lineage.evaluated.folder, lineage.dense.folder) == (root / "evaluate" / CELL, root / "evaluate" / DENSE)


@pytest.mark.parametrize("alone", [False, True])
def test_another_fine_tune_of_the_same_shapes_is_refused(root, tmp_path, refused, alone):
    """In the run that made it, and where the cell lies by itself."""
    cell = root / "harden" / CELL
    if alone:
        cell = shutil.copytree(cell, tmp_path / "taken/along")
    other = put_model(root, b"another fine-tune's")
    with refused(f"cell {CELL} was made from weights of sha256", f"not from {other.folder}"):
        lineage_of(other, Artifact.read(cell))


def test_a_cell_that_does_not_say_from_which_weights_is_refused(root, refused):
    cell = Artifact.read(root / "harden" / CELL)
    with writing(cell.folder, cell.provenance()) as (_, facts):
        facts |= {key: value for key, value in cell.facts.items() if key != WEIGHTS}
    with refused("weights that its manifest does not name"):
        found(root)


def other_model(root):
    """Its weights are the same, its tokenizer or revision is not."""
    put_model(root, revision="another")


def other_mask(root):
    put_cell(root, CELL, kept=40)


def other_text(root):
    put_data(root, "perplexity", "other text")


def other_questions(root):
    put_data(root, "tasks", "other questions")


def damaged(root):
    (root / "evaluate" / CELL / "provenance.json").write_text("{}")


CHANGES = [other_model, other_mask, other_text, other_questions, damaged]


@pytest.mark.parametrize("change", CHANGES)
def test_an_evaluation_of_something_else_is_left_out(root, change):
    change(root)
    assert found(root).evaluated is None


def test_a_dense_evaluation_of_something_else_is_left_out(root):
    """A dense mask is the same for every model of these shapes."""
    other_text(root)
    evaluate(root, CELL)
    lineage = found(root)
    assert lineage.evaluated is not None
    assert lineage.dense is None
