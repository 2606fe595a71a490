# The workflow with its pinned packages, on the CPU:
#   docker build --tag leap-repro .
#   docker run --rm --volume "$PWD/results:/leap-repro/results" leap-repro
FROM python:3.11-slim-bookworm

# A compiler for the kernels of packed models, git for the commit in provenance.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc git libc6-dev libgomp1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /leap-repro
COPY envs/requirements.txt envs/
RUN pip install --no-cache-dir --requirement envs/requirements.txt
COPY . .
RUN pip install --no-cache-dir --no-deps --editable .

CMD ["snakemake", "--cores", "all"]
