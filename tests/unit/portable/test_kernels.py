"""The portable kernels against NumPy in float64, and in shapes and strides that models and methods bring."""

import numpy as np
import pytest
import torch

from leap_repro.portable.install import use_portable_kernels

EXACT = {torch.float32: 2e-5, torch.float64: 1e-12}
both = pytest.mark.parametrize("dtype", EXACT, ids=str)


@pytest.fixture(autouse=True, scope="module")
def portable():
    use_portable_kernels("float32")


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def close(found, expected, dtype):
    expected = np.asarray(expected)
    assert found.dtype == dtype
    assert found.shape == expected.shape
    assert np.abs(found.detach().double().numpy() - expected).max() <= EXACT[dtype] * max(1.0, np.abs(expected).max())


def wide(tensor):
    return tensor.detach().double().numpy()


@both
@pytest.mark.parametrize(
    ("left", "right"),
    [
        (lambda a: a, lambda b: b),
        (lambda a: a.T.contiguous().T, lambda b: b.T.contiguous().T),
        (lambda a: a[::2, ::2], lambda b: b[::2, ::3]),
        (lambda a: a[:1].expand(5, -1), lambda b: b),
        (lambda a: a[:0], lambda b: b),
        (lambda a: a, lambda b: b[:, 0]),
        (lambda a: a[0], lambda b: b),
        (lambda a: a[0], lambda b: b[:, 0]),
    ],
    ids=["plain", "transposed", "strided", "expanded", "empty", "vector", "row", "dot"],
)
def test_products(left, right, dtype):
    a, b = left(draw(30, 20, dtype=dtype)), right(draw(20, 42, dtype=dtype, seed=1))
    found = a @ b
    if found.numel():
        close(found, wide(a) @ wide(b), dtype)
    assert found.shape == (np.zeros(a.shape) @ np.zeros(b.shape)).shape


@both
def test_stacks_and_sums_of_products(dtype):
    a, b, base = (draw(*shape, dtype=dtype) for shape in ((3, 5, 7), (3, 7, 4), (3, 1, 4)))
    close(a @ b, wide(a) @ wide(b), dtype)
    close(a[0].expand(3, 5, 7) @ b, wide(a[:1]) @ wide(b), dtype)
    close(torch.baddbmm(base, a, b, beta=0.5, alpha=2), wide(base) / 2 + 2 * wide(a) @ wide(b), dtype)
    close(torch.addmm(base[0, 0], a[0], b[0], beta=3), 3 * wide(base[0, 0]) + wide(a[0]) @ wide(b[0]), dtype)
    close(torch.addmv(a[0, :, 0], a[0], b[0, :, 0]), wide(a[0, :, 0]) + wide(a[0]) @ wide(b[0, :, 0]), dtype)
    total = torch.zeros(5, 4, dtype=dtype)
    assert total.addmm_(a[0], b[0]) is total
    close(total, wide(a[0]) @ wide(b[0]), dtype)


def test_without_beta_the_base_may_hold_anything():
    found = torch.addmm(torch.full((4,), torch.nan), draw(5, 7), draw(7, 4), beta=0)
    assert torch.isfinite(found).all()


@both
@pytest.mark.parametrize("name", ["exp", "log", "sqrt"])
def test_functions_and_their_forms_in_place(name, dtype):
    x = draw(1000, dtype=dtype).abs() * 20
    expected = getattr(np, name)(wide(x))
    found, inplace = getattr(x, name)(), x.clone()
    assert getattr(inplace, f"{name}_")() is inplace
    assert torch.equal(found, inplace)
    relative = (found.double().numpy() - expected) / expected
    assert np.abs(relative).max() < (4e-7 if dtype == torch.float32 else 2e-14)


def test_square_roots_are_correctly_rounded():
    x = draw(100_000, dtype=torch.float32).abs()
    assert torch.equal(x.sqrt(), x.double().sqrt().float())


