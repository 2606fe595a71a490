"""What the plan expected of every job of a run, beside what was measured of it.

    python benchmarks/plan_vs_measured.py --results results/miniature

reads the benchmark file of each job that has run and writes one row per line of the plan to
`benchmarks/plan_vs_measured.csv`, to which `docs/plan.md` links: jobs, estimated and measured time (by the wall, and of
the CPU), the largest job's memory (estimate, measured), and disk.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from measure import write_rows

from leap_repro.costs.plan import Estimate, jobs_of
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.reading import read_config
from leap_repro.pipeline.run_log import took

TABLE = Path(__file__).with_suffix(".csv")


def measured(job: Estimate, results: Path) -> dict[str, float | None] | None:
    """Seconds, CPU seconds, resident megabytes and bytes on disk of a finished job, each None if nobody measured it;
    None for a job that has not run."""
    row = took(results / "benchmarks" / f"{job.folder}.tsv")
    if row is None or not (results / job.folder / "manifest.json").is_file():
        return None
    disk = sum(path.stat().st_size for path in (results / job.folder).rglob("*") if path.is_file())
    return {"seconds": row.seconds, "cpu_seconds": row.cpu_seconds, "rss_mb": row.peak_mb, "disk_bytes": disk}


def row_of(line: str, jobs: list[tuple[Estimate, dict[str, float | None]]]) -> dict[str, object]:
    """One line of the plan; a field is empty if one of its jobs was not measured."""

    def of_all(name: str, of: Callable[[Iterable[float]], float]) -> int | None:
        numbers = [found[name] for _, found in jobs]
        return None if None in numbers else round(of(numbers))

    return {
        "line": line,
        "jobs": len(jobs),
        "estimated_seconds": round(sum(job.seconds for job, _ in jobs)),
        "seconds": of_all("seconds", sum),
        "cpu_seconds": of_all("cpu_seconds", sum),
        "estimated_mb": round(max(job.host_bytes for job, _ in jobs) / 1e6),
        "largest_rss_mb": of_all("rss_mb", max),
        "estimated_disk_mb": round(sum(job.disk_bytes for job, _ in jobs) / 1e6, 1),
        "disk_mb": round(sum(found["disk_bytes"] for _, found in jobs) / 1e6, 1),
    }


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, nargs="+", default=[])
    parser.add_argument("--results", type=Path, required=True, help="results/<scale> of a run")
    parser.add_argument("--output", type=Path, default=TABLE)
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    study = read_study(config | {"scale": arguments.results.name})
    by_line: dict[str, list[tuple[Estimate, dict[str, float]]]] = {}
    for job in jobs_of(study, arguments.results):
        found = measured(job, arguments.results)
        if found:
            by_line.setdefault(job.line, []).append((job, found))
    rows = [row_of(line, jobs) for line, jobs in by_line.items()]
    write_rows(arguments.output, rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
