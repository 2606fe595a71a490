"""How far a job says it is: the last line of progress in its log, in tqdm's form, whoever wrote it.

`leap_repro.progress` writes such lines, and so do bars of ours and of libraries. The reader is not beside the writer,
so that no result is stale when it is edited.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

TAIL_BYTES = 2**14
"""What of a log is read for its last line: a line of a bar has some hundred bytes."""
LIBRARIES = ("Loading weights",)
"""Bars of libraries that say nothing of the job: a second at its start."""
FIRST_PARTS = ("windows of",)
"""How what a job counts before its main part begins: shown, but no share of the job."""
METER = re.compile(
    r"(?:Running )?(?P<what>[\w .@-]+): +(?P<percent>\d+)%\|[^|\r\n]*\| *(?P<done>[\d.]+[kMG]?)/(?P<total>[\d.]+[kMG]?)"
    r" \[[\d:]+<(?P<left>[\d:?]+)[^\]\r\n]*\] *(?P<words>[^\r\n]*)"
)


@dataclass(frozen=True)
class Meter:
    """The last line of progress in a log: `done` of `total` `what`, as the line has them; `share` of the job in [0, 1],
    0 before its main part; `left` the time that it foretells, "?" where it does not; `words` what the stage says
    besides."""

    what: str
    share: float
    done: str
    total: str
    left: str
    words: str

    def __str__(self) -> str:
        words = f", {self.words}" if self.words else ""
        left = "" if "?" in self.left else f", {self.left} left"
        return f"{self.done} of {self.total} {self.what}{words}{left}"


def last_meter(path: Path) -> Meter | None:
    """What the last line of progress in a log says; None while there is none, or no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return None
    found = [match for match in METER.finditer(text) if not match["what"].strip().startswith(LIBRARIES)]
    if not found:
        return None
    parts = found[-1].groupdict()
    what = parts["what"].strip()
    return Meter(
        what=what,
        share=0.0 if what.startswith(FIRST_PARTS) else min(int(parts["percent"]), 100) / 100,
        done=parts["done"],
        total=parts["total"],
        left=parts["left"],
        words=parts["words"].strip(),
    )
