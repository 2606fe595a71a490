"""LEAP's gates as kernels, run by Triton's interpreter or, with TRITON_INTERPRET=0, on a GPU, against the plain way and
against float64; and compiled for a GPU, which needs none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction

import pytest
import torch

from leap_repro.prune.job import Job
from leap_repro.prune.learned import fused
from leap_repro.prune.learned import kernels as learned_kernels
from leap_repro.prune.learned.declaration import Relaxation
from leap_repro.prune.learned.fused import FusedLinear, KernelSwitches, bytes_moved, logit_gradient, masked_product
from leap_repro.prune.learned.gates import BernoulliGate, CounterNoise, source_on
from leap_repro.prune.learned.kernels import counted_uniforms
from leap_repro.prune.learned.masked import MaskedLinear
from leap_repro.prune.learned.philox import uniforms
from leap_repro.prune.methods import leap, maskllm

triton = pytest.importorskip("triton", reason="triton is there for Linux only")
tl = pytest.importorskip("triton.language")
kernels = pytest.importorskip("leap_repro.prune.learned.fused_kernels")
DEVICE = torch.device("cpu" if os.environ["TRITON_INTERPRET"] == "1" else "cuda")
SHAPE = (61, 71)
"""Two blocks and a part of a third; no multiple of four."""
SWITCHES = [KernelSwitches(), KernelSwitches(gumbels=1), KernelSwitches(hard=True), KernelSwitches(absolute=True)]
SOFTNESS = [(25.0, 4.0), (350.0, 0.05)]
KEY = 0xFEDCBA9876543210


def matrix(dtype=torch.float32, scale=1.0, seed=0):
    made = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) * scale
    return made.to(DEVICE, dtype)


def counted_noise(key=KEY):
    noise = CounterNoise(DEVICE, 0)
    noise.key = key
    return noise


def in_float64(theta, weight, kappa, tau, switches):
    """(leaf, M, W * M) by the definition, the noise drawn plainly."""
    u = uniforms(KEY, 0, 0, theta.numel(), DEVICE).double().view(SHAPE)
    noise = torch.log(u) - torch.log1p(-u) if switches.gumbels == 2 else -torch.log(-torch.log(u))
    leaf = theta.double().requires_grad_(True)
    soft = torch.sigmoid((kappa * leaf + noise) / tau)
    mask = (soft > 0.5).double() + soft - soft.detach() if switches.hard else soft
    return leaf, mask, weight.double() * mask


@triton.jit
def store_uniforms(found, key: tl.uint64, first, BLOCK: tl.constexpr):
    u, rest = kernels.uniform_block(key, 0, tl.cast(first, tl.int64), BLOCK)
    place = tl.arange(0, BLOCK)
    tl.store(found + place, u)
    tl.store(found + BLOCK + place, rest)


@pytest.mark.parametrize("key", [0, 1, 2**31, 2**64 - 1, KEY])
@pytest.mark.parametrize("first", [0, 4, 2**34 - 8])
def test_the_kernels_uniform_numbers_are_the_plain_ones_to_the_bit(key, first):
    found = torch.empty(2, 64, device=DEVICE)
    store_uniforms[(1,)](found, key, first, 64)
    expected = uniforms(key, 0, first, 64, DEVICE)
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1].double(), 1 - expected.double())


@pytest.mark.parametrize("count", [1, 5, 2048, 5000])
@pytest.mark.parametrize(("draw", "first"), [(0, 0), (1, 3), (2, 2**34 - 5)])
def test_a_kernel_draws_the_uniform_numbers_of_any_draw_and_place_to_the_bit(draw, first, count):
    expected = uniforms(KEY, draw, first, count, DEVICE)
    assert torch.equal(counted_uniforms(KEY, draw, first, count, DEVICE), expected)


@triton.jit
def store_logits(found, u, rest, count, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(u + place, mask=place < count, other=0.5)
    b = tl.load(rest + place, mask=place < count, other=0.5)
    tl.store(found + place, kernels.log_ratio(a, b), mask=place < count)


def test_the_kernels_noise_is_logistic_noise_at_every_uniform_number():
    u = (torch.arange(2**22, device=DEVICE) + 0.5) * 2.0**-22
    found = torch.empty_like(u)
    store_logits[(4,)](found, u, 1 - u, len(u), 2**20)
    expected = torch.logit(u.double())
    error = (found - expected).abs() / expected.abs().clamp(min=1.0)
    assert error.max() < 1e-6
    assert torch.equal(found.flip(0) < 0, found > 0)


@pytest.mark.parametrize(("kappa", "tau"), SOFTNESS)
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_product_and_sums_are_the_definitions(switches, kappa, tau):
    theta, weight = matrix(scale=0.03), matrix(seed=1)
    product, sums = masked_product(theta, weight, KEY, Relaxation(kappa, tau, kappa), switches)
    _, mask, expected = in_float64(theta, weight, kappa, tau, switches)
    torch.testing.assert_close(product.double(), expected.detach(), rtol=2e-4, atol=1e-6)
    size = expected.abs().sum() if switches.absolute else expected.square().sum()
    assert sums.tolist() == pytest.approx([mask.sum().item(), size.item()], rel=1e-6)


@pytest.mark.parametrize(("kappa", "tau"), SOFTNESS)
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_the_gradient_is_that_of_the_loss_and_of_the_regulariser(switches, kappa, tau):
    theta, weight, upstream = matrix(scale=0.03), matrix(seed=1), matrix(seed=2)
    found = logit_gradient(theta, weight, upstream, KEY, Relaxation(kappa, tau, kappa), (0.3, -0.7), switches)
    leaf, mask, product = in_float64(theta, weight, kappa, tau, switches)
    size = product.abs().sum() if switches.absolute else product.square().sum()
    (expected,) = torch.autograd.grad((product * upstream).sum() + 0.3 * mask.sum() - 0.7 * size, leaf)
    # 1 - m of a nearly closed or open gate has the rounding of m, here and in the plain way
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("logits", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_results_have_the_types_of_weight_and_logits_and_the_plain_ways_values(logits, weights):
    """To a unit in the last place of bfloat16, which the interpreter cuts where a GPU rounds."""
    theta, weight, upstream = matrix(logits, 0.03), matrix(weights, seed=1), matrix(seed=2)
    relaxation = Relaxation(100.0, 0.5, 100.0)
    product, _ = masked_product(theta, weight, KEY, relaxation)
    gradient = logit_gradient(theta, weight, upstream, KEY, relaxation, (0.0, 0.0))
    leaf = theta.clone().requires_grad_(True)
    mask = BernoulliGate(leaf).mask(counted_noise(), relaxation)
    (expected,) = torch.autograd.grad((weight * mask * upstream).sum(), leaf)
    assert (product.dtype, gradient.dtype) == (weights, logits)
    for ours, plain in ((product, (weight.float() * mask.detach()).to(weights)), (gradient, expected)):
        tolerance = 2.0**-7 if ours.dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(ours, plain, rtol=tolerance, atol=1e-6 * plain.abs().max().item())


def test_the_same_matrix_gives_the_same_bits_however_it_lies():
    theta, weight, upstream = matrix(scale=0.03), matrix(seed=1), matrix(seed=2)
    relaxation = Relaxation(100.0, 0.5, 100.0)
    across = [each.T.contiguous().T for each in (theta, weight, upstream)]
    assert not across[0].is_contiguous()
    for one, other in zip(
        masked_product(theta, weight, KEY, relaxation), masked_product(*across[:2], KEY, relaxation), strict=True
    ):
        assert torch.equal(one, other)
    gradients = [logit_gradient(*three, KEY, relaxation, (0.1, 0.2)) for three in ((theta, weight, upstream), across)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("logits", [torch.float32, torch.bfloat16])
def test_the_bytes_that_are_counted_are_those_of_the_tensors_that_a_kernel_is_given(logits, monkeypatch):
    given = []
    launch = fused._launch
    monkeypatch.setattr(
        fused, "_launch", lambda name, tensors, *rest: (given.append(tensors), launch(name, tensors, *rest))
    )
    theta, weight, upstream = matrix(logits), matrix(torch.bfloat16), matrix()
    relaxation, count = Relaxation(100.0, 0.5, 100.0), theta.numel()
    masked_product(theta, weight, KEY, relaxation)
    logit_gradient(theta, weight, upstream, KEY, relaxation, (0.0, 0.0))
    forward, backward = (sum(tensor.nbytes for tensor in tensors) for tensors in given)
    assert forward == bytes_moved(count, logits, torch.bfloat16)
    assert backward == bytes_moved(count, logits, torch.bfloat16, torch.float32)
    assert fused.least_bytes(torch.bfloat16, torch.bfloat16) == 6
    assert fused.least_bytes(torch.float32, torch.bfloat16, torch.float32) == 14
    assert forward - count * fused.least_bytes(logits, torch.bfloat16) == 3 * 2 * 4
    assert backward == count * fused.least_bytes(logits, torch.bfloat16, torch.float32)


OPTIONS = {"steps": 10, "batch_size": 4, "micro_batch_size": 2, "noise_source": "counter"}
VARIANTS = [
    {},
    {"gradient_checkpointing": True},
    {"masked_weights": "remade", "gradient_checkpointing": True},
    {"noise": "forward"},
    {"hard": True},
    {"gumbels": 1, "norm": "l1"},
    {"budget": "layer", "logits_dtype": "bfloat16"},
]


@pytest.fixture
def build(tiny_llama, tokens, monkeypatch):
    """(fused or not, options) -> a trainer of LEAP on a one-block model."""

    def make(with_kernels, **options):
        monkeypatch.setattr(fused, "kernels_run", lambda device: with_kernels)
        given = leap.Options(**OPTIONS | options)
        return leap.trainer(Job(tiny_llama(blocks=1).to(DEVICE), given, Fraction("0.6"), 1, tokens[:8]))

    return make


def gradients(trainer):
    """One step's row and the logits' gradients, flat."""
    caught = []
    trainer.optimizer.step = lambda *_: caught.extend(leaf.grad.flatten() for leaf in trainer.optimizer.parameters)
    return trainer.step(3), torch.cat(caught).double()


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_a_step_is_that_of_the_plain_way(options, build):
    (row, gradient), (expected_row, expected) = gradients(build(True, **options)), gradients(build(False, **options))
    assert row == pytest.approx(expected_row, rel=1e-5, abs=1e-6)
    tolerance = 2.0**-7 if "logits_dtype" in options else 1e-5
    assert (gradient - expected).norm() < tolerance * expected.norm()


def test_kernels_make_a_product_once_a_step_and_the_same_bits_if_made_for_each_use(build, monkeypatch):
    launched, usual = [], fused._launch
    monkeypatch.setattr(fused, "_launch", lambda name, *given: (launched.append(name), usual(name, *given)))
    results = []
    # Of seven matrices in two micro-batches: forward, again, backward; the last is not run again, and three need no
    # gradient at their input.
    for masked_weights, products in (("kept", 7), ("remade", 2 * (3 * 7 - 1 - 3))):
        ours = build(True, steps=2, masked_weights=masked_weights, gradient_checkpointing=True)
        launched.clear()
        results.append((ours.step(0), torch.cat([leaf.detach().flatten() for leaf in ours.optimizer.parameters])))
        assert launched.count("gradient_kernel") == 7
        assert launched.count("product_kernel") == products
    (row, logits), (other_row, other_logits) = results
    assert row == other_row
    assert torch.equal(logits, other_logits)


def test_a_training_repeats_its_bits_and_goes_on_from_a_checkpoint(build, tmp_path):
    whole, stopped, resumed = (build(True, steps=2, batch_size=2) for _ in range(3))
    whole.run(None)
    stopped.rows = [stopped.step(0)]
    stopped._save(tmp_path)
    assert all(type(layer) is FusedLinear for layer in resumed.layers)
    resumed.run(tmp_path)
    assert resumed.rows == whole.rows
    for ours, theirs in zip(resumed.optimizer.parameters, whole.optimizer.parameters, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "options", [{"noise_source": "generator"}, {"gates_dtype": "bfloat16"}, {"noise_source": "counter"}], ids=str
)
def test_kernels_are_for_counted_noise_and_float32_gates_where_they_run(options, build):
    assert source_on(torch.device("cuda")) == "counter"
    assert source_on(torch.device("cpu")) == "generator"
    assert {source_on(torch.device(kind), "generator") for kind in ("cpu", "cuda")} == {"generator"}
    kinds = {type(layer) for layer in build(True, **options).layers}
    assert kinds == {FusedLinear if options == {"noise_source": "counter"} else MaskedLinear}
    assert {type(layer) for layer in build(False, **options).layers} == {MaskedLinear}


def test_other_gates_and_cpus_take_the_plain_way(tiny_llama, tokens, monkeypatch):
    assert not fused.kernels_run(torch.device("cpu"))
    monkeypatch.setattr(fused, "kernels_run", lambda device: True)
    options = maskllm.Options(steps=1, batch_size=2, micro_batch_size=2, noise_source="counter")
    trainer = maskllm.trainer(Job(tiny_llama(blocks=1), options, Fraction("0.5"), 1, tokens[:8]))
    assert {type(layer) for layer in trainer.layers} == {MaskedLinear}


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A device that says that it is a GPU, on which the interpreter runs kernels."""
    learned_kernels._compiles.cache_clear()
    usual = learned_kernels.counted_uniforms
    monkeypatch.setattr(learned_kernels, "counted_uniforms", lambda *given: usual(*given[:-1], torch.device("cpu")))
    yield torch.device("cuda")
    learned_kernels._compiles.cache_clear()


