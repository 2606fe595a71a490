"""What makes a job stale: the code that it runs, the pinned packages behind that code, its options; why, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from leap_repro.pipeline.fingerprint import PACKAGE, fingerprint, module_digests, packages, read_pins
from leap_repro.pipeline.grid import Method
from leap_repro.pipeline.stale_reason import stale_reason
from leap_repro.prune.methods import module_of


def stage(name: str) -> str:
    """The module of a stage."""
    return f"{PACKAGE}.pipeline.stages.{name}"


@cache
def code(*modules: str) -> str:
    """The fingerprint of the first-party code that a job runs."""
    return fingerprint(*modules)


@cache
def digests(*modules: str) -> dict[str, str]:
    """{module: digest} of the same code, so that a change has a name."""
    return module_digests(*modules)


@cache
def pins(requirements: Path, *modules: str) -> str:
    """The versions that `requirements` pins of the packages which can change what the job computes."""
    pinned = read_pins(requirements)
    names = packages(*modules)
    return " ".join(f"{name}=={pinned.get(name, 'any')}" for name in names)


def prune_modules(method: Method) -> tuple[str, ...]:
    """What a prune job runs: the stage, and the files that it loads by name, the method's and its selector's."""
    return (stage("prune"), *map(module_of, method.modules))


@dataclass(frozen=True)
class Tracker:
    """Gives a rule the params by which it notices new code and new packages. `requirements` is the file of pins."""

    requirements: Path

    def params(
        self, modules: str | Callable[[Any], tuple[str, ...]], options: Callable[[Any], Any] = lambda w: None
    ) -> dict[str, Callable[..., str]]:
        """{"code", "packages", "stale_reason"}; the last is not compared but read by people.

        `modules` names the module below the package that a job runs ("{w.…}" is filled in from the wildcards), or is a
        function of the wildcards that gives the full names of several; `options` gives the method's options.
        """

        def modules_of(w: Any) -> tuple[str, ...]:
            return modules(w) if callable(modules) else (f"{PACKAGE}.{modules.format(w=w)}",)

        def words(w: Any, output: Any) -> str:
            found = stale_reason(Path(output[0]).parent, digests(*modules_of(w)), options(w))
            return f": {found}" if found else ""

        return {
            "code": lambda w: code(*modules_of(w)),
            "packages": lambda w: pins(self.requirements, *modules_of(w)),
            "stale_reason": words,
        }
