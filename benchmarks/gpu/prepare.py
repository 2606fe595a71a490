"""What travels to the GPU machine, made where the model, the texts and the task sets are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from measure import REPOSITORY

from gpu.folder import ABOUT, CONFIG, HALF, PARTS, QUESTIONS, TOKENS, Prepared, first_loss, save_arrays
from gpu.pairs import noted_pairs
from leap_repro.calibration.packed import closed_documents
from leap_repro.data.tasks import fetch_tasks
from leap_repro.data.text import fetch_text
from leap_repro.errors import UserError
from leap_repro.evaluate.perplexity import SEPARATOR
from leap_repro.miniature.bundled import bundled_models
from leap_repro.models.load import load_model, load_tokenizer, vocabulary_size
from leap_repro.store.atomic import write_json
from leap_repro.store.texts import write_texts

MOST = 64 * 2**20
"""Bytes of one transfer: the checkout and one part."""
UINT16 = 2**16
SAME_BEGINNING = 64
"""Characters: documents that begin alike are one document, perhaps cut."""
LACKING = ("pydantic", "pydantic_core", "annotated-types", "typing-inspection", "typing_extensions")
"""What the product needs and a machine for deep learning may lack, as it is installed here."""
GGUF = "gguf==0.19.0"
PLATFORMS = tuple(f"manylinux{name}_x86_64" for name in ("_2_28", "_2_17", "2014", "1"))
PLAN = {
    "1": ("env kernels curve repeat one_shot", 120),
    "2": ("steps memory", 200),
    "3": ("real", 480),
}
"""What is measured with each part, and the seconds after which nothing begins. The machine's start
and the transfers fill up a quarter of an hour."""
TINY_DOCUMENTS = 400
SEED, WEIGHTS = 0, "model.safetensors"


@dataclass(frozen=True)
class Sources:
    """Where things are. `model`: a folder; `gguf`: its weights in a smaller file, if there is one;
    `train`: texts, of the first of which the last `held_out` documents are scored, not trained on;
    `text`: scored as a whole; `window`: tokens of a scored window; `questions`: of each task, None
    for all; `wheels`: the version of Python that packages are fetched for."""

    model: Path
    gguf: Path | None
    train: tuple[Path, ...]
    text: Path
    tasks: Path
    held_out: int = 200
    window: int = 2048
    questions: int | None = None
    wheels: str | None = None


def prepare(folder: Path, sources: Sources) -> None:
    """Write the folder. UserError for a vocabulary beyond 16 bits, a GGUF file of other weights than the
    model's, or a part that is too large."""
    for part in PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)
    model, tokenizer = load_model(sources.model), load_tokenizer(sources.model)
    if vocabulary_size(model) > UINT16:
        known = vocabulary_size(model)
        raise UserError(f"{sources.model} knows {known} tokens: at most {UINT16} fit 16 bits")
    tokens = token_ids(tokenizer, sources)
    save_arrays(folder / "3" / TOKENS, tokens)
    pairs = noted_pairs(model, tokenizer, sources.tasks, sources.questions)
    save_arrays(folder / "3" / QUESTIONS, pairs.arrays())
    weights = sources.gguf or sources.model / WEIGHTS
    halve(weights, folder)
    shutil.copyfile(sources.model / "config.json", folder / "3" / CONFIG)
    about = {
        "commit": commit(),
        "model": f"model{weights.suffix}",
        "window": sources.window,
        "first_loss": first_loss(model, tokens, sources.window),
        "tokens": {name: len(ids) for name, ids in tokens.items()},
        "questions": dict(zip(pairs.tasks, np.bincount(pairs.task).tolist(), strict=True)),
    }
    for part in PARTS:
        write_json(folder / part / ABOUT, about)
    require_same_weights(folder, model)
    if sources.wheels:
        _wheels(folder, sources.wheels)
    print(json.dumps(about, indent=1))
    _require_small(folder)


def token_ids(tokenizer: Any, sources: Sources) -> dict[str, np.ndarray]:
    """Token ids uint16: of the training text, each document closed by EOS, in seeded order; of the
    documents held out from it; of the other text. UserError for a text of less than two windows."""
    train, held_out = split_documents([documents(path) for path in sources.train], sources.held_out)
    scored = {"C4": held_out, "WikiText-2": documents(sources.text)}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "train.parquet"
        write_texts(train, path)
        pieces = [ids for ids, _, _ in closed_documents(tokenizer, [path], SEED, 0, 0)]
    found = {"train": np.concatenate(pieces)}
    for name, texts in scored.items():
        found[name] = np.array(tokenizer(SEPARATOR.join(texts), verbose=False)["input_ids"])
    for name, ids in found.items():
        if len(ids) < 2 * sources.window:
            few = f"fewer than two windows of {sources.window}"
            raise UserError(f"the text {name} has {len(ids)} tokens: {few}")
    return {name: ids.astype(np.uint16) for name, ids in found.items()}


def documents(path: Path) -> list[str]:
    """The rows of a parquet file with a column `text`."""
    return [text or "" for text in pq.read_table(path, columns=["text"]).column("text").to_pylist()]


