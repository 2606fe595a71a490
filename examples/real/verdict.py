"""What the rule of README.md says of the window losses: `score.smk` runs it.

Writes all windows in one file, `tables/perplexities.csv` (every method on every text, the mean over
seeds) and `tables/verdict.csv` (LEAP less ADMM in nats per token, its 95 % interval, the verdict).
Both name the tokens that a method was calibrated or trained on, and the verdict the prunable
weights of its model.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from leap_repro.pipeline.grid import Study, read_study
from leap_repro.pipeline.reading import read_config
from leap_repro.report.statistics import student_ends

TEXTS = {"wikitext2": "WikiText-2", "c4": "C4"}
"""{text: its name}: those that the rule decides on."""
SETTINGS_TEXT = "held_out"
REFERENCES = r"admm(-[^+]*)?"
"""ADMM by the tokens of its calibration: the best one on held-out C4 is the reference."""


@dataclass(frozen=True)
class Estimate:
    """A mean difference in nats per token, its standard error and degrees of freedom, and how many
    seeds it is over."""

    value: float
    stderr: float
    dof: float
    seeds: int

    @property
    def interval(self) -> tuple[float, float]:
        """Student's, 95 %."""
        return student_ends(self.value, self.stderr, self.dof)


def difference(differences_SW: np.ndarray, articles_W: np.ndarray) -> Estimate:
    """The mean over seeds and windows. Its variance has a part for text, with windows that begin in one
    article together, and where there are several seeds a part for these; Satterthwaite's degrees."""
    seeds, windows = differences_SW.shape
    mean = differences_SW.mean()
    sums = pd.Series(differences_SW.mean(axis=0) - mean).groupby(articles_W).sum()
    count = len(sums)
    parts = [(float((sums**2).sum()) * count / (count - 1) / windows**2, count - 1)]
    if seeds > 1:
        parts.append((differences_SW.mean(axis=1).var(ddof=1) / seeds, seeds - 1))
    variance = sum(part for part, _ in parts)
    dof = variance**2 / sum(part**2 / degrees for part, degrees in parts) if variance else math.inf
    return Estimate(float(mean), math.sqrt(variance), dof, seeds)


def read_windows(folder: Path) -> pd.DataFrame:
    """All cells' windows, with the cell's model, method, sparsity and seed."""
    frames = []
    for path in sorted(folder.glob("*/*/*/*.parquet")):
        model, method, sparsity, seed = path.relative_to(folder).with_suffix("").parts
        frames.append(
            pd.read_parquet(path).assign(model=model, method=method, sparsity=float(sparsity), seed=int(seed))
        )
    return pd.concat(frames, ignore_index=True)


def perplexities(windows: pd.DataFrame) -> pd.DataFrame:
    """Of every method on every text: exp of the mean loss over seeds and windows, and ln(PPL / dense)."""
    means = windows.groupby(["model", "method", "sparsity", "text"]).agg(
        loss=("loss", "mean"), seeds=("seed", "nunique"), windows=("window", "nunique")
    )
    found = means.reset_index()
    dense = found[found["method"] == "dense"].set_index(["model", "text"])["loss"]
    at = pd.MultiIndex.from_frame(found[["model", "text"]])
    return found.assign(
        perplexity=np.exp(found["loss"]), over_dense=found["loss"].to_numpy() - dense.reindex(at).to_numpy()
    )


