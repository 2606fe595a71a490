"""Bad configurations and bad inputs, one table: each is refused in one sentence that names what is wrong and where.

A case of the first two tables is refused when the configuration is read, before any job; one of the third by the first
stage that opens the file, through the stage's own command line. `tests/unit/test_config.py` has seventy more values.
"""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from scratch import run_here

from leap_repro.data.text import READERS
from leap_repro.miniature.questions import task_sets
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.inputs import TEXT_SUFFIXES, check_inputs, check_yaml
from leap_repro.pipeline.reading import read_config
from leap_repro.store.artifacts import writing

CONFIG = """\
scale: small
methods:
  dense: {module: dense, sparsities: [0]}
  wanda: {module: wanda}
  leap: {module: leap, warm_start: wanda, options: {steps: 4}}
scales:
  small:
    models:
      mini: {source: path, path: model}
    data:
      calibration: {source: path, path: text.txt}
      mask_training: {source: path, path: text.txt}
      perplexity: {source: path, path: text.txt}
      tasks: {source: path, path: tasks}
    calibration: {sequences: 4, length: 32}
    mask_training: {sequences: 8, length: 32}
    evaluation: {perplexity_lengths: [32, 64], batch_size: 16}
    threads: 1
    methods: [dense, wanda, leap]
    sparsities: [0.5]
    seeds: [0]
"""

