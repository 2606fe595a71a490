"""Packed products: the same bits as the same sums over the dense matrix, on every form, and close to float64."""

import os
import subprocess
import sys
from itertools import product

import pytest
import torch

from leap_repro.errors import UserError
from leap_repro.export.forms import Packed
from leap_repro.runtime import forms
from leap_repro.runtime.forms import FORMS
from leap_repro.runtime.kernels import FEW_TOKENS, PackedMatrix, multiply_dense

COMPILED = [*forms.compiled()]
HERE = [*COMPILED, "torch"]
TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int8)
SHAPES = [(1, 1), (3, 5), (8, 64), (9, 100), (17, 192), (5, 129), (40, 576), (1, 1100), (33, 63)]
ROUNDING = {torch.float32: 2**-23, torch.bfloat16: 2**-8, torch.float16: 2**-10}
needs_kernels = pytest.mark.skipif(not COMPILED, reason="installed without a compiler")


@pytest.fixture
def choose(monkeypatch):
    """A function that chooses the form, as the environment of a new process does."""

    def choose(name):
        monkeypatch.setenv(forms.VARIABLE, name)
        forms.form.cache_clear()

    yield choose
    forms.form.cache_clear()


@pytest.fixture(params=HERE)
def form(request, choose):
    choose(request.param)
    return request.param


@pytest.fixture
def compiled(form):
    return form if form in COMPILED else pytest.skip("torch sums in its own order")