def test_functions_at_their_edges():
    x = torch.tensor([0.0, -1.0, torch.inf])
    assert torch.equal(x[:1].log(), torch.tensor([-torch.inf]))
    assert x[1].log().isnan()
    assert x[1].sqrt().isnan()
    assert torch.equal((-x[2:]).exp(), torch.zeros(1))
    assert torch.tensor(4).sqrt().dtype == torch.float32


def test_logit_is_that_of_clamped_shares():
    x = torch.tensor([0.0, 0.25, 1.0])
    close(torch.logit(x, eps=1e-3), np.log([1e-3 / 0.999, 1 / 3, 0.999 / 1e-3]), torch.float32)


@both
def test_factors_solve(dtype):
    samples = draw(3, 40, 9, dtype=dtype)
    matrices = samples.mT @ samples + 0.1 * torch.eye(9, dtype=dtype)
    lower = torch.linalg.cholesky(matrices)
    assert torch.equal(lower, lower.tril())
    close(lower @ lower.mT, wide(matrices), dtype)
    assert torch.equal(torch.linalg.cholesky(matrices, upper=True), lower.mT)
    right = draw(3, 9, 2, dtype=dtype)
    close(right.cholesky_solve(lower), np.linalg.solve(wide(matrices), wide(right)), dtype)
    close(right[0].cholesky_solve(lower[0].mT, upper=True), np.linalg.solve(wide(matrices[0]), wide(right[0])), dtype)
    inverse = torch.cholesky_inverse(lower[0])
    close(inverse, np.linalg.inv(wide(matrices[0])), dtype)
    assert torch.equal(inverse, inverse.T)


@both
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_triangles_solve(left, upper, dtype):
    whole = draw(6, 6, dtype=dtype) + 5 * torch.eye(6, dtype=dtype)
    triangle, right = (whole.triu() if upper else whole.tril()), draw(6, 6, dtype=dtype, seed=2)
    found = torch.linalg.solve_triangular(whole, right, upper=upper, left=left)
    close(triangle @ found if left else found @ triangle, wide(right), dtype)


def test_a_matrix_that_is_not_positive_definite_is_said_so_by_its_pivot():
    matrix = torch.eye(5)
    matrix[3, 3] = -1
    assert torch.linalg.cholesky_ex(torch.stack([torch.eye(5), matrix])).info.tolist() == [0, 4]
    with pytest.raises(torch.linalg.LinAlgError):
        torch.linalg.cholesky(matrix)


def test_attention_and_its_gradients_are_those_of_float64():
    def attend(dtype, **options):
        q, k, v = (draw(2, 4, 16, 8, dtype=dtype, seed=seed).requires_grad_() for seed in range(3))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)
        out.square().sum().backward()
        return [out, q.grad, k.grad, v.grad]

    for options in ({"is_causal": True}, {"attn_mask": torch.ones(16, 16).tril(-1).bool()}):
        for found, expected in zip(attend(torch.float32, **options), attend(torch.float64, **options), strict=True):
            close(found, wide(expected), torch.float32)  # the second mask leaves the first token nothing to see


def test_nan_scores_stay_nan():
    q = torch.full((1, 1, 2, 4), torch.nan)
    assert torch.nn.functional.scaled_dot_product_attention(q, q, torch.ones(1, 1, 2, 4), is_causal=True).isnan().all()


def test_other_types_go_to_torch():
    a = torch.arange(6).view(2, 3)
    assert (a @ a.T).tolist() == [[5, 14], [14, 50]]
    assert torch.equal(a.bfloat16() @ a.T.bfloat16(), (a @ a.T).bfloat16())
    assert torch.equal(a[None].bfloat16() @ a.T[None].bfloat16(), (a @ a.T)[None].bfloat16())
    assert a[0].dot(a[1]) == 14


def test_gradients_flow_through_products():
    weight = draw(5, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: torch.nn.functional.linear(draw(2, 3, 8), w), weight)
