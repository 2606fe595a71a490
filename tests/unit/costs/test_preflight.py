"""The preflight says in one sentence each what the machine lacks for the jobs of a run, and nothing where it lacks
nothing."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from leap_repro.costs import preflight
from leap_repro.costs.plan import jobs_to_run
from leap_repro.costs.preflight import Machine, obstacles, this_machine
from leap_repro.pipeline.config import Cluster
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.launch.devices import Device
from leap_repro.pipeline.reading import read_config

REPOSITORY = Path(__file__).resolve().parents[3]
NOWHERE = Path("nowhere")
LARGE = Machine(devices=[Device("large", 10**12)], free_bytes=10**13, has_token=True)
LEAP = ("prune", ("llama3.1-8b", "leap", "0.5", "0"))
MAGNITUDE = ("prune", ("llama3.1-8b", "magnitude", "0.5", "0"))
GATED, OPEN = ("fetch_model", ("gemma3-1b",)), ("fetch_model", ("qwen2.5-0.5b",))


@pytest.fixture(scope="module")
def paper():
    config = read_config(project=REPOSITORY)
    return read_study(config | {"scale": "paper"})


def found(study, machine, *jobs):
    return list(obstacles(study, jobs_to_run(study, NOWHERE, jobs), machine))


def test_a_machine_that_has_everything_is_let_through(paper):
    assert found(paper, LARGE, LEAP, MAGNITUDE, GATED, OPEN) == []


def test_no_gpu_is_named_with_the_number_of_jobs_that_need_one(paper):
    (sentence,) = found(paper, replace(LARGE, devices=[]), LEAP, MAGNITUDE)
    assert sentence.startswith("1 of 2 jobs need a GPU, but none is found here")
    assert found(paper, replace(LARGE, devices=[]), MAGNITUDE) == []


def with_gpus(*gigabytes):
    return replace(LARGE, devices=[Device(f"gpu-{size}", size * 10**9) for size in gigabytes])


def test_a_small_gpu_is_named_with_the_largest_job_and_settings_that_fit(paper):
    """Which do fit, by the same formula asked from the configuration that they make."""
    (sentence,) = found(paper, with_gpus(40, 120), LEAP, MAGNITUDE)
    (job,) = jobs_to_run(paper, NOWHERE, [LEAP])
    needs = f"needs about {job.gpu_bytes / 1e9:.1f} GB on a GPU of 120.0 GB; with `"
    assert sentence.startswith(f"prune/llama3.1-8b/leap/0.5/0 {needs}")
    chosen, needed = re.search(r"with `(.*)` it needs about ([\d.]+) GB$", sentence).groups()
    config = read_config(project=REPOSITORY)
    config["scales"]["paper"]["options"]["leap"] |= yaml.safe_load(f"{{{chosen}}}")
    changed = read_study(config | {"scale": "paper"})
    (job,) = jobs_to_run(changed, NOWHERE, [LEAP])
    assert job.gpu_bytes / 1e9 == pytest.approx(float(needed), abs=0.06)
    assert found(changed, with_gpus(40, 120), LEAP) == []


def test_where_no_setting_fits_that_is_said(paper):
    line = replace(paper.line("leap", "llama3.1-8b"), gpus=1)
    without = replace(paper, methods=paper.methods | {"leap": line})
    (sentence,) = found(without, with_gpus(16), LEAP)
    assert "even with `state_dtype: int8, " in sentence
    (evaluation,) = found(paper, with_gpus(16), ("evaluate", ("llama3.1-8b", "leap", "0.5", "0")))
    assert evaluation == "evaluate/llama3.1-8b/leap/0.5/0 needs about 34.2 GB on a GPU of 16.0 GB"


def test_a_gpu_smaller_than_the_one_that_options_were_chosen_for_is_refused_in_one_sentence(paper):
    """And what that sentence asks for chooses options that fit it."""
    job = ("prune", ("qwen2.5-0.5b", "leap", "0.5", "0"))
    (sentence,) = found(paper, with_gpus(24), job, MAGNITUDE)
    assert sentence.startswith("options of these trainings are chosen for gpu_memory, 80 GB, but the largest GPU")
    assert "`gpu_memory: 24` under the scale" in sentence
    smaller = replace(paper, settings=paper.settings.model_copy(update={"gpu_memory": 24.0}))
    assert found(smaller, with_gpus(24), job) == []
    assert found(paper, with_gpus(24), MAGNITUDE) == []
    assert found(paper, with_gpus(80), job) == []


def test_more_gpus_than_there_are_is_named_with_the_number_that_there_is(paper):
    four = replace(paper, methods=paper.methods | {"leap": replace(paper.methods["leap"], gpus=4)})
    (sentence,) = found(four, with_gpus(1000, 1000), LEAP)
    assert "a cell of leap is trained on 4 GPUs, but 2 may be used here: set `gpus: {leap: 2}`" in sentence
    assert found(four, with_gpus(1000, 1000, 1000, 1000), LEAP) == []


def test_jobs_that_run_elsewhere_are_not_held_against_this_machines_gpu(paper):
    assert found(paper, replace(LARGE, devices=None), LEAP) == []


def test_a_grid_that_says_it_has_no_gpu_needs_none(paper):
    cpu = replace(paper, settings=paper.settings.model_copy(update={"cluster": Cluster(gpus=0)}))
    assert found(cpu, replace(LARGE, devices=[]), LEAP) == []


def test_a_full_disk_is_named_with_what_is_needed(paper):
    (sentence,) = found(paper, replace(LARGE, free_bytes=10**9), LEAP, OPEN)
    assert "need about 28.9 GB of disk and 1.0 GB are free" in sentence  # 4 bytes x 6.98e9, 2 bytes x 0.49e9


def test_gated_models_that_must_be_fetched_need_a_token(paper):
    without = replace(LARGE, has_token=False)
    (sentence,) = found(paper, without, GATED, OPEN)
    assert sentence.startswith("these models are gated, and there is no token to fetch them: gemma3-1b;")
    assert "HF_TOKEN" in sentence
    assert found(paper, without, OPEN, LEAP) == []


@pytest.mark.parametrize(("offline", "has_token"), [("1", True), ("0", False), ("", False)])
def test_with_everything_in_the_cache_no_token_is_asked_for(paper, tmp_path, monkeypatch, offline, has_token):
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(preflight, "_has_token", lambda: False)
    machine = this_machine(jobs_to_run(paper, NOWHERE, [GATED]), tmp_path / "not/yet", devices=None)
    assert machine.has_token is has_token
    assert machine.free_bytes > 0


def test_every_gated_model_of_the_paper_says_so(paper):
    assert [name for name, spec in paper.models.items() if not spec.get("gated")] == ["qwen2.5-0.5b"]
