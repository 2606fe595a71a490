"""Losses of windows are float64 means of float32 losses, to the last digit, however windows are batched."""

import pytest
import torch
from families import VOCABULARY, tiny

from leap_repro.evaluate.perplexity import window_losses


def test_a_token_of_a_model_in_sixteen_bits_is_scored_in_float32():
    model = tiny("llama").to(torch.bfloat16)
    windows = torch.randint(3, VOCABULARY, (3, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = model(windows).logits[:, :-1].double().log_softmax(2)
    losses = -exact.gather(2, windows[:, 1:, None]).squeeze(2).mean(dim=1)
    torch.testing.assert_close(window_losses(model, windows, 3), losses, rtol=1e-6, atol=0)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_mean_over_a_windows_tokens_is_taken_in_float64(batch_size):
    model, windows = tiny("llama"), torch.randint(3, VOCABULARY, (4, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = model(windows).logits[:, :-1].flatten(0, 1)
    tokens = torch.nn.functional.cross_entropy(scores, windows[:, 1:].flatten(), reduction="none").view(4, -1)
    found = window_losses(model, windows, batch_size)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([sum(map(float, row)) / 23 for row in tokens], rel=1e-7)
    assert not torch.equal(found, found.float().double())
