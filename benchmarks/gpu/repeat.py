"""The same training twice, and once more from a checkpoint: the same bits on this device?"""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path

import torch

from gpu.rows import Row, Rows
from gpu.shapes import random_model, random_tokens, trainer_of
from leap_repro.prune.learned.trainer import MaskTrainer

STEPS, LAYERS = 6, 2
OPTIONS = {"steps": STEPS, "batch_size": 4, "micro_batch_size": 2, "checkpoint_every": 1}


def repeat(rows: Rows, tiny: bool) -> None:
    """With blocks kept and with blocks run again."""
    name, length = ("tiny", 16) if tiny else ("0.5B", 2048)
    for recompute in (False, True):
        key = {"part": "repeat", "shape": name, "steps": STEPS, "recompute": recompute}
        rows.measure(key, partial(_repeat_row, name, length, recompute))


def _repeat_row(name: str, length: int, recompute: bool) -> Row:
    """Whether losses and logits of the second and of the resumed training are the first one's."""
    model = random_model(name, None if name == "tiny" else LAYERS)
    tokens = random_tokens(name, 8, length)
    options = OPTIONS | {"gradient_checkpointing": recompute}
    make = partial(trainer_of, model, tokens, options)
    first, second = make(), make()
    first.run(None)
    second.run(None)
    resumed, went_on_after = _resumed(make)
    strict = torch.are_deterministic_algorithms_enabled()
    return {
        "same_again": _same(first, second),
        "same_resumed": _same(first, resumed),
        "resumed_after_step": went_on_after,
        "strictly_deterministic": strict,
        "losses": [row["loss_lm"] for row in first.rows],
    }


def _resumed_from(folder: Path) -> int:
    """The step of the older of the two checkpoints in a folder, whose newest is deleted."""
    *_, older, newest = sorted(folder.glob("state-*"))
    shutil.rmtree(newest)
    return int(older.name.removeprefix("state-"))


def _resumed(make: partial[MaskTrainer]) -> tuple[MaskTrainer, int]:
    """A training that goes on from a checkpoint of another one, and the step after which."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Path(folder)
        make().run(checkpoints)
        after = _resumed_from(checkpoints)
        trainer = make()
        trainer.run(checkpoints)
    return trainer, after


def _same(one: MaskTrainer, other: MaskTrainer) -> bool:
    losses = [row["loss"] for row in one.rows] == [row["loss"] for row in other.rows]
    pairs = zip(one.trained().values(), other.trained().values(), strict=True)
    return losses and all(ours.equal(theirs) for ours, theirs in pairs)
