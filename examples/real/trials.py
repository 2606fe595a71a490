"""The choice of settings: `python examples/real/trials.py` prints what the trials of settings.yaml ended with.

Reads each trial's log under results/real/prune and writes results/real/tables/trials.csv: the loss of
the hardened mask on held-out C4, in nats per token, the lowest first. `--results` and `--settings`
name another example's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import yaml

COLUMNS = ["loss_lm", "held_out_relaxed", "held_out_topk", "held_out_threshold", "agreement"]


def read_changes(settings: Path) -> dict[str, str]:
    """{trial: what it changes}, as a settings.yaml says."""
    methods = yaml.safe_load(settings.read_text(encoding="utf-8"))["methods"]
    return {name: line["changes"] for name, line in methods.items()}


def trials(results: Path, settings: Path) -> pd.DataFrame:
    """A row per finished trial."""
    rows, changes = [], read_changes(settings)
    for log in sorted((results / "prune").glob("*/trial-*/*/*/payload/log.parquet")):
        model, trial, sparsity, seed = log.relative_to(results / "prune").parts[:4]
        last = pd.read_parquet(log).iloc[-1]
        facts = {"model": model, "trial": trial, "setting": changes[trial], "sparsity": sparsity, "seed": seed}
        rows.append(facts | dict(last[COLUMNS]))
    return pd.DataFrame(rows).sort_values("held_out_topk") if rows else pd.DataFrame()


def main() -> None:
    """Read, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results/real"))
    parser.add_argument("--settings", type=Path, default=Path(__file__).with_name("settings.yaml"))
    given = parser.parse_args()
    found, tables = trials(given.results, given.settings), given.results / "tables"
    if found.empty:
        raise SystemExit("no trial has finished: run them first, README.md beside this file says how")
    tables.mkdir(parents=True, exist_ok=True)
    found.to_csv(tables / "trials.csv", index=False, float_format="%.6g")
    print(found.to_string(index=False))


if __name__ == "__main__":
    main()
