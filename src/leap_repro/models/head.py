"""The head of a causal language model by itself, so that the scores of all tokens are never there at once.

Heads differ: some scale their scores, some squash or shift them. None is known here by its family. The model's own
forward pass is run with its backbone answering with states that are given, so that what it does to them is what it
always does; a check on a few tokens shows whether scores made in parts are the model's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from leap_repro.models.load import vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
TOKENS, CUT = 16, 5
"""A check's tokens, and where they are cut in two."""
ROUNDINGS = 8
"""How many roundings of the model's type, at the largest score, scores in parts may be away."""


class Head:
    """What a model makes of its backbone's last hidden states."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.backbone = model, cast(nn.Module, model.get_decoder())
        self.output: Callable[..., Any] = dict

    @classmethod
    def of(cls, model: PreTrainedModel) -> Head | None:
        """The model's head, or None, with a line in the log, where scores in parts are not those of the whole pass."""
        try:
            head = cls(model)
            if head._agrees():
                return head
            why = "they differ from those of a whole pass"
        except Exception as error:  # a model of its own code may want anything of its backbone
            why = f"{type(error).__name__}: {error}"
        log.warning("%s: scores over the vocabulary are computed at once, not in parts (%s)", type(model).__name__, why)
        return None

    def states(self, tokens_BT: Tensor) -> Tensor:
        """The backbone's last hidden states [B, T, D] as the model calls it, with their graph."""
        backbone, found = self.backbone.forward, []

        def noting(*args: Any, **kwargs: Any) -> Any:
            output = backbone(*args, **kwargs)
            self.output = type(output)
            found.append(output.last_hidden_state)
            return self.output(last_hidden_state=found[0][:1, :1])

        with self._answering(noting):
            self.model(tokens_BT, use_cache=False)
        return found[0]

    def scores(self, states_ND: Tensor) -> Tensor:
        """The scores [N, V] of states that `states` gave before. (Not through the model's hooks: it is no pass.)"""
        answer = self.output(last_hidden_state=states_ND[None])
        tokens_BT = torch.zeros(1, len(states_ND), dtype=torch.long, device=states_ND.device)
        with self._answering(lambda *args, **kwargs: answer):
            return self.model.forward(tokens_BT, use_cache=False).logits[0]

    @contextmanager
    def _answering(self, answer: Callable[..., Any]) -> Iterator[None]:
        """Within it, `answer` takes the place of the backbone's forward pass."""
        self.backbone.forward = answer
        try:
            yield
        finally:
            del self.backbone.forward

    @torch.no_grad()
    def _agrees(self) -> bool:
        if self.backbone is self.model:
            raise TypeError("its backbone is not a separate module")
        device = next(self.model.parameters()).device
        tokens_BT = torch.arange(TOKENS, device=device)[None] % vocabulary_size(self.model)
        whole = self.model(tokens_BT, use_cache=False).logits[0]
        states = self.states(tokens_BT)[0]
        parts = torch.cat([self.scores(states[:CUT]), self.scores(states[CUT:])])
        allowed = ROUNDINGS * torch.finfo(whole.dtype).eps * whole.abs().max()
        return parts.shape == whole.shape and bool((parts - whole).abs().max() <= allowed)
