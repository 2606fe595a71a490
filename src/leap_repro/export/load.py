"""`load_pruned`: load an export of any format as a transformers model.

from leap_repro.export.load import load_pruned

model = load_pruned("my-pruned-model")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from leap_repro.errors import UserError
from leap_repro.export.index import INDEX_FILE, Index, read_file, read_index
from leap_repro.export.run_packed import load_packed, refuse_other
from leap_repro.models.agreement import check_agreement
from leap_repro.models.checkpoint import CONFIG
from leap_repro.models.examine import empty_model
from leap_repro.models.load import DTYPES, reading

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Run = Literal["dense", "packed"]
RUNS: tuple[Run, ...] = get_args(Run)


def load_pruned(folder: str | Path, dtype: str | None = None, run: Run = "dense") -> PreTrainedModel:
    """Load the causal language model in `folder`, on the CPU and in evaluation mode.

    Only safetensors are read, and no code in the folder runs.

    Args:
        folder: The folder of an export of any format, or of another checkpoint. dtype: The type of all weights.
        Default: the one that config.json names. run: "dense" for an ordinary model; "packed" for an export of format
        packed, whose pruned matrices stay packed in memory and are multiplied by kernels that skip the zeros. Such a
        model is for inference on the CPU.

    Raises:
        UserError: If the folder has no model, a file is damaged, or the weights are not those of config.json.
    """
    from transformers import AutoModelForCausalLM

    if run not in RUNS:
        raise UserError(f"run is {run!r}; it must be one of {[*RUNS]}")
    folder, wanted = Path(folder), DTYPES[dtype] if dtype else None
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} is not a folder with a {CONFIG}: give the folder of an export or of a checkpoint")
    is_compressed = (folder / INDEX_FILE).is_file()
    if run == "packed" and not is_compressed:
        raise UserError(f"{folder} is a dense checkpoint, but run='packed' needs an export of format packed")
    if not is_compressed:
        check_agreement(empty_model(folder), folder)
        with reading(folder):
            return AutoModelForCausalLM.from_pretrained(
                folder, dtype=wanted or "auto", local_files_only=True, use_safetensors=True, trust_remote_code=False
            ).eval()
    index, empty = read_index(folder), empty_model(folder)
    model = (load_packed if run == "packed" else _load_dense)(folder, index, empty, wanted)
    _generation_settings(model, folder)
    return model.eval()


def _load_dense(folder: Path, index: Index, empty: PreTrainedModel, wanted: torch.dtype | None) -> PreTrainedModel:
    """The model of a compressed export with its zeros; the arguments are those of `load_packed`."""
    tensors = {key: t for name in index.files for key, t in read_file(folder, index, name)[0].items()}
    loaded: Any = type(empty).from_pretrained(  # with output_loading_info a pair
        None,
        config=empty.config,
        state_dict=tensors,
        dtype=wanted or empty.config.dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are refused below, in a sentence
    )
    model, found = loaded
    refuse_other(folder, found)
    return model


def _generation_settings(model: PreTrainedModel, folder: Path) -> None:
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
