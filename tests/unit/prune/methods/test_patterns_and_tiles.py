"""MaskLLM's and PATCH's gates: their formulas, priors and losses, to the gradient, against float64 oracles."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest
import torch
from torch.func import functional_call

from leap_repro.errors import UserError
from leap_repro.prune.job import Job
from leap_repro.prune.learned.gates import Noise, Relaxation
from leap_repro.prune.learned.gates_pattern import PatternGate, pattern_logits
from leap_repro.prune.learned.gates_tile import TileGate, tile_logits
from leap_repro.prune.methods import maskllm, patch
from leap_repro.prune.run import load_method

CPU = torch.device("cpu")
PAIRS = list(combinations(range(4), 2))
STEPS = 10
COMMON = {"steps": STEPS, "batch_size": 4, "micro_batch_size": 2}
CASES = {
    "maskllm": (maskllm, maskllm.Options(**COMMON, norm_weight=0.5, gradient_clip=0), "0.5"),
    "tile": (patch, patch.Options(**COMMON, tile=8, norm_weight=2.0, gradient_clip=0), "0.3"),
    "joint": (
        patch,
        patch.Options(**COMMON, tile=8, learn="joint", kappa_start=25, kappa_end=350, gradient_clip=0),
        "0.3",
    ),
}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def two_four(rows, columns, seed=0):
    """A random 2:4 mask."""
    best = random(rows, columns // 4, 4, seed=seed).topk(2, dim=-1).indices
    return torch.zeros(rows, columns // 4, 4).scatter(2, best, 1.0).bool().view(rows, columns)


def prunable(model):
    return {f"{name}.weight": part.weight for name, part in model.named_modules() if name.endswith("_proj")}


def pattern_oracle(theta, gumbel, kappa, tau):
    """sum over the six pairs of softmax((kappa theta + g) / tau) times the pair, pair by pair."""
    scores = (kappa * theta + gumbel.double()) / tau
    weights = torch.exp(scores - scores.max(dim=-1, keepdim=True).values.detach())
    weights = weights / weights.sum(dim=-1, keepdim=True)
    columns = [sum(weights[..., p] for p, pair in enumerate(PAIRS) if place in pair) for place in range(4)]
    return torch.stack(columns, dim=-1).flatten(1)


def patterns_last(*held):
    """Tensors as a trained gate holds them, [6, out, in / 4], as [out, in / 4, 6]."""
    return [tensor.movedim(0, -1) for tensor in held]


def tile_oracle(theta, logistic, kappa, tau, shape, size, sparse):
    """T + (1 - T) M24 with the tile of every weight looked up by its place."""
    dense = (1 + torch.tanh((kappa * theta + logistic.double()) / tau / 2)) / 2
    rows, columns = torch.arange(shape[0]) // size, torch.arange(shape[1]) // size
    dense = dense[rows][:, columns]
    return dense + (1 - dense) * sparse


@pytest.mark.parametrize(("kappa", "tau"), [(100.0, 4.0), (500.0, 0.05)])
def test_a_pattern_mask_is_the_softmaxs_mean_of_the_six_patterns(kappa, tau):
    theta = 0.02 * random(5, 3, 6)
    (gumbel,) = patterns_last(Noise(CPU, 0, 1, 2).gumbel(6, 5, 3))
    mask = PatternGate(theta.clone()).mask(Noise(CPU, 0, 1, 2), Relaxation(1.0, tau, kappa))
    torch.testing.assert_close(mask.double(), pattern_oracle(theta.double(), gumbel, kappa, tau), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mask.view(5, 3, 4).sum(dim=-1), torch.full((5, 3), 2.0))


def test_hard_patterns_keep_exactly_two_of_four_and_learn_as_soft_ones():
    slopes = []
    for hard in (False, True):
        gate = PatternGate(0.02 * random(5, 3, 6))
        mask = gate.mask(Noise(CPU, 0, 1, 2), Relaxation(1.0, 1.0, 100.0, hard))
        slopes.append(torch.autograd.grad((mask * random(5, 12, seed=3)).sum(), gate.logits["patterns"])[0])
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert (mask.view(5, 3, 4).sum(dim=-1) == 2).all()
    assert torch.equal(*slopes)


def test_hardening_gets_the_logits_group_by_group_however_a_gate_holds_them():
    theta = random(8, 3, 6)
    alone, shared = (PatternGate(theta.clone()) for _ in range(2))
    tiles = TileGate((8, 12), 4, random(2, 3), shared)
    tiles.logits = {kind: (2 * logits).detach() for kind, logits in tiles.logits.items()}
    assert torch.equal(alone.results()["patterns"], theta)
    assert torch.equal(tiles.results()["patterns"], 2 * theta)


def test_the_pattern_prior_prefers_the_starts_pattern_and_those_that_share_a_weight_with_it():
    start = torch.tensor([[1, 0, 1, 0, 0, 1, 1, 0]]).bool()
    plain = pattern_logits("a", (1, 8), None, seed=1, matrix=2, std=0.01)
    shifted = pattern_logits("a", (1, 8), start, seed=1, matrix=2, std=0.01)
    shift = (shifted - plain) / (3 * plain.std())
    expected = [[[0, 1, 0, 0, -1, 0], [0, 0, -1, 1, 0, 0]]]
    torch.testing.assert_close(shift, torch.tensor(expected, dtype=torch.float32), rtol=1e-3, atol=1e-3)
    wide = pattern_logits("a", (200, 80), None, seed=1, matrix=2, std=0.01)
    assert float(wide.std()) == pytest.approx(0.01, rel=0.02)


def test_a_matrix_that_four_does_not_divide_is_refused_by_name():
    with pytest.raises(UserError, match=r"model\.q\.weight has 6 inputs"):
        pattern_logits("model.q.weight", (2, 6), None, 0, 0, 0.01)


def test_the_tile_prior_lifts_the_tiles_that_the_start_keeps_densest():
    starts = [random(10, 12, seed=1) > 0.2, random(7, 5, seed=2) > -0.3]
    shapes = [tuple(start.shape) for start in starts]
    plain = torch.cat([t.flatten() for t in tile_logits(shapes, 4, None, 0.7, seed=3)])
    lifted = torch.cat([t.flatten() for t in tile_logits(shapes, 4, starts, 0.7, seed=3)])
    shares = [
        float(start[i : i + 4, j : j + 4].double().mean())
        for start in starts
        for i in range(0, start.shape[0], 4)
        for j in range(0, start.shape[1], 4)
    ]
    order = sorted(range(len(shares)), key=lambda tile: -shares[tile])
    expected = torch.full((len(shares),), -3.0)
    expected[order[: round(2 * len(shares) * 0.2)]] = 3.0
    torch.testing.assert_close((lifted - plain) / plain.std(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("learned", [False, True])
def test_a_tile_mask_is_dense_where_its_tile_is_and_follows_the_2_4_mask_elsewhere(learned):
    theta, patterns = 0.05 * random(2, 3), 0.02 * random(10, 5, 6)
    sparse = PatternGate(patterns.clone()) if learned else two_four(10, 20)
    noise = Noise(CPU, 0, 1, 2)
    logistic = noise.logistic(2, 3)
    oracle = (
        pattern_oracle(patterns.double(), noise.gumbel(6, 10, 5).movedim(0, -1), 300.0, 0.7)
        if learned
        else sparse.double()
    )
    mask = TileGate((10, 20), 8, theta.clone(), sparse).mask(Noise(CPU, 0, 1, 2), Relaxation(90.0, 0.7, 300.0))
    expected = tile_oracle(theta.double(), logistic, 90.0, 0.7, (10, 20), 8, oracle)
    torch.testing.assert_close(mask.double(), expected, rtol=1e-4, atol=1e-6)


def build(case, tiny_llama, tokens):
    """The trainer of a case from random logits."""
    module, options, sparsity = CASES[case]
    model = tiny_llama(blocks=1)
    start = {name: two_four(*weight.shape, seed=5) for name, weight in prunable(model).items()}
    trainer = module.trainer(Job(model, options, Fraction(sparsity), 1, tokens[:4], pattern_start=start))
    for number, leaf in enumerate(trainer.optimizer.parameters):
        leaf.data.copy_(0.03 * random(*leaf.shape, seed=number))
    return trainer, start


def oracle_loss(case, trainer, start, model, leaves, tokens, t):
    """(L_LM, density term, norm term) at step t in float64, from baselines.md's formulas."""
    _, options, sparsity = CASES[case]
    p = t / (STEPS - 1)
    tau = 4 + (0.05 - 4) * p
    kappa = options.kappa_start + (options.kappa_end - options.kappa_start) * p
    pattern_kappa = 100 + 400 * p
    masked, total, count, norms, dense_norms, squares, at = {}, 0.0, 0, 0.0, 0.0, 0.0, iter(leaves)
    for index, (name, weight) in enumerate(prunable(model).items()):
        noise, shape = Noise(CPU, 1, t, index), tuple(weight.shape)
        if case == "maskllm":
            theta = next(at)
            mask = pattern_oracle(*patterns_last(theta, noise.gumbel(*theta.shape)), pattern_kappa, tau)
        else:
            theta = next(at)
            logistic = noise.logistic(*theta.shape)
            sparse = start[name].double()
            if case == "joint":
                patterns = next(at)
                sparse = pattern_oracle(*patterns_last(patterns, noise.gumbel(*patterns.shape)), pattern_kappa, tau)
            mask = tile_oracle(theta, logistic, kappa, tau, shape, 8, sparse)
        masked[name] = weight * mask
        total, count = total + mask.sum(), count + mask.numel()
        norms, squares = norms + (masked[name] ** 2).sum().sqrt(), squares + (masked[name] ** 2).sum()
        dense_norms += (weight**2).sum().sqrt()
    log_p = functional_call(model, masked, (tokens,)).logits[:, :-1].log_softmax(dim=-1)
    loss_lm = -log_p.gather(2, tokens[:, 1:, None]).mean()
    left = 1 - t / STEPS
    if case == "maskllm":
        return loss_lm, 0 * total, -options.norm_weight * left * squares
    distance = (total / count - float(1 - Fraction(sparsity))).abs()
    return loss_lm, options.density_weight * distance, -options.norm_weight * left * norms / dense_norms


