"""lm-eval's model of a Hugging Face checkpoint, with all requests tokenised in one call, not in two each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import _add_special_kwargs, has_bos_prefix

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance


class BatchEncoded(HFLM):
    """Scores the same tokens as `HFLM`: only the calls of the tokenizer are fewer (a test compares every request)."""

    encoded: dict[str, list[int]] = {}  # noqa: RUF012  (empty, and replaced before anything is put in)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As lm-eval's; the texts that it is going to tokenise are tokenised first."""
        texts = {text for request in requests for text in _tokenised(*request.args)}
        bos = self.tokenizer.decode(self.prefix_token_id)
        plain = [text for text in sorted(texts) if not has_bos_prefix(text, bos)]
        options = _add_special_kwargs(None, self.add_bos_token)
        ids = self.tokenizer(plain, **options, verbose=False)["input_ids"] if plain else []
        self.encoded = dict(zip(plain, ids, strict=True))
        try:
            return super().loglikelihood(requests, disable_tqdm)
        finally:
            self.encoded = {}

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, *args: Any, **options: Any) -> list[int]:
        """The tokens of a text: those made before, if it was asked for as lm-eval asks for requests."""
        known = None if add_special_tokens is not None or args or options else self.encoded.get(string)
        return known if known is not None else super().tok_encode(string, add_special_tokens, *args, **options)


def _tokenised(context: str, continuation: str) -> tuple[str, ...]:
    """What is tokenised of a request: the context without its last spaces, and all of it; nothing without a context."""
    return (context.rstrip(), context + continuation) if context else ()
