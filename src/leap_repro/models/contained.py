"""Work on a file that nobody vouches for, in a process of its own: with a bound on its time and its memory, and no harm
done if it crashes. What Python cannot interrupt, as a regular expression that never ends, a process can.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from leap_repro.errors import UserError, reason

T = TypeVar("T")
SECONDS = 60
MEMORY = 8 * 2**30
"""Bytes beyond what this process has."""


def contained(work: Callable[[], T], what: str, seconds: float = SECONDS) -> T:
    """What `work` returns (which is pickled), run quietly in a fork of this process; its UserError is raised here.

    Raises UserError that begins with `what` if it needs more than `seconds` or MEMORY, or ends in any other way.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    context: Any = multiprocessing.get_context("fork")
    child = context.Process(target=_work, args=(work, sender))
    child.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise UserError(f"{what}: trying it takes more than {seconds:g} seconds")
        result, complaint = receiver.recv()
    except EOFError:
        child.join()
        raise UserError(f"{what}: trying it ends the process (exit status {child.exitcode})") from None
    finally:
        child.kill()
        child.join()
        receiver.close()
    if isinstance(complaint, UserError):
        raise complaint
    if complaint is not None:
        raise UserError(f"{what}: {complaint}")
    return result


def _work(work: Callable[[], object], sender: Connection) -> None:
    """In the child: send (result, None), or (None, a UserError or other words). What libraries print goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads did not come along
    _bound_memory()
    try:
        answer: tuple[object, object] = (work(), None)
    except UserError as error:
        answer = (None, UserError(str(error)))
    except BaseException as error:  # a panic of a library in Rust is no Exception
        answer = (None, f"{type(error).__name__}: {reason(error)}")
    sender.send(answer)
    sender.close()
    os._exit(0)


def _bound_memory() -> None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (OSError, ValueError):
        pass  # no such place, or a lower limit is set already
