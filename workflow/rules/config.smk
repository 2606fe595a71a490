# The configuration: the project's own files, in the order of `project_files`; over them Snakemake lays the user's
# --configfile and --config. Before it reads them: of a file that is not YAML it would say that there is a mistake, not
# where.
import os
import sys
from pathlib import Path

# The Snakefile that was called is the one at the top, or that of workflow/.
CHECKOUT = Path(workflow.basedir)
CHECKOUT = CHECKOUT if (CHECKOUT / "workflow/Snakefile").is_file() else CHECKOUT.parent

# This checkout's package, whatever else is installed: here, and (by PYTHONPATH) where the jobs run, which is this
# folder. PYTHONPATH parts its entries at colons, so that the path of a clone had better be relative.
SOURCE = os.path.relpath(CHECKOUT / "src")
sys.path.insert(0, str(CHECKOUT / "src"))
# Jobs inherit it: a bar in a log says how far its job is (leap_repro.progress), every two seconds is enough.
os.environ.setdefault("TQDM_MININTERVAL", "2")
# Of a cluster job's logs Snakemake shows none after an empty one, so a job that fails there also ends with its log's end.
LOG_END = """[ -z "${SLURM_JOB_ID:-}" ] || trap 'tail -n 20 "${BASH_EXECUTION_STRING##*2> }" >&2' ERR"""

from leap_repro.errors import UserError
from leap_repro.pipeline.inputs import check_yaml
from leap_repro.pipeline.reading import project_files, some_files
from leap_repro.pipeline.snakemake_internals import configuration_files
from leap_repro.portable import LIBRARIES
from snakemake.exceptions import WorkflowError

# Tables and figures compute with NumPy as soon as they are imported, so they are pinned here; a stage pins itself.
PINS = " ".join(f"{name}={value}" for name, value in LIBRARIES.items())
# Snakemake's own strict mode goes when a prefix comes. A folder's name may hold any mark of the shell or of Snakemake.
shell.prefix("set -euo pipefail; export PYTHONPATH={SOURCE:q} {PINS}; {LOG_END}; ")

if os.pathsep in SOURCE:
    raise WorkflowError(f"{CHECKOUT} has {os.pathsep!r} in its name, which PYTHONPATH cannot hold: run in it")
try:
    for file in some_files([*project_files(), *map(Path, configuration_files(workflow))]):
        check_yaml(file)
except UserError as error:
    raise WorkflowError(str(error)) from error

for file in project_files():

    configfile: str(file)
