"""The folder that travels to the GPU machine, in parts that each fit one transfer.

1/ and 2/   half of the model's file each
3/          the model's configuration, token ids, questions as tokens
about.json  in each of them: the commit, the model's file, what the texts are
wheels/     in each of them, for a machine that lacks these packages
"""

from __future__ import annotations

import io
import json
import lzma
import math
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu.pairs import Pairs
from leap_repro.errors import UserError
from leap_repro.evaluate.perplexity import window_losses, windows_of
from leap_repro.models.load import DTYPES, best_device, load_model, ready

PARTS = ("1", "2", "3")
HALF, ABOUT, CONFIG = "model.part", "about.json", "config.json"
TOKENS, QUESTIONS = "tokens.npz.xz", "questions.npz.xz"
C4, SAMPLED = "C4", "sampled"
"""The texts to train on: what travelled, or what the dense model writes there."""
CLOSE = 0.02
"""How far the dense model's loss may be from the one noted on a CPU: bfloat16 moves it less."""


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays by name, as small as they get."""
    plain = io.BytesIO()
    np.savez(plain, **arrays)
    path.write_bytes(lzma.compress(plain.getvalue(), preset=6))


@cache
def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name; UserError if the file is not there."""
    if not path.is_file():
        raise UserError(f"{path} is not there: copy {path.parent} to this machine")
    with np.load(io.BytesIO(lzma.decompress(path.read_bytes()))) as arrays:
        return dict(arrays)


@dataclass(frozen=True)
class Prepared:
    """What `prepare` wrote, as far as it has been copied here."""

    folder: Path

    def about(self) -> dict[str, Any]:
        """What all parts say of themselves; empty where none is here: only `real` needs them."""
        found = [self.folder / part / ABOUT for part in PARTS]
        there = next((path for path in found if path.is_file()), None)
        return json.loads(there.read_text(encoding="utf-8")) if there else {}

    def tokens(self) -> dict[str, np.ndarray]:
        """Token ids: `train`, and texts to score by name."""
        return load_arrays(self.folder / "3" / TOKENS)

    def text(self, name: str) -> np.ndarray:
        """Token ids to train on: the training text's, or those that the model wrote here.

        UserError for another name, or if there are none yet.
        """
        if name not in (C4, SAMPLED):
            raise UserError(f"there is no text {name!r}; it must be {C4} or {SAMPLED}")
        if name == C4:
            return self.tokens()["train"]
        if not self.sampled.exists():
            raise UserError(f"{self.sampled} is not there: run the part `sample` first")
        return np.load(self.sampled)

    @property
    def sampled(self) -> Path:
        """What the model wrote on this machine."""
        return self.folder / "sampled.npy"

    def questions(self) -> Pairs:
        """Zero-shot questions."""
        return Pairs.of(load_arrays(self.folder / "3" / QUESTIONS))

    def model(self) -> Any:
        """The model on the best device, in bfloat16 on a GPU.

        UserError if a half is missing, or if its loss is not the one that `prepare` found.
        """
        about, dtype = self.about(), "bfloat16" if torch.cuda.is_available() else "float32"
        model, noted = self.read(dtype), about["first_loss"]
        loss = first_loss(model, self.tokens(), about["window"])
        if not math.isclose(loss, noted, rel_tol=CLOSE):
            raise UserError(f"the model's loss is {loss:.4f}, where it was packed {noted:.4f}")
        return model

    def read(self, dtype: str) -> Any:
        """The model of the two halves, its weights rounded to `dtype`. UserError if a half is missing."""
        whole = self._joined()
        return _of_gguf(whole, dtype) if whole.suffix == ".gguf" else load_model(whole.parent, dtype)

    def _joined(self) -> Path:
        """The model's file in a folder with its configuration."""
        name = self.about().get("model")
        halves = [self.folder / part / HALF for part in PARTS[:2]]
        missing = [str(path) for path in halves if not path.is_file()]
        if name is None or missing:
            absent = " and ".join(missing) or str(self.folder / PARTS[0] / ABOUT)
            raise UserError(f"{absent} is not there: copy all parts of {self.folder} here")
        target = self.folder / "model" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(self.folder / "3" / CONFIG, target.parent / CONFIG)
        with target.open("wb") as file:
            for half in halves:
                file.write(half.read_bytes())
        return target


def _of_gguf(path: Path, dtype: str) -> Any:
    """A model whose weights have the values of a GGUF file, rounded to `dtype`."""
    from transformers import AutoModelForCausalLM

    named = {"gguf_file": path.name, "dtype": torch.float32}
    read = AutoModelForCausalLM.from_pretrained(path.parent, **named)
    return ready(read.to(best_device(), DTYPES[dtype]))


def losses_of(model: Any, ids: np.ndarray, window: int, batch: int = 8) -> list[float]:
    """Mean next-token loss of every whole window of a text, in nats."""
    windows = windows_of(ids.astype(np.int64).tolist(), window, None)
    with torch.inference_mode():
        return window_losses(model, windows, batch).tolist()


def first_loss(model: Any, tokens: dict[str, np.ndarray], window: int) -> float:
    """Of the first window of training text."""
    return losses_of(model, tokens["train"][:window], window)[0]
