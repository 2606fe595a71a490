"""The first-order solver of OPTIMA's public code, MPAX's raPDHG (arXiv 2412.09734, after 2311.07710), on its problem:

    min over x of x'Cx / 2   subject to   low <= x <= high   and   1'x >= -1e5,

for many rows at once, all with the same C. The sum's constraint is there because MPAX wants one. It would bind where a
row's changes sum to -1e5, which no model's do, so its multiplier stays zero, and with it the whole dual: what is left
of the primal-dual method are averaged, projected gradient steps with momentum and restarts, and a primal weight of 1.
The constraint still takes part in the preconditioning, the step's length and what residuals are relative to.

Everything is done in scaled variables D x with C / (D D'). Shapes: C is [n, n]; x, bounds and masks are [rows, n]; what
a row has for itself (its step, its count since its last restart) is [rows, 1]. Works in the dtype that it is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leap_repro.prune.layerwise.rows import SomeRows
from leap_repro.seeds import named_seed

SUM_BOUND = 1e5
WINDOW = 1e-4
"""How far from its end a dropped weight may stop: the public code's bounds are [-w, -w + 1e-4]."""
FIRST, BETWEEN, LIMIT = 10, 64, 100_000
"""Steps with a look at restarts before each of them; then steps between two looks at restarts and at the tolerance; the
most of them. MPAX steps on to the next look after it has found the tolerance met, and so do we."""
RUIZ_ROUNDS = 10
LONG, NEEDED, ENOUGH = 0.36, 0.8, 0.2
"""A restart is due after this share of all steps, or if the residual fell to NEEDED and rises again, or to ENOUGH."""
CAUTION = 0.99
NORM_ERROR, NORM_RISK = 0.1, 0.01
"""The norm of C is estimated to this relative error, but for this risk."""


@dataclass(frozen=True)
class Scaled:
    """The problem in scaled variables, which all rows share: C, D [n], the norms of C and of the sum's coefficients,
    and the sum's bound."""

    matrix: Tensor
    scale: Tensor
    curvature: Tensor
    coupling: Tensor
    bound: Tensor


@dataclass(frozen=True)
class Rows(SomeRows):
    """The state of some rows: a point, the average since the last restart, and where that restart was, each with its
    product with C; how many steps ago and how long together; the last step, and the residual's fall by that restart."""

    low: Tensor
    high: Tensor
    x: Tensor
    product: Tensor
    mean: Tensor
    mean_product: Tensor
    start: Tensor
    start_product: Tensor
    count: Tensor
    length: Tensor
    step: Tensor
    fall: Tensor


@dataclass(frozen=True)
class Found:
    """The changes x [rows, n], the steps taken, and which rows met the tolerance, [rows]."""

    change: Tensor
    iterations: int
    converged: Tensor


def solve_as_released(covariance: Tensor, weight: Tensor, keep: Tensor, tolerance: float) -> Found:
    """What the public code's solver finds for the changes of `weight` [rows, n], of which `keep` stays free.

    `covariance` is C = X'X / tokens. A row is done when the gradient over its free weights is below `tolerance`
    times 1 + the largest one over all, and the duality gap below it times 1 + the objective: the public code's scripts
    have one number for the absolute and the relative tolerance.
    """
    scaled = _scale(covariance)
    rows = _begin(scaled, weight, keep)
    change, steps, converged = torch.zeros_like(weight), FIRST, torch.zeros_like(keep[:, 0])
    for taken in range(FIRST):
        rows = _step(scaled, _restart(scaled, rows, taken))
    while len(rows.index) and steps < LIMIT:
        done = _meets(scaled, rows, tolerance)
        rows = _restart(scaled, rows, steps)
        for _ in range(BETWEEN):
            rows = _step(scaled, rows)
        steps += BETWEEN
        change[rows.index] = rows.mean / scaled.scale
        converged[rows.index[done]] = True
        rows = rows.take(~done)
    return Found(change, steps, converged)


def _begin(scaled: Scaled, weight: Tensor, keep: Tensor) -> Rows:
    """All rows at zero, outside the bounds of the dropped weights."""
    zero, none = torch.zeros_like(weight), torch.zeros_like(weight[:, :1])
    low = torch.where(keep, -torch.inf, -weight) * scaled.scale
    high = torch.where(keep, torch.inf, -weight + WINDOW) * scaled.scale
    index = torch.arange(len(weight), device=weight.device)
    one = torch.ones_like(none)
    return Rows(index, low, high, zero, zero, zero, zero, zero, zero, none, none, one, one)


def _scale(matrix: Tensor) -> Scaled:
    """Ruiz' rounds (each column's largest entry towards 1), then Pock and Chambolle's (each column's sum to 1), both
    over C and the sum's row of ones."""
    ones = matrix.new_ones(len(matrix))
    row, scale, bound = ones, ones, matrix.new_tensor(SUM_BOUND)
    for turn in range(RUIZ_ROUNDS + 1):
        ruiz = turn < RUIZ_ROUNDS
        sizes = torch.maximum(row, matrix.abs().amax(dim=0)) if ruiz else row + matrix.abs().sum(dim=0)
        columns, own = sizes.sqrt(), (row.amax() if ruiz else row.sum()).sqrt()
        matrix = matrix / columns.unsqueeze(1) / columns
        row, bound, scale = row / own / columns, bound / own, scale * columns
    return Scaled(matrix, scale, _estimated_norm(matrix), row.norm(), bound)


