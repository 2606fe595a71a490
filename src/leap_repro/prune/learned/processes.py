"""Several processes that train one mask together, started by torchrun; alone, everything here is a no-op.

Each process runs every count-th micro-batch of a step and holds its share of everything that lasts: frozen weights,
logits and moments are sharded block by block by torch's FSDP2, which gathers a block where a pass needs it and averages
the logits' gradients over the processes once a step. The sums' order differs from one process's, and with it the last
bits: docs/scaling.md says by how much.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import Shard

log = logging.getLogger(__name__)
PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: while one hashes a checkpoint of a hundred gigabytes, for instance."""


def join() -> None:
    """Join the other processes if torchrun started this one: nccl with CUDA (one device each), gloo without. A warning
    says where they run on several kinds of devices."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or dist.is_initialized():
        return
    import torch.distributed.nn.functional  # before there is a group: see `leave`

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    kinds = sorted(set(devices()))
    if len(kinds) > 1 and rank() == 0:
        mixed = "these kinds round differently, so neither kind alone gives the same result"
        log.warning("the processes run on %s: %s", " and ".join(kinds), mixed)


def devices() -> list[str]:
    """What kind of device every process runs on, by rank; called by all of them in the same order."""
    return gathered(_device())


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


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


def mean(tensor: Tensor) -> Tensor:
    """The mean of every process's tensor of this shape, on its own device; called by all of them in the same order."""
    if count() == 1:
        return tensor
    gathered = [torch.empty_like(tensor) for _ in range(count())]
    dist.all_gather(gathered, tensor.contiguous())
    return sum(gathered, torch.zeros_like(tensor)) / count()


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor in whole, another as it is; called by all processes in the same order."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def shard_of(tensor: Tensor, parameter: Tensor) -> Tensor:
    """What this process holds beside its shard of `parameter`, row for row, as a shard of what all hold."""
    if not hasattr(parameter, "placements"):
        return tensor
    from torch.distributed.tensor import DTensor

    assert isinstance(parameter, DTensor)
    (placement,), shape = cast("tuple[Shard]", parameter.placements), list(tensor.shape)
    shape[placement.dim] = parameter.shape[placement.dim]
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        tensor, parameter.device_mesh, [placement], run_check=False, shape=torch.Size(shape), stride=stride
    )


def shard(module: nn.Module, device: torch.device) -> None:
    """Spread a module's parameters over the processes, each on `device`; a module inside it that is sharded already
    keeps its own. Its forward pass gathers them, and its backward pass averages their gradients."""
    if count() == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed.tensor import Shard

    def placement(parameter: nn.Parameter) -> Shard | None:
        """By rows: of logits [6, out, in / 4] those of the second dimension, as six is no number to share out."""
        patterns = parameter.dim() == 3 and parameter.requires_grad
        return Shard(1) if patterns and len(parameter[0]) % count() == 0 else None

    mesh = init_device_mesh(device.type, (count(),))
    fully_shard(
        module,
        mesh=mesh,
        shard_placement_fn=placement,
        mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False),
    )


def synchronise(module: nn.Module, wanted: bool, keeps: bool = False) -> None:
    """Whether the next backward pass of a sharded module ends with the averaging of gradients. With `keeps` only such a
    pass lets go what was gathered."""
    if count() > 1:
        sharded = cast("FSDPModule", module)
        sharded.set_requires_gradient_sync(wanted)
        sharded.set_reshard_after_backward(wanted or not keeps)


@contextmanager
def kept_gathered(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Within it, if wanted, the forward pass of a sharded module lets nothing go that it gathered."""
    wanted = wanted and count() > 1
    if wanted:
        cast("FSDPModule", module).set_reshard_after_forward(False)
    try:
        yield
    finally:
        if wanted:
            cast("FSDPModule", module).set_reshard_after_forward(True)


def first(work: Callable[[], None]) -> None:
    """Let the first process do `work`, and the others wait until it is done."""
    if rank() == 0:
        work()
    if count() > 1:
        dist.barrier()


def gathered(value: Any) -> list[Any]:
    """What every process has, by rank; called by all of them in the same order."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, value)
    return found


def said_by_first(work: Callable[[], Any]) -> Any:
    """What the first process finds by `work`, which the others wait for and take over."""
    found = [work() if rank() == 0 else None]
    if count() > 1:
        dist.broadcast_object_list(found, src=0)
    return found[0]
