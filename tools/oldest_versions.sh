#!/usr/bin/env bash
# Does what a GPU runs work with the versions of envs/oldest.txt too? Layer-wise and learned methods are tested in an
# environment of its own, which is made in FOLDER (some 6 GB, most of it CUDA's libraries) unless it is there:
#   tools/oldest_versions.sh FOLDER [what pytest is given; default: tests/unit/prune]
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?"usage: tools/oldest_versions.sh FOLDER [arguments of pytest]"}
shift
names=$(grep -o '^[^#=]*' envs/oldest.txt | paste -sd '|')
[ -x "$folder/bin/python" ] || python3 -m venv "$folder"
"$folder/bin/pip" install --quiet -r <(grep -viE "^($names)==" envs/requirements.txt) -r envs/oldest.txt
"$folder/bin/python" -c 'import torch, transformers, triton; print(torch.__version__, transformers.__version__, triton.__version__)'
PYTHONPATH=src "$folder/bin/python" -m pytest "${@:-tests/unit/prune}"
