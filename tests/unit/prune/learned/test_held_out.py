"""Held-out evaluations during a training: their numbers are those of float64, and the training does not notice."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch.func import functional_call

from leap_repro.prune.job import Job
from leap_repro.prune.learned.gates import Noise
from leap_repro.prune.learned.held_out import COLUMNS, evaluated_steps
from leap_repro.prune.methods import leap

OPTIONS = {"steps": 10, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 0.02, "held_out_evaluations": 3}


@pytest.fixture
def trainer(tiny_llama, tokens):
    """(options) -> a fresh trainer of a tiny model, which is scored on the last eight sequences, trains on the rest."""

    def build(**options):
        given = leap.Options(**OPTIONS | options)
        return leap.trainer(Job(tiny_llama(), given, Fraction("0.6"), 1, tokens[:12], held_out=tokens[12:]))

    return build


def names_and_logits(ours):
    return {layer.linear.name: layer.gate.logits["logits"].detach().double() for layer in ours.layers}


def loss(tiny_llama, tokens, masks):
    """L_LM of the tiny model with these masks on the held-out tokens, in float64."""
    model = tiny_llama().double()
    weights = dict(model.named_parameters())
    masked = {name: weights[name] * mask.double() for name, mask in masks.items()}
    log_p = functional_call(model, masked, (tokens[12:],)).logits[:, :-1].log_softmax(-1)
    return -log_p.gather(2, tokens[12:, 1:, None]).mean().item()


def largest(logits, share):
    """The top share of all logits together, by a full sort."""
    flat = torch.cat([theta.flatten() for theta in logits.values()])
    count = len(flat) - round(Fraction(share) * len(flat))
    limit = flat.sort(descending=True).values[count - 1]
    return {name: theta >= limit for name, theta in logits.items()}


@pytest.mark.parametrize("hard", [False, True])
def test_an_evaluations_numbers_are_those_of_the_masks_in_float64(hard, trainer, tiny_llama, tokens):
    ours = trainer(hard=hard)
    before = None
    for number in range(4):
        row = ours.step(number)
        if row["held_out_topk"] == row["held_out_topk"]:
            before, previous = largest(names_and_logits(ours), "0.6"), before
    assert number == 3, "the second look is after the fourth step"
    logits = names_and_logits(ours)
    relaxation = ours.options.relaxation(3)
    noise = [
        Noise(torch.device("cpu"), 1, 13, index).logistic(*theta.shape) for index, theta in enumerate(logits.values())
    ]
    soft = {
        name: torch.sigmoid((relaxation.kappa * theta + draw.double()) / relaxation.tau)
        for (name, theta), draw in zip(logits.items(), noise, strict=True)
    }
    relaxed = {name: (gate > 0.5).double() for name, gate in soft.items()} if hard else soft
    numel = sum(theta.numel() for theta in logits.values())
    assert row["held_out_relaxed"] == pytest.approx(loss(tiny_llama, tokens, relaxed), rel=1e-5)
    assert row["held_out_topk"] == pytest.approx(loss(tiny_llama, tokens, before), rel=1e-5)
    positive = {name: theta > 0 for name, theta in logits.items()}
    assert row["held_out_threshold"] == pytest.approx(loss(tiny_llama, tokens, positive), rel=1e-5)
    undecided = sum(int(((gate > 0.1) & (gate < 0.9)).sum()) for gate in soft.values())
    assert row["undecided"] == pytest.approx(undecided / numel)
    same = sum(int((before[name] == previous[name]).sum()) for name in before)
    assert row["agreement"] == same / numel < 1
    weights = dict(tiny_llama().double().named_parameters())
    density = sum(float(gate.sum()) for gate in relaxed.values()) / numel
    kept = sum(float((weights[name] * gate).norm()) for name, gate in relaxed.items())
    share = kept / sum(float(weights[name].norm()) for name in relaxed)
    terms = 7 * abs(density - 0.4) - 10 * (1 - 3 / 10) * share
    assert row["held_out_objective"] - row["held_out_relaxed"] == pytest.approx(terms, rel=1e-5)


def test_the_exact_masks_meet_each_matrix_s_own_budget_where_that_is_asked_for(trainer):
    ours = trainer(budget="layer")
    ours.step(0)
    for layer in ours.layers:
        kept = int(torch.tensor([bin(byte).count("1") for byte in ours.held_out.hard[layer.index].tolist()]).sum())
        assert kept == layer.linear.weight.numel() - round(Fraction("0.6") * layer.linear.weight.numel())


def test_the_training_does_not_notice(trainer):
    looking, blind = trainer(), trainer(held_out_evaluations=0)
    looked, plain = looking.run(None), blind.run(None)
    assert all(torch.equal(a, b) for a, b in zip(looking.optimizer.parameters, blind.optimizer.parameters, strict=True))
    assert [{k: v for k, v in row.items() if k not in COLUMNS} for row in looked] == plain
    seen = [row["step"] for row in looked if not math.isnan(row["held_out_topk"])]
    assert seen == sorted(evaluated_steps(10, 3)) == [0, 3, 6, 9]
    assert [math.isnan(row["agreement"]) for row in looked] == [row["step"] not in (3, 6, 9) for row in looked]


def test_a_resumed_training_agrees_with_the_masks_before_it_was_killed(trainer, tmp_path):
    undisturbed = trainer(steps=40).run(None)
    first = trainer(steps=40)
    first.step_alone, first.step = first.step, lambda number: first.step_alone(number) if number < 21 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        first.run(tmp_path)
    resumed = trainer(steps=40).run(tmp_path)
    assert str(resumed) == str(undisturbed)  # NaN is not equal to itself


def test_held_out_evaluations_need_text(tiny_llama, tokens, refused):
    with refused("--held-out"):
        leap.trainer(Job(tiny_llama(), leap.Options(**OPTIONS), Fraction("0.6"), 1, tokens[:12]))


@pytest.mark.parametrize(("steps", "evaluations"), [(500, 8), (7, 3), (3, 8), (1, 1)])
def test_the_first_step_and_the_last_are_evaluated_steps(steps, evaluations):
    found = evaluated_steps(steps, evaluations)
    assert {0, steps - 1} <= found <= set(range(steps))
    assert len(found) <= evaluations + 1
    assert not evaluated_steps(steps, 0)