def masks(shape, seed=0):
    """None kept, half, all, and rows of which some are empty and some whole."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.rand(shape, generator=generator) < 0.5
    rows = torch.arange(shape[0]).view(-1, *[1] * (len(shape) - 1)) % 3
    uneven = (rows == 1) | (half & (rows == 2))
    return [torch.zeros_like(half), half, torch.ones_like(half), uneven]


def matrix(shape, dtype, mask, seed=1):
    """A dense matrix that is zero where the mask is, its packed form, and the scales of int8."""
    generator = torch.Generator().manual_seed(seed)
    if dtype != torch.int8:
        dense = torch.randn(shape, generator=generator).to(dtype).masked_fill(~mask, 0)
        return dense, PackedMatrix.from_dense(dense, mask), None
    dense = torch.randint(-127, 128, shape, generator=generator).to(dtype).masked_fill(~mask, 0)
    groups = shape[1] // 64 if shape[1] % 64 == 0 else 1
    scales = torch.rand(shape[0], groups, generator=generator) / 64
    plain = PackedMatrix.from_dense(dense.float(), mask)
    return dense, PackedMatrix(dense[mask], plain.mask, shape, scales), scales


def inputs(tokens, columns, dtype=torch.float32):
    return torch.randn(tokens, columns, generator=torch.Generator().manual_seed(2)).to(dtype)


def exact(dense, scales):
    """The weights in float64."""
    if scales is None:
        return dense.double()
    return dense.double() * scales.double().repeat_interleave(dense.shape[1] // scales.shape[1], dim=1)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_packed_has_the_bits_of_the_dense_sums(compiled, dtype):
    for shape in SHAPES:
        for mask, x_type in product(masks(shape), ROUNDING):
            dense, packed, scales = matrix(shape, dtype, mask)
            for tokens in (1, 3, 8):
                x = inputs(tokens, shape[1], x_type)
                expected = multiply_dense(dense, x, scales)
                assert torch.equal(packed.multiply(x), expected), (shape, tokens, x_type)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_form_is_within_the_rounding_of_float64(form, dtype):
    for shape in SHAPES:
        for mask, x_type in product(masks(shape), ROUNDING):
            dense, packed, scales = matrix(shape, dtype, mask)
            for tokens in (1, 5, FEW_TOKENS + 1):
                x, weights = inputs(tokens, shape[1], x_type), exact(dense, scales)
                y, expected = packed.multiply(x), x.double() @ weights.T
                size = x.double().abs() @ weights.abs().T
                rounded = ROUNDING[x_type] * (expected.abs() + size)  # of the weights too, where tiles are bfloat16
                bound = rounded + (shape[1] + 4) * 2.0**-24 * size
                assert y.dtype == x_type
                assert ((y.double() - expected).abs() <= bound).all(), (shape, tokens, x_type)


@needs_kernels
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_all_forms_give_the_same_bits_for_any_number_of_threads_and_tokens(dtype, choose, monkeypatch):
    shape = (203, 320)
    _, packed, _ = matrix(shape, dtype, masks(shape)[3])
    x, found = inputs(7, shape[1]), []
    for name, threads in product(COMPILED, (1, 2, 5)):
        choose(name)
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(packed.multiply(x))
        found.append(torch.cat([packed.multiply(token) for token in x.split(1)]))
    assert all(torch.equal(found[0], other) for other in found)


def test_infinity_and_nan_pass_as_through_the_dense_matrix(compiled):
    shape = (6, 70)
    dense, packed, _ = matrix(shape, torch.bfloat16, masks(shape)[3])
    for special in (float("inf"), float("-inf"), float("nan"), -0.0, 1e-45):
        x = inputs(2, 70)
        x[1, 3], x[0, 69] = special, special
        mine, theirs = packed.multiply(x), multiply_dense(dense, x)
        assert torch.equal(mine.view(torch.int32), theirs.view(torch.int32))
        assert torch.equal(mine.isfinite(), (x @ dense.float().T).isfinite())


def test_the_dense_matrix_comes_back_to_the_bit(form):
    for shape, dtype in product(SHAPES, TYPES):
        for mask in masks(shape):
            dense, packed, scales = matrix(shape, dtype, mask)
            if scales is None:
                assert torch.equal(packed.dense(), dense)
                assert packed.dense(torch.bfloat16).dtype == torch.bfloat16
                assert torch.equal(packed.dense(torch.bfloat16), dense.bfloat16())
            else:
                assert torch.equal(packed.dense(), exact(dense, scales).float())


@pytest.mark.parametrize("shape", [(3, 5), (8, 64), (9, 100), (5, 24), (2, 3, 40), (7, 1)])
def test_a_file_s_parts_are_taken_as_they_are(form, shape):
    for mask in masks(shape):
        dense = torch.randn(shape).bfloat16().masked_fill(~mask, 0)
        parts = Packed().encode("w", dense, mask)
        packed = PackedMatrix.from_file(parts["kept"], parts["mask"], shape)
        assert torch.equal(packed.dense().view(shape), dense)
        assert packed.values.data_ptr() == parts["kept"].data_ptr()


def test_rows_of_a_matrix_share_its_memory(form):
    shape = (21, 130)
    dense, packed, _ = matrix(shape, torch.bfloat16, masks(shape)[3])
    for first, last in ((0, 21), (3, 4), (7, 20), (0, 1)):
        (part,) = packed.parted([torch.arange(first, last)])
        assert torch.equal(part.dense(), dense[first:last])
        torch.testing.assert_close(part.multiply(inputs(2, 130)), packed.multiply(inputs(2, 130))[:, first:last])
        assert part.mask.data_ptr() == packed.mask[first:].data_ptr()


def test_memory_is_the_packed_size_and_less_than_a_percent():
    shape = (64, 2048)
    mask = torch.arange(2048).expand(shape) % 2 == 0
    packed = PackedMatrix.from_dense(torch.ones(shape, dtype=torch.bfloat16), mask)
    assert packed.nbytes <= 1.01 * (0.5 * 16 + 1) / 8 * 64 * 2048


def parts(**changed):
    given = {"values": torch.ones(5), "mask": torch.zeros(2, 16, dtype=torch.uint8), "shape": (2, 70), "name": "w"}
    given["mask"][0, 0] = 0b11111
    return given | changed


def other_mask(byte, value):
    mask = parts()["mask"]
    mask[byte] = value
    return mask


EIGHTS = torch.ones(5, dtype=torch.int8)
REFUSED = {
    "w has 5 values for a mask that keeps 6": {"mask": other_mask((1, 0), 1)},
    "w has 4 values for a mask that keeps 5": {"values": torch.ones(4)},
    "the mask has bits behind column 70": {"mask": other_mask((1, 8), 0b1000000)},
    "it is [2, 16] of torch.uint8": {"mask": torch.zeros(2, 9, dtype=torch.uint8)},
    "must be in one dimension and of type": {"values": torch.ones(5, dtype=torch.float64)},
    "values must be contiguous": {"values": torch.ones(10)[::2]},
    "int8 values need scales": {"values": EIGHTS},
    "and no others have them": {"scales": torch.ones(2, 1)},
    "they must be [2, groups] of torch.float32": {
        "values": torch.ones(5, dtype=torch.int8),
        "scales": torch.ones(1, 1),
    },
    "a group must be a multiple of 64": {"values": torch.ones(5, dtype=torch.int8), "scales": torch.ones(2, 2)},
    "a scale is not finite": {"values": torch.ones(5, dtype=torch.int8), "scales": torch.ones(2, 1) / 0},
    "at least one row": {"shape": (0, 70)},
    "multiple of 8 bytes": {"mask": torch.zeros(33, dtype=torch.uint8)[1:].view(2, 16)},
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_does_not_fit_together_is_refused_before_a_kernel_sees_it(sentence):
    with pytest.raises(UserError) as error:
        PackedMatrix(**parts(**REFUSED[sentence]))
    assert sentence in str(error.value)
    assert str(error.value).startswith("w")


def test_a_file_s_mask_of_another_length_is_refused():
    with pytest.raises(UserError, match=r"w: the mask is \[3\] of torch.uint8; for \[2, 7\] weights it is \[2\]"):
        PackedMatrix.from_file(torch.ones(3), torch.zeros(3, dtype=torch.uint8), (2, 7), name="w")


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (torch.ones(1, 69), r"w has 70 columns and is multiplied with \[1, 69\]"),
        (torch.ones(1, 70, dtype=torch.int32), "it can be with float32, bfloat16 or float16"),
        (torch.ones(1, 70, requires_grad=True), "w is packed and has no gradient"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, sentence):
    with pytest.raises(UserError, match=sentence):
        PackedMatrix(**parts()).multiply(x)


def test_a_dense_matrix_of_another_type_is_refused(compiled):
    for matrix in (torch.ones(3), torch.ones(2, 3).double(), torch.ones(2, 3, dtype=torch.int8)):
        with pytest.raises(UserError, match=r"the dense matrix is .*; it must be"):
            multiply_dense(matrix, torch.ones(1, 3))


def test_the_dense_kernel_needs_the_compiled_ones(choose):
    choose("torch")
    with pytest.raises(UserError, match="the dense kernel is a compiled one"):
        multiply_dense(torch.ones(2, 3), torch.ones(1, 3))


def test_shapes_of_inputs_and_outputs(form):
    packed = PackedMatrix(**parts())
    assert packed.multiply(torch.ones(70)).shape == (2,)
    assert packed.multiply(torch.ones(2, 3, 70)).tolist() == [[[5, 0]] * 3] * 2
    assert packed.multiply(torch.ones(0, 70)).shape == (0, 2)


@pytest.mark.parametrize("wanted", ["sse", "AVX2", ""])
def test_a_form_that_does_not_exist_is_refused(wanted, choose):
    choose(wanted)
    with pytest.raises(UserError, match=f"LEAP_REPRO_KERNELS is '{wanted}'; it can be {', '.join(FORMS)}"):
        forms.form()


ELSEWHERE = """
import warnings
import sys
sys.modules["leap_repro.runtime._kernels"] = None
import torch
from leap_repro.runtime.forms import form
from leap_repro.runtime.kernels import PackedMatrix
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    packed = PackedMatrix.from_dense(torch.eye(3))
    assert packed.multiply(torch.ones(2, 3)).tolist() == [[1.0] * 3] * 2
    assert form() == "torch"
