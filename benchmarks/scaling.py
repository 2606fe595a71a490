"""What a mask training of each of the paper's models needs of every GPU, and how long it takes, by the plan's formulas.

    python benchmarks/scaling.py

writes `benchmarks/scaling.md`, which `docs/scaling.md` shows. Nothing is measured: a test holds the file to the plan.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from measure import show

from leap_repro.costs.resources import flops_per_second, need
from leap_repro.models.sizes import sizes_by_rule_of_thumb
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.reading import read_config
from leap_repro.store.atomic import write_text

TOP = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_suffix(".md")
COUNTS = (1, 2, 4, 8)
LEAN = "leap-low-memory"


def table() -> str:
    """The table, as Markdown."""
    config = read_config(project=TOP) | {"scale": "paper"}
    head = [f"{count} GPU{'s' * (count > 1)}" for count in COUNTS]
    lines = [
        "GB of each GPU, and hours of a cell, with the settings of `scale: paper`; in brackets the GB with those of "
        f"`{LEAN}`.",
        "",
        f"| | {' | '.join(head)} |",
        f"|---|{'---:|' * len(COUNTS)}",
    ]
    for method in ("leap", "maskllm"):
        for name, model in config["scales"]["paper"]["models"].items():
            parameters = model.get("parameters") or model["expect"]["parameters"]
            cells = [_cell(config, method, parameters, count) for count in COUNTS]
            lines.append(f"| {method}, {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(config: dict[str, Any], method: str, parameters: int, count: int) -> str:
    """`143 (67) GB, 208.1 h`"""
    of_paper = config["scales"]["paper"]["options"]
    lean = of_paper["leap"] | config["methods"][LEAN]["options"] | of_paper[LEAN]
    own = of_paper[method]
    estimates = []
    for options in (own, lean):
        paper = config["scales"]["paper"]
        paper = paper | {"gpus": {method: count}, "options": of_paper | {method: options}, "extended": []}
        study = read_study(config | {"scales": config["scales"] | {"paper": paper}})
        estimates.append(need("prune", study, sizes_by_rule_of_thumb(parameters), method))
    sizes = [estimate.gpu_bytes / 1e9 for estimate in estimates]
    hours = estimates[0].flops / flops_per_second(study, True) / count / 3600
    return f"{sizes[0]:.0f} ({sizes[1]:.0f}) GB, {hours:.1f} h"


def main() -> None:
    """Write the table, and show it."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write_text(TABLE, table())
    show("docs/scaling.md")


if __name__ == "__main__":
    main()
