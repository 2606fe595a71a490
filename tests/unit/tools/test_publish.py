"""A published folder is one run's: old files go, and it says on what the run was computed."""

import json

import pandas as pd
import pytest
from publish import computed_on, publish_files

from leap_repro.errors import UserError
from leap_repro.store.sums import checked_files, write_sums

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


TABLES = {"tables/main.md": "new", "tables/main.html": "for the report only"}


def digests(folder):
    """Write the digests of a run's tables and figures."""
    for stem in {path.with_suffix("") for path in folder.rglob("*/*.*")}:
        write_sums(stem.with_suffix(".sha256"), sorted(stem.parent.glob(f"{stem.name}.*")))


def made(tmp_path, files):
    """(root, target) of a finished run with these files."""
    root, target = tmp_path / "root", tmp_path / "target"
    for folder in (root / "tables", root / "figures", target / "extended"):
        folder.mkdir(parents=True)
    results([CPU]).to_parquet(root / "results.parquet")
    results([CPU]).to_parquet(root / "answers.parquet")
    for name in ("results", "answers"):
        write_sums(root / f"{name}.sha256", [root / f"{name}.parquet"])
    for place, text in files.items():
        (root / place).write_text(text)
    digests(root)
    (target / "gone.md").write_text("old")
    return root, target


def test_what_an_older_run_left_goes_and_the_rest_has_digests(tmp_path):
    root, target = made(tmp_path, TABLES)
    publish_files(root, target)
    published = ["answers.parquet", "machine.md", "main.md", "results.parquet"]
    assert sorted(path.name for path in target.iterdir()) == sorted(["SHA256SUMS", "extended", *published])
    assert checked_files(target / "SHA256SUMS") == [target / name for name in published]


@pytest.mark.parametrize("name", ["results.parquet", "answers.parquet", "tables/main.md", "figures/density.csv"])
def test_a_file_that_was_changed_is_refused_and_nothing_is_lost(tmp_path, refused, name):
    root, target = made(tmp_path, TABLES | {"figures/density.csv": "1"})
    data = bytearray((root / name).read_bytes())
    data[len(data) // 2] ^= 1
    (root / name).write_bytes(data)
    with refused(str(root / name), "sha256"):
        publish_files(root, target)
    assert (target / "gone.md").is_file()


def test_a_file_without_a_digest_is_refused(tmp_path, refused):
    root, target = made(tmp_path, TABLES)
    (root / "tables/older.md").write_text("an earlier release's")
    with refused("tables/older.md", "no digest"):
        publish_files(root, target)


def test_a_table_and_a_figure_of_one_name_are_refused_and_nothing_is_lost(tmp_path, refused):
    root, target = made(tmp_path, {"tables/same.csv": "tables", "figures/same.csv": "figures"})
    with refused("tables/same.csv", "figures/same.csv", "one name"):
        publish_files(root, target)
    assert (target / "gone.md").is_file()


def test_an_unfinished_run_is_refused_and_nothing_is_lost(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/main.md").write_text("old")
    with pytest.raises(UserError, match="holds no results"):
        publish_files(tmp_path, tmp_path / "target")
    assert (tmp_path / "target/main.md").read_text() == "old"
