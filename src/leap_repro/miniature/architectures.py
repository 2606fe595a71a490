"""The five miniature models: the families and relative sizes of the paper's five, each with its family's peculiarities.

| miniature | stands for | peculiar |
|---|---|---|
| qwen2.5-0.5b-mini | Qwen-2.5 0.5B | q/k/v biases, tied embeddings, no BOS |
| gemma3-1b-mini | Gemma-3 1B | q/k norms, four norms a block, local and global attention, wide heads, BOS |
| llama3.2-1b-mini | LLaMA-3.2 1B | grouped queries, tied embeddings, scaled rotary positions, BOS |
| llama3.2-3b-mini | LLaMA-3.2 3B | the same, wider |
| llama3.1-8b-mini | LLaMA-3.1 8B | the same, widest, untied output embeddings |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

VOCABULARY = 1280
POSITIONS = 256
BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"
SPECIAL_TOKENS = (PAD, BOS, EOS)
LLAMA_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}


def _shared() -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": SPECIAL_TOKENS.index(PAD),
        "bos_token_id": SPECIAL_TOKENS.index(BOS),
        "eos_token_id": SPECIAL_TOKENS.index(EOS),
        "num_attention_heads": 4,
        "initializer_range": 0.02,
    }


def qwen() -> PretrainedConfig:
    """Qwen 2: biases on q, k and v; no BOS."""
    from transformers import Qwen2Config

    without_bos: dict[str, Any] = _shared() | {"bos_token_id": None}
    return Qwen2Config(
        **without_bos,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    )


def gemma() -> PretrainedConfig:
    """Gemma 3 (text): three local blocks of window 32 and one global, heads wider than hidden / heads."""
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(
        **_shared(),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=4,
        num_key_value_heads=1,
        head_dim=24,
        query_pre_attn_scalar=24,
        sliding_window=32,
        layer_types=["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
        tie_word_embeddings=True,
    )


def llama(hidden: int, intermediate: int, layers: int, tied: bool) -> PretrainedConfig:
    """Llama 3: grouped queries and the family's scaled rotary positions."""
    from transformers import LlamaConfig

    return LlamaConfig(
        **_shared(),
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        rope_parameters=LLAMA_ROPE,
    )


ARCHITECTURES: dict[str, Callable[[], PretrainedConfig]] = {
    "qwen2.5-0.5b-mini": qwen,
    "gemma3-1b-mini": gemma,
    "llama3.2-1b-mini": lambda: llama(64, 192, 4, tied=True),
    "llama3.2-3b-mini": lambda: llama(80, 224, 4, tied=True),
    "llama3.1-8b-mini": lambda: llama(96, 256, 4, tied=False),
}
