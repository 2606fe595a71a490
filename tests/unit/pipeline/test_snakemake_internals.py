"""What is asked of Snakemake beyond its documentation is there in the version that is installed."""

import ast
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from leap_repro.errors import UserError
from leap_repro.pipeline import snakemake_internals as internals

SNAKEFILE = """\
import atexit, json
from leap_repro.pipeline import snakemake_internals as internals

said = {
    "elsewhere": internals.sends_jobs_elsewhere(workflow),
    "no gpus": internals.usable_gpus(workflow, 0),
    "gpus": internals.usable_gpus(workflow, 3),
    "files": internals.configuration_files(workflow),
}

rule all:
    input: "a-1.txt", "a-2.txt"

rule write:
    output: "{letter}-{number}.txt"
    shell: "touch {output}"

def tell(when):
    said[when] = internals.jobs_to_run(workflow)
    with open("said.json", "w") as file:
        json.dump(said, file)

def at_the_end():
    said["dry"] = internals.is_dry(workflow)
    if said["dry"]:
        tell("planned")

atexit.register(at_the_end)

onstart:
    said["here"] = internals.runs_jobs_here(workflow)
    said["cores"] = internals.cores(workflow)
    internals.lift_rate_limit(workflow)
    said["limit"] = workflow.scheduler.job_rate_limiter
    tell("started")
"""
JOBS = [["all", []], ["write", ["a", "1"]], ["write", ["a", "2"]]]


def run(folder, *arguments):
    """A real run in a folder; what its Snakefile was told."""
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "more.yaml").write_text("{}")
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "more.yaml", *arguments]
    source = str(Path(internals.__file__).resolve().parents[2])
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": source}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "said.json").read_text())


def test_a_real_run_answers_every_question(tmp_path):
    said = run(tmp_path, "--resources", "gpu=2")
    assert (said["elsewhere"], said["here"], said["cores"], said["limit"]) == (False, True, 2, None)
    assert (said["no gpus"], said["gpus"]) == (0, 2)
    assert [Path(file).name for file in said["files"]] == ["more.yaml"]
    assert sorted(said["started"]) == JOBS


def test_a_dry_run_knows_its_jobs(tmp_path):
    said = run(tmp_path, "-n")
    assert said["dry"] is True
    assert said["gpus"] == 3
    assert sorted(said["planned"]) == JOBS


MISSING = {
    "exec_mode": internals.sends_jobs_elsewhere,
    "local_exec": internals.runs_jobs_here,
    "dryrun": internals.is_dry,
    "cores": internals.cores,
    "configfiles": internals.configuration_files,
    "global_resources": lambda workflow: internals.usable_gpus(workflow, 1),
    "dag": internals.jobs_to_run,
    "scheduler": internals.lift_rate_limit,
}


@pytest.mark.parametrize("name", MISSING)
def test_an_attribute_that_is_gone_is_named_with_what_to_do(name):
    words = (
        rf"^snakemake {version('snakemake')} has no SimpleNamespace\.{name}; this workflow was written for 9\.27\.1: "
    )
    with pytest.raises(UserError, match=words):
        MISSING[name](SimpleNamespace())


def test_a_limiter_that_is_gone_is_not_made_up():
    scheduler = SimpleNamespace()
    with pytest.raises(UserError, match="job_rate_limiter"):
        internals.lift_rate_limit(SimpleNamespace(scheduler=scheduler))
    assert not vars(scheduler)


def test_no_other_file_asks_snakemake_for_more_than_it_documents(project):
    """`workflow.basedir`, `shell`, `WorkflowError` and `snakemake.utils` are documented."""
    for path in [project / "workflow/Snakefile", *(project / "workflow/rules").glob("*.smk")]:
        asked = set(re.findall(r"(?<![\w./])workflow\.(\w+)", path.read_text()))
        assert asked <= {"basedir"}, path.name
    for path in (project / "src").rglob("*.py"):
        imported = {
            node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)
        }
        theirs = {name for name in imported if name.startswith("snakemake")} - {"snakemake.utils"}
        assert not theirs or path.name == "snakemake_internals.py", path