@pytest.mark.parametrize("t", [0, 5])
@pytest.mark.parametrize("case", CASES)
def test_a_steps_loss_and_gradient_are_those_of_the_papers_formula(case, t, tiny_llama, tokens):
    trainer, start = build(case, tiny_llama, tokens)
    leaves = [leaf.detach().double().requires_grad_(True) for leaf in trainer.optimizer.parameters]
    caught, update = [], trainer.optimizer.step

    def catch(*arguments):
        caught.extend(leaf.grad.clone() for leaf in trainer.optimizer.parameters)
        update(*arguments)

    trainer.optimizer.step = catch
    row = trainer.step(t)
    terms = oracle_loss(case, trainer, start, tiny_llama(blocks=1).double(), leaves, tokens[:4], t)
    values = [float(term.detach()) for term in terms]
    assert [row["loss_lm"], row["density_term"], row["norm_term"]] == pytest.approx(values, rel=1e-4, abs=1e-6)
    for found, expected in zip(caught, torch.autograd.grad(sum(terms), leaves), strict=True):
        assert (found.double() - expected).norm() < 2e-4 * expected.norm()
        assert expected.norm() > 0


@pytest.mark.parametrize("case", CASES)
def test_the_logged_hard_density_is_that_of_the_mask_that_the_logits_mean(case, tiny_llama, tokens):
    trainer, _ = build(case, tiny_llama, tokens)
    row = trainer.step(0)
    cold = Relaxation(1e6, 1e-6, 1e6)
    masks = [layer.gate.mask(Quiet(), cold).detach() for layer in trainer.layers]
    kept, numel = (sum(float(part) for part in map(f, masks)) for f in (torch.sum, torch.numel))
    assert row["density_hard"] == pytest.approx(kept / numel, rel=1e-6)


