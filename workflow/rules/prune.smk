rule prune:
    input:
        lambda w: whole(prune_sources(w).values()),
        lambda w: jobs.masks_files(STUDY, w.method),
        model=manifest("models/{model}"),
        payload=payload("models/{model}"),
    output:
        manifest=f"{ROOT}/prune/{CELL}/manifest.json",
        provenance=f"{ROOT}/prune/{CELL}/provenance.json",
        payload=directory(f"{ROOT}/prune/{CELL}/payload"),
        benchmark=f"{ROOT}/benchmarks/prune/{CELL}.tsv",
    log:
        f"{LOGS}/prune/{CELL}.log",
    priority: priority
    conda:
        CPU_ENVIRONMENT
    threads: lambda w: cores(STUDY, w.method, not LOCAL)
    resources:
        **requested("prune"),
    params:
        **tracked(lambda w: prune_modules(STUDY.methods[w.method]), lambda w: STUDY.line(w.method, w.model).given),
        sources=prune_arguments,
        module=lambda w: STUDY.methods[w.method].module,
        options=lambda w: jobs.as_json(STUDY.line(w.method, w.model).given),
        dtype=STUDY.settings.dtype,
        bits=STUDY.settings.kernels,
    message:
        "Pruning {wildcards.model} with {wildcards.method} to {wildcards.sparsity}, seed {wildcards.seed}{params.stale_reason}"
    shell:
        "python -m leap_repro.pipeline --benchmark {output.benchmark}"
        " --gpus {resources.gpu} --processes {resources.processes} --nodes {resources.nodes} prune"
        " --model {input.model} {params.sources} --module {params.module:q}"
        " --options {params.options:q} --sparsity {wildcards.sparsity} --seed {wildcards.seed} --dtype {params.dtype}"
        " --bits {params.bits}"
        " --scratch results/.scratch --output $(dirname {output.manifest}) 2> {log}"
