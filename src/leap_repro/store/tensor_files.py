"""Tensors in safetensors files, read one at a time: what keeps a stage's memory at one matrix instead of a model.

A tensor that is read is a view of the mapped file; it costs memory only where it is touched, and the file is never
written through it. Copy it before keeping it for long or changing it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from leap_repro.errors import UserError, reason
from leap_repro.store.artifacts import SUFFIX
from leap_repro.store.atomic import share


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file that others may read as the umask says."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    share(path)


class TensorFiles(Mapping[str, Tensor]):
    """{name: tensor} over several safetensors files; UserError if one of them is none."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._places: dict[str, Path] = {}
        for path in paths:
            self._index(path)

    def _index(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                self._places |= dict.fromkeys(file.keys(), path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} is not a readable safetensors file: {reason(error)}") from error

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._places[name], framework="pt") as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class TensorFolder(TensorFiles):
    """The same over one folder that grows file by file while a stage works through a model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(sorted(folder.glob(f"*{SUFFIX}")))

    def write(self, stem: str, tensors: Mapping[str, Tensor]) -> None:
        """Add `<stem>.safetensors` with these tensors."""
        path = self.folder / f"{stem}{SUFFIX}"
        save_tensors(tensors, path)
        self._index(path)


class TensorsInMemory(dict[str, Tensor]):
    """A `TensorFolder` without a folder, for small models."""

    def write(self, stem: str, tensors: Mapping[str, Tensor]) -> None:
        """Add these tensors; there is no file, so `stem` names nothing."""
        self.update(tensors)
