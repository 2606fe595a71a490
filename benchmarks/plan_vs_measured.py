"""What the plan expected of every job of a run, beside what Snakemake measured of it.

    python benchmarks/plan_vs_measured.py --config config.yaml --results results/miniature

reads the benchmark file of each job that has run and writes one row per line of the plan to
`benchmarks/plan_vs_measured.csv`, which `docs/plan.md` shows: jobs, estimated and measured time (by the wall, and of
the CPU), the largest job's memory (estimate, measured), and disk.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import yaml
from measure import show, write_rows

from leap_repro.costs.plan import Estimate, jobs_of
from leap_repro.pipeline.grid import read_study

TABLE = Path(__file__).with_suffix(".csv")


def measured(job: Estimate, results: Path) -> dict[str, float] | None:
    """Seconds, CPU seconds, resident megabytes and bytes on disk of a finished job; None for one that has not run."""
    file = results / "benchmarks" / f"{job.folder}.tsv"
    if not file.is_file() or not (results / job.folder / "manifest.json").is_file():
        return None
    with file.open(encoding="utf-8") as lines:
        row = next(csv.DictReader(lines, delimiter="\t"))
    columns = {"seconds": "s", "cpu_seconds": "cpu_time", "rss_mb": "max_rss"}
    found = {name: _number(row[column]) for name, column in columns.items()}
    disk = sum(path.stat().st_size for path in (results / job.folder).rglob("*") if path.is_file())
    return found | {"disk_bytes": disk}


def _number(text: str) -> float:
    """A job that is over within a second may not have been measured: "NA" or "-"."""
    return float(text) if text not in ("NA", "-") else 0.0


def row_of(line: str, jobs: list[tuple[Estimate, dict[str, float]]]) -> dict[str, object]:
    """One line of the plan."""
    return {
        "line": line,
        "jobs": len(jobs),
        "estimated_seconds": round(sum(job.seconds for job, _ in jobs)),
        "seconds": round(sum(found["seconds"] for _, found in jobs)),
        "cpu_seconds": round(sum(found["cpu_seconds"] for _, found in jobs)),
        "estimated_mb": round(max(job.host_bytes for job, _ in jobs) / 1e6),
        "largest_rss_mb": round(max(found["rss_mb"] for _, found in jobs)),
        "estimated_disk_mb": round(sum(job.disk_bytes for job, _ in jobs) / 1e6, 1),
        "disk_mb": round(sum(found["disk_bytes"] for _, found in jobs) / 1e6, 1),
    }


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("config.yaml"))
    parser.add_argument("--results", type=Path, required=True, help="results/<scale> of a run")
    parser.add_argument("--output", type=Path, default=TABLE)
    arguments = parser.parse_args()
    config = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    study = read_study(config | {"scale": arguments.results.name})
    by_line: dict[str, list[tuple[Estimate, dict[str, float]]]] = {}
    for job in jobs_of(study, arguments.results):
        found = measured(job, arguments.results)
        if found:
            by_line.setdefault(job.line, []).append((job, found))
    rows = [row_of(line, jobs) for line, jobs in by_line.items()]
    write_rows(arguments.output, rows)
    show("docs/plan.md")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
