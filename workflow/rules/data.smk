rule fetch_data:
    input:
        lambda w: jobs.data_files(STUDY, w.role),
    output:
        manifest=f"{ROOT}/data/{{role}}/manifest.json",
        provenance=f"{ROOT}/data/{{role}}/provenance.json",
        payload=directory(f"{ROOT}/data/{{role}}/payload"),
        benchmark=f"{ROOT}/benchmarks/data/{{role}}.tsv",
    log:
        f"{LOGS}/data/{{role}}.log",
    priority: priority
    conda:
        CPU_ENVIRONMENT
    resources:
        **requested("data"),
    params:
        **tracked("pipeline.stages.data"),
        spec=lambda w: jobs.as_json(STUDY.data[w.role]),
        kind=lambda w: parts_of(w.role)[0],
        locked=lambda w: lock_digest(LOCK, STUDY.data[w.role], "dataset"),
    message:
        "Fetching the {wildcards.role} data{params.stale_reason}"
    shell:
        "python -m leap_repro.pipeline --benchmark {output.benchmark} data"
        " --role {params.kind} --spec {params.spec:q} --output $(dirname {output.manifest}) 2> {log}"
