"""lm-eval's model of a Hugging Face checkpoint: it tokenises all requests in one call, not in two each, leaves the
model as it was given, and counts the questions that are longer than the model's positions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import _add_special_kwargs, has_bos_prefix

from leap_repro.errors import UserError
from leap_repro.models.checkpoint import position_limit
from leap_repro.models.tokenizing import without_appended

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Encoded = tuple[tuple[str, str], list[int], list[int]]
"""A request as lm-eval hands it to the model: context and continuation, the ids of each."""
ALLOWED = 0.05
"""The largest share of a task's questions that may be cut: with them, an accuracy may be so far off."""


@dataclass(frozen=True)
class Cut:
    """Of the `asked` questions of a task, how many begin before the `tokens` that the model sees."""

    questions: int
    asked: int
    tokens: int


class BatchEncoded(HFLM):
    """Scores the same tokens as `HFLM`: only the calls of the tokenizer are fewer (a test compares every request).

    What the tokenizer puts behind a text is left out. `task_of` maps lm-eval's tasks to those whose questions are
    counted together; `cut` has the tasks of which questions were cut. Log-probabilities are taken and summed in float32
    whatever the model's type: in bfloat16's eight bits answers tie, and of a tie lm-eval takes the first.
    """

    encoded: dict[str, list[int]] = {}  # noqa: RUF012  (empty, and replaced before anything is put in)
    asked: Sequence[Instance] = ()

    def __init__(
        self,
        pretrained: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        task_of: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        """`options` are HFLM's. UserError for a tokenizer that cannot be kept from ending texts."""
        # HFLM ties what the configuration says is tied, be it so in the model or not: it would score another model.
        pretrained.tie_weights = lambda *_, **__: None
        try:
            own = {"tokenizer": without_appended(tokenizer), "softmax_dtype": "float32"}
            super().__init__(pretrained=pretrained, **own, **options)
        finally:
            del pretrained.tie_weights
        self.task_of, self.cut = task_of or {}, dict[str, Cut]()
        limit = position_limit(pretrained.config.to_dict())
        self._max_length = min(self.max_length, limit or self.max_length)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As lm-eval's; the texts that it is going to tokenise are tokenised first."""
        texts = {text for request in requests for text in _tokenised(*request.args)}
        bos = self.tokenizer.decode(self.prefix_token_id)
        plain = [text for text in sorted(texts) if not has_bos_prefix(text, bos)]
        options = _add_special_kwargs(None, self.add_bos_token)
        ids = self.tokenizer(plain, **options, verbose=False)["input_ids"] if plain else []
        self.encoded, self.asked = dict(zip(plain, ids, strict=True)), requests
        try:
            return super().loglikelihood(requests, disable_tqdm)
        finally:
            self.encoded, self.asked = {}, ()

    def _loglikelihood_tokens(self, requests: list[Encoded], *args: Any, **options: Any) -> list[tuple[float, bool]]:
        """As lm-eval's, after a look at what it would cut; UserError if that is too much, or no request at all."""
        if self.asked:
            self.cut |= cut_questions(zip(self.asked, requests, strict=True), self.max_length, self.task_of)
        return super()._loglikelihood_tokens(requests, *args, **options)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, *args: Any, **options: Any) -> list[int]:
        """The tokens of a text: those made before, if it was asked for as lm-eval asks for requests."""
        known = None if add_special_tokens is not None or args or options else self.encoded.get(string)
        return known if known is not None else super().tok_encode(string, add_special_tokens, *args, **options)


def _tokenised(context: str, continuation: str) -> tuple[str, ...]:
    """What is tokenised of a request: the context without its last spaces, and all of it; nothing without a context."""
    return (context.rstrip(), context + continuation) if context else ()


def cut_questions(
    encoded: Iterable[tuple[Instance, Encoded]], positions: int, task_of: Mapping[str, str]
) -> dict[str, Cut]:
    """{task: its questions that are cut from the left, since one of their requests has more than `positions` tokens
    before the last}, of the tasks that have any.

    UserError for a task with more than the share ALLOWED of them, or a question that cannot be asked at all.
    """
    asked, cut = defaultdict[str, set[Any]](set), defaultdict[str, set[Any]](set)
    for request, (_, context, continuation) in encoded:
        task = task_of.get(request.task_name or "", request.task_name or "")
        question = (request.task_name, request.doc_id)
        asked[task].add(question)
        if not context or not 0 < len(continuation) <= positions:
            sizes = f"context {len(context)} tokens, answer {len(continuation)}"
            raise UserError(
                f"question {request.doc_id} of {request.task_name} cannot be scored with this tokenizer ({sizes}): "
                f"each needs at least one token, and the answer may have at most the model's {positions} positions"
            )
        if len(context) + len(continuation) - 1 > positions:
            cut[task].add(question)
    found = {task: Cut(len(cut[task]), len(asked[task]), positions) for task in asked if cut[task]}
    for task, one in found.items():
        if one.questions > ALLOWED * one.asked:
            raise UserError(
                f"{one.questions} of {one.asked} questions of {task} are longer than the model's {positions} positions "
                f"and would lose their beginning; at most {100 * ALLOWED:g} % may, because the accuracy would mean "
                "little"
            )
    return found
