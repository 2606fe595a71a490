# Per model first and then together, so that one model's table needs that model only and no command line grows with
# the whole grid.
rule collect_model:
    input:
        lambda w: evaluated(manifest, w.model),
        lambda w: evaluated(payload, w.model),
        lambda w: [manifest(f"calibration/{w.model}/calibration/{seed}") for seed in STUDY.settings["seeds"]],
        model=manifest("models/{model}"),
    output:
        manifest=f"{ROOT}/aggregate/{{model}}/manifest.json",
        provenance=f"{ROOT}/aggregate/{{model}}/provenance.json",
        payload=directory(f"{ROOT}/aggregate/{{model}}/payload"),
    log:
        f"{LOGS}/aggregate/{{model}}.log",
    benchmark:
        f"{ROOT}/benchmarks/aggregate/{{model}}.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        root=lambda w: ROOT,
        cells=lambda w: " ".join(cell.path for cell in STUDY.cells(w.model)),
        code=code("aggregate.collect"),
    message:
        "Collecting the results of {wildcards.model}"
    shell:
        "python -m leap_repro.aggregate.collect --root {params.root} --model {wildcards.model} --cells {params.cells}"
        " --output $(dirname {output.manifest}) 2> {log}"


rule join_results:
    input:
        [manifest(f"aggregate/{model}") for model in STUDY.models],
        [payload(f"aggregate/{model}") for model in STUDY.models],
    output:
        f"{ROOT}/results.parquet",
    log:
        f"{LOGS}/aggregate/join.log",
    conda:
        "../../envs/cpu.yaml"
    params:
        root=lambda w: ROOT,
        models=" ".join(STUDY.models),
        code=code("aggregate.join"),
    message:
        "Joining all results"
    shell:
        "python -m leap_repro.aggregate.join --root {params.root} --models {params.models} --output {output} 2> {log}"


rule build_model_table:
    input:
        manifest("aggregate/{model}"),
        payload("aggregate/{model}"),
    output:
        tables("{model}"),
    log:
        f"{LOGS}/aggregate/table-{{model}}.log",
    wildcard_constraints:
        model="|".join(map(re.escape, STUDY.models)),
    conda:
        "../../envs/cpu.yaml"
    params:
        root=lambda w: ROOT,
        labels=as_json({name: method.label for name, method in STUDY.methods.items()}),
        code=code("aggregate.tables"),
    message:
        "Building the table of {wildcards.model}"
    shell:
        "python -m leap_repro.aggregate.tables --root {params.root} --models {wildcards.model} --labels {params.labels:q}"
        " --output {params.root}/tables/{wildcards.model} 2> {log}"


rule build_main_table:
    input:
        [manifest(f"aggregate/{model}") for model in STUDY.models],
        [payload(f"aggregate/{model}") for model in STUDY.models],
    output:
        tables("main"),
    log:
        f"{LOGS}/aggregate/table-main.log",
    conda:
        "../../envs/cpu.yaml"
    params:
        root=lambda w: ROOT,
        models=" ".join(STUDY.models),
        labels=as_json({name: method.label for name, method in STUDY.methods.items()}),
        code=code("aggregate.tables"),
    message:
        "Building the main table"
    shell:
        "python -m leap_repro.aggregate.tables --root {params.root} --models {params.models} --main --labels {params.labels:q}"
        " --output {params.root}/tables/main 2> {log}"


rule build_time_table:
    input:
        cell_benchmarks(),
    output:
        tables("time"),
    log:
        f"{LOGS}/aggregate/table-time.log",
    conda:
        "../../envs/cpu.yaml"
    params:
        root=lambda w: ROOT,
        code=code("aggregate.times"),
    message:
        "Summing up where the time went"
    shell:
        "python -m leap_repro.aggregate.times --root {params.root} --output {params.root}/tables/time 2> {log}"
