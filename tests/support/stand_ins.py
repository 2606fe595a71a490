"""Stand-ins for the paper's sources: the miniature's models and data in the real layout, under the real ids.

What the real repositories hold besides is there too (pickles, original checkpoints, cards): it must be left alone.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from loopback_hub import Hub, Repository
from safetensors.torch import load_file, save_file

from leap_repro.miniature.questions import task_sets
from leap_repro.miniature.text import pages
from leap_repro.pipeline.reading import read_config

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASED = REPOSITORY / "src/leap_repro/miniature/released"
GATED = ("google/", "meta-llama/")
TOKEN = "hf_loopbackSecretToken"
QUESTIONS = 8
SLIMPAJAMA = "data/train-{index:05d}-of-00048-{tail}.parquet"


def hub_scale(name: str) -> dict[str, Any]:
    """`scales.paper` or `scales.open` of the project's own config."""
    return read_config(project=REPOSITORY)["scales"][name]


def paper_scale() -> dict[str, Any]:
    """`scales.paper` of the project's own config."""
    return hub_scale("paper")


def serve_paper(hub: Hub, folder: Path) -> None:
    """Add every repository that `scales.paper` and `scales.open` name, at the commits that they name."""
    scale = paper_scale()
    for name, spec in (scale["models"] | hub_scale("open")["models"]).items():
        gated = TOKEN if spec["id"].startswith(GATED) else None
        model = folder / "models" / name
        bundled = name if name in scale["models"] else "llama3.2-1b"  # of the open ones too, which have no miniature
        write_model(f"{bundled}-mini", model, shards=2 if name == "llama3.1-8b" else 1)
        hub.add("model", spec["id"], Repository(model, spec["revision"], gated, {"main": spec["revision"]}))
    for id, revision in {(spec["id"], spec["revision"]) for spec in data_sources(scale)}:
        target = folder / "datasets" / id
        WRITERS[id](target)
        (target / "README.md").write_text("A card.\n")
        hub.add("dataset", id, Repository(target, revision, None, {"main": revision}))


def data_sources(scale: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every {id, revision, files} under `data`."""
    for spec in scale["data"].values():
        yield from spec["sets"].values() if "sets" in spec else [spec]


def write_model(bundled: str, target: Path, shards: int = 1) -> None:
    """A released miniature as a hub repository, its weights in `shards` files, with the clutter of real ones."""
    shutil.copytree(RELEASED / bundled, target)
    (target / "README.md").write_text("A card.\n")
    (target / "pytorch_model.bin").write_bytes(b"a pickle")
    (target / "original").mkdir()
    (target / "original/consolidated.00.pth").write_bytes(b"another pickle")
    if shards > 1:
        _shard(target, shards)


def _shard(target: Path, count: int) -> None:
    tensors = load_file(target / "model.safetensors")
    (target / "model.safetensors").unlink()
    places = {}
    for index in range(count):
        name = f"model-{index + 1:05d}-of-{count:05d}.safetensors"
        part = {key: tensors[key] for key in sorted(tensors)[index::count]}
        save_file(part, target / name, metadata={"format": "pt"})
        places |= dict.fromkeys(part, name)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (target / "model.safetensors.index.json").write_text(json.dumps(index))


def write_c4(target: Path) -> None:
    path = target / "en/c4-train.00000-of-01024.json.gz"
    path.parent.mkdir(parents=True)
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        for number, text in enumerate(pages("calibration", 60)):
            lines.write(
                json.dumps({"text": text, "timestamp": "2019-04-25T12:57:54Z", "url": f"https://{number}"}) + "\n"
            )


def write_slimpajama(target: Path) -> None:
    (target / "data").mkdir(parents=True)
    texts = pages("mask_training", 480)
    for index in range(48):
        rows = [
            {"text": text, "meta": {"redpajama_set_name": "RedPajamaC4"}}
            for text in texts[10 * index : 10 * index + 10]
        ]
        path = target / SLIMPAJAMA.format(index=index, tail=f"{index:016x}")
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)


def wikitext_rows() -> list[str]:
    """Lines as in WikiText's parquet: each ends in a line feed, blank ones are empty."""
    rows = [""]
    for number, page in enumerate(pages("test", 30)):
        rows += [f" = Page {number} = \n", "", *(f" {line} \n" for line in page.split("\n")), ""]
    return rows


def write_wikitext(target: Path) -> None:
    path = target / "wikitext-2-raw-v1/test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"text": wikitext_rows()}), path)


def _splits(target: Path, name: str, pattern: str) -> None:
    for split, rows in task_sets()[name].items():
        path = target / pattern.format(split=split)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows[:QUESTIONS]), path)


def write_arc(target: Path) -> None:
    _splits(target, "arc_easy", "ARC-Easy/{split}-00000-of-00001.parquet")
    _splits(target, "arc_challenge", "ARC-Challenge/{split}-00000-of-00001.parquet")


def write_mmlu(target: Path) -> None:
    (target / "all").mkdir(parents=True)
    subjects = {name: splits for name, splits in task_sets().items() if name.startswith("mmlu_")}
    for split in ("test", "dev"):
        rows = [row for splits in subjects.values() for row in splits[split][:QUESTIONS]]
        pq.write_table(pa.Table.from_pylist(rows), target / f"all/{split}-00000-of-00001.parquet")


WRITERS = {
    "allenai/c4": write_c4,
    "DKYoon/SlimPajama-6B": write_slimpajama,
    "Salesforce/wikitext": write_wikitext,
    "cais/mmlu": write_mmlu,
    "baber/piqa": lambda target: _splits(target, "piqa", "piqa_{split}.parquet"),
    "allenai/ai2_arc": write_arc,
    "allenai/winogrande": lambda target: _splits(target, "winogrande", "winogrande_xl/{split}-00000-of-00001.parquet"),
    "allenai/openbookqa": lambda target: _splits(target, "openbookqa", "main/{split}-00000-of-00001.parquet"),
}


def expectations(scale: str = "paper") -> dict[str, Any]:
    """`expect` and `shape` of the stand-ins for an overlay over that scale: its own are those of the real ones."""
    subjects = [splits for name, splits in task_sets().items() if name.startswith("mmlu_")]
    rows = {split: sum(len(splits[split][:QUESTIONS]) for splits in subjects) for split in ("test", "dev")}
    sets = {"mmlu": rows, "piqa": {"validation": QUESTIONS}, "winogrande": {"validation": QUESTIONS}}
    sets |= {name: {"test": QUESTIONS} for name in ("arc_easy", "arc_challenge", "openbookqa")}
    return {
        "models": {name: {"expect": None, "shape": None} for name in hub_scale(scale)["models"]},
        "data": {
            "perplexity": {"expect": {"documents": len(wikitext_rows())}},
            "tasks": {"sets": {name: {"expect": expect} for name, expect in sets.items()}},
        },
    }
