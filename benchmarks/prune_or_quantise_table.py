"""The tables of prune_or_quantise.py, from what its steps left in the work folder."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pandas as pd
from measure import markdown
from safetensors import safe_open

from leap_repro.models.checkpoint import tensors
from leap_repro.runtime.forms import FORMS
from leap_repro.store.atomic import write_text

MATRIX = re.compile(r"blk\.\d+\.(attn_(q|k|v|output)|ffn_(gate|up|down))\.weight")
"""How llama.cpp calls the prunable matrices of a Llama or a Gemma."""
DENSE, TORCH, LLAMA_CPP, OURS = "dense", "torch", "llama.cpp", "leap-repro"
SPEEDS = [f"{what} {n}{of}" for n in (1, 2) for what in ("decode", "prefill") for of in ("", ", times torch's")]
PLACE = ("machine", "flags", "torch", "torch multiplies by")
COLUMNS = (
    *("model", "kernels", "weights", "stored as", "run by", "bits a weight", "bits, whole file", "MB", "perplexity"),
    *("perplexity ±", "times dense's", "times dense's ±", "windows", "tokens of a window", *SPEEDS, "dropped"),
    *("turns 1", "turns 2", "dropped and 0", "kept", "kept and 0", "prompt", "text", *PLACE),
)
ENGINES = {"bf16": OURS, "int8": OURS}
Row = dict[str, Any]


def rows_of(model: Any) -> Iterator[Row]:
    """A row for each way to store and run a model's weights, with the fastest form of the kernels; then those that
    were timed with other forms."""
    timed = {folder.name.split("-")[1] for folder in model.work.glob("time-*-*")}
    fastest, *others = [name for name in FORMS if name in timed] or FORMS[:1]
    yield from rows_with(model, fastest, [(weights, how, _engine(weights, how)) for weights, how, _ in model.stored()])
    for name in others:
        yield from rows_with(model, name, [])


def rows_with(model: Any, form: str, scored: list[tuple[str, str, str]]) -> Iterator[Row]:
    """Rows of what was timed with this form of the kernels, and of `scored`, (weights, stored as, run by)."""
    turns = {n: [read(path) for path in sorted(model.work.glob(f"time-{form}-{n}/*.json"))] for n in (1, 2)}
    speeds = {threads: medians([turn["speeds"] for turn in found]) for threads, found in turns.items()}
    timed = [tuple(key.split("/")) for key in {**speeds[1], **speeds[2]}]
    dense = read(model.work / "losses" / f"{DENSE}-bf16.json")
    for weights, how, engine in sorted(dict.fromkeys([*scored, *timed]), key=_order):
        losses = read(model.work / "losses" / f"{weights}-{'bf16' if how == 'BF16' else how}.json")
        key = f"{weights}/{how}/{engine}"
        if losses or any(key in found for found in speeds.values()):
            row = {"model": model.name, "kernels": form, "weights": weights, "stored as": how, "run by": engine}
            row |= sizes(model, weights, how, engine) | perplexity(losses, dense)
            for threads, found in speeds.items():
                row |= speed(found, key, threads)
            row |= {f"turns {threads}": len(found) for threads, found in turns.items()}
            row |= read(model.gguf(weights, how).with_suffix(".json"))
            yield row | place_of(turns[1] + turns[2])


def _order(what: tuple[str, str, str]) -> tuple[bool, bool, str]:
    """Dense weights, then what is packed, then what llama.cpp makes of pruned ones."""
    weights, _, engine = what
    return weights != DENSE, weights != DENSE and engine == LLAMA_CPP, weights


def _engine(weights: str, how: str) -> str:
    return TORCH if (weights, how) == (DENSE, "bf16") else ENGINES.get(how, LLAMA_CPP)


def read(path: Path) -> Row:
    """A JSON file, or nothing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def medians(turns: list[dict[str, tuple[float, float]]]) -> dict[str, Row]:
    """{engine: tokens a second}: the medians of all turns."""
    found = {}
    for name in turns[0] if turns else ():
        prefill, decode = zip(*(turn[name] for turn in turns), strict=True)
        found[name] = {"prefill": statistics.median(prefill), "decode": statistics.median(decode)}
    return found


def place_of(turns: list[Row]) -> Row:
    """The columns that say where it was timed."""
    return {name: turns[0].get(name) for name in PLACE} if turns else {}


