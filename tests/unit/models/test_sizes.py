"""The sizes of a model are the same from its checkpoint's headers as from the model itself."""

import json

import pytest
from families import DENSE, MIXTURES, real, tiny

from leap_repro.errors import UserError
from leap_repro.models.checkpoint import read_config, tensors
from leap_repro.models.sizes import (
    refuse_other_shape,
    sizes_by_rule_of_thumb,
    sizes_of,
    sizes_of_files,
    sizes_of_shape,
)
from leap_repro.pipeline.stages.models import main, parser


def both_ways(family, folder, **changes):
    model = tiny(family, **changes)
    model.save_pretrained(folder)
    return sizes_of(model), sizes_of_files(tensors(folder), read_config(folder))


@pytest.mark.parametrize("family", DENSE)
def test_headers_say_what_the_model_says(family, tmp_path):
    of_model, of_files = both_ways(family, tmp_path)
    assert of_files == of_model


def test_a_tied_head_is_counted_once(tmp_path):
    of_model, of_files = both_ways("llama", tmp_path, tie_word_embeddings=True)
    assert of_files == of_model
    assert of_files.parameters < sizes_of(tiny("llama", tie_word_embeddings=False)).parameters


@pytest.mark.parametrize("family", MIXTURES)
def test_headers_of_a_mixture_are_near(family, tmp_path):
    """Gates and what they are multiplied with may lie in one tensor, and routers are counted among Gram matrices."""
    of_model, of_files = both_ways(family, tmp_path)
    assert of_files.parameters == pytest.approx(of_model.parameters, rel=1e-3)
    assert of_files.prunable == of_model.prunable
    assert of_files.hidden == of_model.hidden
    assert of_files.vocabulary == of_model.vocabulary
    assert of_files.blocks == of_model.blocks
    assert of_model.widest <= of_files.widest <= 2 * of_model.widest
    assert of_model.largest <= of_files.largest <= 2 * of_model.largest


def test_a_checkpoint_without_blocks_has_no_sizes(tmp_path):
    _, entries = both_ways("llama", tmp_path), tensors(tmp_path)
    assert sizes_of_files({name: entry for name, entry in entries.items() if ".layers." not in name}, {}) is None
    assert sizes_of_files({}, {}) is None


def test_no_model_has_no_size():
    assert set(vars(sizes_by_rule_of_thumb(0)).values()) == {0}


KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_shapes_sizes_are_those_of_the_model(family):
    model = real(family)
    config = model.config.to_dict()
    found = sizes_of_shape({key: config[key] for key in KEYS}, sizes_of(model).parameters)
    truth = sizes_of(model)
    for name in ("prunable", "largest", "hidden", "widest", "blocks", "vocabulary", "gram"):
        assert getattr(found, name) == getattr(truth, name), name
    assert found.largest_block == pytest.approx(truth.largest_block, rel=1e-3)


def test_a_model_of_another_shape_is_refused():
    refuse_other_shape("a/b", {"vocab_size": 5}, {"vocab_size": 5})
    refuse_other_shape("a/b", None, {})
    refuse_other_shape("a/b", {"vocab_size": 5}, {"text_config": {"vocab_size": 5}})
    with pytest.raises(UserError, match=r"a/b: shape.vocab_size is 5, its config.json has 6"):
        refuse_other_shape("a/b", {"vocab_size": 5}, {"vocab_size": 6})


def test_a_fetch_holds_a_model_to_the_shape_that_the_configuration_says(tmp_path):
    spec = {"source": "bundled", "name": "llama3.2-1b-mini", "shape": {"vocab_size": 5}}
    arguments = parser().parse_args(["--spec", json.dumps(spec), "--output", str(tmp_path / "model")])
    with pytest.raises(UserError, match=r"llama3.2-1b-mini: shape.vocab_size is 5, its config.json has \d+"):
        main(arguments)