def pivot(windows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Losses [seeds, windows] of one method in a frame of one model, sparsity and text."""
    return windows[windows["method"] == method].pivot(index="seed", columns="window", values="loss")


def reference(found: pd.DataFrame, model: str, sparsity: float) -> str | None:
    """The ADMM whose loss on the settings text is lowest."""
    here = found[(found["model"] == model) & (found["sparsity"] == sparsity) & (found["text"] == SETTINGS_TEXT)]
    here = here[here["method"].str.fullmatch(REFERENCES)]
    return None if here.empty else str(here.loc[here["loss"].idxmin(), "method"])


def has_equal_tokens(found: pd.DataFrame, model: str, sparsity: float, method: str) -> bool:
    """Whether an ADMM was calibrated on the tokens that the method was trained on, or more, with as many seeds."""
    here = found[(found["model"] == model) & (found["sparsity"] == sparsity)]
    ours = here[here["method"] == method].iloc[0]
    theirs = here[here["method"].str.fullmatch(REFERENCES) & here["tokens"].ge(ours["tokens"])]
    return bool((theirs["seeds"] >= ours["seeds"]).any())


def compared(windows: pd.DataFrame, method: str, other: str) -> Estimate | None:
    """`method` less `other` on one text of one model at one sparsity, seeds paired; None without a common one."""
    ours, theirs = pivot(windows, method), pivot(windows, other)
    seeds = ours.index.intersection(theirs.index)
    if seeds.empty:
        return None
    articles = windows.drop_duplicates("window").set_index("window")["article"]
    paired = ours.loc[seeds] - theirs.loc[seeds]
    return difference(paired.to_numpy(), articles[paired.columns].to_numpy())


def verdict(intervals: dict[str, tuple[float, float]], seeds: int, has_equal_tokens: bool = True) -> str:
    """In words. One seed decides nothing, and neither does an ADMM that read fewer tokens than LEAP alone."""
    if seeds < 2:
        return "not decided by one seed"
    if set(intervals) != set(TEXTS):
        return "not scored on both texts"
    if not has_equal_tokens:
        return "open: no ADMM on LEAP's tokens yet"
    if all(upper < 0 for _, upper in intervals.values()):
        return "LEAP leads"
    return "LEAP is behind" if all(lower > 0 for lower, _ in intervals.values()) else "undecided"


def verdicts(windows: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """A row per model, sparsity, schedule of LEAP and text. `found` has the tokens of each method."""
    rows = []
    lines = windows[windows["method"].str.startswith("leap")]
    for model, sparsity, method in lines.groupby(["model", "sparsity", "method"]).groups:
        other = reference(found, model, sparsity)
        here = windows[(windows["model"] == model) & (windows["sparsity"] == sparsity)]
        estimates = {text: compared(here[here["text"] == text], method, other) for text in TEXTS} if other else {}
        estimates = {text: estimate for text, estimate in estimates.items() if estimate}
        seeds = min((estimate.seeds for estimate in estimates.values()), default=0)
        intervals = {text: estimate.interval for text, estimate in estimates.items()}
        words = verdict(intervals, seeds, has_equal_tokens(found, model, sparsity, method))
        for text, estimate in estimates.items():
            lower, upper = estimate.interval
            facts = {"model": model, "sparsity": sparsity, "method": method, "reference": other, "text": text}
            numbers = {"difference": estimate.value, "lower": lower, "upper": upper, "stderr": estimate.stderr}
            rows.append(facts | {"seeds": seeds} | numbers | {"dof": estimate.dof, "verdict": words})
    return pd.DataFrame(rows)


def tokens_read(study: Study, method: str) -> int:
    """How many tokens a method is calibrated or trained on; 0 for one that reads none."""
    line, settings = study.methods[method], study.settings
    if line.trained_sequences:
        assert settings.mask_training, "the study's own check"
        return line.trained_sequences * settings.mask_training.length
    if not line.tokens:
        return 0
    return (line.training_sequences or settings.calibration.sequences) * settings.calibration.length


def with_tokens(table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The table with a column for the tokens of each row's method, right of its name."""
    tokens = [tokens_read(study, method) for method in table["method"]]
    table.insert(table.columns.get_loc("method") + 1, "tokens", tokens)
    return table


def prunable(results: Path, model: str) -> int:
    """How many weights of the model can be pruned."""
    manifest = json.loads((results / "models" / model / "manifest.json").read_text())
    return manifest["facts"]["prunable"]


def main() -> None:
    """Read, decide, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="the configuration that was run")
    parser.add_argument("--windows", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    given = parser.parse_args()
    study = read_study(read_config([given.config]))
    windows = read_windows(given.windows)
    found = with_tokens(perplexities(windows), study)
    decided = with_tokens(verdicts(windows, found), study)
    decided["weights"] = [prunable(given.results, model) for model in decided["model"]]
    (given.results / "tables").mkdir(parents=True, exist_ok=True)
    windows.to_parquet(given.results / "windows.parquet", index=False)
    found.to_csv(given.results / "tables/perplexities.csv", index=False, float_format="%.6g")
    decided.to_csv(given.results / "tables/verdict.csv", index=False, float_format="%.6g")
    print(found.to_string(index=False), decided.to_string(index=False), sep="\n\n")


if __name__ == "__main__":
    main()
