"""The plan of a grid: all jobs are in it, what is done costs nothing, a run's own jobs are planned as the grid's."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from leap_repro.study.config import Cluster
from leap_repro.study.grid import read_study
from leap_repro.study.plan import PROCESS_BYTES, is_done, jobs_of, jobs_to_run, plan, plan_of_run, summary

REPOSITORY = Path(__file__).resolve().parents[3]
NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def paper():
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    return read_study(config | {"scale": "paper"})


def lines_of(study, root=NOWHERE):
    return {line.name: line for line in summary(jobs_of(study, root), lambda job: is_done(job, root))}


def test_every_cell_of_the_papers_grid_is_planned(paper):
    lines = lines_of(paper)
    cells = 5 * (1 + 7 * 2 + 1)  # dense once, MaskLLM at one half only
    assert [lines[name].jobs for name in ("models", "data", "harden", "evaluate")] == [5, 4, cells, cells]
    assert lines["calibration"].jobs == 2 * 5
    assert sum(line.jobs for name, line in lines.items() if name.startswith("prune ")) == cells
    assert lines["all"].jobs == 5 + 4 + 10 + 3 * cells


def test_the_total_adds_hours_and_disk_and_takes_the_largest_memory(paper):
    lines = lines_of(paper)
    total = lines.pop("all")
    assert total.hours == pytest.approx(sum(line.hours for line in lines.values()))
    assert total.disk_bytes == pytest.approx(sum(line.disk_bytes for line in lines.values()))
    assert total.gpu_bytes == max(line.gpu_bytes for line in lines.values()) == lines["prune maskllm"].gpu_bytes


def test_what_is_done_costs_nothing_more(paper, tmp_path):
    before = lines_of(paper, tmp_path)
    (tmp_path / "evaluate/llama3.1-8b/leap/0.5/0").mkdir(parents=True)
    (tmp_path / "evaluate/llama3.1-8b/leap/0.5/0/manifest.json").write_text("{}")
    after = lines_of(paper, tmp_path)
    assert after["evaluate"].done == 1
    assert after["evaluate"].hours < before["evaluate"].hours
    assert "done" in plan(paper, tmp_path)
    assert "done" not in plan(paper, NOWHERE)


def test_a_runs_own_jobs_cost_what_the_grids_do(paper):
    rules = {"models": "fetch_model", "data": "fetch_data", "calibration": "build_tokens"}
    grid = list(jobs_of(paper, NOWHERE))
    places = [job.folder.split("/") for job in grid]
    run = jobs_to_run(paper, NOWHERE, [(rules.get(stage, stage), tuple(place)) for stage, *place in places])
    assert sorted(run, key=str) == sorted(grid, key=str)


def test_rules_that_take_seconds_are_left_out_and_no_job_is_no_plan(paper):
    assert plan_of_run(paper, NOWHERE, [("plot_figure", ("", "density")), ("all", ())]) == ""


def test_without_a_gpu_the_same_work_counts_as_memory_of_the_host(paper):
    cpu = replace(paper, settings=paper.settings.model_copy(update={"cluster": Cluster(gpus=0)}))
    gpu_line, cpu_line = lines_of(paper)["prune leap"], lines_of(cpu)["prune leap"]
    assert cpu_line.gpu_bytes == 0
    assert cpu_line.host_bytes == max(PROCESS_BYTES + gpu_line.gpu_bytes, gpu_line.host_bytes)
    assert cpu_line.hours > 100 * gpu_line.hours
