"""The benchmark's sums are right, and its steps make a table of a small model."""

import math
import subprocess
import sys
from importlib import import_module

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from leap_repro.miniature.text import pages
from leap_repro.portable import pin, unpin
from leap_repro.report.pages import BLOCK, filled
from leap_repro.runtime import kernels

MODULES = ("measure", "prune_or_quantise_table", "prune_or_quantise_engines", "prune_or_quantise")


@pytest.fixture(autouse=True)
def scripts(project, monkeypatch):
    monkeypatch.syspath_prepend(str(project / "benchmarks"))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def tables():
    return import_module("prune_or_quantise_table")


def test_a_ratio_of_perplexities_has_the_error_of_the_windows_differences(tables):
    dense = {"length": 8, "losses": [1.0, 2.0, 4.0]}
    pruned = {"length": 8, "losses": [1.5, 2.5, 4.5]}
    found = tables.perplexity(pruned, dense)
    assert found["perplexity"] == pytest.approx(math.exp(8.5 / 3), abs=1e-3)
    assert found["times dense's"] == pytest.approx(math.exp(0.5), abs=1e-4)
    assert found["times dense's ±"] == 0
    assert found["perplexity ±"] == pytest.approx(math.exp(8.5 / 3) * math.sqrt(7 / 3 / 3), abs=1e-2)


@pytest.mark.parametrize(
    ("limit", "said"), [(9.0, "below 50 %"), (8.0, "below 50 %"), (7.0, "55 %"), (5.0, "65 %"), (3.0, "above 70 %")]
)
def test_the_break_even_sparsity_lies_where_the_line_between_two_measurements_crosses(tables, limit, said):
    assert tables.crossing([(0.5, 8.0), (0.6, 6.0), (0.7, 4.0)], limit) == said


def test_bits_of_a_packed_export_are_those_of_all_its_parts(tables, tmp_path):
    kept = torch.ones(5, dtype=torch.bfloat16)
    parts = {"a.kept": kept, "a.mask": torch.zeros(2, dtype=torch.uint8), "b": torch.ones(7)}
    save_file(parts, tmp_path / "sparse-model.safetensors")
    (tmp_path / "sparse.json").write_text('{"tensors": {"a": {"shape": [2, 8]}}}')
    assert tables.packed_bits(tmp_path) == (5 * 16 + 2 * 8) / 16


def test_a_speed_is_the_median_of_the_turns(tables):
    turns = [{"a": (prefill, decode)} for prefill, decode in ((1.0, 30.0), (2.0, 10.0), (9.0, 20.0))]
    assert tables.medians(turns) == {"a": {"prefill": 2.0, "decode": 20.0}}
    assert tables.medians([]) == {}


FEW = """
import prune_or_quantise as script, prune_or_quantise_engines as engines
script.METHODS, script.SPARSITIES = ("wanda",), ("0.5", "0.9")
script.TURNS, script.SEQUENCES, script.LENGTH = 2, 16, 64
engines.PROMPT, engines.GENERATED = 8, 2
for step in ("prune", "export", "score", "time", "table"):
    script.main(script.parser().parse_args([step, *sys.argv[2:]]))
"""


