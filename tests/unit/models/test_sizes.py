"""The sizes of a model are the same from its checkpoint's headers as from the model itself."""

import pytest
from families import DENSE, MIXTURES, tiny

from leap_repro.models.checkpoint import read_config, tensors
from leap_repro.models.sizes import sizes_by_rule_of_thumb, sizes_of, sizes_of_files


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