def test_kernels_are_used_where_one_compiles_and_draws_the_right_numbers(on_a_gpu, caplog):
    assert learned_kernels.kernels_run(on_a_gpu)
    assert not caplog.records


def broken(*_):
    raise RuntimeError("ptxas: cannot find it\nmore that nobody needs")


@pytest.mark.parametrize(
    ("compiler", "why"),
    [
        (broken, "RuntimeError: ptxas: cannot find it)"),
        (lambda *given: torch.zeros(given[3]), "a kernel's random numbers are not those of the CPU"),
    ],
)
def test_a_compiler_that_is_broken_is_said_once_and_not_used(compiler, why, on_a_gpu, monkeypatch, caplog):
    monkeypatch.setattr(learned_kernels, "counted_uniforms", compiler)
    assert not learned_kernels.kernels_run(on_a_gpu)
    assert not learned_kernels.kernels_run(torch.device("cuda:0"))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert why in record.message


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from leap_repro.prune.learned import fused_kernels, fused

def check(kernel, pointers, numbers):
    for switches in ((2, False, False), (1, True, True)):
        constants = dict(zip(("GUMBELS", "HARD", "ABSOLUTE", "BLOCK"), (*switches, fused.BLOCK)))
        signature = pointers | {"key": "u64"} | numbers | {"count": "i32"} | dict.fromkeys(constants, "constexpr")
        places = [place for place, name in enumerate(signature) if name in {"count", *pointers}]
        aligned = {(place,): [["tt.divisibility", 16]] for place in places}
        function = getattr(fused_kernels, kernel)
        assert list(signature) == function.arg_names
        assert [each.annotation_type for each in function.params if each.name == "key"] == ["u64"]
        source = ASTSource(function, signature, constants, aligned)
        text = compile(source, target=GPUTarget("cuda", 90, 32)).asm["sass"]
        assert "LDG.E.128" in text and not any(word in text for word in ("ATOM", "RED", "STL", "LDL")), text

