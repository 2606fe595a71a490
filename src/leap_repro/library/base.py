"""The model that the library is given: one in memory, or a folder with a checkpoint; and how it computes with it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from leap_repro.errors import UserError
from leap_repro.miniature.bundled import bundled_models
from leap_repro.models.agreement import check_tied_in_memory
from leap_repro.models.checkpoint import read_config
from leap_repro.models.examine import examine
from leap_repro.models.load import DTYPES, load_model, load_tokenizer
from leap_repro.models.prunable import linears_by_block
from leap_repro.models.shares import Shares, refuse_dense, shares_of
from leap_repro.models.stream import Residency
from leap_repro.models.tokenizing import without_appended
from leap_repro.places import expanded
from leap_repro.portable import CHOICES, NATIVE, PORTABLE
from leap_repro.portable.install import portable_kernels
from leap_repro.prune.declaration import Declaration
from leap_repro.prune.run import load_for
from leap_repro.runtime.model import runs_packed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Base:
    """A checkpoint's folder, or a model in memory (`source`), by `name`; `dtype` is the type to compute in. `layers`
    is the model in memory, or the folder's without weights."""

    source: PreTrainedModel | Path = field(repr=False)
    name: str
    dtype: str
    layers: PreTrainedModel = field(repr=False)

    @classmethod
    def of(cls, model: PreTrainedModel | str | Path, dtype: str | None = None, to_score: bool = False) -> Base:
        """UserError for a folder that cannot be pruned, as the models stage, or for an unknown type of weights; unless
        it is only `to_score`, for a model that runs packed."""
        if dtype is not None and dtype not in DTYPES:
            raise UserError(f"dtype is {dtype!r}; it must be one of {list(DTYPES)}")
        if isinstance(model, str | Path):
            folder = checkpoint_folder(model)
            return cls(folder, folder.name, dtype or "float32", examine(folder))
        if not isinstance(model, torch.nn.Module) or not hasattr(model, "config"):
            raise UserError(f"model is {type(model).__name__}; it must be a transformers model, or a folder with one")
        own = str(model.dtype).removeprefix("torch.")
        if own not in DTYPES or dtype not in (None, own):
            raise UserError(f"dtype is {dtype!r}, but the model in memory has {own}: load it in one of {list(DTYPES)}")
        if not runs_packed(model):
            refuse_dense(model)
        elif not to_score:
            raise UserError("model runs packed and cannot be pruned: load it with load_pruned(..., run='dense')")
        check_tied_in_memory(model)
        name = Path(str(getattr(model.config, "_name_or_path", "") or model.config.model_type)).name
        return cls(model, name, own, model)

    @cached_property
    def shares(self) -> Shares:
        """How many of its weights are prunable."""
        return shares_of(self.layers)

    @property
    def config(self) -> dict[str, Any]:
        """The model's configuration."""
        return read_config(self.source) if isinstance(self.source, Path) else self.source.config.to_dict()

    def loaded(self) -> PreTrainedModel:
        """A model that may be changed: loaded from the folder, or a copy of the one in memory."""
        if isinstance(self.source, Path):
            return load_model(self.source, self.dtype)
        return copy.deepcopy(self.source)

    def tokenizer(self, given: PreTrainedTokenizerBase | None) -> PreTrainedTokenizerBase:
        """The one that was given, or the folder's, either without what it puts behind a text; UserError without one."""
        if given is not None:
            return without_appended(given)
        if not isinstance(self.source, Path):
            raise UserError("tokenizer is not given, but texts need one: give that of the model in memory")
        return load_tokenizer(self.source)

    @contextmanager
    def to_prune(self, method: Declaration) -> Iterator[tuple[PreTrainedModel, Residency]]:
        """The model for a job. A folder's blocks are streamed where the method allows it. One in memory is as it was
        afterwards: pruned blocks are put back one by one, and a method that trains weights works on a copy."""
        if isinstance(self.source, Path):
            yield load_for(method, self.source, self.dtype)
            return
        model = self.loaded() if method.trains and method.moves_weights else self.source
        with frozen(model) as held:
            yield held, restored(held)


def checkpoint_folder(model: str | Path) -> Path:
    """The folder that is meant, or that of a bundled miniature by its name; UserError if there is none."""
    folder = expanded(Path(model), "model")
    if folder.is_dir():
        return folder.absolute()
    if str(model) in bundled_models():
        return bundled_models()[str(model)]
    raise UserError(
        f"model is {str(model)!r}; it must be a transformers model, a folder that exists, or one of "
        f"{list(bundled_models())}"
    )


@contextmanager
def frozen(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The model in evaluation mode, without gradients and cache; everything is as it was afterwards."""
    modes = {module: module.training for module in model.modules()}
    gradients = {parameter: parameter.requires_grad for parameter in model.parameters()}
    cache = model.config.use_cache
    model.requires_grad_(False)
    model.config.use_cache = False
    model.eval()
    try:
        yield model
    finally:
        model.config.use_cache = cache
        for module, mode in modes.items():
            module.training = mode
        for parameter, wanted in gradients.items():
            parameter.requires_grad_(wanted)


def restored(model: PreTrainedModel) -> Residency:
    """The residency of a model whose blocks get their weights back when they are left: one block is held twice."""
    blocks = linears_by_block(model)

    @contextmanager
    def resident(index: int) -> Iterator[None]:
        linears = blocks.get(index, [])
        before = [linear.weight.detach().clone() for linear in linears]
        try:
            yield
        finally:
            for linear, weight in zip(linears, before, strict=True):
                linear.module.weight.data.copy_(weight)

    return resident


def kernels(bits: str, dtype: str) -> AbstractContextManager[None]:
    """A context in which torch computes with the requested kernels; UserError if the process cannot have them."""
    if bits not in CHOICES:
        raise UserError(f"bits is {bits!r}; it must be one of {list(CHOICES)}")
    if bits == NATIVE:
        return nullcontext()
    if dtype != "float32" or torch.cuda.is_available():
        where = "a GPU" if torch.cuda.is_available() else dtype
        raise UserError(f"bits is {PORTABLE!r}, which needs float32 on a CPU, not {where}")
    return portable_kernels()
