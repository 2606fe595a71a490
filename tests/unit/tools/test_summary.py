"""The README's table says what the published evidence says."""

from pathlib import Path

import numpy as np
import pandas as pd
from summary import METHODS, summary

TOP = Path(__file__).resolve().parents[3]
MAIN = TOP / "figures/miniature/evidence/main.csv"


def test_it_is_the_published_evidence_s():
    assert (TOP / "figures/summary.md").read_text(encoding="utf-8") == summary(pd.read_csv(MAIN))


def test_numbers_are_means_over_models():
    main = pd.read_csv(MAIN).set_index(["sparsity_target", "method"])
    table = summary(main.reset_index())
    for sparsity in (0.5, 0.6):
        leap = main.loc[(sparsity, "leap")]
        perplexities = [leap[name] for name in main.columns if name.startswith("perplexity@")]
        assert len(perplexities) == 5
        assert f" {leap['Mean']:.2f} | +{leap['difference_to_admm']:.2f} ± " in table
        assert f" {np.exp(np.log(perplexities).mean()):.3f} " in table


def test_a_method_that_did_not_run_has_empty_cells():
    main = pd.read_csv(MAIN)
    table = summary(main[~((main["method"] == "wanda") & (main["sparsity_target"] == 0.5))])
    (line,) = [line for line in table.splitlines() if line.startswith("| Wanda ")]
    assert line.split(" | ")[1:4] == ["", "", ""]
    assert len(table.splitlines()) == 3 + len(METHODS)
    assert {line.count("|") for line in table.splitlines()} == {8}