# what is replaced in CONFIG, by what, and words of the sentence
CONFIGURATIONS = [
    ("scale: small", "scale: small\ncolour: red", "colour"),
    ("    threads: 1", "    threads: 1\n    colour: red", "colour"),
    ("{source: path, path: model}", "{source: path, path: model, revision: main}", "revision"),
    ("{source: path, path: tasks}", "{source: path, path: tasks, split: test}", "split"),
    ("batch_size: 16", "batch_size: 16, stride: 2", "stride"),
    ("{module: wanda}", "{module: wanda, group: row}", "group"),
    ("options: {steps: 4}", "options: {step: 4}", "step"),
    (
        "options: {steps: 4}",
        "options: {looks: 4}",
        "methods.leap.options has the key 'looks', which is called 'held_out_evaluations' now",
    ),
    ("scale: small", "scale: smal", "smal", "small"),
    ("threads: 1", "threads: one", "threads", "one"),
    ("threads: 1", "threads: 0", "threads", "0"),
    ("threads: 1", "threads: 1.0", "threads", "1.0"),
    ("steps: 4", "steps: -4", "steps", "-4"),
    ("batch_size: 16", "batch_size: true", "batch_size", "True"),
    ("length: 32}\n    mask", "length: 1}\n    mask", "calibration.length", "1"),
    ("sparsities: [0.5]", "sparsities: []", "sparsities"),
    ("seeds: [0]", "seeds: []", "seeds"),
    ("methods: [dense, wanda, leap]", "methods: []", "methods"),
    ("      mini: {source: path, path: model}", "      {}", "models"),
    ("sparsities: [0.5]", "sparsities: [0.5, 0.5]", "[0.5, 0.5]"),
    ("seeds: [0]", "seeds: [1, 1]", "[1, 1]"),
    ("methods: [dense, wanda, leap]", "methods: [dense, dense]", "dense"),
    ("sparsities: [0.5]", "sparsities: [1]", "1"),
    ("sparsities: [0.5]", "sparsities: 0.5", "0.5"),
    ("sparsities: [0.5]", "sparsities: [half]", "half"),
    ("methods: [dense, wanda, leap]", "methods: [dense, wandb]", "wandb", "wanda"),
    ("warm_start: wanda", "warm_start: admm", "admm", "one-shot"),
    ("{module: wanda}", "{module: wandb}", "wandb"),
    ("mini: {", "org/mini: {", "org/mini", "folder"),
    ("      mask_training: {source: path, path: text.txt}\n", "", "mask_training"),
    # keys that stand twice: YAML would take the last
    ("seeds: [0]", "seeds: [0]\n    seeds: [1]", "scales.small.seeds", "21", "22"),
    ("  wanda: {module: wanda}", "  wanda: {module: wanda}\n  wanda: {module: dense}", "methods.wanda"),
    ("steps: 4", "steps: 4, steps: 5", "methods.leap.options.steps"),
    ("      mini: {source", "      mini: {source: bundled, name: x}\n      mini: {source", "models.mini"),
    # values that no comparison refuses, names that a pattern with $ or a folder's ".." would let through
    ("sparsities: [0.5]", "sparsities: [.nan]", "sparsities.0", "nan"),
    ("sparsities: [0.5]", "sparsities: [.inf]", "sparsities.0", "Infinity"),
    ("sparsities: [0.5]", "sparsities: [0.5, 0.50]", "[0.5, 0.5]"),
    ("sparsities: [0.5]", 'sparsities: ["0.5"]', "'0.5'", "number"),
    ("steps: 4", "steps: 4, learning_rate: .nan", "methods.leap.options.learning_rate", "nan"),
    ("steps: 4", "steps: 4, learning_rate: .inf", "methods.leap.options.learning_rate", "Infinity"),
    ("steps: 4", "steps: 4, learning_rate: 1e-3", "'1e-3'", "number"),
    ("steps: 4", "steps: 4, tau_end: 0", "tau_end", "above 0"),
    ("steps: 4", "steps: 4, beta2: 1", "beta2", "[0, 1)"),
    ("seeds: [0]", "seeds: [4294967296]", "4294967296", "4294967295"),
    ("seeds: [0]", "seeds: [true]", "seeds.0", "True"),
    ("[32, 64]", "[1]", "perplexity_lengths.0", "2"),
    ("mini: {", '"mini\\n": {', "mini", "folder"),
    ("mini: {", '"..": {', '".."', "folder"),
    ("mini: {", '"mi ni": {', "mi ni", "folder"),
    ("mini: {", "main: {", "'main'", "tables are named"),
    ("  small:\n", "  sm/all:\n", "sm/all", "folder"),
    ("  small:\n", "  '..':\n", '".."', "folder"),
    ("{source: path, path: model}", "{source: bundled, name: ../released/llama3.2-1b-mini}", "models.mini.name", "../"),
    ("{module: wanda}", '{module: wanda, label: "Wan\\nda"}', "methods.wanda.label", "one line"),
    # things that contradict each other within a method
    ("options: {steps: 4}", "options: {batch_size: 12}", "methods.leap.options.batch_size", "12", "8"),
    ("options: {steps: 4}", "options: {micro_batch_size: 7}", "methods.leap.options.batch_size", "256", "7"),
    ("{module: wanda}", "{module: admm, options: {iterations: 5}}", "mask_iterations", "15", "5"),
    (
        "sparsities: [0.5]",
        "sparsities: [0.5]\n    options: {wanda: {group: row}}",
        "methods.wanda.options",
        "group",
    ),
    (
        "{module: wanda}",
        '{module: admm, options: {pattern: "2:4", group: row}}',
        "methods.wanda.options.group",
        "matrix",
    ),
    ("{module: wanda}", "{module: thanos, options: {alpha: 0.1}}", "methods.wanda.options.alpha", "0.1"),
    ("sparsities: [0]}", "sparsities: [0.5]}", "methods.dense.sparsities", "[0.5]", "[0]"),
    ("{module: wanda}", "{module: wanda, warm_start: dense}", "methods.wanda.warm_start", "dense"),
    ("{module: wanda}", "{module: wanda, hardening: threshold}", "methods.wanda.hardening", "leap"),
    ("{module: wanda}", "{module: wanda, variant_of: wanda}", "methods.wanda.variant_of", "another"),
    # places that do not exist, lengths that do not fit
    ("path: model", "path: modell", "models.mini.path", "modell", "folder"),
    ("{source: path, path: model}", "{source: bundled, name: minni}", "minni", "llama3.2-1b-mini"),
    (
        "calibration: {source: path, path: text.txt}",
        "calibration: {source: path, path: t.txt}",
        "calibration.path",
        "t.txt",
    ),
    (
        "perplexity: {source: path, path: text.txt}",
        "perplexity: {source: path, path: text.csv}",
        "text.csv",
        ".parquet",
    ),
    ("path: tasks", "path: task", "tasks.path", "'task'", ".parquet"),
    ("{module: wanda}", "{module: imported}", "methods.wanda", "options.path", "''"),
    ("{module: wanda}", "{module: imported, options: {path: m.npz}}", "methods.wanda", "options.path", "m.npz"),
    ("length: 32}\n    mask", "length: 512}\n    mask", "calibration.length", "512", "256"),
    ("sequences: 8, length: 32", "sequences: 8, length: 512", "mask_training.length", "512", "256"),
    ("[32, 64]", "[32, 257]", "perplexity_lengths", "257", "256"),
]


