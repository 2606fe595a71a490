# The study that the configuration describes, checked before any job; and what Snakemake calls at a run's start and end.
import atexit
import sys
import time
from pathlib import Path

from leap_repro.errors import UserError
from leap_repro.hub.lock import check_lock, lock_digest, read_lock
from leap_repro.pipeline.launch.devices import devices, largest_memory
from leap_repro.pipeline.launch.server import start as start_server
from leap_repro.pipeline import jobs, selection
from leap_repro.pipeline.examination import examine_inputs
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.inputs import check_inputs
from leap_repro.costs.eta import Outlook, say, say_every_minute, slots_here
from leap_repro.costs.plan import jobs_to_run as estimates
from leap_repro.costs.plan import plan_of_run
from leap_repro.costs.preflight import GO_ON, preflight
from leap_repro.costs.requests import cores, requests
from leap_repro.pipeline.tracking import Tracker, asked_code, prune_modules
from snakemake.exceptions import WorkflowError
from snakemake_interface_executor_plugins.settings import ExecMode

# Whether jobs run on this machine: the executor is not known yet, but only a cluster's has a number of nodes.
LOCAL = workflow.exec_mode != ExecMode.REMOTE and workflow.resource_settings.nodes is None

try:
    DEVICES = devices() if LOCAL else []
    STUDY = read_study(config)
    LOCK = read_lock()
    check_lock(LOCK, {"model": STUDY.models.values(), "dataset": STUDY.data.values()})
    for note in check_inputs(STUDY, outputs=("results", "logs")):
        print(f"Note: {note}", file=sys.stderr)
    examine_inputs(STUDY)
except UserError as error:
    raise WorkflowError(str(error)) from error

WORTH_A_SERVER = 3  # jobs: fewer have imported what they need as soon as it has

tracked = Tracker(Path(workflow.basedir) / "envs/requirements.txt").params
if DEVICES and "gpu" not in workflow.global_resources:  # else it is the user's: --resources gpu=2
    workflow.global_resources["gpu"] = len(DEVICES)
USABLE = DEVICES[: workflow.global_resources["gpu"].value] if DEVICES else []
requested = requests(STUDY, Path(f"results/{STUDY.scale}"), len(USABLE) if LOCAL else None)
priority = jobs.priorities(STUDY)


def jobs_to_run():
    """(rule, wildcards) of every job of this run."""
    return [(job.rule.name, tuple(job.wildcards)) for job in workflow.dag.needrun_jobs(exclude_finished=False)]


def print_plan():
    if workflow.dryrun and workflow.dag is not None:
        print(plan_of_run(STUDY, Path(ROOT), jobs_to_run(), largest_memory(USABLE)), file=sys.stderr)


atexit.register(print_plan)  # Snakemake has hooks around a real run, none around a dry one


onstart:
    if workflow.local_exec:
        # Cores are the limit here. With one on submissions Snakemake 9.27 looks at all waiting jobs again every second,
        # once for each job that has ended, and waits for its last timer at the end.
        workflow.scheduler.job_rate_limiter = None
    found = preflight(STUDY, Path(ROOT), jobs_to_run(), USABLE if workflow.local_exec else None)
    if found and config.get("preflight", "stop") == "stop":
        raise WorkflowError("\n".join(["This run cannot be finished here:", *found, GO_ON]))
    for sentence in found:
        print(f"Warning: {sentence}", file=sys.stderr)
    to_come = estimates(STUDY, Path(ROOT), jobs_to_run())
    slots = (
        slots_here(to_come, workflow.cores, STUDY.settings.threads, len(USABLE)) if workflow.local_exec else None
    )
    outlook = Outlook(STUDY, Path(ROOT), to_come, slots, time.time())
    if workflow.local_exec and len(to_come) >= WORTH_A_SERVER:
        start_server(STUDY.settings.threads, SOURCE)
    if outlook.jobs:
        say(outlook.first_words())
        say_every_minute(outlook)
