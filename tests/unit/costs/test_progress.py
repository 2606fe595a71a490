"""The progress screen, of logs as Snakemake writes them."""

import time

import pytest
from snakemake_log import LOG, PRUNING, stamped

from leap_repro.costs.progress import screen
from leap_repro.errors import UserError
from leap_repro.progress import Progress


def test_the_screen_shows_the_newest_run_and_how_far_its_jobs_are(tmp_path, caplog):
    folder = tmp_path / ".snakemake/log"
    folder.mkdir(parents=True)
    (folder / "old.snakemake.log").write_text("")
    time.sleep(0.02)
    (folder / "new.snakemake.log").write_text(stamped(LOG, 0, 10, 30))
    caplog.set_level("INFO")
    Progress("blocks", 4).report(2, "the last in 3.1 s")
    log = tmp_path / "logs/tiny/prune/mini/leap/0.5/0.log"
    log.parent.mkdir(parents=True)
    log.write_text(caplog.messages[-1])
    text = screen(tmp_path)
    assert "2 of 7 done (35 %), 2 running, 0 failed" in text
    assert "about 0:00:50 left" in text
    assert PRUNING in text
    assert "      2 of 4 blocks, the last in 3.1 s" in text


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no log of a run"):
        screen(tmp_path)
