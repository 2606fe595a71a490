"""What is collected of a cell, from a manifest written by hand."""

from leap_repro.aggregate.collect import density_rows
from leap_repro.store.artifacts import writing
from leap_repro.store.provenance import provenance

CELL = "tiny/leap/0.5/3"


def test_densities_are_counted_per_block_and_kind_of_matrix_experts_together(tmp_path):
    counts = {
        "model.layers.10.self_attn.q_proj": (4, 16),
        "model.layers.2.self_attn.q_proj": (5, 16),
        "model.layers.2.mlp.experts.0.up_proj": (1, 8),
        "model.layers.2.mlp.experts.1.up_proj": (2, 8),
        "model.layers.2.mlp.fc1.weight": (3, 8),
    }
    rows = [
        {"tensor": name, "block": int(name.split(".")[2]), "kept": kept, "numel": numel}
        for name, (kept, numel) in counts.items()
    ]
    with writing(tmp_path / "harden" / CELL, provenance((), {}, {})) as (_, facts):
        facts["tensors"] = rows
    found = density_rows(tmp_path, CELL)
    assert found[["block", "kind", "kept", "numel"]].to_numpy().tolist() == [
        [2, "q_proj", 5, 16],
        [2, "up_proj", 3, 16],
        [2, "fc1", 3, 8],
        [10, "q_proj", 4, 16],
    ]
    assert found[["model", "method", "sparsity_target", "seed"]].drop_duplicates().to_numpy().tolist() == [
        ["tiny", "leap", 0.5, 3]
    ]
