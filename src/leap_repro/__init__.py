"""LEAP and its baselines: a library that prunes language models, and a pipeline around it.

    from leap_repro import evaluate_model, export_model, prune_model

docs/library.md shows the three functions. They are imported on first use: `import leap_repro` imports nothing heavy,
and the fingerprint of one stage does not contain the code of all of them (`fingerprint`).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leap_repro.library.evaluate import Evaluation, evaluate_model
    from leap_repro.library.export import export_model
    from leap_repro.library.prune import prune_model
    from leap_repro.library.pruned import PrunedModel

__version__ = "0.1.0"
__all__ = ["Evaluation", "PrunedModel", "evaluate_model", "export_model", "prune_model"]

_PLACES = {
    "Evaluation": "leap_repro.library.evaluate",
    "PrunedModel": "leap_repro.library.pruned",
    "evaluate_model": "leap_repro.library.evaluate",
    "export_model": "leap_repro.library.export",
    "prune_model": "leap_repro.library.prune",
}


def __getattr__(name: str) -> object:
    """One of the library's functions or classes, from the module that has it."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
