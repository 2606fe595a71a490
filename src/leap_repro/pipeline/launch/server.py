"""`python -m leap_repro.pipeline.launch.server`: has the stages imported, and forks a process for
each job.

Most of a small job's time is the start of a process: torch, transformers and lm-eval take three to
four seconds to import. A local run starts one server, which imports them once and then only waits;
`python -m leap_repro.pipeline` sends it a job (`client.py`). What it forks takes over the job's
files, folder and environment and runs the stage as any process would. It computes nothing itself,
so that no thread and no random number is there to be inherited.

Whatever would be different in a process of its own is refused, and then runs there: another Python,
other code, other variables. The server ends with Snakemake, its children end with it, and each with
the process that asked for it.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import leap_repro
from leap_repro.cli import report_errors
from leap_repro.pipeline.fingerprint import module_digests
from leap_repro.pipeline.launch.client import ADDRESS, KILLED, Request, python
from leap_repro.pipeline.launch.devices import VISIBLE
from leap_repro.pipeline.launch.measure import run_measured
from leap_repro.pipeline.launch.worker import THREADS, dying_with
from leap_repro.pipeline.stages import STAGES, bits_of
from leap_repro.portable import LIBRARIES, PORTABLE
from leap_repro.prune.methods import module_of, names

LONG = ("miniature",)
"""Stages that run for minutes and are not worth it."""
STAGE_MODULES = [f"leap_repro.pipeline.stages.{stage}" for stage in STAGES if stage not in LONG]
NEEDED = (
    *STAGE_MODULES,
    *map(module_of, names()),
    "leap_repro.evaluate.requests",
    "leap_repro.portable.install",
    "leap_repro.portable.kernels",
    "lm_eval.evaluator",
    "lm_eval.tasks",
    "datasets.packaged_modules.parquet.parquet",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
)
"""What the stages import: at their top, and when they are at work."""
NO_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""pyarrow's allocator would start one when it is loaded."""
OWN = {VISIBLE: "", **LIBRARIES}
"""What every job without a GPU has, and the libraries read when they are loaded."""
OF_SHELLS = {"_", "SHLVL", "PWD", "OLDPWD", "PS1", "PS2"}
FREE = OF_SHELLS | {"TMPDIR", "TMP", "TEMP", "TEMPDIR", ADDRESS, *OWN, *NO_THREAD}
"""Variables that may differ from the server's: no import reads them, or they are set anyway."""
SHELL = ("bash", "-c", 'exec "$0" "$@"')
"""Starts a command as jobs are started: a shell changes some variables."""
ENDING = signal.SIGTERM
"""What the server gets when its starter is gone, and may get with it: it deletes its folder."""
WAITING = 1024
"""Jobs that may wait to be taken."""


def start(threads: int, source: str) -> None:
    """Start the server of this process's jobs, which it finds by an environment variable, and which
    ends with it.

    `threads`: those of a job, which the libraries want to know when they are loaded. `source`: the
    jobs' PYTHONPATH.
    """
    if not hasattr(os, "pidfd_open"):  # no Linux: every job has a process of its own
        return
    folder = tempfile.mkdtemp(prefix="leap-repro-")  # private: 0700
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    address = f"{folder}/socket"
    counts = dict.fromkeys(THREADS, str(threads))
    command = [*SHELL, sys.executable, "-m", "leap_repro.pipeline.launch.server"]
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(address)
        except OSError:  # a longer path than a socket may have
            return
        listener.listen(WAITING)  # from now on jobs can be sent, however long the imports take
        subprocess.Popen(
            [*command, str(listener.fileno()), folder],
            env=os.environ | counts | {"PYTHONPATH": source} | OWN | NO_THREAD,
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            preexec_fn=dying_with(os.getpid(), ENDING),
        )
    os.environ[ADDRESS] = address


def code_on_disk() -> dict[str, tuple[int, int]]:
    """{file: (time of its last change, bytes)} of the package."""
    package = Path(leap_repro.__file__).parent
    found = {str(path): path.stat() for path in package.rglob("*.py")}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in found.items()}


@dataclass(frozen=True)
class Inherited:
    """What a forked process has of the server."""

    python: str
    environment: dict[str, str]
    code: dict[str, tuple[int, int]]

    @classmethod
    def here(cls) -> Inherited:
        """This process's."""
        return cls(python(), dict(os.environ), code_on_disk())

    def differs(self, request: Request) -> str | None:
        """What a process of its own would have otherwise; None if nothing."""
        if request["stage"] in LONG:
            return f"{request['stage']} is a long job"
        if bits_of(request["arguments"]) != PORTABLE:
            return "it uses native kernels, but the server has portable ones"
        if request["python"] != self.python:
            return f"the server's Python is {self.python}"
        asked, own = request["environment"], self.environment
        names = (asked.keys() | own.keys()) - FREE
        others = sorted(name for name in names if asked.get(name) != own.get(name))
        if others:
            return f"the server has another {', '.join(others)}"
        if code_on_disk() != self.code:
            return "the code has been edited since the server imported it"
        return None


