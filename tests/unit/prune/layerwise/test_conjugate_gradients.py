"""Conjugate gradients with a shared matrix: against numpy's solve in float64; what they leave is solved by factors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from leap_repro.prune.layerwise import conjugate_gradients, masked_solve, operations
from leap_repro.prune.layerwise.conjugate_gradients import TOLERANCE, approximate, solve_by_gradients


def spectrum(size, decay, seed=0):
    """A symmetric matrix with eigenvalues i^-decay in a random basis, float64."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    return basis * np.arange(1.0, size + 1) ** -decay @ basis.T


def factors(size, tokens, seed=0):
    """The Hessian of inputs of different sizes that share some strong factors, as language models' do."""
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((tokens, size)) * generator.uniform(0.1, 3.0, size)
    inputs += generator.standard_normal((tokens, 8)) / np.arange(1, 9) @ generator.standard_normal((8, size)) * 3
    return 2 / tokens * inputs.T @ inputs


def systems(matrix, rows=20, share=0.5, seed=1, dtype=torch.float64):
    """(matrix, right side, mask) of plain masking's gradient; each row keeps its own number of columns."""
    generator = np.random.default_rng(seed)
    keep = generator.random((rows, len(matrix))) < share
    right = (generator.standard_normal(keep.shape) * ~keep) @ matrix
    return torch.tensor(matrix, dtype=dtype), torch.tensor(right, dtype=dtype), torch.tensor(keep)


def oracle(matrix, right, keep):
    """Row by row in float64."""
    found = np.zeros(keep.shape)
    for x, b, kept in zip(found, right.double().numpy(), keep.numpy(), strict=True):
        x[kept] = np.linalg.solve(matrix[np.ix_(kept, kept)], b[kept])
    return found


MATRICES = {
    "identity": np.eye(60),
    "diagonal": np.diag(np.arange(1.0, 61) ** 3),
    "few factors": factors(90, 400),
    "hardly more tokens than inputs": factors(90, 100),
    "decay 1": spectrum(90, 1.0),
    "decay 2": spectrum(90, 2.0),
}


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("name", MATRICES)
def test_each_row_is_its_own_systems_solution(name, share, monkeypatch):
    monkeypatch.setattr(conjugate_gradients, "LIMIT", 1000)
    matrix, right, keep = systems(MATRICES[name], share=share)
    solved = solve_by_gradients(matrix, right, keep)
    assert float(solved.residual.max()) < 1e-8
    expected = oracle(MATRICES[name], right, keep)
    np.testing.assert_allclose(solved.x, expected, rtol=1e-6, atol=1e-6 * max(1e-9, np.abs(expected).max()))
    assert not solved.x[~keep].any()


@pytest.mark.parametrize("name", MATRICES)
def test_float32_meets_the_same_bound_as_factors_and_says_what_it_left(name):
    matrix, right, keep = systems(MATRICES[name], dtype=torch.float32)
    solved = solve_by_gradients(matrix, right, keep)
    exact = matrix.double().numpy()
    left = ((right.double() - solved.x.double() @ exact) * keep).norm(dim=1) / (right * keep).double().norm(dim=1)
    left = left.nan_to_num(0.0)
    assert float(left.max()) < 1e-4
    torch.testing.assert_close(solved.residual.double(), left, rtol=0.3, atol=1e-6)


def test_inputs_like_a_language_models_take_few_steps_whatever_the_width():
    for size in (128, 256, 512):
        matrix, right, keep = systems(factors(size, 2 * size), dtype=torch.float32)
        assert solve_by_gradients(matrix, right, keep).steps <= operations.STEPS


def test_the_preconditioner_is_the_inverse_of_its_approximation_over_the_kept_columns():
    matrix, right, keep = systems(factors(70, 300))
    near = approximate(matrix)
    low = (near.factors * near.diagonal.unsqueeze(1)).numpy()
    whole = low @ low.T + np.diag(near.diagonal.numpy())
    residual = right * keep
    rows = conjugate_gradients._begin(near, residual, keep)
    np.testing.assert_allclose(rows.direction, oracle(whole, residual, keep), rtol=1e-8, atol=1e-10)
    assert np.linalg.norm(whole - matrix.numpy()) < 0.5 * np.linalg.norm(np.diag(matrix.diagonal()) - matrix.numpy())


def test_rows_without_anything_to_solve_stay_zero_and_change_no_other():
    matrix, right, keep = systems(factors(70, 300))
    right[3] = 0.0
    keep[5] = False
    solved = solve_by_gradients(matrix, right, keep)
    assert not solved.x[[3, 5]].any()
    assert not solved.residual[[3, 5]].any()
    others = [i for i in range(len(keep)) if i not in (3, 5)]
    alone = solve_by_gradients(matrix, right[others], keep[others])
    torch.testing.assert_close(solved.x[others], alone.x, rtol=1e-7, atol=1e-9)
    assert solve_by_gradients(matrix, right[[3]], keep[[3]]).steps == 0


