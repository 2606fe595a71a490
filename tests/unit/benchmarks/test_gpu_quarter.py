"""The quarter of an hour on a GPU, rehearsed on a CPU from an empty folder to the pages."""

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from leap_repro.data.tasks import fetch_tasks
from leap_repro.errors import UserError
from leap_repro.evaluate.zero_shot import evaluate_tasks
from leap_repro.miniature.bundled import bundled_models
from leap_repro.models.load import load_model, load_tokenizer

FACTS = {"machine": "M", "torch": "2", "commit": "c", "tiny": True}
LACKING = ("lm_eval", "datasets", "evaluate", "snakemake")
SHARED = ("gpu_quarter", "measure", "gates", "learned_memory")


@pytest.fixture
def part(project, monkeypatch):
    """Imports a module of the benchmark."""
    monkeypatch.syspath_prepend(str(project / "benchmarks"))
    yield import_module
    for name in [*sys.modules]:
        if name in SHARED or name.split(".")[0] == "gpu":
            del sys.modules[name]


@pytest.fixture
def rows_of(part, tmp_path):
    """Makes the rows of a run, which a later one finds."""
    rows = part("gpu.rows")
    return lambda **given: rows.Rows(tmp_path / "rows.jsonl", FACTS, **given)


def test_a_row_is_on_disk_at_once_and_is_not_measured_again(rows_of, tmp_path):
    rows_of().measure({"part": "a", "n": 1}, lambda: {"seconds": 1 / 3})
    (line,) = (tmp_path / "rows.jsonl").read_text().splitlines()
    row = json.loads(line)
    took = {"took_seconds": row["took_seconds"]}
    assert row == FACTS | {"part": "a", "n": 1, "seconds": 0.333333} | took
    rows_of().measure({"part": "a", "n": 1}, lambda: pytest.fail("measured again"))
    rows_of().measure({"part": "a", "n": 2}, lambda: {})
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2


def test_a_row_of_another_machine_is_not_taken(part, tmp_path):
    known = [FACTS | {"machine": "N", "part": "a"}]
    rows = part("gpu.rows").Rows(tmp_path / "new.jsonl", FACTS, known)
    rows.measure({"part": "a"}, lambda: {"seconds": 1})
    assert (tmp_path / "new.jsonl").exists()


def test_what_fails_stops_nothing_and_is_tried_again(rows_of, tmp_path):
    rows = rows_of()
    rows.measure({"part": "a"}, lambda: 1 / 0)
    rows.measure({"part": "b"}, lambda: {"seconds": 1})
    found = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert found[0]["error"].startswith("ZeroDivisionError")
    assert found[1]["part"] == "b"
    rows_of().measure({"part": "a"}, lambda: {"seconds": 2})
    assert json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[-1])["seconds"] == 2


def test_nothing_begins_when_the_time_is_over(rows_of, tmp_path):
    rows_of(seconds=0).measure({"part": "a"}, lambda: pytest.fail("begun"))
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """The bundled task sets."""
    folder = tmp_path_factory.mktemp("tasks")
    fetch_tasks({"source": "bundled"}, folder)
    return folder


@pytest.mark.parametrize("name", ["llama3.2-1b-mini", "qwen2.5-0.5b-mini"])
def test_questions_are_answered_from_their_tokens_as_lm_eval_answers_them(part, tasks, name):
    """Every question: the oracle is the pipeline's own evaluation."""
    pairs = part("gpu.pairs")
    folder = bundled_models()[name]
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    noted = pairs.noted_pairs(model, tokenizer, tasks, 12)
    noted = pairs.Pairs.of(noted.arrays())
    found = pairs.answers(noted, pairs.log_likelihoods(model, noted))
    expected = evaluate_tasks(model, tokenizer, tasks, 8, {}, 12)
    assert found.tolist() == [bool(outcome["correct"]) for outcome in expected.outcomes]
    assert 0 < found.sum() < len(found)


def test_documents_that_are_scored_are_not_trained_on(part):
    split = part("gpu.prepare").split_documents
    cut = "the same beginning of a document " * 3
    texts = [["a", f"{cut} whole", "b", "b", "held out"], [cut, "held out", "c"]]
    train, held_out = split(texts, 1)
    assert held_out == ["held out"]
    assert train == ["a", f"{cut} whole", "b", "c"]
    for wrong in (0, 5):
        with pytest.raises(UserError, match=f"--held-out is {wrong}; it must be 1 to 4"):
            split(texts, wrong)


def test_the_table_has_paired_differences_to_admm(part):
    scores = part("gpu.scores")
    right = {"admm": [1, 0, 1, 0], "leap": [1, 1, 1, 0]}
    losses = {"admm": [2.0, 3.0], "leap": [1.5, 2.9]}
    cells = [_cell(name, right[name], losses[name]) for name in right]
    assert scores.points(cells[1], cells) == "+25.00 ± 25.00"  # one task +50 ± 50, the other 0
    assert scores.log_ratio(cells, "t", cells[1]) == "-0.3000 ± 0.2000"
    assert scores.points(cells[0], cells) == ""


