rule plot_figure:
    input:
        collected(),
    output:
        figures("{figure}", suffixes=("pdf", "csv")),
        in_report(f"{ROOT}/{{grid}}figures/{{figure}}.png", "figure", "Figures", "{figure}"),
    log:
        f"{LOGS}/{{grid}}figures/{{figure}}.log",
    benchmark:
        f"{ROOT}/benchmarks/{{grid}}figures/{{figure}}.tsv"
    wildcard_constraints:
        figure="|".join(jobs.FIGURES + jobs.FIGURES_OF_EVIDENCE),
    conda:
        CPU_ENVIRONMENT
    resources:
        **requested("figures"),
    params:
        **tracked("figures.{w.figure}"),
        root=grid_root,
        models=" ".join(STUDY.models),
        methods=lambda w: jobs.as_json(jobs.figure_methods(STUDY, w.figure, grid_name(w))),
        published=lambda w: f"--stands-for {shlex.quote(STANDS_FOR)}" if w.figure == "forest" else "",
    message:
        "Plotting {wildcards.figure}{params.why}"
    shell:
        "python -m leap_repro.figures.{wildcards.figure} --root {params.root} --models {params.models}"
        " --methods {params.methods:q} {params.published} --output {params.root}/figures/{wildcards.figure} 2> {log}"
