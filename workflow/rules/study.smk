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
from leap_repro.pipeline import snakemake_internals as internals
from leap_repro.pipeline.asked import asked_of, traced_folders
from leap_repro.pipeline.examination import examine_inputs
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.inputs import check_inputs
from leap_repro.pipeline.roles import parts_of
from leap_repro.costs.eta import ETA, say, say_every_minute, slots_here
from leap_repro.costs.plan import jobs_to_run as estimates
from leap_repro.costs.plan import plan_of_run
from leap_repro.costs.preflight import GO_ON, preflight
from leap_repro.costs.requests import cores, requests
from leap_repro.pipeline.tracking import Tracker, prune_modules
from snakemake.exceptions import WorkflowError

LOCAL = not internals.sends_jobs_elsewhere(workflow)

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

tracked = Tracker(CHECKOUT / "envs/requirements.txt").params
USABLE = DEVICES[: internals.usable_gpus(workflow, len(DEVICES))]
requested = requests(STUDY, Path(f"results/{STUDY.scale}"), len(USABLE) if LOCAL else None)
priority = jobs.priorities(STUDY)


def print_plan():
    if internals.is_dry(workflow):
        print(plan_of_run(STUDY, Path(ROOT), internals.jobs_to_run(workflow), largest_memory(USABLE)), file=sys.stderr)


atexit.register(print_plan)  # Snakemake has hooks around a real run, none around a dry one


onstart:
    here, to_run = internals.runs_jobs_here(workflow), internals.jobs_to_run(workflow)
    if here:
        internals.lift_rate_limit(workflow)  # cores are the limit
    found = preflight(STUDY, Path(ROOT), to_run, USABLE if here else None)
    if found and config.get("preflight", "stop") == "stop":
        raise WorkflowError("\n".join(["This run cannot be finished here:", *found, GO_ON]))
    for sentence in found:
        print(f"Warning: {sentence}", file=sys.stderr)
    to_come = estimates(STUDY, Path(ROOT), to_run)
    slots = None  # a cluster's are not known
    if here:
        slots = slots_here(to_come, internals.cores(workflow), STUDY.settings.threads, len(USABLE))
    eta = ETA(STUDY, Path(ROOT), to_come, slots, time.time())
    if here and len(to_come) >= WORTH_A_SERVER:
        start_server(STUDY.settings.threads, SOURCE)
    if eta.jobs:
        say(eta.first_words())
        say_every_minute(eta)
