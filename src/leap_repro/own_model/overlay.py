"""The grid of one cell that the command asks for: an overlay over config.yaml, like one written by hand."""

from __future__ import annotations

import copy
import re
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leap_repro.errors import UserError
from leap_repro.miniature.bundled import bundled_models
from leap_repro.models.checkpoint import position_limit, read_config

SCALE = "own"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
QUICK = {"questions": 25, "perplexity_windows": 10}
"""What `--evaluate quick` asks of each task, and how many windows it scores."""
DATA_FILES = {
    "calibration": "calibration.parquet",
    "mask_training": "mask_training.parquet",
    "perplexity": "wikitext2-test.parquet",
    "tasks": "tasks",
}
"""What a folder of data holds, as in examples/smollm2/local.yaml; mask_training only for methods that train."""


def model_source(model: str, revision: str) -> dict[str, str]:
    """The source of a folder, of a bundled miniature, or of a hub id; UserError for what is none of these."""
    if Path(model).expanduser().is_dir():
        return {"source": "path", "path": str(Path(model).expanduser().absolute())}
    if model in bundled_models():
        return {"source": "bundled", "name": model}
    if HUB_ID.fullmatch(model):
        return {"source": "hub", "id": model, "revision": revision}
    raise UserError(
        f"MODEL is {model!r}; it must be a folder that exists, an id on the hub (<owner>/<name>), or one of "
        f"{list(bundled_models())}"
    )


def grid_name(source: dict[str, str]) -> str:
    """How the grid calls the model: its folder's or its own name, or its id with a dash for the slash."""
    name = source.get("id") or source.get("name") or Path(source["path"]).name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"


def overlay(asked: Namespace, config: dict[str, Any], on_gpu: bool) -> dict[str, Any]:
    """The overlay for the command's arguments: sizes and methods' options are those of scales.miniature for a bundled
    model and of scales.open for any other, cut to the positions that the model has.

    Raises UserError for a model or data that are not there.
    """
    source = model_source(asked.model, asked.revision)
    bundled = source["source"] == "bundled"
    base = copy.deepcopy(config["scales"]["miniature" if bundled else "open"])
    scale = {key: base[key] for key in ("calibration", "mask_training", "evaluation")}
    scale["options"] = {
        name: {key: value for key, value in own.items() if key != "looks"} for name, own in base["options"].items()
    }
    given = {"sequences": asked.sequences, "length": asked.length}
    scale["calibration"] |= {key: value for key, value in given.items() if value is not None}
    scale["evaluation"] |= QUICK if asked.evaluate == "quick" else {}
    _cut(scale, source)
    scale |= {
        "models": {grid_name(source): source},
        "data": data(asked, config, bundled),
        "dtype": asked.dtype or ("bfloat16" if on_gpu and not bundled else "float32"),
        **({} if bundled else {"bits": "native"}),
        "threads": 1 if bundled else asked.cores,
        "cluster": {"gpus": int(on_gpu and not bundled)},
        "methods": list(dict.fromkeys(["dense", asked.method])),
        "sparsities": [asked.sparsity],
        "seeds": [asked.seed],
    }
    return {"scale": SCALE, "scales": {SCALE: scale}} | _imported(asked.masks)


def _imported(masks: Path | None) -> dict[str, Any]:
    """The line of the masks that another made; nothing without them."""
    options = {"path": str(masks.expanduser().absolute())} if masks else {}
    return {"methods": {"imported": {"module": "imported", "label": "Imported", "options": options}}} if masks else {}


def data(asked: Namespace, config: dict[str, Any], bundled: bool) -> dict[str, Any]:
    """The sources of text and questions; `--text` stands in for the calibration text."""
    where = asked.data or ("bundled" if bundled else "hub")
    if where in ("bundled", "hub"):
        found = copy.deepcopy(config["scales"]["miniature" if where == "bundled" else "open"]["data"])
    else:
        found = dict(_in_folder(Path(where).expanduser().absolute()))
    if asked.text:
        found["calibration"] = {"source": "path", "path": str(asked.text.expanduser().absolute())}
    return found


def _in_folder(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    if not folder.is_dir():
        raise UserError(
            f"--data is {str(folder)!r}; it must be hub, bundled, or a folder with {list(DATA_FILES.values())}"
        )
    for role, name in DATA_FILES.items():
        if role != "mask_training" or (folder / name).exists():
            yield role, {"source": "path", "path": str(folder / name)}


def _cut(scale: dict[str, Any], source: dict[str, str]) -> None:
    """No sequence longer than the model has positions for, as far as that is known before it is fetched."""
    folder = {"path": Path(source.get("path", "")), "bundled": bundled_models().get(source.get("name", ""))}
    limit = position_limit(read_config(folder[source["source"]])) if source["source"] in folder else None
    if limit is None:
        return
    for shard in ("calibration", "mask_training"):
        scale[shard]["length"] = min(limit, scale[shard]["length"])
    lengths = scale["evaluation"]["perplexity_lengths"]
    scale["evaluation"]["perplexity_lengths"] = list(dict.fromkeys(min(limit, length) for length in lengths))
