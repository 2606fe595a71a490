"""Which files of a folder are a model's checkpoint, and what can be said of them without reading a weight.

Everyone who reads, copies, watches or counts weights asks here, so that a shard that is left over from another model is
seen by none. The rule is that of transformers: `model.safetensors`, else the files that the index names. No heavy
imports: every dry run reads headers and configurations through this module.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from leap_repro.errors import UserError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
COMPRESSED = "sparse.json"
"""What an export without its zeros has (leap_repro.export.index), and no checkpoint."""
CONFIG = "config.json"
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors")
COMPANIONS = (".json", ".model", ".tiktoken", ".txt", ".jinja")
"""Suffixes of what lies beside the weights: configurations, tokenizer, processor; no code, no pickles."""
FLOATING = ("F64", "F32", "F16", "BF16")
NOT_CODES = ("bias", "position_ids")
"""Integer tensors that old checkpoints keep besides weights: causal masks and positions."""
OTHER_WEIGHTS = "transformers_weights"
QUANTISATION = ("quantization_config", "compression_config")
NUMBERED = re.compile(r".*?\.\d+\.")
"""How the name of a block's tensor begins."""
ROUTERS = {"router", "gate", "shared_expert_gate"}
"""How families call what chooses and weighs experts, and everything below it."""
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_sequence_length")
"""How configurations call the most tokens that a model has positions for."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint as its file's header tells it; `dtype` in safetensors' words (F32, BF16, F8_E4M3)."""

    dtype: str
    shape: tuple[int, ...]
    file: Path

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


def chosen_weights(names: set[str], index: dict[str, Any] | None, folder: str) -> list[str]:
    """The weight files among `names`, `index` being the content of INDEX where there is one; `folder` is for messages.

    Raises UserError if there are none, if the index names others than there are, or if there are two sets of them.
    """
    if COMPRESSED in names:
        raise UserError(
            f"{folder} is a compressed export ({COMPRESSED}): make a checkpoint of it by `leap-repro unpack`"
        )
    if index is None:
        if WEIGHTS not in names:
            others = sorted(name for name in names if name.endswith(".safetensors"))
            found = f"; it has only {others}" if others else ""
            raise UserError(f"{folder} must hold {CONFIG} and {WEIGHTS}, or {INDEX} and the files it names{found}")
        return [WEIGHTS]
    try:
        wanted, _ = sorted(set(index["weight_map"].values())), index["metadata"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder}/{INDEX} is no index: it must map tensors to files under weight_map, and have metadata"
        ) from error
    if any(not isinstance(name, str) or "/" in name or not name.endswith(".safetensors") for name in wanted):
        raise UserError(f"{folder}/{INDEX} names {wanted}; they must be .safetensors files in the same folder")
    missing = sorted(set(wanted) - names)
    if missing or not wanted:
        raise UserError(f"{folder}/{INDEX} names {missing or 'no file'}, which must lie beside it")
    if WEIGHTS in names and wanted != [WEIGHTS]:
        raise UserError(f"{folder} holds two checkpoints, {WEIGHTS} and {INDEX}: take the one away that is not meant")
    return wanted


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the checkpoint's weights; UserError as `chosen_weights`."""
    names = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
    index = _json(folder / INDEX) if INDEX in names else None
    if CONFIG not in names and not any(name.endswith(".safetensors") for name in names - set(ADAPTERS)):
        beside = (
            f"; it holds only an adapter ({ADAPTERS[0]}): merge it into its base first" if has_adapter(folder) else ""
        )
        raise UserError(f"{folder} must hold {CONFIG} and {WEIGHTS}, or {INDEX} and the files it names{beside}")
    if CONFIG not in names:
        raise UserError(f"{folder} must hold {CONFIG} beside its .safetensors files")
    return [folder / name for name in chosen_weights(names, index, str(folder))]


def has_adapter(folder: Path) -> bool:
    """Whether a LoRA adapter lies in the folder; it is never applied, and not part of the checkpoint."""
    return (folder / ADAPTERS[0]).is_file()


def checkpoint_files(folder: Path) -> list[Path]:
    """All files of the model: weights, configurations, tokenizer and processor; UserError as `weight_files`."""
    beside = [
        path
        for path in folder.iterdir()
        if path.is_file() and path.suffix in COMPANIONS and path.name not in ADAPTERS and not path.name.startswith(".")
    ]
    return sorted([*weight_files(folder), *beside])


