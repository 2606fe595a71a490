"""A quarter of an hour on a GPU: what only a GPU can show of this project, in three commands.

    python benchmarks/gpu_quarter.py prepare FOLDER …     # what travels, and the three commands
    python3 benchmarks/gpu_quarter.py run FOLDER PART …   # on the GPU machine, without a network
    python benchmarks/gpu_quarter.py report ROWS …        # the pages from the rows

docs/gpu.md has it step by step, with a rehearsal on a CPU (`--tiny`).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path

from gpu.folder import Prepared
from gpu.real import Budget, real
from gpu.repeat import repeat
from gpu.rows import Rows, read_rows
from gpu.sample import sample
from gpu.speed import curve, env, kernels, one_shot
from gpu.steps import memory, steps
from measure import place

from leap_repro.cli import report_errors
from leap_repro.errors import UserError
from leap_repro.models.load import best_device
from leap_repro.portable.deterministic import deterministic

PARTS: dict[str, Callable[[Rows, bool], None]] = {
    "env": env,
    "kernels": kernels,
    "curve": curve,
    "one_shot": one_shot,
    "repeat": repeat,
    "steps": steps,
    "memory": memory,
}
"""What can be measured without anything that `prepare` wrote."""
NAMES = (*PARTS, "sample", "real")


def prepare(asked: argparse.Namespace) -> None:
    """Write the folder and print the commands."""
    from gpu.prepare import Sources, commands, prepare, tiny_sources

    with tempfile.TemporaryDirectory() as scratch:
        if asked.tiny:
            sources = tiny_sources(Path(scratch))
        else:
            given = {name: getattr(asked, name) for name in ("model", "train", "text", "tasks")}
            missing = [f"--{name}" for name, value in given.items() if not value]
            if missing:
                raise UserError(f"prepare needs {', '.join(missing)}, or --tiny for a rehearsal")
            further = ("gguf", "held_out", "questions", "wheels")
            sources = Sources(**given, **{name: getattr(asked, name) for name in further})
        prepare(asked.folder, sources)
    for part, command in commands(asked.folder, asked.tiny, bool(sources.wheels)).items():
        print(f"\n# with the checkout and {asked.folder / part} on the GPU machine:")
        print(command)


def run(asked: argparse.Namespace) -> None:
    """Measure the parts one after the other; none stops another."""
    if not asked.tiny and best_device().type != "cuda":
        raise UserError("no GPU is here: --tiny rehearses without one")
    prepared = Prepared(asked.folder)
    commit = prepared.about().get("commit", "unknown")
    facts = place(best_device().type) | {"commit": commit, "tiny": asked.tiny}
    known = read_rows(sorted(asked.folder.rglob("*.jsonl")))
    rows = Rows(asked.rows, facts, known, asked.seconds)
    work = PARTS | {
        "sample": partial(sample, prepared=prepared),
        "real": partial(real, prepared=prepared, budgets=asked.budgets),
    }
    with deterministic():  # as every stage computes
        for name in asked.parts:
            try:
                work[name](rows, asked.tiny)
            except Exception as error:
                rows.failed({"part": name}, error)


def report(asked: argparse.Namespace) -> None:
    """Write the pages."""
    from gpu.report import write_pages

    write_pages(read_rows(asked.rows), asked.output)


def budget(text: str) -> Budget:
    """SPARSITY:TOKENS, such as 0.6:16000000, or SPARSITY:TOKENS:sampled."""
    sparsity, tokens, *named = text.split(":")
    return Budget(sparsity, int(tokens), *named)


def parser() -> argparse.ArgumentParser:
    """The arguments of the three."""
    parser = argparse.ArgumentParser(prog="python benchmarks/gpu_quarter.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    _prepare_arguments(commands.add_parser("prepare", help="write what travels to the GPU machine"))
    _run_arguments(commands.add_parser("run", help="measure, on the GPU machine"))
    told = commands.add_parser("report", help="write the pages from the rows")
    told.add_argument("rows", type=Path, nargs="+", help="files of rows that came back")
    told.add_argument("--output", type=Path, help="a folder in place of the repository")
    told.set_defaults(main=report)
    return parser


def _prepare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="what travels, in parts of one transfer each")
    parser.add_argument("--model", type=Path, help="folder of the model")
    parser.add_argument("--gguf", type=Path, help="a GGUF file to travel for its weights")
    parser.add_argument("--train", type=Path, nargs="+", help="parquet files with a column text")
    parser.add_argument("--text", type=Path, help="the same, of a text to score")
    parser.add_argument("--tasks", type=Path, help="folder with <set>/<split>.parquet")
    parser.add_argument("--held-out", type=int, default=200, help="documents of C4 to score")
    parser.add_argument("--questions", type=int, help="ask no more of each task; default: all")
    parser.add_argument("--wheels", metavar="PYTHON", help="fetch wheels for it: 3.12")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: a bundled model")
    parser.set_defaults(main=prepare)


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="what `prepare` wrote; its rows are known")
    told = ", ".join(NAMES)
    parser.add_argument("parts", nargs="+", choices=NAMES, metavar="PART", help=told)
    parser.add_argument("--rows", type=Path, required=True, help="a file to add rows to")
    parser.add_argument("--seconds", type=float, default=inf, help="after which nothing begins")
    told = "SPARSITY:TOKENS[:sampled]"
    parser.add_argument("--budgets", type=budget, nargs="+", default=(), help=told)
    parser.add_argument("--tiny", action="store_true", help="a rehearsal on shapes of no size")
    parser.set_defaults(main=run)


if __name__ == "__main__":
    with report_errors():
        asked = parser().parse_args()
        asked.main(asked)