@pytest.mark.slow
def test_without_peers_a_model_is_pruned_packed_scored_timed_and_tabled(project, tmp_path):
    unpin()  # the child computes in bfloat16, which the pinned libraries cannot on every processor
    text, base = tmp_path / "text.parquet", project / "src/leap_repro/miniature/released/llama3.2-1b-mini"
    pq.write_table(pa.table({"text": list(pages("calibration", 80))}), text)
    asked = ("--work", tmp_path, "--model", f"mini={base}", "--text", text, "--length", 64, "--windows", 4)
    path = "import sys; sys.path.insert(0, sys.argv[1])"
    words = (project / "benchmarks", *asked, "--output", tmp_path / "table.csv")
    try:
        subprocess.run([sys.executable, "-c", path + FEW, *map(str, words)], check=True, stdin=subprocess.DEVNULL)
    finally:
        pin()
    table = pd.read_csv(tmp_path / "table.csv").set_index(["weights", "stored as"])
    assert len(table) == 1 + 2 * 2
    assert table.loc[("wanda-0.5", "bf16"), "bits a weight"] == pytest.approx(9, abs=0.01)
    assert table.loc[("dense", "bf16"), ["times dense's", "decode 1, times torch's"]].tolist() == [1, 1]
    assert (table.loc[[("wanda-0.9", "bf16"), ("wanda-0.9", "int8")], "times dense's"] > 1).all()
    assert table[["perplexity", "machine", "flags", "torch multiplies by"]].notna().all().all()
    assert table["decode 1"].notna().sum() == 1 + 2 * 2
    said = (tmp_path / "table_break_even.md").read_text()
    assert "torch bf16" in said


@pytest.fixture(scope="module")
def measured(project):
    return pd.read_csv(project / "benchmarks/prune_or_quantise.csv")


def test_every_block_of_the_page_is_the_file_that_it_names(project):
    text = (project / "docs/prune-or-quantise.md").read_text(encoding="utf-8")
    assert len(BLOCK.findall(text)) == 3
    assert filled(text, project) == text


def test_the_pages_first_sentence_is_what_was_measured(measured):
    """Every quantised dense model has lost less than every pruned one of its model, where both were measured."""
    compared = 0
    scored = measured[measured["perplexity"].notna()]
    for _, rows in scored.groupby("model"):
        dense = rows["weights"] == "dense"
        quantised = rows[dense & rows["stored as"].isin(["Q8_0", "Q4_0"])]
        compared += len(quantised)
        assert not quantised["times dense's"].max() > rows.loc[~dense, "times dense's"].min()
    assert compared


def test_speeds_are_as_the_page_says(measured):
    """Quantised ones in llama.cpp are ahead of all packed ones, and those about twice as fast as torch's dense."""
    for threads in (1, 2):
        full = measured[(measured["kernels"] == "avx512vbmi2") & measured[f"decode {threads}"].notna()]
        timed = full[full["model"] == "smollm2-135m"].set_index("run by")
        packed, there = timed.loc["leap-repro"], timed.loc["llama.cpp"]
        quantised = there[there["stored as"].isin(["Q8_0", "Q4_0"])]
        assert quantised[f"decode {threads}"].min() > packed[f"decode {threads}"].max()
        assert 1.8 < packed[f"decode {threads}, times torch's"].median() < 2.8


def test_packed_kernels_of_avx2_are_ahead_of_its_dense_ones_and_of_torch_as_the_page_says(project):
    table = pd.read_csv(project / "benchmarks/packed_kernels.csv")
    rows = table[(table["type"] == "bfloat16") & table["form"].isin(["avx2"])].set_index(["what", "sparsity"])["ms"]
    torch_ms = table[(table["type"] == "bfloat16") & (table["what"] == "torch dense")].set_index("sparsity")["ms"]
    assert len(rows["packed"])
    assert (rows["packed"] < rows["own dense"]).all()
    assert (rows["packed"] < torch_ms).all()


def test_the_runtimes_thresholds_are_those_that_were_fastest(project):
    """Of the measured ones; a fifth is noise."""
    table = pd.read_csv(project / "benchmarks/packed_prefill.csv").set_index("tokens")
    tile = table[f"tiles of {kernels.TILE_BYTES // 1024} KB (ms)"]
    every = table[[name for name in table if name.startswith("tiles of")]]
    assert (tile <= 1.2 * every.min(axis=1)).all()
    by_kernel = table["kernel (ms)"].dropna()
    few = by_kernel.index <= kernels.FEW_TOKENS
    assert (by_kernel[few] <= 1.2 * tile[by_kernel.index[few]]).all()
    assert (by_kernel[~few] > tile[by_kernel.index[~few]]).all()
