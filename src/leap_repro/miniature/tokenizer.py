"""The miniature's tokenizer: byte-level BPE learnt from the training pages, one vocabulary for all five families."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leap_repro.miniature.architectures import BOS, EOS, PAD, SPECIAL_TOKENS, VOCABULARY

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

TOKENIZER_PAGES = 4000


def learn_vocabulary(texts: list[str], vocabulary: int = VOCABULARY) -> Tokenizer:
    """Byte-level BPE with `vocabulary` entries, the special tokens first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def family_tokenizer(tokenizer: Tokenizer, bos: bool) -> PreTrainedTokenizerFast:
    """The vocabulary as a transformers tokenizer; with `bos`, every text is led by the BOS, as Llama 3 and Gemma do."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    if bos:
        tokenizer.post_processor = TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS if bos else None,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )
