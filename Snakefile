# Reproduces the tables and figures of the chosen scale: `snakemake --cores all`. Every job is one `python -m leap_repro.<stage>`.
from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/config.smk"


report: "workflow/report/workflow.rst"


include: "workflow/rules/study.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/calibration.smk"
include: "workflow/rules/prune.smk"
include: "workflow/rules/harden.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/clean_up.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/miniature.smk"
include: "workflow/rules/benchmarks.smk"


localrules:
    all,
    extended,
    evidence,
    train_miniature,


rule all:
    default_target: True
    input:
        targets(),
        cleaned(),


rule extended:
    input:
        targets(),
        targets("extended/"),
        cleaned("extended/"),


rule evidence:
    input:
        targets(),
        targets("evidence/"),
        cleaned("evidence/"),
