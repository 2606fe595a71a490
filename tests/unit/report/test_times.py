"""Where the time goes: a grid's own jobs, whatever else lies in the folder of benchmarks."""

import pytest

from leap_repro.report.times import read_benchmarks, time_table

SECONDS = {
    "models/a": 1,
    "data/tasks": 2,
    "calibration/a/mask_training/0": 4,
    "calibration/a/mask_training/1": 1000,
    "prune/a/leap/0.5/0": 8,
    "prune/a/leap/0.6/0": 16,
    "prune/a/leap/0.5/1": 2000,
    "prune/a/leap-cold/0.5/0": 4000,
    "harden/a/leap/0.5/0": 32,
    "harden/a/leap/0.5/1": 8000,
    "evaluate/a/leap/0.5/0": 64,
}
"""More than a hundred seconds: jobs of another grid."""
CELLS = ["a/leap/0.5/0", "a/leap/0.6/0"]


@pytest.fixture
def table(tmp_path):
    for name, seconds in SECONDS.items():
        path = tmp_path / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\tmax_rss\n{seconds}\t{seconds + 100}\n")
    return time_table(read_benchmarks(tmp_path, CELLS, ["a/mask_training/0"])).numbers


def test_another_grids_jobs_do_not_count(table):
    assert table["total"].sum() == sum(seconds for seconds in SECONDS.values() if seconds < 100)
    assert list(table["stage"]) == ["models", "data", "calibration", "prune", "harden", "evaluate"]


def test_what_only_hardens_anothers_logits_has_no_prune_job(table, tmp_path):
    """An earlier release may have left one."""
    cells = [*CELLS, "a/leap-cold/0.5/0"]
    own = read_benchmarks(tmp_path, cells, ["a/mask_training/0"], pruned=CELLS)
    assert own["seconds"].sum() == table["total"].sum()


def test_prune_jobs_are_summed_up_by_method(table):
    (prune,) = table[table["stage"] == "prune"].itertuples()
    assert (prune.method, prune.jobs, prune.total, prune.longest, prune.memory) == ("leap", 2, 24, 16, 116)
    assert prune.share == pytest.approx(100 * 24 / table["total"].sum())


def test_memory_that_nobody_measured_is_no_number(tmp_path):
    for name, memory in (("prune/a/leap/0.5/0", "NA"), ("models/a", "7")):
        path = tmp_path / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\tmax_rss\tcpu_time\n8\t{memory}\tNA\n")
    shown = time_table(read_benchmarks(tmp_path, CELLS, [])).shown
    assert list(shown["Peak memory (MB)"]) == ["7", "not measured"]
