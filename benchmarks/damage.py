"""What flipped bits and kills come to on a tiny grid: `python benchmarks/damage.py FOLDER [--flips 8] [--kills 4]`.

Runs the grid of tests/config/learned.yaml in a scratch checkout below the new FOLDER; then flips one bit of a file at a
time and runs the job that reads it; then kills jobs, and Snakemake with all that it started, and runs on. Counted is
what was refused in a sentence; what was harmless: the same results; what silently gave others; and what ended in
another way. Writes benchmarks/damage.csv and .md, and docs/trust.md's table of them.
"""

from __future__ import annotations

import os

from leap_repro.portable import pin

pin()  # before torch is loaded, as a run's server does; and a thread would not be forked
os.environ |= {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}

import argparse
import random
import re
import runpy
import shlex
import shutil
import sys
import traceback
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from measure import REPOSITORY, show, write_rows

sys.path.append(str(REPOSITORY / "tests/workflow"))
import kills
from scratch import snakemake

from leap_repro.pipeline.launch.server import NEEDED
from leap_repro.pipeline.stages import STAGES
from leap_repro.store.artifacts import MANIFEST, PROVENANCE
from leap_repro.store.hashes import sha256_of

ROOT = "results/tiny"
ONE_SHOT, TRAINED, MOVED = "mini/wanda/0.5/0", "mini/leap/0.5/0", "mini/recover/0.5/0"
MODEL, TOKENS, COLLECTED = "models/mini", "calibration/mini/calibration/0", "aggregate/mini"
EXPORT = "exported"
REFUSED, HARMLESS, OTHER, BROKEN = "refused", "harmless", "silently other", "ended otherwise"
OUTCOMES = (REFUSED, HARMLESS, OTHER, BROKEN)
PAYLOAD = "payload/**/*"


@dataclass(frozen=True)
class Reader:
    """Which files of a run are damaged (`pattern` below `folder`), and the result whose job reads them."""

    what: str
    folder: str
    pattern: str
    result: str


def readers() -> list[Reader]:
    """Every kind of file with the job that reads it next; provenances with the one that collects them."""
    results = [
        ("model", MODEL, TOKENS),
        ("model", MODEL, f"prune/{ONE_SHOT}"),
        ("model", MODEL, f"evaluate/{MOVED}"),
        ("calibration text", "data/calibration", TOKENS),
        ("tokens", TOKENS, f"prune/{ONE_SHOT}"),
        ("masks as pruned", f"prune/{ONE_SHOT}", f"harden/{ONE_SHOT}"),
        ("logits", f"prune/{TRAINED}", f"harden/{TRAINED}"),
        ("hardened cell", f"harden/{MOVED}", f"evaluate/{MOVED}"),
        ("task sets", "data/tasks", f"evaluate/{MOVED}"),
        ("perplexity text", "data/perplexity", f"evaluate/{MOVED}"),
        ("evaluation", f"evaluate/{TRAINED}", COLLECTED),
        ("collected tables", COLLECTED, "tables/main"),
        ("collected tables", COLLECTED, "results.parquet"),
    ]
    found = [Reader(what, folder, part, job) for what, folder, job in results for part in (PAYLOAD, MANIFEST)]
    traced = (MODEL, TOKENS, f"prune/{TRAINED}", f"harden/{TRAINED}", f"evaluate/{TRAINED}")
    found += [Reader("each stage", folder, PROVENANCE, COLLECTED) for folder in traced]
    found += [Reader("packed export", EXPORT, name, "unpack") for name in ("sparse.json", "sparse-*.safetensors")]
    found += [Reader("finished run", ".", name, "publish") for name in ("results.parquet", "tables/*.md")]
    return found


def printed_commands(run: Path) -> dict[str, list[str]]:
    """{result: [module, argument, ...]} of every job, as a dry run prints them."""
    found = {}
    for line in snakemake(run, "-n", "-p", "--forceall").splitlines():
        shell = line.partition("Shell command: python -m ")[2].partition(" 2> ")[0]
        words = shlex.split(re.sub(r"\$\(dirname (\S+)/manifest\.json\)", r"\1", shell))
        if "--output" in words:
            stage = next((index for index, word in enumerate(words) if word in STAGES), 1)
            output = words[words.index("--output") + 1]
            found[output.removeprefix(f"{ROOT}/")] = [words[0], *words[stage:]]
    return found


def commands(run: Path) -> dict[str, list[str]]:
    """The same, with what no rule runs: unpacking an export, publishing the run."""
    published = [str(REPOSITORY / "tools/publish.py"), "--root", ROOT, "--pages", str(run / "page.md")]
    return printed_commands(run) | {
        "unpack": ["leap_repro.export.unpack", f"{ROOT}/{EXPORT}"],
        "publish": published,
    }


def with_output(command: list[str], output: Path) -> list[str]:
    """The command with another folder, or file, to write."""
    option = "--target" if command[0].endswith("publish.py") else "--output"
    kept = command[: command.index(option)] + command[command.index(option) + 2 :] if option in command else command
    return [*kept, option, str(output)]


def run_forked(run: Path, command: list[str], log: Path) -> int:
    """Run a command in a forked process, as a run's server does; its exit status, 1 for any exception."""
    child = os.fork()
    if child == 0:
        _become(run, command, log)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _become(run: Path, command: list[str], log: Path) -> NoReturn:
    """Be the command, in the folder of the run, with all that it prints in the log."""
    status = 1
    try:
        sys.stdout = sys.stderr = log.open("w")
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stdout.fileno(), 2)
        os.chdir(run)
        sys.argv = command
        entry = runpy.run_path if command[0].endswith(".py") else runpy.run_module
        entry(command[0], run_name="__main__")
        status = 0
    except SystemExit as stopped:
        status = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(status)


