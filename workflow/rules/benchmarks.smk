# How fast the one-shot methods are on this machine. Not part of any target but its own: it runs whenever it is asked for.
rule benchmark_methods:
    log:
        f"{LOGS}/benchmark_methods.log",
    conda:
        CPU_ENVIRONMENT
    params:
        script=f"{CHECKOUT}/benchmarks/one_shot.py",
        methods=jobs.as_json(jobs.one_shot_methods(STUDY)),
    message:
        "Timing every one-shot method on layers of up to 1024 x 4096"
    shell:
        "python {params.script:q} --methods {params.methods:q} --output benchmarks/one_shot.csv > {log} 2>&1"
