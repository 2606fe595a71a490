# The study that the config describes, and how rules name files and code. No rule and no logic lives here.
import atexit
import json
import re
import shlex
import sys
from functools import cache
from pathlib import Path

from leap_repro.config import read_study
from leap_repro.errors import UserError
from leap_repro.fingerprint import fingerprint, module_digests, packages, read_pins
from leap_repro.inputs import check_inputs
from leap_repro.lock import check_lock, lock_digest, read_lock
from leap_repro.plan import plan_of_run
from leap_repro.preflight import GO_ON, preflight
from leap_repro.resources import parameters_of, request
from leap_repro.why import why
from snakemake.exceptions import WorkflowError

try:
    STUDY = read_study(config, Path(workflow.basedir) / "workflow/schemas/config.schema.yaml")
    LOCK = read_lock()
    check_lock(LOCK, {"model": STUDY.models.values(), "dataset": STUDY.settings["data"].values()})
    check_inputs(STUDY, outputs=("results", "logs"))
except UserError as error:
    raise WorkflowError(str(error)) from error

ROOT = f"results/{STUDY.scale}"
LOGS = f"logs/{STUDY.scale}"
CELL = "{model}/{method}/{sparsity}/{seed}"
DTYPE = STUDY.settings.get("dtype", "float32")
PINS = read_pins(Path(workflow.basedir) / "envs/requirements.txt")


def jobs_to_run():
    """(rule, wildcards) of every job of this run."""
    return [(job.rule.name, tuple(job.wildcards)) for job in workflow.dag.needrun_jobs(exclude_finished=False)]


def print_plan():
    if workflow.dryrun and workflow.dag is not None:
        print(plan_of_run(STUDY, Path(ROOT), jobs_to_run()), file=sys.stderr)


atexit.register(print_plan)  # Snakemake has hooks around a real run, none around a dry one


onstart:
    found = preflight(STUDY, Path(ROOT), jobs_to_run(), workflow.local_exec)
    if found and config.get("preflight", "stop") == "stop":
        raise WorkflowError("\n".join(["This run cannot be finished here:", *found, GO_ON]))
    for sentence in found:
        print(f"Warning: {sentence}", file=sys.stderr)


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


@cache
def code(*modules):
    """The fingerprint of the first-party code that a job runs."""
    return fingerprint(*(f"leap_repro.{module}" for module in modules))


@cache
def pins(*modules):
    """The pinned versions of the packages that can change what a job computes."""
    names = packages(*(f"leap_repro.{module}" for module in modules))
    return " ".join(f"{name}=={PINS.get(name, 'any')}" for name in names)


@cache
def digests(*modules):
    return module_digests(*(f"leap_repro.{module}" for module in modules))


def tracked(modules, options_of=lambda w: None):
    """The params by which a rule notices new code and new packages, and `why`, which is not compared but read by people.

    `modules` names the module that a job runs ("{w.…}" is filled in), or is a function that gives several;
    `options_of` gives the method's options.
    """
    modules_of = modules if callable(modules) else lambda w: (modules.format(w=w),)

    def words(w, output):
        found = why(Path(output[0]).parent, digests(*modules_of(w)), options_of(w))
        return f": {found}" if found else ""

    return {
        "code": lambda w: code(*modules_of(w)),
        "packages": lambda w: pins(*modules_of(w)),
        "why": words,
    }


def as_json(value):
    """One string for a params entry: Snakemake compares params as a set of values, a string keeps names and order."""
    return json.dumps(value, sort_keys=True)


def tables(*names, grid="{{grid}}"):
    return expand(f"{ROOT}/{grid}tables/{{name}}.{{suffix}}", name=names, suffix=("md", "csv", "tex"))


def figures(*names, grid="{{grid}}", suffixes=("png", "pdf", "csv")):
    return expand(f"{ROOT}/{grid}figures/{{name}}.{{suffix}}", name=names, suffix=suffixes)


def in_report(path, caption, kind, name):
    """A result that `snakemake --report` shows with its caption, under its kind and its grid."""
    return report(
        path,
        caption=f"../report/{caption}.rst",
        category=kind,
        subcategory=lambda w: "Extended grid" if w.grid else "Default grid",
        labels={"name": name},
    )


