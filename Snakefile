# The pipeline, where Snakemake looks first: `snakemake --cores all`. Its rules are in workflow/.
include: "workflow/Snakefile"


workflow.default_target = "all"  # Snakemake does not take over that of an included file
