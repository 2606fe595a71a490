"""The families that tests go through with: each as a tiny model for the tests and as a real one for its shares.

`python tests/support/families.py` writes benchmarks/model_families.md and what docs/models.md shows of it; a test holds
both to what is counted here.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from publish import filled
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from leap_repro.errors import UserError
from leap_repro.models.prunable import structure
from leap_repro.models.shares import refuse_dense, shares_of
from leap_repro.store.atomic import write_text

TOP = Path(__file__).resolve().parents[2]
TABLE = TOP / "benchmarks/model_families.md"
METHODS = ("magnitude", "wanda", "sparsegpt", "admm", "leap")
VOCABULARY = 400
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}


def shape(hidden: int, inner: int, layers: int, heads: int, kv: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    """A real model's configuration in the words of most families."""
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocabulary,
    } | more


# model type: (tiny model's further keys, a real model, its configuration)
DENSE: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "llama": ({}, "Llama-3.1-8B", shape(4096, 14336, 32, 32, 8, 128256)),
    "mistral": ({}, "Mistral-7B-v0.1", shape(4096, 14336, 32, 32, 8, 32000)),
    "qwen2": ({}, "Qwen2.5-0.5B", shape(896, 4864, 24, 14, 2, 151936, tie_word_embeddings=True)),
    "qwen3": (
        {"head_dim": 8},
        "Qwen3-0.6B",
        shape(1024, 3072, 28, 16, 8, 151936, head_dim=128, tie_word_embeddings=True),
    ),
    "gemma2": ({"head_dim": 8}, "gemma-2-2b", shape(2304, 9216, 26, 8, 4, 256000, head_dim=256)),
    "gemma3_text": ({"head_dim": 8}, "gemma-3-1b", shape(1152, 6912, 26, 4, 1, 262144, head_dim=256)),
    "phi3": ({}, "Phi-3-mini-4k", shape(3072, 8192, 32, 32, 32, 32064)),
    "opt": (
        {"ffn_dim": 48, "word_embed_proj_dim": 32},
        "OPT-1.3B",
        shape(2048, 8192, 24, 32, 32, 50272, ffn_dim=8192, word_embed_proj_dim=2048),
    ),
    "gpt_neox": ({}, "pythia-1.4b", shape(2048, 8192, 24, 16, 16, 50304)),
    "bloom": (
        {"n_layer": 2, "n_head": 4},
        "bloom-560m",
        {"hidden_size": 1024, "n_layer": 24, "n_head": 16, "vocab_size": 250880},
    ),
    "falcon": (
        {},
        "falcon-7b",
        {"hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71, "vocab_size": 65024},
    ),
    "mpt": (
        {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64},
        "mpt-7b",
        {"d_model": 4096, "n_heads": 32, "n_layers": 32, "vocab_size": 50432},
    ),
    "starcoder2": ({}, "starcoder2-3b", shape(3072, 12288, 30, 24, 2, 49152)),
    "olmo2": ({}, "OLMo-2-1B", shape(2048, 8192, 16, 16, 16, 100352)),
    "granite": ({}, "granite-3.1-2b", shape(2048, 8192, 40, 32, 8, 49155, tie_word_embeddings=True)),
}
MIXTURES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "mixtral": (LOCAL, "Mixtral-8x7B", shape(4096, 14336, 32, 32, 8, 32000)),
    "qwen3_moe": (
        EXPERTS,
        "Qwen3-30B-A3B",
        shape(
            2048,
            6144,
            48,
            32,
            4,
            151936,
            head_dim=128,
            num_experts=128,
            num_experts_per_tok=8,
            moe_intermediate_size=768,
        ),
    ),
    "qwen2_moe": (
        EXPERTS | {"shared_expert_intermediate_size": 40},
        "Qwen1.5-MoE-A2.7B",
        shape(
            2048,
            5632,
            24,
            16,
            16,
            151936,
            num_experts=60,
            num_experts_per_tok=4,
            moe_intermediate_size=1408,
            shared_expert_intermediate_size=5632,
        ),
    ),
    "olmoe": (EXPERTS, "OLMoE-1B-7B", shape(2048, 1024, 16, 16, 16, 50304, num_experts=64, num_experts_per_tok=8)),
    "phimoe": (LOCAL, "Phi-3.5-MoE", shape(4096, 6400, 32, 32, 8, 32064, num_local_experts=16, num_experts_per_tok=2)),
    "granitemoe": (
        LOCAL,
        "granite-3.0-1b-a400m",
        shape(1024, 512, 24, 16, 8, 49155, num_local_experts=32, num_experts_per_tok=8, tie_word_embeddings=True),
    ),
    "deepseek_v3": (
        {
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "q_lora_rank": 8,
            "kv_lora_rank": 8,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
        },
        "DeepSeek-V3, in bfloat16",
        {},
    ),
    "gpt_oss": (
        LOCAL | {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16},
        "gpt-oss-20b, in bfloat16",
        shape(2880, 2880, 24, 64, 8, 201088, head_dim=64, num_local_experts=32, num_experts_per_tok=4),
    ),
}
REFUSED: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "mamba": {"state_size": 16, "use_mambapy": False},
    "llama4_text": {"num_local_experts": 4, "intermediate_size_mlp": 48, "head_dim": 8},
    "jetmoe": {"num_local_experts": 4, "num_experts_per_tok": 2, "kv_channels": 8},
    "bart": {
        "d_model": 32,
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 48,
        "is_decoder": True,
    },
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "n_words": 400},
}
SUPPORTED = DENSE | MIXTURES


def tiny(family: str, **changes: Any) -> PreTrainedModel:
    """The family's tiny model, always with the same random weights, far enough from zero to tell layers apart."""
    further = REFUSED[family] if family in REFUSED else SUPPORTED[family][0]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**(SMALL | further | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    return model.requires_grad_(False)


def real(family: str) -> PreTrainedModel:
    """The family's real model on the meta device."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**SUPPORTED[family][2])).eval()


def refusal(family: str) -> str:
    """The sentence that says why the family's tiny model is not pruned."""
    try:
        model = tiny(family)
        structure(model)
        refuse_dense(model)
    except UserError as error:
        return str(error)
    raise AssertionError(f"{family} is not refused")


def table() -> str:
    """Both tables of docs/models.md, as Markdown."""
    lines = [
        f"Tried with {', '.join(METHODS)} on a tiny model of the family; the shares are those of the real one.",
        "",
        "| family | model type | real model | parameters | prunable of the blocks | of the model |",
        "|---|---|---|---:|---:|---:|",
    ]
    for kind, families in (("dense", DENSE), ("mixture of experts", MIXTURES)):
        for family, (_, name, _) in families.items():
            shares = shares_of(real(family))
            blocks, whole = shares.prunable / shares.block_parameters, shares.prunable / shares.parameters
            size = f"{shares.parameters:,}"
            lines.append(f"| {kind} | `{family}` | {name} | {size} | {100 * blocks:.2f} % | {100 * whole:.1f} % |")
    lines += ["", "| refused | the sentence, for a tiny model |", "|---|---|"]
    lines += [f"| `{family}` | {refusal(family)} |" for family in REFUSED]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    write_text(TABLE, table())
    page = TOP / "docs/models.md"
    write_text(page, filled(page.read_text(encoding="utf-8"), TOP))
