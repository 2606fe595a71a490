"""Text and task sets from the hub: the named files in their order, in every form, of the expected sizes."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback_hub import Repository

from leap_repro.data.tasks import place_tasks
from leap_repro.data.text import fetch_text

COMMIT = "a" * 40
ROWS = [["", "One.", "Two: ä€."], ["Three.", "", " \n"], ["Four."]]
SPEC = {"source": "hub", "id": "owner/text", "revision": COMMIT}
QUESTIONS = [{"goal": "g", "sol1": "a", "sol2": "b", "label": index % 2} for index in range(3)]


@pytest.fixture
def texts(hub, tmp_path):
    """`owner/text`: three parquet files, the same as JSON lines, and one file without text."""
    folder = tmp_path / "text"
    (folder / "data").mkdir(parents=True)
    for index, rows in enumerate(ROWS):
        pq.write_table(
            pa.table({"meta": [1] * len(rows), "text": rows}), folder / f"data/train-{index}-of-3-abc.parquet"
        )
        lines = "".join(json.dumps({"text": text, "url": "x"}) + "\n" for text in rows)
        (folder / f"data/{index}.json.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.table({"words": ["x"]}), folder / "other.parquet")
    (folder / "broken.json.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 1000)[:-20])
    hub.add("dataset", "owner/text", Repository(folder, COMMIT))
    return folder


def read(payload):
    return [pq.read_table(path).column("text").to_pylist() for path in sorted(payload.glob("text*.parquet"))]


@pytest.mark.parametrize("pattern", ["data/train-*.parquet", "data/?.json.gz"])
def test_every_row_of_the_named_files_comes_in_their_order(texts, payload, pattern):
    facts = fetch_text(SPEC | {"files": [pattern]}, payload, {})
    assert read(payload) == ROWS
    assert facts == {"documents": 7, "characters": sum(len(text) for rows in ROWS for text in rows)}


def test_a_slice_is_the_files_that_the_patterns_name(texts, payload):
    fetch_text(SPEC | {"files": ["data/train-2*", "data/train-0*"]}, payload, {})
    assert read(payload) == [ROWS[2], ROWS[0]]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["data/test*"], ("owner/text", "'data/test*'")),
        (["other.parquet"], ("other.parquet of dataset owner/text", "'text'")),
        (["broken.json.gz"], ("broken.json.gz of dataset owner/text",)),
    ],
)
def test_files_that_are_not_there_or_hold_no_text_are_refused_by_name(texts, payload, refused, files, words):
    with refused(*words):
        fetch_text(SPEC | {"files": files}, payload, {})
    assert not list(payload.iterdir())


def test_the_expected_size_is_taken(texts, payload):
    fetch_text(SPEC | {"files": ["data/train-0*"], "expect": {"documents": 3}}, payload, {})


def test_another_size_than_the_expected_is_refused_by_name(texts, payload, refused):
    with refused("owner/text", "expect.documents is 4358", "3"):
        fetch_text(SPEC | {"files": ["data/train-0*"], "expect": {"documents": 4358}}, payload, {})


@pytest.fixture
def sets(hub, tmp_path):
    """`owner/sets`: PIQA as parquet and as JSON lines, and MMLU's subjects in one file."""
    folder = tmp_path / "sets"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(QUESTIONS), folder / "piqa.parquet")
    (folder / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    subjects = ["law", "art", "law"]
    rows = [
        {"question": str(i), "subject": name, "choices": list("abcd"), "answer": i} for i, name in enumerate(subjects)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "mmlu.parquet")
    hub.add("dataset", "owner/sets", Repository(folder, COMMIT))
    return {"id": "owner/sets", "revision": COMMIT}


@pytest.mark.parametrize("file", ["piqa.parquet", "piqa.jsonl"])
def test_a_split_comes_as_parquet_whatever_its_form(sets, payload, file):
    spec = {"source": "hub", "sets": {"piqa": sets | {"files": {"validation": file}, "expect": {"validation": 3}}}}
    place_tasks(spec, payload, {})
    assert pq.read_table(payload / "piqa/validation.parquet").to_pylist() == QUESTIONS


def test_a_set_is_cut_by_a_column_in_the_order_of_its_rows(sets, payload):
    files = {"files": {"test": "mmlu.parquet"}, "split_by": "subject", "expect": {"test": 3}}
    place_tasks({"source": "hub", "sets": {"mmlu": sets | files}}, payload, {})
    assert pq.read_table(payload / "mmlu_art/test.parquet").num_rows == 1
    assert pq.read_table(payload / "mmlu_law/test.parquet").column("answer").to_pylist() == [0, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"expect": {"test": 500}}, ("piqa", "owner/sets", "expect.test is 500", "3")),
        ({"files": {"test": "*.*"}}, ("'*.*'", "one file")),
        ({"split_by": "subject"}, ("piqa", "subject")),
    ],
)
def test_a_set_that_is_not_as_the_config_says_is_refused_by_name(sets, payload, refused, change, words):
    with refused(*words):
        place_tasks(
            {"source": "hub", "sets": {"piqa": sets | {"files": {"test": "piqa.parquet"}} | change}}, payload, {}
        )
