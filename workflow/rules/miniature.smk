# Not part of the default target: train the bundled models again from their seed, and publish a run's tables and figures.
from leap_repro.miniature.architectures import ARCHITECTURES


rule train_miniature:
    input:
        expand("results/trained/{name}/manifest.json", name=ARCHITECTURES),


rule train_miniature_model:
    output:
        manifest="results/trained/{name}/manifest.json",
        provenance="results/trained/{name}/provenance.json",
        payload=directory("results/trained/{name}/payload"),
        benchmark="results/benchmarks/trained/{name}.tsv",
    log:
        "logs/trained/{name}.log",
    wildcard_constraints:
        name="|".join(map(re.escape, ARCHITECTURES)),
    conda:
        CPU_ENVIRONMENT
    params:
        **tracked("pipeline.stages.miniature"),
    message:
        "Training the miniature {wildcards.name} (about ten minutes){params.stale_reason}"
    shell:
        "python -m leap_repro.pipeline --benchmark {output.benchmark} miniature"
        " --name {wildcards.name} --output $(dirname {output.manifest}) 2> {log}"


rule publish:
    input:
        targets(),
        targets("extended/"),
        targets("evidence/"),
    log:
        f"{LOGS}/publish.log",
    conda:
        CPU_ENVIRONMENT
    params:
        root=lambda w: ROOT,
        scale=STUDY.scale,
    message:
        "Copying tables and figures into figures/ and the pages that show them"
    shell:
        "python tools/publish.py --root {params.root} --target figures/{params.scale}"
        " --pages README.md docs/*.md docs/methods/*.md 2> {log}"
