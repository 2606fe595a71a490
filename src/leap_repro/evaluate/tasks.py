"""lm-eval's six stock task definitions, pointed at local parquet files and otherwise unchanged.

For each task a YAML is generated that includes the stock one and overrides only where the data come from. Loading this
folder alone takes milliseconds; lm-eval's own index of all its tasks takes ten seconds.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from leap_repro.errors import UserError
from leap_repro.store.atomic import write_text
from leap_repro.store.questions import TASKS, stock_definition

STOCK_YAML = {
    "piqa": "piqa/piqa.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "winogrande": "winogrande/default.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
}
MMLU_YAML = "mmlu/default/mmlu_{subject}.yaml"


def write_task_yamls(data: Path, folder: Path, further: dict[str, str] | None = None) -> dict[str, list[str]]:
    """Write the YAMLs for the task sets under `data` (a folder per set, a parquet file per split).

    `further` maps tasks beyond the six to their stock YAMLs. Returns the leaf tasks of each task, the six first,
    {"mmlu": ["mmlu_astronomy", ...], "piqa": ["piqa"], ...}.
    Raises UserError for a missing set, or an MMLU subject that lm-eval does not define.
    """
    leaves: dict[str, list[str]] = {}
    for task, stock in (STOCK_YAML | (further or {})).items():
        _write_yaml(folder, task, stock, data / task)
        leaves[task] = [task]
    subjects = sorted(path.name.removeprefix("mmlu_") for path in data.glob("mmlu_*") if path.is_dir())
    if not subjects:
        raise UserError(f"{data} holds no MMLU subject (a folder mmlu_<subject> with test.parquet and dev.parquet)")
    for subject in subjects:
        _write_yaml(folder, f"mmlu_{subject}", MMLU_YAML.format(subject=subject), data / f"mmlu_{subject}")
    leaves["mmlu"] = [f"mmlu_{subject}" for subject in subjects]
    write_text(folder / "mmlu.yaml", _group_yaml(leaves["mmlu"]))
    return {task: leaves[task] for task in (*TASKS, *(further or {}))}


def _write_yaml(folder: Path, task: str, stock: str, data: Path) -> None:
    include = stock_definition(stock)
    splits = sorted(data.glob("*.parquet"))
    if not splits:
        raise UserError(f"task set {task}: {data} holds no parquet file")
    files = {path.stem: _literal(path.absolute()) for path in splits}
    definition = {
        "include": str(include),
        "task": task,
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
    }
    write_text(folder / f"{task}.yaml", yaml.safe_dump(definition, sort_keys=False, allow_unicode=True))


def _literal(path: Path) -> str:
    """The path as `datasets` wants it, which takes every name for a pattern."""
    return re.sub(r"[*?\[]", lambda mark: f"[{mark[0]}]", str(path))


def _group_yaml(subjects: list[str]) -> str:
    members = "".join(f"  - {subject}\n" for subject in subjects)
    return (
        f"group: mmlu\ntask:\n{members}aggregate_metric_list:\n  - metric: acc\n    weight_by_size: true\n"
        "metadata:\n  version: 2\n"
    )
