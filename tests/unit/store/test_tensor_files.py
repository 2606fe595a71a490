"""Tensors over several files are read one by one, and a folder of them grows."""

import pytest
import torch
from safetensors.torch import save_file

from leap_repro.store.tensor_files import TensorFiles, TensorFolder, TensorsInMemory


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {"a": torch.randn(3, 4, generator=generator), "b": torch.randn(5, generator=generator).to(torch.bfloat16)}


@pytest.mark.parametrize("make", [TensorFolder, lambda folder: TensorsInMemory()])
def test_what_is_written_in_parts_is_read_as_a_whole(make, tensors, tmp_path):
    store = make(tmp_path)
    for name, tensor in tensors.items():
        store.write(f"part-{name}", {name: tensor})
    assert set(store) == set(tensors)
    assert len(store) == len(tensors)
    assert all(
        torch.equal(store[name], tensor) and store[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )
    with pytest.raises(KeyError):
        store["c"]


def test_a_view_that_is_not_contiguous_is_written_as_it_looks(tmp_path):
    tensor = torch.arange(6).view(2, 3).T
    TensorFolder(tmp_path).write("one", {"x": tensor})
    assert torch.equal(TensorFolder(tmp_path)["x"], tensor)


def test_a_change_of_what_was_read_does_not_reach_the_file(tensors, tmp_path):
    save_file(tensors, tmp_path / "all.safetensors")
    before = (tmp_path / "all.safetensors").read_bytes()
    files = TensorFiles([tmp_path / "all.safetensors"])
    files["a"].zero_()
    assert torch.equal(files["a"], tensors["a"])
    assert (tmp_path / "all.safetensors").read_bytes() == before


def test_a_file_that_is_none_is_named(tmp_path, refused):
    (tmp_path / "bad.safetensors").write_bytes(b"no header")
    with refused("bad.safetensors", "not a readable safetensors file"):
        TensorFiles([tmp_path / "bad.safetensors"])
