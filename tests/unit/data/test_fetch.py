"""Text and task sets arrive in one form from every source, and what is not in that form is refused by name."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leap_repro.data.tasks import _write_split, fetch_tasks
from leap_repro.data.text import fetch_text
from leap_repro.miniature.text import SPLIT_PAGES, pages
from leap_repro.store.texts import TEXT_FILE

TEXTS = ["One document.", "Another,\nof two lines: ä€."]
CHOICES = {"question": str, "choices": dict, "answerKey": str}
COLUMNS = {
    "piqa/validation": {"goal": str, "sol1": str, "sol2": str, "label": int},
    "winogrande/validation": {"sentence": str, "option1": str, "option2": str, "answer": str},
    "openbookqa/test": {"question_stem": str, "choices": dict, "answerKey": str},
    "arc_easy/test": CHOICES,
    "arc_challenge/test": CHOICES,
}
MMLU_COLUMNS = {"question": str, "choices": list, "answer": int}


def write_text_file(path, texts=TEXTS):
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": list(range(len(texts))), "text": texts}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts), encoding="utf-8")
    else:
        path.write_text("\n\n".join(texts), encoding="utf-8")
    return {"source": "path", "path": str(path)}


@pytest.fixture
def payload(tmp_path):
    folder = tmp_path / "payload"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """The bundled task sets, fetched: (folder, facts)."""
    folder = tmp_path_factory.mktemp("tasks")
    return folder, fetch_tasks({"source": "bundled"}, folder)


@pytest.fixture
def local_tasks(tasks, tmp_path):
    """A copy of the task sets that a test may spoil."""
    folder = tmp_path / "local"
    shutil.copytree(tasks[0], folder)
    return folder


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_documents_of_every_format_end_in_the_same_parquet(tmp_path, payload, suffix):
    facts = fetch_text(write_text_file(tmp_path / f"corpus{suffix}"), payload)
    assert pq.read_table(payload / TEXT_FILE).to_pydict() == {"text": TEXTS}
    assert facts == {"documents": 2, "characters": sum(map(len, TEXTS))}


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_blank_rows_stay_where_they_are_and_a_text_of_nothing_else_is_refused(tmp_path, payload, refused, suffix):
    rows = ["", TEXTS[0], "", "", TEXTS[1], " \n"]
    assert fetch_text(write_text_file(tmp_path / f"some{suffix}", rows), payload)["documents"] == 6
    assert pq.read_table(payload / TEXT_FILE).column("text").to_pylist() == rows
    with refused("no document", f"none{suffix}"):
        fetch_text(write_text_file(tmp_path / f"none{suffix}", ["", " "]), payload)


@pytest.mark.parametrize("split", ["calibration", "test"])
def test_bundled_text_is_the_miniatures_split(payload, split):
    facts = fetch_text({"source": "bundled", "split": split}, payload)
    assert facts["documents"] == SPLIT_PAGES[split]
    assert pq.read_table(payload / TEXT_FILE).column("text").to_pylist() == pages(split)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.csv", b"text\n", ("x.csv", ".jsonl", ".parquet", ".txt")),
        ("missing.txt", None, ("missing.txt",)),
        ("x.jsonl", b'{"texts": "a"}\n', ("x.jsonl", "'text'")),
        ("x.jsonl", b"no json\n", ("x.jsonl",)),
        ("x.jsonl", b'["text"]\n', ("x.jsonl",)),
        ("x.jsonl", b'{"text": 5}\n', ("x.jsonl",)),
        ("x.parquet", b"no parquet", ("x.parquet",)),
        ("x.txt", b"\xff\xfe\xfa", ("x.txt",)),
    ],
)
def test_text_that_cannot_be_read_is_refused_by_its_path(tmp_path, payload, refused, name, data, words):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with refused(*words):
        fetch_text({"source": "path", "path": str(tmp_path / name)}, payload)
    assert not list(payload.iterdir())


@pytest.mark.parametrize("columns", [{"texts": ["a"]}, {"text": [5]}], ids=["missing", "not text"])
def test_parquet_without_a_text_column_is_refused_by_its_path(tmp_path, payload, refused, columns):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with refused("x.parquet", "'text'"):
        fetch_text({"source": "path", "path": str(tmp_path / "x.parquet")}, payload)


@pytest.mark.parametrize("fetch", [fetch_text, fetch_tasks])
@pytest.mark.parametrize("spec", [{"source": "ftp"}, {}])
def test_an_unknown_source_is_refused_with_the_known_ones(payload, refused, fetch, spec):
    with refused(repr(spec.get("source")), "bundled", "hub", "path"):
        fetch(spec, payload)


def test_an_unknown_split_is_refused_with_the_known_ones(payload, refused):
    with refused("'valid'", *SPLIT_PAGES):
        fetch_text({"source": "bundled", "split": "valid"}, payload)


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_a_task_has_the_originals_columns_and_at_least_400_questions(tasks, name):
    rows = pq.read_table(tasks[0] / f"{name}.parquet").to_pylist()
    assert len(rows) >= 400
    for row in rows:
        assert {column: type(row[column]) for column in COLUMNS[name]} == COLUMNS[name]
        if "choices" in COLUMNS[name]:
            assert row["choices"].keys() == {"text", "label"}
            assert row["choices"]["label"] == ["A", "B", "C", "D"]
            assert len(row["choices"]["text"]) == 4
            assert row["answerKey"] in row["choices"]["label"]


def test_mmlu_has_six_subjects_or_more_in_the_originals_columns_and_at_least_400_questions(tasks):
    subjects = sorted(tasks[0].glob("mmlu_*"))
    assert len(subjects) >= 6
    rows = [row for subject in subjects for row in pq.read_table(subject / "test.parquet").to_pylist()]
    assert len(rows) >= 400
    for row in rows:
        assert {column: type(row[column]) for column in MMLU_COLUMNS} == MMLU_COLUMNS
        assert len(row["choices"]) == 4
        assert 0 <= row["answer"] < 4
    assert all(len(pq.read_table(subject / "dev.parquet")) == 5 for subject in subjects)


def test_the_facts_count_the_rows_of_every_file(tasks):
    folder, facts = tasks
    files = {f"{path.parent.name}/{path.stem}": len(pq.read_table(path)) for path in folder.glob("*/*.parquet")}
    assert facts == {"rows": files}


def test_a_local_folder_of_task_sets_is_taken_as_it_is(tasks, local_tasks, payload):
    assert fetch_tasks({"source": "path", "path": str(local_tasks)}, payload) == tasks[1]
    name = "piqa/validation.parquet"
    assert (payload / name).read_bytes() == (local_tasks / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "column"),
    [("piqa/validation", "label"), ("mmlu_nutrition/dev", "answer"), ("openbookqa/train", "question_stem")],
)
def test_a_task_file_that_lacks_a_column_is_refused_by_name(local_tasks, payload, refused, name, column):
    path = local_tasks / f"{name}.parquet"
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    with refused(f"{name}.parquet", column):
        fetch_tasks({"source": "path", "path": str(local_tasks)}, payload)


def test_a_task_file_that_is_no_parquet_is_refused_by_name(local_tasks, payload, refused):
    (local_tasks / "piqa" / "validation.parquet").write_bytes(b"no parquet")
    with refused("piqa/validation.parquet"):
        fetch_tasks({"source": "path", "path": str(local_tasks)}, payload)


def test_an_unknown_task_set_is_refused_by_name(local_tasks, payload, refused):
    shutil.copytree(local_tasks / "piqa", local_tasks / "hellaswag")
    with refused("hellaswag"):
        fetch_tasks({"source": "path", "path": str(local_tasks)}, payload)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_folder_without_task_sets_is_refused_by_its_path(tmp_path, payload, refused, name):
    with refused(repr(str(tmp_path / name)), "<set>/<split>.parquet"):
        fetch_tasks({"source": "path", "path": str(tmp_path / name)}, payload)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{oops", "line 701, column 2"),
        ('{"content": "a"}', "line 701 is not an object with a key 'text'"),
        ("[1]", "line 701 is not an object"),
        ('{"text": 5}', "line 701: its 'text' is 5"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, payload, refused, line, words):
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "a"}\n' * 700 + line + "\n")
    with refused("text.jsonl", words):
        fetch_text({"source": "path", "path": str(path)}, payload)


def test_a_home_folder_may_be_abbreviated(tmp_path, payload, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "text.txt").write_text("a\n\nb")
    assert fetch_text({"source": "path", "path": "~/text.txt"}, payload)["documents"] == 2


@pytest.mark.parametrize("value", ["../../up", "/abs", "a/b", "", None, 3])
def test_a_value_that_would_be_no_folders_name_is_refused(tmp_path, refused, value):
    pq.write_table(pa.table({"subject": [value], "question": ["q"]}), tmp_path / "all.parquet")
    (tmp_path / "payload").mkdir()
    with refused("task set mmlu", "split_by 'subject'", repr(value)):
        _write_split(tmp_path / "all.parquet", tmp_path / "payload", "mmlu", "test", "subject")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["all.parquet", "payload"]
