rule plot_figure:
    input:
        [manifest(f"aggregate/{model}") for model in STUDY.models],
        [payload(f"aggregate/{model}") for model in STUDY.models],
    output:
        figures("{figure}"),
    log:
        f"{LOGS}/figures/{{figure}}.log",
    benchmark:
        f"{ROOT}/benchmarks/figures/{{figure}}.tsv"
    wildcard_constraints:
        figure="density|accuracy",
    conda:
        "../../envs/cpu.yaml"
    params:
        root=lambda w: ROOT,
        models=" ".join(STUDY.models),
        labels=as_json({name: method.label for name, method in STUDY.methods.items()}),
        code=lambda w: code(f"figures.{w.figure}"),
    message:
        "Plotting {wildcards.figure}"
    shell:
        "python -m leap_repro.figures.{wildcards.figure} --root {params.root} --models {params.models}"
        " --labels {params.labels:q} --output {params.root}/figures/{wildcards.figure} 2> {log}"
