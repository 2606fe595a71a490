"""Dense: keep every weight. The unpruned rows of the tables are computed by the same stages as all other cells."""

from __future__ import annotations

from fractions import Fraction

from leap_repro.prune import declaration
from leap_repro.prune.layerwise.declaration import LayerWise
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.select import all_kept


class Options(declaration.Options):
    """Dense has no options."""

    @property
    def sparsity_bounds(self) -> tuple[Fraction, Fraction]:
        return Fraction(0), Fraction(0)

    @property
    def sparsity_words(self) -> str:
        return "dense keeps every weight and allows only [0]"


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Keep everything."""
    return PrunedLayer(all_kept(layer.weight))


METHOD = LayerWise(prune_layer, options=Options, selects=False)
