"""Local models and task sets are examined before any job, once for each state of their files."""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from families import tiny
from safetensors.torch import load_file, save_file

from leap_repro.miniature.questions import task_sets
from leap_repro.pipeline import examination
from leap_repro.pipeline.examination import VERDICTS, examine_inputs
from leap_repro.pipeline.grid import read_study

MODEL, TASKS = "scales.miniature.models.mini", "scales.miniature.data.tasks"


@pytest.fixture
def place(tmp_path, monkeypatch, project):
    """A working directory with a model and task sets that are right."""
    shutil.copytree(project / "src/leap_repro/miniature/released/llama3.2-1b-mini", tmp_path / "model")
    for name, splits in task_sets().items():
        (tmp_path / "tasks" / name).mkdir(parents=True)
        for split, rows in splits.items():
            pq.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "tasks" / name / f"{split}.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def here(monkeypatch):
    """Examinations run in this process, which spares their imports; a list of what was examined."""
    examined = []

    def run(command, **settings):
        items = json.loads(command[-1])
        examined.extend(items)
        try:
            examination.main(examination.parser().parse_args(["--items", json.dumps(items)]))
        except examination.UserError as error:
            return examination.subprocess.CompletedProcess(command, 2, stderr=f"error: {error}")
        return examination.subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr(examination.subprocess, "run", run)
    return examined


@pytest.fixture
def study(config):
    """A function that gives the project's study with one model and its task sets in this folder."""

    def build(**model):
        scale = config["scales"]["miniature"]
        scale["only_models"] = {}
        scale["models"] = {"mini": {"source": "path", "path": "model"} | model}
        scale["data"]["tasks"] = {"source": "path", "path": "tasks"}
        return read_study(config | {"scale": "miniature"})

    return build


def test_what_is_right_is_examined_once_and_again_after_a_change(place, here, study):
    examine_inputs(study())
    assert here == [MODEL, TASKS]
    examine_inputs(study())
    assert len(here) == 2
    os.utime(place / "model/tokenizer.json", ns=(1, 1))
    examine_inputs(study())
    assert here[2:] == [MODEL]
    pq.write_table(pa.table({"x": [1]}), place / "tasks/piqa/extra.parquet")
    with pytest.raises(examination.UserError):
        examine_inputs(study())
    assert here[3:] == [TASKS]


def test_a_verdict_that_cannot_be_kept_is_only_asked_for_again(place, here, study):
    (place / ".snakemake").write_text("a file")
    examine_inputs(study())
    examine_inputs(study())
    assert len(here) == 4


def change_weights(folder, change):
    path = folder / "model/model.safetensors"
    save_file({name: tensor.clone() for name, tensor in change(load_file(path)).items()}, path)


def change_config(folder, **values):
    path = folder / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def without_special_tokens(folder):
    path = folder / "model/tokenizer_config.json"
    config = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("bos_token", "eos_token")}
    path.write_text(json.dumps(config))


def mamba(folder):
    tiny("mamba").save_pretrained(folder / "model")


CASES = {
    "names of torch.compile": (
        lambda f: change_weights(f, lambda t: {f"_orig_mod.{name}": tensor for name, tensor in t.items()}),
        (MODEL, "the files lack", "_orig_mod."),
    ),
    "a block that is missing": (
        lambda f: change_config(f, num_hidden_layers=5),
        (MODEL, "layers.4."),
    ),
    "a block too many": (lambda f: change_config(f, num_hidden_layers=3), (MODEL, "layers.3.")),
    "a type that nobody knows": (
        lambda f: change_config(f, model_type="llama9"),
        (MODEL, "llama9"),
    ),
    "much that stays dense": (mamba, (MODEL, "MambaForCausalLM", "mixer.dt_proj.weight", "allow_dense_share")),
    "a tokenizer of another model": (
        lambda f: change_config(f, vocab_size=2000) or change_weights(f, resized),
        (MODEL, "1280", "2000"),
    ),
    "no special tokens": (without_special_tokens, (MODEL, "bos_token")),
    "a tokenizer that cannot be read": (
        lambda f: (f / "model/tokenizer.json").write_text("{}"),
        (MODEL, "tokenizer"),
    ),
    "a task without keys": (
        lambda f: change_rows(f / "tasks/piqa/validation.parquet", label=-1),
        (TASKS, "piqa", "label -1"),
    ),
    "a split that is missing": (
        lambda f: (f / "tasks/arc_easy/test.parquet").unlink(),
        (TASKS, "arc_easy has no split 'test'"),
    ),
}


