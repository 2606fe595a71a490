"""The state of a killed training on disk: whole and verified, or not used.

A checkpoint carries the sha256 of its own tensors. One that is cut off or damaged is discarded with a log line and the
one before it is taken, if there is one: a resumed run never starts from a state that no run has been in. Ours, because
torch.save is pickle, and torch.distributed.checkpoint keeps no digest of what it wrote.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from leap_repro.errors import UserError, reason

log = logging.getLogger(__name__)
KEPT = 2
"""How many of the newest checkpoints stay: the last one, and the one to fall back on."""


def save(folder: Path, done: int, tensors: dict[str, Tensor]) -> None:
    """Write the state after `done` steps; the rename makes it whole or absent. UserError if the disk refuses it."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    temporary = folder / ".state.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, temporary, metadata={"sha256": _digest(state)})
        temporary.replace(folder / f"state-{done:08d}.safetensors")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder} cannot hold the checkpoint after step {done}: {reason(error)}") from error
    finally:
        if folder.is_dir():
            temporary.unlink(missing_ok=True)
    for path in _states(folder)[KEPT:]:
        path.unlink(missing_ok=True)


def newest(folder: Path) -> dict[str, Tensor] | None:
    """The tensors of the newest whole checkpoint in `folder`, or None; damaged ones are deleted."""
    for path in _states(folder):
        try:
            return _verified(path)
        except (OSError, SafetensorError, ValueError) as error:
            log.warning("discarded the checkpoint %s: %s", path, reason(error))
            path.unlink(missing_ok=True)
    return None


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("state-*.safetensors"), reverse=True)


def _verified(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
        written = (file.metadata() or {}).get("sha256")
    if _digest(tensors) != written:
        raise ValueError("its tensors differ from the sha256 written with them")
    return tensors


def _digest(tensors: dict[str, Tensor]) -> str:
    """The sha256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
