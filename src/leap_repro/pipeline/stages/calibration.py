"""`python -m leap_repro.pipeline calibration`: turn text into a shard of token ids, with one model's tokenizer."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from leap_repro.calibration.packed import CURSOR, pack_sequences
from leap_repro.calibration.shards import WINDOWS, ids_sha256
from leap_repro.errors import UserError
from leap_repro.models.checkpoint import position_limit, read_config
from leap_repro.models.load import load_tokenizer
from leap_repro.pipeline.provenance import provenance, scratch_folder
from leap_repro.store.artifacts import Artifact, writing
from leap_repro.store.tensor_files import save_tensors
from leap_repro.store.texts import read_texts, text_files
from leap_repro.store.tokens import TENSOR, mapped_ids, shard_name


def check_length(model: Path, length: int) -> None:
    """UserError if `length` tokens are more than the model in this folder has positions for."""
    limit = position_limit(read_config(model))
    if limit is not None and length > limit:
        raise UserError(f"calibration length {length} exceeds the model's {limit} positions")


def main(arguments: argparse.Namespace) -> None:
    """Tokenise, cut, write token shards (int32 [sequences, length] in all)."""
    sources = {"model": Artifact.read(arguments.model), "text": Artifact.read(arguments.text)}
    parameters = {name: getattr(arguments, name) for name in ("recipe", "sequences", "length", "seed", "after")}
    origin = provenance(("leap_repro.pipeline.stages.calibration",), parameters, sources)
    folder = sources["model"].verified_payload(without=".safetensors")
    check_length(folder, arguments.length)
    tokenizer = load_tokenizer(folder)
    with writing(arguments.output, origin) as (payload, facts):
        if arguments.recipe in WINDOWS:
            write_windows(tokenizer, sources["text"], arguments, payload)
        else:
            write_packed(tokenizer, sources["text"], arguments, payload, scratch_folder(arguments.scratch, origin))
        shards = [mapped_ids(path) for path in sorted(payload.iterdir())]
        facts |= parameters | {"ids_sha256": ids_sha256(shards)}


def write_windows(tokenizer: Any, text: Artifact, arguments: argparse.Namespace, payload: Path) -> None:
    """The calibration sample, one file."""
    count, draw = arguments.after + arguments.sequences, WINDOWS[arguments.recipe]
    windows = draw(tokenizer, read_texts(text), count, arguments.length, arguments.seed)
    save_tensors({TENSOR: windows[arguments.after :]}, payload / shard_name(0, 1))


def write_packed(
    tokenizer: Any, text: Artifact, arguments: argparse.Namespace, payload: Path, scratch: Path | None
) -> None:
    """The packed stream, made in `scratch`, where a killed pass resumes, and moved when it is whole."""
    sizes = (arguments.sequences, arguments.length)
    grouped = arguments.recipe == "grouped"
    for path in pack_sequences(tokenizer, text_files(text), *sizes, arguments.seed, scratch or payload, grouped):
        shutil.move(path, payload / path.name)
    (payload / CURSOR).unlink(missing_ok=True)
    if scratch:
        shutil.rmtree(scratch, ignore_errors=True)


def parser() -> argparse.ArgumentParser:
    """The stage's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.pipeline calibration", description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="folder of the fetched model (its tokenizer is used)")
    parser.add_argument("--text", required=True, type=Path, help="folder of the fetched text")
    parser.add_argument("--recipe", required=True, choices=("packed", "grouped", *WINDOWS))
    parser.add_argument("--sequences", required=True, type=int)
    parser.add_argument("--length", required=True, type=int, help="tokens per sequence")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--after", type=int, default=0, help="with windows: number of windows to skip")
    parser.add_argument("--scratch", type=Path, help="folder of a packing pass's shards, from which it resumes")
    parser.add_argument("--output", required=True, type=Path)
    return parser
