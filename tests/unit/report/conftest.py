"""A grid with seeds, drawn: answers, averages and looks of whatever methods a test asks for."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leap_repro.report.findings import CollectedTables

TASKS = {"piqa": 60, "mmlu": 90}
SEEDS = (0, 1, 2)
PUBLISHED = Path(__file__).resolve().parents[3] / "figures/miniature"


def facts(name):
    module = name.split("+")[0].split("-")[0]
    return {
        "module": module,
        "label": name.upper(),
        "variant_of": module if name != module else None,
        "seeded": name != "magnitude",
    }


def draw_evidence(
    abilities, models=("a", "b"), seeds=None, only=None, curve=None, looks=None, luck=0.05, sparsities=(0.5, 0.6)
):
    """Collected tables of methods with `abilities` {method: one for all sparsities, or {sparsity: one}}. `seeds`:
    {method: its seeds}, `only`: {method: its models}, `curve`: {method: ability} at 70 % with seed 0; `looks`:
    {method: (relaxed, hardened) loss, functions of model, sparsity and seed}."""
    seeds, only, curve, looks, rng = seeds or {}, only or {}, curve or {}, looks or {}, np.random.default_rng(0)
    hard = {(model, task): rng.normal(size=size) for model in models for task, size in TASKS.items()}
    outcomes, results, training = [], [], []
    for model in models:
        for method, ability in abilities.items():
            every = ability if isinstance(ability, dict) else dict.fromkeys(sparsities, ability)
            every = every | ({0.7: curve[method]} if method in curve else {})
            for sparsity, level in every.items() if model in only.get(method, models) else ():
                own = SEEDS[:1] if sparsity == 0.7 or method == "magnitude" else seeds.get(method, SEEDS)
                for seed in own:
                    cell = {"model": model, "method": method, "sparsity_target": sparsity, "seed": seed}
                    shift, right = level + luck * rng.normal(), {}
                    for task, size in TASKS.items():
                        right[task] = hard[model, task] + shift + 0.3 * rng.normal(size=size) > 0
                        frame = {"task": task, "leaf": task, "index": range(size), "correct": right[task]}
                        outcomes.append(pd.DataFrame(cell | frame))
                    average = 100 * np.mean([answers.mean() for answers in right.values()])
                    results.append(cell | {"task": "average", "metric": "acc", "value": average})
                    loss = {"task": "perplexity", "metric": "perplexity@64", "value": 10 * np.exp(-average / 100)}
                    results.append(cell | loss)
                    if method in looks:
                        relaxed, topk = (loss(model, sparsity, seed) for loss in looks[method])
                        for step, more in ((0, 1.0), (1, 0.5), (9, 0.0)):
                            look = {"step": step, "held_out_relaxed": relaxed + more, "held_out_topk": topk + more}
                            training.append(cell | look)
    lines = {name: facts(name) for name in abilities}
    empty = pd.DataFrame(columns=["model", "method", "sparsity_target", "seed"])
    training = pd.DataFrame(training) if training else empty
    return CollectedTables(
        pd.DataFrame(results), pd.concat(outcomes, ignore_index=True), training, lines, tuple(sparsities)
    )


@pytest.fixture(scope="session")
def drawn():
    return draw_evidence


@pytest.fixture(scope="session")
def averages():
    """The six-task average of every published cell of the evidence, by method, sparsity, model and seed."""
    results = pd.read_parquet(PUBLISHED / "evidence/results.parquet").query("task == 'average'")
    return results.set_index(["method", "sparsity_target", "model", "seed"])["value"].sort_index()


@pytest.fixture(scope="session")
def variants():
    """The published table of variants, by method and sparsity."""
    return pd.read_csv(PUBLISHED / "extended/variants.csv").set_index(["method", "sparsity_target"])
