"""The packed stream of the learned methods: two billion tokens in one pass, in bounded memory, resumable.

Documents are taken row group by row group in seeded order, the documents of a group in seeded order, each closed by
EOS; the stream is cut into rows of `length` ids and rows are gathered into shards. Or, as LEAP's public code has it,
grouped: documents in file order without EOS, 1,000 at a time, each thousand cut by itself and its rest dropped. What is
in memory at any time is one row group, one batch of ids and one shard. After every finished shard a cursor is left
beside it, with the sha256 of every shard and a digest of itself; a killed pass goes on from there and ends with the
same bits. If a shard or the cursor is not what was written, the pass starts anew.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from leap_repro.errors import UserError
from leap_repro.store.hashes import sha256_of
from leap_repro.store.sealed import read_sealed, write_sealed
from leap_repro.store.tensor_files import save_tensors
from leap_repro.store.tokens import TENSOR, shard_name

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
IDS_PER_SHARD = 2**25
BATCH = 256
GROUP = 1000
CURSOR = "cursor.json"


@dataclass
class Cursor:
    """Where a pass stands after the shards whose sha256s it lists: the next document, and the ids left of the one
    before."""

    group: int = 0
    document: int = 0
    left: list[int] = field(default_factory=list)
    sha256s: list[str] = field(default_factory=list)

    @property
    def shards(self) -> int:
        """How many shards are whole."""
        return len(self.sha256s)


def seeded_documents(
    files: Sequence[Path], seed: int, group: int, document: int
) -> Iterator[tuple[int, int, list[str]]]:
    """(position of the row group, index of the first document there, up to BATCH documents), from a cursor on.

    Positions and indices count in seeded order; blank documents are left out of the batch, not of the counting.
    """
    groups = [(file, index) for file in files for index in range(pq.ParquetFile(file).num_row_groups)]
    order = random.Random(f"packed-groups-{seed}").sample(range(len(groups)), len(groups))
    rng = random.Random(f"packed-{seed}")
    for position, (file, index) in enumerate(groups[i] for i in order):
        source = pq.ParquetFile(file)
        rows = rng.sample(range(source.metadata.row_group(index).num_rows), source.metadata.row_group(index).num_rows)
        if position < group:
            continue
        texts = source.read_row_group(index, columns=["text"]).column("text").to_pylist()
        for start in range(document if position == group else 0, len(rows), BATCH):
            yield position, start, [texts[row] or "" for row in rows[start : start + BATCH]]


def file_order(files: Sequence[Path]) -> Iterator[list[str]]:
    """All documents in the order of the files, GROUP at a time; the last may be fewer."""
    held: list[str] = []
    for file in files:
        source = pq.ParquetFile(file)
        for index in range(source.num_row_groups):
            held += [text or "" for text in source.read_row_group(index, columns=["text"]).column("text").to_pylist()]
            while len(held) >= GROUP:
                yield held[:GROUP]
                held = held[GROUP:]
    if held:
        yield held


Piece = tuple[NDArray[np.int32], int, int]
"""Ids that go on the stream, and the row group and the document that come after them."""


def closed_documents(
    tokenizer: PreTrainedTokenizerBase, files: Sequence[Path], seed: int, group: int, document: int
) -> Iterator[Piece]:
    """Every document that is not blank with EOS behind it, in seeded order, from a cursor on."""
    for position, start, texts in seeded_documents(files, seed, group, document):
        ids = iter(tokenizer([text for text in texts if text.strip()] or [" "], verbose=False)["input_ids"])
        for offset, text in enumerate(texts):
            if text.strip():
                yield closed(next(ids), cast("int | None", tokenizer.eos_token_id)), position, start + offset + 1


def grouped_documents(
    tokenizer: PreTrainedTokenizerBase, files: Sequence[Path], length: int, group: int
) -> Iterator[Piece]:
    """Each thousand documents as whole rows of `length` ids, from thousand `group` on."""
    for position, texts in enumerate(file_order(files)):
        if position >= group:
            ids = [one for each in tokenizer(texts, verbose=False)["input_ids"] for one in each]
            yield np.array(ids[: len(ids) // length * length], dtype=np.int32), position + 1, 0


class Packer:
    """One pass over `files` that leaves shards in `folder`."""

    def __init__(self, sequences: int, length: int, folder: Path) -> None:
        self.folder, self.sequences, self.length = folder, sequences, length
        self.rows_per_shard = max(1, min(sequences, IDS_PER_SHARD // length))
        self.count = -(-sequences // self.rows_per_shard)
        self.cursor = self._read_cursor()
        self.filled = 0
        self.buffer = self._empty()

    @property
    def tokens(self) -> int:
        """Ids packed so far."""
        return min(self.cursor.shards * self.rows_per_shard, self.sequences) * self.length + self.filled

    def path(self, index: int) -> Path:
        """Where one shard lies."""
        return self.folder / shard_name(index, self.count)

    def run(self, pieces: Iterator[Piece]) -> None:
        """Fill all shards with `pieces`, which go on at the cursor; UserError if the text is too short."""
        self._add(np.array(self.cursor.left, dtype=np.int32), self.cursor.group, self.cursor.document)
        total = self.sequences * self.length
        with tqdm(total=total, initial=self.tokens, desc="tokens", unit="", unit_scale=True, mininterval=2.0) as bar:
            while self.cursor.shards < self.count and (piece := next(pieces, None)) is not None:
                self._add(*piece)
                bar.update(self.tokens - bar.n)
        if self.cursor.shards < self.count:
            raise UserError(
                f"the text has {self.tokens} tokens, but sequences={self.sequences} x length={self.length} need "
                f"{total}; give more text, or lower length or sequences (a training reads steps x batch_size "
                "sequences)"
            )

    def _add(self, ids: np.ndarray, group: int, document: int) -> None:
        """Append ids, closing every shard that they fill; `document` is the one that comes next."""
        while self.cursor.shards < self.count and len(ids):
            taken = ids[: len(self.buffer) - self.filled]
            self.buffer[self.filled : self.filled + len(taken)] = taken
            self.filled, ids = self.filled + len(taken), ids[len(taken) :]
            if self.filled == len(self.buffer):
                self._close(group, document, ids.tolist())

    def _close(self, group: int, document: int, left: list[int]) -> None:
        """Write the full buffer as a shard, then the cursor, each atomically."""
        path = self.path(self.cursor.shards)
        temporary = path.with_name(f".{path.name}.tmp")
        save_tensors({TENSOR: torch.from_numpy(self.buffer.reshape(-1, self.length))}, temporary)
        sha256 = sha256_of(temporary)
        temporary.replace(path)
        self.cursor, self.filled = Cursor(group, document, left, [*self.cursor.sha256s, sha256]), 0
        write_sealed(self.folder / CURSOR, asdict(self.cursor))
        self.buffer = self._empty()

    def _empty(self) -> np.ndarray:
        rows = min(self.rows_per_shard, self.sequences - self.cursor.shards * self.rows_per_shard)
        return np.empty(max(rows, 0) * self.length, dtype=np.int32)

    def _read_cursor(self) -> Cursor:
        """Where a killed pass stood; the start if there was none, or if what it left is not what it wrote."""
        if not (self.folder / CURSOR).is_file():
            return Cursor()
        try:
            cursor = Cursor(**read_sealed(self.folder / CURSOR))
            for index, sha256 in enumerate(cursor.sha256s):
                self._verify(self.path(index), sha256)
        except (UserError, TypeError) as error:
            log.warning("restarted the packing in %s: %s", self.folder, error)
            return Cursor()
        return cursor

    @staticmethod
    def _verify(path: Path, sha256: str) -> None:
        if not path.is_file() or sha256_of(path) != sha256:
            raise UserError(f"{path} is missing or differs from its sha256 in {CURSOR}")


def closed(ids: list[int], eos: int | None) -> np.ndarray:
    """A document's ids with EOS behind them, where the tokenizer has one."""
    return np.array(ids if eos is None else [*ids, eos], dtype=np.int32)


def pack_sequences(
    tokenizer: PreTrainedTokenizerBase,
    files: Sequence[Path],
    sequences: int,
    length: int,
    seed: int,
    folder: Path,
    grouped: bool = False,
) -> list[Path]:
    """Pack the parquet files' documents into `sequences` x `length` ids; the shards' paths, all in `folder`.

    A folder with the shards and the cursor of a killed pass is gone on with. Raises UserError if the text is too short.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packer = Packer(sequences, length, folder)
    at = packer.cursor
    if grouped:
        packer.run(grouped_documents(tokenizer, files, length, at.group))
    else:
        packer.run(closed_documents(tokenizer, files, seed, at.group, at.document))
    return [packer.path(index) for index in range(packer.count)]
