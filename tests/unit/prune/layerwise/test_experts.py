"""Experts of a mixture are calibrated on the tokens routed to them, or on all, and never on none."""

from fractions import Fraction

import pytest
import torch
from families import VOCABULARY, tiny

from leap_repro.checked import checked
from leap_repro.models.experts import is_experts
from leap_repro.models.prunable import decoder_blocks, prunable_linears
from leap_repro.models.walker import walk_blocks
from leap_repro.prune.job import Job
from leap_repro.prune.layerwise.statistics import InputStatistics
from leap_repro.prune.methods import admm, optima, sparsegpt, thanos, wanda

FAMILIES = ("mixtral", "qwen3_moe", "gpt_oss")


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(3, VOCABULARY, (4, 16), generator=torch.Generator().manual_seed(2))


def by_hand(experts, hidden, chosen, all_tokens):
    """Each expert's inputs, [tokens, in], written from the parameters: {(expert, part): rows}."""
    found = {}
    for index in range(len(experts.down_proj)):
        routed = (chosen == index).any(dim=1)
        x = hidden if all_tokens else hidden[routed]
        first, bias = experts.gate_up_proj[index], getattr(experts, "gate_up_proj_bias", None)
        up = x @ (first if experts.is_transposed else first.T)
        up = up if bias is None else up + bias[index]
        found[index, "gate_proj"] = found[index, "up_proj"] = x
        found[index, "down_proj"] = experts._apply_gate(up)
    return found


@pytest.mark.parametrize("all_tokens", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_statistics_are_those_of_the_experts_own_inputs(family, all_tokens, tokens):
    model, seen = tiny(family), []
    experts = next(module for module in decoder_blocks(model)[1][0].modules() if is_experts(module))
    handle = experts.register_forward_pre_hook(lambda module, args: seen.append(args))
    model(tokens, use_cache=False)
    handle.remove()
    expected = by_hand(experts, seen[0][0], seen[0][1], all_tokens)
    linears, runner = next(walk_blocks(model, tokens, batch_size=4))
    statistics = {
        linear.name: InputStatistics(linear.module.in_features, torch.device("cpu"), True) for linear in linears
    }
    runner.collect({linear.module: statistics[linear.name] for linear in linears}, all_tokens)
    checked_experts = [linear for linear in linears if linear.is_expert]
    assert len(checked_experts) == len(expected)
    for linear in checked_experts:
        rows = expected[linear.module.expert, linear.module.part]
        assert statistics[linear.name].tokens == len(rows)
        torch.testing.assert_close(statistics[linear.name].gram, rows.T @ rows, rtol=1e-4, atol=1e-4)


def quiet_mixtral():
    """A Mixtral whose expert 3 of block 0 sees no token: its router's row is far below the others on every input."""
    model = tiny("mixtral")
    block = decoder_blocks(model)[1][0]
    block.mlp.gate.register_forward_pre_hook(lambda module, args: (args[0].abs(),))
    with torch.no_grad():
        block.mlp.gate.weight.copy_(torch.rand(4, 32, generator=torch.Generator().manual_seed(1)))
        block.mlp.gate.weight[3] = -1.0
    return model


@pytest.mark.parametrize("method", [wanda, sparsegpt, admm, thanos])
def test_an_expert_that_saw_no_token_is_refused_by_name(method, tokens, refused):
    job = Job(quiet_mixtral(), method.Options(), Fraction("0.5"), seed=0, tokens=tokens)
    with refused("model.layers.0.mlp.experts.3.gate_proj.weight", "saw 0", "expert_tokens"):
        method.METHOD.prune_cell(job)


@pytest.mark.parametrize("method", [wanda, sparsegpt])
def test_with_all_tokens_it_is_pruned_like_the_others(method, tokens):
    job = Job(quiet_mixtral(), method.Options(expert_tokens="all"), Fraction("0.5"), seed=0, tokens=tokens)
    masks = method.METHOD.prune_cell(job).tensors
    name = "model.layers.0.mlp.experts.3.down_proj.weight.keep"
    assert int(masks[name].sum()) * 2 == masks[name].numel()


def test_the_minimum_is_obeyed(tokens, refused):
    job = Job(tiny("mixtral"), wanda.Options(expert_minimum=10_000), Fraction("0.5"), seed=0, tokens=tokens)
    with refused("mlp.experts.0.gate_proj.weight", "expert_minimum is 10000"):
        wanda.METHOD.prune_cell(job)


def test_the_options_are_checked_like_any(refused):
    with refused("expert_tokens", "'routed' or 'all'"):
        checked(wanda.Options, {"expert_tokens": "some"}, "options of wanda")
    with refused("expert_minimum", "0"):
        checked(wanda.Options, {"expert_minimum": 0}, "options of wanda")
    assert "expert_tokens" not in optima.Options.model_fields


def test_a_dense_layer_that_is_not_reached_is_refused_and_not_zeroed(tokens, refused):
    """The probe saw it called; the calibration, whatever the reason, did not call it."""
    model = tiny("llama")
    prunable_linears(model)
    mlp = model.model.layers[1].mlp
    mlp.forward = lambda x: x
    job = Job(model, sparsegpt.Options(), Fraction("0.5"), seed=0, tokens=tokens)
    with refused("model.layers.1.mlp.gate_proj.weight (block 1) saw 0", "does not use it"):
        sparsegpt.METHOD.prune_cell(job)
