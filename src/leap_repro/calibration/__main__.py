"""`python -m leap_repro.calibration`: turn text into a shard of token ids for one model's tokenizer."""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow.parquet as pq
from safetensors.torch import save_file

from leap_repro.artifacts import Artifact, writing
from leap_repro.calibration.shards import RECIPES, ids_sha256
from leap_repro.cli import run_stage
from leap_repro.models.load import load_tokenizer
from leap_repro.provenance import provenance


def main(arguments: argparse.Namespace) -> None:
    """Tokenise, cut, write `tokens.safetensors` (int32 [sequences, length])."""
    sources = {"model": Artifact.read(arguments.model), "text": Artifact.read(arguments.text)}
    parameters = {name: getattr(arguments, name) for name in ("recipe", "sequences", "length", "seed")}
    origin = provenance(("leap_repro.calibration.__main__",), parameters, sources)
    tokenizer = load_tokenizer(sources["model"].payload)
    texts = pq.read_table(sources["text"].file("text.parquet")).column("text").to_pylist()
    tokens = RECIPES[arguments.recipe](tokenizer, texts, arguments.sequences, arguments.length, arguments.seed)
    with writing(arguments.output, origin) as (payload, facts):
        save_file({"tokens": tokens}, payload / "tokens.safetensors")
        facts |= parameters | {"ids_sha256": ids_sha256(tokens)}


def parser() -> argparse.ArgumentParser:
    """The stage's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.calibration", description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="folder of the fetched model (its tokenizer is used)")
    parser.add_argument("--text", required=True, type=Path, help="folder of the fetched text")
    parser.add_argument("--recipe", required=True, choices=sorted(RECIPES))
    parser.add_argument("--sequences", required=True, type=int)
    parser.add_argument("--length", required=True, type=int, help="tokens per sequence")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True, type=Path)
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
