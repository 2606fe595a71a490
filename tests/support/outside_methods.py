"""Methods outside the package, as a user would write them, for tests."""

import importlib
import sys

import pytest

from leap_repro.prune import loading, methods

TEMPERED = '''"""Wanda with a power of the input norms, compared over the whole matrix."""

from __future__ import annotations

from pydantic import Field

from leap_repro.checked import Rate
from leap_repro.prune.declaration import Options as BaseOptions
from leap_repro.prune.layerwise.declaration import LayerWise
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.select import drop_smallest_in_matrix


class Options(BaseOptions):
    """Of this method alone."""

    exponent: Rate = Field(0.5, description="of the norms; 1 would be Wanda's score")


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Drop the smallest |W| * norm ** exponent of the matrix."""
    scores = layer.weight.abs() * layer.statistics.column_norms**options.exponent
    return PrunedLayer(drop_smallest_in_matrix(scores, layer.sparsity))


METHOD = LayerWise(prune_layer, options=Options, statistics="norms")
'''


def write(file, text=TEMPERED):
    """The file, with its folders."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def install(folder, package, **points):
    """A package in `folder` whose metadata offer {name: module} as methods, for a folder on the path."""
    write(folder / package / "__init__.py", "")
    lines = "\n".join(f"{name} = {module}" for name, module in points.items())
    about = folder / f"{package}-1.0.dist-info"
    write(about / "METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    write(about / "entry_points.txt", f"[{loading.GROUP}]\n{lines}\n")


def forget():
    """Nothing of this process knows of the methods that a test has added."""
    for cached in (loading.installed_methods, methods.known_names, methods.names):
        cached.cache_clear()
    importlib.invalidate_caches()
    added = (f"{loading.OWN_FILES}.", f"{methods.__name__}.newcomer", "their_")
    for name in [name for name in sys.modules if name.startswith(added)]:
        del sys.modules[name]


@pytest.fixture
def methods_may_come():
    """Before and after a test that adds methods."""
    forget()
    yield
    forget()