# a whole config.yaml, and words of the sentence
FILES = {
    "empty": (b"", "config.yaml", "mapping"),
    "a remark only": (b"# nothing\n", "config.yaml", "mapping"),
    "a list": (b"- scale\n- methods\n", "config.yaml", "mapping"),
    "a bracket that is not closed": (CONFIG.replace("seeds: [0]", "seeds: [0").encode(), "config.yaml", "line 22"),
    "a tab": (CONFIG.replace("    threads", "\tthreads").encode(), "config.yaml", "line 18"),
    "an alias of nothing": (CONFIG.replace("[0.5]", "*half").encode(), "config.yaml", "line 20", "alias"),
    "an alias inside what it stands for": (b"scale: &a [*a]\n", "config.yaml", "line 1", "alias"),
    "a tag that would run code": (b"scale: !!python/object/apply:os.getpid []\n", "config.yaml", "line 1", "tag"),
    "not UTF-8": (b"\xff\xfe\x00scale", "config.yaml", "UTF-8"),
}


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def replace_json(path, **keys):
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


# what happens to a folder in which CONFIG is right, and words of the sentence
PLACES = {
    "no weights": (lambda folder: (folder / "model/model.safetensors").unlink(), "model", ".safetensors"),
    "no config.json": (lambda folder: (folder / "model/config.json").unlink(), "model", "config.json"),
    "broken config.json": (lambda folder: cut(folder / "model/config.json", 20), "config.json", "JSON"),
    "weights cut short": (
        lambda folder: cut(folder / "model/model.safetensors", 5000),
        "model.safetensors",
        "cut short",
    ),
    "weights cut in the header": (lambda folder: cut(folder / "model/model.safetensors", 100), "header"),
    "empty weights": (lambda folder: cut(folder / "model/model.safetensors", 0), "model.safetensors", "header"),
    "weights that are something else": (
        lambda folder: (folder / "model/model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "model.safetensors",
    ),
    "a model that is a file": (
        lambda folder: (shutil.rmtree(folder / "model"), (folder / "model").write_text("x")),
        "models.mini.path",
    ),
    "a text that is a folder": (
        lambda folder: ((folder / "text.txt").unlink(), (folder / "text.txt").mkdir()),
        "text.txt",
    ),
    "tasks without parquet": (
        lambda folder: (shutil.rmtree(folder / "tasks"), (folder / "tasks").mkdir()),
        "tasks.path",
    ),
    "results that are a file": (lambda folder: (folder / "results").write_text("x"), "results"),
}


def task(folder, name, row):
    (folder / f"tasks/{name}").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist([row]), folder / f"tasks/{name}/test.parquet")


DATA = ("data", ["--role", "perplexity"], "--spec")
TEXT = {"source": "path", "path": "text.txt"}
TASKS = ("data", ["--role", "tasks"], "--spec", {"source": "path", "path": "tasks"})
MODEL = ("models", [], "--spec", {"source": "path", "path": "model"})

