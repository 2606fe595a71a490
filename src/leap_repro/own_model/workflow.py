"""Run the real workflow on the overlay, in a folder of the user's, with a bar over its jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

import leap_repro
from leap_repro.errors import UserError
from leap_repro.pipeline.reading import project_files
from leap_repro.pipeline.run_log import Run, newest_log, read_run

SNAKEFILE = "workflow/Snakefile"
OUTPUT = "snakemake.log"
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_END = 30
"""What a Snakemake that is stopped may take to end its jobs and remove what they left."""
LOCKED = (
    "the run folder is locked: another Snakemake is at work there, or one was cut off, as by a power "
    "loss; if none is at work, `leap-repro prune --unlock`, with the same --run-folder, takes the lock "
    "away, and this can be run again"
)


def checkout() -> Path:
    """The clone whose workflow this package belongs to; UserError if it is installed without one."""
    folder = Path(leap_repro.__file__).resolve().parents[2]
    if not (folder / SNAKEFILE).is_file():
        raise UserError(
            f"the workflow is not beside this package ({Path(leap_repro.__file__).parent}): clone the repository and "
            "install it from there with `pip install -e .`"
        )
    return folder


def command(run: Path, overlay: Path, targets: list[str], cores: int) -> list[str]:
    """Snakemake's command line, to be run from anywhere."""
    home = checkout()
    return [
        *(sys.executable, "-m", "snakemake", "--cores", str(cores), "--nocolor"),
        *("--snakefile", str(home / SNAKEFILE), "--directory", str(run)),
        *("--workflow-profile", str(home / "profiles/default")),
        *("--configfile", *map(str, project_files(home)), str(overlay)),
        *("--", *targets),
    ]


def environment() -> dict[str, str]:
    """This Python first on the path, by which the jobs call it, and this checkout's package."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return os.environ | {"PATH": os.pathsep.join(folders), "PYTHONPATH": str(checkout() / "src")}


def plan(run: Path, overlay: Path, targets: list[str], cores: int) -> str:
    """What the run would cost, as `snakemake -n` says it; UserError if it cannot be run."""
    asked = command(run, overlay, targets, cores)
    done = subprocess.run([*asked[:3], "-n", *asked[3:]], env=environment(), capture_output=True, text=True)
    text = done.stdout + done.stderr
    if done.returncode:
        raise UserError(failure(text))
    return text[text.index("Plan of this run") :].strip() if "Plan of this run" in text else "all of it is done already"


def run_workflow(run: Path, overlay: Path, targets: list[str], cores: int, lock: int) -> None:
    """Make the targets. All that Snakemake says goes into a file of the run folder; a bar shows how far it is.

    Snakemake holds the run folder, too, by the file descriptor `lock`; whatever ends this ends it and
    its jobs. Raises UserError, in the words of what failed, if the targets cannot be made.
    """
    output, started = run / OUTPUT, time.time()
    with output.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command(run, overlay, targets, cores),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],
            process_group=0,
            preexec_fn=_hear_interrupts,
        )
        try:
            _show(process, run, started)
        finally:
            _end(process)
    if process.returncode:
        text = output.read_text(encoding="utf-8", errors="replace")
        raise UserError(f"{failure(text)} (all of it: {output})")


def _hear_interrupts() -> None:
    """In Snakemake's process, which a shell's & may have made deaf to them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(process: subprocess.Popen) -> None:
    """End Snakemake and its jobs, if they are at work: first as Ctrl-C does, then by force."""
    if process.poll() is not None:
        return
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired, KeyboardInterrupt):
            os.killpg(process.pid, number)
            process.wait(SECONDS_TO_END)


def stop_on_signals() -> None:
    """What asks this process to end does what Ctrl-C does: nothing that it started stays at work."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, signal.default_int_handler)


def failure(text: str) -> str:
    """Why Snakemake stopped: the sentence of the job that failed, or Snakemake's own first one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ours = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if ours:
        return ours[0]
    if "LockException" in text:
        return LOCKED
    for index, line in enumerate(lines):
        if line.startswith("WorkflowError"):
            return " ".join(lines[index + 1 : index + 4])
    return " ".join(lines[-3:]) or "snakemake failed without a word"


def _show(process: subprocess.Popen, run: Path, started: float) -> None:
    """A bar over the run's jobs until the process ends, written anew when there is news."""
    form = "{l_bar}{bar}| {n:.3g} of {total_fmt} jobs, {elapsed}"
    with tqdm(total=1, desc="looking what is to be done", bar_format=form) as bar:
        for state in _states(process, run, started):
            # A job that counts several things one after another begins again with each: the bar waits for it.
            words, total = _words(state, run), max(state.total, 1)
            done = max(bar.n, round(state.parts_done(run / "logs"), 2))
            if (words, done, total) != (bar.desc, bar.n, bar.total):
                bar.n, bar.total = done, total
                bar.set_description_str(words)
        if process.returncode == 0:
            bar.n = bar.total
            bar.set_description_str("all jobs done")


def _states(process: subprocess.Popen, run: Path, started: float) -> Iterator[Run]:
    """What the log of this run says, look after look."""
    while process.poll() is None:
        log = newest_log(run, since=started - 1)
        if log:
            yield read_run(log)
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _words(state: Run, run: Path) -> str:
    """The job that runs longest, and how far it says it is."""
    if not state.running:
        return "starting"
    job = min(state.running.values(), key=lambda job: job.began)
    meter = job.meter(run / "logs")
    return f"{job.message.split(':')[0]}{f' ({meter})' if meter else ''}"
