"""Mask training follows the paper's loss to its gradient, moves the logits alone, keeps schedules and log."""

from __future__ import annotations

import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from leap_repro.errors import UserError
from leap_repro.models.prunable import prunable_linears
from leap_repro.prune.job import Job
from leap_repro.prune.learned import loop, masked
from leap_repro.prune.learned.gates import Noise
from leap_repro.prune.learned.masked import Step
from leap_repro.prune.methods import leap
from leap_repro.prune.methods.leap import Options
from leap_repro.prune.run import load_method
from leap_repro.store.tokens import batch_indices

COLUMNS = ["step", "loss_lm", "density_relaxed", "density_hard", "tau", "kappa", "learning_rate"]
COLUMNS += ["density_term", "norm_term", "loss"]


def prunable(model):
    return {f"{name}.weight": part.weight for name, part in model.named_modules() if name.endswith("_proj")}


@pytest.fixture
def trainer(tiny_llama, tokens):
    """(options, density) -> a trainer of a fresh tiny model on eight sequences, from random logits."""

    def build(density="0.4", seed=1, shift=0.0, dtype=torch.float32, **options):
        options = Options(**{"steps": 10, "batch_size": 8, "micro_batch_size": 4} | options)
        ours = leap.trainer(Job(tiny_llama(dtype=dtype), options, 1 - Fraction(density), seed, tokens[:8]))
        generator = torch.Generator().manual_seed(0)
        for theta in thetas(ours):
            theta.data.copy_(shift + 0.05 * torch.randn(theta.shape, generator=generator))
        return ours

    return build


def thetas(trainer):
    return [layer.gate.logits["logits"] for layer in trainer.layers]


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def catch_gradients(trainer):
    """The logits' gradients of every later step, flat: the optimiser frees them, so they are copied before it runs."""
    caught, update = [], trainer.optimizer.step
    trainer.optimizer.step = lambda *arguments: (
        caught.append(flat(p.grad for p in thetas(trainer))),
        update(*arguments),
    )
    return caught


def paper_loss(model, theta, noise, tokens, density, t, steps, per_layer=False):
    """The three terms of the loss at step t, in float64: L_LM, 7 |density - target|, -10 (1 - t/T) norms."""
    tau = 4 + (0.05 - 4) * t / (steps - 1)
    kappa = 25 + (350 - 25) * t / (steps - 1)
    masked, norms, dense_norms, total, count, distance = {}, 0.0, 0.0, 0.0, 0, 0.0
    for (name, weight), logits, draw in zip(prunable(model).items(), theta, noise, strict=True):
        gates = (1 + torch.tanh((kappa * logits + draw.double()) / tau / 2)) / 2  # the sigmoid, without overflow
        masked[name] = weight * gates
        norms += (masked[name] ** 2).sum().sqrt()
        dense_norms += (weight**2).sum().sqrt()
        total, count = total + gates.sum(), count + gates.numel()
        distance += gates.numel() * (gates.mean() - density).abs()
    log_p = functional_call(model, masked, (tokens,)).logits[:, :-1].log_softmax(dim=-1)
    loss_lm = -log_p.gather(2, tokens[:, 1:, None]).mean()
    distance = distance / count if per_layer else (total / count - density).abs()
    return loss_lm, 7 * distance, -10 * (1 - t / steps) * norms / dense_norms


@pytest.mark.parametrize("t", [0, 4, 9])
@pytest.mark.parametrize(("shift", "density"), [(0.1, "0.4"), (-0.1, "0.9")])
@pytest.mark.parametrize("budget", ["global", "layer"])
def test_a_steps_loss_and_gradient_are_those_of_the_papers_formula(
    t, shift, density, budget, trainer, tiny_llama, tokens
):
    ours = trainer(density, shift=shift, budget=budget)
    theta = [leaf.detach().double().requires_grad_(True) for leaf in thetas(ours)]
    noise = [Noise(torch.device("cpu"), 1, t, index).logistic(*leaf.shape) for index, leaf in enumerate(theta)]
    caught = catch_gradients(ours)
    row = ours.step(t)
    model = tiny_llama().double()
    terms = paper_loss(model, theta, noise, tokens[:8], float(density), t, steps=10, per_layer=budget == "layer")
    values = [term.item() for term in terms]
    assert [row["loss_lm"], row["density_term"], row["norm_term"]] == pytest.approx(values, rel=1e-4)
    assert row["loss"] == pytest.approx(sum(values), rel=1e-4, abs=1e-4)
    gradients = [flat(torch.autograd.grad(term, theta, retain_graph=True)) for term in terms]
    tolerance = 1e-4 * sum(gradients).norm()
    assert (caught[0].double() - sum(gradients)).norm() < tolerance
    assert all(gradient.norm() > 20 * tolerance for gradient in gradients)