floats = dict.fromkeys(("scale", "sharpness"), "fp32")
logits, weight = {"theta": "*bf16"}, {"weight": "*bf16"}
check("product_kernel", logits | weight | {"product": "*bf16", "sums": "*fp32"}, floats)
more = floats | dict.fromkeys(("slope", "at_sum", "at_size"), "fp32")
check("gradient_kernel", logits | weight | {"at_product": "*fp32", "at_theta": "*bf16"}, more)

signature = {"found": "*fp32", "key": "u64", "draw": "i32", "first": "i64", "count": "i32", "BLOCK": "constexpr"}
assert list(signature) == fused_kernels.uniforms_kernel.arg_names
source = ASTSource(fused_kernels.uniforms_kernel, signature, {"BLOCK": fused.BLOCK})
text = compile(source, target=GPUTarget("cuda", 90, 32)).asm["sass"]
assert not any(word in text for word in ("ATOM", "RED", "STL", "LDL")), text
"""


def test_the_kernels_compile_for_a_gpu_with_wide_loads_and_without_atomics_or_spills(tmp_path):
    """The interpreter takes what the compiler refuses; the compiler needs no GPU."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", COMPILE], check=True, env=environment)


def test_the_benchmark_takes_the_kernels_path(project):
    """Its times mean nothing here; with bfloat16 weights and float32 logits its bytes do."""
    small = ["--shape", "tiny", "--blocks", "1", "--tokens", "32", "--length", "16", "--dtype", "bfloat16"]
    script = [sys.executable, "benchmarks/gates.py", "--way", "kernels", "plain", *small]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    found = subprocess.run(script, cwd=project, check=True, capture_output=True, text=True, env=environment)
    kernels, plain = map(json.loads, found.stdout.splitlines())
    assert [kernels[name] for name in ("forward_least", "backward_least")] == [8, 14]
    assert kernels["forward_bytes"] == pytest.approx(8, rel=1e-3)
    assert kernels["backward_bytes"] == 14
    assert plain["forward_bytes"] > 50
    assert plain["backward_bytes"] > 80