def sizes(model: Any, weights: str, how: str, engine: str) -> Row:
    """Bits a weight of the prunable matrices and of the whole file, and the file's megabytes; those of the dense
    checkpoint as if all of it lay in bfloat16."""
    every = sum(math.prod(header.shape) for header in tensors(model.base).values())
    if engine in (TORCH, "OpenVINO"):
        matrices, file = 16.0, 2 * every
    elif engine == LLAMA_CPP:
        path = model.gguf(weights, how)
        matrices, file = gguf_bits(path), path.stat().st_size
    else:
        folder = model.export(weights, how)
        matrices, file = packed_bits(folder), sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return {
        "bits a weight": round(matrices, 3),
        "bits, whole file": round(8 * file / every, 2),
        "MB": round(file / 1e6, 1),
    }


def gguf_bits(path: Path) -> float:
    """Bits a weight of the prunable matrices in a GGUF file."""
    from gguf import GGUFReader

    found = [tensor for tensor in GGUFReader(path).tensors if MATRIX.fullmatch(tensor.name)]
    return 8 * sum(int(t.n_bytes) for t in found) / sum(int(t.n_elements) for t in found)


def packed_bits(folder: Path) -> float:
    """Bits a weight of the prunable matrices in a packed export, all their parts counted."""
    pruned = json.loads((folder / "sparse.json").read_text(encoding="utf-8"))["tensors"]
    stored = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            parts = [name for name in file.keys() if name.rpartition(".")[0] in pruned]  # noqa: SIM118
            stored += sum(file.get_tensor(name).nbytes for name in parts)
    return 8 * stored / sum(math.prod(entry["shape"]) for entry in pruned.values())


def perplexity(losses: Row, dense: Row) -> Row:
    """Perplexity, and how many times the dense model's it is, on the same windows; each with its standard error over
    windows (delta method), of the second by the differences of the windows' losses."""
    if not losses:
        return {}
    mine, theirs = losses["losses"], dense["losses"]
    value, error = exponential(mine)
    times, times_error = exponential([a - b for a, b in zip(mine, theirs, strict=True)])
    found = {"perplexity": value, "perplexity ±": error, "times dense's": times, "times dense's ±": times_error}
    return {name: round(number, 4) for name, number in found.items()} | {
        "windows": len(mine),
        "tokens of a window": losses["length"],
    }


def exponential(losses: list[float]) -> tuple[float, float]:
    """exp of the mean, and its standard error."""
    value = math.exp(statistics.fmean(losses))
    return value, value * statistics.stdev(losses) / math.sqrt(len(losses))


def speed(speeds: dict[str, Row], key: str, threads: int) -> Row:
    """Tokens a second, and of decoding how many times those of torch's dense bfloat16 in the same run."""
    if key not in speeds:
        return {}
    dense, found = speeds[f"{DENSE}/bf16/{TORCH}"], speeds[key]
    return {
        f"decode {threads}": round(found["decode"], 2),
        f"decode {threads}, times torch's": round(found["decode"] / dense["decode"], 3),
        f"prefill {threads}": round(found["prefill"], 1),
        f"prefill {threads}, times torch's": round(found["prefill"] / dense["prefill"], 3),
    }


def shown(table: pd.DataFrame) -> str:
    """One model's rows as a page shows them."""
    lines = []
    for row in table.to_dict("records"):
        line = {name: row[name] for name in ("weights", "stored as", "run by", "bits a weight", "MB")}
        line["perplexity"] = _with_error(row, "perplexity", 2)
        line["times dense's"] = _with_error(row, "times dense's", 3)
        for what, threads in product(("decode", "prefill"), (1, 2)):
            line[f"{what}, {threads} thread{'s'[: threads - 1]}"] = _speed(row, f"{what} {threads}")
        lines.append(line)
    shown = pd.DataFrame(lines)
    return markdown(shown.loc[:, (shown != "").any()], "")


def _with_error(row: Row, name: str, digits: int) -> str:
    if pd.isna(row.get(name)):
        return ""
    return f"{row[name]:.{digits}f} ± {row[f'{name} ±']:.{digits}f}"


def _speed(row: Row, name: str) -> str:
    if pd.isna(row.get(name)):
        return ""
    return f"{row[name]:.4g} ({row[f'{name}, times torch' + chr(39) + 's']:.2f})"