def split_documents(texts: Sequence[list[str]], held_out: int) -> tuple[list[str], list[str]]:
    """Documents to train on, each once, and the last `held_out` of the first text: none that begins
    as one of them is trained on. UserError if nothing would be left of the first text."""
    first = [text for text in texts[0] if text.strip()]
    if not 0 < held_out < len(first):
        most = len(first) - 1
        raise UserError(f"--held-out is {held_out}; it must be 1 to {most}, one document less than all")
    apart = first[-held_out:]
    longest: dict[str, str] = {}
    for text in (*first[:-held_out], *(text for more in texts[1:] for text in more)):
        if len(text.strip()) > len(longest.get(_beginning(text), "")):
            longest[_beginning(text)] = text
    for text in apart:
        longest.pop(_beginning(text), None)
    return list(longest.values()), apart


def _beginning(text: str) -> str:
    return text.strip()[:SAME_BEGINNING]


def halve(weights: Path, folder: Path) -> None:
    """Write one half of the file into each of the first two parts."""
    whole = weights.read_bytes()
    middle = -(-len(whole) // 2)
    for part, half in zip(PARTS, (whole[:middle], whole[middle:]), strict=False):
        (folder / part / HALF).write_bytes(half)


def require_same_weights(folder: Path, model: Any) -> None:
    """UserError unless the two halves give the model's weights, to the bit, read as on the GPU machine."""
    found = Prepared(folder).read("float32").state_dict()
    expected = model.state_dict()
    shutil.rmtree(folder / "model")
    different = sorted(found.keys() ^ expected.keys())
    shared = found.keys() & expected.keys()
    different += sorted(name for name in shared if not torch.equal(found[name], expected[name]))
    if different:
        named = f"{len(different)} tensors, {different[0]} is one"
        raise UserError(f"the file that travels holds other weights than --model: {named}")


def _wheels(folder: Path, python: str) -> None:
    """Fetch the packages that the other machine may lack into every part."""
    first = folder / PARTS[0] / "wheels"
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    names = [*(f"{name}=={version(name)}" for name in LACKING), GGUF]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(first)]
    subprocess.run([*pip, *target, *platforms, *names], check=True)
    for part in PARTS[1:]:
        shutil.copytree(first, folder / part / "wheels")


def commit() -> str:
    """The checkout's, with a mark if files differ from it; "unknown" without git."""
    return _git("describe", "--always", "--dirty", "--abbrev=12").strip() or "unknown"


def _git(*words: str) -> str:
    """What git says of the checkout; nothing without git."""
    command = ["git", "-C", str(REPOSITORY), *words]
    return subprocess.run(command, capture_output=True, text=True).stdout


def _require_small(folder: Path) -> None:
    """Print what each part weighs; UserError if one does not fit a transfer with the checkout."""
    listed = _git("ls-files", "-z")
    checkout = _bytes(REPOSITORY / name for name in listed.split("\0") if name)
    for part in PARTS:
        size = checkout + _bytes((folder / part).rglob("*"))
        print(f"{folder / part}: {size / 2**20:.1f} MiB with the checkout", file=sys.stderr)
        if size > MOST:
            raise UserError(f"{folder / part} and the checkout are {size} bytes, at most {MOST}")


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def tiny_sources(scratch: Path) -> Sources:
    """For a rehearsal: the smallest bundled model, a part of the bundled texts and questions."""
    for split in ("mask_training", "test"):
        (scratch / split).mkdir()
        fetch_text({"source": "bundled", "split": split}, scratch / split)
    (scratch / "tasks").mkdir()
    fetch_tasks({"source": "bundled"}, scratch / "tasks")
    (train,), (text,) = ((scratch / split).glob("*.parquet") for split in ("mask_training", "test"))
    model = min(bundled_models().values(), key=lambda path: (path / WEIGHTS).stat().st_size)
    for path, count in ((train, TINY_DOCUMENTS), (text, TINY_DOCUMENTS // 10)):
        write_texts(documents(path)[:count], path)
    sources = Sources(model, None, (train,), text, scratch / "tasks")
    return replace(sources, held_out=20, window=64, questions=6)


def commands(folder: Path, tiny: bool, wheels: bool) -> dict[str, str]:
    """What to run at the top of the checkout on the GPU machine, once a part is there."""
    return {part: _command(folder, part, tiny, wheels) for part in PARTS}


def _command(folder: Path, part: str, tiny: bool, wheels: bool) -> str:
    site = folder / "site"
    pip = "python3 -m pip install -q --no-index --no-deps --upgrade --target"
    install = f"{pip} {site} {folder / part / 'wheels'}/*.whl && " if wheels else ""
    names, seconds = PLAN[part]
    names = names.replace("real", "sample real") if tiny else names
    rows = f'"${{OUT:-{folder}}}/rows-{part}.jsonl"'
    options = f"--rows {rows} --seconds {seconds}{' --tiny' if tiny else ''}"
    script = f"python3 benchmarks/gpu_quarter.py run {folder} {names} {options}"
    return f"{install}PYTHONPATH=src:{site} {script}"
