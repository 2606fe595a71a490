# Window losses of every hardened cell that there is, and what the rule says of them:
#   snakemake --cores 2 --snakefile examples/real/score.smk
ROOT = "results/real"
HERE = "examples/real"
CELLS, _ = glob_wildcards(ROOT + "/harden/{cell}/manifest.{suffix,json}")
ENVIRONMENT = "PYTHONPATH=src"


wildcard_constraints:
    cell=r"[^/]+/[^/]+/0(\.[0-9]+)?/[0-9]+",


rule verdict:
    input:
        expand(ROOT + "/windows/{cell}.parquet", cell=CELLS),
    output:
        windows=ROOT + "/windows.parquet",
        perplexities=ROOT + "/tables/perplexities.csv",
        verdict=ROOT + "/tables/verdict.csv",
        figure=ROOT + "/tables/perplexity.png",
    shell:
        "export {ENVIRONMENT}; "
        "python {HERE}/verdict.py --config {HERE}/config.yaml --windows {ROOT}/windows --results {ROOT} && "
        "python {HERE}/tables.py {ROOT}/tables && "
        "python {HERE}/figure.py --perplexities {output.perplexities} --output {ROOT}/tables/perplexity"


rule windows:
    input:
        script=HERE + "/windows.py",
        model=lambda w: f"{ROOT}/models/{w.cell.split('/')[0]}/manifest.json",
        cell=ROOT + "/harden/{cell}/manifest.json",
        held_out=lambda w: f"{ROOT}/calibration/{w.cell.split('/')[0]}/held_out/0/manifest.json",
        wikitext="data/real/wikitext2-test.parquet",
        c4="data/real/scoring.parquet",
    output:
        ROOT + "/windows/{cell}.parquet",
    threads: 1
    shell:
        "{ENVIRONMENT} python {input.script} --model $(dirname {input.model}) --cell $(dirname {input.cell})"
        " --held-out $(dirname {input.held_out}) --wikitext {input.wikitext} --c4 {input.c4}"
        " --dtype bfloat16 --output {output}"
