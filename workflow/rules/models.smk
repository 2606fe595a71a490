rule fetch_model:
    input:
        lambda w: jobs.model_files(STUDY, w.model),
    output:
        manifest=f"{ROOT}/models/{{model}}/manifest.json",
        provenance=f"{ROOT}/models/{{model}}/provenance.json",
        payload=directory(f"{ROOT}/models/{{model}}/payload"),
        benchmark=f"{ROOT}/benchmarks/models/{{model}}.tsv",
    log:
        f"{LOGS}/models/{{model}}.log",
    priority: priority
    conda:
        CPU_ENVIRONMENT
    resources:
        **requested("models"),
    params:
        **tracked("pipeline.stages.models"),
        spec=lambda w: jobs.as_json(jobs.model_source(STUDY, w.model)),
        locked=lambda w: lock_digest(LOCK, STUDY.models[w.model], "model"),
    message:
        "Fetching model {wildcards.model}{params.stale_reason}"
    shell:
        "python -m leap_repro.pipeline --benchmark {output.benchmark} models"
        " --spec {params.spec:q} --output $(dirname {output.manifest}) 2> {log}"
