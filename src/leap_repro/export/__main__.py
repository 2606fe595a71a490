"""`python -m leap_repro.export`: write a pruned model as a checkpoint, dense or without its zeros, with a model card.

A dense export equals the base checkpoint except for the numbers in the pruned matrices: files, tensor names, layout and
types are the same, and tokenizer and processor are the same to the byte. `--format packed` and `--format 2:4` leave out
zeros (docs/export-formats.md). The export is written file by file, so its memory is that of the largest file. With
`--task-yamls` the task definitions are written too, so that

    lm_eval --model hf --model_args pretrained=<output>,dtype=float32 --include_path <task-yamls> --tasks mmlu,piqa,...

evaluates a dense export on the same questions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from leap_repro.cli import run_stage
from leap_repro.evaluate.tasks import write_task_yamls
from leap_repro.export.folder import refuse_filled
from leap_repro.export.forms import DENSE, FORMS, QUANTISED
from leap_repro.export.lineage import lineage_of
from leap_repro.export.write import export_cell
from leap_repro.models.load import DTYPES
from leap_repro.places import expanded
from leap_repro.store.artifacts import Artifact


def main(arguments: argparse.Namespace) -> None:
    """Check, write."""
    output = expanded(arguments.output, "--output")
    refuse_filled(output)
    model = Artifact.read(arguments.model, to_be_sure=True)
    lineage = lineage_of(model, Artifact.read(arguments.cell, to_be_sure=True), arguments.command, arguments.license)
    export_cell(model.verified_payload(), lineage, output, arguments.dtype, arguments.format, arguments.values)
    if arguments.task_yamls:
        tasks = Artifact.read(arguments.tasks)
        write_task_yamls(tasks.verified_payload(), arguments.task_yamls, tasks.facts.get("definitions"))


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.export", description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="folder of the fetched model")
    parser.add_argument("--cell", required=True, type=Path, help="folder of the hardened cell")
    parser.add_argument("--format", choices=(DENSE, *FORMS), default=DENSE, help="format of the pruned matrices")
    parser.add_argument("--values", choices=QUANTISED, help="round the values that --format packed keeps")
    parser.add_argument("--dtype", choices=DTYPES, help="type of all weights; default: each tensor's as in the model")
    parser.add_argument("--tasks", type=Path, help="folder of the fetched task sets, for --task-yamls")
    parser.add_argument("--task-yamls", type=Path, help="also write lm-eval task definitions here")
    parser.add_argument("--license", help="licence of the base model, for the card")
    parser.add_argument("--command", help="the command that made it, for the card")
    parser.add_argument("--output", required=True, type=Path, help="the checkpoint folder to write")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
