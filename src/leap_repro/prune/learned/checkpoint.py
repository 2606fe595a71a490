"""The state of a killed training on disk: whole and verified, or not used.

A checkpoint is a folder of safetensors files that torch.distributed.checkpoint writes and reads: every process its own
shards, so that another number of processes can go on from it. Beside them lie their sha256s, with a digest of their
own. One that is cut off or damaged is discarded with a log line and the one before it is taken, if there is one: a
resumed run never starts from a state that no run has been in.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
import warnings
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from leap_repro.errors import UserError, reason
from leap_repro.prune.learned import processes
from leap_repro.store.hashes import sha256_of
from leap_repro.store.sealed import read_sealed, write_sealed

log = logging.getLogger(__name__)
KEPT = 2
"""How many of the newest checkpoints stay: the last one, and the one to fall back on."""
ALONE = "torch.distributed is disabled, unavailable or uninitialized"  # which is how most trainings are run
DIGESTS = "sha256.json"
SHARED = "several processes need a disk that all of them share for --scratch"
SHOWN_SECONDS = 90.0
STEM, TEMPORARY = "state-", ".state.tmp"


def save(folder: Path, done: int, tensors: dict[str, Tensor]) -> None:
    """Write the state after `done` steps; the rename makes it whole or absent. UserError if the disk refuses it.

    All processes call it, each with its shards (DTensors); of plain tensors, which are the same in all, one writes.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save as save_shards

    temporary = folder / TEMPORARY
    warnings.filterwarnings("ignore", ALONE)
    try:
        processes.first(lambda: _empty(temporary))
        writer = HuggingFaceStorageWriter(
            str(temporary), fqn_to_index_mapping=_files(tensors), save_distributed=processes.count() > 1
        )
        state = {name: tensor.detach() for name, tensor in tensors.items()}
        save_shards(state, storage_writer=writer, no_dist=processes.count() == 1)
        _refuse_unshared(temporary)
        processes.first(lambda: _publish(temporary, folder / f"{STEM}{done:08d}"))
    except (OSError, SafetensorError, CheckpointException) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(f"{folder} cannot hold the checkpoint after step {done}: {_cause(error)}") from error


def newest(folder: Path) -> int | None:
    """After how many steps the newest whole checkpoint in `folder` was written, or None; damaged ones are deleted. For
    one process, which tells the others."""
    for path in _states(folder):
        try:
            _verify(path)
            return int(path.name.removeprefix(STEM))
        except (OSError, ValueError) as error:
            log.warning("discarded the checkpoint %s: %s", path, reason(error))
            shutil.rmtree(path, ignore_errors=True)
    return None


def load(folder: Path, done: int, tensors: dict[str, Tensor]) -> None:
    """Fill `tensors`, whole or this process's shards of them, with the state after `done` steps.

    UserError if it holds others, or if this process does not see it.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load as load_shards

    warnings.filterwarnings("ignore", ALONE)
    path = folder / f"{STEM}{done:08d}"
    if not _seen(path, [DIGESTS]):
        raise UserError(f"the first process found the checkpoint {path}, and another does not see it: {SHARED}")
    try:
        load_shards(
            {name: tensor.detach() for name, tensor in tensors.items()},
            storage_reader=HuggingFaceStorageReader(str(path)),
            no_dist=processes.count() == 1,
        )
    except CheckpointException as error:
        raise UserError(f"{path} is not a checkpoint of this training: {_cause(error)}") from error


def _refuse_unshared(temporary: Path) -> None:
    """UserError in all processes unless the first sees the files of every one."""
    own = f"shard-{processes.rank() + 1:05d}-" if processes.count() > 1 else ""
    written = processes.gathered([file.name for file in temporary.glob(f"{own}*.safetensors")])
    seen = processes.said_by_first(lambda: _seen(temporary, [name for names in written for name in names]))
    if not seen:
        raise UserError(f"what other processes wrote into {temporary} is not there for the first: {SHARED}")


def _seen(folder: Path, names: list[str]) -> bool:
    """Whether the files are there, within the time that a network's disk may take to show them."""
    until = time.monotonic() + SHOWN_SECONDS
    while not (there := all((folder / name).is_file() for name in names)) and time.monotonic() < until:
        time.sleep(0.5)
    return there


def _files(tensors: dict[str, Tensor]) -> dict[str, int]:
    """A file for each matrix, as what a file holds is held in memory once more while it is written."""
    owners = {name: name.split(".")[0] for name in tensors}
    numbers = {owner: index for index, owner in enumerate(sorted(set(owners.values())), start=1)}
    return {name: numbers[owner] for name, owner in owners.items()}


def _empty(temporary: Path) -> None:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)


def _publish(temporary: Path, path: Path) -> None:
    digests = {file.name: sha256_of(file) for file in sorted(temporary.iterdir())}
    write_sealed(temporary / DIGESTS, digests)
    shutil.rmtree(path, ignore_errors=True)
    temporary.replace(path)
    for old in _states(path.parent)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _states(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob(f"{STEM}*") if re.fullmatch(r"state-\d{8}", path.name)), reverse=True)


def _verify(path: Path) -> None:
    digests = read_sealed(path / DIGESTS)
    unlisted = sorted({file.name for file in path.iterdir()} - {DIGESTS, *digests})
    if unlisted:
        raise ValueError(f"{unlisted} were not written with it")
    for name, written in digests.items():
        if sha256_of(path / name) != written:
            raise ValueError(f"{name} differs from the sha256 written with it")


def _cause(error: BaseException) -> str:
    """What a process said, which torch wraps in a list of all that failed."""
    failures = list(getattr(error, "failures", {}).values())
    return reason(failures[0][0] if failures else error)
