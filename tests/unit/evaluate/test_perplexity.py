"""Token perplexity against a window-by-window float64 computation written from the protocol."""

import math

import pytest
import torch
from families import SUPPORTED
from families import tiny as tiny_of
from transformers import BertConfig, BertLMHeadModel, GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM

from leap_repro.costs import resources
from leap_repro.errors import UserError
from leap_repro.evaluate import perplexity
from leap_repro.evaluate.perplexity import evaluate_perplexity, windows_of
from leap_repro.miniature.text import pages
from leap_repro.miniature.tokenizer import family_tokenizer, learn_vocabulary
from leap_repro.models.prunable import decoder_blocks

SIZES = {
    "vocab_size": 400,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def texts():
    return pages("test", 12)


@pytest.fixture(scope="module")
def vocabulary(texts):
    return learn_vocabulary(texts, 400)


def tiny(kind="llama"):
    torch.manual_seed(0)
    config, model = (LlamaConfig, LlamaForCausalLM) if kind == "llama" else (GemmaConfig, GemmaForCausalLM)
    extra = {} if kind == "llama" else {"head_dim": 8}
    return model(config(**SIZES, **extra, initializer_range=0.3)).eval()


def by_hand(model, windows):
    """exp of the mean over windows of the mean next-token loss, one window at a time in float64."""
    model = model.double()
    losses = []
    with torch.no_grad():
        for window in windows:
            log_probabilities = model(torch.tensor([window])).logits[0].log_softmax(-1)
            picked = [log_probabilities[i, token] for i, token in enumerate(window[1:])]
            losses.append(-sum(picked) / len(picked))
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize("length", [16, 64])
def test_perplexity_is_that_of_consecutive_windows(texts, vocabulary, length):
    tokenizer = family_tokenizer(vocabulary, bos=True)
    ids = tokenizer("\n\n".join(texts))["input_ids"]
    windows = [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]
    found = evaluate_perplexity(tiny(), tokenizer, texts, length, batch_size=7)
    assert found.value == pytest.approx(by_hand(tiny(), windows), rel=1e-5)
    assert (found.windows, found.tokens, found.bos) == (len(windows), len(windows) * (length - 1), "once")


def test_gemma_gets_a_bos_in_every_window(texts, vocabulary):
    tokenizer = family_tokenizer(vocabulary, bos=True)
    ids = tokenizer("\n\n".join(texts), add_special_tokens=False)["input_ids"]
    windows = [[tokenizer.bos_token_id, *ids[start : start + 31]] for start in range(0, len(ids) - 30, 31)]
    found = evaluate_perplexity(tiny("gemma"), tokenizer, texts, 32, batch_size=8)
    assert found.value == pytest.approx(by_hand(tiny("gemma"), windows), rel=1e-5)
    assert found.bos == "every window"


def test_a_family_without_bos_says_so(texts, vocabulary):
    assert evaluate_perplexity(tiny(), family_tokenizer(vocabulary, bos=False), texts, 32, 8).bos == "none"


def test_the_rest_of_the_text_is_dropped():
    assert windows_of(list(range(11)), 4, None).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(("length", "documents", "part"), [(65, 12, "64 positions"), (64, 0, "fewer than two windows")])
def test_impossible_lengths_are_refused(texts, vocabulary, length, documents, part):
    tokenizer = family_tokenizer(vocabulary, bos=True)
    with pytest.raises(UserError, match=part):
        evaluate_perplexity(tiny(), tokenizer, texts[:documents] or ["short"], length, 8)


def test_a_uniform_model_has_the_vocabulary_as_perplexity(texts, vocabulary):
    model = tiny()
    model.lm_head.weight.data.zero_()
    found = evaluate_perplexity(model, family_tokenizer(vocabulary, bos=True), texts, 32, 8)
    assert found.value == pytest.approx(400, rel=1e-6)
    assert found.stderr == pytest.approx(0, abs=1e-3)


def test_few_scores_at_once_change_nothing(texts, vocabulary, monkeypatch):
    tokenizer = family_tokenizer(vocabulary, bos=True)
    whole = evaluate_perplexity(tiny(), tokenizer, texts, 32, batch_size=8)
    for scores in (1, 400 * 32 * 2, 400 * 40):
        monkeypatch.setattr(perplexity, "SCORES", scores)
        assert evaluate_perplexity(tiny(), tokenizer, texts, 32, batch_size=8).value == pytest.approx(
            whole.value, rel=1e-6
        )


def test_a_pass_holds_no_more_scores_than_allowed(monkeypatch):
    sizes = []
    model = tiny()
    model.register_forward_hook(lambda module, args, output: sizes.append(output.logits.numel()))
    monkeypatch.setattr(perplexity, "SCORES", 3 * 16 * 400)
    perplexity.window_losses(model, torch.zeros(7, 16, dtype=torch.long), batch_size=32)
    assert sizes == [3 * 16 * 400, 3 * 16 * 400, 16 * 400]


@pytest.mark.parametrize("family", SUPPORTED)
def test_the_scores_of_a_long_window_are_made_in_parts_and_are_the_same(family, monkeypatch):
    model = tiny_of(family)
    windows = torch.randint(3, 60, (2, 17), generator=torch.Generator().manual_seed(0))
    whole, rows, passes = perplexity.window_losses(model, windows, 2), [], []
    vocabulary = model.get_input_embeddings().num_embeddings
    decoder_blocks(model)[1][0].register_forward_hook(lambda *_: passes.append(family))
    model.get_output_embeddings().register_forward_hook(lambda _, given, made: rows.append(made.shape[:-1].numel()))
    monkeypatch.setattr(perplexity, "SCORES", 5 * vocabulary)
    torch.testing.assert_close(perplexity.window_losses(model, windows, 2), whole, rtol=1e-6, atol=1e-6)
    check, of_a_window = [16, 1, 5, 11], [1, 5, 5, 5, 1]  # the first is of the pass that gives the states
    assert rows == check + 2 * of_a_window
    assert len(passes) == 2 + len(windows)
    assert "forward" not in vars(model.get_decoder())


def test_the_plan_counts_with_the_same_number():
    assert resources.SCORES == perplexity.SCORES


def test_a_model_that_sees_later_tokens_is_refused(texts, vocabulary):
    torch.manual_seed(0)
    sizes = {"vocab_size": 400, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.5}
    tokenizer = family_tokenizer(vocabulary, bos=True)
    evaluate_perplexity(BertLMHeadModel(BertConfig(**sizes, is_decoder=True)).eval(), tokenizer, texts, 32, 8)
    with pytest.raises(UserError, match="BertLMHeadModel is not a causal model"):
        evaluate_perplexity(BertLMHeadModel(BertConfig(**sizes)).eval(), tokenizer, texts, 32, 8)


def test_scores_that_are_not_finite_are_refused(texts, vocabulary):
    model = tiny()
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(UserError, match=r"not finite in torch\.float32"):
        evaluate_perplexity(model, family_tokenizer(vocabulary, bos=True), texts, 32, 8)


def test_the_first_windows_alone_are_those_of_the_whole(texts, vocabulary):
    tokenizer = family_tokenizer(vocabulary, bos=True)
    ids = tokenizer("\n\n".join(texts))["input_ids"]
    found = evaluate_perplexity(tiny(), tokenizer, texts, 16, batch_size=7, at_most=3)
    assert found.value == pytest.approx(by_hand(tiny(), [ids[:16], ids[16:32], ids[32:48]]), rel=1e-5)
    assert (found.windows, found.held, found.tokens) == (3, len(ids) // 16, 45)


@pytest.mark.parametrize("more", [0, 1, 15])
def test_a_text_of_whole_windows_loses_none(texts, vocabulary, more):
    tokenizer = family_tokenizer(vocabulary, bos=False)
    ids = tokenizer("\n\n".join(texts))["input_ids"][: 4 * 16 + more]
    text = tokenizer.decode(ids)
    assert tokenizer(text)["input_ids"] == ids
    found = evaluate_perplexity(tiny(), tokenizer, [text], 16, batch_size=3)
    assert (found.windows, found.held, found.tokens) == (4, 4, 4 * 15)
    assert found.value == pytest.approx(by_hand(tiny(), [ids[i : i + 16] for i in range(0, 64, 16)]), rel=1e-5)


@pytest.mark.parametrize("length", [4, 5])
def test_windows_with_a_bos_of_their_own_take_one_token_less_each(length):
    count = {4: 4, 5: 3}[length]
    windows = windows_of(list(range(10, 22)), length, 1)
    assert windows.shape == (count, length)
    assert windows[:, 0].tolist() == [1] * count
    assert windows[:, 1:].flatten().tolist() == list(range(10, 22))


def test_the_standard_error_is_that_of_the_mean_over_windows_carried_through_the_exponential(texts, vocabulary):
    tokenizer = family_tokenizer(vocabulary, bos=True)
    ids = tokenizer("\n\n".join(texts))["input_ids"][: 5 * 16]
    windows = [ids[start : start + 16] for start in range(0, len(ids), 16)]
    losses = [math.log(by_hand(tiny(), [window])) for window in windows]
    mean = sum(losses) / 5
    variance = sum((loss - mean) ** 2 for loss in losses) / 4
    found = evaluate_perplexity(tiny(), tokenizer, texts, 16, batch_size=2, at_most=5)
    assert found.stderr == pytest.approx(math.exp(mean) * math.sqrt(variance / 5), rel=1e-4)
