"""What a pruner leaves is kept once: its masks and values are the hardened cell's own files, under a second name."""

import os

import pytest
import torch
from safetensors.torch import save_file

from leap_repro.pipeline.stages.harden import main, parser
from leap_repro.sparsity.masks import pack, read_kept_values, unpack_masks
from leap_repro.sparsity.pruned import PrunedFolder, cell_files, read_pruned, split_by_kind
from leap_repro.store.artifacts import MASK_FILE, Artifact, writing

SHAPES = {f"layers.{block}.{name}.weight": (6, 8) for block in (10, 9, 2) for name in ("up", "down")}


def two_of_four(seed):
    scores = torch.rand((6, 2, 4), generator=torch.Generator().manual_seed(seed))
    return (scores.argsort(-1).argsort(-1) >= 2).view(6, 8)


@pytest.fixture
def masks():
    return {name: two_of_four(seed) for seed, name in enumerate(SHAPES)}


@pytest.fixture
def values():
    return {name: torch.randn(shape).bfloat16() for name, shape in SHAPES.items()}


def leave(folder, tensors, **facts):
    """A pruner's artifact, written block by block."""
    with writing(folder, {}) as (payload, manifest):
        store = PrunedFolder(payload)
        for block in (10, 9, 2):
            store.write(f"block-{block:05d}", {key: t for key, t in tensors.items() if f".{block}." in key})
        manifest |= {"pattern": "2:4", "budget_scope": "tensor", "sparsity": "0.5", "seed": 0, "tokens_sha256": None}
        manifest |= {"tensors": store.finish()} | facts
    return Artifact.read(folder)


def suffixed(kind, tensors):
    return {f"{name}.{kind}": tensor for name, tensor in tensors.items()}


def harden(pruned, output):
    main(parser().parse_args(["--pruned", str(pruned.folder), "--cell", "a/cell", "--output", str(output)]))
    return Artifact.read(output)


def test_masks_and_values_are_read_back_and_nothing_else_is_left(tmp_path, masks, values):
    pruned = leave(tmp_path / "pruned", suffixed("keep", masks) | suffixed("values", values))
    assert sorted(pruned.files) == [MASK_FILE, *(f"values-{block:05d}.safetensors" for block in (2, 9, 10))]
    read, stay = unpack_masks(pruned), read_kept_values(pruned)
    assert all(torch.equal(read[name], mask) for name, mask in masks.items())
    assert all(torch.equal(stay[name], values[name][mask]) for name, mask in masks.items())
    assert [row["block"] for row in pruned.facts["tensors"]] == [2, 2, 9, 9, 10, 10]


def test_the_masks_file_is_what_one_write_of_all_masks_gives(tmp_path, masks):
    pruned = leave(tmp_path / "pruned", suffixed("keep", masks))
    save_file({name: pack(mask) for name, mask in masks.items()}, tmp_path / "at-once.safetensors")
    assert pruned.file(MASK_FILE).read_bytes() == (tmp_path / "at-once.safetensors").read_bytes()


def test_a_hardened_cell_is_a_second_name_for_the_same_bytes(tmp_path, masks, values):
    pruned = leave(tmp_path / "pruned", suffixed("keep", masks) | suffixed("values", values))
    cell = harden(pruned, tmp_path / "cell")
    assert cell.files == pruned.files
    assert all(os.path.samefile(cell.file(name), pruned.file(name)) for name in cell_files(pruned))


def test_without_links_the_cell_is_a_copy(tmp_path, masks, monkeypatch):
    def refuse(*_):
        raise OSError("another file system")

    pruned = leave(tmp_path / "pruned", suffixed("keep", masks))
    monkeypatch.setattr(os, "link", refuse)
    cell = harden(pruned, tmp_path / "cell")
    assert cell.files == pruned.files
    assert not os.path.samefile(cell.file(MASK_FILE), pruned.file(MASK_FILE))


def test_masks_under_tile_logits_are_not_the_cells(tmp_path, masks):
    tiles = {name: torch.randn(2, 2) for name in masks}
    facts = {"pattern": "2:4+dense-tiles-4", "budget_scope": "tiles", "sparsity": "0.25"}
    pruned = leave(tmp_path / "pruned", suffixed("keep", masks) | suffixed("tiles", tiles), **facts)
    hard = unpack_masks(harden(pruned, tmp_path / "cell"))
    assert all(bool((hard[name] | ~mask).all()) for name, mask in masks.items())
    assert any(not torch.equal(hard[name], mask) for name, mask in masks.items())


def test_each_kind_is_found_in_the_order_of_the_blocks(tmp_path, masks):
    logits = {name: torch.randn(6, 8) for name in masks}
    kinds = read_pruned(leave(tmp_path / "pruned", suffixed("logits", logits)))
    assert list(kinds["logits"]) == sorted(SHAPES, key=lambda name: (int(name.split(".")[1]), name))
    assert all(torch.equal(kinds["logits"][name], theta) for name, theta in logits.items())
    assert not kinds["keep"]
    assert list(split_by_kind(suffixed("keep", masks))["keep"]) == list(kinds["logits"])


@pytest.mark.parametrize("kind", ["keep", "logits"])
def test_a_damaged_file_is_refused_before_a_tensor_is_read(tmp_path, masks, refused, kind):
    pruned = leave(tmp_path / "pruned", suffixed(kind, {name: mask.float() > 0 for name, mask in masks.items()}))
    path = pruned.payload / sorted(pruned.files)[0]
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with refused(path.name, "differs from its manifest"):
        read_pruned(pruned)


@pytest.mark.parametrize("kind", ["keep", "values"])
def test_what_an_earlier_release_left_is_refused(tmp_path, masks, refused, kind):
    with writing(tmp_path / "pruned", {}) as (payload, facts):
        save_file(suffixed(kind, masks), payload / "block-00000.safetensors")
        facts |= {"pattern": "2:4", "budget_scope": "tensor", "sparsity": "0.5"}
    with refused(str(tmp_path / "pruned"), "earlier release", "run again"):
        harden(Artifact.read(tmp_path / "pruned"), tmp_path / "cell")
