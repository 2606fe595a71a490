"""Recovery against AdamW on float64 autograd through M * W, or M * (W + BA): what it trains, what it never touches."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch.func import functional_call

from leap_repro.errors import UserError
from leap_repro.models.cell import apply_cell
from leap_repro.models.prunable import prunable_linears
from leap_repro.pipeline.stages.harden import main as harden
from leap_repro.pipeline.stages.harden import parser as harden_parser
from leap_repro.prune.job import Job, Parent
from leap_repro.prune.methods import declaration, recover
from leap_repro.sparsity.pruned import PrunedFolder
from leap_repro.store.artifacts import MASK_FILE, Artifact, writing

STEPS = 40
SETTINGS = {"steps": STEPS, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 0.01, "gradient_clip": 0.5}
KINDS = {"full": {}, "pairs": {"lora_rank": 3, "lora_alpha": 6.0}}


class Killed(Exception):
    """What ends a training from outside in these tests."""


@pytest.fixture
def parent(tiny_llama):
    """(dtype) -> a cell with a random mask of 60 %, whose values of one matrix are twice the model's."""

    def build(dtype=torch.float32, sparsity="0.6"):
        generator = torch.Generator().manual_seed(11)
        weights = {linear.name: linear.weight for linear in prunable_linears(tiny_llama(blocks=1, dtype=dtype))}
        masks = {name: torch.rand(weight.shape, generator=generator) > 0.6 for name, weight in weights.items()}
        moved = next(name for name in weights if "up_proj" in name)
        values = {moved: 2 * weights[moved][masks[moved]]}
        promises = {"pattern": "unstructured", "budget_scope": "none"}
        return Parent("m/wanda/0.6/0", masks, values, promises, sparsity, "a digest")

    return build


@pytest.fixture
def trainer(tiny_llama, tokens, parent):
    """(options) -> a trainer on a one-block model."""

    def build(dtype=torch.float32, **options):
        given = recover.Options(**(SETTINGS | options))
        model = tiny_llama(blocks=1, dtype=dtype)
        return recover.trainer(Job(model, given, Fraction("0.6"), 3, tokens, parent=parent(dtype)))

    return build


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def starts(model, parent):
    """Each matrix's parent's weights, float64, zeros and all."""
    found = {}
    for linear in prunable_linears(model):
        keep, weight = parent.masks[linear.name], linear.weight.detach().double()
        moved = parent.values.get(linear.name)
        found[linear.name] = weight * keep if moved is None else torch.zeros_like(weight)
        if moved is not None:
            found[linear.name][keep] = moved.double()
    return found


