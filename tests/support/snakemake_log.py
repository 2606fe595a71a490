"""A Snakemake log as it is written: two fetches that ended, two prunings that run."""

from datetime import datetime, timedelta

PRUNING = "Pruning mini with leap to 0.5, seed 0"
LOG = """\
Building DAG of jobs...
Job stats:
job            count
-----------  -------
fetch_data         2
prune              4
all                1
total              7

Select jobs to execute...
[{0}]
Job 7: Fetching the tasks data
Reason: Missing output files: results/tiny/data/tasks/manifest.json
[{0}]
Job 8: Fetching the perplexity data
[{1}]
Finished jobid: 7 (Rule: fetch_data)
1 of 7 steps (14%) done
[{2}]
Finished jobid: 8 (Rule: fetch_data)
2 of 7 steps (29%) done
[{2}]
Job 4: {pruning}
[{2}]
Job 5: Pruning mini with wanda to 0.5, seed 0
"""
FAILURE = """\
[{0}]
Error in rule prune:
    message: Pruning mini with wanda to 0.5, seed 0
    jobid: 5
Logfile logs/tiny/prune/mini/wanda/0.5/0.log:
================================================================================
Job 99: a quoted line of another log
================================================================================
"""
BEGAN = datetime.now().replace(microsecond=0) - timedelta(seconds=100)


def stamped(text, *seconds):
    stamps = [(BEGAN + timedelta(seconds=second)).strftime("%a %b %d %H:%M:%S %Y") for second in seconds]
    return text.format(*stamps, pruning=PRUNING)
