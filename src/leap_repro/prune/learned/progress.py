"""How far a training is, as lines in a log: a bar, loss, density, speed and time left; never a line per step."""

from __future__ import annotations

import logging
import time

from tqdm import tqdm

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Logs after the first step, after the last, and every `SECONDS_BETWEEN_LINES` in between."""

    def __init__(self, done: int, steps: int) -> None:
        self.resumed_at, self.steps = done, steps
        self.started = time.monotonic()
        self.last_line = float("-inf")

    def report(self, row: dict[str, float]) -> None:
        """Take note of a finished step's log row."""
        done, now = int(row["step"]) + 1, time.monotonic()
        if done < self.steps and now - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        numbers = f"loss {row['loss_lm']:.3f}"
        if "density_relaxed" in row:
            numbers += f", density {row['density_relaxed']:.3f} ({row['density_hard']:.3f} hard)"
        bar = tqdm.format_meter(
            done, self.steps, now - self.started, ncols=70, initial=self.resumed_at, unit=" steps", prefix="training"
        )
        log.info("%s %s", bar, numbers)
