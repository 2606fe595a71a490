"""A mask that breaks what its pruner promised is stopped twice: when it is hardened and when it is put on the model."""

import argparse
from fractions import Fraction

import pytest
import torch
from safetensors.torch import save_file

from leap_repro.models.cell import apply_cell
from leap_repro.models.prunable import prunable_linears
from leap_repro.pipeline.stages.harden import main
from leap_repro.prune.job import Job
from leap_repro.prune.methods import thanos, wanda
from leap_repro.sparsity.masks import pack, unpack_masks
from leap_repro.sparsity.pruned import PrunedFolder
from leap_repro.store.artifacts import MASK_FILE, Artifact, writing

CELL = "tiny/wanda-2-4/0.5/0"
TENSOR = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture
def pruned(build_tiny):
    """(options, module) -> a pruned cell of a tiny Llama."""

    def build(module=wanda, **options):
        tokens = torch.arange(32).view(2, 16)
        job = Job(build_tiny("llama"), module.Options(**options), Fraction("0.5"), seed=0, tokens=tokens)
        cell = module.METHOD.prune_cell(job)
        return dict(cell.tensors), cell.facts

    return build


def harden(folder, tensors, facts):
    with writing(folder / "pruned", {}) as (payload, manifest):
        store = PrunedFolder(payload)
        store.write("pruned", tensors)
        manifest |= facts | {"sparsity": "0.5", "seed": 0, "tokens_sha256": None, "tensors": store.finish()}
    main(argparse.Namespace(pruned=folder / "pruned", rule="exact", cell=CELL, output=folder / "cell"))
    return Artifact.read(folder / "cell")


def swap_across_groups(mask):
    """One weight more in the first group of a row and one less in its second: the count stays."""
    mask[0, (~mask[0, :4]).nonzero()[0]] = True
    mask[0, 4 + mask[0, 4:8].nonzero()[0]] = False


def test_a_whole_mask_passes_both(pruned, build_tiny, tmp_path):
    tensors, facts = pruned(pattern="2:4")
    cell = harden(tmp_path, tensors, facts)
    assert (cell.facts["pattern"], cell.facts["budget_scope"]) == ("2:4", "tensor")
    model = build_tiny("llama")
    assert apply_cell(model, cell) == cell.facts["prunable"] // 2
    for linear in prunable_linears(model):
        zeros = (linear.weight == 0).view(-1, 4).sum(dim=1)
        assert (zeros == 2).all(), linear.name


def test_a_broken_group_is_refused_when_hardening_though_the_count_is_right(pruned, tmp_path, refused):
    tensors, facts = pruned(pattern="2:4")
    swap_across_groups(tensors[f"{TENSOR}.keep"])
    with refused(CELL, TENSOR, "2:4"):
        harden(tmp_path, tensors, facts)


def test_a_group_broken_after_hardening_is_refused_when_evaluating(pruned, build_tiny, tmp_path, refused):
    tensors, facts = pruned(pattern="2:4")
    cell = harden(tmp_path, tensors, facts)
    masks = dict(unpack_masks(cell))
    swap_across_groups(masks[TENSOR])
    with writing(tmp_path / "broken", {}) as (payload, manifest):
        save_file({name: pack(mask) for name, mask in masks.items()}, payload / MASK_FILE)
        manifest |= cell.facts
    with refused(CELL, TENSOR, "2:4"):
        apply_cell(build_tiny("llama"), Artifact.read(tmp_path / "broken"))


def test_a_manifest_that_says_another_count_than_its_masks_have_is_refused(pruned, build_tiny, tmp_path, refused):
    """Of a rounding that promises no budget the count is all that can be checked."""
    tensors, facts = pruned(thanos, pattern="2:4", alpha=0.1)
    cell = harden(tmp_path, tensors, facts)
    with writing(cell.folder, {}) as (payload, manifest):
        save_file({name: pack(mask) for name, mask in dict(unpack_masks(cell)).items()}, payload / MASK_FILE)
        manifest |= cell.facts | {"kept": cell.facts["kept"] + 1}
    with refused(CELL, f"keeps {cell.facts['kept']} weights, but its manifest says {cell.facts['kept'] + 1}"):
        apply_cell(build_tiny("llama"), Artifact.read(cell.folder))


def test_rounding_as_released_is_recorded_and_promises_nothing(pruned, build_tiny, tmp_path):
    tensors, facts = pruned(thanos, pattern="2:4", alpha=0.1)
    cell = harden(tmp_path, tensors, facts)
    assert (cell.facts["pattern"], cell.facts["budget_scope"]) == ("2:4+dense-rows", "none")
    assert apply_cell(build_tiny("llama"), cell) == cell.facts["kept"] > cell.facts["prunable"] // 2


@pytest.mark.parametrize("nearer", [False, True])
def test_what_a_pruner_says_of_its_tiles_is_checked_too(pruned, tmp_path, refused, nearer):
    """Masks over dense tiles that are hard already come with what another number of tiles would keep."""
    tensors, facts = pruned()
    tensors[f"{TENSOR}.keep"][~tensors[f"{TENSOR}.keep"]] = True
    kept = sum(int(keep.sum()) for keep in tensors.values())
    facts |= {"budget_scope": "tiles", "neighbours": [kept - 1 if nearer else kept + 1]}
    if nearer:
        with refused(CELL, f"would keep {kept - 1}"):
            harden(tmp_path, tensors, facts)
        return
    assert harden(tmp_path, tensors, facts).facts["neighbours"] == [kept + 1]
