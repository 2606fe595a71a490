# The study that the config describes, and how rules name files and code. No rule and no logic lives here.
import json
import re
import sys
from pathlib import Path

# This checkout's package, whatever else is installed: here, and (by PYTHONPATH) where the jobs run.
sys.path.insert(0, f"{workflow.basedir}/src")
shell.prefix(f"export PYTHONPATH={workflow.basedir}/src; ")

from leap_repro.config import read_study
from leap_repro.errors import UserError
from leap_repro.fingerprint import fingerprint
from snakemake.exceptions import WorkflowError

try:
    STUDY = read_study(config, Path(workflow.basedir) / "workflow/schemas/config.schema.yaml")
except UserError as error:
    raise WorkflowError(str(error)) from error

ROOT = f"results/{STUDY.scale}"
LOGS = f"logs/{STUDY.scale}"
CELL = "{model}/{method}/{sparsity}/{seed}"
DTYPE = STUDY.settings.get("dtype", "float32")


wildcard_constraints:
    model=r"[^/]+",
    method=r"[^/]+",
    sparsity=r"[0-9.]+",
    seed=r"[0-9]+",
    role=r"[a-z_]+",
    grid=r"(extended/)?",


def manifest(folder):
    """What the next stage depends on: a small file with the sha256 of the result."""
    return f"{ROOT}/{folder}/manifest.json"


def payload(folder):
    """The result itself; its age is never asked, its manifest stands for it."""
    return ancient(f"{ROOT}/{folder}/payload")


def code(*modules):
    """The fingerprint of the first-party code that a job runs: a rule's params carry it, so that new code is noticed."""
    return fingerprint(*(f"leap_repro.{module}" for module in modules))


def as_json(value):
    """One string for a params entry: Snakemake compares params as a set of values, a string keeps names and order."""
    return json.dumps(value, sort_keys=True)


def tables(*names, grid="{{grid}}"):
    return expand(f"{ROOT}/{grid}tables/{{name}}.{{suffix}}", name=names, suffix=("md", "csv", "tex"))


def figures(*names, grid="{{grid}}"):
    return expand(f"{ROOT}/{grid}figures/{{name}}.{{suffix}}", name=names, suffix=("png", "pdf", "csv"))


def targets(grid=""):
    """All that the chosen scale's configuration asks for, of the default grid or of the one in `extended/`."""
    return [
        f"{ROOT}/{grid}results.parquet",
        *tables("main", "time", "published", *STUDY.models, *(["variants"] if grid else []), grid=grid),
        *figures("density", "accuracy", grid=grid),
    ]


def model_files(model):
    """The files of a model that lies on this machine, so that a change in them is noticed."""
    path = STUDY.models[model].get("path")
    return sorted(str(file) for file in Path(path).expanduser().glob("*.safetensors")) if path else []


def prune_sources(w):
    """The folders that a method reads besides the model: its token shard, and the cell whose mask it starts from."""
    method = STUDY.methods[w.method]
    folders = {}
    if method.tokens:
        folders["tokens"] = f"calibration/{w.model}/{method.tokens}/{w.seed}"
    if method.warm_start:
        folders["warm-start"] = f"harden/{w.model}/{method.warm_start}/{w.sparsity}/{w.seed}"
    return folders


def evaluated(place, w):
    """What the cells of one model left behind: the files of every stage that a result row is traced to."""
    cells = STUDY.cells(w.model, extended=bool(w.grid))
    return [place(f"{stage}/{cell.path}") for cell in cells for stage in ("harden", "evaluate")]


def collected(place):
    """The collected results of every model of a grid."""
    return [place(f"{{grid}}aggregate/{model}") for model in STUDY.models]


def method_facts(w):
    """What tables and figures need to know of a grid's methods besides their results."""
    methods = [STUDY.methods[name] for name in STUDY.grid_methods(extended=bool(w.grid))]
    return as_json({method.name: {"label": method.label, "variant_of": method.variant_of} for method in methods})


def grid_root(w):
    """Where a grid's own results lie."""
    return f"{ROOT}/{w.grid}".rstrip("/")


def cell_benchmarks(w):
    """The benchmark file of every job of the grid that has one, by stage and cell."""
    return [
        f"{ROOT}/benchmarks/{stage}/{cell.path}.tsv"
        for cell in STUDY.cells(extended=bool(w.grid))
        for stage in ("prune", "harden", "evaluate")
    ]