# what happens to the folder, the stage, its arguments, and words of the sentence
STAGES = {
    "no text in a text file": (
        lambda f: (f / "text.txt").write_text(" \n\n \n"),
        (*DATA, TEXT),
        "text.txt",
        "no document",
    ),
    "text that is not UTF-8": (lambda f: (f / "text.txt").write_bytes(b"\xff\xfe\x00"), (*DATA, TEXT), "text.txt"),
    "parquet without a column text": (
        lambda f: pq.write_table(pa.table({"content": ["a"]}), f / "text.parquet"),
        (*DATA, TEXT | {"path": "text.parquet"}),
        "text.parquet",
        "'text'",
    ),
    "lines without a key text": (
        lambda f: (f / "text.jsonl").write_text('{"content": "a"}\n'),
        (*DATA, TEXT | {"path": "text.jsonl"}),
        "text.jsonl",
        "'text'",
    ),
    "lines that are not JSON": (
        lambda f: (f / "text.jsonl").write_text("hello\n"),
        (*DATA, TEXT | {"path": "text.jsonl"}),
        "text.jsonl",
    ),
    "a task file with a missing column": (lambda f: task(f, "piqa", {"goal": "a"}), TASKS, "piqa/test.parquet", "sol1"),
    "a task set that nobody knows": (lambda f: task(f, "quiz", {"q": "a"}), TASKS, "quiz", "piqa"),
    "a task file that is no parquet": (
        lambda f: (f / "tasks/piqa/validation.parquet").write_bytes(b"PAR1"),
        TASKS,
        "piqa/validation.parquet",
    ),
    "a model type that nobody knows": (
        lambda f: replace_json(f / "model/config.json", model_type="llama9"),
        MODEL,
        "llama9",
    ),
    "a model without a tokenizer": (
        lambda f: [p.unlink() for p in (f / "model").glob("tokenizer*")],
        MODEL,
        "tokenizer",
    ),
    "a model with a larger vocabulary than its tokenizer": (
        lambda f: replace_json(f / "model/config.json", vocab_size=2560),
        MODEL,
        "1280",
        "2560",
    ),
    "a model with a smaller vocabulary than its tokenizer": (
        lambda f: replace_json(f / "model/config.json", vocab_size=640),
        MODEL,
        "1280",
        "640",
    ),
    "a calibration longer than the model's positions": (
        lambda f: None,
        (
            "calibration",
            ["--text", "text", "--recipe", "packed", "--sequences", "1", "--length", "512"],
            "--model",
            "whole",
        ),
        "512",
        "256",
    ),
    "more calibration than there is text": (
        lambda f: None,
        (
            "calibration",
            ["--text", "text", "--recipe", "packed", "--sequences", "99", "--length", "64"],
            "--model",
            "whole",
        ),
        "99",
        "64",
    ),
    "an input that was never made": (
        lambda f: None,
        ("harden", ["--cell", "a/b/0.5/0"], "--pruned", "nowhere"),
        "nowhere",
    ),
    "an option that the method does not have": (
        lambda f: None,
        ("prune", ["--module", "wanda", "--sparsity", "0.5", "--options", '{"rho": 1}'], "--model", "whole"),
        "rho",
    ),
    "a method that does not exist": (
        lambda f: None,
        ("prune", ["--module", "wandb", "--sparsity", "0.5"], "--model", "whole"),
        "wandb",
    ),
    "a sparsity that is no number": (
        lambda f: None,
        ("prune", ["--module", "magnitude", "--sparsity", "half"], "--model", "whole"),
        "half",
    ),
    "a method that needs tokens and has none": (
        lambda f: None,
        ("prune", ["--module", "wanda", "--sparsity", "0.5"], "--model", "whole"),
        "it needs tokens",
    ),
}


@pytest.fixture(scope="module")
def right(tmp_path_factory, project):
    """A folder in which CONFIG is right, with a fetched model and text besides for the later stages."""
    folder = tmp_path_factory.mktemp("right")
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "text.txt").write_text("\n\n".join(f"A page about number {number}." for number in range(9)))
    shutil.copytree(project / "src/leap_repro/miniature/released/llama3.2-1b-mini", folder / "model")
    for name, splits in task_sets().items():
        (folder / "tasks" / name).mkdir(parents=True)
        for split, rows in splits.items():
            pq.write_table(pa.Table.from_pylist(rows[:1]), folder / "tasks" / name / f"{split}.parquet")
    with writing(folder / "whole", {}) as (payload, _):
        shutil.copytree(folder / "model", payload, dirs_exist_ok=True)
    with writing(folder / "text", {}) as (payload, _):
        pq.write_table(pa.table({"text": ["A page."] * 9}), payload / "text.parquet")
    return folder


