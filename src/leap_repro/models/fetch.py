"""How models come: one function for each kind of source (`sources.py`), which fills a checkpoint folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from leap_repro.errors import UserError
from leap_repro.hub.client import download, model_files
from leap_repro.hub.lock import Lock, pinned_files, repositories
from leap_repro.miniature.bundled import bundled_models
from leap_repro.models.checkpoint import ADAPTERS, INDEX, checkpoint_files, chosen_weights, has_adapter, read_object
from leap_repro.store.atomic import place
from leap_repro.store.hashes import sha256_of

log = logging.getLogger(__name__)


def fetch_bundled(spec: dict[str, Any], payload: Path) -> None:
    """Copy a released miniature model; UserError for an unknown name or weights that differ from `sha256`."""
    known = bundled_models()
    if spec["name"] not in known:
        raise UserError(f"no bundled model {spec['name']!r}; the bundled models are {sorted(known)}")
    _take_checkpoint(known[spec["name"]], payload, shutil.copyfile)
    expected, found = spec.get("sha256"), sha256_of(payload / "model.safetensors")
    if expected and expected != found:
        raise UserError(f"the bundled weights of {spec['name']} have sha256 {found}, the config pins {expected}")


def fetch_path(spec: dict[str, Any], payload: Path) -> None:
    """Take in a local Hugging Face folder; UserError if it is no folder, or has no config or no safetensors.

    Its weights get a second name where the file systems allow it: written over in place, they differ from the manifest
    and are refused by who reads them next. The small files, which people edit in place, are copied. A LoRA adapter is
    left where it is: it is not applied, and the log says so.
    """
    folder = Path(spec["path"]).expanduser()
    if not folder.is_dir():
        raise UserError(f"model path {spec['path']!r} is not a folder")
    if has_adapter(folder):
        log.warning("%s: %s is not applied; to prune the adapted model, merge it first", folder, ADAPTERS[0])
    _take_checkpoint(folder, payload, place)


def fetch_hub(spec: dict[str, Any], payload: Path, lock: Lock) -> str:
    """Fetch a model of the hub at its pinned commit, which is returned; UserError as in `leap_repro.hub.client`."""
    (asked,) = repositories(spec, "model")
    repository, files = pinned_files(lock, asked)
    wanted = {file.path: file for file in model_files(files, repository)}
    beside = [name for name in wanted if not name.endswith(".safetensors")]
    for name in beside:
        place(download(repository, wanted[name]), payload / name)
    index = read_object(payload / INDEX) if INDEX in beside else None
    weights = chosen_weights(set(wanted), index, str(repository))
    for name in weights:
        place(download(repository, wanted[name]), payload / name)
    size = sum(wanted[name].bytes for name in [*beside, *weights])
    log.info("%s: %d files, %d bytes", repository, len(beside) + len(weights), size)
    return repository.revision


def _take_checkpoint(folder: Path, payload: Path, take_weights: Callable[[Path, Path], object]) -> None:
    """Only what is the model's: weights, tokenizer, processor and configurations."""
    for path in checkpoint_files(folder):
        take = take_weights if path.suffix == ".safetensors" else shutil.copyfile
        take(path, payload / path.name)
