"""What unit tests of several stages share: the project's own config, a check of refusals, tiny models, a tokenizer."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from leap_repro.errors import UserError
from leap_repro.pipeline.reading import read_config

TINY = {
    "llama": {"intermediate_size": 48, "num_key_value_heads": 2, "tie_word_embeddings": False},
    "qwen2": {"intermediate_size": 48, "num_key_value_heads": 2},
    "gemma3_text": {
        "intermediate_size": 48,
        "num_key_value_heads": 1,
        "head_dim": 12,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    },
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 16},
    "gpt_neox": {"intermediate_size": 48},
    "gpt2": {},
}
PRUNABLE_FAMILIES = [family for family in TINY if family != "gpt2"]


@pytest.fixture(scope="session")
def project() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture
def config(project):
    """The project's own configuration, free to be changed."""
    return read_config(project=project)


@pytest.fixture(scope="session")
def refused():
    """`with refused("a", "b"):` holds if a UserError of one sentence that contains these words is raised inside."""

    @contextmanager
    def expect(*words):
        with pytest.raises(UserError) as caught:
            yield
        sentence = str(caught.value)
        assert sentence
        assert "\n" not in sentence
        for word in words:
            assert word in sentence

    return expect


@pytest.fixture(scope="session")
def build_tiny():
    """A function that gives the tiny, randomly initialised model of a family, always with the same weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def build(family):
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            family,
            vocab_size=64,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=64,
            initializer_range=0.2,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            **TINY[family],
        )
        return AutoModelForCausalLM.from_config(config).eval()

    return build


@pytest.fixture(params=PRUNABLE_FAMILIES)
def tiny_model(request, build_tiny):
    return build_tiny(request.param)


@pytest.fixture(scope="session")
def tokenizer():
    """A miniature tokenizer with few entries; it sets a BOS first, as Llama's and Gemma's do."""
    from leap_repro.miniature.text import pages
    from leap_repro.miniature.tokenizer import family_tokenizer, learn_vocabulary

    return family_tokenizer(learn_vocabulary(pages("calibration", 40), vocabulary=400), bos=True)
