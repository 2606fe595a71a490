"""Scores made for a few tokens at a time are the model's, whatever its head does, and so are loss and gradient."""

from __future__ import annotations

import logging

import pytest
import torch
from families import SMALL, SUPPORTED, tiny
from transformers import CohereConfig, CohereForCausalLM

from leap_repro.models.head import Head
from leap_repro.models.prunable import prunable_linears
from leap_repro.prune.learned import declaration
from leap_repro.prune.learned.loss import LanguageLoss

HEADS = {
    "squashed": ("gemma2", {"final_logit_softcapping": 2.0}),
    "divided": ("granite", {"logits_scaling": 8.0}),
    "multiplied": ("cohere", {"logit_scale": 0.25}),
}
CASES = {family: (family, {}) for family in SUPPORTED} | HEADS
TOKENS = torch.randint(3, 60, (2, 11), generator=torch.Generator().manual_seed(0))


def build(case):
    family, changes = CASES[case]
    if family in SUPPORTED:
        return tiny(family, **changes)
    torch.manual_seed(0)
    return CohereForCausalLM(CohereConfig(**SMALL | changes)).eval().requires_grad_(False)


def loss_and_slope(model, tokens_at_once, monkeypatch):
    """The loss, and its gradient at the first prunable matrix, with the scores of so many tokens at a time."""
    vocabulary = model.get_input_embeddings().num_embeddings
    monkeypatch.setitem(declaration.SCORES_AT_ONCE, "cpu", tokens_at_once * vocabulary)
    loss = LanguageLoss(model, TOKENS.numel())
    assert (loss.head is None) == (tokens_at_once >= TOKENS.numel())
    leaf = prunable_linears(model)[0].module.weight.requires_grad_(True)
    found = loss(TOKENS)
    return float(found.detach()), torch.autograd.grad(3 * found, leaf)[0]


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_in_parts_are_those_of_the_whole(case, monkeypatch):
    model = build(case)
    whole, slope = loss_and_slope(model, TOKENS.numel(), monkeypatch)
    for tokens_at_once in (1, 7):
        found, found_slope = loss_and_slope(model, tokens_at_once, monkeypatch)
        assert found == pytest.approx(whole, rel=1e-6)
        torch.testing.assert_close(found_slope, slope, rtol=0, atol=3e-6 * float(slope.abs().max()))


@pytest.mark.parametrize("case", HEADS)
def test_a_head_does_what_this_test_says_it_does(case):
    """Or the test above would show nothing."""
    model = build(case)
    states = model.model(TOKENS).last_hidden_state
    assert not torch.allclose(model.lm_head(states), model(TOKENS).logits, rtol=0.1)


def test_no_scores_of_all_tokens_are_made(monkeypatch):
    model, seen = tiny("llama"), []
    model.lm_head.register_forward_hook(lambda module, given, output: seen.append(output.numel()))
    monkeypatch.setitem(declaration.SCORES_AT_ONCE, "cpu", 5 * model.config.vocab_size)
    loss = LanguageLoss(model, TOKENS.numel())
    seen.clear()
    loss(TOKENS)
    assert max(seen) == 5 * model.config.vocab_size


def test_a_head_that_looks_at_neighbours_is_left_whole_and_said_so(caplog):
    model = tiny("llama")
    project = model.lm_head.forward
    model.lm_head.forward = lambda states: project(states - states.mean(dim=1, keepdim=True))
    with caplog.at_level(logging.WARNING):
        assert Head.of(model) is None
    assert "LlamaForCausalLM: scores over the vocabulary are computed at once" in caplog.text


def test_a_model_that_wants_more_of_its_backbone_is_left_whole(caplog):
    model = tiny("llama")
    forward = model.forward

    def greedy(*args, **kwargs):
        output = forward(*args, **kwargs)
        model.model.forward(*args, **kwargs).past_key_values.get_seq_length()
        return output

    model.forward = greedy
    with caplog.at_level(logging.WARNING):
        assert Head.of(model) is None