def written(run: Path, command: list[str]) -> tuple[int, str, dict[str, str]]:
    """(exit status, last line of what was printed, {file: sha256} of what was written but for provenances)."""
    output = run / "again"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    status = run_forked(run, with_output(command, output / "result"), run / "again.log")
    last = (run / "again.log").read_text(errors="replace").strip().rpartition("\n")[2]
    files = [path for path in output.rglob("*") if path.is_file() and path.name != PROVENANCE]
    return status, last, {str(path.relative_to(output)): sha256_of(path) for path in files}


def flip(path: Path, rng: random.Random) -> bytes:
    """Flip one bit of a file, which becomes another file: other names of it stay good. Returns what it was."""
    whole = path.read_bytes()
    bad = bytearray(whole)
    bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
    path.unlink()
    path.write_bytes(bad)
    return whole


def outcome(run: Path, command: list[str], good: dict[str, str]) -> str:
    """One of OUTCOMES; what is neither the same nor refused is printed."""
    status, last, files = written(run, command)
    if status == 2 and last.startswith("error: "):
        return REFUSED
    if status == 0:
        return HARMLESS if files == good else OTHER
    print(f"  exit status {status}: {last}", flush=True)
    return BROKEN


def flips_of(run: Path, reader: Reader, command: list[str], count: int) -> dict[str, Any]:
    """A row: so many flips, each of one bit of one of the reader's files, and what they came to."""
    rng = random.Random(f"{reader}")
    status, last, good = written(run, command)
    assert status == 0, (reader, last)
    paths = sorted((run / ROOT / reader.folder).glob(reader.pattern))
    files = [path for path in paths if path.is_file() and path.stat().st_size and not path.name.startswith(".")]
    found: Counter[str] = Counter()
    for _ in range(count):
        path = rng.choice(files)
        whole = flip(path, rng)
        found[outcome(run, command, good)] += 1
        path.write_bytes(whole)
    part = reader.pattern.removesuffix("/**/*")
    return row(f"{reader.what}: {part}", "one bit flipped", reader.result.split("/")[0], found)


def row(what: str, damage: str, read_by: str, found: Counter[str]) -> dict[str, Any]:
    """A row of the table."""
    counts = {name: found[name] for name in OUTCOMES}
    return {"what": what, "damage": damage, "read by": read_by, "times": found.total()} | counts


def flip_rows(run: Path, count: int) -> list[dict[str, Any]]:
    """The rows of all readers, in a finished run."""
    for name in NEEDED:
        import_module(name)
    (run / "page.md").write_text("")
    known = commands(run)
    export = ["leap_repro.export", "--model", f"{ROOT}/{MODEL}", "--cell", f"{ROOT}/harden/{MOVED}"]
    done = run_forked(run, [*export, "--format", "packed", "--output", f"{ROOT}/{EXPORT}"], run / "export.log")
    assert done == 0, (run / "export.log").read_text()
    found = []
    for reader in readers():
        found.append(flips_of(run, reader, known[reader.result], count))
        print(reader, {name: found[-1][name] for name in OUTCOMES}, flush=True)
    return found


def merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for what several jobs read."""
    found: dict[str, dict[str, Any]] = {}
    for each in rows:
        before = found.setdefault(each["what"], each | dict.fromkeys(("times", *OUTCOMES), 0) | {"read by": ""})
        names = dict.fromkeys([*filter(None, before["read by"].split(", ")), each["read by"]])
        counts = {name: before[name] + each[name] for name in ("times", *OUTCOMES)}
        found[each["what"]] = before | {"read by": ", ".join(names)} | counts
    return list(found.values())


def totals(rows: list[dict[str, Any]]) -> str:
    """The sentence below the table."""
    sums = ", ".join(f"{sum(each[name] for each in rows)} {name}" for name in OUTCOMES)
    return f"Together {sum(each['times'] for each in rows)}: {sums}."


def main(arguments: argparse.Namespace) -> None:
    """Run, damage, kill, write."""
    run, lives, seconds = kills.undisturbed(arguments.folder / "undisturbed")
    rows = []
    if arguments.kills:
        of_jobs = kills.kill_jobs(run, arguments.folder / "jobs", lives, arguments.kills)
        of_runs = kills.kill_runs(run, arguments.folder / "runs", seconds, arguments.kills)
        for what, (times, other) in (("a job", of_jobs), ("Snakemake and all its jobs", of_runs)):
            found = Counter({HARMLESS: times - other, OTHER: other})
            rows.append(row(what, "killed", "the run that goes on", found))
            print(rows[-1], flush=True)
    rows = merged(flip_rows(run, arguments.flips)) + rows
    write_rows(arguments.output, rows, totals(rows))
    if arguments.output == parser().get_default("output"):
        show("docs/trust.md")


def parser() -> argparse.ArgumentParser:
    """The benchmark's arguments."""
    parser = argparse.ArgumentParser(prog="python benchmarks/damage.py", description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder that is not there yet, for the scratch checkouts")
    parser.add_argument("--flips", type=int, default=8, help="of each kind of file")
    parser.add_argument("--kills", type=int, default=4, help="of jobs, and as many of Snakemake; 0: none")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
