"""ELSA against a loop of its own in float64, with x, z and u apart; its projection against every subset there is."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from torch.func import functional_call

from leap_repro.errors import UserError
from leap_repro.models.cell import apply_cell
from leap_repro.models.prunable import prunable_linears
from leap_repro.pipeline.stages.harden import main as harden
from leap_repro.pipeline.stages.harden import parser as harden_parser
from leap_repro.portable.install import portable_kernels
from leap_repro.prune.job import Job
from leap_repro.prune.layerwise.select import drop_smallest
from leap_repro.prune.learned.surrogate_free import SplitLinear
from leap_repro.prune.methods import elsa
from leap_repro.sparsity.pruned import PrunedFolder
from leap_repro.store.artifacts import Artifact, writing

SETTINGS = {"batch_size": 4, "micro_batch_size": 2, "learning_rate": 0.01, "gradient_clip": 0.5}
CYCLES = {"steps": 10, "interval": 3, "penalty": 0.5}
SPARSITY = Fraction("0.6")
KINDS = {
    "fisher": {},
    "euclidean": {"projection": "euclidean"},
    "linear": {"penalty_schedule": "linear"},
    "cosine": {"penalty_schedule": "cosine", "weight_decay": 0.1},
}


class Killed(Exception):
    """What ends a training from outside in these tests."""


@pytest.fixture
def trainer(tiny_llama, tokens):
    """(options) -> a trainer on a one-block model."""

    def build(dtype=torch.float32, sparsity=SPARSITY, **options):
        given = elsa.Options(**(SETTINGS | CYCLES | options))
        return elsa.trainer(Job(tiny_llama(blocks=1, dtype=dtype), given, Fraction(sparsity), 3, tokens))

    return build


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def largest(scores, drop):
    """A mask of all but the `drop` smallest, by a whole sort in Python."""
    flat = scores.flatten().tolist()
    keep = torch.ones(len(flat), dtype=torch.bool)
    keep[sorted(range(len(flat)), key=flat.__getitem__)[:drop]] = False
    return keep.view(scores.shape)


def penalties(options):
    """lambda of every step, as the page says it."""
    rounds = math.ceil(options.steps / options.interval)
    shares = [(step // options.interval + 1) / rounds for step in range(options.steps)]
    shapes = {"constant": lambda s: 1.0, "linear": lambda s: s, "cosine": lambda s: (1 - math.cos(math.pi * s)) / 2}
    return [options.penalty * shapes[options.penalty_schedule](share) for share in shares]


def oracle(model, batches, options, drop_count):
    """x, z and u after the batches, float64 by matrix: Adam by torch on the loss's clipped gradient and lambda (x - z +
    u), then z and u as the paper writes them."""
    x = {linear.name: linear.weight.detach().double().requires_grad_() for linear in prunable_linears(model)}
    drops = {name: drop_count("0.6", weight.numel()) for name, weight in x.items()}
    z = {name: weight.detach() * largest(weight.abs(), drops[name]) for name, weight in x.items()}
    u = {name: torch.zeros_like(weight) for name, weight in x.items()}
    optimizer = torch.optim.AdamW(x.values(), betas=(0.9, 0.95), weight_decay=options.weight_decay, eps=1e-8)
    model, penalty = model.double(), penalties(options)
    for number, batch in enumerate(batches):
        scores = functional_call(model, x, (batch,)).logits[:, :-1].log_softmax(-1)
        optimizer.zero_grad()
        (-scores.gather(-1, batch[:, 1:, None]).mean()).backward()
        torch.nn.utils.clip_grad_norm_(x.values(), options.gradient_clip)
        for name, weight in x.items():
            weight.grad += penalty[number] * (weight.detach() - z[name] + u[name])
        optimizer.param_groups[0]["lr"] = options.rate(number)
        optimizer.step()
        done = number + 1
        if done % options.interval or done == options.steps:
            continue
        for name, weight in x.items():
            fisher = optimizer.state[weight]["exp_avg_sq"] if options.projection == "fisher" else torch.tensor(1.0)
            total = weight.detach() + u[name]
            z[name] = total * largest(fisher * total**2, drops[name])
            u[name] = (u[name] + weight.detach() - z[name]) * penalty[number] / penalty[done]
    return {name: weight.detach() for name, weight in x.items()}, z, u


def test_cycles_of_x_z_and_u_are_those_of_float64(kind, trainer, tiny_llama, tokens, drop_count):
    """Ten steps with a projection after the third, the sixth and the ninth."""
    ours = trainer(**kind)
    batches = [tokens[torch.cat(ours._micro_batches(number))] for number in range(10)]
    rows = [ours.step(number) for number in range(10)]
    x, z, u = oracle(tiny_llama(blocks=1), batches, ours.options, drop_count)
    changed = [number for number in range(10) if rows[number]["changed"] > 0]
    assert set(changed) <= {2, 5, 8}
    assert changed
    for layer in ours.layers:
        name, masked = layer.linear.name, layer.target * layer.keep
        assert torch.equal(layer.keep, z[name] != 0)
        for found, expected in ((layer.leaves["values"], x), (masked, z), (masked - layer.target, u)):
            torch.testing.assert_close(found.detach().double(), expected[name], rtol=0, atol=2e-5)
        assert u[name].abs().max() > 1e-2


def test_the_penalty_in_the_log_is_lambda_half_the_squared_distance(trainer):
    ours = trainer(penalty_schedule="linear")
    for number in range(5):
        values = [layer.leaves["values"].detach().double() for layer in ours.layers]
        apart = sum(float((x - layer.target).square().sum()) for x, layer in zip(values, ours.layers, strict=True))
        row = ours.step(number)
        expected = penalties(ours.options)[number]
        assert row["penalty"] == pytest.approx(expected)
        assert row["loss"] - row["loss_lm"] == pytest.approx(expected / 2 * apart, rel=1e-5)


@pytest.mark.parametrize("interval", [3, 32])
def test_without_penalty_x_is_trained_alone(interval, trainer, tiny_llama, tokens):
    """As by torch's Adam on the dense model, whatever z and u do meanwhile."""
    ours = trainer(penalty=0.0, interval=interval)
    batches = [tokens[torch.cat(ours._micro_batches(number))] for number in range(8)]
    with portable_kernels():  # Adam divides by a gradient's size: what rounds a tiny one is then the same everywhere
        for number in range(8):
            ours.step(number)
    model = tiny_llama(blocks=1).double()
    x = [linear.weight.requires_grad_() for linear in prunable_linears(model)]
    optimizer = torch.optim.Adam(x, betas=(0.9, 0.95), eps=1e-8)
    for number, batch in enumerate(batches):
        optimizer.zero_grad()
        scores = model(batch).logits[:, :-1].log_softmax(-1)
        (-scores.gather(-1, batch[:, 1:, None]).mean()).backward()
        torch.nn.utils.clip_grad_norm_(x, 0.5)
        optimizer.param_groups[0]["lr"] = ours.options.rate(number)
        optimizer.step()
    for layer, expected in zip(ours.layers, x, strict=True):
        torch.testing.assert_close(layer.leaves["values"].detach().double(), expected.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_a_projection_is_the_nearest_of_all_sparse_points(seed):
    """Of a matrix of ten weights, four of which stay: by the sum of squares, each with its weight, over all subsets."""
    generator = torch.Generator().manual_seed(seed)
    weight, sizes = torch.randn(2, 5, generator=generator), torch.rand(2, 5, generator=generator) * 3
    linear = SimpleNamespace(weight=weight, name="a matrix")
    layer = SplitLinear(linear, lambda scores: drop_smallest(scores, 6))
    layer.target = layer.target - torch.randn(2, 5, generator=generator) * ~layer.keep
    u = layer.target * layer.keep - layer.target
    total = (weight + u).double()

    def distance(subset):
        z = torch.zeros(10, dtype=torch.float64)
        z[list(subset)] = total.flatten()[list(subset)]
        return float((sizes.double() ** 2 * (z.view(2, 5) - total) ** 2).sum())

    nearest = min(itertools.combinations(range(10), 4), key=distance)
    layer.project(sizes, rescale=1.0)
    assert layer.keep.flatten().nonzero().flatten().tolist() == list(nearest)
    torch.testing.assert_close(layer.target.double(), total * layer.keep - total * ~layer.keep, rtol=1e-6, atol=0)


def test_weights_that_no_gradient_reached_are_projected_by_size(trainer):
    """Every second moment is 0, and the order is that of |x|, not of positions."""
    ours = trainer()
    layer = ours.layers[0]
    ours.optimizer.second[0].tensors[""].zero_()
    layer.finish(ours._sizes(0, 5))
    begun = trainer().layers[0]
    assert torch.equal(layer.keep, begun.keep)
    assert int((~layer.keep).sum()) == round(SPARSITY * layer.keep.numel())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sparsity", ["0", "0.37", "0.6", "0.95"])
def test_every_matrix_keeps_its_share_of_x_and_the_rest_is_the_models(sparsity, dtype, trainer, tiny_llama, drop_count):
    ours, before = trainer(dtype, sparsity), tiny_llama(blocks=1, dtype=dtype).state_dict()
    trained = {}
    finish = SplitLinear.finish
    for layer in ours.layers:
        layer.finish = lambda sizes, layer=layer: (
            trained.update({layer.linear.name: layer.leaves["values"].detach().clone()}),
            finish(layer, sizes),
        )
    cell = ours.train({"pattern": "unstructured", "budget_scope": "tensor"})
    names = [layer.linear.name for layer in ours.layers]
    assert set(cell.tensors) == {f"{name}.{what}" for name in names for what in ("keep", "values")}
    for name in names:
        keep, values = cell.tensors[f"{name}.keep"], cell.tensors[f"{name}.values"]
        assert int((~keep).sum()) == drop_count(sparsity, keep.numel())
        assert torch.equal(values, (trained[name] * keep).to(dtype))
        assert not values[~keep].count_nonzero()
        assert (values != before[name])[keep].any()
    for name, tensor in ours.model.state_dict().items():
        assert name in names or torch.equal(tensor, before[name])


def test_the_penalty_brings_x_near_to_its_projection(trainer):
    """What the last projection drops is a smaller share of x the heavier the penalty."""
    shares = []
    for penalty in (0.0, 0.01, 0.1):
        ours = trainer(penalty=penalty, steps=100, interval=5)
        ours.run(None)
        weights = [layer.leaves["values"].detach() for layer in ours.layers]
        dropped = sum(float((x * ~layer.keep).square().sum()) for x, layer in zip(weights, ours.layers, strict=True))
        shares.append(dropped / sum(float(x.square().sum()) for x in weights))
    assert shares[2] < shares[1] < shares[0]


@pytest.mark.parametrize("more", [{}, {"state_dtype": "int8"}, {"penalty_schedule": "linear"}])
def test_a_killed_training_ends_with_the_bits_of_an_undisturbed_one(more, trainer, tmp_path):
    """Killed in step 24, between the projections after 20 and 28, with a checkpoint after step 22."""
    options = {"steps": 40, "interval": 4, "checkpoint_every": 2} | more
    undisturbed = trainer(**options).train({})
    stopped, passes = trainer(**options), []

    def kill(*_):
        passes.append(1)
        if len(passes) == 2 * 23 + 1:
            raise Killed

    stopped.model.register_forward_pre_hook(kill)
    with pytest.raises(Killed):
        stopped.run(tmp_path)
    resumed, taken = trainer(**options), []
    for layer in resumed.layers:  # none of what it starts with is what it goes on from
        layer.leaves["values"].data.add_(0.1)
        layer.target.add_(0.1)
        layer.keep.logical_not_()
    resumed.model.register_forward_pre_hook(lambda *_: taken.append(1))
    resumed.checkpoints = tmp_path
    found = resumed.train({})
    assert len(taken) == 2 * (40 - 22)
    assert found.log == undisturbed.log
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in undisturbed.tensors.items())


