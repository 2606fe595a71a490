"""How the workflow tests run Snakemake in a scratch copy and read its plans."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from leap_repro.miniature.questions import task_sets
from leap_repro.miniature.text import pages

REPOSITORY = Path(__file__).resolve().parents[2]
QUESTIONS = 6


def snakemake(folder, *arguments, check=True):
    """Run Snakemake in `folder`; returns its output, stderr included."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor", *arguments]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    if check and done.returncode:
        logs = "\n".join(f"{log}:\n{log.read_text()[-2000:]}" for log in Path(folder, "logs").rglob("*.log"))
        raise AssertionError(f"{done.stdout}\n{done.stderr}\n{logs}")
    return done.stdout + done.stderr


def planned(folder, *arguments):
    """{rule: jobs} of a dry run; empty if there is nothing to do."""
    lines = snakemake(folder, "-n", *arguments).split("Job stats:")
    if len(lines) == 1:
        assert "Nothing to be done" in lines[0]
        return {}
    table = lines[1].split("total")[0].splitlines()[3:]
    return {line.split()[0]: int(line.split()[1]) for line in table if line.strip()}


def write_inputs(folder):
    """The text and the task sets that tests/config/tiny.yaml names, cut from the miniature's."""
    (folder / "data").mkdir()
    (folder / "data/text.txt").write_text("\n\n".join(page.replace("\n\n", "\n") for page in pages("test", 30)))
    for name, splits in task_sets().items():
        (folder / "data/tasks" / name).mkdir(parents=True)
        for split, rows in splits.items():
            pq.write_table(pa.Table.from_pylist(rows[:QUESTIONS]), folder / "data/tasks" / name / f"{split}.parquet")