def resized(tensors):
    rows = tensors["model.embed_tokens.weight"]
    more = {"model.embed_tokens.weight": rows.new_zeros(2000, rows.shape[1])}
    if "lm_head.weight" in tensors:
        more["lm_head.weight"] = more["model.embed_tokens.weight"].clone()
    return tensors | more


def change_rows(path, **values):
    pq.write_table(pa.Table.from_pylist([row | values for row in pq.read_table(path).to_pylist()]), path)


@pytest.mark.parametrize("case", CASES)
def test_what_a_job_would_refuse_is_refused_before_any(place, here, study, refused, case):
    spoil, words = CASES[case]
    spoil(place)
    with refused("config: ", *words):
        examine_inputs(study())
    assert not any(VERDICTS.iterdir()) if VERDICTS.exists() else True


def test_added_tokens_belong_to_the_tokenizer(place, here, study):
    """A vocabulary of 1,280 of which 320 were added: `vocab_size` of the tokenizer leaves those out."""
    path = place / "model/tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    added = [token for token, index in vocabulary.items() if index >= 960]
    content["added_tokens"] += [
        {"id": vocabulary[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False, "special": False}
        for token in added
    ]
    content["model"]["vocab"] = {token: index for token, index in vocabulary.items() if index < 960}
    content["model"]["merges"] = []
    path.write_text(json.dumps(content))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place / "model")
    assert (tokenizer.vocab_size, len(tokenizer)) == (960, 1280)
    examine_inputs(study())


def test_a_share_that_is_allowed_is_let_through(place, here, study, refused):
    mamba(place)
    with refused("allow_dense_share"):
        examine_inputs(study(allow_dense_share=0.1))
    with refused("tokenizer"):
        examine_inputs(study(allow_dense_share=0.2))


def test_the_examination_is_a_process_of_its_own(place, study, refused, capfd):
    change_config(place, num_hidden_layers=5)
    with refused(f"config: {MODEL}", "the files lack model.layers.4."):
        examine_inputs(study())
    assert "once, and again after a change" in capfd.readouterr().err


def test_a_pattern_that_a_matrix_does_not_fit_is_refused(place, here, study, refused, config):
    config["methods"]["odd"] = {"module": "wanda", "sparsities": [0.5], "options": {"pattern": "2:4"}}
    config["scales"]["miniature"]["methods"] = ["dense", "odd"]
    (place / "model").rename(place / "before")
    model = tiny("llama", intermediate_size=46)
    model.save_pretrained(place / "model")
    with refused(MODEL, "tokenizer"):
        examine_inputs(study())
    for file in (place / "before").glob("token*"):
        (place / "model" / file.name).write_bytes(file.read_bytes())
    change_config(place, vocab_size=1280)
    wider = {"model.embed_tokens.weight", "lm_head.weight"}
    change_weights(place, lambda t: {name: v.new_zeros(1280, 32) if name in wider else v for name, v in t.items()})
    with refused(MODEL, "mlp.down_proj.weight has 46 inputs", "2:4"):
        examine_inputs(study())


def test_an_examination_that_does_not_end_is_ended(place, study, refused, monkeypatch):
    monkeypatch.setattr(examination, "SECONDS", 0.01)
    with refused("examining", MODEL, "more than"):
        examine_inputs(study())
    assert not VERDICTS.exists()


def test_ten_million_layers_are_refused_at_once(place, here, study, refused):
    change_config(place, num_hidden_layers=10**7)
    with refused(MODEL, "num_hidden_layers 10000000"):
        examine_inputs(study())


def test_whatever_a_library_makes_of_a_file_is_one_sentence(place, here, study, refused, monkeypatch):
    def fail(*arguments):
        raise RecursionError("too deep\nfor it")

    monkeypatch.setattr("leap_repro.models.examine.examine", fail)
    with refused(MODEL, "cannot be read", "RecursionError: too deep"):
        examine_inputs(study())


def test_what_is_appended_is_told_before_any_job(place, study, capfd):
    path = place / "model/tokenizer.json"
    content = json.loads(path.read_text())
    content["post_processor"] = {"type": "TemplateProcessing"} | {
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|end|>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [2], "tokens": ["<|end|>"]}},
    }
    path.write_text(json.dumps(content))
    examine_inputs(study())
    assert "note: its tokenizer appends <|end|> to every text, which is left out here" in capfd.readouterr().err