def oracle(model, parent, batches, options, pairs):
    """AdamW by torch on the clipped gradient of float64 autograd; the matrices at its end."""
    begun, masks = starts(model, parent), parent.masks
    free = {name: start.clone().requires_grad_() for name, start in begun.items()}
    leaves = [leaf.double().requires_grad_() for leaf in pairs] if pairs else list(free.values())
    optimizer = torch.optim.AdamW(leaves, betas=(0.9, 0.95), weight_decay=options.weight_decay, eps=1e-8)

    def weights():
        if not pairs:
            return {name: masks[name] * leaf for name, leaf in free.items()}
        scale = options.lora_alpha / options.lora_rank
        parts = zip(begun, leaves[::2], leaves[1::2], strict=True)
        return {name: begun[name] + masks[name] * (scale * b @ a) for name, a, b in parts}

    model = model.double()
    for number, batch in enumerate(batches):
        scores = functional_call(model, weights(), (batch,)).logits[:, :-1].log_softmax(-1)
        loss = -scores.gather(-1, batch[:, 1:, None]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(leaves, options.gradient_clip)
        optimizer.param_groups[0]["lr"] = options.rate(number)
        optimizer.step()
    return {name: weight.detach() for name, weight in weights().items()}


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_adams_on_the_gradient_of_float64(decay, kind, trainer, tiny_llama, tokens, parent):
    ours = trainer(weight_decay=decay, **kind)
    pairs = [leaf.detach().clone() for leaf in ours.optimizer.parameters] if kind else []
    batches = [tokens[torch.cat(ours._micro_batches(number))] for number in range(4)]
    for number in range(4):
        ours.step(number)
    for layer in ours.layers:
        layer.merge()
    expected = oracle(tiny_llama(blocks=1), parent(), batches, ours.options, pairs)
    for linear in prunable_linears(ours.model):
        torch.testing.assert_close(linear.weight.detach().double(), expected[linear.name], rtol=0, atol=5e-6)


def test_the_first_loss_is_that_of_the_parents_weights(kind, trainer, tiny_llama, tokens, parent):
    ours, model = trainer(**kind), tiny_llama(blocks=1)
    batch = tokens[torch.cat(ours._micro_batches(0))]
    weights = starts(model, parent())
    scores = functional_call(model.double(), weights, (batch,)).logits[:, :-1].log_softmax(-1)
    assert ours.step(0)["loss_lm"] == pytest.approx(float(-scores.gather(-1, batch[:, 1:, None]).mean()), rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"state_dtype": "int8", "weight_decay": 0.1}, {"gradient_clip": 0.0}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zeros_stay_and_the_mask_is_the_parents_and_the_rest_is_the_models(
    dtype, options, kind, trainer, tiny_llama, parent
):
    ours, before = trainer(dtype, **options, **kind), tiny_llama(blocks=1, dtype=dtype).state_dict()
    cell = ours.train({"pattern": "of the method", "budget_scope": "of the method"})
    assert cell.log[-1]["loss"] < cell.log[0]["loss"]
    masks = parent(dtype).masks
    assert set(cell.tensors) == {f"{name}.{what}" for name in masks for what in ("keep", "values")}
    for name, mask in masks.items():
        values = cell.tensors[f"{name}.values"]
        assert torch.equal(cell.tensors[f"{name}.keep"], mask)
        assert values.dtype == dtype
        assert not values[~mask].count_nonzero()
        assert (values[mask] != starts(tiny_llama(blocks=1, dtype=dtype), parent(dtype))[name][mask]).any()
    for name, tensor in ours.model.state_dict().items():
        assert name in masks or torch.equal(tensor, before[name])


def test_what_is_merged_is_what_was_trained(trainer, tokens):
    """W0 + M * scale BA of the pairs as they are at the end, and the very weights that the model computes with."""
    ours = trainer(lora_rank=3, lora_alpha=6.0)
    begun = {layer.linear.name: layer.linear.weight.detach().clone().double() for layer in ours.layers}
    cell = ours.train({})
    for layer in ours.layers:
        name, (a, b) = layer.linear.name, (leaf.detach().double() for leaf in layer.leaves.values())
        expected = begun[name] + layer.keep * (2.0 * b @ a)
        values = cell.tensors[f"{name}.values"]
        torch.testing.assert_close(values.double(), expected, rtol=0, atol=1e-6)
        assert torch.equal(values, layer.linear.weight)
    through_layers = ours.model(tokens).logits
    merged = {name.removesuffix(".values"): cell.tensors[name] for name in cell.tensors if name.endswith("values")}
    assert torch.equal(functional_call(ours.model, merged, (tokens,)).logits, through_layers)


def test_the_cell_says_whose_mask_it_is_and_what_it_cost(trainer):
    facts = trainer(lora_rank=3).train({"pattern": "2:4"}).facts
    cost = {"lora_rank": 3, "steps": STEPS, "tokens": STEPS * 4 * 12}
    assert facts["recovery"] == {"parent": "m/wanda/0.6/0", "parent_manifest_sha256": "a digest"} | cost
    assert (facts["pattern"], facts["budget_scope"]) == ("unstructured", "none")


@pytest.fixture
def hardened(tmp_path):
    """(cell, its name, sparsity) -> the hardened cell on disk."""

    def build(cell, name, sparsity):
        with writing(tmp_path / name / "pruned", {}) as (payload, facts):
            store = PrunedFolder(payload)
            store.write("pruned", cell.tensors)
            facts |= cell.facts | {"sparsity": sparsity, "seed": 0, "tokens_sha256": None, "tensors": store.finish()}
        places = ["--pruned", tmp_path / name / "pruned", "--output", tmp_path / name / "hard", "--cell", name]
        harden(harden_parser().parse_args([str(place) for place in places]))
        return Artifact.read(tmp_path / name / "hard")

    return build


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_a_2_4_cell_stays_one_and_its_mask_file_keeps_its_bytes(method, hardened, tiny_llama, tokens):
    """SparseGPT's cell hands over the values of what stays, Wanda's leaves the model's."""
    chosen, model = declaration(method), tiny_llama()
    options, half = chosen.options(pattern="2:4"), Fraction("0.5")
    parent = hardened(chosen.prune_cell(Job(model, options, half, 0, tokens)), method, "0.5")
    job = Job(tiny_llama(), recover.Options(**SETTINGS), half, 3, tokens, parent=Parent.of(parent))
    cell = hardened(recover.METHOD.prune_cell(job), "recover", "0.5")
    assert cell.files[MASK_FILE]["sha256"] == parent.files[MASK_FILE]["sha256"]
    assert (cell.facts["pattern"], cell.facts["budget_scope"]) == ("2:4", parent.facts["budget_scope"])
    assert cell.facts["recovery"]["parent_manifest_sha256"] == parent.manifest_sha256
    ours = tiny_llama()
    assert apply_cell(ours, cell) == cell.facts["kept"] == cell.facts["prunable"] // 2
    for linear in prunable_linears(ours):
        trained = next(layer.weight for layer in prunable_linears(job.model) if layer.name == linear.name)
        assert torch.equal(linear.weight, trained)


def test_a_cell_of_tiles_promises_the_nearest_number_of_them(trainer, parent):
    ours = trainer(steps=1)
    ours.parent.promises["neighbours"] = [10, 20]
    assert ours.train({}).facts["neighbours"] == [10, 20]


def test_recomputed_activations_give_the_same_bits(kind, trainer):
    rows = [trainer(gradient_checkpointing=again, **kind).run(None)[:6] for again in (False, True)]
    assert rows[0] == rows[1]


def test_a_killed_recovery_ends_with_the_bits_of_an_undisturbed_one(kind, trainer, tmp_path):
    undisturbed, again = trainer(**kind).train({}), trainer(**kind).train({})
    stopped, passes = trainer(**kind), []

    def kill(*_):
        passes.append(1)
        if len(passes) == 2 * 21:
            raise Killed

    stopped.model.register_forward_pre_hook(kill)
    with pytest.raises(Killed):
        stopped.run(tmp_path)
    resumed, taken = trainer(**kind), []
    for leaf in resumed.optimizer.parameters:
        leaf.data.add_(0.1)
    resumed.model.register_forward_pre_hook(lambda *_: taken.append(1))
    resumed.checkpoints = tmp_path
    found = resumed.train({})
    assert len(taken) == 2 * (STEPS - 20)
    for other in (again, found):
        assert other.log == undisturbed.log
        assert all(torch.equal(other.tensors[name], tensor) for name, tensor in undisturbed.tensors.items())


def test_a_zero_that_came_alive_is_refused(trainer, refused):
    ours = trainer(steps=1, micro_batch_size=4)
    layer = ours.layers[2]
    with torch.no_grad():
        layer.leaves["values"].masked_fill_(~layer.keep, 1e-3)
    with refused(layer.linear.name, "its mask drops and that are not 0"):
        ours.train({})


def test_a_parent_of_another_sparsity_or_model_or_none_is_refused(tiny_llama, tokens, parent, refused):
    def start(blocks, **given):
        recover.trainer(
            Job(tiny_llama(blocks=blocks), recover.Options(**SETTINGS), Fraction("0.6"), 3, tokens, **given)
        )

    with refused("needs a parent"):
        start(1)
    with refused("m/wanda/0.6/0", "another model"):
        start(2, parent=parent())
    with refused("m/wanda/0.6/0", "sparsity 0.5", "must be 0.6"):
        start(1, parent=parent(sparsity="0.5"))


def test_several_processes_are_refused(trainer, refused, monkeypatch):
    monkeypatch.setattr("leap_repro.prune.learned.processes.count", lambda: 2)
    with refused("recover trains in one process"):
        trainer()


def test_a_training_that_diverges_is_refused(trainer):
    ours = trainer(gradient_clip=0.0)
    ours.options = ours.options.model_copy(update={"learning_rate": 1e30})  # more than one may ask for
    with pytest.raises(UserError, match="has diverged"):
        ours.run(None)


def test_the_pairs_start_is_drawn_from_the_seed_and_changes_nothing(trainer, tiny_llama, parent):
    ours = trainer(lora_rank=4)
    begun = starts(tiny_llama(blocks=1), parent())
    for layer in ours.layers:
        layer.merge()
        a, b = layer.leaves.values()
        assert torch.equal(layer.linear.weight.double(), begun[layer.linear.name])
        assert not b.count_nonzero()
        assert a.detach().std().item() == pytest.approx(1 / math.sqrt(3 * a.shape[1]), rel=0.4)
    others = [layer.leaves["a"] for layer in ours.layers if layer.linear.weight.shape[1] == 16]
    assert len({tuple(a.flatten().tolist()) for a in others}) == len(others)


def test_after_a_first_batch_come_the_sequences_that_the_steps_before_it_did_not_read(trainer, tokens):
    """A mask trained on the first half of the stream, its weights on the second: every sequence once."""
    steps = len(tokens) // 4
    sizes = {"steps": steps, "batch_size": 2, "micro_batch_size": 1}
    read = []
    for first in (0, steps):
        training = trainer(**sizes, first_batch=first)
        for step in range(steps):
            read += torch.cat(training._micro_batches(step)).tolist()
    assert sorted(read) == list(range(len(tokens)))
