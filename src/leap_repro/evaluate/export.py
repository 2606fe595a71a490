"""`python -m leap_repro.evaluate.export`: take a pruned model home as an ordinary Hugging Face checkpoint.

With `--task-yamls` it also writes the task definitions, so that the plain command

    lm_eval --model hf --model_args pretrained=<output>,dtype=float32 --include_path <task-yamls> --tasks mmlu,piqa,...

scores the export on the same questions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from leap_repro.cli import run_stage
from leap_repro.evaluate.cell import export_cell
from leap_repro.evaluate.tasks import write_task_yamls
from leap_repro.models.load import load_model
from leap_repro.store.artifacts import Artifact


def main(arguments: argparse.Namespace) -> None:
    """Load, apply, save."""
    folder = Artifact.read(arguments.model).verified_payload()
    export_cell(load_model(folder, arguments.dtype), folder, Artifact.read(arguments.cell), arguments.output)
    if arguments.task_yamls:
        tasks = Artifact.read(arguments.tasks)
        write_task_yamls(tasks.verified_payload(), arguments.task_yamls, tasks.facts.get("definitions"))


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.evaluate.export", description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="folder of the fetched model")
    parser.add_argument("--cell", required=True, type=Path, help="folder of the hardened cell")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--tasks", type=Path, help="folder of the fetched task sets, for --task-yamls")
    parser.add_argument("--task-yamls", type=Path, help="also write lm-eval task definitions here")
    parser.add_argument("--output", required=True, type=Path, help="the checkpoint folder to write")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
