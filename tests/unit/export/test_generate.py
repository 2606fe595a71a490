"""`leap-repro generate`: the text that transformers' own generate gives, its speed, and one sentence for a mistake."""

import re
import subprocess
import sys

import pytest
import torch
from cells import cell_of

from leap_repro.export.generate import main, parser
from leap_repro.export.lineage import Lineage
from leap_repro.export.load import load_pruned
from leap_repro.export.write import export_cell
from leap_repro.miniature.bundled import bundled_models
from leap_repro.models.load import load_model, load_tokenizer
from leap_repro.store.artifacts import Artifact

BASE = bundled_models()["llama3.2-1b-mini"]
PROMPT = "The"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A packed export of a miniature."""
    folder = tmp_path_factory.mktemp("generate")
    lineage = Lineage(Artifact(BASE, {}, {}), cell_of(load_model(BASE), folder, 0.5))
    export_cell(BASE, lineage, folder / "out", form="packed")
    return folder / "out"


@pytest.fixture
def asked(folder):
    """Arguments for the command over the export; torch has its threads again afterwards."""
    before = torch.get_num_threads()
    yield lambda *words: parser().parse_args([str(folder), "--prompt", PROMPT, "--max-new-tokens", "8", *words])
    torch.set_num_threads(before)


@pytest.mark.parametrize("run", ["packed", "dense"])
def test_it_writes_what_transformers_would(folder, asked, capsys, run):
    main(asked("--run", run, "--threads", "1"))
    said, speed = capsys.readouterr()
    tokenizer, model = load_tokenizer(folder), load_pruned(folder)
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    assert said.strip() == tokenizer.decode(expected[0], skip_special_tokens=True).strip()
    assert re.search(r"prefill \d+ tokens, [\d.]+ tokens/s; decode \d+ tokens, [\d.]+ tokens/s; run " + run, speed)
    assert "1 threads" in speed


def test_a_seed_decides_what_is_drawn(asked, capsys):
    said = []
    for seed in ("1", "1", "2"):
        main(asked("--temperature", "2", "--seed", seed))
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--max-new-tokens", "0"], ["--max-new-tokens is 0"]),
        (["--max-new-tokens", "100000"], ["--max-new-tokens is 100000", "positions"]),
        (["--temperature", "-1"], ["--temperature is -1.0"]),
        (["--temperature", "nan"], ["--temperature is nan"]),
        (["--threads", "0"], ["--threads is 0"]),
    ],
)
def test_what_cannot_be_is_refused(asked, refused, words, told):
    with refused(*told):
        main(asked(*words))


def test_a_mistake_ends_the_command_with_one_line(folder, tmp_path):
    for place, words in ((tmp_path / "none", "config.json"), (folder, "--prompt is ''")):
        prompt = "" if place == folder else PROMPT
        command = [sys.executable, "-m", "leap_repro", "generate", str(place), "--prompt", prompt]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if place == folder and not done.returncode:  # its tokenizer begins every text with a BOS
            continue
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
