"""A run's results written by hand: a model, its data, and one pruned cell with the dense one beside it, evaluated."""

import pyarrow as pa
import pyarrow.parquet as pq

from leap_repro.models.identity import WEIGHTS, weights_sha256
from leap_repro.store.artifacts import Artifact, writing

MODEL, CELL, DENSE = "m", "m/wanda/0.5/0", "m/dense/0/0"
ROWS = [
    {"task": "average", "metric": "acc", "value": 61.5, "stderr": 0.5, "n": 9, "protocol": "mean"},
    {"task": "perplexity", "metric": "perplexity@8", "value": 7.25, "stderr": 0.1, "n": 4, "protocol": "p"},
]


def put_model(root, weights=b"weights", **more):
    """A model of one weight file."""
    with writing(root / "models" / MODEL, {}) as (payload, facts):
        (payload / "model.safetensors").write_bytes(weights)
        facts |= {"parameters": 100, "revision": "r"} | more
    return Artifact.read(root / "models" / MODEL)


def put_data(root, role, text="text"):
    with writing(root / "data" / role, {}) as (payload, _):
        (payload / "text.parquet").write_text(text)


def put_cell(root, cell, kept=50):
    """A hardened cell of the model that lies there, and the pruning that it came from."""
    model = Artifact.read(root / "models" / MODEL)
    made = {"parameters": {"dtype": "float32", "bits": "portable"}, "machine": {"cpu": "a CPU"}}
    with writing(root / "prune" / cell, made | {"inputs": {"model": model.manifest_sha256}}) as (_, facts):
        facts |= {"sparsity": cell.split("/")[2]}
    inputs = {"pruned": Artifact.read(root / "prune" / cell).manifest_sha256}
    with writing(root / "harden" / cell, {"inputs": inputs}) as (_, facts):
        facts |= {"cell": cell, "kept": kept, "prunable": 80, WEIGHTS: weights_sha256(model)}
    return Artifact.read(root / "harden" / cell)


def evaluate(root, cell):
    """Its evaluation, of what lies there now."""
    names = {"model": f"models/{MODEL}", "cell": f"harden/{cell}", "tasks": "data/tasks", "text": "data/perplexity"}
    inputs = {name: Artifact.read(root / folder).manifest_sha256 for name, folder in names.items()}
    with writing(root / "evaluate" / cell, {"inputs": inputs, "parameters": {}}) as (payload, _):
        pq.write_table(pa.Table.from_pylist(ROWS), payload / "metrics.parquet")


def put_run(root):
    """All of it."""
    put_model(root)
    put_data(root, "tasks")
    put_data(root, "perplexity")
    for cell in (CELL, DENSE):
        put_cell(root, cell)
        evaluate(root, cell)
