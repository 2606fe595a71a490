"""A line that hardens another's logits by another rule: no training, one hardening, and every number traced to the
pruning that it came from."""

import json

import pandas as pd
from scratch import edit, planned, snakemake

from leap_repro.export.lineage import lineage_of
from leap_repro.store.artifacts import MANIFEST, Artifact

LINE = """\
  leap-threshold: {hardens: leap, label: LEAP (theta > 0), changes: hardened where theta > 0, hardening: threshold}
scales:
"""
BASE, CELL = "mini/leap/0.5/0", "mini/leap-threshold/0.5/0"
COLLECTED = "results/tiny/extended/aggregate/mini/manifest.json"


def test_it_costs_a_hardening_and_is_traced_to_the_others_pruning(checkout):
    edit(checkout, "config.yaml", "scales:\n", LINE)
    edit(checkout, "config.yaml", "extended: [admm-as-released]", "extended: [leap-threshold]")
    edit(checkout, "config.yaml", "    threads: 1\n", "    threads: 1\n    clean_up: [logits]\n")
    assert planned(checkout, COLLECTED) == {"harden": 1, "evaluate": 1, "collect_model": 1}
    snakemake(checkout, "results/tiny/cleaned/mini.json")
    assert json.loads((checkout / "results/tiny/cleaned/mini.json").read_text()) == {}, "its logits are still wanted"
    snakemake(checkout, COLLECTED, "results/tiny/extended/tables/time.md", "results/tiny/extended/cleaned/mini.json")

    root = checkout / "results/tiny"
    assert not (root / "prune" / CELL).exists()
    pruned, cell = (Artifact.read(root / place / MANIFEST) for place in (f"prune/{BASE}", f"harden/{CELL}"))
    assert cell.facts["cell"] == CELL
    assert cell.facts["rule"] == "threshold"
    lineage = lineage_of(Artifact.read(root / "models/mini" / MANIFEST), cell)
    assert lineage.pruned.folder == pruned.folder
    results = pd.read_parquet(root / "extended/aggregate/mini/payload/results.parquet")
    codes = results.groupby("method")["code_prune"].unique()
    assert list(codes["leap-threshold"]) == list(codes["leap"])
    training = pd.read_parquet(root / "extended/aggregate/mini/payload/training.parquet")
    assert set(training["method"]) == {"leap"}, "a training is counted once"
    assert "leap-threshold" not in (root / "extended/tables/time.md").read_text()
    assert list(json.loads((root / "extended/cleaned/mini.json").read_text())) == [f"prune/{BASE}"]
