# The report's first page.
rule build_front_page:
    input:
        table=f"{ROOT}/{{grid}}tables/main.html",
        figures=lambda w: [
            f"{ROOT}/{w.grid}figures/{name}.png" for name in selection.front_figures(STUDY, grid_name(w))
        ],
    output:
        in_report(f"{ROOT}/{{grid}}front.html", "front", "Tables", "first page"),
    log:
        f"{LOGS}/{{grid}}aggregate/front.log",
    conda:
        CPU_ENVIRONMENT
    resources:
        **requested("aggregate"),
    params:
        **tracked("report.front_page"),
    message:
        "Putting the main table and the forest plot on the report's first page{params.stale_reason}"
    shell:
        "python -m leap_repro.report.front_page --table {input.table} --figures {input.figures} --output {output}"
        " 2> {log}"


rule plot_figure:
    input:
        collected(),
    output:
        figures("{figure}", suffixes=("pdf", "csv", "sha256")),
        in_report(f"{ROOT}/{{grid}}figures/{{figure}}.png", "figure", "Figures", "{figure}"),
    log:
        f"{LOGS}/{{grid}}figures/{{figure}}.log",
    benchmark:
        f"{ROOT}/benchmarks/{{grid}}figures/{{figure}}.tsv"
    wildcard_constraints:
        figure="|".join(selection.FIGURES | selection.FIGURES_OF_EVIDENCE),
    conda:
        CPU_ENVIRONMENT
    resources:
        **requested("figures"),
    params:
        **tracked("report.figures.{w.figure}"),
        record=lambda w: selection.record_digest(w.figure),
        root=grid_root,
        models=" ".join(STUDY.models),
        methods=lambda w: jobs.from_file([jobs.as_json(selection.figure_methods(STUDY, w.figure, grid_name(w)))]),
        published=lambda w: f"--stands-for {shlex.quote(STANDS_FOR)}" if w.figure == "forest" else "",
    message:
        "Plotting {wildcards.figure}{params.stale_reason}"
    shell:
        "python -m leap_repro.report.figures.{wildcards.figure} --root {params.root} --models {params.models}"
        " --methods {params.methods} {params.published} --output {params.root}/figures/{wildcards.figure} 2> {log}"