@pytest.mark.parametrize(("decay", "clip"), [(0.0, 0.0), (0.1, 0.01)])
def test_theta_follows_adam_with_the_papers_betas(decay, clip, trainer):
    ours = trainer(warmup_steps=2, weight_decay=decay, gradient_clip=clip)
    expected = flat(thetas(ours)).double().requires_grad_(True)
    oracle = torch.optim.AdamW([expected], betas=(0.9, 0.95), weight_decay=decay)
    caught = catch_gradients(ours)
    for t, rate in enumerate([0.5e-3, 1e-3, 1e-3, 1e-3 * 0.5 * (1 + math.cos(math.pi / 8))]):
        ours.step(t)
        expected.grad = caught[t].double()
        assert not clip or expected.grad.norm() == pytest.approx(clip, rel=1e-3)
        oracle.param_groups[0]["lr"] = rate
        oracle.step()
    torch.testing.assert_close(flat(thetas(ours)).double(), expected.detach(), rtol=0, atol=2e-7)


def sums(trainer, parts, **options):
    """(the sum of `parts` at a masked weight as a step's micro-batches add them up, their sum in float64)."""
    ours = trainer(**options)
    layer = ours.layers[0]
    step = Step(0, 0, ours.options.relaxation(0), sums=getattr(torch, ours.options.gradients_dtype))
    for micro, part in enumerate(parts):
        layer._accumulate(part, torch.eye(32), step.of_pass(micro, micro == 0, micro + 1 == len(parts)))
    return layer.gradient, sum(part.double() for part in parts)


def test_many_small_gradients_count_in_a_sum_in_bfloat16(trainer):
    """A thousandth of the first, a thousand times: to the nearest bfloat16 the sum would stay at the first."""
    parts = [torch.full((32, 32), 1.0), *[torch.full((32, 32), 1e-3)] * 1000]
    found, exact = sums(trainer, parts, gradients_dtype="bfloat16")
    assert found.dtype == torch.float32
    assert float(found.mean()) == pytest.approx(float(exact.mean()), rel=0.01)
    assert float((found / exact - 1).abs().max()) < 0.3
    full, _ = sums(trainer, parts)
    torch.testing.assert_close(full.double(), exact, rtol=1e-4, atol=0)


def test_few_bits_lead_where_float32_leads(trainer):
    few = {"logits_dtype": "bfloat16", "logits_rounding": "stochastic", "state_dtype": "int8"}
    exact, lean = trainer(micro_batch_size=1), trainer(micro_batch_size=1, gradients_dtype="bfloat16", **few)
    start = flat(thetas(exact)).clone()
    for run in (exact, lean):
        run.run(None)
    ours, theirs = flat(thetas(lean)).float() - start, flat(thetas(exact)) - start
    assert float((ours * theirs).sum() / theirs.square().sum()) == pytest.approx(1, abs=0.03)
    assert lean.rows[-1]["loss"] == pytest.approx(exact.rows[-1]["loss"], abs=0.01)
    state = lean._state(0)
    state.pop("log")
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16, torch.uint8, torch.float32}


def test_moments_in_bfloat16_leave_theta_in_float32_and_near_the_exact_run(trainer):
    exact, lean = trainer(), trainer(state_dtype="bfloat16")
    for run in (exact, lean):
        run.run(None)
    names = [str(number) for number in range(len(lean.layers))]
    assert {moment.dtype for moment in lean.optimizer.state(names).values()} == {torch.bfloat16}
    moved = (flat(thetas(exact)) - flat(thetas(trainer()))).norm()
    difference = (flat(thetas(exact)) - flat(thetas(lean))).norm()
    assert 0 < difference < 0.1 * moved


