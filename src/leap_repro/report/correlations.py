"""Whether the loss of a relaxed mask foretells what is left once it is hardened.

`python -m leap_repro.report.correlations` writes two tables. "correlations": of the relaxed mask's loss (and of the
training's objective) on held-out text with the hardened mask's loss and with zero-shot accuracy, over the steps of a
run and over runs. At its end a training's relaxed mask is nearly hard, so its loss says little that the hardened mask's
does not; the loss after a quarter of the steps is a prediction. "gap": relaxed minus hardened loss by step.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import product
from statistics import NormalDist

import numpy as np
import pandas as pd

from leap_repro.cli import run_stage
from leap_repro.errors import UserError
from leap_repro.report.collect import RESULTS, TRAINING, read_models
from leap_repro.report.command import table_parser
from leap_repro.report.layout import Methods, format_sparsity
from leap_repro.report.render import Table

GROUP = ["model", "sparsity_target"]
BY_SEED = [*GROUP, "seed"]
RUN = ["model", "method", "sparsity_target", "seed"]
RELAXED = {"held_out_relaxed": "relaxed loss", "held_out_objective": "objective"}
EARLY = "held_out_early"
OF_RUNS = RELAXED | {EARLY: "relaxed loss after a quarter of the steps"}
OUTCOMES = {"held_out_topk": "hardened loss", "accuracy": "accuracy"}
BOUND = NormalDist().inv_cdf(0.975)
STEPS, LATER = "steps of a run", "steps of a run after its first"
RUNS, WITHIN, WITHIN_SEED = "all runs", "runs, within model and sparsity", "runs, within model, sparsity and seed"
"""What correlations are over."""
FEWEST = 4
"""Pairs below which Fisher's z has no standard error."""
SHOWN_STEPS = 6


@dataclass(frozen=True)
class Correlation:
    """Pearson's and Spearman's coefficient over `pairs`, each with the ends of its 95 % interval; NaN for none."""

    pairs: int
    pearson: float
    pearson_low: float
    pearson_high: float
    spearman: float
    spearman_low: float
    spearman_high: float


def correlate(
    x: pd.Series, y: pd.Series, groups: pd.Series | None = None, independent: int | None = None
) -> Correlation:
    """Both correlations of x with y [n]; with `groups` [n] within groups: of deviations from each group's mean, and of
    those of ranks within each group. NaN where x or y does not vary.

    Intervals by Fisher's z: its standard error is 1 / sqrt(n - 3) for Pearson's, and sqrt((1 + r^2 / 2) / (n - 3)) for
    Spearman's (Bonett and Wright 2000). Every group but one costs a pair, as in a partial correlation. None for too few
    pairs, nor for Pearson's of 1, whose z is infinite; Spearman's of 1 has that of the largest below it. Where pairs
    come in clusters, `independent` is how many of them the intervals may count.
    """
    kinds = 1 if groups is None else groups.nunique()
    groups = pd.Series(0, index=x.index) if groups is None else groups
    free = (len(x) if independent is None else independent) - kinds + 1 - 3
    pearson = _cosine(_centred(x, groups), _centred(y, groups))
    spearman = _cosine(*(_centred(values.groupby(groups).rank(), groups) for values in (x, y)))
    low, high = _interval(_below_one(spearman, groups), 1 + spearman**2 / 2, free)
    ranks = min(low, spearman), max(high, spearman)  # of a perfect order it ends at the coefficient itself
    return Correlation(len(x), pearson, *_interval(pearson, 1, free), spearman, *(ranks if low == low else (low, high)))


def _centred(values: pd.Series, groups: pd.Series) -> np.ndarray:
    return (values - values.groupby(groups).transform("mean")).to_numpy(dtype=float)


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    """NaN where either does not vary, but for rounding."""
    norms = np.linalg.norm(x), np.linalg.norm(y)
    return float(np.clip(x @ y / math.prod(norms), -1, 1)) if len(x) > 1 and min(norms) > 1e-12 else math.nan


def _below_one(spearman: float, groups: pd.Series) -> float:
    """A coefficient, or that of ranks of which two neighbours changed places, if it is nearer to 1 or to -1."""
    sizes = groups.value_counts()
    most = 1 - 12 / max((sizes * (sizes**2 - 1)).sum(), 12)
    return math.copysign(min(abs(spearman), most), spearman)


def _interval(r: float, numerator: float, free: int) -> tuple[float, float]:
    if free < 1 or not abs(r) < 1 - 1e-12:
        return math.nan, math.nan
    z, reach = math.atanh(r), BOUND * math.sqrt(numerator / free)
    return math.tanh(z - reach), math.tanh(z + reach)