def break_even(table: pd.DataFrame) -> list[Row]:
    """For each model, number of threads and kind of packed values: from which sparsity on one token is decoded as fast
    as by each dense engine, by linear interpolation of its milliseconds between the measured sparsities."""
    found = []
    cells = table[["model", "kernels"]].drop_duplicates().itertuples(index=False, name=None)
    for (model, form), threads, values in product(cells, (1, 2), ENGINES):
        of_cell = (table["model"] == model) & (table["kernels"] == form)
        mine = table[of_cell & table[f"decode {threads}"].notna()]
        packed = mine[(mine["run by"] == OURS) & (mine["stored as"] == values)]
        points = sorted(
            (_sparsity(row["weights"]), 1000 / row[f"decode {threads}"]) for row in packed.to_dict("records")
        )
        dense = mine[mine["weights"] == DENSE].to_dict("records")
        if points:
            line = {"model": model, "kernels": form, "threads": threads, "packed": values}
            against = {f"{row['run by']} {row['stored as']}": 1000 / row[f"decode {threads}"] for row in dense}
            found.append(line | {name: crossing(points, limit) for name, limit in against.items()})
    return found


def _sparsity(weights: str) -> float:
    return float(weights.rpartition("-")[2])


def crossing(points: list[tuple[float, float]], limit: float) -> str:
    """The sparsity from which on the time is at most `limit`, in percent; `points` are (sparsity, time) by sparsity."""
    if points[0][1] <= limit:
        return f"below {100 * points[0][0]:.0f} %"
    for (low, before), (high, after) in pairwise(points):
        if after <= limit < before:
            return f"{100 * (low + (high - low) * (before - limit) / (before - after)):.0f} %"
    return f"above {100 * points[-1][0]:.0f} %"


def in_llama_cpp(table: pd.DataFrame) -> list[Row]:
    """What became of a pruned model in llama.cpp's files: zeros, speed beside the dense model's, text."""
    found = []
    for row in table[table["dropped"].notna()].to_dict("records"):
        dense = table[(table["model"] == row["model"]) & (table["weights"] == DENSE)]
        dense = dense[(dense["stored as"] == row["stored as"]) & (dense["run by"] == LLAMA_CPP)].iloc[0]
        line = {name: row[name] for name in ("model", "weights", "stored as")}
        line["dropped weights that are 0 (%)"] = round(100 * row["dropped and 0"] / row["dropped"], 4)
        line["kept weights that became 0 (%)"] = round(100 * row["kept and 0"] / row["kept"], 4)
        line["bits a weight"] = row["bits a weight"]
        line["decode, times the dense file's"] = round(row["decode 1"] / dense["decode 1"], 2)
        found.append(line | {"its text": f"{row['prompt']} … {row['text']}".replace("\n", " ").replace("|", "\\|")})
    return found


def write_tables(models: list[Any], output: Path) -> None:
    """The rows as CSV, and as Markdown what pages show: the models, break-even sparsities, llama.cpp's files."""
    table = pd.DataFrame([row for model in models for row in rows_of(model)], columns=COLUMNS)
    write_text(output, table.to_csv(index=False, lineterminator="\n"))
    machine, flags, version = table[["machine", "flags", "torch"]].dropna().iloc[0]
    blocks = [
        f"{machine} ({flags}), torch {version}. Speeds are tokens a second; in brackets, times torch's dense bfloat16 "
        "in the same turns."
    ]
    for (name, form), rows in table.groupby(["model", "kernels"], sort=False):
        blocks.append(f"**{name}**, kernels {form}: {_measured(rows.iloc[0])}.\n\n{shown(rows)}")
    write_text(output.with_suffix(".md"), "\n".join(f"{block.strip()}\n" for block in blocks))
    for suffix, rows in (("break_even", break_even(table)), ("gguf", in_llama_cpp(table))):
        write_text(output.with_name(f"{output.stem}_{suffix}.md"), markdown(pd.DataFrame(rows), ""))


def _measured(row: Row) -> str:
    """In words, what a model's numbers are of."""
    words = (
        [] if pd.isna(row["windows"]) else [f"{row['windows']:.0f} windows of {row['tokens of a window']:.0f} tokens"]
    )
    turns = " and ".join(f"{row[f'turns {n}']:.0f} with {n} thread{'s'[: n - 1]}" for n in (1, 2) if row[f"turns {n}"])
    if pd.notna(row["torch multiplies by"]):
        words.append(f"torch multiplies by {row['torch multiplies by']}")
    if turns:
        words.append(f"speeds are medians of turns, {turns}")
    return "; ".join(words)
