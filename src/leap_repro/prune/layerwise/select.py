"""Choose the weights to keep by score, with integer budgets that are met exactly, or as public code rounds them.

All functions take scores [out, in], of which the largest are kept, and return a bool mask of the same shape, True where
the weight is kept. Among equal scores, the earlier one is dropped, so that the result does not depend on a sort.
Functions for "as released" multiply floats, because the public codes do: int(0.29 * 100) is 28.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from leap_repro.sparsity.budget import dropped

if TYPE_CHECKING:
    from torch import Tensor

    from leap_repro.sparsity.patterns import Pattern


def all_kept(weights: Tensor) -> Tensor:
    """The mask that drops nothing, of the shape of `weights`."""
    import torch

    return torch.ones(weights.shape, dtype=torch.bool, device=weights.device)


def by_selection(flat: Tensor, count: int) -> Tensor:
    """The `count`-th smallest number of `flat` [n] without a full sort, which is fast on a CPU."""
    return flat.kthvalue(count).values


def by_sort(flat: Tensor, count: int) -> Tensor:
    """The `count`-th smallest number of `flat` [n] by a sort.

    On CUDA, `kthvalue` gives a row to one block of threads, so for a whole matrix it takes about 20 times as long; and
    strict determinism refuses it, because of the index that it returns.
    """
    return flat.sort().values[count - 1]


KTH_SMALLEST = {"cpu": by_selection, "cuda": by_sort}


def kth_smallest(flat: Tensor, count: int) -> Tensor:
    """The `count`-th smallest number (from 1) of `flat` [n], a scalar.

    It is the same on every device, except for the sign of a zero, which no comparison sees.
    """
    return KTH_SMALLEST[flat.device.type](flat, count)


def drop_smallest(scores: Tensor, count: int) -> Tensor:
    """Keep all but the `count` smallest of all scores (any shape)."""
    flat = scores.flatten()
    if count == 0:
        return all_kept(scores)
    limit = kth_smallest(flat, count)
    keep = flat > limit
    ties = (flat == limit).nonzero().flatten()
    below = flat.numel() - int(keep.sum()) - ties.numel()
    keep[ties[count - below :]] = True
    return keep.view_as(scores)


def drop_smallest_in_rows(scores: Tensor, sparsity: Fraction) -> Tensor:
    """Drop floor(s * columns) scores of each row, and one more in the rows whose next score is smallest.

    The number of extra rows makes the total of the matrix exactly round(s * numel) (docs/trust.md).
    """
    rows, columns = scores.shape
    per_row, extra = divmod(dropped(sparsity, rows * columns), rows)
    order = scores.sort(dim=1, stable=True).indices
    keep = _without(scores, order[:, :per_row])
    if extra:
        next_column = order[:, per_row : per_row + 1]
        next_score = scores.gather(1, next_column).squeeze(1)
        chosen = next_score.sort(stable=True).indices[:extra]
        keep[chosen, next_column.squeeze(1)[chosen]] = False
    return keep


def drop_smallest_in_matrix(scores: Tensor, sparsity: Fraction) -> Tensor:
    """Keep all but the round(s * numel) smallest scores of the whole matrix."""
    return drop_smallest(scores, dropped(sparsity, scores.numel()))


def drop_smallest_in_groups(scores: Tensor, pattern: Pattern) -> Tensor:
    """Drop the `pattern.dropped` smallest of each `pattern.group` consecutive columns of a row."""
    groups = scores.reshape(-1, pattern.group)
    order = groups.sort(dim=1, stable=True).indices
    return _without(groups, order[:, : pattern.dropped]).view_as(scores)


def floor_in_rows(scores: Tensor, sparsity: Fraction) -> Tensor:
    """Drop int(s * columns) scores of each row, Wanda as released: fewer than the budget if s * columns is not an
    integer.
    """
    order = scores.sort(dim=1, stable=True).indices
    return _without(scores, order[:, : released_count(sparsity, scores.shape[1])])


def floor_in_matrix(scores: Tensor, sparsity: Fraction) -> Tensor:
    """Drop the int(s * numel) smallest scores of the matrix: ADMM as released."""
    return drop_smallest(scores, released_count(sparsity, scores.numel()))


def up_to_threshold(scores: Tensor, sparsity: Fraction) -> Tensor:
    """Drop every score up to the one at 0-based rank int(s * numel): magnitude and SparseGPT as released.

    That is one more than int(s * numel), and more if scores are equal.
    """
    flat = scores.flatten()
    return scores > kth_smallest(flat, released_count(sparsity, flat.numel()) + 1)


def released_count(sparsity: Fraction, count: int) -> int:
    """int(s * n) in floating point, as the public codes count."""
    return int(float(sparsity) * count)


def _without(scores: Tensor, columns: Tensor) -> Tensor:
    """A mask of all but the given columns [rows, k] of each row."""
    return all_kept(scores).scatter_(1, columns, False)
