"""How far a long stage is, as lines in its log, in tqdm's form: whatever a stage counts, one reader can follow it
(`pipeline/job_log.py`).

    blocks:  40%|████      | 12/30 [00:40<01:00,  3.33s/ blocks] …words of the stage

Lines come after the first part, after the last, and every few seconds in between; never one for each part of many.
tqdm's own bars, of libraries and of ours, are such lines too, with a carriage return between them.
"""

from __future__ import annotations

import logging
import time

from tqdm import tqdm

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Logs how many of `total` parts are done, `what` names them in the plural; `done` are there from the start."""

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.resumed_at = what, total, done
        self.started = time.monotonic()
        self.last_line = float("-inf")

    def report(self, done: int, words: str = "") -> None:
        """Take note that so many are done; `words` is what else there is to say."""
        now = time.monotonic()
        if done < self.total and now - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        meter = tqdm.format_meter(
            done,
            self.total,
            now - self.started,
            ncols=70,
            initial=self.resumed_at,
            unit=f" {self.what}",
            prefix=self.what,
        )
        log.info("%s", f"{meter} {words}".rstrip())
