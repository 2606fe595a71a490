"""A folder's own code never runs, and weights come from safetensors only, whatever lies beside them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from leap_repro.export.load import load_pruned
from leap_repro.miniature.bundled import bundled_models
from leap_repro.models.examine import empty_model, examine
from leap_repro.models.fetch import fetch_path
from leap_repro.models.load import load_model, load_tokenizer
from leap_repro.models.stream import stream_model

CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig): model_type = {kind!r}
class Model(LlamaForCausalLM): config_class = Config
class Tokenizer(PreTrainedTokenizerFast): pass
"""
AUTO = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model", "AutoTokenizer": ["code.Tokenizer"] * 2}
LOADERS = {
    "model": load_model,
    "stream": lambda folder: stream_model(folder)[0],
    "empty": empty_model,
    "pruned": load_pruned,
}


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(bundled_models()["llama3.2-1b-mini"], tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def with_code(folder, tmp_path, monkeypatch):
    """A function that lets configuration and tokenizer name code of the folder, which leaves a file when it runs."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers asks whoever has not said no

    def build(kind, cut="Tokenizer"):
        marker = tmp_path / "it ran"
        (folder / "code.py").write_text(CODE.format(marker=str(marker), kind=kind))
        change(folder / "config.json", auto_map=AUTO, model_type=kind)
        change(folder / "tokenizer_config.json", auto_map=AUTO, tokenizer_class=cut)
        return marker

    return build


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("loader", LOADERS)
def test_a_family_that_is_known_is_loaded_without_the_folders_code(folder, with_code, loader):
    marker = with_code("llama")
    assert type(LOADERS[loader](folder)).__module__ == "transformers.models.llama.modeling_llama"
    assert not marker.exists()


@pytest.mark.parametrize("loader", LOADERS)
def test_a_family_that_only_the_folders_code_knows_is_refused(folder, with_code, refused, loader):
    marker = with_code("theirs")
    with refused(str(folder)):
        LOADERS[loader](folder)
    assert not marker.exists()


def test_a_tokenizer_that_only_the_folders_code_knows_is_refused(folder, with_code, refused):
    marker = with_code("llama")
    with refused(str(folder), "tokenizer"):
        load_tokenizer(folder)
    assert not marker.exists()


def test_a_tokenizers_own_code_does_not_run(folder, with_code):
    marker = with_code("llama", "PreTrainedTokenizerFast")
    ids = load_tokenizer(bundled_models()["llama3.2-1b-mini"])("In which town?")["input_ids"]
    assert load_tokenizer(folder)("In which town?")["input_ids"] == ids
    examine(folder)
    assert not marker.exists()


@pytest.mark.parametrize("loader", ["model", "stream", "pruned"])
def test_pickled_weights_are_not_read(folder, refused, loader):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with refused(str(folder)):
        LOADERS[loader](folder)


def test_pickled_weights_beside_safetensors_change_nothing(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    torch.save({name: tensor + 1 for name, tensor in weights.items()}, folder / "pytorch_model.bin")
    state = load_model(folder).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())
    (tmp_path / "payload").mkdir()
    fetch_path({"source": "path", "path": str(folder)}, tmp_path / "payload")
    assert not (tmp_path / "payload/pytorch_model.bin").exists()
