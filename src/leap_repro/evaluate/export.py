"""`python -m leap_repro.evaluate.export`: take a pruned model home as an ordinary Hugging Face checkpoint.

The export is the base checkpoint with other numbers in its pruned matrices and nothing else changed: the same files,
tensors under the same names, in the same layout and types, tokenizer and processor byte for byte. It is written file by
file, so a model needs no more memory than its largest file. With `--task-yamls` the task definitions are written too,
so that the plain command

    lm_eval --model hf --model_args pretrained=<output>,dtype=float32 --include_path <task-yamls> --tasks mmlu,piqa,...

scores the export on the same questions.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from leap_repro.cli import run_stage
from leap_repro.errors import UserError
from leap_repro.evaluate.cell import put, read_cell
from leap_repro.evaluate.tasks import write_task_yamls
from leap_repro.models.agreement import check_agreement
from leap_repro.models.checkpoint import CONFIG, checkpoint_files, weight_files
from leap_repro.models.examine import empty_model
from leap_repro.models.layout import as_in_checkpoint
from leap_repro.models.load import DTYPES
from leap_repro.models.prunable import PrunableLinear, prunable_linears
from leap_repro.store.artifacts import Artifact
from leap_repro.store.masks import CellMasks
from leap_repro.store.tensor_files import TensorFiles

REMOTE_CODE = "auto_map"
"""The key that names Python files beside a configuration: they are not part of a checkpoint, so neither is it."""


@dataclass(frozen=True)
class PrunedBlocks:
    """What a cell makes of each decoder block, in the layout of the model's checkpoint. `model` is on the meta device,
    loaded from the checkpoint's headers; `keys` are the checkpoint's."""

    model: PreTrainedModel
    keys: set[str]
    masks: CellMasks
    values: TensorFiles

    @cached_property
    def linears(self) -> dict[int, list[PrunableLinear]]:
        """The prunable matrices by block."""
        blocks: dict[int, list[PrunableLinear]] = {}
        for linear in prunable_linears(self.model):
            blocks.setdefault(linear.block, []).append(linear)
        return blocks

    @cached_property
    def places(self) -> dict[str, int]:
        """{key in the checkpoint: its block} of every tensor that has pruned matrices in it."""
        found = {}
        for block, linears in self.linears.items():
            named = {linear.parameter: whole_parameter(linear) for linear in linears}
            found |= dict.fromkeys(as_in_checkpoint(self.model, named, self.keys), block)
        return found

    def changes(self, block: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """({key: mask}, {key: values of what stays, zero elsewhere}) of a block; no values if the method moves none."""
        masks: dict[str, Tensor] = {}
        values: dict[str, Tensor] = {}
        for linear in self.linears[block]:
            name, shape = linear.parameter, whole_parameter(linear).shape
            mask = self.masks[linear.name]
            view_of(linear, masks.setdefault(name, torch.ones(shape, dtype=torch.bool))).copy_(mask)
            if linear.name in self.values:
                matrix = torch.zeros(mask.shape, dtype=self.values[linear.name].dtype)
                put(matrix, mask, self.values[linear.name])
                view_of(linear, values.setdefault(name, torch.zeros(shape, dtype=matrix.dtype))).copy_(matrix)
        return as_in_checkpoint(self.model, masks, self.keys), as_in_checkpoint(self.model, values, self.keys)


def whole_parameter(linear: PrunableLinear) -> Tensor:
    """The parameter that holds it: the matrix itself, or those of all experts."""
    return getattr(linear.module.experts, linear.module.parameter) if linear.is_expert else linear.weight


def view_of(linear: PrunableLinear, parameter: Tensor) -> Tensor:
    """The matrix within a tensor of the parameter's shape."""
    return linear.module.view(parameter) if linear.is_expert else parameter


def export_cell(base: Path, cell: Artifact, output: Path, dtype: str | None = None) -> None:
    """Write the checkpoint in `base`, pruned as `cell` says, into the new folder `output`, whole or not at all; `dtype`
    converts its tensors, which otherwise keep their types.

    Raises UserError if the cell is another model's or breaks its promise, or if `output` holds something already.
    """
    if output.exists() and any(output.iterdir()):
        raise UserError(f"--output {output} is not empty: give a new folder, so that no file of another model stays")
    model = check_agreement(empty_model(base), base)
    masks, values, _ = read_cell(cell, [linear.name for linear in prunable_linears(model)])
    files = weight_files(base)
    blocks = PrunedBlocks(model, set(TensorFiles(files)), masks, values)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as temporary:
        for file in files:
            _write_file(file, Path(temporary) / file.name, blocks, dtype)
        for path in set(checkpoint_files(base)) - set(files):
            _write_companion(path, Path(temporary) / path.name, dtype)
        output.mkdir(exist_ok=True)
        for path in sorted(Path(temporary).iterdir()):
            path.replace(output / path.name)


@torch.no_grad()
def _write_file(source: Path, target: Path, blocks: PrunedBlocks, dtype: str | None) -> None:
    """One weight file with its pruned tensors, block by block."""
    with safe_open(source, framework="pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.offset_keys()}, file.metadata()
    for block in sorted({blocks.places[key] for key in tensors.keys() & blocks.places.keys()}):
        masks, values = blocks.changes(block)
        for key in tensors.keys() & masks.keys():
            base = tensors[key]
            pruned = values.get(key, base).to(base.dtype)
            if not bool(torch.isfinite(pruned).all()):
                raise UserError(f"the pruned weights of {key} are not finite in {base.dtype}, the type of {source}")
            tensors[key] = pruned.masked_fill(~masks[key], 0)
    if dtype:
        tensors = {key: t.to(DTYPES[dtype]) if t.is_floating_point() else t for key, t in tensors.items()}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, target, metadata=metadata)


def _write_companion(source: Path, target: Path, dtype: str | None) -> None:
    """A configuration, or a file of the tokenizer or processor: as it is, but for what would no longer be true."""
    text = json.loads(source.read_text(encoding="utf-8")) if source.suffix == ".json" else None
    changed = dict(_without_untruths(text, source.name, dtype)) if isinstance(text, dict) else text
    if changed == text:
        shutil.copyfile(source, target)
    else:
        target.write_text(json.dumps(changed, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_untruths(values: dict, name: str, dtype: str | None) -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if key == REMOTE_CODE:
            continue
        yield key, dtype if dtype and name == CONFIG and key in ("dtype", "torch_dtype") else value


def main(arguments: argparse.Namespace) -> None:
    """Check, write."""
    base = Artifact.read(arguments.model, to_be_sure=True).verified_payload()
    export_cell(base, Artifact.read(arguments.cell, to_be_sure=True), arguments.output, arguments.dtype)
    if arguments.task_yamls:
        tasks = Artifact.read(arguments.tasks)
        write_task_yamls(tasks.verified_payload(), arguments.task_yamls, tasks.facts.get("definitions"))


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.evaluate.export", description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="folder of the fetched model")
    parser.add_argument("--cell", required=True, type=Path, help="folder of the hardened cell")
    parser.add_argument("--dtype", choices=DTYPES, help="of all weights, instead of each as in the model")
    parser.add_argument("--tasks", type=Path, help="folder of the fetched task sets, for --task-yamls")
    parser.add_argument("--task-yamls", type=Path, help="also write lm-eval task definitions here")
    parser.add_argument("--output", required=True, type=Path, help="the checkpoint folder to write")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
