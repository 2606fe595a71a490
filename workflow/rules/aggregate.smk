# Per model first and then together, so that one model's table needs that model only. What grows with the grid is written
# into files, whose names are the arguments (jobs.from_file).
rule collect_model:
    input:
        lambda w: whole(jobs.scored_folders(STUDY, w.model, grid_name(w))),
        lambda w: [manifest(folder) for folder in traced_folders(STUDY, w.model, grid_name(w))],
    output:
        manifest=f"{ROOT}/{{grid}}aggregate/{{model}}/manifest.json",
        provenance=f"{ROOT}/{{grid}}aggregate/{{model}}/provenance.json",
        payload=directory(f"{ROOT}/{{grid}}aggregate/{{model}}/payload"),
    log:
        f"{LOGS}/{{grid}}aggregate/{{model}}.log",
    benchmark:
        f"{ROOT}/benchmarks/{{grid}}aggregate/{{model}}.tsv"
    priority: priority
    conda:
        CPU_ENVIRONMENT
    resources:
        **requested("aggregate"),
    params:
        **tracked("report.collect"),
        root=lambda w: ROOT,
        cells=lambda w: jobs.from_file(cell.path for cell in STUDY.cells(w.model, grid=grid_name(w))),
        asked=lambda w: jobs.from_file([jobs.as_json(asked_of(STUDY, w.model, grid_name(w)))]),
    message:
        "Collecting the results of {wildcards.model}{params.stale_reason}"
    shell:
        "python -m leap_repro.report.collect --root {params.root} --model {wildcards.model} --cells {params.cells}"
        " --asked {params.asked} --output $(dirname {output.manifest}) 2> {log}"


rule join_results:
    input:
        collected(),
    output:
        results=f"{ROOT}/{{grid}}results.parquet",
        digest=f"{ROOT}/{{grid}}results.sha256",
        answers=f"{ROOT}/{{grid}}answers.parquet",
        answers_digest=f"{ROOT}/{{grid}}answers.sha256",
    log:
        f"{LOGS}/{{grid}}aggregate/join.log",
    conda:
        CPU_ENVIRONMENT
    resources:
        **requested("aggregate"),
    params:
        **tracked("report.join"),
        root=grid_root,
        models=" ".join(STUDY.models),
    message:
        "Joining all results{params.stale_reason}"
    shell:
        "python -m leap_repro.report.join --root {params.root} --models {params.models} --output {output.results}"
        " --answers {output.answers} 2> {log}"


rule build_model_table:
    input:
        whole(["{grid}aggregate/{model}"]),
    output:
        tables("{model}"),
        table_page("{model}", "model_table"),
    log:
        f"{LOGS}/{{grid}}aggregate/table-{{model}}.log",
    wildcard_constraints:
        model="|".join(map(re.escape, STUDY.models)),
    priority: priority
    conda:
        CPU_ENVIRONMENT
    resources:
        **requested("aggregate"),
    params:
        **tracked("report.tables"),
        root=grid_root,
        methods=method_facts,
    message:
        "Building the table of {wildcards.model}{params.stale_reason}"
    shell:
        "python -m leap_repro.report.tables model --root {params.root} --models {wildcards.model}"
        " --methods {params.methods} --output {params.root}/tables/{wildcards.model} 2> {log}"


rule build_study_table:
    input:
        collected(),
    output:
        tables("{table}"),
        table_page("{table}", "study_table"),
    log:
        f"{LOGS}/{{grid}}aggregate/table-{{table}}.log",
    wildcard_constraints:
        table="main|variants|published",
    conda:
        CPU_ENVIRONMENT
    resources:
        **requested("aggregate"),
    params:
        **tracked("report.tables"),
        record=lambda w: selection.record_digest(w.table),
        root=grid_root,
        models=" ".join(STUDY.models),
        methods=table_methods,
        stands_for=STANDS_FOR,
        sparsities=selection.main_sparsities(STUDY),
    message:
        "Building the table {wildcards.table}{params.stale_reason}"
    shell:
        "python -m leap_repro.report.tables {wildcards.table} --root {params.root} --models {params.models}"
        " --methods {params.methods} --stands-for {params.stands_for:q} --sparsities {params.sparsities}"
        " --output {params.root}/tables/{wildcards.table} 2> {log}"


# What the seeds, crossings and held-out evaluations of the grid `evidence` show.
rule build_evidence_table:
    input:
        collected(),
        lambda w: compared_masks(w),
        lambda w: f"{grid_root(w)}/tables/time.csv" if w.table == "claims" else [],
    output:
        tables("{table}"),
        table_page("{table}", "study_table"),
    log:
        f"{LOGS}/{{grid}}aggregate/table-{{table}}.log",
    wildcard_constraints:
        grid="evidence/",
        table="|".join(selection.TABLES_OF_EVIDENCE),
    conda:
        CPU_ENVIRONMENT
    resources:
        **requested("aggregate"),
    params:
        **tracked(lambda w: (f"leap_repro.report.{selection.TABLES_OF_EVIDENCE[w.table]}",)),
        record=lambda w: selection.record_digest(w.table),
        module=lambda w: selection.TABLES_OF_EVIDENCE[w.table],
        root=grid_root,
        models=" ".join(STUDY.models),
        methods=table_methods,
        stands_for=STANDS_FOR,
        further=lambda w: selection.table_arguments(STUDY, w.table),
    message:
        "Building the table {wildcards.table}{params.stale_reason}"
    shell:
        "python -m leap_repro.report.{params.module} --root {params.root} --models {params.models}"
        " --methods {params.methods} --stands-for {params.stands_for:q}"
        " --output {params.root}/tables/{wildcards.table} {params.further} 2> {log}"


rule build_time_table:
    input:
        lambda w: [f"{ROOT}/benchmarks/{name}.tsv" for name in jobs.benchmark_names(STUDY, grid_name(w))],
    output:
        tables("time"),
        table_page("time", "time_table"),
    log:
        f"{LOGS}/{{grid}}aggregate/table-time.log",
    conda:
        CPU_ENVIRONMENT
    resources:
        **requested("aggregate"),
    params:
        **tracked("report.times"),
        benchmarks=lambda w: f"{ROOT}/benchmarks",
        root=grid_root,
        cells=lambda w: jobs.from_file(cell.path for cell in STUDY.cells(grid=grid_name(w))),
        pruned=lambda w: jobs.from_file(cell.path for cell in STUDY.pruned_cells(grid=grid_name(w))),
        shards=lambda w: jobs.from_file(jobs.token_shards(STUDY, grid_name(w))),
    message:
        "Summing up where the time went{params.stale_reason}"
    shell:
        "python -m leap_repro.report.times --benchmarks {params.benchmarks} --cells {params.cells}"
        " --pruned {params.pruned} --shards {params.shards} --output {params.root}/tables/time 2> {log}"
