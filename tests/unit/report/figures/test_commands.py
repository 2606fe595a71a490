"""Every figure's command, on collected tables that are made up: three files, and the csv has what was plotted."""

import json
from importlib import import_module
from itertools import product

import numpy as np
import pandas as pd
import pytest

from leap_repro.pipeline.provenance import provenance
from leap_repro.report import correlations
from leap_repro.report.collect import DENSITY, OUTCOMES, RESULTS, TRAINING
from leap_repro.report.figures.style import figure_parser
from leap_repro.store.artifacts import writing

FACTS = {
    "dense": {"module": "dense", "label": "Dense", "variant_of": None},
    "admm": {"module": "admm", "label": "ADMM", "variant_of": None},
    "leap": {"module": "leap", "label": "LEAP", "variant_of": None, "options": []},
    "leap-cosine": {"module": "leap", "label": "LEAP (cosine)", "variant_of": "leap", "options": ["tau_schedule"]},
}
SHOWN = {
    "forest": ["admm", "leap"],
    "accuracy": list(FACTS),
    "density": ["leap"],
    "density_by_kind": ["leap"],
    "training": ["leap"],
    "rounding": ["leap", "leap-cosine"],
    "schedules": ["leap", "leap-cosine"],
}


def tables(model, generator):
    """{file: table} of two seeds of every method, at half the weights."""
    cells = [
        {"model": model, "method": method, "sparsity_target": 0.0 if method == "dense" else 0.5, "seed": seed}
        for method, seed in product(FACTS, (0, 1))
    ]
    metrics = (("average", "acc"), ("perplexity", "perplexity@64"))
    results = [
        cell | {"task": task, "metric": metric, "value": generator.uniform(50, 60), "sparsity_actual": 0.5}
        for cell, (task, metric) in product(cells, metrics)
    ]
    outcomes = [
        cell | {"task": task, "leaf": task, "index": index, "correct": int(generator.integers(2))}
        for cell, task, index in product(cells, ("piqa", "mmlu"), range(8))
    ]
    density = [
        cell | {"block": block, "kind": kind, "kept": int(generator.integers(3, 6)), "numel": 8}
        for cell, block, kind in product(cells, (0, 1), ("q_proj", "up_proj"))
    ]
    probes = ("held_out_relaxed", "held_out_objective", "held_out_topk", "held_out_threshold", "agreement", "undecided")
    training = [
        cell | {"step": step} | dict(zip(probes, generator.uniform(0, 1, len(probes)), strict=True))
        for cell, step in product(cells[4:], range(5))
    ]
    rows = {RESULTS: results, OUTCOMES: outcomes, DENSITY: density, TRAINING: training}
    return {name: pd.DataFrame(found) for name, found in rows.items()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root, generator = tmp_path_factory.mktemp("scale"), np.random.default_rng(1)
    for model in ("a", "b"):
        with writing(root / "aggregate" / model, provenance((), {}, {})) as (payload, _):
            for name, table in tables(model, generator).items():
                table.to_parquet(payload / name, index=False)
    return root


def words(root, methods, output):
    facts = json.dumps({name: FACTS[name] for name in methods})
    return ["--root", str(root), "--models", "a", "b", "--methods", facts, "--output", str(output)]


@pytest.mark.parametrize("name", SHOWN)
def test_a_figures_command_writes_it_in_three_forms(root, tmp_path, name):
    module = import_module(f"leap_repro.report.figures.{name}")
    parser = module.parser() if name == "forest" else figure_parser(name, None)
    module.main(parser.parse_args(words(root, SHOWN[name], tmp_path / "drawn")))
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "drawn.pdf").read_bytes().startswith(b"%PDF")
    assert len(pd.read_csv(tmp_path / "drawn.csv")) >= 1


@pytest.mark.parametrize("kind", ["correlations", "gap"])
def test_the_tables_of_rounding_have_a_command(root, tmp_path, kind):
    arguments = correlations.parser().parse_args([*words(root, SHOWN["rounding"], tmp_path / "table"), kind])
    correlations.main(arguments)
    for suffix in ("md", "html", "csv", "tex"):
        assert (tmp_path / f"table.{suffix}").stat().st_size
