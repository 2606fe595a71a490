"""How the workflow tests run Snakemake in a scratch copy and read its plans."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from leap_repro.miniature.questions import task_sets
from leap_repro.miniature.text import pages
from leap_repro.store.artifacts import MANIFEST, PAYLOAD
from leap_repro.store.hashes import sha256_of

REPOSITORY = Path(__file__).resolve().parents[2]
QUESTIONS = 6


def command(*arguments):
    """Snakemake's command line, for any way of starting it."""
    return [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor", *arguments]


def environment(tools=None):
    """The environment of a run: this Python first on the path, and before it the folder `tools`, if one is given."""
    folders = [*([str(tools)] if tools else []), str(Path(sys.executable).parent), os.environ["PATH"]]
    return os.environ | {"PATH": ":".join(folders)}


def edit(folder, file, old, new):
    """Replace the first `old` in a file of the scratch copy, which must hold it."""
    path = folder / file
    text = path.read_text()
    assert old in text, (file, old)
    path.write_text(text.replace(old, new, 1))


def checkout_of(folder, config=None):
    """Copy the workflow into a new `folder`, and with it the file `config` as the whole configuration, or without one
    the project's own."""
    folder.mkdir(parents=True)
    for name in ("workflow", "profiles", "src", "envs"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copyfile(config or REPOSITORY / "config.yaml", folder / "config.yaml")
    if config is None:
        shutil.copytree(REPOSITORY / "config", folder / "config")
    return folder


def snakemake(folder, *arguments, check=True, tools=None, variables=None, timeout=600):
    """Run Snakemake in `folder`, with further environment variables; returns its output, stderr included."""
    done = subprocess.run(
        command(*arguments),
        cwd=folder,
        env=environment(tools) | (variables or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode:
        logs = "\n".join(f"{log}:\n{log.read_text()[-2000:]}" for log in Path(folder, "logs").rglob("*.log"))
        raise AssertionError(f"{done.stdout}\n{done.stderr}\n{logs}")
    return done.stdout + done.stderr


def run_here(arguments, monkeypatch, capsys):
    """Run a stage's command ([module, argument, ...]) in this process: (exit status, its last line on stderr)."""
    monkeypatch.setattr(sys, "argv", list(arguments))
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit as stopped:
        return stopped.code, capsys.readouterr().err.strip().rpartition("\n")[2]
    return 0, ""


def plan(folder, *arguments):
    """({rule: jobs}, all that is printed) of a dry run; no jobs if there is nothing to do."""
    text = snakemake(folder, "-n", *arguments)
    parts = text.split("Job stats:")
    if len(parts) == 1:
        assert "Nothing to be done" in text
        return {}, text
    table = parts[1].split("total")[0].splitlines()[3:]
    return {line.split()[0]: int(line.split()[1]) for line in table if line.strip()}, text


def planned(folder, *arguments):
    """{rule: jobs} of a dry run."""
    return plan(folder, *arguments)[0]


def write_inputs(folder):
    """The text and the task sets that tests/config/tiny.yaml names, cut from the miniature's."""
    (folder / "data").mkdir()
    (folder / "data/text.txt").write_text("\n\n".join(page.replace("\n\n", "\n") for page in pages("test", 30)))
    for name, splits in task_sets().items():
        (folder / "data/tasks" / name).mkdir(parents=True)
        for split, rows in splits.items():
            pq.write_table(pa.Table.from_pylist(rows[:QUESTIONS]), folder / "data/tasks" / name / f"{split}.parquet")


def start_again(finished, folder):
    """A copy of a finished checkout in which nothing has been run yet."""
    return shutil.copytree(
        finished, folder / "again", ignore=shutil.ignore_patterns("results", "logs", ".snakemake", "__pycache__")
    )


def checksums(checkout):
    """{file: sha256} of all results of the tiny grid, but for those that say how long it took."""
    root = checkout / "results/tiny"
    files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    timed = [path for path in files if path.parts[0] == "benchmarks" or path.stem == "time"]
    return {str(path): sha256_of(root / path) for path in files if path not in timed}


def start(folder, *arguments, apart=False):
    """Snakemake, its output in `folder`/output.txt; `apart`: in a process group of its own."""
    with (folder / "output.txt").open("a") as output:
        return subprocess.Popen(
            command(*arguments),
            cwd=folder,
            env=environment(),
            stdout=output,
            stderr=output,
            start_new_session=apart,
        )


def looks_whole(folder):
    """{file: sha256} of all that a reader would take for whole: no hidden names, and nothing that has no manifest."""
    found = checksums(folder)
    artifacts = {path.rpartition(f"/{PAYLOAD}/")[0] for path in found if f"/{PAYLOAD}/" in path}
    unfinished = tuple(f"{name}/" for name in artifacts if f"{name}/{MANIFEST}" not in found)
    return {
        path: sha256
        for path, sha256 in found.items()
        if not path.startswith(unfinished) and not re.search(r"(^|/)\.(?!snakemake_timestamp)", path)
    }
