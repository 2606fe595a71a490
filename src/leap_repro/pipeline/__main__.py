"""`python -m leap_repro.pipeline STAGE …`: run one stage of the pipeline, in one process or in several.

One process leases its GPU and runs the stage; without a GPU, the run's server forks the process if there is a server
(`launch/server.py`). Several processes are started by torchrun, each with its own GPU. On several nodes of a Slurm job,
the command starts itself on each node. A job that requested no GPU sees none.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from leap_repro.cli import report_errors
from leap_repro.errors import UserError
from leap_repro.pipeline.launch.client import ask
from leap_repro.pipeline.launch.devices import VISIBLE, devices, visible
from leap_repro.pipeline.launch.lease import LEASED, lease, leased_files
from leap_repro.pipeline.launch.measure import run_measured, seconds_of_cpu, write_row
from leap_repro.pipeline.launch.worker import THREADS, dying_with
from leap_repro.pipeline.stages import STAGES

log = logging.getLogger("leap_repro.pipeline")
PORTS = range(20_000, 30_000)
"""Below those that Linux gives away by itself."""


def main(arguments: argparse.Namespace) -> int:
    """Run the stage; its exit status. UserError if the processes do not divide by the nodes, or GPUs are missing."""
    started = time.monotonic()
    nodes, processes, gpus = arguments.nodes, arguments.processes, arguments.gpus
    if gpus not in (0, processes):
        raise UserError(f"{processes} processes need as many GPUs, or none at all: this job was given {gpus}")
    if processes % nodes:
        raise UserError(f"{processes} processes cannot be divided evenly among {nodes} nodes")
    if processes == 1:
        return _run_alone(arguments, started)
    outermost = nodes == 1 or os.environ.get("SLURM_STEP_NUM_NODES") != str(nodes)
    if nodes > 1 and outermost:
        status = _watch(_on_every_node(arguments), {})
    else:
        here = processes // nodes
        command = torchrun(nodes, here, [arguments.stage, *arguments.rest])
        status = _watch(command, _leased(gpus // nodes) | _shared_threads(here))
    if status == 0 and arguments.benchmark and outermost:  # their memory is nobody's to sum up
        write_row(arguments.benchmark, started, seconds_of_cpu() if nodes == 1 else None)
    return status


def _run_alone(arguments: argparse.Namespace, started: float) -> int:
    """Run the stage in one process: a child of the server's, or this one."""
    job = (arguments.stage, arguments.rest, arguments.benchmark, started)
    status = ask(*job) if not arguments.gpus else None
    if status is None:
        os.environ.update(_leased(arguments.gpus))
        run_measured(*job)
        return 0
    return status


def _leased(gpus: int) -> dict[str, str]:
    """The environment variables of a job on `gpus` devices, which this process holds from now on."""
    if not gpus:
        return {VISIBLE: ""}
    found = devices()
    if not found:
        raise UserError(
            f"this job requested GPUs ({gpus}), but NVIDIA's driver finds none on {socket.gethostname()}: "
            "set `cluster: {gpus: 0}` in the configuration to run jobs on the CPU"
        )
    held = lease(gpus, found)
    log.info("leased %s", ", ".join(device.name for device in held.devices))
    return {VISIBLE: visible(held.devices), LEASED: leased_files(held)}


def _shared_threads(processes: int) -> dict[str, str]:
    """A job's threads, shared out to its processes."""
    given = {name: os.environ[name] for name in THREADS if os.environ.get(name, "").isdecimal()}
    return {name: str(max(1, int(threads) // processes)) for name, threads in given.items()}


def torchrun(nodes: int, processes: int, command: list[str]) -> list[str]:
    """torchrun's command line for `processes` on this node. Where Slurm started this on several nodes, its variables
    say which of them this is and where they meet: at the one that srun was called from, at a port by the job."""
    where = ["--standalone"]
    if nodes > 1:
        port = PORTS[int(os.environ["SLURM_JOB_ID"]) % len(PORTS)]
        where = ["--nnodes", str(nodes), "--node-rank", os.environ["SLURM_NODEID"]]
        where += ["--master-addr", os.environ["SLURM_LAUNCH_NODE_IPADDR"], "--master-port", str(port)]
    worker = ["-m", "leap_repro.pipeline.launch.worker", *command]
    return [sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node", str(processes), *worker]


def _on_every_node(arguments: argparse.Namespace) -> list[str]:
    """srun's command line that starts this very command once on each node of the job that it runs in."""
    if "SLURM_JOB_ID" not in os.environ:
        raise UserError(f"{arguments.nodes} nodes need Slurm, and this is not a Slurm job")
    nodes = str(arguments.nodes)
    placed = ["--nodes", nodes, "--ntasks", nodes, "--ntasks-per-node", "1", "--overlap", "--kill-on-bad-exit=1"]
    given = ["--mem", "0", "--cpus-per-task", os.environ.get("OMP_NUM_THREADS", "1")]
    if arguments.gpus:
        given += ["--gpus-per-node", str(arguments.gpus // arguments.nodes)]
    return ["srun", *placed, *given, sys.executable, "-m", "leap_repro.pipeline", *sys.argv[1:]]


def _watch(command: list[str], environment: dict[str, str]) -> int:
    """Run `command`, which dies with this process; its exit status. A refusal of a stage's, which torchrun's own report
    buries, is said again as the last word."""
    process = subprocess.Popen(
        command, env=os.environ | environment, stderr=subprocess.PIPE, preexec_fn=dying_with(os.getpid())
    )
    assert process.stderr is not None
    refusal, line = b"", b""
    while chunk := os.read(process.stderr.fileno(), 65536):
        sys.stderr.buffer.write(chunk)
        sys.stderr.buffer.flush()
        *lines, line = (line + chunk).split(b"\n")
        refusal = next((said for said in lines if said.startswith(b"error: ")), refusal)
    if process.wait() and refusal:
        raise UserError(refusal.decode(errors="replace").removeprefix("error: "))
    return process.returncode


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.pipeline", description=__doc__)
    parser.add_argument("--gpus", type=int, default=0, help="number of GPUs, one for each process; default 0: the CPU")
    parser.add_argument("--processes", type=int, default=1, help="number of processes that run the stage; default 1")
    parser.add_argument("--nodes", type=int, default=1, help="number of nodes of a Slurm job")
    parser.add_argument("--benchmark", type=Path, help="file for the job's time and memory, in Snakemake's columns")
    parser.add_argument("stage", choices=STAGES, help="the stage to run")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="…", help="the stage's arguments; --help names them")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    with report_errors():
        sys.exit(main(parser().parse_args()))
