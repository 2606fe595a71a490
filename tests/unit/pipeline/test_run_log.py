"""What a run says of itself, from logs as Snakemake and the stages write them."""

import io
import re
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from snakemake_log import FAILURE, LOG, PRUNING, stamped
from tqdm import tqdm

from leap_repro.pipeline.job_log import last_meter
from leap_repro.pipeline.run_log import JOB_LOGS, Running, follow, newest_log, took
from leap_repro.progress import Progress
from leap_repro.prune.learned.loop import in_words

REPOSITORY = Path(__file__).resolve().parents[3]


def test_jobs_are_counted_by_what_snakemake_said():
    run = follow(stamped(LOG, 0, 10, 30))
    assert (run.done, run.total, run.failed) == (2, 7, 0)
    assert [job.message for job in run.running.values()] == [PRUNING, "Pruning mini with wanda to 0.5, seed 0"]
    assert run.seconds == {"fetch_data": [10, 30]}
    assert run.waiting == {"fetch_data": 0, "prune": 4, "all": 1}


def test_time_left_is_the_usual_time_of_what_is_to_come_over_the_jobs_at_a_time():
    assert follow(stamped(LOG, 0, 10, 30)).seconds_left() == pytest.approx(20 * 5 / 2)
    assert follow(stamped(LOG.split("[{1}]")[0], 0)).seconds_left() is None


def test_a_failed_job_no_longer_runs_and_quoted_logs_are_not_jobs():
    run = follow(stamped(LOG, 0, 10, 30) + stamped(FAILURE, 40))
    assert run.failed == 1
    assert list(run.running) == ["4"]


def test_the_newest_log_is_that_of_the_run_that_is_asked_for(tmp_path):
    assert newest_log(tmp_path) is None
    path = tmp_path / ".snakemake/log/a.snakemake.log"
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert newest_log(tmp_path) == path
    assert newest_log(tmp_path, since=time.time() + 10) is None


def of_training(caplog):
    row = {"loss_lm": 1.2344, "density_relaxed": 0.512, "density_hard": 0.498}
    Progress("steps", 1000).report(120, in_words(row))
    return "2026-01-01 resumed\n2026-01-01 leap_repro.progress: " + caplog.messages[-1]


def of_blocks(caplog):
    Progress("blocks", 30).report(12, "the last in 3.1 s")
    return "2026-01-01 00:00:00 leap_repro.progress: " + caplog.messages[-1]


