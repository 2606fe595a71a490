"""A reconstruction in the workflow: its selector comes from the config; its code and options decide what is stale."""

import json

import pandas as pd
from scratch import edit, planned, snakemake

CELL = "mini/wanda+optima/0.5/0"
TARGET = f"results/tiny/harden/{CELL}/manifest.json"
LINES = """  sparsegpt: {module: sparsegpt}
  wanda+optima: {module: optima, selector: wanda}
  leap:"""
PACKAGE = "src/leap_repro/prune/methods"
AS_RELEASED = ("{module: wanda, label: Wanda}", "{module: wanda, options: {rounding: as_released}}")


def read(checkout, path):
    return json.loads((checkout / f"results/tiny/{path}").read_text())


def test_it_runs_with_its_selector_and_only_that_selectors_changes_rerun_it(checkout):
    edit(checkout, "config.yaml", "  leap:", LINES)
    snakemake(checkout, TARGET)
    facts = read(checkout, f"harden/{CELL}/manifest.json")["facts"]
    assert (facts["pattern"], facts["budget_scope"]) == ("unstructured", "tensor")
    assert 2 * facts["kept"] == facts["prunable"]
    origin = read(checkout, f"prune/{CELL}/provenance.json")
    assert {"leap_repro.prune.methods.optima", "leap_repro.prune.methods.wanda"} <= set(origin["modules"])
    assert origin["parameters"]["selector"] == {"module": "wanda", "options": {}}
    log = pd.read_parquet(checkout / f"results/tiny/prune/{CELL}/payload/log.parquet")
    assert (log["relative_error"] < log["selector_relative_error"]).all()
    assert log["updated"].all()
    raised = read(checkout, f"prune/{CELL}/manifest.json")["facts"].get("raised_dampings", {})
    assert set(raised) == set(log.loc[log["dampings"].str.len() > 1, "tensor"])

    assert planned(checkout, TARGET) == {}
    edit(checkout, f"{PACKAGE}/sparsegpt.py", "return (weight[", "return (1.0 * weight[")
    assert planned(checkout, TARGET) == {}
    edit(checkout, "config.yaml", *AS_RELEASED)
    assert planned(checkout, TARGET) == {"prune": 1, "harden": 1}
    edit(checkout, "config.yaml", *reversed(AS_RELEASED))
    assert planned(checkout, TARGET) == {}
    edit(checkout, f"{PACKAGE}/wanda.py", "layer.weight.abs() *", "1.0 * layer.weight.abs() *")
    assert planned(checkout, TARGET) == {"prune": 1, "harden": 1}
