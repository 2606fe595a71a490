rule evaluate:
    input:
        model=manifest("models/{model}"),
        cell=manifest(f"harden/{CELL}"),
        tasks=manifest("data/tasks"),
        text=manifest("data/perplexity"),
        payloads=[
            payload("models/{model}"),
            payload(f"harden/{CELL}"),
            payload("data/tasks"),
            payload("data/perplexity"),
        ],
    output:
        manifest=f"{ROOT}/evaluate/{CELL}/manifest.json",
        provenance=f"{ROOT}/evaluate/{CELL}/provenance.json",
        payload=directory(f"{ROOT}/evaluate/{CELL}/payload"),
        benchmark=f"{ROOT}/benchmarks/evaluate/{CELL}.tsv",
    log:
        f"{LOGS}/evaluate/{CELL}.log",
    priority: priority
    conda:
        CPU_ENVIRONMENT
    threads: STUDY.settings.threads
    resources:
        **requested("evaluate"),
    params:
        **tracked("pipeline.stages.evaluate"),
        scoring=jobs.scoring_arguments(STUDY),
        dtype=STUDY.settings.dtype,
        bits=STUDY.settings.kernels,
    message:
        "Evaluating {wildcards.model}, {wildcards.method} at {wildcards.sparsity}, seed {wildcards.seed}{params.stale_reason}"
    shell:
        "python -m leap_repro.pipeline --benchmark {output.benchmark} --gpus {resources.gpu} evaluate"
        " --model {input.model} --cell {input.cell} --tasks {input.tasks} --text {input.text} {params.scoring}"
        " --dtype {params.dtype} --bits {params.bits}"
        " --output $(dirname {output.manifest}) 2> {log}"
