rule harden:
    input:
        pruned=lambda w: manifest(hardened_from(w)),
        payload=lambda w: payload(hardened_from(w)),
    output:
        manifest=f"{ROOT}/harden/{CELL}/manifest.json",
        provenance=f"{ROOT}/harden/{CELL}/provenance.json",
        payload=directory(f"{ROOT}/harden/{CELL}/payload"),
        benchmark=f"{ROOT}/benchmarks/harden/{CELL}.tsv",
    log:
        f"{LOGS}/harden/{CELL}.log",
    priority: priority
    conda:
        CPU_ENVIRONMENT
    resources:
        **requested("harden"),
    params:
        **tracked("pipeline.stages.harden"),
        rule=lambda w: STUDY.methods[w.method].hardening,
    message:
        "Hardening {wildcards.model}, {wildcards.method} at {wildcards.sparsity}, seed {wildcards.seed}{params.stale_reason}"
    shell:
        "python -m leap_repro.pipeline --benchmark {output.benchmark} harden"
        " --pruned {input.pruned} --rule {params.rule}"
        " --cell {wildcards.model}/{wildcards.method}/{wildcards.sparsity}/{wildcards.seed}"
        " --output $(dirname {output.manifest}) 2> {log}"