def tensors(folder: Path) -> dict[str, Entry]:
    """{name: header} of every tensor of the checkpoint.

    Raises UserError for a file that is cut short, a name in two files, or one that the index puts elsewhere.
    """
    found: dict[str, Entry] = {}
    for path in weight_files(folder):
        for name, entry in _header(path).items():
            if name in found:
                raise UserError(f"{folder}: the tensor {name} is in {found[name].file.name} and in {path.name}")
            found[name] = entry
    if (folder / INDEX).is_file():
        for name, file in _json(folder / INDEX)["weight_map"].items():
            if name not in found or found[name].file.name != file:
                raise UserError(f"{folder / INDEX} puts the tensor {name} into {file}, which does not hold it")
    return found


def _header(path: Path) -> dict[str, Entry]:
    """The header says where the last tensor ends: a file of another size was cut short or is something else."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, size)))
        header.pop("__metadata__", None)
        ends = [entry["data_offsets"][1] for entry in header.values()]
        entries = {name: Entry(entry["dtype"], tuple(entry["shape"]), path) for name, entry in header.items()}
        whole = 8 + length + max(ends, default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a safetensors file: its header cannot be read") from error
    if size != whole:
        raise UserError(f"{path} has {size} bytes, its header asks for {whole}: it is cut short; copy it again")
    return entries


def largest_block(entries: dict[str, Entry]) -> tuple[int, int]:
    """(parameters, entries of the Gram matrices of its matrices' inputs) of the largest decoder block, by names alone:
    what lies under one number. Experts that lie in one tensor [E, ...] count each, by the longer side."""
    parameters: dict[str, int] = {}
    gram: dict[str, int] = {}
    for name, entry in entries.items():
        found = NUMBERED.match(name)
        if found:
            block = found[0]
            parameters[block] = parameters.get(block, 0) + entry.elements
            sides = (1, entry.shape[1]) if len(entry.shape) == 2 else (entry.shape[0], max(entry.shape[1:], default=0))
            if len(entry.shape) in (2, 3) and not name.endswith("bias"):
                gram[block] = gram.get(block, 0) + sides[0] * sides[1] ** 2
    return max(parameters.values(), default=0), max(gram.values(), default=0)


def read_config(folder: Path) -> dict[str, Any]:
    """The model's configuration; UserError if it is no JSON object."""
    return _json(folder / CONFIG)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a JSON object") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object")
    return value


def check_json(folder: Path) -> None:
    """UserError for a configuration beside the weights, all of which transformers reads, that is no JSON object."""
    for name in ("generation_config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            _json(folder / name)


def position_limit(config: dict[str, Any]) -> int | None:
    """The most tokens that the model has positions for, whatever its family calls it; None if nothing says so."""
    for part in (config, config.get("text_config"), config.get("llm_config")):
        if isinstance(part, dict):
            found = [part[name] for name in POSITIONS if isinstance(part.get(name), int)]
            if found:
                return found[0]
    return None


def refuse_quantised(folder: Path, entries: dict[str, Entry]) -> None:
    """UserError if the weights are quantised: said so by the configuration, or not floating point in the files; or if
    the configuration names other weights than those.

    Pruning wants numbers, not codes; and what would be exported is no longer what was quantised.
    """
    config = read_config(folder)
    if config.get(OTHER_WEIGHTS) is not None:
        raise UserError(f"{folder}: {CONFIG} has {OTHER_WEIGHTS}, which is not supported: name the file {WEIGHTS}")
    for part in (config, config.get("text_config")):
        for key in QUANTISATION if isinstance(part, dict) else ():
            said = (part or {}).get(key)
            if said is not None:
                how = said.get("quant_method", "unnamed") if isinstance(said, dict) else said
                raise UserError(f"{folder} is quantised ({CONFIG} has {key}, method {how}): {_PRUNE_BEFORE}")
    for name, entry in entries.items():
        is_code = entry.dtype not in (*FLOATING, "BOOL", "I64") and not name.endswith(NOT_CODES)
        if is_code and len(entry.shape) > 1:
            raise UserError(f"{folder} is quantised (the tensor {name} is of type {entry.dtype}): {_PRUNE_BEFORE}")


_PRUNE_BEFORE = f"give the checkpoint it was made from, in one of {list(FLOATING)}"
