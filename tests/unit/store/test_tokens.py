"""Token rows are read from disk as a tensor in memory would give them."""

import pytest
import torch
from safetensors.torch import save_file

from leap_repro.store.tokens import TokenRows, mapped_ids, shard_name


@pytest.fixture
def ids():
    return torch.randint(70000, (13, 5), generator=torch.Generator().manual_seed(0), dtype=torch.int32)


@pytest.fixture
def rows(ids, tmp_path):
    """The ids over three files."""
    paths = []
    for index, part in enumerate(ids.split(5)):
        paths.append(tmp_path / shard_name(index, 3))
        save_file({"tokens": part.contiguous()}, paths[-1])
    return TokenRows(paths)


def test_any_rows_are_those_of_the_whole_tensor(rows, ids):
    generator = torch.Generator().manual_seed(1)
    assert len(rows) == 13
    assert rows.shape == (13, 5)
    for size in (0, 1, 4, 13, 40):
        wanted = torch.randint(13, (size,), generator=generator)
        assert torch.equal(rows[wanted], ids[wanted].long())
    for part in (slice(None), slice(3, 9), slice(12, 50), slice(4, 4)):
        assert torch.equal(rows[part], ids[part].long())
    assert torch.equal(rows[torch.tensor([-1])], ids[-1:].long())


def test_rows_beyond_the_last_are_refused(rows):
    with pytest.raises(IndexError):
        rows[torch.tensor([13])]


def test_rows_are_int64_and_free_to_change(rows, ids):
    found = rows[torch.tensor([2])]
    assert found.dtype == torch.int64
    found += 1
    assert torch.equal(rows[torch.tensor([2])], ids[2:3].long())


def test_the_largest_id_is_found(rows, ids):
    assert rows.largest() == int(ids.max())


@pytest.mark.parametrize(
    "tensors",
    [
        {"ids": torch.zeros(2, 2, dtype=torch.int32)},
        {"tokens": torch.zeros(2, 2)},
        {"tokens": torch.zeros(4, dtype=torch.int32)},
    ],
    ids=["other name", "floats", "flat"],
)
def test_other_tensors_are_refused_by_path(tmp_path, refused, tensors):
    save_file(tensors, tmp_path / "odd.safetensors")
    with refused("odd.safetensors", "tokens"):
        mapped_ids(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("content", [b"", b"no safetensors at all", b"\xff" * 40])
def test_other_files_are_refused_by_path(tmp_path, refused, content):
    (tmp_path / "odd.safetensors").write_bytes(content)
    with refused("odd.safetensors"):
        mapped_ids(tmp_path / "odd.safetensors")


def test_shards_of_different_lengths_are_refused(tmp_path, refused):
    for index in range(2):
        save_file({"tokens": torch.zeros(2, 3 + index, dtype=torch.int32)}, tmp_path / shard_name(index, 2))
    with refused("one length"):
        TokenRows(sorted(tmp_path.iterdir()))
