"""Overlap of packed masks against bool masks, and the matrix of methods."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from leap_repro.report import overlap
from leap_repro.report.collect import RESULTS
from leap_repro.report.overlap import compared, jaccard, overlap_table, overlaps
from leap_repro.sparsity.masks import pack
from leap_repro.store.artifacts import MASK_FILE, writing
from leap_repro.store.tensor_files import TensorFiles

SHAPES = {"blocks.0.q": (3, 5), "blocks.0.k": (7, 9), "blocks.1.q": (1, 3)}  # 15, 63 and 3: no multiples of 8
METHODS = {
    name: {"module": name, "label": name.upper(), "variant_of": None}
    for name in ("dense", "wanda", "admm", "leap", "alps")
}
CELLS = [
    (model, method, sparsity, seed)
    for model in ("a", "b")
    for method in ("wanda", "admm", "leap", "alps")
    for sparsity in (0.5, 0.6, 0.7)
    for seed in ((0, 1, 2) if sparsity < 0.7 and method in ("admm", "leap") else (0,))
    if not (method == "alps" and (model == "b" or sparsity != 0.6))
]


def brute(ours, theirs):
    """Jaccard's index and that of independence, from flat bool masks of the whole model."""
    a, b = (np.concatenate([mask.numpy().ravel() for mask in masks.values()]) for masks in (ours, theirs))
    chance = a.mean() * b.mean()
    return (a & b).sum() / (a | b).sum(), chance / (a.mean() + b.mean() - chance)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(folder, {cell: bool masks}), as hardened."""
    root, generator, masks = tmp_path_factory.mktemp("cells"), torch.Generator().manual_seed(3), {}
    for cell in CELLS:
        masks[cell] = {
            name: torch.rand(shape, generator=generator) > cell[2] - 0.1 * (cell[1] == "leap")
            for name, shape in SHAPES.items()
        }
        with writing(root / "harden" / "/".join(map(str, cell)), {}) as (payload, facts):
            save_file({name: pack(mask) for name, mask in masks[cell].items()}, payload / MASK_FILE)
            facts["prunable"] = sum(int(np.prod(shape)) for shape in SHAPES.values())
    return root, masks


@pytest.fixture(scope="module")
def numbers(world):
    return overlaps(world[0], pd.DataFrame(CELLS, columns=overlap.CELL), again=list(METHODS))


def test_packed_masks_overlap_as_bool_masks_do(world, numbers):
    _, masks = world
    for row in numbers.itertuples():
        ours = masks[row.model, row.method, row.sparsity_target, row.seed]
        theirs = masks[row.model, row.other, row.sparsity_target, row.other_seed]
        assert (row.jaccard, row.independent) == pytest.approx(brute(ours, theirs))


def test_a_mask_is_its_own(world, tmp_path):
    _, masks = world
    save_file({name: pack(mask) for name, mask in masks[CELLS[0]].items()}, tmp_path / MASK_FILE)
    own = TensorFiles([tmp_path / MASK_FILE])
    assert jaccard(own, own, 81)[0] == 1


def test_masks_that_know_nothing_of_each_other_have_the_index_of_their_densities(tmp_path):
    drawn = {}
    for name, seed in (("a", 0), ("b", 1)):
        mask = torch.rand((999, 997), generator=torch.Generator().manual_seed(seed)) < 0.4
        save_file({"w": pack(mask)}, tmp_path / f"{name}.safetensors")
        drawn[name] = TensorFiles([tmp_path / f"{name}.safetensors"])
    found, independent = jaccard(drawn["a"], drawn["b"], 999 * 997)
    assert found == pytest.approx(0.4 / (2 - 0.4), abs=0.002)
    assert independent == pytest.approx(0.4 / (2 - 0.4), abs=0.002)


def test_every_pair_of_methods_stands_once_at_the_first_seed_and_every_pair_of_seeds(numbers):
    here = numbers[(numbers["model"] == "a") & (numbers["sparsity_target"] == 0.6)]
    pairs = {(row.method, row.seed, row.other, row.other_seed) for row in here.itertuples()}
    assert len(pairs) == len(here) == 6 + 2 * 3
    assert {("admm", 0, "admm", 1), ("admm", 1, "admm", 2), ("leap", 0, "leap", 2)} < pairs
    assert {("wanda", 0, "admm", 0), ("admm", 0, "leap", 0), ("wanda", 0, "alps", 0)} < pairs
    again = numbers[numbers["method"] == numbers["other"]]
    assert set(again["method"]) == {"admm", "leap"}
    assert set(again["sparsity_target"]) == {0.5, 0.6}, "the curve has one seed"


def test_seeds_are_compared_of_the_methods_that_are_named(world):
    cells = pd.DataFrame([cell for cell in CELLS if cell[0] == "b" and cell[2] == 0.5], columns=overlap.CELL)
    found = overlaps(world[0], cells, again=["leap"])
    assert set(found.loc[found["method"] == found["other"], "method"]) == {"leap"}


@pytest.fixture(scope="module")
def table(numbers):
    return overlap_table(numbers, METHODS)


def test_the_matrix_is_that_of_the_highest_sparsity_with_seeds_and_no_curves(table):
    assert set(table.shown["Sparsity"]) == {"60 %"}
    assert list(table.shown["Method"]) == ["WANDA", "ADMM", "LEAP", "ALPS"]
    assert list(table.shown.columns[2:]) == ["WANDA", "ADMM", "LEAP", "ALPS"]


def test_the_matrix_has_means_over_models_and_seeds_on_the_diagonal(table, world):
    _, masks = world
    matrix = table.shown.set_index("Method")

    def index(model, one, other):
        return brute(masks[model, one[0], 0.6, one[1]], masks[model, other[0], 0.6, other[1]])[0]

    pair = np.mean([index(model, ("admm", 0), ("leap", 0)) for model in "ab"])
    seeds = np.mean([index(m, ("leap", i), ("leap", j)) for m in "ab" for i, j in ((0, 1), (0, 2), (1, 2))])
    assert matrix.loc["ADMM", "LEAP"] == matrix.loc["LEAP", "ADMM"] == f"{pair:.2f}"
    assert matrix.loc["LEAP", "LEAP"] == f"{seeds:.2f}"
    assert matrix.loc["WANDA", "ALPS"] == f"{index('a', ('wanda', 0), ('alps', 0)):.2f}", "the one model that has both"
    assert matrix.loc["WANDA", "WANDA"] == "", "one seed"
    assert "up to 2 models" in table.caption
    assert "models that both ran on" in table.notes


def test_a_pair_that_stands_the_other_way_round_in_another_model_is_the_same_pair(numbers, table):
    turned = numbers.copy()
    other = turned["model"] == "b"
    turned.loc[other, ["method", "other"]] = numbers.loc[other, ["other", "method"]].to_numpy()
    pd.testing.assert_frame_equal(overlap_table(turned, METHODS).shown, table.shown)


def test_with_one_seed_the_matrix_is_that_of_the_highest_sparsity(numbers):
    once = numbers[(numbers["seed"] == 0) & (numbers["other_seed"] == 0)]
    assert set(overlap_table(once, METHODS).shown["Sparsity"]) == {"70 %"}


def results():
    cells = pd.DataFrame([*CELLS, ("a", "dense", 0.0, 0)], columns=overlap.CELL)
    return pd.concat([cells.assign(task=task, value=50.0) for task in ("piqa", "average")], ignore_index=True)


def test_dense_and_what_the_grid_does_not_name_are_not_compared():
    methods = {name: facts for name, facts in METHODS.items() if name != "alps"}
    found = compared(results(), methods)
    assert set(found["method"]) == {"wanda", "admm", "leap"}
    assert not found.duplicated().any()


def test_the_command_reads_the_cells_and_writes_the_table(world, table, tmp_path):
    for model in "ab":
        with writing(tmp_path / "aggregate" / model, {}) as (payload, _):
            frame = results()
            frame[frame["model"] == model].to_parquet(payload / RESULTS, index=False)
    given = ["--root", tmp_path, "--models", "a", "b", "--methods", json.dumps(METHODS)]
    given += ["--cells-root", world[0], "--output", tmp_path / "overlap"]
    overlap.main(overlap.parser().parse_args([str(argument) for argument in given]))
    assert (tmp_path / "overlap.md").read_text(encoding="utf-8") == table.markdown()
