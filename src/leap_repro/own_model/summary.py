"""What was done, for the end of the command: weights, sizes, metrics, seconds, places."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from leap_repro.export.lineage import lineage_of
from leap_repro.pipeline.grid import Cell
from leap_repro.pipeline.run_log import took
from leap_repro.store.artifacts import Artifact

SHOWN = ("perplexity", "average")


def summary(
    root: Path, cell: Cell, export: Path, run: Path, overlay: Path, seconds: float, values: str | None = None
) -> str:
    """A line for each thing worth knowing; `root` holds the results, `export` the new checkpoint, whose kept values
    may be quantised to `values`."""
    model, hardened = Artifact.read(root / "models" / cell.model), Artifact.read(root / "harden" / cell.path)
    lines = [
        ("weights kept", _weights(model, hardened)),
        ("weight files", _sizes(model, export)),
        ("computed in", _arithmetic(root, cell)),
        *_metrics(model, hardened),
        *([("values", f"rounded to {values} in the export, and exact in the scores above")] if values else []),
        ("seconds", f"{seconds:.0f}{_by_stage(root / 'benchmarks', cell)}"),
        ("export", str(export)),
        ("run", f"{run} (its grid: {overlay.name}; what is done there is not done again)"),
    ]
    head = f"{cell.model}, pruned by {cell.method} to {100 * float(cell.sparsity):g} %"
    return "\n".join([head, *(f"  {name:<15} {text}" for name, text in lines)])


def _weights(model: Artifact, hardened: Artifact) -> str:
    kept, prunable, parameters = hardened.facts["kept"], hardened.facts["prunable"], model.facts["parameters"]
    of_all = parameters - prunable + kept
    return (
        f"{kept:,} of {prunable:,} prunable ({100 * kept / prunable:.2f} %), "
        f"{of_all:,} of all {parameters:,} ({100 * of_all / parameters:.2f} %)"
    )


def _sizes(model: Artifact, export: Path) -> str:
    before = sum(entry["bytes"] for name, entry in model.files.items() if name.endswith(".safetensors"))
    after = sum(path.stat().st_size for path in export.glob("*.safetensors"))
    return f"{after:,} bytes, {after / before:.4f} of the base's {before:,}"


def _arithmetic(root: Path, cell: Cell) -> str:
    origin = Artifact.read(root / "prune" / cell.path).provenance()
    parameters, machine = origin["parameters"], origin["machine"]
    return f"{parameters['dtype']}, {parameters['bits']} bits, on {machine.get('gpu', machine['cpu'])}"


def _metrics(model: Artifact, hardened: Artifact) -> Iterator[tuple[str, str]]:
    """Perplexities and the average accuracy, before and after; nothing where nothing was evaluated, or where what lies
    there is the evaluation of another model, mask or text."""
    import pyarrow.parquet as pq

    lineage = lineage_of(model, hardened)
    if lineage.evaluated is None or lineage.dense is None:
        return
    files = [evaluated.file("metrics.parquet") for evaluated in (lineage.dense, lineage.evaluated)]
    before, after = (pq.read_table(file).to_pylist() for file in files)
    for old, new in zip(before, after, strict=True):
        if new["task"] in SHOWN:
            name = new["metric"] if new["task"] == "perplexity" else "accuracy (%)"
            yield name, f"{old['value']:.4g} before, {new['value']:.4g} after ± {new['stderr']:.2g} ({new['protocol']})"


def _by_stage(benchmarks: Path, cell: Cell) -> str:
    """What the stages took when they ran, be it now or before."""
    seconds: dict[str, float] = defaultdict(float)
    for path in benchmarks.rglob("*.tsv"):
        stage, *place = path.relative_to(benchmarks).with_suffix("").parts
        ours = "/".join(place) in (cell.path, f"{cell.model}/dense/0/{cell.seed}")
        counts = stage == "data" or ours or (place[:1] == [cell.model] and stage in ("models", "calibration"))
        if counts and (row := took(path)):
            seconds[stage] += row.seconds
    words = ", ".join(f"{stage} {taken:.0f}" for stage, taken in sorted(seconds.items(), key=lambda item: -item[1]))
    return f" (jobs, each when it ran: {words})" if words else ""