def probes_of(training: pd.DataFrame, methods: Methods) -> pd.DataFrame:
    """The probes of these methods' runs, in the order of their steps; UserError without any."""
    probes = training[training["method"].isin(methods)]
    probes = probes.reindex(columns=[*dict.fromkeys([*probes.columns, "held_out_relaxed", "held_out_topk"])])
    probes = probes.dropna(subset=["held_out_relaxed", "held_out_topk"])
    if probes.empty:
        raise UserError(f"no training of {[*methods]} in this grid was evaluated on held-out text")
    return probes.sort_values("step", kind="stable")


def last_probes(probes: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """One row per run: its last probe, and `accuracy`, the six-task average of its hardened mask in percent; EARLY is
    the relaxed loss at the last probe of the run's first quarter, NaN where only the first step was probed by then.

    Only runs of the most common number of steps: a longer training has less of every loss.
    """
    accuracy = results.loc[results["task"] == "average", [*RUN, "value"]].rename(columns={"value": "accuracy"})
    steps = probes["step"] + 1
    first_quarter = (4 * steps <= steps.groupby([probes[key] for key in RUN]).transform("max")) & (steps > 1)
    early = probes[first_quarter].groupby(RUN, sort=False)["held_out_relaxed"].last().rename(EARLY)
    last = probes.groupby(RUN, sort=False).tail(1)
    last = last[last["step"] == last["step"].mode().max()]
    return last.join(early, on=RUN).merge(accuracy, on=RUN)


def correlations_table(training: pd.DataFrame, results: pd.DataFrame, methods: Methods) -> Table:
    """One row per (over what, relaxed quantity, outcome)."""
    probes = probes_of(training, methods)
    rows = [*over_steps(probes), *over_runs(last_probes(probes, results))]
    numbers = pd.DataFrame(rows, columns=["over", "relaxed", "outcome", "runs", *Correlation.__dataclass_fields__])
    shown = numbers[["over", "relaxed", "outcome"]].set_axis(["Over", "Relaxed", "With"], axis=1)
    shown["Runs"] = numbers["runs"].astype(str)
    for name in ("pearson", "spearman"):
        ends = numbers[[name, f"{name}_low", f"{name}_high", "over"]].itertuples(index=False)
        shown[name.title()] = [worded(*row) for row in ends]
    caption = "Correlation of the relaxed mask's held-out loss with results of the hardened mask"
    return Table(caption, shown, numbers, notes=NOTES)


NOTES = (
    "Loss is in nats per token on held-out text, which no training reads, under the relaxed or the hardened mask "
    "(exact top-k). The objective is the loss with the regulariser's terms. Accuracy is the six-task average of the "
    "hardened mask. Over the steps of a run: mean over runs (smallest to largest). Over runs, each by its last "
    "evaluation: [95 % interval] by Fisher's z, for Spearman's with Bonett and Wright's variance; all seeds of a "
    "method count as one, and too few methods have no interval. Within: deviations from the mean of the runs of the "
    "same model and sparsity, or of the same model, sparsity and seed (Spearman: ranks among them), so that "
    "differences between models do not count. All seeds are evaluated on one held-out text."
)


def over_steps(probes: pd.DataFrame) -> Iterator[list]:
    """Rows over the probes of each run, and without its first, where a hot mask has little to do with a hard one: the
    mean over runs, the least and the greatest in the interval's place."""
    later = probes[probes["step"] > probes.groupby(RUN)["step"].transform("min")]
    for over, part in ((STEPS, probes), (LATER, later)):
        for relaxed, name in RELAXED.items():
            runs = [run for _, run in part.dropna(subset=[relaxed]).groupby(RUN, sort=False) if len(run) >= FEWEST]
            if runs:
                found = [correlate(run[relaxed], run["held_out_topk"]) for run in runs]
                ends = [_range([getattr(one, kind) for one in found]) for kind in ("pearson", "spearman")]
                yield [over, name, OUTCOMES["held_out_topk"], len(runs), sum(map(len, runs)), *ends[0], *ends[1]]


def _range(values: list[float]) -> list[float]:
    """Mean, least and greatest of those that there are."""
    known = [value for value in values if not math.isnan(value)] or [math.nan]
    return [float(np.mean(known)), min(known), max(known)]


def of_several(runs: pd.DataFrame, keys: Sequence[str] = GROUP) -> pd.DataFrame:
    """The runs of those groups (models and sparsities) that have more than one."""
    return runs[runs.groupby([*keys])["method"].transform("size") > 1] if len(runs) else runs


def lines_of(runs: pd.DataFrame) -> int:
    """How many lines the runs are of. Those of one line, which differ in the seed alone, are no independent pairs."""
    return runs.groupby([*GROUP, "method"]).ngroups


def correlate_runs(runs: pd.DataFrame, relaxed: str, outcome: str, within: Sequence[str] = ()) -> Correlation:
    """`correlate` over runs, perhaps within the groups that these keys make; intervals count each line once, and cost
    each model and sparsity once."""
    if not within:
        return correlate(runs[relaxed], runs[outcome], independent=lines_of(runs))
    groups = runs.groupby([*within]).ngroup()
    independent = lines_of(runs) + groups.nunique() - runs.groupby(GROUP).ngroups
    return correlate(runs[relaxed], runs[outcome], groups, independent)


def over_runs(runs: pd.DataFrame) -> Iterator[list]:
    """Rows over all runs, within model and sparsity (and seed), and of each model and sparsity with enough runs."""
    parts = [(RUNS, runs, ()), (WITHIN, of_several(runs), GROUP), (WITHIN_SEED, of_several(runs, BY_SEED), BY_SEED)]
    for (model, sparsity), part in runs.groupby(GROUP, sort=False):
        parts.append((f"runs of {model}, {format_sparsity(sparsity)}", part, ()))
    for over, part, within in parts:
        for relaxed, outcome in product(OF_RUNS, OUTCOMES):
            pairs = part.dropna(subset=[relaxed, outcome])
            if len(pairs) >= FEWEST:
                found = correlate_runs(pairs, relaxed, outcome, within)
                yield [over, OF_RUNS[relaxed], OUTCOMES[outcome], len(pairs), *astuple(found)]


def gap_table(training: pd.DataFrame, methods: Methods) -> Table:
    """Held-out losses and relaxed minus hardened, by sparsity and step, over the models and seeds of the methods that
    are no variants: other schedules would blur what a step means. Of all, where there are only variants."""
    bases = {name: facts for name, facts in methods.items() if not facts.get("variant_of")} or methods
    probes = probes_of(training, bases)
    numbers = pd.DataFrame(
        [
            [sparsity, step, len(rows), *(rows[f"held_out_{mask}"].mean() for mask in ("relaxed", *HARD)), *_gaps(rows)]
            for sparsity, part in probes.groupby("sparsity_target")
            for step, rows in part[part["step"].isin(_spread(part["step"]))].groupby("step")
        ],
        columns=GAP_COLUMNS,
    )
    shown = pd.DataFrame({"Sparsity": numbers["sparsity_target"].map(format_sparsity)})
    shown["Step"] = numbers["step"].astype(str)
    shown["Runs"] = numbers["runs"].astype(str)
    for mask in ("relaxed", *HARD):
        shown[f"Loss, {HARD.get(mask, mask)}"] = numbers[mask].map("{:.3f}".format)
    for mask, title in HARD.items():
        ends = numbers[[f"gap_{mask}", f"gap_{mask}_least", f"gap_{mask}_greatest"]].itertuples(index=False)
        shown[f"Relaxed − {title}"] = [_signed("{:+.3f} ({:+.3f} to {:+.3f})".format(*row)) for row in ends]
    labels = ", ".join(facts.get("label", name) for name, facts in bases.items())
    return Table(f"What hardening costs while masks are trained: {labels}", shown, numbers, notes=GAP_NOTES)


HARD = {"topk": "top-k", "threshold": "θ > 0"}
GAP_COLUMNS = ["sparsity_target", "step", "runs", "relaxed", *HARD]
GAP_COLUMNS += [f"gap_{mask}{end}" for mask in HARD for end in ("", "_least", "_greatest")]
GAP_NOTES = (
    "Held-out loss in nats per token under the relaxed mask and the hardened masks (top-k: the exact budget; θ > 0: as "
    "released). Losses are means over runs; differences are means (smallest to largest)."
)


def _gaps(rows: pd.DataFrame) -> list[float]:
    gaps = [rows["held_out_relaxed"] - rows[f"held_out_{mask}"] for mask in HARD]
    return [value for gap in gaps for value in (gap.mean(), gap.min(), gap.max())]


def _spread(steps: pd.Series) -> list[int]:
    """At most SHOWN_STEPS of the steps, first and last among them."""
    steps = sorted(steps.unique())
    places = np.linspace(0, len(steps) - 1, min(SHOWN_STEPS, len(steps))).round().astype(int)
    return [steps[place] for place in places]


def worded(value: float, low: float, high: float, over: str) -> str:
    """A coefficient with (least to greatest) of the runs, over steps, or its [95 % interval]; empty for NaN."""
    if math.isnan(value):
        return ""
    if math.isnan(low):
        return _signed(f"{value:.2f}")
    ends = f"({low:.2f} to {high:.2f})" if over in (STEPS, LATER) else f"[{low:.2f}, {high:.2f}]"
    return _signed(f"{value:.2f} {ends}")


def _signed(text: str) -> str:
    return text.replace("-", "−")


def main(arguments: argparse.Namespace) -> None:
    """Read the collected trainings and write the table in its four forms."""
    training = read_models(arguments.root, arguments.models, TRAINING)
    if arguments.kind == "gap":
        table = gap_table(training, arguments.methods)
    else:
        results = read_models(arguments.root, arguments.models, RESULTS)
        table = correlations_table(training, results, arguments.methods)
    table.write(arguments.output)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = table_parser("correlations", __doc__)
    parser.add_argument("kind", choices=("correlations", "gap"))
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
