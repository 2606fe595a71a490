"""The benchmark of one cell with one factor changed: on a miniature, with short windows."""

import sys
from dataclasses import replace
from importlib import import_module

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leap_repro.miniature.bundled import bundled_models
from leap_repro.miniature.text import pages


@pytest.fixture
def script(project, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(project / "benchmarks"))
    module = import_module("same_cell")
    monkeypatch.setattr(module, "TABLE", tmp_path / "same_cell.csv")
    monkeypatch.setattr(module, "TOKENS", 512)
    monkeypatch.setattr(module, "LENGTH", 64)
    monkeypatch.setattr(module, "show", lambda page: None)
    base = replace(module.BASE, window=64)
    rows = {
        ("base", ""): base,
        ("window length", "128"): replace(base, window=128),
        ("BOS", "in every window"): replace(base, bos="every window"),
        ("not pruned", ""): replace(base, sparsity=0),
        ("seed of the calibration sample", "1"): replace(base, seed=1),
    }
    monkeypatch.setattr(module, "ROWS", rows)
    yield module
    for name in ("measure", "same_cell"):
        sys.modules.pop(name, None)


def test_every_row_is_measured_once_and_beside_the_base(script, tmp_path, monkeypatch):
    arguments = ["same_cell", "--model", str(bundled_models()["llama3.2-1b-mini"])]
    for name, split in (("text", "test"), ("calibration", "calibration"), ("other", "mask_training")):
        pq.write_table(pa.table({"text": list(pages(split, 120))}), tmp_path / f"{name}.parquet")
        arguments += [f"--{name}", str(tmp_path / f"{name}.parquet")]
    monkeypatch.setattr(sys, "argv", arguments)
    script.main()
    table = pd.read_csv(script.TABLE, keep_default_na=False).set_index("factor")
    assert list(table.index) == ["base", "window length", "BOS", "not pruned", "seed of the calibration sample"]
    assert table.loc["base", "times base"] == 1
    assert (table.loc[["window length", "BOS", "seed of the calibration sample"], "times base"] != 1).all()
    assert table.loc["not pruned", "perplexity"] < table.loc["base", "perplexity"]
    before = script.TABLE.read_bytes()
    monkeypatch.setattr(script.Measured, "perplexity", None)
    script.main()
    assert script.TABLE.read_bytes() == before


def test_the_page_says_what_the_table_says(project):
    table = pd.read_csv(project / "benchmarks/same_cell.csv", dtype={"value": str}, keep_default_na=False)
    times = table.set_index(["factor", "value"])["times base"]
    page = " ".join((project / "docs/why-numbers-differ.md").read_text(encoding="utf-8").split())
    said = f"windows of 512 tokens give {times['window length', '512']:.3f} times the perplexity"
    assert said in page
    assert f"windows of 4,096 tokens {times['window length', '4,096']:.3f} times" in page
    seeds = times["seed of the calibration sample"]
    assert f"another seed changes it by up to {100 * (seeds - 1).abs().max():.0f} %" in page
