"""A packed export runs as it lies: the model's scores are those of the dense one, its memory is the packed size."""

import pytest
import torch
from cells import cell_of
from families import SUPPORTED, tiny

from leap_repro.export.lineage import Lineage
from leap_repro.export.load import load_pruned
from leap_repro.export.write import export_cell
from leap_repro.store.artifacts import Artifact

BOUND = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
"""How far scores may be from the dense model's, as a share of the largest: of another order of the same sums."""


def export_of(folder, family, dtype=torch.float32, **settings):
    """A packed export of the family's tiny model."""
    model = tiny(family)
    model.to(dtype).save_pretrained(folder / "base")
    lineage = Lineage(Artifact(folder / "base", {}, {}), cell_of(tiny(family), folder, 0.5))
    export_cell(folder / "base", lineage, folder / "out", form="packed", **settings)
    return folder / "out"


def agree(one, other, bound):
    assert one.dtype == other.dtype
    assert ((one - other).abs().max() / other.abs().max()).item() < bound


@pytest.mark.parametrize("values", [None, "int8"])
@pytest.mark.parametrize("family", SUPPORTED)
def test_every_family_runs(family, values, tmp_path):
    folder = export_of(tmp_path, family, values=values)
    dense, packed = load_pruned(folder), load_pruned(folder, run="packed")
    assert isinstance(packed, type(dense))
    tokens = torch.arange(3, 23).view(2, 10)
    with torch.no_grad():
        agree(packed(tokens).logits, dense(tokens).logits, BOUND[torch.float32])
    asked = {"max_new_tokens": 4, "do_sample": False, "attention_mask": torch.ones_like(tokens)}
    assert torch.equal(packed.generate(tokens, **asked), dense.generate(tokens, **asked))
    assert packed.dtype == dense.dtype
    assert packed.device == dense.device
    assert not any(tensor.is_meta for tensor in [*packed.parameters(), *packed.buffers()])


def test_half_precision_has_the_dense_models_scores_within_rounding(tmp_path):
    folder = export_of(tmp_path, "qwen2", torch.bfloat16)
    dense, packed = load_pruned(folder), load_pruned(folder, run="packed")
    tokens = torch.arange(3, 23).view(2, 10)
    with torch.no_grad():
        agree(packed(tokens).logits, dense(tokens).logits, BOUND[torch.bfloat16])
    assert packed.get_memory_footprint() < dense.get_memory_footprint()
