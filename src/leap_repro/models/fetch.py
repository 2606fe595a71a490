"""Where models come from: one function per source, each filling a checkpoint folder."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from leap_repro.errors import UserError, reason
from leap_repro.hub.client import download, model_files, place
from leap_repro.hub.lock import Lock, pinned_files, repositories
from leap_repro.models.load import load_tokenizer
from leap_repro.store.artifacts import sha256_of

log = logging.getLogger(__name__)
WEIGHTS = "*.safetensors"
SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja")


@dataclass(frozen=True)
class ModelFacts:
    """What the manifest says of a model. `revision` is its commit on the hub, else the sha256 over its weight files."""

    architecture: str
    revision: str
    parameters: int
    prunable: int
    blocks: int


def fetch_bundled(spec: dict[str, Any], payload: Path) -> None:
    """Copy a released miniature model; UserError for an unknown name or weights that differ from `sha256`."""
    released = files("leap_repro.miniature") / "released" / spec["name"]
    if not released.is_dir():
        known = sorted(item.name for item in (files("leap_repro.miniature") / "released").iterdir() if item.is_dir())
        raise UserError(f"no bundled model {spec['name']!r}; the bundled ones are {known}")
    with as_file(released) as folder:
        _copy_checkpoint(folder, payload)
    expected, found = spec.get("sha256"), sha256_of(payload / "model.safetensors")
    if expected and expected != found:
        raise UserError(f"the bundled weights of {spec['name']} have sha256 {found}, the config pins {expected}")


def fetch_path(spec: dict[str, Any], payload: Path) -> None:
    """Copy a local Hugging Face folder; UserError if it is no folder, or has no config or no safetensors."""
    folder = Path(spec["path"]).expanduser()
    if not folder.is_dir():
        raise UserError(f"model path {spec['path']!r} is not a folder")
    if not (folder / "config.json").is_file() or not list(folder.glob(WEIGHTS)):
        raise UserError(f"model path {spec['path']!r} must hold config.json and at least one .safetensors file")
    _copy_checkpoint(folder, payload)


def fetch_hub(spec: dict[str, Any], payload: Path, lock: Lock) -> str:
    """Fetch a model of the hub at its pinned commit, which is returned; UserError as in `leap_repro.hub.client`."""
    (asked,) = repositories(spec, "model")
    repository, files = pinned_files(lock, asked)
    wanted = model_files(files, repository)
    for file in wanted:
        place(download(repository, file), payload / file.path)
    log.info("%s: %d files, %d bytes", repository, len(wanted), sum(file.bytes for file in wanted))
    return repository.revision


SOURCES: dict[str, Callable[[dict[str, Any], Path], None]] = {"bundled": fetch_bundled, "path": fetch_path}


def _copy_checkpoint(folder: Path, payload: Path) -> None:
    """Only weights, tokenizer and configuration: no code, no pickles."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in SUFFIXES:
            shutil.copyfile(path, payload / path.name)


def describe(payload: Path) -> dict[str, Any]:
    """The model's facts, from its configuration alone (no weights are loaded).

    Raises UserError if transformers does not know the architecture or nothing in it can be pruned.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from leap_repro.models.prunable import decoder_blocks, prunable_linears

    try:
        config = AutoConfig.from_pretrained(payload, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"model type {_model_type(payload)!r} is not a causal language model of this transformers: {reason(error)}"
        ) from error
    facts = ModelFacts(
        architecture=type(model).__name__,
        revision=_weights_revision(payload),
        parameters=model.num_parameters(),
        prunable=sum(linear.weight.numel() for linear in prunable_linears(model)),
        blocks=len(decoder_blocks(model)[1]),
    )
    return asdict(facts)


MOSTLY = 0.9
"""A model may have a few more embeddings than its tokenizer has tokens (rows are padded), never a tenth of them."""


def check_vocabulary(payload: Path) -> None:
    """UserError if the tokenizer and the model cannot belong together: their vocabularies differ in size.

    Tokens that were added for other uses (Gemma's image token) do not count.
    """
    tokens = load_tokenizer(payload).vocab_size
    embeddings = json.loads((payload / "config.json").read_text(encoding="utf-8")).get("vocab_size", tokens)
    if not MOSTLY * embeddings <= tokens <= embeddings:
        raise UserError(
            f"the tokenizer has {tokens} tokens, the model's vocab_size is {embeddings}: they are of different models"
        )


def _model_type(payload: Path) -> str | None:
    try:
        return json.loads((payload / "config.json").read_text()).get("model_type")
    except (ValueError, AttributeError):
        return None


def _weights_revision(payload: Path) -> str:
    """The sha256 of the weight file, or of the list of sha256s if there are several."""
    import hashlib

    digests = [sha256_of(path) for path in sorted(payload.glob(WEIGHTS))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