def test_a_prior_within_each_matrix_is_that_of_each_alone():
    shapes, starts = [(8, 8), (4, 12)], [torch.rand(8, 8) > 0.5, torch.rand(4, 12) > 0.4]
    plain, lifted = (tile_logits(shapes, 4, given, 0.75, seed=3, per_matrix=True) for given in (None, starts))
    for before, after, start in zip(plain, lifted, starts, strict=True):
        kept = [float(tile.float().mean()) for row in start.split(4) for tile in row.split(4, dim=1)]
        dense = sorted(range(len(kept)), key=lambda index: -kept[index])[: round(len(kept) * 0.5)]
        push = torch.full((len(kept),), -1.0).index_fill(0, torch.tensor(dense), 1.0) * 3 * before.std()
        torch.testing.assert_close(after.flatten(), before.flatten() + push)


def test_a_start_without_a_draw_is_the_prior_alone():
    start = torch.tensor([[True, True, False, False, False, True, False, True]])
    theta = pattern_logits("a", (1, 8), start, seed=1, matrix=2, std=0.01, draw=False)
    size = 3 * pattern_logits("a", (1, 8), None, seed=1, matrix=2, std=0.01).std()
    overlap = (
        start.view(1, 2, 4).float()
        @ torch.tensor([[k in pair for k in range(4)] for pair in combinations(range(4), 2)]).float().T
    )
    torch.testing.assert_close(theta, size * (overlap - 1))


