# Deletes files within other jobs' results, which temp() would do too; but a job that wants such a file again stops and
# says so, where temp() would train a mask anew without a word.
rule clean_up:
    input:
        whole(["{grid}aggregate/{model}"]),
    output:
        f"{ROOT}/{{grid}}cleaned/{{model}}.json",
    log:
        f"{LOGS}/{{grid}}cleaned/{{model}}.log",
    wildcard_constraints:
        model="|".join(map(re.escape, STUDY.models)),
    priority: priority
    conda:
        CPU_ENVIRONMENT
    resources:
        **requested("aggregate"),
    params:
        root=lambda w: ROOT,
        cells=lambda w: jobs.from_file(cell.path for cell in STUDY.pruned_cells(w.model, grid_name(w))),
        readers=lambda w: jobs.from_file([jobs.as_json(jobs.logits_read_by(STUDY, w.model))]),
        kinds=" ".join(STUDY.settings.clean_up),
    message:
        "Deleting {params.kinds} of {wildcards.model}"
    shell:
        "python -m leap_repro.report.clean_up --root {params.root} --model {wildcards.model} --cells {params.cells}"
        " --kinds {params.kinds} --readers {params.readers} --output {output} 2> {log}"