def _estimated_norm(matrix: Tensor) -> Tensor:
    """The largest eigenvalue by as many rounds of the power method on C'C as its error's bound asks for."""
    generator = torch.Generator().manual_seed(named_seed("norm of a covariance"))
    x = torch.randn(len(matrix), generator=generator).to(matrix)
    error, size, rounds = 1 - (1 - NORM_ERROR) ** 2, len(matrix), 2
    while min(0.824, 0.354 / (error * (rounds - 1)) ** 0.5) * size**0.5 * (1 - error) ** (rounds - 0.5) > NORM_RISK:
        rounds += 1
    for _ in range(rounds):
        x = matrix @ (matrix @ (x / x.norm().clamp(min=torch.finfo(x.dtype).tiny)))
    return (matrix @ x).norm() / x.norm().clamp(min=torch.finfo(x.dtype).tiny)


def _step(scaled: Scaled, rows: Rows) -> Rows:
    """One step against the gradient, between the average's and the point's own, the longer ago the restart the more of
    the average's; then into the bounds, and into the average by its length."""
    ahead, own = rows.count + 2, 1 / (1 + rows.count / 2)
    curvature, coupling = scaled.curvature, scaled.coupling
    allowed = CAUTION * ahead / (curvature + ((ahead * coupling).square() + curvature.square()).sqrt())
    step = torch.minimum(allowed, (1 + 1 / rows.count) * rows.step)
    gradient = (1 - own) * rows.mean_product + own * rows.product
    x = torch.clamp(rows.x - step * gradient, rows.low, rows.high)
    product = x @ scaled.matrix
    length = rows.length + step
    share = step / length
    return replace(
        rows,
        x=x,
        product=product,
        mean=rows.mean + share * (x - rows.mean),
        mean_product=rows.mean_product + share * (product - rows.mean_product),
        count=rows.count + 1,
        length=length,
        step=step,
    )


def _restart(scaled: Scaled, rows: Rows, taken: int) -> Rows:
    """Rows that are due begin anew, at their average or their point, whichever has the smaller residual."""
    if not taken:
        return rows
    here, mean = _residual(scaled, rows, rows.x, rows.product), _residual(scaled, rows, rows.mean, rows.mean_product)
    start = _residual(scaled, rows, rows.start, rows.start_product)
    fall = torch.where(start > torch.finfo(torch.float64).eps, torch.minimum(here, mean) / start, 1.0)
    fell = (fall < NEEDED) & ((fall < ENOUGH) | (fall > rows.fall))
    due = (rows.count >= LONG * taken) | fell
    x = torch.where(due & (here >= mean), rows.mean, rows.x)
    product = torch.where(due & (here >= mean), rows.mean_product, rows.product)
    return replace(
        rows,
        x=x,
        product=product,
        mean=rows.mean.masked_fill(due, 0.0),
        mean_product=rows.mean_product.masked_fill(due, 0.0),
        start=torch.where(due, x, rows.start),
        start_product=torch.where(due, product, rows.start_product),
        count=rows.count.masked_fill(due, 0.0),
        length=rows.length.masked_fill(due, 0.0),
        fall=torch.where(due, fall, rows.fall),
    )


def _residual(scaled: Scaled, rows: Rows, x: Tensor, product: Tensor) -> Tensor:
    """What restarts go by, [rows, 1]: how far x is out of its bounds, or the gap, whichever is more, both relative.

    MPAX leaves the quadratic term out of the reduced costs here, so that with a zero dual the gap is x'Cx, not zero at
    the optimum.
    """
    outside = torch.maximum(rows.low - x, x - rows.high).clamp(min=0).amax(dim=1, keepdim=True)
    gap = (x * product).sum(dim=1, keepdim=True).abs()
    return torch.maximum(outside / (1 + scaled.bound), gap / (1 + gap / 2))


def _meets(scaled: Scaled, rows: Rows, tolerance: float) -> Tensor:
    """Whether each row's average, in the problem's own variables, meets the tolerance, [rows]."""
    x, gradient = rows.mean / scaled.scale, rows.mean_product * scaled.scale
    free = rows.low.isinf()
    largest = gradient.abs().amax(dim=1)
    over_free = gradient.masked_fill(~free, 0.0).abs().amax(dim=1)
    ends = torch.where(gradient > 0, rows.low, rows.high).masked_fill(free, 0.0) / scaled.scale
    primal = (x * gradient).sum(dim=1) / 2
    dual = (ends * gradient).sum(dim=1) - primal
    size = torch.maximum(primal.abs(), dual.abs())
    return (over_free < tolerance * (1 + largest)) & ((primal - dual).abs() < tolerance * (1 + size))
