"""What the workflow asks of Snakemake beyond what its documentation promises, in one place.

Looked at in Snakemake 9.27.1 (`snakemake/workflow.py`, `dag.py`, `scheduling/job_scheduler.py`); another version may
call things otherwise. `tests/unit/pipeline/test_snakemake_internals.py` runs every function in a real run. `workflow`
is the object of that name in a Snakefile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from leap_repro.errors import UserError

VERSION = "9.27.1"
Jobs = list[tuple[str, tuple[str, ...]]]
"""(rule, its wildcards in the order of its output's path) of each job."""


def sends_jobs_elsewhere(workflow: Any) -> bool:
    """Whether jobs run on a cluster, or this is such a job. While a Snakefile is read the executor is not known yet,
    but only a cluster's has a number of nodes."""
    from snakemake_interface_executor_plugins.settings import ExecMode

    is_a_job_there = _of(workflow, "exec_mode") == ExecMode.REMOTE
    return is_a_job_there or _of(workflow, "resource_settings", "nodes") is not None


def runs_jobs_here(workflow: Any) -> bool:
    """The same once a run starts, when the executor is known."""
    return bool(_of(workflow, "local_exec"))


def is_dry(workflow: Any) -> bool:
    """Whether this is a dry run that has planned its jobs."""
    return bool(_of(workflow, "dryrun")) and _of(workflow, "dag") is not None


def cores(workflow: Any) -> int:
    """The cores that the run may use."""
    return int(_of(workflow, "cores"))


def configuration_files(workflow: Any) -> list[str]:
    """Those that the command line names."""
    return [str(path) for path in _of(workflow, "configfiles")]


def usable_gpus(workflow: Any, found: int) -> int:
    """How many GPUs the run may use: of `found` as many as `--resources gpu=` says, all where it says nothing. From
    then on no more jobs run at a time than have one."""
    if not found:
        return 0
    limits = _of(workflow, "global_resources")
    if "gpu" not in limits:
        limits["gpu"] = found
    return int(_of(limits["gpu"], "value"))


def jobs_to_run(workflow: Any) -> Jobs:
    """Every job of this run."""
    jobs: Iterable[Any] = _of(workflow, "dag", "needrun_jobs")(exclude_finished=False)
    return [(str(job.rule.name), tuple(job.wildcards)) for job in jobs]


def lift_rate_limit(workflow: Any) -> None:
    """Let jobs start as soon as cores are free. With a limit on submissions Snakemake looks at all waiting jobs again
    every second, once for each job that has ended, and waits for its last timer at the end."""
    scheduler = _of(workflow, "scheduler")
    _of(scheduler, "job_rate_limiter")  # setting what nobody reads would do nothing, unseen
    scheduler.job_rate_limiter = None


def _of(owner: Any, *names: str) -> Any:
    """An attribute of an attribute; UserError that says what to do if this Snakemake has none."""
    value = owner
    for name in names:
        if not hasattr(value, name):
            from importlib.metadata import version

            raise UserError(
                f"snakemake {version('snakemake')} has no {type(value).__name__}.{name}; this workflow was written for "
                f"{VERSION}: install that (envs/requirements.txt), or adapt src/{__name__.replace('.', '/')}.py"
            )
        value = getattr(value, name)
    return value
