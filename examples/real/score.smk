# Window losses of every hardened cell that there is, and what the rule says of them:
#   snakemake --cores 2 --snakefile examples/real/score.smk
# With --configfile examples/bridge/config.yaml: the cells of that scale instead.
import sys

sys.path.insert(0, "src")

from leap_repro.portable import LIBRARIES, PORTABLE


configfile: "examples/real/config.yaml"


SCALE = config["scales"][config["scale"]]
ROOT = f"results/{config['scale']}"
HERE = "examples/real"
BITS = SCALE.get("bits", "native")
PINS = LIBRARIES if BITS == PORTABLE else {}
CELLS, _ = glob_wildcards(ROOT + "/harden/{cell}/manifest.{suffix,json}")
ENVIRONMENT = " ".join(f"{name}={value}" for name, value in {"PYTHONPATH": "src", **PINS}.items())


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
    params:
        configfile=workflow.configfiles[0],  # the command line's comes before the one above
    shell:
        "export {ENVIRONMENT}; "
        "python {HERE}/verdict.py --config {params.configfile} --windows {ROOT}/windows --results {ROOT} && "
        "python {HERE}/tables.py {ROOT}/tables && "
        "python {HERE}/figure.py --perplexities {output.perplexities} --output {ROOT}/tables/perplexity"


rule windows:
    input:
        script=HERE + "/windows.py",
        model=lambda w: f"{ROOT}/models/{w.cell.split('/')[0]}/manifest.json",
        cell=ROOT + "/harden/{cell}/manifest.json",
        held_out=lambda w: f"{ROOT}/calibration/{w.cell.split('/')[0]}/held_out/0/manifest.json",
        wikitext=SCALE["data"]["perplexity"]["path"],
        c4="data/real/scoring.parquet",
    output:
        ROOT + "/windows/{cell}.parquet",
    threads: 1
    params:
        **{name: SCALE["evaluation"][f"perplexity_{name}"] for name in ("lengths", "windows")},
        bits=BITS,
        dtype=SCALE["dtype"],
    shell:
        "{ENVIRONMENT} python {input.script} --model $(dirname {input.model}) --cell $(dirname {input.cell})"
        " --held-out $(dirname {input.held_out}) --wikitext {input.wikitext} --c4 {input.c4}"
        " --length {params.lengths} --windows {params.windows}"
        " --dtype {params.dtype} --bits {params.bits} --output {output}"
