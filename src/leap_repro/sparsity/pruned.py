"""What a pruner leaves on disk: logits as they are; masks at one bit a weight, and of moved weights those that stay.

The last two are the very files of a hardened cell (`masks.py`), which takes them over by a second name: what both keep
lies on the disk once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.sparsity.masks import VALUES_STEM, pack, unpack_masks
from leap_repro.store.artifacts import MASK_FILE, SUFFIX, Artifact
from leap_repro.store.tensor_files import TensorFiles, TensorFolder, save_tensors

KINDS = ("keep", "values", "logits", "patterns", "tiles")
PART = "masks-of-"
"""How the names of the files begin that hold masks until all are there."""


def split_by_kind(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """{kind: {tensor name: tensor}}, block by block, from the suffixes that the pruners write."""
    kinds: dict[str, dict[str, Tensor]] = {kind: {} for kind in KINDS}
    for key in sorted(tensors, key=_natural):
        name, _, kind = key.rpartition(".")
        kinds[kind][name] = tensors[key]
    return kinds


def tensor_row(name: str, mask: Tensor) -> dict[str, Any]:
    """A manifest's integer counts of one tensor."""
    return {
        "tensor": name,
        "block": _block(name),
        "shape": list(mask.shape),
        "kept": int(mask.count_nonzero()),
        "numel": mask.numel(),
    }


def _block(name: str) -> int:
    found = re.search(r"\.(\d+)\.", name)
    assert found is not None, f"{name} lies in no numbered block"
    return int(found[1])


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts block 10 after block 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


class PrunedFolder(TensorFolder):
    """A folder that takes a pruner's tensors, "<name>.keep" and the like, file by file; `finish` makes it whole."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._rows: list[dict[str, Any]] = []

    def write(self, stem: str, tensors: Mapping[str, Tensor]) -> None:
        """Add these tensors: a file per block of the values that stay, `<stem>.safetensors` of logits."""
        kinds = split_by_kind(tensors)
        keep, values = kinds.pop("keep"), kinds.pop("values")
        self._rows += [tensor_row(name, mask) for name, mask in keep.items()]
        if keep:
            super().write(f"{PART}{stem}", {name: pack(mask) for name, mask in keep.items()})
        for block in sorted(set(map(_block, values))):
            stay = {name: moved[keep[name]] for name, moved in values.items() if _block(name) == block}
            super().write(f"{VALUES_STEM}{block:05d}", stay)
        logits = {f"{name}.{kind}": tensor for kind, found in kinds.items() for name, tensor in found.items()}
        if logits:
            super().write(stem, logits)

    def finish(self) -> list[dict[str, Any]]:
        """Put all masks into one file; returns what a manifest says of each, block by block."""
        parts = sorted(self.folder.glob(f"{PART}*{SUFFIX}"))
        if parts:
            save_tensors(TensorFiles(parts), self.folder / MASK_FILE)
        for part in parts:
            part.unlink()
        return sorted(self._rows, key=lambda row: _natural(row["tensor"]))


def cell_files(pruned: Artifact) -> list[str]:
    """The files that a hardened cell takes over if its masks are those of the pruner."""
    return [name for name in sorted(pruned.files) if name == MASK_FILE or name.startswith(VALUES_STEM)]


def logit_files(pruned: Artifact) -> list[str]:
    """The files of logits: what only hardening reads."""
    return [name for name in sorted(pruned.files) if name.endswith(SUFFIX) and name not in cell_files(pruned)]


def read_pruned(pruned: Artifact) -> dict[str, Mapping[str, Tensor]]:
    """{kind: {tensor name: tensor}} of all but the values, block by block, masks unpacked when they are asked for.

    UserError if a file is damaged, or if the masks are not packed, as an earlier release left them.
    """
    kinds: dict[str, Mapping[str, Tensor]] = dict(split_by_kind(TensorFiles(map(pruned.file, logit_files(pruned)))))
    if kinds["keep"] or kinds["values"]:
        raise UserError(
            f"{pruned.folder} has masks or values in the form of an earlier release: delete it and run again"
        )
    if MASK_FILE in pruned.files:
        kinds["keep"] = unpack_masks(pruned)
    return kinds
