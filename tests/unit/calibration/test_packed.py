"""The packed stream: the documents one after another, in any number of files, groups and shards, and across kills."""

import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from leap_repro.calibration import packed
from leap_repro.calibration.packed import CURSOR, pack_sequences
from leap_repro.errors import UserError
from leap_repro.miniature.text import pages
from leap_repro.store.atomic import write_json
from leap_repro.store.sealed import write_sealed
from leap_repro.store.tokens import TokenRows

LENGTH = 48


class Killed(BaseException):
    """What a kill looks like from inside."""


@pytest.fixture(scope="module")
def texts():
    return [*pages("calibration", 40), "The friend of Dala.", "", " \n"]


@pytest.fixture(scope="module")
def files(texts, tmp_path_factory):
    """The texts over two files, in row groups of seven documents."""
    folder = tmp_path_factory.mktemp("text")
    for index, part in enumerate((texts[:25], texts[25:])):
        pq.write_table(pa.table({"meta": [1] * len(part), "text": part}), folder / f"{index}.parquet", row_group_size=7)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def pieces(texts, tokenizer):
    """Every document that is not blank as its ids and EOS."""
    return [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts if text.strip()]


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(packed, "IDS_PER_SHARD", 10 * LENGTH)
    monkeypatch.setattr(packed, "BATCH", 3)


def read(paths):
    return TokenRows(paths)[:]


def documents_of(stream, pieces):
    """The indices of the pieces that `stream` is made of, the last of which may be cut."""
    position, used = 0, []
    while position < len(stream):
        left = stream[position:]
        fits = [index for index, piece in enumerate(pieces) if piece[: len(left)] == left[: len(piece)]]
        assert fits, f"no document goes on at {position}"
        used.append(fits[0])
        position += len(pieces[fits[0]])
    return used


def test_the_stream_is_the_documents_one_after_another_each_closed_by_eos(files, pieces, tokenizer, tmp_path):
    paths = pack_sequences(tokenizer, files, 60, LENGTH, 0, tmp_path)
    rows = read(paths)
    assert [path.name for path in paths] == ["tokens.safetensors"]
    assert rows.shape == (60, LENGTH)
    used = documents_of(rows.flatten().tolist(), pieces)
    assert len(set(used)) == len(used) > 1
    assert used != sorted(used)


def test_it_may_use_every_token_but_no_more(files, pieces, tokenizer, tmp_path, refused):
    total = sum(map(len, pieces))
    (row,) = read(pack_sequences(tokenizer, files, 1, total, 0, tmp_path / "all")).tolist()
    assert sorted(documents_of(row, pieces)) == list(range(len(pieces)))
    with refused(f"{total} tokens", f"length={total + 1}"):
        pack_sequences(tokenizer, files, 1, total + 1, 0, tmp_path / "more")


def test_shards_and_batches_do_not_change_the_stream(files, tokenizer, tmp_path, small_shards, monkeypatch):
    many = pack_sequences(tokenizer, files, 35, LENGTH, 0, tmp_path / "many")
    assert [path.name for path in many] == [f"tokens-{index:05d}.safetensors" for index in range(4)]
    assert [len(TokenRows([path])) for path in many] == [10, 10, 10, 5]
    monkeypatch.undo()
    assert torch.equal(read(many), read(pack_sequences(tokenizer, files, 35, LENGTH, 0, tmp_path / "one")))


def test_the_seed_decides_the_stream(files, tokenizer, tmp_path):
    one, again, other = (
        read(pack_sequences(tokenizer, files, 30, LENGTH, seed, tmp_path / str(i))) for i, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("kill_at", range(1, 10))
def test_a_killed_pass_goes_on_to_the_same_bits(files, tokenizer, tmp_path, small_shards, kill_at):
    whole = read(pack_sequences(tokenizer, files, 150, LENGTH, 0, tmp_path / "whole"))
    calls = iter(range(1, 100))

    class Dying:
        eos_token_id = tokenizer.eos_token_id

        def __call__(self, *arguments, **options):
            if next(calls) == kill_at:
                raise Killed
            return tokenizer(*arguments, **options)

    with pytest.raises(Killed):
        pack_sequences(Dying(), files, 150, LENGTH, 0, tmp_path / "killed")
    done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("tokens-*")}
    assert torch.equal(read(pack_sequences(tokenizer, files, 150, LENGTH, 0, tmp_path / "killed")), whole)
    assert {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in done} == done


