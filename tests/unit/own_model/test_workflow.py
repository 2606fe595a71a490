"""The bar of `leap-repro prune` moves with what the running job's own log says."""

import subprocess
import sys
import threading
import time

from snakemake_log import LOG, PRUNING, stamped

from leap_repro.own_model.workflow import _show
from leap_repro.progress import Progress


def test_the_bar_moves_within_a_job(tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    started = time.time()
    log = tmp_path / ".snakemake/log/a.snakemake.log"
    job = tmp_path / "logs/tiny/prune/mini/leap/0.5/0.log"
    for path in (log, job):
        path.parent.mkdir(parents=True)
    log.write_text(stamped(LOG, 0, 10, 30))
    steps = Progress("steps", 20)
    script = "import sys; sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)

    def write(done):
        steps.last_line = float("-inf")  # at once
        steps.report(done, "loss 2.000")
        job.write_text(caplog.messages[-1] + "\n")

    write(5)
    later = [threading.Timer(0.8, write, [15]), threading.Timer(1.6, process.stdin.close)]
    for timer in later:
        timer.start()
    _show(process, tmp_path, started)
    text = capsys.readouterr().err
    first, second = (f"{PRUNING} ({done} of 20 steps, loss 2.000" for done in (5, 15))
    assert 0 < text.index(first) < text.index(second)
    assert "2.25 of 7 jobs" in text
    assert "2.75 of 7 jobs" in text
