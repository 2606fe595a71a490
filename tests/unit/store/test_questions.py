"""Task sets that cannot be scored are refused by set and file; the splits are those of lm-eval's definitions."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from leap_repro.evaluate.tasks import MMLU_YAML, STOCK_YAML
from leap_repro.miniature.questions import task_sets
from leap_repro.store.questions import FORMS, TASKS, check_sets, mmlu_subjects, stock_definition, stock_folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    for name, splits in task_sets().items():
        (folder / name).mkdir()
        for split, rows in splits.items():
            pq.write_table(pa.Table.from_pylist(rows[:3]), folder / name / f"{split}.parquet")
    return folder


@pytest.fixture
def sets(whole, tmp_path):
    import shutil

    return shutil.copytree(whole, tmp_path / "sets")


def check(folder, *further):
    return check_sets(folder.glob("*/*.parquet"), further)


def test_whole_sets_are_counted(sets):
    rows = check(sets)
    assert rows["piqa/validation"] == 3
    assert set(rows) == {f"{path.parent.name}/{path.stem}" for path in sets.glob("*/*.parquet")}


def replace(folder, file, change):
    path = folder / file
    pq.write_table(pa.Table.from_pylist([change(row) for row in pq.read_table(path).to_pylist()]), path)


def empty(path):
    pq.write_table(pq.read_table(path).slice(0, 0), path)


CASES = {
    "a set that is missing": (lambda f: [p.unlink() for p in (f / "piqa").iterdir()], ("piqa", "missing")),
    "no subject of MMLU": (
        lambda f: [p.unlink() for p in f.glob("mmlu_*/*")],
        ("mmlu_<subject>", "missing"),
    ),
    "a subject that MMLU does not have": (
        lambda f: (f / "mmlu_astronomy").rename(f / "mmlu_astrology"),
        ("mmlu_astrology", "is unknown"),
    ),
    "a set without its prefix": (
        lambda f: (f / "mmlu_astronomy").rename(f / "astronomy"),
        ("astronomy", "is unknown"),
    ),
    "a split that is missing": (lambda f: (f / "arc_easy/test.parquet").unlink(), ("arc_easy has no split 'test'",)),
    "MMLU without examples": (
        lambda f: (f / "mmlu_nutrition/dev.parquet").unlink(),
        ("mmlu_nutrition has no split 'dev'",),
    ),
    "an empty set": (
        lambda f: pq.write_table(
            pq.read_table(f / "winogrande/validation.parquet").slice(0, 0), f / "winogrande/validation.parquet"
        ),
        ("winogrande", "holds no question"),
    ),
    "a file that is no parquet": (lambda f: (f / "piqa/train.parquet").write_bytes(b"PAR1"), ("piqa/train.parquet",)),
    "a column that is missing": (
        lambda f: replace(f, "piqa/validation.parquet", lambda row: {k: v for k, v in row.items() if k != "sol2"}),
        ("piqa/validation.parquet", "sol2"),
    ),
    "keys that were held back": (
        lambda f: replace(f, "piqa/validation.parquet", lambda row: row | {"label": -1}),
        ("piqa", "row 0", "label -1"),
    ),
    "keys that are empty": (
        lambda f: replace(f, "winogrande/validation.parquet", lambda row: row | {"answer": ""}),
        ("winogrande", "answer ''"),
    ),
    "a key that is no choice": (
        lambda f: replace(f, "openbookqa/test.parquet", lambda row: row | {"answerKey": "E"}),
        ("openbookqa", "answerKey 'E'"),
    ),
    "a key that is null": (
        lambda f: replace(f, "mmlu_nutrition/test.parquet", lambda row: row | {"answer": None}),
        ("mmlu_nutrition", "answer None"),
    ),
}


def as_json(folder, file):
    """Its choices as JSON text, which nothing reads as JSON."""
    replace(folder, file, lambda row: row | {"choices": json.dumps(row["choices"])})


CASES |= {
    "choices of ARC as JSON text": (
        lambda f: as_json(f, "arc_easy/test.parquet"),
        ("arc_easy", "choices of test.parquet is of type string", "{text: [...], label: [...]}"),
    ),
    "choices of OpenBookQA as a list": (
        lambda f: replace(f, "openbookqa/test.parquet", lambda row: row | {"choices": row["choices"]["text"]}),
        ("openbookqa", "choices of test.parquet is of type list<"),
    ),
    "choices of MMLU as JSON text, of which letters would be asked": (
        lambda f: as_json(f, "mmlu_nutrition/test.parquet"),
        ("mmlu_nutrition", "choices of test.parquet is of type string", "a list of texts"),
    ),
    "choices of MMLU's examples as JSON text": (
        lambda f: as_json(f, "mmlu_nutrition/dev.parquet"),
        ("mmlu_nutrition", "choices of dev.parquet"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_sets_that_cannot_be_scored_are_refused_by_name(sets, refused, case):
    spoil, words = CASES[case]
    spoil(sets)
    with refused(*words):
        check(sets)


def test_a_further_task_is_let_through_by_its_name(sets, refused):
    (sets / "boolq").mkdir()
    pq.write_table(pa.table({"passage": ["x"]}), sets / "boolq/validation.parquet")
    with refused("boolq", "further"):
        check(sets)
    assert check(sets, "boolq")["boolq/validation"] == 1


class _Loader(yaml.SafeLoader):
    """Reads lm-eval's definitions without the functions that they name."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def definition(file):
    """A definition with what it includes."""
    path = stock_folder() / file
    values = yaml.load(path.read_text(), Loader=_Loader)
    included = values.get("include")
    return (definition(path.parent.relative_to(stock_folder()) / included) if included else {}) | values


@pytest.mark.parametrize("task", TASKS)
def test_the_splits_are_those_of_the_definitions(task):
    file = MMLU_YAML.format(subject="astronomy") if task == "mmlu" else STOCK_YAML[task]
    values = definition(file)
    splits = {values.get(f"{kind}_split") for kind in ("training", "validation", "test", "fewshot")} - {None}
    assert set(FORMS[task].splits) == splits
    assert FORMS[task].scored == (values.get("test_split") or values["validation_split"])


def test_there_are_57_subjects():
    assert len(mmlu_subjects()) == 57


@pytest.mark.parametrize("name", ["arc/../../evil.yaml", "/tmp/evil.yaml", "arc", "arc/nothing.yaml", "piqa/README.md"])
def test_a_definition_lies_below_lm_evals_tasks(name, refused):
    with refused(repr(name), "lm-eval"):
        stock_definition(name)
    assert stock_definition("piqa/piqa.yaml").is_file()
