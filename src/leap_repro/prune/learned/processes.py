"""Several processes that train one mask together, started by torchrun; alone, everything here is a no-op.

Each process runs every count-th micro-batch. Sums go over micro-batches in their own order, not over processes, so any
number of processes gives the bits that one process gives.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor

from leap_repro.errors import UserError


def join() -> None:
    """Join the other processes if torchrun started this one: nccl with CUDA (one device each), gloo without."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or dist.is_initialized():
        return
    import torch.distributed.nn.functional  # before there is a group: see `leave`

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def leave() -> None:
    """Leave the group of processes, if there is one; its threads end with it.

    They would not if something still held the group, and a thread of gloo's that meets the end of Python aborts the
    process. `torch.distributed.nn.functional`, which transformers imports with a model, keeps the group that there is
    at its import as the default of its functions; so `join` imports it first.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def in_rank_order(tensor: Tensor) -> list[Tensor]:
    """Every process's tensor of this shape, by rank; must be called by all of them in the same order."""
    if count() == 1:
        return [tensor]
    gathered = [torch.empty_like(tensor) for _ in range(count())]
    dist.all_gather(gathered, tensor.contiguous())
    return gathered


def agree(what: str, number: int) -> None:
    """UserError unless every process found the same number: they must see the same files."""
    if count() > 1:
        found: list[int | None] = [None] * count()
        dist.all_gather_object(found, number)
        if len(set(found)) > 1:
            raise UserError(f"{what} must look the same to every process; by rank they find {found}")
