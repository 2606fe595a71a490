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
HEADER = 100_000_000
"""The longest header of a safetensors file in bytes, as its format says."""
BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16}
BITS |= {"I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4}
"""Bits of an element, by type; others are left to who reads them."""
FLOATING = ("F64", "F32", "F16", "BF16")
NOT_CODES = ("bias", "position_ids")
"""Integer tensors that old checkpoints keep besides weights: causal masks and positions."""
SHALLOW = 1000
"""Numbers of layers and experts up to here are built at once, whatever the files hold."""
OTHER_WEIGHTS = "transformers_weights"
QUANTISATION = ("quantization_config", "compression_config")
NUMBERED = re.compile(r".*?\.\d+\.")
"""How the name of a block's tensor begins."""
ROUTERS = {"router", "gate", "shared_expert_gate"}
"""How families call what chooses and weighs experts, and everything below it."""
REPEATED = re.compile(r"(layers?|blocks?|depth|experts|labels)$")
"""How the names of settings end that say how many of something are built one by one."""
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
            f"{folder}/{INDEX} is not an index: it must map tensors to files under weight_map, and have metadata"
        ) from error
    if any(not isinstance(name, str) or "/" in name or not name.endswith(".safetensors") for name in wanted):
        raise UserError(f"{folder}/{INDEX} names {wanted}; they must be .safetensors files in the same folder")
    missing = sorted(set(wanted) - names)
    if missing or not wanted:
        raise UserError(f"{folder}/{INDEX} names {missing or 'no file'}, which must be beside it")
    if WEIGHTS in names and wanted != [WEIGHTS]:
        raise UserError(f"{folder} holds two checkpoints, {WEIGHTS} and {INDEX}: remove one of them")
    return wanted


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the checkpoint's weights; UserError as `chosen_weights`."""
    names = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
    index = read_object(folder / INDEX) if INDEX in names else None
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
        for name, file in read_object(folder / INDEX)["weight_map"].items():
            if name not in found or found[name].file.name != file:
                raise UserError(f"{folder / INDEX} puts the tensor {name} into {file}, which does not hold it")
    return found


def _header(path: Path) -> dict[str, Entry]:
    """The header says where the last tensor ends: a file of another size was cut short or is something else."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > HEADER:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length), object_pairs_hook=_once)
        header.pop("__metadata__", None)
        entries = {name: Entry(entry["dtype"], tuple(entry["shape"]), path) for name, entry in header.items()}
        places = sorted((*entry["data_offsets"], name) for name, entry in header.items())
        whole = 8 + length + max((end for _, end, _ in places), default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not a safetensors file: its header cannot be read") from error
    if size != whole:
        raise UserError(f"{path} has {size} bytes, but its header says {whole}: it is cut short; copy it again")
    _check_places(path, entries, places)
    return entries


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError for a name that is in it twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found


def _check_places(path: Path, entries: dict[str, Entry], places: list[tuple[int, int, str]]) -> None:
    """UserError unless tensors lie one behind the other, each as long as its type and shape say."""
    expected = 0
    for begin, end, name in places:
        entry = entries[name]
        if any(not isinstance(number, int) or number < 0 for number in (begin, end, *entry.shape)):
            raise UserError(f"{path}: the place or the shape of the tensor {name} is not a list of whole numbers")
        if begin != expected:
            raise UserError(f"{path}: the tensor {name} begins at byte {begin}, the one before it ends at {expected}")
        bits = BITS.get(entry.dtype)
        if bits is not None and 8 * (end - begin) != bits * entry.elements:
            said = f"{entry.dtype} {list(entry.shape)}"
            raise UserError(f"{path}: the tensor {name} has {end - begin} bytes, which does not fit {said}")
        expected = end


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
    return read_object(folder / CONFIG)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; UserError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a JSON object") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object")
    return value


def check_json(folder: Path) -> None:
    """UserError for a configuration beside the weights, all of which transformers reads, that is no JSON object."""
    for name in ("generation_config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            read_object(folder / name)


def refuse_deep(folder: Path, tensors: int) -> None:
    """UserError for a configuration of more layers, or experts, than the files have tensors: building that many would
    take for ever."""
    waiting: list[tuple[str, Any]] = list(read_config(folder).items())
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
        elif type(value) is int and value > max(tensors, SHALLOW) and REPEATED.search(key):
            raise UserError(
                f"{folder}: {CONFIG} has {key} {value}, which is impossible, because its files have only {tensors} "
                "tensors"
            )


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
