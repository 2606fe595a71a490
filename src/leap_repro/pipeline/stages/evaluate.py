"""`python -m leap_repro.pipeline evaluate`: evaluate one hardened cell on six zero-shot tasks and by perplexity.

Writes `metrics.parquet` (one row per metric, with its protocol) and `outcomes.parquet` (one row per question).
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from leap_repro.evaluate.rows import accuracy_rows, dropped_shares, perplexity_rows
from leap_repro.evaluate.zero_shot import evaluate_tasks, stay_offline
from leap_repro.models.cell import apply_cell
from leap_repro.models.identity import require_made_from
from leap_repro.models.load import load_model, load_tokenizer
from leap_repro.models.shares import shares_of
from leap_repro.pipeline.provenance import provenance
from leap_repro.portable import CHOICES, PORTABLE
from leap_repro.portable.deterministic import deterministic
from leap_repro.portable.install import promised, use_portable_kernels
from leap_repro.store.artifacts import Artifact, writing
from leap_repro.store.texts import read_texts

log = logging.getLogger(__name__)


def main(arguments: argparse.Namespace) -> None:
    """Load model and cell, check the counts, evaluate, write."""
    if arguments.bits == PORTABLE:
        use_portable_kernels(arguments.dtype)
    stay_offline()
    names = ("model", "cell", "tasks", "text")
    sources = {name: Artifact.read(getattr(arguments, name), to_be_sure=True) for name in names}
    require_made_from(sources["cell"], sources["model"])
    scoring = ("lengths", "windows", "questions", "batch_size", "dtype")
    parameters = {name: getattr(arguments, name) for name in scoring}
    parameters["bits"] = promised(arguments.bits, arguments.dtype)
    origin = provenance(("leap_repro.pipeline.stages.evaluate",), parameters, sources)
    folder = sources["model"].verified_payload()
    model, tokenizer = load_model(folder, arguments.dtype), load_tokenizer(folder)
    kept = apply_cell(model, sources["cell"])
    log.info("%s keeps %d of %d weights", sources["cell"].facts["cell"], kept, sources["cell"].facts["prunable"])
    texts = read_texts(sources["text"])
    with deterministic(), torch.inference_mode():
        scoring = (arguments.lengths, arguments.batch_size, arguments.windows)
        rows = perplexity_rows(model, tokenizer, texts, *scoring)
        tasks, further = sources["tasks"].verified_payload(), sources["tasks"].facts.get("definitions", {})
        answers = evaluate_tasks(model, tokenizer, tasks, arguments.batch_size, further, arguments.questions)
    rows = accuracy_rows(answers) + rows
    with writing(arguments.output, origin) as (payload, facts):
        pq.write_table(pa.Table.from_pylist(rows), payload / "metrics.parquet")
        pq.write_table(pa.Table.from_pylist(answers.outcomes), payload / "outcomes.parquet")
        facts |= {"cell": sources["cell"].facts["cell"], "kept": kept} | dropped_shares(shares_of(model), kept)


def parser() -> argparse.ArgumentParser:
    """The stage's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.pipeline evaluate", description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="folder of the fetched model")
    parser.add_argument("--cell", required=True, type=Path, help="folder of the hardened cell")
    parser.add_argument("--tasks", required=True, type=Path, help="folder of the fetched task sets")
    parser.add_argument("--text", required=True, type=Path, help="folder of the fetched perplexity text")
    parser.add_argument("--lengths", required=True, type=int, nargs="+", help="perplexity window lengths in tokens")
    parser.add_argument("--windows", type=int, help="number of windows of each length to score; default: all")
    parser.add_argument("--questions", type=int, help="questions of each task, a seeded sample; default: all")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument(
        "--bits", default=PORTABLE, choices=CHOICES, help="portable or native kernels: docs/numerics.md"
    )
    parser.add_argument("--output", required=True, type=Path)
    return parser
