"""The plan of a grid: all jobs are in it, what is done costs nothing, a run's own jobs are planned as the grid's."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from leap_repro.costs.plan import (
    PROCESS_BYTES,
    bytes_per_weight,
    is_done,
    jobs_of,
    jobs_to_run,
    plan,
    plan_of_run,
    summary,
)
from leap_repro.costs.resources import model_sizes
from leap_repro.costs.roofline import H100
from leap_repro.pipeline.config import Cluster
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.jobs import with_starts
from leap_repro.pipeline.reading import read_config
from leap_repro.pipeline.stages.harden import main as harden
from leap_repro.pipeline.stages.harden import parser
from leap_repro.prune.learned.automatic import in_words
from leap_repro.sparsity.pruned import PrunedFolder
from leap_repro.store.artifacts import writing

REPOSITORY = Path(__file__).resolve().parents[3]
NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def paper():
    config = read_config(project=REPOSITORY)
    return read_study(config | {"scale": "paper"})


def lines_of(study, root=NOWHERE):
    return {line.name: line for line in summary(jobs_of(study, root), lambda job: is_done(job, root))}


def test_every_cell_of_the_papers_grid_is_planned(paper):
    lines = lines_of(paper)
    cells = 5 * (1 + 7 * 2 + 1)  # dense once, MaskLLM at one half only
    starts = 5  # MaskLLM starts from a line that no grid of the paper shows
    assert [lines[name].jobs for name in ("models", "data", "harden", "evaluate")] == [5, 4, cells + starts, cells]
    assert lines["calibration"].jobs == 2 * 5
    assert sum(line.jobs for name, line in lines.items() if name.startswith("prune ")) == cells + starts
    assert lines["all"].jobs == 5 + 4 + 10 + 3 * cells + 2 * starts


def test_the_total_adds_hours_and_disk_and_takes_the_largest_memory(paper):
    lines = lines_of(paper)
    total = lines.pop("all")
    assert total.hours == pytest.approx(sum(line.hours for line in lines.values()))
    assert total.disk_bytes == pytest.approx(sum(line.disk_bytes for line in lines.values()))
    assert total.gpu_bytes == max(line.gpu_bytes for line in lines.values()) == lines["prune maskllm"].gpu_bytes


def test_a_line_that_hardens_anothers_logits_is_planned_without_a_training():
    study = read_study(read_config(project=REPOSITORY))
    lines = {line.name: line for line in summary(jobs_of(study, NOWHERE, "extended"), lambda job: False)}
    assert not [name for name in lines if name.startswith("prune ") and "threshold" in name]
    cells = study.cells(grid="extended")
    assert lines["evaluate"].jobs == len(cells)
    assert lines["harden"].jobs == len(with_starts(study, cells)) > len(cells)
    pruned = sum(line.jobs for name, line in lines.items() if name.startswith("prune "))
    assert pruned == lines["harden"].jobs - 4, "two such lines on two models"


def left_by(method, folder, side=256, blocks=4):
    """The bytes on disk per weight of a random cell, pruned and hardened; what has two names counts once."""
    keep = (torch.rand(side, side // 4, 4).argsort(-1).argsort(-1) >= 2).view(side, side)
    kinds = {
        "wanda": {"keep": keep},
        "sparsegpt": {"keep": keep, "values": torch.randn(side, side).bfloat16()},
        "leap": {"logits": torch.randn(side, side)},
        "maskllm": {"patterns": torch.randn(side, side // 4, 6)},
    }
    with writing(folder / "pruned", {}) as (payload, facts):
        store = PrunedFolder(payload)
        for block in range(blocks):
            store.write(f"block-{block}", {f"l.{block}.weight.{kind}": t for kind, t in kinds[method].items()})
        facts |= {"pattern": "unstructured", "budget_scope": "tensor", "sparsity": "0.5", "seed": 0}
        facts |= {"tokens_sha256": None, "tensors": store.finish()}
    harden(parser().parse_args(["--pruned", str(folder / "pruned"), "--cell", "a", "--output", str(folder / "cell")]))
    files = [path.stat() for path in folder.glob("*/payload/*")]
    return sum({file.st_ino: file.st_size for file in files}.values()) / (blocks * side**2)


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "leap", "maskllm"])
def test_what_a_cell_leaves_on_disk_is_what_is_planned(paper, method, tmp_path):
    planned = sum(bytes_per_weight(stage, paper.methods[method], "0.5", 2) for stage in ("prune", "harden"))
    assert left_by(method, tmp_path) == pytest.approx(planned, rel=0.02)


def test_the_weights_that_are_pruned_are_guessed_for_all_models_together(paper):
    """Of Qwen2.5 0.5B, Gemma 3 1B, Llama 3.2 1B and 3B, Llama 3.1 8B: the matrices of a block times the blocks."""
    llamas = 16 * 60_817_408 + 28 * 100_663_296 + 32 * 218_103_808
    guessed = sum(model_sizes(paper, NOWHERE, model).prunable for model in paper.models)
    assert guessed == pytest.approx(24 * 14_909_440 + 26 * 26_836_992 + llamas, rel=0.05)


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


def test_several_gpus_share_the_time_and_cost_the_same_hours_of_one(paper):
    leap = paper.methods["leap"]
    lean = leap.options.model_copy(
        update={"gradient_checkpointing": True, "micro_batch_size": 2, "masked_weights": "remade"}
    )
    one, four = (
        replace(paper, methods=paper.methods | {"leap": replace(leap, options=lean, gpus=count)}) for count in (1, 4)
    )
    one_line, four_line = lines_of(one)["prune leap"], lines_of(four)["prune leap"]
    assert (one_line.gpus, four_line.gpus) == (1, 4)
    assert one_line.gpu_bytes / 4 < four_line.gpu_bytes < 0.52 * one_line.gpu_bytes
    assert four_line.hours == pytest.approx(one_line.hours / 4, rel=1e-3)
    said = [line for line in plan(four, NOWHERE).splitlines() if line.startswith("A cell of leap")]
    assert said == [line for line in plan(one, NOWHERE).splitlines() if line.startswith("A cell of leap")]


def test_a_cells_hours_stand_beside_the_authors(paper):
    text = plan(paper, NOWHERE)
    (hours,) = re.findall(r"A cell of leap: ([\d.]+) to [\d.]+ GPU-hours for 2,097 million tokens", text)
    assert 5 < float(hours) < 22  # 2,000 x 256 x 4,096 tokens of the smallest model
    assert "22 to 276 H100-hours a cell" in text
    cpu = replace(paper, settings=paper.settings.model_copy(update={"cluster": Cluster(gpus=0)}))
    assert "GPU-hours" not in plan(cpu, NOWHERE)


def test_what_does_not_fit_a_gpu_is_said_of_the_one_at_hand_or_else_of_the_one_that_the_scale_states(paper):
    needed = lines_of(paper)["prune leap"].gpu_bytes
    said = f"leap/0.6/0 needs about {needed / 1e9:.1f} GB on a GPU of"
    assert f"{said} 80.0 GB; with `" in plan(paper, NOWHERE)
    assert f"{said} 120.0 GB; with `" in plan(paper, NOWHERE, gpu_bytes=120e9)
    assert "on a GPU of" not in plan(paper, NOWHERE, gpu_bytes=1e12)


def test_what_was_chosen_for_each_model_is_said(paper, tmp_path):
    """As it is told to the jobs: of every model that the line runs on, once, and the same when one is fetched."""
    (said,) = [
        line for line in plan(paper, NOWHERE).splitlines() if line.startswith("Chosen for leap by gpu_memory, 80")
    ]
    for model in paper.models:
        words = in_words(paper.line("leap", model).options)
        assert re.search(rf"{words} \([^)]*{re.escape(model)}[^)]*\)", said)
    assert "micro-batch 8, no recompute (qwen2.5-0.5b)" in said
    (tmp_path / "models/qwen2.5-0.5b").mkdir(parents=True)
    facts = {"parameters": 10**10, "prunable": 10**10}  # as if what was fetched were far larger
    (tmp_path / "models/qwen2.5-0.5b/manifest.json").write_text(json.dumps({"facts": facts}))
    assert said in plan(paper, tmp_path)
    assert model_sizes(paper, tmp_path, "qwen2.5-0.5b").prunable == 10**10
    assert "Chosen" not in plan(read_study(read_config(project=REPOSITORY)), NOWHERE)


def test_without_a_gpu_the_same_work_counts_as_memory_of_the_host(paper):
    cpu = replace(paper, settings=paper.settings.model_copy(update={"cluster": Cluster(gpus=0)}))
    gpu_line, cpu_line = lines_of(paper)["prune leap"], lines_of(cpu)["prune leap"]
    assert cpu_line.gpu_bytes == 0
    assert cpu_line.host_bytes >= max(PROCESS_BYTES + 0.9 * gpu_line.gpu_bytes, gpu_line.host_bytes)
    assert cpu_line.hours > 100 * gpu_line.hours


def test_what_is_cleaned_up_counts_for_one_model_at_a_time(paper):
    every = replace(paper, settings=paper.settings.model_copy(update={"clean_up": []}))
    jobs = [job for job in jobs_of(every, NOWHERE) if "/mask_training/" in job.folder]
    shards = {job.folder: job.disk_bytes for job in jobs}
    assert len(shards) == 5
    saved = lines_of(every)["all"].disk_bytes - lines_of(paper)["all"].disk_bytes
    assert paper.settings.clean_up == ["tokens"]
    assert saved == pytest.approx(sum(shards.values()) - max(shards.values()))
    masks_only = replace(paper, settings=paper.settings.model_copy(update={"clean_up": ["tokens", "logits"]}))
    assert lines_of(masks_only)["prune leap"].disk_bytes < 0.65 * lines_of(paper)["prune leap"].disk_bytes


def test_a_recovery_leaves_masks_and_the_values_that_stay_and_costs_leaps_tokens(paper):
    methods = [*paper.settings.methods, "leap+recover"]
    study = replace(paper, settings=paper.settings.model_copy(update={"methods": methods}))
    lines = lines_of(study)
    recovery, admm = lines["prune leap+recover"], lines["prune admm"]
    assert recovery.disk_bytes == pytest.approx(admm.disk_bytes * 0.925 / 2.05)  # at 0.6 alone, not at 0.5
    parameters = sum(model_sizes(study, NOWHERE, model).parameters for model in study.models)
    hours = 6 * parameters * 2000 * 256 * 4096 / 3600
    assert hours / H100.flops < recovery.hours < 4 * hours / H100.flops


def test_the_papers_grid_leaves_no_more_than_350_gigabytes(paper):
    assert lines_of(paper)["all"].disk_bytes <= 350e9


def test_what_cells_start_from_is_planned_though_no_grid_shows_it():
    """LEAP on another text starts from Wanda's mask on it, which is pruned and hardened and never scored."""
    study = read_study(read_config(project=REPOSITORY))
    jobs = [job.folder for job in jobs_of(study, NOWHERE, "evidence")]
    for start in ("wanda-fact-free/0.6/2", "wanda-control/0.6/0", "leap-half-tokens/0.5/1"):
        assert jobs.count(f"prune/qwen2.5-0.5b-mini/{start}") == jobs.count(f"harden/qwen2.5-0.5b-mini/{start}") == 1
        assert f"evaluate/qwen2.5-0.5b-mini/{start}" not in jobs
    assert {"data/calibration-fact-free", "data/mask_training-control"} < set(jobs)
    assert not any("fact-free" in job.folder for job in jobs_of(study, NOWHERE))


def test_cells_of_equal_hours_are_told_once(paper):
    one = replace(paper, models={"llama3.2-1b": paper.models["llama3.2-1b"]})
    text = plan(one, NOWHERE)
    assert re.search(r"A cell of leap: \d+\.\d GPU-hours", text)
    assert all(low != high for low, high in re.findall(r"([\d.]+) to ([\d.]+) GPU-hours", plan(paper, NOWHERE)))


def test_little_is_not_nothing(paper):
    """Fetching takes seconds, and no GPU; a row of zeros would say that it takes no time."""
    row = next(line.split() for line in plan(paper, NOWHERE).splitlines() if line.startswith("models "))
    assert row[3:6] == ["0", "0.0", "<0.1"]  # GPUs, their memory, hours
