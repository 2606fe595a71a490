"""What a tokenizer does besides cutting text: the special tokens that it puts at either end, and whether it cuts as its
own tokenizer.json says.

A text that is read goes on: a window, a question's context and an answer end where they end. So what a tokenizer puts
before a text stays, and what it puts behind one (an EOS, as tokenizers of embedding models and of some fine-tunes do)
is left out, everywhere: a question whose context ends in EOS is answered as if nothing had been asked.
"""

from __future__ import annotations

import copy
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leap_repro.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

FILE = "tokenizer.json"
LEFT_OUT = "left_out"
"""The attribute by which a tokenizer that appends nothing any more keeps the tokens that it would have."""
ENDS = ("The cat sat on the mat.", "In 2024, 31 towns had two")
"""What is added at the ends is the same for both, or depends on the text."""
RUN = 48
PROBE = (
    "The friend of Dala lives in Arden, doesn't she? They're sure she'd say: it's 1 of 3.",
    "In 2024, 1234567890 people paid $3.14159 (or 1,000,000) at 10:45; x1y22z333.",
    "def f(x):\n    return {'a': x ** 2}  # two\n\n\tif x != 0x1F: pass\r\n",
    "two  spaces,   three,\nnew line\n\nblank line \n  and more \t",
    "Straße, naïve café, Ωμέγα, Привет, 你好，世界, こんにちは, हिन्दी, 🙂👩‍👧, ½",
    "WORDS in CAPS, camelCase, snake_case, <tag>, [x](http://a.b/c?d=e&f), a\\b, ~`^|@#%*+=",
    *(f"x{mark * RUN}!" for mark in "a0 .-A"),
    f"{'word ' * RUN}!",
)
"""Text that tokenizers cut in different ways; each line begins with a letter, since classes and files of one tokenizer
may differ in what they make of spaces before all text. Long runs are where a bad expression takes for ever."""

DRAWN, TOGETHER = 4096, 8
"""How many tokens of a vocabulary are tried besides, and how many in a line."""


@dataclass(frozen=True)
class Added:
    """The ids that a tokenizer puts before and behind every text."""

    before: tuple[int, ...]
    behind: tuple[int, ...]


def added_tokens(tokenizer: PreTrainedTokenizerBase) -> Added:
    """What the tokenizer adds to a text; UserError if that depends on the text."""
    found = {_around(tokenizer, text) for text in ENDS}
    added = found.pop()
    if added is None or found:
        raise UserError("the tokenizer changes texts by their special tokens in an unsupported way")
    return added


def _around(tokenizer: PreTrainedTokenizerBase, text: str) -> Added | None:
    """None if the text's own ids are no part of what the tokenizer makes of it."""
    plain, whole = (_ids(tokenizer, text, add_special_tokens=add) for add in (False, True))
    for start in range(len(whole) - len(plain) + 1):
        end = start + len(plain)
        if whole[start:end] == plain:
            return Added(tuple(whole[:start]), tuple(whole[end:]))
    return None


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, **options: Any) -> list[int]:
    return list(tokenizer(text, verbose=False, **options)["input_ids"])


def without_appended(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer itself if it puts nothing behind a text, else a copy that does not; UserError as `added_tokens`, or
    for one that cannot be kept from it."""
    added = added_tokens(tokenizer)
    if not added.behind:
        return tokenizer
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(list(added.behind))]
    copied = copy.deepcopy(tokenizer)
    _put_before_only(copied, added.before)
    if added_tokens(copied) != Added(added.before, ()):
        kind = type(tokenizer).__name__
        raise UserError(f"the tokenizer appends {' '.join(tokens)} to every text, which a {kind} cannot leave out")
    setattr(copied, LEFT_OUT, tuple(tokens))
    return copied


def _put_before_only(tokenizer: Any, before: tuple[int, ...]) -> None:
    """Change what the tokenizer does last: the template of its backend, or its own method where it has none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        tokenizer.build_inputs_with_special_tokens = lambda first, second=None: [*before, *first, *(second or [])]
        return
    from tokenizers.processors import TemplateProcessing

    name = "before"
    tokens = tokenizer.convert_ids_to_tokens(list(before))
    pieces, known = ([name], [{"id": name, "ids": list(before), "tokens": tokens}]) if before else ([], [])
    backend.post_processor = TemplateProcessing(
        single=[*pieces, "$A"], pair=[*pieces, "$A", "$B"], special_tokens=known
    )


def left_out(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokens that the tokenizer would put behind a text and no longer does; empty for none."""
    return " ".join(vars(tokenizer).get(LEFT_OUT, ()))


def check_file(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """UserError unless the tokenizer cuts text as the tokenizer.json in `folder` does, where there is one.

    transformers builds some tokenizers from their class, with its own rules for splitting text, and takes only the
    vocabulary from the file.
    """
    if not (folder / FILE).is_file():
        return
    import tokenizers

    theirs = tokenizers.Tokenizer.from_file(str(folder / FILE))
    theirs.no_truncation()
    theirs.no_padding()
    for text in (*PROBE, *_of_vocabulary(theirs)):
        own, said = _ids(tokenizer, text, add_special_tokens=False), theirs.encode(text, add_special_tokens=False).ids
        if own != said:
            raise UserError(
                f"{folder}: the tokenizer that tokenizer_class in tokenizer_config.json names "
                f"({_class_of(folder) or type(tokenizer).__name__}) cuts {text[:40]!r} into {len(own)} tokens, and "
                f"{FILE} into {len(said)} others: name PreTrainedTokenizerFast, or the class that the file was made for"
            )


def _of_vocabulary(tokenizer: Tokenizer) -> Iterator[str]:
    """Lines made of tokens that the vocabulary has, evenly drawn: what another split would not find again."""
    ids = sorted(tokenizer.get_vocab(with_added_tokens=False).values())
    drawn = ids[:: max(1, len(ids) // DRAWN)]
    for start in range(0, len(drawn), TOGETHER):
        text = f"x{tokenizer.decode(drawn[start : start + TOGETHER])}"
        if "\ufffd" not in text and unicodedata.normalize("NFC", text) == text:
            yield text


def _class_of(folder: Path) -> str | None:
    try:
        return json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("tokenizer_class")
    except (OSError, ValueError):
        return None
