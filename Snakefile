# The pipeline, where Snakemake looks first: `snakemake --cores all`. Its rules are in workflow/.
include: "workflow/Snakefile"


rule reproduce:
    default_target: True
    localrule: True
    input:
        rules.all.input,