@pytest.mark.parametrize("micro_batch_size", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_and_activations_made_again_give_the_bits_of_those_kept(micro_batch_size, dtype, trainer):
    shared = {"steps": 3, "micro_batch_size": micro_batch_size, "dtype": dtype}
    runs = [
        trainer(**shared, gradient_checkpointing=again, masked_weights=masked_weights)
        for again in (False, True)
        for masked_weights in ("kept", "remade")
    ]
    rows = [run.run(None) for run in runs]
    assert all(found == rows[0] for found in rows)
    assert all(torch.equal(flat(thetas(run)), flat(thetas(runs[0]))) for run in runs)


@pytest.mark.parametrize(
    ("options", "masks", "products"),
    [
        ({}, 1, 1),
        ({"gradient_checkpointing": True}, 2, 1),
        ({"noise": "forward"}, 4, 4),
        ({"masked_weights": "remade"}, 8, 8),
        ({"masked_weights": "remade", "gradient_checkpointing": True}, 12, 12),
    ],
    ids=str,
)
def test_masks_and_products_are_made_as_often_as_the_options_say(options, masks, products, trainer, monkeypatch):
    """Of one up projection, in a step of four micro-batches."""
    ours, made = trainer(micro_batch_size=2, **options), {"mask": 0, "product": 0}
    layer = next(layer for layer in ours.layers if "up_proj" in layer.linear.name)
    for owner, method, counted in ((layer.gate, "mask", "mask"), (layer, "_product", "product")):
        usual = getattr(owner, method)

        def counting(*arguments, usual=usual, counted=counted):
            made[counted] += 1
            return usual(*arguments)

        monkeypatch.setattr(owner, method, counting)
    ours.step(0)
    assert made == {"mask": masks, "product": products}
    assert layer.kept_mask is layer.kept_product is layer.gradient is None


def test_a_block_that_runs_again_does_not_make_its_last_product_again(trainer, monkeypatch):
    ours, passed = trainer(micro_batch_size=8, gradient_checkpointing=True), []
    for layer in ours.layers:
        usual, name = layer.forward, layer.linear.name.rsplit(".", 2)[-2]
        monkeypatch.setattr(layer, "forward", lambda *a, usual=usual, name=name: (passed.append(name), usual(*a))[1])
    ours.step(0)
    blocks = len(ours.layers) // 7
    assert {name: passed.count(name) for name in passed} == {
        name: blocks if name == "down_proj" else 2 * blocks for name in passed
    }


def test_compiled_blocks_train_as_the_others_and_are_compiled_once(trainer, monkeypatch):
    """By the compiler that leaves every operation as it is, so that no bit differs."""
    monkeypatch.setattr(masked, "COMPILER", "eager")
    torch._dynamo.reset()
    options = {"steps": 3, "micro_batch_size": 2, "gradient_checkpointing": True}
    plain, compiled = trainer(**options), trainer(**options, compiled_blocks=True)
    rows, graphs = [], []
    for number in range(3):
        rows.append(compiled.step(number))
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert rows == plain.run(None)
    assert torch.equal(flat(thetas(plain)), flat(thetas(compiled)))
    assert graphs[0] == graphs[-1] > 0


@pytest.mark.parametrize("micro_batch_size", [1, 2, 8])
def test_splitting_a_batch_changes_the_gradient_only_by_rounding(micro_batch_size, trainer):
    whole, split = trainer(micro_batch_size=4), trainer(micro_batch_size=micro_batch_size)
    caught = [catch_gradients(run) for run in (whole, split)]
    rows = [run.step(2) for run in (whole, split)]
    assert rows[0] == pytest.approx(rows[1], rel=1e-5)
    assert (caught[0][0] - caught[1][0]).norm() < 1e-5 * caught[0][0].norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_changes_theta_and_not_a_bit_of_the_model(dtype, trainer, tiny_llama):
    ours, before = trainer(dtype=dtype), tiny_llama(dtype=dtype).state_dict()
    theta = flat(thetas(ours))
    ours.run(None)
    assert {leaf.dtype for leaf in thetas(ours)} == {torch.float32}
    assert (flat(thetas(ours)) != theta).float().mean() > 0.99
    after = ours.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in ours.model.parameters())


def test_the_schedules_run_linearly_from_the_papers_start_to_its_end(trainer):
    rows = trainer(steps=7).run(None)
    np.testing.assert_allclose([row["tau"] for row in rows], np.linspace(4, 0.05, 7), rtol=1e-12)
    np.testing.assert_allclose([row["kappa"] for row in rows], np.linspace(25, 350, 7), rtol=1e-12)