@pytest.fixture
def place(right, tmp_path, monkeypatch):
    """A copy of that folder for one case to spoil, as the working directory."""
    shutil.copytree(right, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def read(folder):
    """What the workflow does first."""
    check_yaml(folder / "config.yaml")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    check_inputs(read_study(config), outputs=("results", "logs"))


def test_the_suffixes_that_are_allowed_before_are_those_that_can_be_read():
    assert set(TEXT_SUFFIXES) == set(READERS)


def test_what_the_cases_spoil_is_right_before(place):
    read(place)


@pytest.mark.parametrize(
    ("old", "new", "words"), [(a, b, c) for a, b, *c in CONFIGURATIONS], ids=[b for _, b, *_ in CONFIGURATIONS]
)
def test_a_bad_configuration_is_refused_before_any_job(place, refused, old, new, words):
    assert CONFIG.count(old) >= 1
    (place / "config.yaml").write_text(CONFIG.replace(old, new, 1))
    with refused(*words):
        read(place)


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_configuration_is_refused_with_its_line(place, refused, case):
    content, *words = FILES[case]
    (place / "config.yaml").write_bytes(content)
    with refused(*words):
        read(place)


def test_an_alias_of_an_alias_is_not_followed_again_and_again(place):
    """Thirty levels of two aliases each: a billion nodes for whoever follows them all."""
    levels = [f"a{level + 1}: &a{level + 1} [*a{level}, *a{level}]" for level in range(30)]
    (place / "config.yaml").write_text("\n".join(["a0: &a0 [x]", *levels]))
    check_yaml(place / "config.yaml")


TEMPLATES = [
    "__use_yte__: true\n",
    "__use_yte__: false\n",
    '"\\x5f_use_yte__": true\n',
    "? __use_yte__\n: true\n",
    "base: &base {__use_yte__: true}\n<<: *base\n",
    '{"__use_yte__": true}\n',
]


@pytest.mark.parametrize("text", TEMPLATES)
def test_a_file_that_would_run_code_is_refused_by_every_command_that_reads_it(place, refused, text):
    """Read as text; `leap-repro config`, `plan`, `pin` and `prune` read their files by `read_config`."""
    (place / "more.yaml").write_text(text)
    for read_it in (check_yaml, lambda path: read_config([path])):
        with refused("more.yaml, line", "__use_yte__", "run Python code"):
            read_it(place / "more.yaml")


@pytest.mark.parametrize("name", ["model", "text.txt", "tasks"])
def test_a_name_that_snakemake_cannot_look_for_is_refused(place, refused, name):
    (place / name).rename(place / f"{{x}}&$HOME-{name}")
    (place / "config.yaml").write_text(CONFIG.replace(f"path: {name}}}", f'path: "{{x}}&$HOME-{name}"}}'))
    with refused(f"{{x}}&$HOME-{name}", "Snakemake reads braces as wildcards"):
        read(place)


@pytest.mark.parametrize("case", PLACES)
def test_a_bad_place_is_refused_before_any_job(place, refused, case):
    spoil, *words = PLACES[case]
    spoil(place)
    with refused(*words):
        read(place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_refused_before_any_job(place, refused):
    place.chmod(0o555)
    try:
        with refused("results", "permission"):
            read(place)
    finally:
        place.chmod(0o755)


@pytest.mark.parametrize("case", STAGES)
def test_a_bad_input_is_refused_by_the_stage_that_opens_it(place, monkeypatch, capsys, case):
    spoil, (stage, arguments, flag, value), *words = STAGES[case]
    spoil(place)
    value = json.dumps(value) if isinstance(value, dict) else value
    status, sentence = run_here(
        ["leap_repro.pipeline", stage, *arguments, flag, value, "--output", "out"], monkeypatch, capsys
    )
    assert status == 2
    assert sentence.startswith("error: ")
    for word in words:
        assert word in sentence
    assert not (place / "out/manifest.json").exists()


@pytest.mark.parametrize("role", ["models", "calibration", "tasks"])
def test_a_path_in_the_home_of_nobody_is_refused_before_any_job(config, refused, role):
    scale, source = config["scales"]["miniature"], {"source": "path", "path": "~nosuchuser/x.txt"}
    if role == "models":
        scale |= {"models": {"mine": source}, "only_models": {}}
    else:
        scale["data"][role] = source
    with refused("path is '~nosuchuser/x.txt'", "no such home folder"):
        check_inputs(read_study(config), outputs=())
