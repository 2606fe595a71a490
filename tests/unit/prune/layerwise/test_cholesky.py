"""Matrices that cannot be factored: damping rises in recorded steps, then the layer fails by name. Oracle: float64."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from leap_repro.prune.job import Job
from leap_repro.prune.layerwise.cholesky import MAX_DAMPING, factor_damped, upper_factor_of_inverse
from leap_repro.prune.methods import admm, sparsegpt

NAME = "model.layers.2.mlp.down_proj.weight"


def spd(n, seed=0):
    x = np.random.default_rng(seed).standard_normal((3 * n, n))
    return torch.from_numpy(x.T @ x)


def gram_of_rank(rank, n, seed=0):
    x = np.random.default_rng(seed).standard_normal((rank, n)).astype(np.float32)
    return torch.from_numpy(x.T @ x)


def with_eigenvalues(eigenvalues, seed=0):
    """A symmetric float32 matrix that has these eigenvalues up to rounding."""
    n = len(eigenvalues)
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    return torch.from_numpy((basis * np.asarray(eigenvalues)) @ basis.T).float()


BROKEN = {
    "equal columns": torch.ones(6, 6),
    "two equal columns among many": gram_of_rank(64, 20)[:, [*range(20), 3]][[*range(20), 3]],
    "rank 4 of 30": gram_of_rank(4, 30),
    "rank 29 of 30": gram_of_rank(29, 30),
    "slightly indefinite": with_eigenvalues([-1e-3, *np.linspace(0.5, 2, 15)]),
    "a zero among huge": with_eigenvalues([0.0, 1e-9, *np.geomspace(1, 1e7, 14)]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_a_sound_matrix_is_damped_once_and_inverted(dtype, damping):
    matrix = spd(12).to(dtype)
    damped = matrix.numpy() + damping * np.mean(np.diag(matrix)) * np.eye(12)
    factored = factor_damped(matrix, NAME, damping)
    assert factored.dampings == (damping,)
    tolerance = {"rtol": 1e-3, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(matrix.numpy(), damped, rtol=1e-6)
    np.testing.assert_allclose(factored.inverse().numpy(), np.linalg.inv(damped), **tolerance)
    right = torch.ones(12, 2, dtype=dtype)
    np.testing.assert_allclose(factored.solve(right).numpy(), np.linalg.solve(damped, right.numpy()), **tolerance)


def test_a_shift_is_factored_but_does_not_stay_in_the_matrix():
    matrix = spd(7)
    before = matrix.clone()
    inverse = factor_damped(matrix, NAME, 0.1, shift=2.0).inverse()
    damped = before + 0.1 * before.diagonal().mean() * torch.eye(7, dtype=torch.float64)
    torch.testing.assert_close(matrix, damped)
    torch.testing.assert_close(inverse, torch.linalg.inv(damped + 2 * torch.eye(7, dtype=torch.float64)))


@pytest.mark.parametrize("n", [1, 2, 9])
def test_the_upper_factor_holds_the_inverses_of_all_trailing_blocks(n):
    matrix = spd(n, seed=3)
    before = matrix.clone()
    upper, dampings = upper_factor_of_inverse(matrix, NAME)
    assert dampings == (0.0,)
    assert torch.equal(matrix, before)
    assert torch.equal(upper, upper.triu())
    for j in range(n):
        torch.testing.assert_close(upper[j:, j:].T @ upper[j:, j:], torch.linalg.inv(matrix[j:, j:]))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_matrix_gets_the_least_damping_of_the_ladder_that_makes_it_sound(name):
    matrix = BROKEN[name].clone()
    factored = factor_damped(matrix, NAME, 0.0)
    tried = np.array(factored.dampings)
    assert len(tried) > 1
    assert tried[0] == 0.0
    np.testing.assert_allclose(tried[1:], 1e-5 * 10.0 ** np.arange(len(tried) - 1), rtol=1e-9)
    assert tried[-1] <= MAX_DAMPING
    exact = BROKEN[name].double()
    damped = exact + tried[-1] * exact.diagonal().mean() * torch.eye(len(exact), dtype=torch.float64)
    assert torch.linalg.eigvalsh(damped).min() > 0
    product = (damped @ factored.inverse().double() - torch.eye(len(exact))).abs().max()
    assert product < 0.1, "the inverse must not be noise"


def test_damping_that_was_asked_for_is_raised_tenfold():
    factored = factor_damped(with_eigenvalues([-0.3, 1.0, 1.0, 1.0]), NAME, 0.01)
    assert factored.dampings == pytest.approx((0.01, 0.1, 1.0))


def test_luck_is_not_soundness():
    """Rounding can leave a singular matrix a tiny positive pivot: plain Cholesky passes it; its inverse is noise."""
    lucky = 0
    for seed in range(20):
        matrix = gram_of_rank(40, 41, seed)
        lucky += int(torch.linalg.cholesky_ex(matrix).info) == 0
        assert len(factor_damped(matrix, NAME).dampings) > 1
    assert lucky


@pytest.mark.parametrize(
    "matrix",
    [torch.tensor([[1.0, 5.0], [5.0, 1.0]]), -torch.eye(3), torch.zeros(3, 3)],
    ids=["indefinite", "negative", "zero"],
)
@pytest.mark.parametrize("factor", [factor_damped, upper_factor_of_inverse])
def test_past_the_limit_the_layer_fails_by_name(matrix, factor, refused):
    with refused(NAME, "not positive definite in float32", "raised to 1 "):
        factor(matrix.clone(), NAME)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_matrix_that_is_not_finite_fails_by_name_at_once(bad, refused):
    matrix = torch.eye(3)
    matrix[1, 2] = matrix[2, 1] = bad
    with refused(NAME, "not finite"):
        factor_damped(matrix, NAME)


def test_log_and_facts_tell_the_dampings_of_a_layer_that_needed_more(tiny_llama, tokens):
    options = sparsegpt.Options(damping=0.0)
    few = tokens[:1, :6]
    cell = sparsegpt.METHOD.prune_cell(Job(tiny_llama(), options, Fraction("0.5"), seed=0, tokens=few))
    raised = cell.facts["raised_dampings"]
    assert raised
    for row in cell.log:
        tried = row["dampings"]
        assert tried[0] == 0.0
        assert raised.get(row["tensor"]) == ({"dampings": tried} if len(tried) > 1 else None)
    assert all(torch.isfinite(tensor).all() for tensor in cell.tensors.values())


def test_sound_layers_are_logged_with_the_damping_asked_for_and_leave_no_fact(tiny_llama, tokens):
    cell = admm.METHOD.prune_cell(Job(tiny_llama(), admm.Options(), Fraction("0.5"), seed=0, tokens=tokens))
    assert {row["dampings"] for row in cell.log} == {(0.1,)}
    assert "raised_dampings" not in cell.facts