ORACLES = {
    "linear": lambda start, end, p: np.interp(p, [0, 1], [start, end]),
    "constant": lambda start, end, p: start,
    "cosine": lambda start, end, p: end + (start - end) * math.cos(math.pi * p / 2) ** 2,
    "exponential": lambda start, end, p: math.exp((1 - p) * math.log(start) + p * math.log(end)),
}


@pytest.mark.parametrize("schedule", ORACLES)
@pytest.mark.parametrize("steps", [2, 5, 2000])
def test_a_schedule_follows_its_formula_from_start_to_end(schedule, steps):
    options = Options(steps=steps, tau_schedule=schedule, kappa_schedule=schedule)
    for step in {0, 1, steps // 3, steps - 1}:
        relaxation, progress = options.relaxation(step), step / (steps - 1)
        assert relaxation.tau == pytest.approx(ORACLES[schedule](4.0, 0.05, progress))
        assert relaxation.kappa == pytest.approx(ORACLES[schedule](25.0, 350.0, progress))


def test_a_single_step_runs_at_the_start_of_the_schedule():
    assert Options(steps=1).relaxation(0).tau == 4.0


def test_the_learning_rate_warms_up_linearly_and_falls_by_a_half_cosine():
    options = Options(steps=105, learning_rate=2.0, warmup_steps=5)
    rates = [options.rate(step) for step in range(105)]
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert rates[5:] == pytest.approx([1 + math.cos(math.pi * k / 100) for k in range(100)])


@pytest.mark.parametrize(
    ("steps", "asked", "interval"), [(2000, 100, 100), (2000, 500, 100), (1000, 100, 50), (30, 9, 1), (4, 9, 1)]
)
def test_a_killed_training_loses_at_most_one_twentieth(steps, asked, interval):
    assert Options(steps=steps, checkpoint_every=asked).checkpoint_steps == interval


@pytest.mark.parametrize(("seconds", "first", "then"), [(0.5, [2], [4, 6, 8]), (3.0, [2], [8])])
def test_long_checkpoints_take_a_twentieth_of_the_time(trainer, tmp_path, monkeypatch, seconds, first, then):
    """Steps of 10 s on a clock of the test's, a checkpoint due every second one."""
    clock, saved = [0.0], []

    def step(number):
        clock[0] += 10
        return dict.fromkeys(COLUMNS, 0.0)

    def save(folder, done, state):
        saved.append(done)
        clock[0] += seconds

    ours = trainer(steps=40, checkpoint_every=2)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(loop.checkpoint, "save", save)
    monkeypatch.setattr(ours, "step", step)
    ours.saved_at = 0.0
    ours.run(tmp_path)
    assert saved[: 1 + len(then)] == first + then


def test_the_log_has_a_row_a_step_and_its_columns_add_up(trainer):
    ours = trainer(steps=6)
    rows = ours.run(None)
    assert [list(row) for row in rows] == [COLUMNS] * 6
    assert [row["step"] for row in rows] == list(range(6))
    for row in rows:
        assert row["loss"] == pytest.approx(row["loss_lm"] + row["density_term"] + row["norm_term"])
        assert row["density_term"] == pytest.approx(7 * abs(row["density_relaxed"] - 0.4), abs=1e-5)
        assert row["learning_rate"] == pytest.approx(ours.options.rate(row["step"]))
    assert rows[-1]["density_hard"] == pytest.approx((flat(thetas(ours)).numpy() > 0).mean())


def test_the_language_loss_falls_where_it_alone_is_trained(trainer):
    quiet = {"tau_start": 1.0, "tau_end": 1.0, "kappa_start": 10.0, "kappa_end": 10.0, "learning_rate": 0.1}
    rows = trainer(steps=60, density_weight=0.0, norm_weight=0.0, **quiet).run(None)
    first, last = (np.mean([row["loss_lm"] for row in part]) for part in (rows[:5], rows[-5:]))
    assert last < first - 0.5


@pytest.mark.parametrize(("density", "shift"), [("0.3", 0.05), ("0.7", -0.05)])
def test_the_density_approaches_its_target(density, shift, trainer):
    rows = trainer(density, shift=shift, steps=150, learning_rate=1e-2).run(None)
    density = float(density)
    assert abs(rows[0]["density_hard"] - density) > 0.4
    assert abs(rows[-1]["density_relaxed"] - density) < 0.1
    assert abs(rows[-1]["density_hard"] - density) < 0.1


@given(sequences=st.integers(1, 40), batch_size=st.integers(1, 17), seed=st.integers(0, 5), data=st.data())
@settings(max_examples=60, deadline=None)
def test_each_pass_reads_every_sequence_once(sequences, batch_size, seed, data):
    passes = data.draw(st.integers(1, 3))
    steps = math.ceil(passes * sequences / batch_size)
    read = torch.cat([batch_indices(step, batch_size, sequences, seed) for step in range(steps)]).tolist()
    assert len(read) == steps * batch_size
    for number in range(passes):
        assert sorted(read[number * sequences : (number + 1) * sequences]) == list(range(sequences))


def test_passes_and_seeds_have_their_own_orders():
    orders = {(seed, step): tuple(batch_indices(step, 50, 50, seed).tolist()) for seed in range(3) for step in range(3)}
    assert len(set(orders.values())) == len(orders)
    assert orders[1, 2] == tuple(batch_indices(2, 50, 50, 1).tolist())


def test_two_seeds_from_the_same_logits_train_to_different_logits(trainer):
    runs = [trainer(seed=seed, steps=3, batch_size=4) for seed in (1, 2)]
    losses = [[row["loss_lm"] for row in run.run(None)] for run in runs]
    assert losses[0] != losses[1]
    assert not torch.equal(*(flat(thetas(run)) for run in runs))


def test_a_batch_that_micro_batches_do_not_divide_is_refused():
    with pytest.raises(UserError, match=r"batch_size is 6; .* micro_batch_size, which is 4"):
        load_method("leap", {"batch_size": 6, "micro_batch_size": 4})


def test_a_cell_has_logits_for_each_matrix_that_start_on_the_warm_starts_side(tiny_llama, tokens):
    model = tiny_llama()
    generator = torch.Generator().manual_seed(3)
    warm = {name: torch.rand(w.shape, generator=generator) < 0.4 for name, w in prunable(model).items()}
    options = Options(steps=1, batch_size=4, micro_batch_size=4, learning_rate=1e-12)
    cell = leap.METHOD.prune_cell(Job(model, options, Fraction("0.6"), seed=0, tokens=tokens, warm_start=warm))
    assert set(cell.tensors) == {f"{name}.logits" for name in warm}
    for name, kept in warm.items():
        logits = cell.tensors[f"{name}.logits"]
        assert logits.shape == kept.shape
        assert ((logits > 0) == kept).float().mean() > 0.97
    (row,) = cell.log
    assert row["density_term"] == pytest.approx(7 * abs(row["density_relaxed"] - 0.4), abs=1e-5)


@pytest.mark.parametrize("key", ["tau_schedule", "kappa_schedule", "logits_dtype", "state_dtype", "budget"])
def test_a_word_that_is_no_choice_is_refused_by_key_and_value(key):
    with pytest.raises(UserError, match=f"{key} is 'sideways'; allowed are"):
        load_method("leap", {key: "sideways"})


def test_a_loss_that_is_not_finite_ends_the_training_by_name(trainer):
    ours = trainer()
    thetas(ours)[0].data[0, 0] = math.nan
    with pytest.raises(UserError, match="the loss of step 0 is nan"):
        ours.run(None)


def test_training_without_tokens_is_refused(tiny_llama):
    with pytest.raises(UserError, match="it needs tokens"):
        leap.METHOD.prune_cell(Job(tiny_llama(), Options(steps=1), Fraction("0.5"), seed=0))


def test_a_matrix_that_a_pass_uses_twice_or_never_is_refused(tiny_llama, tokens, refused):
    """What the probe cannot foresee, because it hangs on values, is said by name and not trained wrongly."""
    for change, word in (("twice", "is used twice"), ("never", "is not used")):
        model = tiny_llama()
        prunable_linears(model)
        mlp = model.model.layers[1].mlp
        usual = mlp.forward
        mlp.forward = (lambda x, usual=usual: usual(usual(x))) if change == "twice" else lambda x: x
        options = leap.Options(steps=1, batch_size=2, micro_batch_size=2)
        with refused("model.layers.1.mlp.gate_proj.weight", word):
            leap.METHOD.prune_cell(Job(model, options, Fraction("0.5"), seed=0, tokens=tokens))
