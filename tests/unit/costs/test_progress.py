"""The progress screen, from logs as Snakemake and the trainer write them."""

import time
from datetime import datetime, timedelta

import pytest

from leap_repro.costs.progress import read_run, screen, training_line
from leap_repro.errors import UserError
from leap_repro.prune.learned.progress import Progress

PRUNING = "Pruning mini with leap to 0.5, seed 0"
LOG = """\
Building DAG of jobs...
Job stats:
job            count
-----------  -------
fetch_data         2
prune              4
all                1
total              7

Select jobs to execute...
[{0}]
Job 7: Fetching the tasks data
Reason: Missing output files: results/tiny/data/tasks/manifest.json
[{0}]
Job 8: Fetching the perplexity data
[{1}]
Finished jobid: 7 (Rule: fetch_data)
1 of 7 steps (14%) done
[{2}]
Finished jobid: 8 (Rule: fetch_data)
2 of 7 steps (29%) done
[{2}]
Job 4: {pruning}
[{2}]
Job 5: Pruning mini with wanda to 0.5, seed 0
"""
FAILURE = """\
[{0}]
Error in rule prune:
    message: Pruning mini with wanda to 0.5, seed 0
    jobid: 5
Logfile logs/tiny/prune/mini/wanda/0.5/0.log:
================================================================================
Job 99: a quoted line of another log
================================================================================
"""
BEGAN = datetime.now().replace(microsecond=0) - timedelta(seconds=100)


def stamped(text, *seconds):
    stamps = [(BEGAN + timedelta(seconds=second)).strftime("%a %b %d %H:%M:%S %Y") for second in seconds]
    return text.format(*stamps, pruning=PRUNING)


def test_jobs_are_counted_by_what_snakemake_said():
    run = read_run(stamped(LOG, 0, 10, 30))
    assert (run.done, run.total, run.failed) == (2, 7, 0)
    assert [message for _, message in run.running.values()] == [PRUNING, "Pruning mini with wanda to 0.5, seed 0"]
    assert run.seconds == {"fetch_data": [10, 30]}
    assert run.waiting == {"fetch_data": 0, "prune": 4, "all": 1}


def test_time_left_is_the_usual_time_of_what_is_to_come_over_the_jobs_at_a_time():
    assert read_run(stamped(LOG, 0, 10, 30)).seconds_left() == pytest.approx(20 * 5 / 2)
    assert read_run(stamped(LOG.split("[{1}]")[0], 0)).seconds_left() is None


def test_a_failed_job_no_longer_runs_and_quoted_logs_are_not_jobs():
    run = read_run(stamped(LOG, 0, 10, 30) + stamped(FAILURE, 40))
    assert run.failed == 1
    assert list(run.running) == ["4"]


def test_a_training_shows_its_step_loss_density_and_time_left(tmp_path, caplog):
    caplog.set_level("INFO")
    Progress(0, 1000).report({"step": 119, "loss_lm": 1.2344, "density_relaxed": 0.512, "density_hard": 0.498})
    log = tmp_path / "tiny/prune/mini/leap/0.5/0.log"
    log.parent.mkdir(parents=True)
    log.write_text("2026-01-01 resumed\n" + "\n".join(caplog.messages))
    line = training_line(PRUNING + "; because its option steps changed", tmp_path)
    assert line.startswith("step 120 of 1000, loss 1.234, density 0.512 (0.498 hard), ")
    assert line.endswith(" left")
    assert training_line("Evaluating mini, leap at 0.5, seed 0", tmp_path) is None
    assert training_line("Pruning mini with wanda to 0.5, seed 0", tmp_path) is None


def test_the_screen_shows_the_newest_run(tmp_path):
    folder = tmp_path / ".snakemake/log"
    folder.mkdir(parents=True)
    (folder / "old.snakemake.log").write_text("")
    time.sleep(0.02)
    (folder / "new.snakemake.log").write_text(stamped(LOG, 0, 10, 30))
    text = screen(tmp_path)
    assert "2 of 7 done (28 %), 2 running, 0 failed" in text
    assert "about 0:00:50 left" in text
    assert PRUNING in text


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no log of a run"):
        screen(tmp_path)
