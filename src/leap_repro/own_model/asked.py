"""What the command was asked for, looked at before anything is written: names that become paths,
places, the model."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from leap_repro.errors import UserError, shown
from leap_repro.export.folder import refuse_filled
from leap_repro.miniature.bundled import bundled_models
from leap_repro.models.checkpoint import weight_files
from leap_repro.pipeline.reading import project_files
from leap_repro.places import check_makable, expanded
from leap_repro.prune.methods import declaration

PLACES = ("output", "run_folder", "text", "masks")


def check_asked(asked: Namespace, home: Path) -> None:
    """Put homes in the place of ~; UserError for the first argument that cannot be right. `home` is
    the checkout."""
    if not asked.model or not asked.output:
        missing = "--output" if asked.model else "MODEL"
        raise UserError(f"{missing} is not given; a model to prune needs both")
    for key in PLACES:
        if getattr(asked, key) is not None:
            setattr(asked, key, expanded(getattr(asked, key), f"--{key.replace('_', '-')}"))
    if not 0 <= asked.sparsity < 1:
        percent = f": {asked.sparsity:g} % is {asked.sparsity / 100:g}" if 1 < asked.sparsity < 100 else ""
        raise UserError(f"--sparsity is {asked.sparsity:g}; a sparsity must be a number in [0, 1){percent}")
    if asked.cores < 1:
        raise UserError(f"--cores is {asked.cores}; it must be an integer of at least 1")
    if asked.values and asked.format != "packed":
        raise UserError(f"--values is {asked.values}, which needs --format packed, not {asked.format}")
    _check_folders(asked.output, asked.run_folder.absolute(), home)
    _check_model(asked.model)
    if asked.masks:
        _check_masks(asked.masks)


def check_method(method: str, config: dict[str, Any]) -> None:
    """UserError for what is no line of the configuration: its name becomes a part of paths."""
    if method not in config["methods"]:
        raise UserError(f"--method is {shown(method)}; allowed are {sorted(config['methods'])}")


def _check_folders(output: Path, run: Path, home: Path) -> None:
    refuse_filled(output)
    check_makable(run, "--run-folder")
    if project_files(run) and run != home:
        why = "holds a config.yaml, which the workflow would read"
        raise UserError(f"--run-folder {run} {why}: give another folder")
    if run.resolve().is_relative_to(output.resolve()):
        why = f"holds the run folder {run}, so that it will not be empty"
        raise UserError(f"--output {output} {why}: give another")


def _check_model(model: str) -> None:
    """UserError for a file, a folder without a whole checkpoint, and what can be no name at all."""
    folder = expanded(Path(model), "MODEL")
    if os.path.isdir(folder):
        weight_files(folder)
    elif os.path.isfile(folder):
        way = "give the folder that holds it and config.json"
        raise UserError(f"MODEL is {shown(model)}, a file; {way}")
    elif len(model) > len(shown(model, str)):
        one = f"an id on the hub (<owner>/<name>), or one of {list(bundled_models())}"
        raise UserError(f"MODEL is {shown(model)}; it must be a folder that exists, {one}")


def _check_masks(masks: Path) -> None:
    """UserError for what holds no masks."""
    try:
        assert declaration("imported").options.model_validate({"path": str(masks)}).files
    except UserError as error:
        raise UserError(f"--masks: {error}") from error
