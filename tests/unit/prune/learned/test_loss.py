"""The language-modelling loss and its gradient, against float64 and against finite differences."""

import pytest
import torch
from torch import nn

from leap_repro.prune.learned import declaration
from leap_repro.prune.learned.loss import next_token_loss

BATCH, LENGTH, VOCABULARY = 3, 5, 11


def scores(dtype=torch.float32, spread=3.0):
    generator = torch.Generator().manual_seed(0)
    return (spread * torch.randn(BATCH, LENGTH, VOCABULARY, generator=generator)).to(dtype).requires_grad_(True)


def tokens():
    return torch.randint(0, VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))


def by_definition(logits, ids):
    """The mean over every position but each row's last, in float64."""
    chances = torch.softmax(logits.double(), dim=-1)
    rows = [-chances[b, t, ids[b, t + 1]].log() for b in range(BATCH) for t in range(LENGTH - 1)]
    return torch.stack(rows).mean()


@pytest.mark.parametrize("at_once", [1, 2 * VOCABULARY, 7 * VOCABULARY, 2**26])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-7), (torch.bfloat16, 1e-3)])
def test_value_and_gradient_are_the_definitions_however_many_scores_are_taken_at_once(
    dtype, error, at_once, monkeypatch
):
    logits = scores(dtype)
    expected = by_definition(logits, tokens())
    (slope,) = torch.autograd.grad(3 * expected, logits)
    monkeypatch.setitem(declaration.SCORES_AT_ONCE, "cpu", at_once)
    found = next_token_loss(logits, tokens())
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    (found_slope,) = torch.autograd.grad(3 * found, logits)
    assert found_slope.dtype == dtype
    torch.testing.assert_close(found_slope, slope, rtol=0, atol=error)
    assert (found_slope[:, -1] == 0).all()


def test_pieces_change_no_bit(monkeypatch):
    results = []
    for at_once in (2**26, 4 * VOCABULARY):
        monkeypatch.setitem(declaration.SCORES_AT_ONCE, "cpu", at_once)
        logits = scores()
        found = next_token_loss(logits, tokens())
        results.append((found, torch.autograd.grad(found, logits)[0]))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_scores_far_apart_give_neither_zero_nor_infinity():
    logits = scores(spread=1e4)
    found = next_token_loss(logits, tokens())
    expected = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), tokens()[:, 1:].flatten())
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    assert torch.autograd.grad(found, logits)[0].isfinite().all()


def test_a_score_that_is_not_a_number_is_not_hidden():
    logits = scores().detach()
    logits[0, 0, 0] = float("nan")
    assert next_token_loss(logits, tokens()).isnan()
