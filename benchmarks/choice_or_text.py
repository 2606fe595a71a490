"""The same questions answered by choice and by greedily written text, of pruned models.

`python benchmarks/choice_or_text.py results/miniature MODEL/METHOD/SPARSITY/SEED ...`, for cells that are evaluated.

A pruned model may rank the right choice first and yet not write it ("The Benchmark Illusion", arXiv 2606.17609). By
choice: the run's own answers to the task arc_easy, the likelihoods of four given answers (lm-eval). By text: the same
prompt, continued greedily up to the end of the line; right if the line is the right answer. Also counted: lines that
are another of the four answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from measure import REPOSITORY, add_row
from statsmodels.stats.contingency_tables import mcnemar

from leap_repro.cli import report_errors
from leap_repro.models.cell import apply_cell
from leap_repro.models.load import load_model, load_tokenizer
from leap_repro.store.artifacts import Artifact

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TASK = "arc_easy"
PROMPT = "Question: {question}\nAnswer:"
"""lm-eval's of the task."""
NEW_TOKENS = 12
BATCH = 64
RIGHT, WRONG_CHOICE, OTHER = "right", "another choice", "other"


def questions(root: Path) -> pd.DataFrame:
    """The task's questions in their order: `prompt`, `choices`, `answer` (the text of the right one)."""
    rows = pd.read_parquet(Artifact.read(root / "data/tasks").file(f"{TASK}/test.parquet"))
    choices = [dict(zip(each["label"], each["text"], strict=True)) for each in rows["choices"]]
    prompts = [PROMPT.format(question=question) for question in rows["question"]]
    answers = [each[key] for each, key in zip(choices, rows["answerKey"], strict=True)]
    return pd.DataFrame({"prompt": prompts, "choices": [[*each.values()] for each in choices], "answer": answers})


def same_lengths(ids: list[list[int]]) -> Iterator[list[int]]:
    """Positions of prompts of one length, up to BATCH at a time, so that nothing is padded."""
    lengths = np.array([len(each) for each in ids])
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length)
        yield from ([*map(int, places[start : start + BATCH])] for start in range(0, len(places), BATCH))


@torch.no_grad()
def written(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> list[str]:
    """The line that follows each prompt, greedily, without blanks around it."""
    ids: list[list[int]] = tokenizer(prompts)["input_ids"]
    lines = [""] * len(prompts)
    settings: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
    for places in same_lengths(ids):
        batch = torch.tensor([ids[place] for place in places])
        mask = torch.ones_like(batch)
        found = model.generate(batch, attention_mask=mask, pad_token_id=tokenizer.eos_token_id, **settings)
        texts = tokenizer.batch_decode(found[:, batch.shape[1] :], skip_special_tokens=True)
        for place, text in zip(places, texts, strict=True):
            lines[place] = text.strip().partition("\n")[0].strip()
    return lines


def judged(line: str, choices: list[str], answer: str) -> str:
    """RIGHT, WRONG_CHOICE or OTHER; a full stop at the end and the case do not count."""
    said = line.removesuffix(".").casefold()
    if said == answer.casefold():
        return RIGHT
    return WRONG_CHOICE if said in [choice.casefold() for choice in choices] else OTHER


def row(root: Path, cell: str, asked: pd.DataFrame) -> dict[str, Any]:
    """One cell's shares in percent, and McNemar's exact p of the two ways."""
    name, method, sparsity, seed = cell.split("/")
    folder = Artifact.read(root / "models" / name).verified_payload()
    model = load_model(folder)
    apply_cell(model, Artifact.read(root / "harden" / cell))
    lines = written(model, load_tokenizer(folder), asked["prompt"].tolist())
    verdicts = pd.Series([judged(*each) for each in zip(lines, asked["choices"], asked["answer"], strict=True)])
    outcomes = pd.read_parquet(Artifact.read(root / "evaluate" / cell).file("outcomes.parquet"))
    chosen = outcomes[outcomes["task"] == TASK].sort_values("index")["correct"].to_numpy(dtype=bool)
    told = (verdicts == RIGHT).to_numpy()
    table = [[int((a & b).sum()) for b in (told, ~told)] for a in (chosen, ~chosen)]
    return {
        "model": name,
        "method": method,
        "sparsity": sparsity,
        "seed": seed,
        "questions": len(asked),
        "right by choice": f"{100 * chosen.mean():.1f}",
        "right by text": f"{100 * told.mean():.1f}",
        "by choice only": f"{100 * (chosen & ~told).mean():.1f}",
        "by text only": f"{100 * (~chosen & told).mean():.1f}",
        "p (McNemar)": f"{float(mcnemar(table, exact=True).pvalue):.2g}",
        "text is another choice": f"{100 * (verdicts == WRONG_CHOICE).mean():.1f}",
        "text is none of the four": f"{100 * (verdicts == OTHER).mean():.1f}",
    }


def main(arguments: argparse.Namespace) -> None:
    """Answer, write a row per cell."""
    asked = questions(arguments.root)
    for cell in arguments.cells:
        found = row(arguments.root, cell, asked)
        print(found, flush=True)
        add_row(arguments.output, found, ("model", "method", "sparsity", "seed"))


def parser() -> argparse.ArgumentParser:
    """The benchmark's arguments."""
    parser = argparse.ArgumentParser(prog="python benchmarks/choice_or_text.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("root", type=Path, help="a scale's results folder")
    parser.add_argument("cells", nargs="+", help="model/method/sparsity/seed of evaluated cells")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmarks/choice_or_text.csv")
    return parser


if __name__ == "__main__":
    with report_errors():
        main(parser().parse_args())
