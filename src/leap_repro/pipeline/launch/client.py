"""Asks the server (`server.py`), where one is there, to run a stage in a process that has
everything imported."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any, TypedDict

log = logging.getLogger(__name__)
ADDRESS = "LEAP_REPRO_SERVER"
"""The server's socket, for the jobs of the run that started it."""
KILLED = 128
"""What a shell adds to the signal that ended a process, for its exit status."""


class Request(TypedDict):
    """A job, and what its process must have: `started` by `time.monotonic`, `python` by `python()`."""

    stage: str
    arguments: list[str]
    benchmark: str | None
    started: float
    folder: str
    environment: dict[str, str]
    python: str


def ask(stage: str, arguments: list[str], benchmark: Path | None, started: float) -> int | None:
    """The exit status of the stage, run by the server's child with this process's files, folder and
    environment; None if there is no server or it will not, and nothing has been run.

    The child dies with this process. `started`: by `time.monotonic`, for the benchmark's row.
    """
    if ADDRESS not in os.environ:
        return None
    request = Request(
        stage=stage,
        arguments=arguments,
        benchmark=str(benchmark) if benchmark else None,
        started=started,
        folder=str(Path.cwd()),
        environment=dict(os.environ),
        python=python(),
    )
    try:
        answer = _exchange(os.environ[ADDRESS], request)
    except OSError as error:
        log.info("the server did not take this job (%s): it runs in a separate process", error)
        return None
    if "refused" in answer:
        log.info("this job runs in a separate process: %s", answer["refused"])
        return None
    status = answer["status"]
    return status if status >= 0 else KILLED - status


def python() -> str:
    """Which Python this is, by whatever name it was started."""
    return f"{sys.version.split()[0]} in {sys.prefix}"


def _exchange(address: str, request: Request) -> dict[str, Any]:
    """The server's answer. The request goes as a file, which may be of any length, beside this
    process's own files.

    The job's process holds the connection too, so that it ends without an answer when neither is
    there any more.
    """
    with (
        socket.socket(socket.AF_UNIX) as connection,
        os.fdopen(os.memfd_create("job"), "w+") as file,
    ):
        json.dump(request, file)
        file.flush()
        connection.connect(address)
        socket.send_fds(connection, [b"\n"], [file.fileno(), 0, 1, 2])
        answer = connection.makefile("rb").readline()
    return json.loads(answer or '{"refused": "the server was gone before it had an answer"}')
