"""The preflight says in one sentence each what the machine lacks for the jobs of a run, and nothing where it lacks
nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from leap_repro.study import preflight
from leap_repro.study.config import Cluster
from leap_repro.study.grid import read_study
from leap_repro.study.plan import jobs_to_run
from leap_repro.study.preflight import Machine, obstacles, this_machine

REPOSITORY = Path(__file__).resolve().parents[3]
NOWHERE = Path("nowhere")
LARGE = Machine(gpu_bytes=10**12, free_bytes=10**13, has_token=True)
LEAP = ("prune", ("llama3.1-8b", "leap", "0.5", "0"))
MAGNITUDE = ("prune", ("llama3.1-8b", "magnitude", "0.5", "0"))
GATED, OPEN = ("fetch_model", ("gemma3-1b",)), ("fetch_model", ("qwen2.5-0.5b",))


@pytest.fixture(scope="module")
def paper():
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    return read_study(config | {"scale": "paper"})


def found(study, machine, *jobs):
    return list(obstacles(study, jobs_to_run(study, NOWHERE, jobs), machine))


def test_a_machine_that_has_everything_is_let_through(paper):
    assert found(paper, LARGE, LEAP, MAGNITUDE, GATED, OPEN) == []


def test_no_gpu_is_named_with_the_number_of_jobs_that_need_one(paper):
    (sentence,) = found(paper, replace(LARGE, gpu_bytes=0), LEAP, MAGNITUDE)
    assert sentence.startswith("1 of 2 jobs need a GPU and torch finds none here")
    assert found(paper, replace(LARGE, gpu_bytes=0), MAGNITUDE) == []


def test_a_small_gpu_is_named_with_the_largest_job(paper):
    (sentence,) = found(paper, replace(LARGE, gpu_bytes=80 * 10**9), LEAP, MAGNITUDE)
    assert "1 of 2 jobs need more GPU memory than the 80.0 GB here" in sentence
    assert "prune/llama3.1-8b/leap/0.5/0" in sentence


def test_jobs_that_run_elsewhere_are_not_held_against_this_machines_gpu(paper):
    assert found(paper, replace(LARGE, gpu_bytes=None), LEAP) == []


def test_a_grid_that_says_it_has_no_gpu_needs_none(paper):
    cpu = replace(paper, settings=paper.settings.model_copy(update={"cluster": Cluster(gpus=0)}))
    assert found(cpu, replace(LARGE, gpu_bytes=0), LEAP) == []


def test_a_full_disk_is_named_with_what_is_needed(paper):
    (sentence,) = found(paper, replace(LARGE, free_bytes=10**9), LEAP, OPEN)
    assert "need about 30.5 GB of disk and 1.0 GB are free" in sentence  # 4 bytes x 7.39e9, 2 bytes x 0.49e9


def test_gated_models_that_must_be_fetched_need_a_token(paper):
    without = replace(LARGE, has_token=False)
    (sentence,) = found(paper, without, GATED, OPEN)
    assert sentence.startswith("gated and still to be fetched: gemma3-1b; there is no token")
    assert "HF_TOKEN" in sentence
    assert found(paper, without, OPEN, LEAP) == []


@pytest.mark.parametrize(("offline", "has_token"), [("1", True), ("0", False), ("", False)])
def test_with_everything_in_the_cache_no_token_is_asked_for(paper, tmp_path, monkeypatch, offline, has_token):
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(preflight, "_has_token", lambda: False)
    machine = this_machine(jobs_to_run(paper, NOWHERE, [GATED]), tmp_path / "not/yet", local=True)
    assert machine.has_token is has_token
    assert machine.gpu_bytes is None  # fetching needs none: torch was not even asked
    assert machine.free_bytes > 0


def test_every_gated_model_of_the_paper_says_so(paper):
    assert [name for name, spec in paper.models.items() if not spec.get("gated")] == ["qwen2.5-0.5b"]
