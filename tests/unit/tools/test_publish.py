"""A published folder is one run's: old files go, and it says on what the run was computed."""

import json

import pandas as pd
import pytest
from publish import computed_on, publish_files

from leap_repro.errors import UserError

CPU = {"cpu": "AMD EPYC", "instructions": "avx2", "threads": 1}
GPU = CPU | {"gpu": "NVIDIA H100", "threads": 4}
VERSIONS = json.dumps({"torch": "2.13.0+cpu"})


def results(machines):
    """One cell a machine, two metrics each."""
    rows = [
        {"model": f"m{number}", "method": "leap", "sparsity_target": 0.5, "seed": 0, "value": value}
        | {
            "machine": json.dumps(machine, sort_keys=True),
            "versions": VERSIONS,
            "git_commit": "abc",
            "bits": "portable",
        }
        for number, machine in enumerate(machines)
        for value in (1.0, 2.0)
    ]
    return pd.DataFrame(rows)


def test_one_machine_is_one_sentence():
    said = computed_on(results([CPU, CPU]))
    assert (
        said
        == "Computed by commit abc: 2 cells on AMD EPYC (avx2), 1 thread a job, portable bits; with torch 2.13.0+cpu.\n"
    )


def test_every_machine_is_named_with_its_cells():
    said = computed_on(results([CPU, GPU, CPU]))
    assert "2 cells on AMD EPYC (avx2), 1 thread a job" in said
    assert "1 cell on AMD EPYC (avx2) and NVIDIA H100, 4 threads a job" in said


def test_what_an_older_run_left_goes(tmp_path):
    root, target = tmp_path / "root", tmp_path / "target"
    for folder in (root / "tables", root / "figures", target / "extended"):
        folder.mkdir(parents=True)
    results([CPU]).to_parquet(root / "results.parquet")
    (root / "tables/main.md").write_text("new")
    (root / "tables/main.html").write_text("for the report only")
    (target / "gone.md").write_text("old")
    publish_files(root, target)
    assert sorted(path.name for path in target.iterdir()) == ["extended", "machine.md", "main.md", "results.parquet"]


def test_a_table_and_a_figure_of_one_name_are_refused_and_nothing_is_lost(tmp_path, refused):
    root, target = tmp_path / "root", tmp_path / "target"
    for folder in (root / "tables", root / "figures", target):
        folder.mkdir(parents=True)
    results([CPU]).to_parquet(root / "results.parquet")
    for folder in ("tables", "figures"):
        (root / folder / "same.csv").write_text(folder)
    (target / "main.md").write_text("old")
    with refused("tables/same.csv", "figures/same.csv", "one name"):
        publish_files(root, target)
    assert [path.name for path in target.iterdir()] == ["main.md"]


def test_an_unfinished_run_is_refused_and_nothing_is_lost(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/main.md").write_text("old")
    with pytest.raises(UserError, match="holds no results"):
        publish_files(tmp_path, tmp_path / "target")
    assert (tmp_path / "target/main.md").read_text() == "old"
