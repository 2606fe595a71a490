"""A run against the published one: what is the same, what is rounding, what is another result."""

import pandas as pd
import pytest

from leap_repro.report import verify
from leap_repro.store.sums import write_sums

RECORD = "figures/miniature/results.parquet"


@pytest.fixture
def record(project):
    return pd.read_parquet(project / RECORD)


def cell_of(frame, method="leap", sparsity=0.6):
    return (frame["model"] == "llama3.2-1b-mini") & (frame["method"] == method) & (frame["sparsity_target"] == sparsity)


def verdict_of(run, record):
    cells = verify.compare(run, record)
    return cells[cell_of(cells)].iloc[0]


def test_a_run_is_the_record(record):
    cells = verify.compare(record.sample(frac=1, random_state=0), record)
    assert set(cells["verdict"]) == {"identical"}
    assert len(cells) == record.groupby(verify.CELL).ngroups
    assert verify.summary(cells, 0) == "80 cells compared with the published run: 80 identical (80 masks identical)."


@pytest.mark.parametrize(
    ("task", "change", "verdict"),
    [
        ("perplexity", lambda value, n: value * (1 + 1e-6), "within rounding"),
        ("perplexity", lambda value, n: value * (1 + 1e-4), "different"),
        ("piqa", lambda value, n: value + 100 / n, "within rounding"),
        ("piqa", lambda value, n: value - 200 / n, "different"),
    ],
)
def test_numbers_are_told_apart_by_their_size(record, task, change, verdict):
    run = record.copy()
    rows = cell_of(run) & (run["task"] == task)
    run.loc[rows, "value"] = change(run.loc[rows, "value"], run.loc[rows, "n"])
    assert verdict_of(run, record)["verdict"] == verdict
    assert (verify.compare(run, record)["verdict"] == "identical").sum() == 79


def test_another_mask_is_another_result_even_with_the_same_numbers(record):
    run = record.copy()
    run.loc[cell_of(run), "mask_sha256"] = "0" * 64
    found = verdict_of(run, record)
    assert (found["mask"], found["verdict"]) == ("other", "different")


def test_a_part_of_a_run_is_compared_and_the_rest_is_counted(record):
    run = record[record["model"] == "llama3.2-1b-mini"]
    cells = verify.compare(run, record)
    assert verify.summary(cells, 64).endswith("(16 masks identical); 64 of the record's cells are not in this run.")


def test_what_cannot_be_compared_is_refused(record, refused):
    with refused("no cell in common"):
        verify.compare(record.assign(model="other"), record)
    with refused("llama3.2-1b-mini/leap/0.6/0", "other tasks than the record's"):
        verify.compare(record[~(cell_of(record) & (record["task"] == "piqa"))], record)


@pytest.mark.parametrize(("factor", "status"), [(1, 0), (1 + 1e-6, 1), (1.1, 3)])
def test_the_exit_status_says_which(record, project, monkeypatch, capsys, factor, status):
    run = record.copy()
    run.loc[run["task"] == "perplexity", "value"] *= factor
    monkeypatch.setattr(verify, "read_run", lambda root: run)
    arguments = verify.parser().parse_args(["--record", str(project / RECORD)])
    assert verify.main(arguments) == status
    assert capsys.readouterr().out.splitlines()[-1].startswith("80 cells compared with the published run: ")


def test_a_record_that_was_changed_or_has_no_digest_is_refused(record, tmp_path, monkeypatch, refused):
    """29 of 400 flipped bytes of this file were read as other numbers."""
    monkeypatch.setattr(verify, "read_run", lambda root: record)
    arguments = verify.parser().parse_args(["--record", str(tmp_path / "results.parquet")])
    record.to_parquet(tmp_path / "results.parquet", index=False)
    with refused("has no digest beside it"):
        verify.main(arguments)
    write_sums(tmp_path / "SHA256SUMS", [tmp_path / "results.parquet"])
    assert verify.main(arguments) == 0
    data = bytearray((tmp_path / "results.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "results.parquet").write_bytes(data)
    with refused("results.parquet is missing or was changed"):
        verify.main(arguments)


def test_without_a_run_or_a_record_it_says_what_to_do(tmp_path, project, refused):
    with refused(str(tmp_path), "snakemake --cores all"):
        verify.main(verify.parser().parse_args(["--run", str(tmp_path), "--record", str(project / RECORD)]))
    with refused("--record"):
        verify.main(verify.parser().parse_args(["--record", str(tmp_path / "none.parquet")]))
