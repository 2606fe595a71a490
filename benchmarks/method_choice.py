"""What each method costs by the plan, and what it reached where it was run: one table to choose by.

    python benchmarks/method_choice.py

writes `benchmarks/method_choice.md`, which `docs/choosing-a-method.md` shows. Costs are those of `scale: paper` (one
cell, one GPU); results are those of the published runs on the miniature and of examples/smollm2. A test holds the file
to the plan and to those runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from measure import show

from leap_repro.costs.resources import need
from leap_repro.models.sizes import sizes_as_declared
from leap_repro.pipeline.grid import Study, read_study
from leap_repro.pipeline.reading import read_config
from leap_repro.store.atomic import write_text

TOP = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_suffix(".md")
PAGE = "docs/choosing-a-method.md"
MINIATURE = TOP / "figures/miniature/evidence/main.csv"
REAL = TOP / "examples/smollm2/published/smollm2-135m.csv"
MODELS = {"1B": "llama3.2-1b", "8B": "llama3.1-8b"}
TRAININGS = ("maskllm", "leap", "elsa")
METHODS = (
    *("magnitude", "wanda", "ria", "dsnot", "owl", "sparsegpt", "thanos", "wanda+optima", "admm", "alps"),
    *TRAININGS,
)
HEAD = (
    "method",
    "million tokens",
    *(f"time and GPU memory, {size}" for size in MODELS),
    "miniature, 50 %",
    "miniature, 60 %",
    "SmolLM2-135M, 60 %",
)
NOTE = (
    "Tokens: how many a cell reads, in millions. Time and memory: of pruning one cell on one H100, by the plan with "
    "the paper's numbers of tokens, computed and not measured; the mask that a method completes or starts from comes "
    "on top. Miniature: mean accuracy over five models and six tasks (%). SmolLM2-135M: mean accuracy over six tasks "
    "(%) and perplexity, LEAP with 0.1 million tokens."
)


def table() -> str:
    """The table as Markdown."""
    study = _study()
    miniature = pd.read_csv(MINIATURE).set_index(["method", "sparsity_target"])["Mean"]
    real = pd.read_csv(REAL).set_index(["method", "sparsity_target"])
    rows = [_dense(miniature, real), *(_row(study, name, miniature, real) for name in METHODS)]
    lines = [HEAD, ["---"] + ["---:"] * (len(HEAD) - 1), *rows]
    return "\n".join([*("| " + " | ".join(line) + " |" for line in lines), "", NOTE]) + "\n"


def _study() -> Study:
    """The paper's, with every method of the table. ELSA's training is fitted to the GPU as LEAP's is."""
    config = read_config(project=TOP) | {"scale": "paper"}
    paper = config["scales"]["paper"]
    fitted = {"gradient_checkpointing": "auto", "micro_batch_size": "auto"}
    paper = paper | {"methods": ["dense", *METHODS], "options": paper["options"] | {"elsa": fitted}}
    paper = {key: value for key, value in paper.items() if key not in ("extended", "evidence", "only_models")}
    return read_study(config | {"scales": config["scales"] | {"paper": paper}})


def _dense(miniature: Any, real: pd.DataFrame) -> list[str]:
    mean = f"{miniature['dense', 0.0]:.1f}"
    return ["not pruned", "", "", "", mean, mean, _scores(real, "dense", 0.0)]


def _row(study: Study, name: str, miniature: Any, real: pd.DataFrame) -> list[str]:
    costs = [_cost(study, name, model) for model in MODELS.values()]
    means = [f"{miniature[name, share]:.1f}" if (name, share) in miniature else "" for share in (0.5, 0.6)]
    return [study.methods[name].label, _tokens(study, name), *costs, *means, _scores(real, name, 0.6)]


def _cost(study: Study, name: str, model: str) -> str:
    """`89 h, 139 GB`, of the pruning alone."""
    sizes = sizes_as_declared(study.models[model])
    estimate = need("prune", study, sizes, name, model)
    on_gpu = bool(estimate.gpu_bytes)
    hours = estimate.seconds(study, on_gpu, study.methods[name].gpus) / 3600
    time = f"{hours:.0f} h" if hours >= 1 else f"{60 * hours:.1f} min"
    return f"{time}, {estimate.gpu_bytes / 1e9:.0f} GB" if on_gpu else "no GPU"


def _tokens(study: Study, name: str) -> str:
    """Millions of tokens that a cell's methods read."""
    method, settings = study.methods[name], study.settings
    if method.declaration.trains and settings.mask_training:
        read = method.options.steps * method.options.batch_size * settings.mask_training.length
    else:
        read = settings.calibration.sequences * settings.calibration.length if method.tokens else 0
    return f"{read / 1e6:,.2g}" if read < 1e6 else f"{read / 1e6:,.0f}"


def _scores(real: pd.DataFrame, name: str, share: float) -> str:
    if (name, share) not in real.index:
        return ""
    row = real.loc[(name, share)]
    return f"{row['average']:.1f}, {row['perplexity@2048']:.1f}"


def main() -> None:
    """Write the table, and show it."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write_text(TABLE, table())
    show(PAGE)


if __name__ == "__main__":
    main()
