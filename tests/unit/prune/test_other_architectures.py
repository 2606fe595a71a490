"""A model outside the bundled five, from a folder, through the stages: fetch, calibrate, prune, harden, apply."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, OPTConfig, OPTForCausalLM

from leap_repro.miniature.text import pages
from leap_repro.miniature.tokenizer import family_tokenizer, learn_vocabulary
from leap_repro.models.cell import apply_cell
from leap_repro.models.load import load_model
from leap_repro.models.prunable import prunable_linears
from leap_repro.sparsity.masks import read_kept_values, unpack_masks
from leap_repro.store.artifacts import Artifact

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
FAMILIES = {
    "opt": lambda: OPTForCausalLM(OPTConfig(vocab_size=400, ffn_dim=24, word_embed_proj_dim=16, **SHAPE)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=400, intermediate_size=24, **SHAPE)),
}


def stage(name, *arguments):
    command = [sys.executable, "-m", "leap_repro.pipeline", name, *map(str, arguments)]
    subprocess.run(command, check=True, timeout=120)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_from_a_folder_is_pruned_to_its_budget(family, tmp_path):
    torch.manual_seed(0)
    FAMILIES[family]().save_pretrained(tmp_path / "mine")
    texts = pages("test", 20)
    family_tokenizer(learn_vocabulary(texts, 400), bos=True).save_pretrained(tmp_path / "mine")
    (tmp_path / "text.txt").write_text("\n\n".join(text.replace("\n\n", "\n") for text in texts))
    model, text, tokens = tmp_path / "model", tmp_path / "text", tmp_path / "tokens"
    stage("models", "--spec", json.dumps({"source": "path", "path": str(tmp_path / "mine")}), "--output", model)
    spec = json.dumps({"source": "path", "path": str(tmp_path / "text.txt")})
    stage("data", "--role", "calibration", "--spec", spec, "--output", text)
    shard = ("--recipe", "windows", "--sequences", "4", "--length", "16")
    stage("calibration", "--model", model, "--text", text, *shard, "--output", tokens)
    method = ("--module", "sparsegpt", "--sparsity", "0.6")
    stage("prune", "--model", model, "--tokens", tokens, *method, "--output", tmp_path / "pruned")
    stage("harden", "--pruned", tmp_path / "pruned", "--cell", family, "--output", tmp_path / "cell")
    pruned = load_model(model / "payload")
    apply_cell(pruned, Artifact.read(tmp_path / "cell"))
    left = Artifact.read(tmp_path / "pruned")
    masks, values = unpack_masks(left), read_kept_values(left)
    for linear in prunable_linears(pruned):
        assert int((linear.weight == 0).sum()) == round(0.6 * linear.weight.numel()), linear.name
        assert torch.equal(linear.weight[masks[linear.name]], values[linear.name]), linear.name
