"""Weight updates are optimal for their mask: every mask of a row of up to 8 inputs, against float64 least squares.

Each row of the layer has another mask, so that one call meets all 2^n of them. The oracle never inverts a Hessian: it
solves ||A (w - v)|| for the free entries of v, A being a matrix with A'A = H.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from leap_repro.prune.layerwise.cholesky import upper_factor_of_inverse
from leap_repro.prune.methods.sparsegpt import prune_columns
from leap_repro.prune.methods.thanos import remove_jointly

SIZES = [1, 2, 5, 8]


def all_masks(size):
    """Bool [2^size, size]: True stays."""
    return (np.arange(2**size)[:, None] >> np.arange(size)) % 2 == 1


def problem(size, seed=0, masks=None):
    """A root A [2 size, size] of H, one weight row per mask [masks, size], the masks, and U as torch float64."""
    generator = np.random.default_rng(seed)
    root = generator.standard_normal((2 * size, size)) @ (np.eye(size) + generator.standard_normal((size, size)))
    masks = all_masks(size) if masks is None else masks
    weight = generator.standard_normal((len(masks), size))
    factor, _ = upper_factor_of_inverse(torch.from_numpy(root.T @ root), "layer")
    return root, weight, masks, factor


def best_completion(root, row, fixed, free):
    """v with v = `fixed` outside `free` and ||A (row - v)|| least."""
    values = fixed.copy()
    if len(free):
        values[free] = 0.0
        values[free] = np.linalg.lstsq(root[:, free], root @ (row - values), rcond=None)[0]
    return values


def error(root, row, values):
    return float(np.sum((root @ (row - values)) ** 2))


@pytest.mark.parametrize("size", SIZES)
def test_thanos_joint_removal_is_the_optimum_for_every_mask(size):
    root, weight, masks, factor = problem(size)
    values = torch.from_numpy(weight.copy())
    remove_jointly(values, torch.from_numpy(masks), factor, slice(0, size))
    for row, keep, found in zip(weight, masks, values.numpy(), strict=True):
        expected = best_completion(root, row, np.zeros(size), np.flatnonzero(keep))
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_no_other_weights_with_the_same_mask_have_a_smaller_error():
    root, weight, masks, factor = problem(6, seed=3)
    values = torch.from_numpy(weight.copy())
    remove_jointly(values, torch.from_numpy(masks), factor, slice(0, 6))
    generator = np.random.default_rng(9)
    for row, keep, found in zip(weight, masks, values.numpy(), strict=True):
        least = error(root, row, found)
        for scale in (1e-3, 0.1, 1.0):
            assert error(root, row, found + scale * generator.standard_normal(6) * keep) >= least * (1 - 1e-12)


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (2, 5), (4, 8)])
def test_a_block_moves_what_is_right_of_its_start_to_the_optimum_and_nothing_left_of_it(start, stop):
    """The columns left of the block are finished: the optimum is that of the ones from the block on."""
    block_masks = all_masks(stop - start)
    root, weight, _, factor = problem(8, seed=1, masks=block_masks)
    values = torch.from_numpy(weight.copy())
    remove_jointly(values, torch.from_numpy(block_masks), factor, slice(start, stop))
    for row, keep, found in zip(weight, block_masks, values.numpy(), strict=True):
        gone = start + np.flatnonzero(~keep)
        fixed = row.copy()
        fixed[gone] = 0.0
        free = np.setdiff1d(np.arange(start, 8), gone)
        np.testing.assert_allclose(found, best_completion(root, row, fixed, free), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block_size", [1, 3, 8])
def test_sparsegpts_columns_are_each_the_optimum_given_those_left_of_them(size, block_size):
    root, weight, masks, factor = problem(size, seed=2)
    values, keep = torch.from_numpy(weight.copy()), torch.from_numpy(masks)
    for start in range(0, size, block_size):
        prune_columns(values, keep, factor, slice(start, min(start + block_size, size)), None)
    for row, mask, found in zip(weight, masks, values.numpy(), strict=True):
        expected = row.copy()
        for column in range(size):
            expected = best_completion(root, row, expected, np.arange(column, size))
            expected[column] *= mask[column]
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("size", SIZES)
def test_sparsegpts_score_is_the_least_error_that_dropping_the_weight_makes(size):
    root, weight, _, factor = problem(size, seed=4, masks=np.ones((3, size), dtype=bool))
    for column in range(size):
        scores = (weight[:, column] / factor[column, column].item()) ** 2
        for row, score in zip(weight, scores, strict=True):
            fixed = row.copy()
            fixed[column] = 0.0
            best = best_completion(root, row, fixed, np.arange(column + 1, size))
            assert score == pytest.approx(error(root, row, best), rel=1e-8)


@pytest.mark.parametrize("size", SIZES[1:])
def test_removing_jointly_is_never_worse_than_one_after_the_other(size):
    root, weight, masks, factor = problem(size, seed=5)
    jointly, in_turn = torch.from_numpy(weight.copy()), torch.from_numpy(weight.copy())
    keep = torch.from_numpy(masks)
    remove_jointly(jointly, keep, factor, slice(0, size))
    prune_columns(in_turn, keep, factor, slice(0, size), None)
    pairs = [
        (error(root, w, a), error(root, w, b)) for w, a, b in zip(weight, jointly.numpy(), in_turn.numpy(), strict=True)
    ]
    assert all(ours <= theirs * (1 + 1e-9) + 1e-12 for ours, theirs in pairs)
    assert any(ours < 0.9 * theirs for ours, theirs in pairs)
