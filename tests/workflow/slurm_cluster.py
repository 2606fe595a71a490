"""A real Slurm on this host for the tests: Debian's packages, two nodes, started and stopped by a `with` block.

Node n1 is the default partition `cpu`, n2 is `gpu`, and `both` has both. Each offers two generic resources `gpu`: no
real device is needed to show that a request arrives, and jobs pretend that there are two. Memory is watched by
polling, as nothing here may need cgroups. The job steps that Snakemake's plugin starts forget SLURM_CONF, so the
configuration must lie where Slurm looks by itself; a lock lets one cluster at a time lie there.
By hand: `python tests/workflow/slurm_cluster.py FOLDER`, and Ctrl-C to stop it.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEM_CONFIG = Path("/etc/slurm/slurm.conf")
CONFIG = """\
ClusterName=leap
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmctldPort={ports[0]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
MinJobAge=3600
KillWait=2
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=24000 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=24000 Gres=gpu:2
PartitionName=cpu Nodes=n1 Default=YES MaxTime=1-0
PartitionName=gpu Nodes=n2 MaxTime=1-0
PartitionName=both Nodes=n1,n2 MaxTime=1-0
"""


def why_not():
    """One sentence if no Slurm can be started here, or nothing."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=SYSTEM_PATH)]
    if missing:
        return f"no {missing[0]} here: apt-get install slurm-wlm munge"
    if os.geteuid():
        return "slurmctld and slurmd need root to run other people's jobs"
    if SYSTEM_CONFIG.exists() and not SYSTEM_CONFIG.is_symlink():
        return f"this host belongs to a cluster: {SYSTEM_CONFIG} is there"
    return None


@contextlib.contextmanager
def installed(config):
    """`config` in Slurm's own place; waits for another test's cluster to leave it."""
    SYSTEM_CONFIG.parent.mkdir(exist_ok=True)
    with (SYSTEM_CONFIG.parent / "leap-test.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        SYSTEM_CONFIG.unlink(missing_ok=True)
        SYSTEM_CONFIG.symlink_to(config)
        try:
            yield
        finally:
            SYSTEM_CONFIG.unlink()


def free_ports(count):
    """Ports of this host that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def write_config(folder):
    """slurm.conf, gres.conf and a munge key in `folder`."""
    for name in ("munge", "state", "spool.n1", "spool.n2"):
        (folder / name).mkdir(mode=0o700, parents=True)
    folder.chmod(0o755)
    key = folder / "munge/key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, host=host, ports=free_ports(3)))
    lines = (f"NodeName={node} Name=gpu File=/dev/{device}" for node in ("n1", "n2") for device in ("null", "zero"))
    devices = "\n".join(lines)
    (folder / "gres.conf").write_text(f"{devices}\n")


def commands(folder):
    """The daemons, each in the foreground so that stopping them needs no more than their process."""
    munge = folder / "munge"
    files = [f"--{name}-file={munge}/{name}" for name in ("key", "pid", "log", "seed")]
    yield ["munged", "--foreground", "--force", f"--socket={munge}/socket", *files]
    yield ["slurmctld", "-D", "-i", "-f", f"{folder}/slurm.conf"]
    for node in ("n1", "n2"):
        yield ["slurmd", "-D", "-N", node, "-f", f"{folder}/slurm.conf"]


@contextlib.contextmanager
def slurm(folder):
    """A running cluster whose files lie in the new `folder`; yields the environment that its commands need."""
    folder = Path(folder).resolve()
    write_config(folder)
    path = f"{Path(sys.executable).parent}:{SYSTEM_PATH}"
    environment = os.environ | {"PATH": path, "LEAP_REPRO_PRETEND_DEVICES": "2"}
    daemons = []
    with installed(folder / "slurm.conf"):
        try:
            for command in commands(folder):
                with (folder / f"{command[0]}.{len(daemons)}.out").open("w") as out:
                    daemons.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
                time.sleep(0.3)
            wait_until_idle(folder, environment)
            yield environment
        finally:
            subprocess.run(["scancel", "--user=root"], env=environment, check=False, timeout=30)
            for daemon in reversed(daemons):
                daemon.terminate()
            for daemon in daemons:
                daemon.wait(timeout=30)


def wait_until_idle(folder, environment, seconds=30):
    """Return once both nodes are idle; RuntimeError with the daemons' last words if they never are."""
    for _ in range(seconds * 5):
        nodes = subprocess.run(
            ["sinfo", "-h", "-N", "-o", "%N %t"], env=environment, capture_output=True, text=True, check=False
        )
        if set(map(str.strip, nodes.stdout.splitlines())) == {"n1 idle", "n2 idle"}:  # a line for each partition too
            return
        time.sleep(0.2)
    words = "\n".join(f"{log.name}: {log.read_text()[-1000:]}" for log in folder.glob("*.log"))
    raise RuntimeError(f"Slurm did not start: {nodes.stdout}{nodes.stderr}\n{words}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with slurm(sys.argv[1]):
        print("sinfo, squeue and sbatch reach it; Ctrl-C stops it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
