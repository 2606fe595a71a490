"""The grid of one cell that the command asks for: an overlay over config.yaml, like one written by hand."""

from __future__ import annotations

import copy
import re
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leap_repro.costs.resources import multiplies_bfloat16
from leap_repro.errors import UserError, shown
from leap_repro.models.checkpoint import position_limit, read_config
from leap_repro.models.sources import meant_by, source_of
from leap_repro.pipeline.cross_checks import TABLES
from leap_repro.pipeline.grid import Study
from leap_repro.pipeline.inheritance import scale_options
from leap_repro.places import expanded
from leap_repro.prune.learned.declaration import AUTO

SCALE, CPU_SCALE = "own", "cpu"
DATA_SCALES = {"bundled": "miniature", "hub": "open"}
"""{what `--data` may name: the scale whose data are meant}"""
LONGEST = 80
"""Characters of a model's name in the grid."""
QUICK = {"questions": 25, "perplexity_windows": 10}
"""What `--evaluate quick` asks of each task, and how many windows it scores."""
LEAN = {"masked_weights": "kept", "gradient_checkpointing": True, "micro_batch_size": 1}
"""What stands in place of `auto`, which is chosen by the memory that a scale states."""
DATA_FILES = {
    "calibration": "calibration.parquet",
    "mask_training": "mask_training.parquet",
    "perplexity": "wikitext2-test.parquet",
    "tasks": "tasks",
}
"""What a folder of data holds, as in examples/smollm2/local.yaml; mask_training only for methods that train."""


def grid_name(source: dict[str, str]) -> str:
    """How the grid calls the model: its folder's or its own name, or its id with a dash for the
    slash; it becomes a folder and a table, so that it is cut and not called as another table is."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", source_of(source).name(source))
    name = plain.strip("-._")[:LONGEST] or "model"
    return f"{name}-model" if name in TABLES else name


def overlay(asked: Namespace, config: dict[str, Any], on_gpu: bool) -> dict[str, Any]:
    """The overlay for the command's arguments: sizes and methods' options are those of the scale that suits its
    kind of source and this machine, cut to the positions that the model has.

    Raises UserError for a model or data that are not there.
    """
    source = meant_by(asked.model, asked.revision)
    kind = source_of(source)
    on_gpu = on_gpu and not kind.is_tiny
    like = kind.scale if on_gpu or kind.is_tiny else CPU_SCALE
    base = copy.deepcopy(config["scales"][like])
    scale = {key: base[key] for key in ("calibration", "mask_training", "evaluation")}
    scale["options"] = {
        name: _anywhere({key: value for key, value in own.items() if key != "held_out_evaluations"})
        for name, own in scale_options(config, like).items()
    }
    given = {"sequences": asked.sequences, "length": asked.length}
    scale["calibration"] |= {key: value for key, value in given.items() if value is not None}
    if asked.text and asked.length is not None:
        scale["mask_training"] |= {"length": asked.length}
    if asked.steps is not None:
        scale["options"][asked.method] = scale["options"].get(asked.method, {}) | {"steps": asked.steps}
    scale["evaluation"] |= QUICK if asked.evaluate == "quick" else {}
    _cut(scale, source)
    scale |= {
        "models": {grid_name(source): source},
        "data": data(asked, config, like),
        "dtype": asked.dtype or ("bfloat16" if on_gpu else "float32"),
        **({} if kind.is_tiny else {"bits": "native"}),
        "threads": 1 if kind.is_tiny else asked.cores,
        "cluster": {"gpus": int(on_gpu)},
        "methods": list(dict.fromkeys(["dense", asked.method])),
        "sparsities": [asked.sparsity],
        "seeds": [asked.seed],
    }
    return {"scale": SCALE, "scales": {SCALE: scale}} | _imported(asked.masks)


def _anywhere(options: dict[str, Any]) -> dict[str, Any]:
    """A scale's options for a GPU of which nobody states the memory."""
    chosen = {key: value for key, value in LEAN.items() if options.get(key) == AUTO}
    return options | chosen


def refined(asked: Namespace, written: dict[str, Any], study: Study, on_gpu: bool) -> dict[str, Any]:
    """The overlay with what depends on whether the method trains: a text of the user's is cut into as many sequences
    as the training reads, and a processor that multiplies bfloat16 trains in it."""
    line, scale = study.methods[asked.method], dict(written["scales"][SCALE])
    if not line.trained_sequences:
        return written
    if asked.text:
        scale["mask_training"] = scale["mask_training"] | {"sequences": line.trained_sequences}
    native = scale.get("bits") == "native" and not on_gpu
    if asked.dtype is None and native and multiplies_bfloat16():
        scale["dtype"] = "bfloat16"
    return written | {"scales": {SCALE: scale}}


def _imported(masks: Path | None) -> dict[str, Any]:
    """The line of the masks that another made; nothing without them."""
    options = {"path": str(masks.expanduser().absolute())} if masks else {}
    return {"methods": {"imported": {"module": "imported", "label": "Imported", "options": options}}} if masks else {}


def data(asked: Namespace, config: dict[str, Any], scale: str) -> dict[str, Any]:
    """The sources of text and questions, those of `scale` if none are asked for; `--text` stands in for the text that
    a method sees, be it to calibrate or to train on."""
    if asked.data is None or asked.data in DATA_SCALES:
        chosen = DATA_SCALES[asked.data] if asked.data else scale
        found = copy.deepcopy(config["scales"][chosen]["data"])
    else:
        found = dict(_in_folder(expanded(Path(asked.data), "--data").absolute()))
    if asked.text:
        own = {"source": "path", "path": str(asked.text.expanduser().absolute())}
        found |= {"calibration": own, "mask_training": own}
    return found


def _in_folder(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    if not folder.is_dir():
        raise UserError(
            f"--data is {shown(str(folder))}; it must be hub, bundled, or a folder with {list(DATA_FILES.values())}"
        )
    for role, name in DATA_FILES.items():
        if role != "mask_training" or (folder / name).exists():
            yield role, {"source": "path", "path": str(folder / name)}


def _cut(scale: dict[str, Any], source: dict[str, str]) -> None:
    """No sequence longer than the model has positions for, as far as that is known before it is fetched."""
    folder = source_of(source).folder(source)
    limit = position_limit(read_config(folder)) if folder else None
    if limit is None:
        return
    for shard in ("calibration", "mask_training"):
        scale[shard]["length"] = min(limit, scale[shard]["length"])
    lengths = scale["evaluation"]["perplexity_lengths"]
    scale["evaluation"]["perplexity_lengths"] = list(dict.fromkeys(min(limit, length) for length in lengths))
