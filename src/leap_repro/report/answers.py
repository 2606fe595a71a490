"""The answers of every cell in one small table, from which any standard error of a run can be computed anew."""

from __future__ import annotations

import pandas as pd

from leap_repro.report.statistics import QUESTION

CELL = ["model", "method", "sparsity_target", "seed"]


def answers_table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """One row per question (task, leaf, index) and one column of booleans per cell, in the order of `outcomes`: whether
    the cell's answer is right. Missing where a cell was not asked a question."""
    places = outcomes[CELL].drop_duplicates()
    names = [cell_name(*place) for place in places.itertuples(index=False, name=None)]
    wide = outcomes.pivot(index=QUESTION, columns=CELL, values="correct")
    wide = wide[[*places.itertuples(index=False, name=None)]].set_axis(names, axis=1)
    return wide.astype("boolean").reset_index()


def cell_name(model: str, method: str, sparsity: float, seed: int) -> str:
    """What the column of a cell is called, as the cell's folder is."""
    return f"{model}/{method}/{sparsity:g}/{seed}"
