"""A mask on disk is the mask that was hardened, and a cell off its budget does not pass."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from leap_repro.sparsity.masks import (
    MASK_FILE,
    VALUES_STEM,
    block_of,
    check_budget,
    check_pattern,
    pack,
    put,
    read_kept_values,
    unpack,
    unpack_masks,
)
from leap_repro.store.artifacts import Artifact, writing

CELL = "tiny/wanda/0.6/0"


def random_mask(shape, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5


def write_cell(folder, masks, values=None):
    rows = [{"tensor": name, "shape": list(mask.shape)} for name, mask in masks.items()]
    with writing(folder, {}) as (payload, facts):
        save_file({name: pack(mask) for name, mask in masks.items()}, payload / MASK_FILE)
        if values:
            for number, (name, kept) in enumerate(values.items()):
                save_file({name: kept}, payload / f"{VALUES_STEM}{number:05d}.safetensors")
        facts["tensors"] = rows
    return Artifact.read(folder)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(0, 2**31))
def test_a_mask_of_any_shape_survives_packing_in_one_bit_a_weight(shape, seed):
    mask = random_mask(shape, seed)
    packed = pack(mask)
    assert packed.dtype == torch.uint8
    assert packed.shape == ((mask.numel() + 7) // 8,)
    assert torch.equal(unpack(packed, shape), mask)


def test_the_first_weight_is_in_the_highest_bit():
    mask = torch.tensor([[True, False, False], [False, False, False], [False, True, True]])
    assert pack(mask).tolist() == [0b10000001, 0b10000000]


def test_a_transposed_mask_is_packed_in_its_own_order():
    mask = random_mask((5, 7), 0).t()
    assert torch.equal(unpack(pack(mask), [7, 5]), mask)


def test_masks_and_values_of_a_cell_are_read_back(tmp_path):
    masks = {"a.weight": random_mask((3, 5), 1), "b.weight": random_mask((8, 2), 2)}
    values = {name: torch.randn(int(mask.sum())) for name, mask in masks.items()}
    cell = write_cell(tmp_path / "cell", masks, values)
    read = unpack_masks(cell)
    assert read.keys() == masks.keys()
    assert all(torch.equal(read[name], mask) for name, mask in masks.items())
    kept = read_kept_values(cell)
    assert kept.keys() == values.keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in values.items())


def test_a_cell_whose_method_moves_no_weights_has_no_values(tmp_path):
    assert read_kept_values(write_cell(tmp_path / "cell", {"a.weight": random_mask((3, 5), 1)})).keys() == set()


def test_a_damaged_mask_is_refused(tmp_path, refused):
    cell = write_cell(tmp_path / "cell", {"a.weight": random_mask((3, 5), 1)})
    path = cell.payload / MASK_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    with refused(MASK_FILE):
        unpack_masks(cell)


def test_blocks_add_up_their_tensors():
    rows = [
        {"block": 0, "kept": 4, "numel": 10},
        {"block": 1, "kept": 3, "numel": 5},
        {"block": 0, "kept": 1, "numel": 2},
    ]
    assert block_of(rows) == {0: (5, 12), 1: (3, 5)}


@pytest.mark.parametrize(
    ("scope", "counts"),
    [
        ("tensor", {"a.weight": (4, 10), "b.weight": (2, 5)}),
        ("global", {"a.weight": (5, 10), "b.weight": (1, 5)}),
        ("none", {"a.weight": (9, 10), "b.weight": (1, 5)}),
    ],
)
def test_counts_within_the_scope_of_the_budget_pass(scope, counts):
    check_budget(CELL, counts, Fraction("0.6"), scope)


@pytest.mark.parametrize(
    ("scope", "counts", "words"),
    [
        ("tensor", {"a.weight": (4, 10), "b.weight": (3, 10)}, ("b.weight", "3 of 10", "4")),
        ("tensor", {"a.weight": (5, 10), "b.weight": (3, 10)}, ("a.weight", "5 of 10", "4")),
        ("global", {"a.weight": (4, 10), "b.weight": (3, 10)}, ("all tensors", "7 of 20", "8")),
    ],
)
def test_one_weight_off_the_budget_fails_by_cell_and_tensor(scope, counts, words, refused):
    with refused(CELL, *words):
        check_budget(CELL, counts, Fraction("0.6"), scope)


def two_of_four():
    return {"a.weight": torch.tensor([[1, 0, 1, 0, 0, 0, 1, 1], [0, 1, 1, 0, 1, 0, 0, 1]]).bool()}


def test_a_mask_that_follows_its_pattern_passes():
    check_pattern(CELL, two_of_four(), "2:4")
    check_pattern(CELL, two_of_four(), "4:8")
    check_pattern(CELL, {"a.weight": random_mask((3, 5), 0)}, "unstructured")


@pytest.mark.parametrize("place", [(0, 1), (0, 2), (1, 7)])
def test_one_weight_off_the_pattern_fails_by_cell_tensor_and_place(place, refused):
    masks = two_of_four()
    masks["a.weight"][place] ^= True
    group = 4 * (place[1] // 4)
    with refused(CELL, "a.weight", "2:4", f"row {place[0]}", f"input {group} on"):
        check_pattern(CELL, masks, "2:4")


def test_a_group_that_only_its_neighbour_makes_up_for_fails(refused):
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 1, 0]]).bool()
    check_pattern(CELL, {"a.weight": mask}, "4:8")
    with refused("a.weight"):
        check_pattern(CELL, {"a.weight": mask}, "2:4")


def test_rows_may_be_dense_only_where_the_pattern_says_so(refused):
    masks = two_of_four()
    masks["a.weight"][1] = True
    check_pattern(CELL, masks, "2:4+dense-rows")
    with refused("row 1"):
        check_pattern(CELL, masks, "2:4")
    masks["a.weight"][1, 0] = False
    with refused("row 1"):
        check_pattern(CELL, masks, "2:4+dense-rows")


def test_inputs_that_a_group_does_not_divide_fail_by_name(refused):
    with refused(CELL, "a.weight", "5"):
        check_pattern(CELL, {"a.weight": random_mask((3, 5), 0)}, "2:4")


def test_what_a_mask_drops_is_plus_zero_whatever_it_was():
    """Exports count on it, and a NaN or an infinity that is dropped is gone."""
    weight = torch.tensor([[1.5, -2.0, -0.0, torch.nan, torch.inf]])
    put(weight, torch.tensor([[True, False, False, False, False]]), None)
    assert weight.tolist() == [[1.5, 0, 0, 0, 0]]
    assert not torch.signbit(weight).any()


@pytest.mark.parametrize(
    ("found", "neighbour", "passes"), [(40, 48, False), (60, 52, False), (40, 60, True), (52, 44, True)]
)
def test_tiles_are_refused_if_another_number_of_them_is_nearer_on_either_side(found, neighbour, passes, refused):
    counts = {"a": (found, 100)}
    if passes:
        check_budget(CELL, counts, Fraction(1, 2), "tiles", [neighbour])
        return
    with refused(CELL, f"keep {found} of 100", f"would keep {neighbour}", "budget of 50"):
        check_budget(CELL, counts, Fraction(1, 2), "tiles", [neighbour])
