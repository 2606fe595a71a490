# How rules name files; nothing is decided here. {grid} is empty for the default grid, "extended/" for the one with
# variants and "evidence/" for the one with seeds; the functions of `jobs` and `selection` (under src/leap_repro/pipeline) say
# what a job reads and is told, and what tables and figures show.
import re
import shlex

ROOT = f"results/{STUDY.scale}"
LOGS = f"logs/{STUDY.scale}"
CELL = "{model}/{method}/{sparsity}/{seed}"
STANDS_FOR = jobs.as_json({name: model.get("stands_for") for name, model in STUDY.models.items()})
CPU_ENVIRONMENT = f"{CHECKOUT}/envs/cpu.yaml".replace("{", "{{").replace("}", "}}")  # Snakemake formats it


wildcard_constraints:
    model=r"[^/]+",
    method=r"[^/]+",
    sparsity=r"0(\.[0-9]+)?",
    seed=r"[0-9]+",
    role=r"[^/]+",
    grid=r"((extended|evidence)/)?",


def manifest(folder):
    """What the next stage depends on: a small file with the sha256 of the result."""
    return f"{ROOT}/{folder}/manifest.json"


def payload(folder):
    """The result itself; its age is never asked, its manifest stands for it."""
    return ancient(f"{ROOT}/{folder}/payload")


def whole(folders):
    """Manifest and payload of each folder."""
    return [place(folder) for folder in folders for place in (manifest, payload)]


def tables(*names, grid="{{grid}}"):
    return expand(f"{ROOT}/{grid}tables/{{name}}.{{suffix}}", name=names, suffix=("md", "csv", "tex", "sha256"))


def figures(*names, grid="{{grid}}", suffixes=("png", "pdf", "csv", "sha256")):
    return expand(f"{ROOT}/{grid}figures/{{name}}.{{suffix}}", name=names, suffix=suffixes)


def targets(grid=""):
    """All files of the default grid, or of the one in the folder `grid`."""
    name = grid.rstrip("/")
    files = tables(*selection.tables(STUDY, name), grid=grid) + figures(*selection.figures(STUDY, name), grid=grid)
    return [f"{ROOT}/{grid}results.parquet", f"{ROOT}/{grid}front.html", *files]


def cleaned(grid=""):
    """What says that a model's files were taken away, if the configuration asks for it."""
    return expand(f"{ROOT}/{grid}cleaned/{{model}}.json", model=STUDY.models if STUDY.settings.clean_up else [])


def in_report(path, caption, kind, name):
    """A result that `snakemake --report` shows with its caption, under its kind and its grid."""
    return report(
        path,
        caption=f"../report/{caption}.rst",
        category=kind,
        subcategory=lambda w: {"": "Default grid", "extended/": "Extended grid", "evidence/": "Evidence"}[w.grid],
        labels={"name": name},
    )


def table_page(name, caption):
    return in_report(f"{ROOT}/{{grid}}tables/{name}.html", caption, "Tables", name)


def collected():
    """The collected results of every model of a grid."""
    return whole([f"{{grid}}aggregate/{model}" for model in STUDY.models])


def grid_name(w):
    """One of the study's grids."""
    return w.grid.rstrip("/")


def grid_root(w):
    """Where a grid's own results lie."""
    return f"{ROOT}/{w.grid}".rstrip("/")


def compared_masks(w):
    """The masks that the table of overlaps reads besides what was collected."""
    cells = STUDY.cells(grid=grid_name(w)) if w.table == "overlap" else []
    return whole([f"harden/{cell.path}" for cell in cells])


def prune_sources(w):
    return jobs.prune_sources(STUDY, w.model, w.method, w.sparsity, w.seed)


def prune_arguments(w):
    sources = {name: manifest(folder) for name, folder in prune_sources(w).items()}
    return jobs.prune_arguments(STUDY, w.method, sources)


def hardened_from(w):
    return jobs.hardened_from(STUDY, w.model, w.method, w.sparsity, w.seed)


def method_facts(w):
    return jobs.from_file([jobs.as_json(selection.method_facts(STUDY, grid_name(w)))])


def table_methods(w):
    return jobs.from_file([jobs.as_json(selection.table_methods(STUDY, w.table, grid_name(w)))])