assert [str(one.message).partition(":")[0] for one in said] == ["leap_repro was installed without its compiled kernels"]
"""


def test_without_the_extension_torch_computes_and_says_so_once():
    environment = {name: value for name, value in os.environ.items() if name != forms.VARIABLE}
    subprocess.run([sys.executable, "-c", ELSEWHERE], check=True, env=environment)


def test_a_processor_without_vector_forms_is_told_that_dense_is_faster(monkeypatch):
    monkeypatch.delenv(forms.VARIABLE, raising=False)
    monkeypatch.setattr(forms, "compiled", lambda: {"plain": 3})
    forms.form.cache_clear()
    with pytest.warns(UserWarning, match="neither AVX2 nor AVX-512: .*; run='dense' is faster"):
        assert forms.form() == "plain"
    forms.form.cache_clear()


def test_a_form_that_cannot_run_here_is_refused(choose, monkeypatch):
    monkeypatch.setattr(forms, "compiled", dict)
    choose("avx2")
    with pytest.raises(UserError, match="'avx2', which cannot run here; it can be torch"):
        forms.form()


FORKED = """
import os
import torch
from leap_repro.runtime.kernels import PackedMatrix
torch.set_num_threads(2)
packed = PackedMatrix.from_dense(torch.eye(64))
before = packed.multiply(torch.ones(1, 64))
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(packed.multiply(torch.ones(1, 64)), before) else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_process_forked_after_use_does_not_hang():
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)
