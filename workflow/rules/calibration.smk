rule build_tokens:
    input:
        model=manifest("models/{model}"),
        text=lambda w: manifest(jobs.shard_text(w.role)),
        payloads=lambda w: [payload(f"models/{w.model}"), payload(jobs.shard_text(w.role))],
    output:
        manifest=f"{ROOT}/calibration/{{model}}/{{role}}/{{seed}}/manifest.json",
        provenance=f"{ROOT}/calibration/{{model}}/{{role}}/{{seed}}/provenance.json",
        payload=directory(f"{ROOT}/calibration/{{model}}/{{role}}/{{seed}}/payload"),
        benchmark=f"{ROOT}/benchmarks/calibration/{{model}}/{{role}}/{{seed}}.tsv",
    log:
        f"{LOGS}/calibration/{{model}}/{{role}}/{{seed}}.log",
    priority: priority
    conda:
        CPU_ENVIRONMENT
    resources:
        **requested("calibration"),
    params:
        **tracked("pipeline.stages.calibration"),
        shard=lambda w: jobs.shard_arguments(STUDY, w.role),
    message:
        "Cutting {wildcards.role} tokens for {wildcards.model}, seed {wildcards.seed}{params.stale_reason}"
    shell:
        "python -m leap_repro.pipeline --benchmark {output.benchmark} calibration"
        " --model {input.model} --text {input.text} {params.shard}"
        " --seed {wildcards.seed} --scratch results/.scratch --output $(dirname {output.manifest}) 2> {log}"
