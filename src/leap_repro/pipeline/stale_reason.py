"""Say in words why a result is stale: what a dry run shows beside Snakemake's own reason.

Snakemake tells that a job's fingerprint was one hash and is now another. `provenance.json`, which lies beside every
result, remembers the digest of each module and the value of each option; compared with what a job would run now,
the difference has names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from leap_repro.pipeline.fingerprint import PACKAGE
from leap_repro.store.artifacts import PROVENANCE


def stale_reason(folder: Path, modules: dict[str, str], options: dict[str, Any] | None = None) -> str:
    """What differs from the result in `folder`, e.g. "prune.wanda changed; damping 0.01 -> 0.1".

    `modules` and `options` are those that a job would run with now, {module: digest} and {option: value}. Empty if
    nothing differs, or if there is no result yet: then the reason is no news.
    """
    try:
        recorded = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
        words = _changed_modules(recorded["modules"], modules)
        if options is not None:
            words += _changed_options(recorded["parameters"]["options"], options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return "; ".join(words)


def _differing(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))


def _changed_modules(then: dict[str, str], now: dict[str, str]) -> list[str]:
    verbs = {(True, True): "changed", (True, False): "is no longer run", (False, True): "is new"}
    names = _differing(then, now)
    return [f"{name.removeprefix(PACKAGE + '.')} {verbs[name in then, name in now]}" for name in names]


def _changed_options(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [f"{name} {then.get(name, 'unset')} -> {now.get(name, 'unset')}" for name in _differing(then, now)]
