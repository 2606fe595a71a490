"""A model whose decoder blocks lie on disk: each is read when its turn comes and given back when its turn is over.

Everything before the blocks (embeddings) and after them (the last norm) is real, every block's parameters are on the
meta device, and the language-model head stays there, because a walk over the blocks never asks for logits. So the
memory is that of the embeddings and of one block, whatever the number of blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from leap_repro.models.checkpoint import weight_files
from leap_repro.models.layout import load_tensors, sources_of
from leap_repro.models.load import DTYPES, best_device, load_model, reading, ready
from leap_repro.models.prunable import decoder_blocks
from leap_repro.store.tensor_files import TensorFiles

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
Residency = Callable[[int], AbstractContextManager[None]]
"""`with residency(index):` the parameters of block `index` are real inside, and may be changed."""


def always_resident(index: int) -> AbstractContextManager[None]:
    """The residency of a model that is in memory as a whole."""
    return nullcontext()


def stream_model(folder: Path, dtype: str = "float32") -> tuple[PreTrainedModel, Residency]:
    """The model in `folder` with its blocks on disk, and the residency that brings them in; changes made to a block are
    lost when it is left.

    Falls back to the whole model where one tensor of the checkpoint becomes several of the model, or changes its type.
    Raises UserError if transformers cannot read the folder as a causal language model.
    """
    with reading(folder):
        model = skeleton(folder, DTYPES[dtype], best_device())
    files = TensorFiles(weight_files(folder))
    needed, sources = _body_names(model), sources_of(model, list(files))
    if needed <= sources.keys() and not _is_converted(model):
        stream = _BlockStream(model, files, sources)
        stream.load([name for name in needed if not name.startswith(stream.prefix)])
        return ready(model), stream.resident
    log.info("%s stores its tensors in another form or type, so it is loaded whole", folder)
    return load_model(folder, dtype), always_resident


def skeleton(folder: Path, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The architecture with parameters on the meta device, and real buffers on `device`, filled as transformers itself
    does."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    for name, buffer in list(model.named_buffers()):
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, torch.empty_like(buffer, device=device))
    model.initialize_weights()
    return model


def _body_names(model: PreTrainedModel) -> set[str]:
    """The state's names without those of the head, which lies outside `base_model`."""
    body = {id(module) for module in model.base_model.modules()}
    owners = {name: model.get_submodule(name.rpartition(".")[0]) for name in model.state_dict()}
    return {name for name, owner in owners.items() if id(owner) in body}


def _is_converted(model: PreTrainedModel) -> bool:
    """Whether transformers stores some parameters in another type than asked for, or unpacks quantised ones."""
    kept = (model._keep_in_fp32_modules, model._keep_in_fp32_modules_strict)
    return any(kept) or getattr(model.config, "quantization_config", None) is not None


class _BlockStream:
    """Moves parameters between the checkpoint's files and the model; `sources` are the keys of each in the files."""

    def __init__(self, model: PreTrainedModel, files: TensorFiles, sources: dict[str, list[str]]) -> None:
        name, self.blocks = decoder_blocks(model)
        self.prefix = f"{name}."
        self.model, self.files, self.sources = model, files, sources
        self.meta = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_meta}

    def load(self, names: list[str], copy: bool = False) -> None:
        """Read these parameters, in the model's own type; a view of the file where that changes nothing."""
        keys = [key for name in names for key in self.sources[name]]
        load_tensors(self.model, {key: self.files[key] for key in keys}, best_device())
        for name in names:
            tensor = self.model.get_parameter_or_buffer(name).detach()
            self._assign(name, tensor.clone() if copy else tensor)

    def _assign(self, name: str, tensor: Tensor) -> None:
        parent, _, leaf = name.rpartition(".")
        module = self.model.get_submodule(parent)
        is_parameter = leaf in module._parameters
        setattr(module, leaf, nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)

    @contextmanager
    def resident(self, index: int) -> Iterator[None]:
        """Block `index` with parameters of its own, which may be changed; back on the meta device afterwards."""
        names = [name for name in self.sources if name.startswith(f"{self.prefix}{index}.")]
        self.load(names, copy=True)
        try:
            yield
        finally:
            for name in self.meta.keys() & set(names):
                self._assign(name, self.meta[name])
