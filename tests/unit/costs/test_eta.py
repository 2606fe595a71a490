"""What a run says of itself: what comes when, how far it is, and which method is ahead."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leap_repro.costs.eta import ETA, slots_here, span
from leap_repro.costs.plan import Estimate
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.reading import read_config

REPOSITORY = Path(__file__).resolve().parents[3]
STARTED = 1_000_000.0
MODEL, OTHER = "gemma3-1b-mini", "llama3.2-1b-mini"


@pytest.fixture(scope="module")
def study():
    return read_study(read_config(project=REPOSITORY))


def job(folder, seconds, line=None):
    return Estimate(line or folder.split("/")[0], folder, 0.0, 0.0, seconds, 0.0)


@pytest.fixture
def eta(study, tmp_path):
    """Two slots; a fetch of data, and on each of two models a pruning of 100 s and an evaluation of 60."""
    jobs = [job("data/tasks", 20.0)]
    for model in (OTHER, MODEL):
        jobs += [job(f"prune/{model}/wanda/0.5/0", 100.0, "prune wanda"), job(f"evaluate/{model}/wanda/0.5/0", 60.0)]
        jobs += [job(f"evaluate/{model}/leap/0.5/0", 60.0)]
    return ETA(study, tmp_path, jobs, 2, STARTED)


def finish(eta, folder, seconds=None, average=None, at=STARTED + 1):
    place = eta.root / folder
    (place / "payload").mkdir(parents=True, exist_ok=True)
    (place / "manifest.json").touch()
    os.utime(place / "manifest.json", (at, at))
    if seconds is not None:
        benchmark = eta.root / "benchmarks" / f"{folder}.tsv"
        benchmark.parent.mkdir(parents=True, exist_ok=True)
        benchmark.write_text(f"s\th:m:s\tcpu_time\n{seconds}\t0:00:01\t3.0\n")
    if average is not None:
        table = pa.table({"task": ["mmlu", "average"], "metric": ["acc", "acc"], "value": [1.0, average]})
        pq.write_table(table, place / "payload/metrics.parquet")


def test_the_first_words_say_when_the_first_table_and_the_whole_will_be_there(eta):
    # all: 20 + 2 * 220 = 460 s on two slots; gemma3 is the earlier model of the configuration: 20 + 220
    words = eta.first_words()
    assert words.startswith("7 jobs that take time, about 4 min by the plan's estimate")
    assert words.endswith(f"the table of {MODEL} first, after about 2 min")


def test_one_model_has_no_first_table_of_its_own_and_a_cluster_no_time(eta):
    eta.jobs = eta.jobs[:4]
    assert eta.first_words().endswith("about 2 min by the plan's estimate (docs/plan.md)")
    eta.slots = None
    assert eta.first_words() == "4 jobs that take time"
    finish(eta, "data/tasks", 10.0)
    assert eta.line(STARTED + 60) == "1 of 4 jobs done in 1 min"


def test_the_time_left_goes_by_what_jobs_of_the_same_line_took(eta):
    finish(eta, "data/tasks", 20.0)
    finish(eta, f"prune/{MODEL}/wanda/0.5/0", 10.0)  # a tenth of the estimate
    finish(eta, f"evaluate/{MODEL}/wanda/0.5/0", 120.0)  # twice
    # to come: 10 + 3 * 120 of 370 s; all 520 s on two slots, of which 75 are gone
    assert eta.line(STARTED + 75) == "3 of 7 jobs done in 1 min, about 3 min left"
    assert eta._left(75) == pytest.approx((150 + 370) / 2 - 75)
    assert eta._left(500) == pytest.approx(370 / 2), "slots stood idle"


def test_a_line_without_an_end_goes_by_all_that_have_ended(eta):
    finish(eta, "data/tasks", 40.0)
    eta.line(STARTED + 30)
    assert eta._left(30) == pytest.approx((40 + 2 * 440) / 2 - 30)


def test_a_result_of_an_earlier_run_is_not_done(eta):
    finish(eta, "data/tasks", 20.0, at=STARTED - 1)
    assert eta.line(STARTED + 61).startswith("0 of 7 jobs done in 1 min")
    assert "left" not in eta.line(STARTED + 61)


def test_the_best_method_is_the_best_of_the_cells_that_can_be_compared(eta):
    finish(eta, f"evaluate/{MODEL}/wanda/0.5/0", 1.0, average=58.5)
    assert eta.line(STARTED + 9).endswith(f"best of 1 on {MODEL} at 0.5 so far: Wanda, 58.50 %")
    finish(eta, f"evaluate/{MODEL}/leap/0.5/0", 1.0, average=61.25)
    assert eta.line(STARTED + 9).endswith(f"best of 2 on {MODEL} at 0.5 so far: LEAP, 61.25 %")
    finish(eta, f"evaluate/{OTHER}/wanda/0.5/0", 1.0, average=70.0)
    assert eta.line(STARTED + 9).endswith(f"best of 1 on {OTHER} at 0.5 so far: Wanda, 70.00 %")


def test_a_file_that_cannot_be_read_costs_the_words_about_it_only(eta):
    finish(eta, f"evaluate/{MODEL}/wanda/0.5/0")
    (eta.root / f"evaluate/{MODEL}/wanda/0.5/0/payload/metrics.parquet").write_text("half")
    assert eta.line(STARTED + 9).startswith("1 of 7 jobs done in 9 s, about ")
    assert "best" not in eta.line(STARTED + 9)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (59.4, "59 s"), (61, "1 min"), (5910, "98 min"), (5990, "1 h 40 min"), (12_000, "3 h 20 min")],
)
def test_a_span_is_said_for_people(seconds, words):
    assert span(seconds) == words


def test_a_machine_works_on_as_many_jobs_as_its_cores_and_gpus_allow():
    trainings = [Estimate("prune leap", "prune/a", 0.0, 1.0, 1.0, 0.0, gpus=gpus) for gpus in (1, 2)]
    assert slots_here(trainings, cores=16, threads=2, devices=0) == 8
    assert slots_here(trainings, cores=16, threads=2, devices=8) == 4
    assert slots_here(trainings[:1], cores=16, threads=2, devices=1) == 1
    assert slots_here(trainings, cores=1, threads=2, devices=1) == 1
