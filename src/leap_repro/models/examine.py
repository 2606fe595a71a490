"""Everything that can be known of a model before a weight is read: what it is, and whether it can be pruned right.

The models stage asks for every model, and a run asks for those on this machine before its first job
(`pipeline/examination.py`). What cannot be done right is refused here, by name.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leap_repro.errors import UserError, reason
from leap_repro.models.agreement import check_agreement
from leap_repro.models.checkpoint import (
    check_json,
    read_config,
    refuse_deep,
    refuse_quantised,
    tensors,
    weight_files,
)
from leap_repro.models.contained import contained
from leap_repro.models.load import NEEDS_BOS_IN_EVERY_WINDOW, load_tokenizer, vocabulary_size
from leap_repro.models.prunable import decoder_blocks, prunable_linears
from leap_repro.models.shares import ALLOWED, refuse_dense, shares_of
from leap_repro.models.tokenizing import added_tokens, check_file, left_out
from leap_repro.store.hashes import sha256_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
MOSTLY = 0.9
"""A model may have a few more embeddings than its tokenizer has tokens (rows are padded), never a tenth of them."""


@dataclass(frozen=True)
class ModelFacts:
    """What the manifest says of a model. `revision` is its commit on the hub, else the sha256 over its weight files;
    `block_parameters` are all parameters in the decoder blocks, `prunable` those that masks are made for;
    `largest_block` and `largest_gram` are the parameters of one block, and the entries of its matrices' Gram matrices,
    both the largest that there are: what a layer-wise method works with at once."""

    architecture: str
    revision: str
    parameters: int
    prunable: int
    block_parameters: int
    blocks: int
    largest_block: int
    largest_gram: int


def examine(folder: Path, allow_dense_share: float = ALLOWED) -> PreTrainedModel:
    """The model in `folder` on the meta device, after all checks.

    Raises UserError if the checkpoint is quantised, cut short or not what config.json says, if its architecture is
    unknown, cannot be pruned or keeps more than `allow_dense_share` of a block dense, or if the tokenizer is another's,
    does not cut text as its file says, or cannot be used within bounds of time and memory.
    """
    entries = tensors(folder)
    refuse_quantised(folder, entries)
    check_json(folder)
    refuse_deep(folder, len(entries))
    model = empty_model(folder)
    check_agreement(model, folder)
    refuse_dense(model, allow_dense_share)
    appended = contained(lambda: _try_tokenizer(folder, model), f"{folder}: the tokenizer cannot be used")
    if appended:
        log.info("%s: note: its tokenizer appends %s to every text, which is left out here", folder, appended)
    return model


def _try_tokenizer(folder: Path, model: PreTrainedModel) -> str:
    """The tokens that it puts behind a text, after all checks."""
    tokenizer = load_tokenizer(folder)
    check_tokenizer(tokenizer, model)
    check_file(tokenizer, folder)
    return left_out(tokenizer)


def describe(model: PreTrainedModel, folder: Path) -> dict[str, Any]:
    """The facts of an examined model, for its manifest."""
    blocks = decoder_blocks(model)[1]
    return asdict(
        ModelFacts(
            architecture=type(model).__name__,
            revision=_weights_revision(folder),
            blocks=len(blocks),
            largest_block=max(sum(p.numel() for p in block.parameters()) for block in blocks),
            largest_gram=max(_gram_entries(model).values()),
            **asdict(shares_of(model)),
        )
    )


def _gram_entries(model: PreTrainedModel) -> dict[int, int]:
    """By block, the entries of the Gram matrices of all its prunable matrices."""
    entries: dict[int, int] = {}
    for linear in prunable_linears(model):
        entries[linear.block] = entries.get(linear.block, 0) + linear.module.in_features**2
    return entries


def empty_model(folder: Path) -> PreTrainedModel:
    """The architecture of config.json on the meta device; UserError if transformers has no such language model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False).eval()
    except Exception as error:  # a configuration may be wrong in any way, and break any line of the architecture
        kind = read_config(folder).get("model_type")
        raise UserError(
            f"{folder}: model type {kind!r} is not a causal language model of this transformers: {reason(error)}"
        ) from error


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """UserError if the tokenizer and the model cannot belong together: their vocabularies differ in size, or the
    tokenizer lacks the special tokens that texts and questions are begun and ended with.

    Tokens that were added count, but may be more than the model has rows for (Gemma's image token).
    """
    embeddings = vocabulary_size(model)
    own, all_tokens = tokenizer.vocab_size, max(tokenizer.vocab_size, len(tokenizer))
    if own > embeddings or all_tokens < MOSTLY * embeddings:
        raise UserError(
            f"the tokenizer has {all_tokens} tokens, the model's vocab_size is {embeddings}: they belong to different "
            "models"
        )
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has neither a bos_token nor an eos_token: give it one in tokenizer_config.json")
    family = model.config.model_type
    if family.startswith(NEEDS_BOS_IN_EVERY_WINDOW) and tokenizer.bos_token_id is None:
        raise UserError(f"the tokenizer has no bos_token, which a {family} needs: name it in tokenizer_config.json")
    before = added_tokens(tokenizer).before
    if family.startswith(NEEDS_BOS_IN_EVERY_WINDOW) and before[-1:] != (tokenizer.bos_token_id,):
        raise UserError(
            f"the tokenizer puts no {tokenizer.bos_token} before a text, which a {family} needs: add it in the "
            "post_processor of tokenizer.json"
        )


def _weights_revision(folder: Path) -> str:
    """The sha256 of the weight file, or of the list of sha256s if there are several."""
    digests = [sha256_of(path) for path in weight_files(folder)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
