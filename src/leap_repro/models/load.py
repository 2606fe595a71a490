"""Load a fetched checkpoint: safetensors only, no remote code, in evaluation mode, gradients off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from leap_repro.errors import UserError, reason
from leap_repro.models.tokenizing import without_appended

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

NEEDS_BOS_IN_EVERY_WINDOW = ("gemma",)
"""How the model types of those families begin whose perplexity means nothing unless each window begins with a BOS."""


def best_device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turns what transformers raises about a folder that holds no such model into a UserError."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder} is not a causal language model that transformers can load: {reason(error)}"
        ) from error


def ready(model: PreTrainedModel) -> PreTrainedModel:
    """The model in evaluation mode, without gradients and without a cache."""
    model.requires_grad_(False)
    model.config.use_cache = False
    return model.eval()


def load_model(folder: Path, dtype: str = "float32", device: torch.device | None = None) -> PreTrainedModel:
    """The causal language model in `folder` on `device`, else the best one; UserError if transformers cannot read it as
    one."""
    from transformers import AutoModelForCausalLM

    with reading(folder):
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=DTYPES[dtype],
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    model = ready(model)
    nn.Module.to(model, device or best_device())
    return model


def vocabulary_size(model: PreTrainedModel) -> int:
    """Rows of the embeddings: tokens that the model knows."""
    return cast(nn.Embedding, model.get_input_embeddings()).num_embeddings


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, which puts nothing behind a text (`tokenizing.py`); UserError if there is none, or
    none that can do without."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raise plain exceptions, and a package that is not installed is one more
        raise UserError(f"{folder} has no tokenizer that transformers can load: {reason(error)}") from error
    try:
        return without_appended(tokenizer)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
