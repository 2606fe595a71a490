"""`python tools/loss_curve.py`: does this device train as the recorded one? 50 steps of LEAP, loss by loss.

The bundled model, the bundled text, noise that is counted (the same on any device) and float32: what is left to differ
is rounding. `record` writes the curve down, `compare` trains again and holds every step's loss to it; under torchrun,
on several processes. Exit status of `compare`: 0 within the bound, 3 not, 2 it could not be trained.
"""

from __future__ import annotations

from leap_repro.portable import pin, prepare_cuda

prepare_cuda()
pin()  # before torch is loaded

import argparse
import csv
import sys
import tempfile
from fractions import Fraction
from importlib.resources import as_file, files
from pathlib import Path

from leap_repro.cli import report_errors
from leap_repro.errors import UserError
from leap_repro.models.load import DTYPES, best_device, load_model, load_tokenizer
from leap_repro.portable.install import use_portable_kernels
from leap_repro.store.atomic import write_text

MODEL, SPARSITY, SEED = "qwen2.5-0.5b-mini", Fraction("0.6"), 0
SEQUENCES, LENGTH = 400, 128
OPTIONS = {"steps": 50, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 3e-3, "noise_source": "counter"}
BOUNDS = {"float32": 1e-5, "bfloat16": 1e-2}
"""The largest relative difference of a loss that is rounding, by the type of the weights (docs/scaling.md)."""
DEFAULT = Path("benchmarks/loss_curve.csv")


def train(dtype: str, steps: int | None = None) -> list[dict[str, float]]:
    """One log row per step, of all or of the first so many, on the best device, in this process or with the others that
    torchrun started."""
    from leap_repro.calibration.packed import pack_sequences
    from leap_repro.data.text import fetch_text
    from leap_repro.prune.job import Job
    from leap_repro.prune.methods import leap
    from leap_repro.store.tokens import TokenRows

    with as_file(files("leap_repro.miniature") / "released" / MODEL) as model, tempfile.TemporaryDirectory() as folder:
        text, packed = Path(folder) / "text", Path(folder) / "packed"
        text.mkdir()
        fetch_text({"source": "bundled", "split": "mask_training"}, text)
        shards = pack_sequences(load_tokenizer(model), sorted(text.iterdir()), SEQUENCES, LENGTH, SEED, packed)
        tokens = TokenRows(shards)[:]
        job = Job(load_model(model, dtype), leap.Options(**OPTIONS), SPARSITY, SEED, tokens)
        trainer = leap.trainer(job)
        return trainer.run(None) if steps is None else [trainer.step(number) for number in range(steps)]


def read_curve(path: Path) -> list[float]:
    """The losses of a recorded curve, by step; UserError if it is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [float(row["loss_lm"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} is no loss curve (columns step, loss_lm): {error}") from error


def compare(found: list[float], recorded: list[float], bound: float) -> tuple[str, bool]:
    """A sentence with the largest relative difference of a step's loss, and whether it is within the bound."""
    if len(found) != len(recorded):
        raise UserError(f"the recorded curve has {len(recorded)} steps, the training {len(found)}: record it anew")
    gaps = [abs(ours - theirs) / abs(theirs) for ours, theirs in zip(found, recorded, strict=True)]
    worst = max(range(len(gaps)), key=gaps.__getitem__)
    if not gaps[worst]:
        return f"all {len(gaps)} losses are the recorded ones, to the last bit", True
    within = gaps[worst] <= bound
    word = "within" if within else "NOT within"
    return f"step {worst} differs most, by {gaps[worst]:.1e} of its loss: {word} the bound of {bound:g}", within


def main(arguments: argparse.Namespace) -> int:
    """Train, then record or compare; the exit status."""
    from leap_repro.prune.learned import processes
    from leap_repro.prune.methods import leap
    from leap_repro.prune.run import arithmetic

    use_portable_kernels(arguments.dtype)
    processes.join()
    try:
        with arithmetic(leap.METHOD):
            rows = train(arguments.dtype)
        first = processes.rank() == 0
    finally:
        processes.leave()
    if arguments.command == "record":
        lines = ["step,loss_lm", *(f"{row['step']},{row['loss_lm']!r}" for row in rows)]
        write_text(arguments.curve, "\n".join(lines) + "\n")
        return 0
    said, within = compare([row["loss_lm"] for row in rows], read_curve(arguments.curve), BOUNDS[arguments.dtype])
    if first:
        print(f"{best_device()}, {arguments.dtype}: {said}")
    return 0 if within else 3


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python tools/loss_curve.py", description=__doc__)
    parser.add_argument("command", choices=("record", "compare"))
    parser.add_argument("--dtype", default="float32", choices=[name for name in DTYPES if name in BOUNDS])
    parser.add_argument("--curve", type=Path, default=DEFAULT, help="the recorded curve, a csv file")
    return parser


if __name__ == "__main__":
    with report_errors():
        sys.exit(main(parser().parse_args()))
