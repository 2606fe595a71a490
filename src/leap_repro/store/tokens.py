"""How token ids lie on disk between the stages: safetensors with an int32 tensor `tokens` [sequences, length] per file.

Mask training reads two billion ids, a few rows at a time, so files are mapped into memory and rows are read when asked
for. Legend: N sequences, T tokens per sequence, B rows asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.seeds import named_seed
from leap_repro.store.artifacts import Artifact

TENSOR = "tokens"


def shard_name(index: int, count: int) -> str:
    """The file name of one of `count` shards; a single one bears no number."""
    return "tokens.safetensors" if count == 1 else f"tokens-{index:05d}.safetensors"


def mapped_ids(path: Path) -> np.ndarray:
    """The ids of one file as a read-only memory map, int32 [N, T]; UserError if it holds no such tensor."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            entry = json.loads(file.read(size))[TENSOR]
        if entry["dtype"] != "I32" or len(entry["shape"]) != 2:
            raise ValueError(f"{entry['dtype']} of shape {entry['shape']}")
        offset = 8 + size + entry["data_offsets"][0]
        return np.memmap(path, dtype="<i4", mode="r", offset=offset, shape=tuple(entry["shape"]))
    except (OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise UserError(f"{path} holds no int32 tensor {TENSOR!r} of [sequences, length] ({error})") from error


class TokenRows:
    """The rows of several files as one [N, T]: `rows[indices_B]` and `rows[start:stop]` are int64 tensors [B, T]."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """UserError for a file without ids, or if the files' lengths differ."""
        self.maps = [mapped_ids(path) for path in paths]
        if len({ids.shape[1] for ids in self.maps}) != 1:
            raise UserError(f"{[str(path) for path in paths]} must be token files of one length")
        self.starts = np.cumsum([0, *(len(ids) for ids in self.maps)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def shape(self) -> torch.Size:
        """[N, T]"""
        return torch.Size([len(self), self.maps[0].shape[1]])

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """int64 [B, T]; IndexError beyond the last row."""
        wanted = np.arange(len(self))[rows] if isinstance(rows, slice) else np.arange(len(self))[rows.cpu().numpy()]
        shards = np.searchsorted(self.starts, wanted, side="right") - 1
        found = [self.maps[shard][row - self.starts[shard]] for shard, row in zip(shards, wanted, strict=True)]
        ids = np.stack(found) if found else np.empty((0, self.shape[1]))
        return torch.from_numpy(ids.astype(np.int64))

    def largest(self) -> int:
        """The largest id, found shard by shard."""
        return max(int(ids.max()) for ids in self.maps)


def open_tokens(artifact: Artifact) -> TokenRows:
    """The token shards of a calibration artifact, each checked against its manifest; UserError if one is damaged."""
    return TokenRows([artifact.file(name) for name in sorted(artifact.files)])


def batch_indices(step: int, batch_size: int, sequences: int, seed: int) -> Tensor:
    """Which sequences a step of a training reads: one seeded permutation per pass over the data, no state to save."""
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    passes = positions // sequences
    order = {
        int(p): torch.randperm(sequences, generator=torch.Generator().manual_seed(named_seed("order", seed, int(p))))
        for p in passes.unique()
    }
    return torch.stack([order[int(p)][i % sequences] for p, i in zip(passes, positions, strict=True)])
