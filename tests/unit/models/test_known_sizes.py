"""The sizes that the config expects of the real models are those that `shares_of` counts for their real shapes."""

import json

import pytest

from leap_repro.models.examine import empty_model
from leap_repro.models.shares import shares_of
from leap_repro.pipeline.reading import read_config

SHAPES = {
    "qwen2.5-0.5b": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "gemma3-1b": {
        "model_type": "gemma3_text",
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_hidden_layers": 26,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "vocab_size": 262144,
        "tie_word_embeddings": True,
    },
}


@pytest.mark.parametrize("model", SHAPES)
def test_the_expected_parameters_are_those_of_the_shape(project, tmp_path, model):
    expected = read_config(project=project)["scales"]["paper"]["models"][model]["expect"]
    (tmp_path / "config.json").write_text(json.dumps(SHAPES[model]))
    assert {"parameters": shares_of(empty_model(tmp_path)).parameters} == expected
