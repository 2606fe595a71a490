"""What is collected of a cell, from a manifest written by hand."""

import math

import pandas as pd
import pytest

from leap_repro.pipeline.chain import pruned_cell
from leap_repro.pipeline.provenance import provenance
from leap_repro.report.collect import LOG, bits_of, density_rows, result_rows, training_rows
from leap_repro.store.artifacts import writing

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


def test_the_pruning_of_a_cell_is_its_own_or_that_of_the_line_whose_logits_it_hardens():
    methods = {"leap-threshold": {"pruned": "leap"}, "leap": {"pruned": "leap"}}
    assert pruned_cell("m/leap-threshold/0.6/0", methods) == "m/leap/0.6/0"
    assert pruned_cell("m/leap/0.6/0", methods) == "m/leap/0.6/0"


@pytest.mark.parametrize(
    ("made", "said"),
    [(("portable", "portable"), "portable"), (("portable", "native"), "native"), (("native",), "native")],
)
def test_a_row_is_portable_if_all_that_made_it_was(made, said):
    assert bits_of(*({"parameters": {"bits": bits}} for bits in made)) == said


def test_an_evaluation_that_counted_other_weights_than_the_mask_keeps_is_refused(tmp_path, refused):
    folders = ("models/tiny", f"harden/{CELL}", f"evaluate/{CELL}", "calibration/tiny/calibration/3", f"prune/{CELL}")
    for folder in folders:
        with writing(tmp_path / folder, {}) as (_, facts):
            facts["kept"] = 11 if folder.startswith("evaluate") else 12
    with refused(
        f"cell {CELL}: its evaluation counted 11 weights, but its mask keeps 12", f"delete {tmp_path}/evaluate"
    ):
        result_rows(tmp_path, CELL, "commit", {"leap": {"pruned": "leap"}})


def pruned(root, cell, log):
    with writing(root / "prune" / cell, {}) as (payload, _):
        if log is not None:
            pd.DataFrame(log).to_parquet(payload / LOG, index=False)


def test_a_training_of_masks_has_a_row_for_each_step_of_its_log_with_the_cells_keys(tmp_path):
    log = {"step": [0, 1, 2], "density_relaxed": [0.6, 0.55, 0.5], "held_out_topk": [4.0, math.nan, 3.5]}
    pruned(tmp_path, CELL, log)
    found = training_rows(tmp_path, CELL)
    pd.testing.assert_frame_equal(found[[*log]], pd.DataFrame(log))
    keys = found[["model", "method", "sparsity_target", "seed"]].drop_duplicates()
    assert keys.to_numpy().tolist() == [["tiny", "leap", 0.5, 3]]


@pytest.mark.parametrize("log", [None, {"step": [0, 1], "loss": [3.0, 2.0]}])
def test_a_cell_that_trained_no_masks_has_no_row(tmp_path, log):
    """Layer-wise pruning has no log; a recovery's is of weights."""
    pruned(tmp_path, CELL, log)
    assert training_rows(tmp_path, CELL).empty