@pytest.fixture
def gradients_always(monkeypatch):
    monkeypatch.setattr(operations, "NARROW", 0)
    monkeypatch.setattr(operations, "FACTORING", torch.inf)


def test_rows_that_do_not_get_there_are_solved_by_factors(gradients_always, monkeypatch):
    matrix, right, keep = systems(spectrum(90, 2.0), dtype=torch.float32)
    monkeypatch.setattr(conjugate_gradients, "LIMIT", 15)
    residual = solve_by_gradients(matrix, right, keep).residual
    allowed = masked_solve.ROUNDING * TOLERANCE[torch.float32]
    missed = int((residual > allowed).sum())
    assert missed > 0
    solution = masked_solve.solve(matrix, right, keep, "a layer")
    assert (solution.factored, solution.steps) == (missed, 15)
    left = ((right - solution.x @ matrix) * keep).norm(dim=1) / (right * keep).norm(dim=1)
    assert float(left.max()) < 1e-4


def test_a_matrix_that_gradients_cannot_use_is_factored_or_refused_by_name(gradients_always, refused):
    """An indefinite matrix: its rows' residuals say that nothing was solved, and the factor says why."""
    matrix, right, keep = systems(factors(70, 300), dtype=torch.float32)
    matrix[7, 7] = -100.0
    with refused("model.x", "positive definite"):
        masked_solve.solve(matrix, right, keep, "model.x")


def test_a_residual_that_is_no_number_counts_as_unsolved(gradients_always, monkeypatch):
    matrix, right, keep = systems(factors(70, 300), dtype=torch.float32)
    found = solve_by_gradients(matrix, right, keep)
    broken = replace(found, residual=torch.full_like(found.residual, torch.nan))
    monkeypatch.setattr(masked_solve, "solve_by_gradients", lambda *_: broken)
    assert masked_solve.solve(matrix, right, keep, "a layer").factored == len(keep)


@pytest.mark.parametrize("columns", [64, 80, 224, 256, 384])
@pytest.mark.parametrize("kept", [0.01, 0.4, 0.5, 1.0])
def test_narrow_matrices_stay_with_factors_to_the_bit(columns, kept):
    assert not operations.gradients_pay(10 * columns, columns, kept * columns)
    matrix, right, keep = systems(factors(64, 200), dtype=torch.float32)
    solution = masked_solve.solve(matrix, right, keep, "a layer")
    assert (solution.steps, solution.factored) == (0, len(keep))
    assert torch.equal(solution.x, masked_solve.solve_exactly(matrix, right, keep, "a layer"))


@pytest.mark.parametrize(("rows", "columns"), [(4096, 4096), (1024, 4096), (14336, 4096), (4096, 14336)])
@pytest.mark.parametrize("kept", [0.4, 0.5])
def test_the_matrices_of_8b_take_conjugate_gradients(rows, columns, kept):
    assert operations.gradients_pay(rows, columns, kept * columns)
    assert operations.of_solve(rows, columns, kept * columns) == operations.of_gradients(rows, columns)


def multiplications_of_a_factor(size):
    """Multiplications and additions of the textbook's Cholesky, one by one."""
    count = 0
    for j in range(size):
        for _ in range(j, size):
            count += 2 * j + 1
    return count


def test_the_count_of_a_factor_is_the_textbooks():
    assert operations.of_factors(7, 300) == pytest.approx(7 * multiplications_of_a_factor(300), rel=0.01)


@pytest.mark.parametrize(("rows", "columns"), [(40, 256), (200, 256), (96, 400)])
def test_the_count_of_conjugate_gradients_is_what_torch_counts(rows, columns, monkeypatch):
    """But for factors and solves of [r, r] systems, a small part, which its counter does not know; with rows that all
    take the same number of steps."""
    monkeypatch.setattr(conjugate_gradients, "LIMIT", 12)
    monkeypatch.setitem(TOLERANCE, torch.float32, 0.0)
    matrix, right, keep = systems(factors(columns, 3 * columns), rows, dtype=torch.float32)
    with FlopCounterMode(display=False) as counter:
        assert solve_by_gradients(matrix, right, keep).steps == 12
    counted = operations.of_gradients(rows, columns, 12)
    assert 0.95 * counted <= counter.get_total_flops() <= counted


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(1, 40), st.floats(0.1, 1.0), st.integers(0, 10**6))
def test_any_size_and_mask_is_solved(rows, columns, share, seed):
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((3 * columns + 4, columns))
    matrix, right, keep = systems(inputs.T @ inputs, rows, share, seed)
    expected = oracle(matrix.numpy(), right, keep)
    x = solve_by_gradients(matrix, right, keep).x
    np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-6 * max(1.0, np.abs(expected).max()))