def test_a_shard_that_is_gone_starts_the_pass_anew(files, tokenizer, tmp_path, small_shards):
    paths = pack_sequences(tokenizer, files, 35, LENGTH, 0, tmp_path)
    before = read(paths).clone()
    assert len(json.loads((tmp_path / CURSOR).read_text())["sha256s"]) == 4
    paths[1].unlink()
    assert torch.equal(read(pack_sequences(tokenizer, files, 35, LENGTH, 0, tmp_path)), before)


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "a shard's last id": lambda folder: flip(folder / "tokens-00001.safetensors", -1),
    "a shard's header": lambda folder: flip(folder / "tokens-00000.safetensors", 12),
    "a shard cut off": lambda folder: (folder / "tokens-00002.safetensors").write_bytes(b""),
    "an empty cursor": lambda folder: (folder / CURSOR).write_text(""),
    "a cursor that is no mapping": lambda folder: (folder / CURSOR).write_text("null"),
    "another cursor": lambda folder: write_sealed(folder / CURSOR, {"shards": 3}),
    "a flipped cursor": lambda folder: flip(folder / CURSOR, 40),
    "an earlier release's cursor": lambda folder: write_json(
        folder / CURSOR, {"shards": 3, "group": 1, "document": 2, "left": []}
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_pass_whose_leavings_were_changed_starts_anew_with_one_line(
    files, tokenizer, tmp_path, small_shards, caplog, damage
):
    """One flipped byte gave other ids, an empty cursor a traceback for ever."""
    whole = read(pack_sequences(tokenizer, files, 35, LENGTH, 0, tmp_path / "whole"))
    pack_sequences(tokenizer, files, 35, LENGTH, 0, tmp_path / "again")
    damage(tmp_path / "again")
    assert torch.equal(read(pack_sequences(tokenizer, files, 35, LENGTH, 0, tmp_path / "again")), whole)
    (line,) = caplog.messages
    assert line.startswith(f"restarted the packing in {tmp_path / 'again'}: ")


def test_one_document_may_fill_several_shards(tokenizer, tmp_path, small_shards):
    text = " ".join(pages("calibration", 40))
    pq.write_table(pa.table({"text": [text]}), tmp_path / "text.parquet")
    ids = tokenizer(text)["input_ids"]
    rows = read(pack_sequences(tokenizer, [tmp_path / "text.parquet"], 25, LENGTH, 0, tmp_path / "out"))
    assert rows.flatten().tolist() == ids[: 25 * LENGTH]


def test_memory_does_not_grow_with_the_text(tmp_path, small_shards):
    class Letters:
        eos_token_id = 0

        def __call__(self, texts, verbose):
            return {"input_ids": [list(text.encode()) for text in texts]}

    def peak(documents):
        path = tmp_path / f"{documents}.parquet"
        pq.write_table(pa.table({"text": ["a letter " * 100] * documents}), path, row_group_size=10)
        tracemalloc.start()
        try:
            pack_sequences(Letters(), [path], documents * 900 // LENGTH, LENGTH, 0, tmp_path / str(documents))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(20)
    assert peak(200) < 1.5 * peak(50)


def thousands(texts, tokenizer, size):
    """What the public code does: `size` documents joined without EOS, whole rows of LENGTH, the rest dropped."""
    rows = []
    for start in range(0, len(texts), size):
        ids = [one for text in texts[start : start + size] for one in tokenizer(text)["input_ids"]]
        rows += [ids[at : at + LENGTH] for at in range(0, len(ids) - LENGTH + 1, LENGTH)]
    return rows


@pytest.mark.parametrize("size", [5, 11])
def test_grouped_documents_are_in_file_order_and_each_groups_rest_is_dropped(
    files, texts, tokenizer, tmp_path, small_shards, monkeypatch, size
):
    monkeypatch.setattr(packed, "GROUP", size)
    rows = thousands(texts, tokenizer, size)
    found = pack_sequences(tokenizer, files, len(rows), LENGTH, 0, tmp_path / "all", grouped=True)
    assert read(found).tolist() == rows
    with pytest.raises(UserError, match=f"the text has {len(rows) * LENGTH} tokens"):
        pack_sequences(tokenizer, files, len(rows) + 1, LENGTH, 0, tmp_path / "more", grouped=True)


@pytest.mark.parametrize("kill_at", [2, 4, 6])
def test_a_killed_grouped_pass_goes_on_to_the_same_bits(
    files, texts, tokenizer, tmp_path, small_shards, monkeypatch, kill_at
):
    monkeypatch.setattr(packed, "GROUP", 5)
    rows = thousands(texts, tokenizer, 5)
    calls = iter(range(1, 100))

    def dying(*arguments, **options):
        if next(calls) == kill_at:
            raise Killed
        return tokenizer(*arguments, **options)

    with pytest.raises(Killed):
        pack_sequences(dying, files, len(rows), LENGTH, 0, tmp_path, grouped=True)
    assert (tmp_path / CURSOR).is_file() or kill_at == 2
    assert read(pack_sequences(tokenizer, files, len(rows), LENGTH, 0, tmp_path, grouped=True)).tolist() == rows
