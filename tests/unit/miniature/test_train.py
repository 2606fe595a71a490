"""The recipe behind the released models gives the same model and tokenizer each time it is run."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from leap_repro.miniature.architectures import ARCHITECTURES, BOS
from leap_repro.miniature.text import pages
from leap_repro.pipeline.stages.miniature import (
    FLOOR_SHARE,
    PEAK_LEARNING_RATE,
    WARMUP,
    learning_rate,
    token_stream,
    train_model,
)

NAMES = ["qwen2.5-0.5b-mini", "gemma3-1b-mini", "llama3.1-8b-mini"]


@pytest.fixture(scope="module")
def texts():
    return pages("calibration", 60)


def untrained(name):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(ARCHITECTURES[name]()).to(torch.bfloat16)


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_of_the_recipe_give_the_same_bits(texts, name):
    (one, its_tokenizer), (two, other_tokenizer) = (train_model(name, texts, steps=3) for _ in range(2))
    assert its_tokenizer.backend_tokenizer.to_str() == other_tokenizer.backend_tokenizer.to_str()
    first, second, before = (model.state_dict() for model in (one, two, untrained(name)))
    assert first.keys() == second.keys() == before.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], before[key]) for key in first)


def test_the_trained_model_is_bfloat16_and_not_in_training_mode(texts):
    model, _ = train_model(NAMES[0], texts, steps=1)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    assert not model.training


def test_the_stream_closes_every_page_by_eos_and_opens_it_by_bos_where_there_is_one(texts, tokenizer):
    stream = token_stream(tokenizer, texts[:5]).tolist()
    bos, eos = tokenizer.convert_tokens_to_ids(BOS), tokenizer.eos_token_id
    assert (stream.count(bos), stream.count(eos)) == (5, 5)
    assert (stream[0], stream[-1]) == (bos, eos)
    assert all(stream[index + 1] == bos for index, token in enumerate(stream[:-1]) if token == eos)


def test_the_tokenizer_gives_every_text_back(tokenizer, texts):
    for text in [*texts[:5], "Ünïcødé\n\tand  spaces — 漢字"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_the_learning_rate_warms_up_and_falls_to_its_floor():
    rates = [learning_rate(step, 1000) for step in range(1001)]
    assert rates[: WARMUP - 1] == sorted(rates[: WARMUP - 1])
    assert rates[WARMUP:] == sorted(rates[WARMUP:], reverse=True)
    assert 0.9 * PEAK_LEARNING_RATE < max(rates) <= PEAK_LEARNING_RATE
    assert rates[-1] == pytest.approx(FLOOR_SHARE * PEAK_LEARNING_RATE)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_miniature_has_its_familys_peculiarities(name):
    model = untrained(name)
    parameters = dict(model.named_parameters())
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert any(key.endswith("q_proj.bias") for key in parameters) == name.startswith("qwen")
    assert any("q_norm" in key for key in parameters) == name.startswith("gemma")
    assert tied == (name != "llama3.1-8b-mini")
    assert (model.config.bos_token_id is None) == name.startswith("qwen")
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    assert 100_000 < model.num_parameters() < 1_000_000