def bar_of(text, total, done, **options):
    """What tqdm writes into a file on the way to `done`."""
    file = io.StringIO()
    with tqdm(total=total, desc=text, file=file, mininterval=0, **options) as bar:
        for _ in range(4):
            bar.update(done // 4)
        return file.getvalue()


LOGS = {
    "a training": (of_training, 0.12, "120 of 1000 steps, loss 1.234, density 0.512 (0.498 hard), "),
    "a layer-wise method": (of_blocks, 0.4, "12 of 30 blocks, the last in 3.1 s, "),
    "windows": (lambda _: bar_of("windows of 64 tokens", 20, 8), 0.0, "8 of 20 windows of 64 tokens, "),
    "questions": (
        lambda _: bar_of("Running loglikelihood requests", 800, 200),
        0.25,
        "200 of 800 loglikelihood requests, ",
    ),
    "tokens": (lambda _: bar_of("tokens", 4_000_000, 1_000_000, unit_scale=True), 0.25, "1.00M of 4.00M tokens, "),
    "lines after the bar": (lambda _: bar_of("tokens", 20, 8) + "\nwarning\n", 0.4, "8 of 20 tokens"),
    "a second bar": (lambda _: bar_of("windows of 64 tokens", 4, 4) + "\n" + bar_of("tokens", 20, 8), 0.4, "8 of 20"),
    "a library's bar": (lambda _: bar_of("tokens", 20, 8) + "\n" + bar_of("Loading weights", 4, 4), 0.4, "8 of 20"),
}


@pytest.mark.parametrize("case", LOGS)
def test_a_job_is_as_far_as_its_log_says(case, tmp_path, caplog):
    caplog.set_level("INFO")
    write, share, words = LOGS[case]
    (tmp_path / "0.log").write_text(write(caplog))
    meter = last_meter(tmp_path / "0.log")
    assert meter.share == share
    assert str(meter).startswith(words)


def test_a_stage_says_little_and_always_the_end(caplog, monkeypatch):
    caplog.set_level("INFO")
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    progress = Progress("blocks", 100)
    for done in range(1, 101):
        progress.report(done)
    said = [int(re.search(r"(\d+)/100", message)[1]) for message in caplog.messages]
    assert said == [1, *range(6, 100, 5), 100]


def test_only_the_log_of_this_run_counts(tmp_path, caplog):
    caplog.set_level("INFO")
    log = tmp_path / "tiny/prune/mini/leap/0.5/0.log"
    log.parent.mkdir(parents=True)
    log.write_text(of_training(caplog))
    now = datetime.now()
    assert Running(now, PRUNING + "; because its option steps changed").meter(tmp_path).share == 0.12
    assert Running(now + timedelta(seconds=60), PRUNING).meter(tmp_path) is None, "left from an earlier run"
    assert Running(now, "Evaluating mini, leap at 0.5, seed 0").meter(tmp_path) is None
    assert Running(now, "Plotting density").meter(tmp_path) is None
    run = follow(stamped(LOG, 0, 10, 30))
    assert run.parts_done(tmp_path) == pytest.approx(2.12)


def test_a_job_without_a_line_of_progress_or_a_log_says_nothing(tmp_path):
    (tmp_path / "0.log").write_text("2026-01-01 leased GPU 0\n")
    assert last_meter(tmp_path / "0.log") is None
    assert last_meter(tmp_path / "1.log") is None


PLACES = {
    "models": {"model": "org-mini.2"},
    "data": {"role": "tasks"},
    "calibration": {"role": "mask_training", "model": "mini", "seed": "3"},
    "prune": {"model": "mini", "method": "wanda+optima", "sparsity": "0.55", "seed": "3"},
}


@pytest.mark.parametrize("reason", ["", ": prune.wanda changed; steps 4 -> 5"])
@pytest.mark.parametrize("stage", ["models", "data", "calibration", "prune", "harden", "evaluate"])
def test_the_messages_of_the_rules_name_the_logs_of_their_jobs(stage, reason):
    wildcards = PLACES.get(stage, PLACES["prune"])
    rule = (REPOSITORY / f"workflow/rules/{stage}.smk").read_text()
    message = re.search(r'message:\s+"(.*)"', rule)[1].replace("{params.stale_reason}", reason)
    log = re.search(r'log:\s+f"{LOGS}/(.*)",', rule)[1].replace("{CELL}", "{{model}}/{{method}}/{{sparsity}}/{{seed}}")
    for name, value in wildcards.items():
        message = message.replace(f"{{wildcards.{name}}}", value)
        log = log.replace(f"{{{{{name}}}}}", value)
    matches = [(pattern, re.match(pattern, message)) for pattern in JOB_LOGS]
    ((pattern, found),) = [(pattern, match) for pattern, match in matches if match]
    assert JOB_LOGS[pattern].format(*found.groups()) == log


def test_what_a_job_took_is_read_from_its_benchmark_row(tmp_path):
    path = tmp_path / "0.tsv"
    assert took(path) is None
    path.write_text("s\th:m:s\tmax_rss\tcpu_time\n12.5\t0:00:12\t410.2\t-\n")
    row = took(path)
    assert (row.seconds, row.peak_mb, row.cpu_seconds) == (12.5, 410.2, None)
    path.write_text("s\th:m:s\n")
    assert took(path) is None, "the header alone"