def _cell(name, right, losses):
    import base64

    return {
        "part": "real",
        "cell": name,
        "sparsity": "0.6",
        "text": "C4",
        "calibration": "all" if name == "admm" else None,
        "window_losses": {"t": losses},
        "answers": base64.b64encode(np.packbits(right).tobytes()).decode(),
        "task_questions": [2, 2],
    }


def test_no_page_without_rows_and_none_of_a_rehearsal_in_the_repository(part):
    report = part("gpu.report")
    with pytest.raises(UserError, match="there is no row"):
        report.write_pages([FACTS | {"part": "a", "error": "E"}], None)
    with pytest.raises(UserError, match="rehearsal"):
        report.write_pages([FACTS | {"part": "env"}], None)


@pytest.fixture
def halved(part, tmp_path):
    """A folder that holds a bundled model in two halves, and the model."""
    source = bundled_models()["llama3.2-1b-mini"]
    for name in ("1", "2", "3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "about.json").write_text('{"model": "model.safetensors"}')
    part("gpu.prepare").halve(source / "model.safetensors", tmp_path)
    shutil.copyfile(source / "config.json", tmp_path / "3" / "config.json")
    return tmp_path, load_model(source)


def test_the_halves_put_together_give_the_models_weights(part, halved):
    folder, model = halved
    found = part("gpu.folder").Prepared(folder).read("float32").state_dict()
    assert found.keys() == model.state_dict().keys()
    assert all(tensor.equal(found[name]) for name, tensor in model.state_dict().items())
    part("gpu.prepare").require_same_weights(folder, model)


def test_a_file_with_one_other_weight_is_refused_before_it_travels(part, halved):
    folder, model = halved
    half = folder / "2" / "model.part"
    whole = half.read_bytes()
    half.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match="other weights than --model: 1 tensors, model"):
        part("gpu.prepare").require_same_weights(folder, model)


@pytest.mark.slow
def test_the_rehearsal_goes_from_an_empty_folder_to_the_pages(project, tmp_path):
    """In processes of their own, by the commands that `prepare` prints."""
    checkout = tmp_path / "checkout"
    for name in ("src", "benchmarks", "tools"):
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(project / name, checkout / name, ignore=left_out)
    run = _runner(checkout)
    _hide_what_the_gpu_machine_lacks(checkout / "quarter/site")
    printed = run(f"{sys.executable} benchmarks/gpu_quarter.py prepare quarter --tiny")
    here = printed.replace("python3", shlex.quote(sys.executable))
    commands = [line for line in here.splitlines() if line.startswith("PYTHONPATH=")]
    assert len(commands) == 3
    for command in commands:
        run(command.replace(" curve ", " "))  # half a minute, and tested elsewhere
    files = " ".join(f"quarter/rows-{number}.jsonl" for number in (1, 2, 3))
    texts = [(checkout / file).read_text() for file in files.split()]
    rows = [json.loads(line) for line in "".join(texts).splitlines()]
    assert [row for row in rows if "error" in row] == []
    assert run(commands[2]) == "", "nothing is measured again"
    run(f"{sys.executable} benchmarks/gpu_quarter.py report {files} --output pages")
    _check_real([row for row in rows if row["part"] == "real"])
    _check_repeat([row for row in rows if row["part"] == "repeat"])
    page = (checkout / "pages/benchmarks/gpu.md").read_text()
    assert "a rehearsal, which says nothing of speed" in page
    assert "LEAP, cold start" in (checkout / "pages/examples/smollm2/gpu.md").read_text()


def _hide_what_the_gpu_machine_lacks(site):
    """The commands look for packages there first."""
    site.mkdir(parents=True)
    lines = ["import sys", f"sys.modules.update(dict.fromkeys({LACKING}))"]
    (site / "sitecustomize.py").write_text("\n".join(lines))
    without = subprocess.run(
        [sys.executable, "-c", "import lm_eval"], env={"PYTHONPATH": str(site)}, capture_output=True
    )
    assert b"ModuleNotFoundError" in without.stderr


def _runner(checkout):
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    alone = kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "src", "TRITON_INTERPRET": "1"}

    def run(command):
        where = {"cwd": checkout, "env": alone}
        done = subprocess.run(command, shell=True, capture_output=True, text=True, **where)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


def _check_real(rows):
    """Budgets to the weight, and losses that are those of language models."""
    assert rows[0]["cell"] == "dense"
    pruned = [row for row in rows if row["cell"] != "dense"]
    assert len([row for row in pruned if row["cell"] == "leap"]) == 6
    for row in pruned:
        if row["cell"] == "leap":
            assert row["kept"] == math.ceil((1 - float(row["sparsity"])) * row["prunable"])
        assert row["perplexity"]["C4"] > rows[0]["perplexity"]["C4"]
        expected = math.exp(np.mean(row["window_losses"]["C4"]))
        assert row["perplexity"]["C4"] == pytest.approx(expected, rel=1e-4)


def _check_repeat(rows):
    assert len(rows) == 2
    for row in rows:
        assert row["same_again"]
        assert row["same_resumed"]
        assert row["resumed_after_step"] == row["steps"] - 2
