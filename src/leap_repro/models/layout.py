"""How a model's tensors are called and laid out in its checkpoint, as transformers knows it: renamed, under a prefix,
or every expert's matrices by themselves where the model keeps them in one parameter.

The only module that speaks to transformers' loading from within; everything is done for the tensors that are given, so
that a block can be read, and an export written, without the rest of the model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from leap_repro.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def sources_of(model: PreTrainedModel, keys: list[str]) -> dict[str, list[str]]:
    """{name in the model: its keys in the checkpoint}; a name that shares its keys with an earlier one is left out.

    Raises UserError for two keys of which each is the whole tensor: which of them is meant nobody knows.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    mapping, state = get_model_conversion_mapping(model), model.state_dict()
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    found: dict[str, list[str]] = {}
    for key in keys:
        name, part = rename_source_key(key, renamings, converters, model.base_model_prefix, state)
        if name not in state and key in state:
            name = key
        if part is None and name in found:
            raise UserError(f"the tensors {found[name][0]} and {key} are both {name} of the {type(model).__name__}")
        if name in state:
            found.setdefault(name, []).append(key)
    return found


def load_tensors(model: PreTrainedModel, tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """Put tensors, named as in the checkpoint, into the model, each in the type that the model has for it."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import convert_and_load_state_dict_in_model
    from transformers.modeling_utils import LoadStateDictConfig

    settings = LoadStateDictConfig(
        device_map={"": str(device)},
        dtype=model.dtype,
        weight_mapping=get_model_conversion_mapping(model),  # pyright: ignore[reportArgumentType]  # a wider list there
    )
    with quietly():
        convert_and_load_state_dict_in_model(model, dict(tensors), settings)


def load_headers(model: PreTrainedModel, headers: Mapping[str, Tensor]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model of the same configuration loaded from `headers`, tensors on the meta device named as in the checkpoint,
    and what transformers says of the loading: `missing_keys`, `unexpected_keys`, `mismatched_keys`.

    ValueError or RuntimeError if tensors cannot be put together.
    """
    with quietly():
        loaded: Any = type(model).from_pretrained(  # with output_loading_info a pair
            None,
            config=model.config,
            state_dict=dict(headers),
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        return loaded


def as_in_checkpoint(loaded: PreTrainedModel, tensors: Mapping[str, Tensor], keys: set[str]) -> dict[str, Tensor]:
    """Tensors of the model, be they weights or masks, under the names and in the shapes of its checkpoint, whose keys
    are `keys`. `loaded` came from `load_headers`; what the checkpoint keeps in one tensor must be given together."""
    from transformers.core_model_loading import revert_weight_conversion

    prefix = f"{loaded.base_model_prefix}."
    reverted = revert_weight_conversion(loaded, dict(tensors))
    return {key if key in keys else key.removeprefix(prefix): tensor for key, tensor in reverted.items()}


@contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' own reports and progress bars."""
    from transformers.utils import logging as theirs

    level, bar = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.CRITICAL)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bar:
            theirs.enable_progress_bar()