class Server:
    """Takes jobs from `listener`. One event at a time: the next may be of what this one closed."""

    def __init__(self, listener: socket.socket, inherited: Inherited) -> None:
        self._inherited = inherited
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self) -> None:
        """Work until the process is killed."""
        while True:
            key, _ = self._selector.select()[0]
            key.data(key.fileobj)

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        self._selector.register(connection, selectors.EVENT_READ, self._take)

    def _take(self, connection: socket.socket) -> None:
        """Fork a process for the job that was sent, or refuse it."""
        self._selector.unregister(connection)
        _, files, *_ = socket.recv_fds(connection, 1, 4)
        if len(files) < 4:  # who asked is gone
            connection.close()
            return
        with os.fdopen(files[0]) as file:
            file.seek(0)
            request = json.load(file)
        refusal = self._inherited.differs(request)
        if refusal:
            _say(connection, {"refused": refusal})
        else:
            self._fork(connection, request, files[1:])
        for file in files[1:]:
            os.close(file)

    def _fork(self, connection: socket.socket, request: Request, files: list[int]) -> None:
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(server, request, files)
        self._selector.register(connection, selectors.EVENT_READ, partial(self._kill, pid))
        ended = os.pidfd_open(pid)
        self._selector.register(ended, selectors.EVENT_READ, partial(self._bury, pid, connection))

    def _become(self, server: int, request: Request, files: list[int]) -> NoReturn:
        """In the forked process: close what belongs to the server and to other jobs, but not this
        job's own connection (`client.py`), run the job, and end."""
        status = 1
        try:
            for number in (signal.SIGINT, ENDING):
                signal.signal(number, signal.SIG_DFL)
            dying_with(server)()
            for key in list(self._selector.get_map().values()):
                os.close(key.fd)
            self._selector.close()
            status = _run(request, files)
        finally:
            os._exit(status)

    def _kill(self, pid: int, connection: socket.socket) -> None:
        """Who asked for the job is gone."""
        os.kill(pid, signal.SIGKILL)
        self._selector.unregister(connection)

    def _bury(self, pid: int, connection: socket.socket, ended: int) -> None:
        """Say how a job ended."""
        self._selector.unregister(ended)
        os.close(ended)
        with suppress(KeyError):
            self._selector.unregister(connection)
        _, status = os.waitpid(pid, 0)
        _say(connection, {"status": os.waitstatus_to_exitcode(status)})


def _say(connection: socket.socket, answer: dict[str, int | str]) -> None:
    """The answer to a job, if anyone still listens."""
    with connection, suppress(OSError):
        connection.sendall(json.dumps(answer).encode() + b"\n")


def _run(request: Request, files: list[int]) -> int:
    """Run a job in this process, which was forked for it; its exit status."""
    for descriptor, file in enumerate(files):
        os.dup2(file, descriptor)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"] | OWN)
    tempfile.tempdir = None  # found anew, from the job's variables
    benchmark = Path(request["benchmark"]) if request["benchmark"] else None
    try:
        with report_errors():
            run_measured(request["stage"], request["arguments"], benchmark, request["started"])
        return 0
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()


def load() -> None:
    """Import what the stages need. What cannot be imported is left to the job that needs it, to say
    so."""
    for name in NEEDED:
        with suppress(Exception):
            import_module(name)
    module_digests(*STAGE_MODULES)  # the trees that a fingerprint is made of are then read, too
    sys.stdout.flush()  # what a library said, if any did: a child would say it again
    gc.collect()
    gc.freeze()  # a child's collector would touch, and thereby copy, what both share


def main() -> None:
    """Import, then serve; end if a library has started a thread, which a fork would lose."""
    listener, folder = int(sys.argv[1]), sys.argv[2]

    def end(number: int, frame: object) -> NoReturn:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(KILLED + number)

    for number in (signal.SIGINT, ENDING):
        signal.signal(number, end)
    inherited = Inherited.here()
    load()
    if len(os.listdir("/proc/self/task")) == 1:
        Server(socket.socket(fileno=listener), inherited).serve()


if __name__ == "__main__":
    main()
