"""The benchmarks measure what they say, on layers so small that it takes no time."""

import json
import sys
from importlib import import_module

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

METHODS = {
    "magnitude": {"module": "magnitude", "options": {}},
    "sparsegpt+optima": {
        "module": "optima",
        "options": {"damping": 0.1},
        "selector": {"module": "sparsegpt", "options": {"block_size": 8}},
    },
}


@pytest.fixture(autouse=True)
def scripts(project, monkeypatch):
    monkeypatch.syspath_prepend(str(project / "benchmarks"))
    yield
    names = ("measure", "one_shot", "one_shot_at_8b", "optima_vs_qp", "optima_solvers", "scaling")
    for name in (*names, "gguf_zeros", "packed_kernels", "packed_prefill"):
        sys.modules.pop(name, None)


def run(name, *arguments):
    module = import_module(name)
    module.main(module.parser().parse_args([str(argument) for argument in arguments]))


def test_every_method_is_timed_and_the_table_says_where(tmp_path):
    sizes = ("--shapes", "6x16", "--repeats", 2)
    run("one_shot", "--methods", json.dumps(METHODS), *sizes, "--output", tmp_path / "speed.csv")
    table = pd.read_csv(tmp_path / "speed.csv")
    cpu = table[table["device"] == "cpu"]
    assert list(cpu["method"]) == list(METHODS)
    assert (cpu[["wall_seconds", "cpu_seconds"]] >= 0).all().all()
    assert (cpu[["rows", "columns", "sparsity", "repeats"]] == [6, 16, 0.5, 2]).all().all()
    assert table[["machine", "threads", "torch"]].notna().all().all()
    shown = (tmp_path / "speed.md").read_text()
    assert "rows 6, columns 16, sparsity 0.5" in shown.splitlines()[0]
    assert [line.split("|")[1].strip() for line in shown.splitlines()[4:]] == list(table["method"])


def test_a_reconstruction_is_timed_with_its_selector_and_leaves_the_layer_alone():
    one_shot, measure = import_module("one_shot"), import_module("measure")
    layer = measure.make_layer(6, 16, measure.Fraction(1, 2))
    before = layer.weight.clone()
    pruned = one_shot.prune(layer, METHODS["sparsegpt+optima"])
    assert pruned.log["dampings"] == (0.1,)
    assert pruned.log["selector_dampings"] == (0.01,)
    assert int(pruned.keep.sum()) == 48
    assert before.equal(layer.weight)


def test_osqp_reaches_our_residual_in_both_forms(tmp_path):
    pytest.importorskip("osqp", reason="only the benchmark needs it: pip install -r envs/benchmarks.txt")
    run("optima_vs_qp", "--widths", 12, 24, "--qp-up-to", 24, "--qp-rows", 4, "--output", tmp_path / "qp.csv")
    table = pd.read_csv(tmp_path / "qp.csv")
    assert len(table) == 6
    for _, block in table.groupby("width"):
        ours, *others = block.to_dict("records")
        assert ours["solver"] == "ours"
        assert ours["residual"] < 1e-4
        assert all(row["residual"] <= ours["residual"] for row in others)


def test_zeros_survive_gguf_types_without_a_minimum(tmp_path):
    pytest.importorskip("gguf")
    run("gguf_zeros", "--output", tmp_path / "zeros.csv")
    table = pd.read_csv(tmp_path / "zeros.csv").set_index(["type", "sparsity"])["zeros that stay 0 (%)"]
    assert (table.loc[["F16", "Q8_0", "Q4_0"]] == 100).all()
    assert (table.loc[["Q4_1"]] < 1).all()


@pytest.mark.parametrize(
    ("name", "table", "rows"), [("scaling", "table", 2 * 5), ("roofline", "steps", 5), ("choices", "choices", 3 * 5)]
)
def test_the_tables_of_gpus_are_the_plans(project, name, table, rows):
    found = getattr(import_module("scaling"), table)()
    assert found == (project / f"benchmarks/{name}.md").read_text()
    assert len(found.splitlines()) == 4 + rows


def test_a_step_before_is_the_one_that_was_estimated_then():
    """186.9 s on an H200 at 8B, 1.34 times a dense step; 271.0 s in few bits."""
    rows = import_module("scaling").steps().splitlines()
    assert "186.9 s (1.34)" in next(row for row in rows if row.startswith("| leap, llama3.1-8b |"))
    assert "271.0 s" in rows[-1]


def test_both_of_optimas_solvers_are_timed_on_made_and_on_real_inputs(tmp_path, project):
    output = tmp_path / "solvers.csv"
    run("optima_solvers", "--widths", 24, 48, "--rows", 30, "--rows-timed", 8, "--output", output)
    shard = tmp_path / "tokens.safetensors"
    save_file({"tokens": torch.randint(0, 100, (6, 64), generator=torch.Generator().manual_seed(0))}, shard)
    model = project / "src/leap_repro/miniature/released/llama3.2-1b-mini"
    real = ("--model", model, "--model-name", "mini", "--tokens", shard, "--token-count", 300, "--block", 1)
    run("optima_solvers", *real, "--rows-timed", 8, "--output", output)
    table = pd.read_csv(output)
    assert list(table["inputs"].str.startswith("mini: ")) == [False] * 2 + [True] * 4
    made = table[:2]
    assert list(made["rows"]) == [24, 30]
    assert (made[["factors_residual", "gradients_residual"]] < 1e-4).all(axis=None)
    assert (made["excess"] < 1e-5).all()
    assert (table["steps"] > 0).all()
    assert (table["taken"] == "factors").all()


def test_the_table_of_one_shot_methods_at_8b_is_what_the_plan_says_now(tmp_path, project):
    again = "run `python benchmarks/one_shot_at_8b.py --output benchmarks/one_shot_at_8b.csv --page docs/plan.md`"
    run("one_shot_at_8b", "--output", tmp_path / "one_shot_at_8b.csv")
    for name in ("one_shot_at_8b.csv", "one_shot_at_8b.md"):
        assert (tmp_path / name).read_text() == (project / "benchmarks" / name).read_text(), again


def test_packed_kernels_are_timed_against_dense_ones_and_the_memory(tmp_path):
    if not import_module("leap_repro.runtime.forms").compiled():
        pytest.skip("installed without a compiler")
    small = ("--block", "SmolLM2-135M", "--bytes", 1_000_000, "--sparsities", 0.5, "--threads", 1, "--repeats", 1)
    run("packed_kernels", *small, "--output", tmp_path / "kernels.csv")
    table = pd.read_csv(tmp_path / "kernels.csv")
    assert set(table["type"]) == {"bfloat16", "float32", "int8"}
    assert set(table["what"]) == {"torch dense", "own dense", "packed", "memory only read"}
    sizes = table[table["type"] == "bfloat16"].groupby("what")["megabytes"].first()
    assert sizes["packed"] / sizes["torch dense"] == pytest.approx(0.5 + 1 / 16, rel=0.02)
    assert (table["GB/s"] > 0).all()


def test_ways_to_multiply_a_prompt_are_timed(tmp_path):
    sizes = ("--block", "SmolLM2-135M", "--tokens", 2, 100, "--threads", 1, "--repeats", 1)
    run("packed_prefill", *sizes, "--output", tmp_path / "prefill.csv")
    table = pd.read_csv(tmp_path / "prefill.csv").set_index("tokens")
    assert table.loc[2].filter(like="(ms)").notna().all()
    assert table.loc[100, "kernel (ms)"] != table.loc[100, "kernel (ms)"]
    assert (table.loc[100, ["dense (ms)", "tiles of 1024 KB (ms)"]] > 0).all()