class Quiet(Noise):
    """No noise at all."""

    def __init__(self):
        super().__init__(CPU, 0, 0, 0)

    def _uniform(self, shape):
        return torch.full(shape, 0.5)


@pytest.mark.parametrize("case", CASES)
def test_a_cell_holds_what_hardening_needs_and_says_its_pattern(case, tiny_llama, tokens):
    module, options, sparsity = CASES[case]
    model = tiny_llama(blocks=1)
    start = {name: two_four(*weight.shape, seed=5) for name, weight in prunable(model).items()}
    short = type(options)(**{**vars(options), "steps": 1})
    cell = module.METHOD.prune_cell(Job(model, short, Fraction(sparsity), 0, tokens, start, start))
    kinds = {"maskllm": {"patterns"}, "tile": {"tiles", "keep"}, "joint": {"tiles", "patterns"}}[case]
    assert set(cell.tensors) == {f"{name}.{kind}" for name in start for kind in kinds}
    pattern, scope = ("2:4", "tensor") if case == "maskllm" else ("2:4+dense-tiles-8", "tiles")
    assert cell.facts == {"pattern": pattern, "budget_scope": scope, "noise_source": "generator"}


@pytest.mark.parametrize(("case", "sparsity"), [("maskllm", "0.6"), ("maskllm", "0.45"), ("tile", "0.6")])
def test_a_sparsity_that_2_4_cannot_give_is_refused(case, sparsity, tiny_llama, tokens):
    module, options, _ = CASES[case]
    with pytest.raises(UserError, match=sparsity):
        module.METHOD.prune_cell(Job(tiny_llama(blocks=1), options, Fraction(sparsity), 0, tokens))


def test_tiles_without_a_2_4_mask_and_a_size_that_cuts_groups_are_refused(tiny_llama, tokens):
    with pytest.raises(UserError, match="--pattern-start"):
        patch.METHOD.prune_cell(Job(tiny_llama(blocks=1), patch.Options(**COMMON), Fraction("0.45"), 0, tokens))
    with pytest.raises(UserError, match="tile is 6; it must be a multiple of 4"):
        load_method("patch", {"tile": 6})