def table_page(name, caption):
    return in_report(f"{ROOT}/{{grid}}tables/{name}.html", caption, "Tables", name)


def targets(grid=""):
    """All that the chosen scale's configuration asks for, of the default grid or of the one in `extended/`."""
    return [
        f"{ROOT}/{grid}results.parquet",
        *tables("main", "time", "published", *STUDY.models, *(["variants"] if grid else []), grid=grid),
        *figures("density", "accuracy", grid=grid),
    ]


def model_spec(w):
    """Where a model comes from, without what only tables and requests to a cluster read: that fetches nothing again."""
    beside = ("label", "stands_for", "parameters", "gated")
    return as_json({key: value for key, value in STUDY.models[w.model].items() if key not in beside})


def model_files(model):
    """The files of a model that lies on this machine, so that a change in them is noticed."""
    path = STUDY.models[model].get("path")
    return sorted(str(file) for file in Path(path).expanduser().glob("*.safetensors")) if path else []


def prune_modules(method):
    """What a prune job runs: the stage, and the modules that it loads by name, the method's and its selector's."""
    return ("prune.__main__", *(f"prune.{module}" for module in STUDY.methods[method].modules))


def asked_code(w):
    """The fingerprint that every row of a grid must have been made with, by stage; of prune by method."""
    stages = {stage: code(f"{stage}.__main__") for stage in ("models", "calibration", "harden", "evaluate")}
    methods = STUDY.grid_methods(extended=bool(w.grid))
    return as_json(stages | {"prune": {name: code(*prune_modules(name)) for name in methods}})


def data_files(spec):
    """The files and folders of a text or of task sets that lie on this machine, so that a change in them is noticed."""
    return [part["path"] for part in (spec, *spec.get("further", {}).values()) if "path" in part]


def prune_sources(w):
    """The folders that a method reads besides the model: its token shard, and the cell whose mask it starts from."""
    method = STUDY.methods[w.method]
    folders = {}
    if method.tokens:
        folders["tokens"] = f"calibration/{w.model}/{method.tokens}/{w.seed}"
    if method.warm_start:
        folders["warm-start"] = f"harden/{w.model}/{method.warm_start}/{w.sparsity}/{w.seed}"
    if method.pattern_start:
        (sparsity,) = STUDY.methods[method.pattern_start].sparsities
        folders["pattern-start"] = f"harden/{w.model}/{method.pattern_start}/{sparsity}/{w.seed}"
    return folders


def prune_arguments(w):
    """The arguments that say what a method starts from: those folders, and for a reconstruction its selector."""
    arguments = [f"--{name} {manifest(folder)}" for name, folder in prune_sources(w).items()]
    selector = STUDY.methods[w.method].selector
    if selector:
        arguments.append(f"--selector {shlex.quote(as_json(selector.description))}")
    return " ".join(arguments)


def one_shot_methods(w):
    """What the benchmark of one-shot methods times: every one of the grid that prunes without training."""
    methods = [STUDY.methods[name] for name in STUDY.settings["methods"] if name != "dense"]
    return json.dumps({m.name: m.description for m in methods if m.tokens != "mask_training"})


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
    return as_json({m.name: {"label": m.label, "variant_of": m.variant_of, "changes": m.changes} for m in methods})


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


@cache
def parameters(model):
    return parameters_of(STUDY.models[model], Path(manifest(f"models/{model}")))


def requested(stage):
    """A rule's resources, sized from the model that its job works on and growing with every attempt."""

    def resource(name):
        def value(w, attempt):
            size = parameters(w.model) if hasattr(w, "model") else 0
            return getattr(request(stage, STUDY, size, getattr(w, "method", None), attempt), name)

        return value

    partition = {"partition", "gpu_partition"} & set(STUDY.settings.get("cluster", {}))
    names = ["mem_mb", "runtime", "gpu", *(["slurm_partition"] if partition else [])]
    return {"in_turn": 1} | {name: resource(name) for name in names}