def test_recomputed_activations_give_the_same_bits(trainer):
    rows = [trainer(gradient_checkpointing=again).run(None) for again in (False, True)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("state", ["float32", "bfloat16"])
def test_what_lasts_is_as_declared(state, dtype, trainer):
    """Every tensor of the state and a gradient, in bytes per weight; float32 weights are the model's own."""
    ours = trainer(dtype, state_dtype=state)
    numel = sum(layer.keep.numel() for layer in ours.layers)
    held = sum(tensor.nbytes for name, tensor in ours._state(1).items() if name != "log") + 4 * numel
    own = 4 * numel if dtype == torch.float32 else 0
    assert (held - own) / numel == ours.options.lasting_bytes(dtype.itemsize, 16)
    shared = {layer.leaves["values"].data_ptr() == layer.linear.weight.data_ptr() for layer in ours.layers}
    assert shared == {dtype == torch.float32}


def test_its_cell_is_hardened_to_its_budget_and_computes_what_was_trained(trainer, tiny_llama, tokens, tmp_path):
    ours = trainer()
    cell = ours.train(dict(ours.options.facts))
    with writing(tmp_path / "pruned", {}) as (payload, facts):
        store = PrunedFolder(payload)
        store.write("pruned", cell.tensors)
        facts |= cell.facts | {"sparsity": "0.6", "seed": 3, "tokens_sha256": None, "tensors": store.finish()}
    places = ["--pruned", tmp_path / "pruned", "--output", tmp_path / "hard", "--cell", "m/elsa/0.6/3"]
    harden(harden_parser().parse_args([str(place) for place in places]))
    hard, model = Artifact.read(tmp_path / "hard"), tiny_llama(blocks=1)
    assert apply_cell(model, hard) == hard.facts["kept"]
    assert (hard.facts["budget_scope"], hard.facts["pattern"]) == ("tensor", "unstructured")
    assert torch.equal(model(tokens).logits, ours.model(tokens).logits)


def test_a_rising_penalty_is_above_zero_from_the_first_step_and_whole_at_the_last():
    for schedule in ("linear", "cosine"):
        options = elsa.Options(steps=100, interval=32, penalty=0.2, penalty_schedule=schedule)
        found = [options.penalty_at(step) for step in range(100)]
        assert found == pytest.approx(penalties(options))
        assert found == sorted(found)
        assert len(set(found)) == 4
        assert (found[0] > 0, found[-1]) == (True, pytest.approx(0.2))


def test_several_processes_are_refused(trainer, refused, monkeypatch):
    monkeypatch.setattr("leap_repro.prune.learned.processes.count", lambda: 2)
    with refused("elsa trains in one process"):
        trainer()


def test_a_training_that_diverges_is_refused(trainer):
    ours = trainer(gradient_clip=0.0)
    ours.options = ours.options.model_copy(update={"learning_rate": 1e30})  # more than one may ask for
    with pytest.raises(UserError, match="has diverged"):
        ours.run(None)
