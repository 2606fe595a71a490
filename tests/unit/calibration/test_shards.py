"""The calibration sample is what it claims: windows of real documents, the same for the same seed."""

import hashlib
import random
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from leap_repro.calibration.shards import ids_sha256, random_windows, released_windows
from leap_repro.miniature.text import pages

LENGTH = 48


@pytest.fixture(scope="module")
def texts():
    """Pages of text, and one document too short for a window."""
    return [*pages("calibration", 30), "The friend of Dala."]


@pytest.fixture(scope="module")
def documents(texts, tokenizer):
    return [tokenizer(text)["input_ids"] for text in texts]


def sources(window, documents):
    """The documents that hold `window` as a run of their ids."""
    size = len(window)
    return [
        index
        for index, ids in enumerate(documents)
        if any(ids[start : start + size] == window for start in range(len(ids) - size + 1))
    ]


def test_every_window_is_a_run_of_a_document_of_its_own_longer_than_the_window(texts, documents, tokenizer):
    windows = random_windows(tokenizer, texts, 20, LENGTH, seed=0)
    assert windows.dtype == torch.int32
    assert windows.shape == (20, LENGTH)
    found = [sources(window.tolist(), documents) for window in windows]
    assert all(len(indices) == 1 for indices in found)
    assert len({indices[0] for indices in found}) == 20
    assert all(len(documents[indices[0]]) > LENGTH for indices in found)


def test_windows_start_anywhere_in_their_document(texts, documents, tokenizer):
    windows = random_windows(tokenizer, texts, 20, LENGTH, seed=0).tolist()
    starts = set()
    for window in windows:
        ids = documents[sources(window, documents)[0]]
        starts.add(next(start for start in range(len(ids)) if ids[start : start + LENGTH] == window))
    assert len(starts) > 10


def test_as_released_the_draws_are_those_of_the_global_generator(texts, documents, tokenizer):
    """The public loaders call random.seed(0) and the module's functions."""
    found = released_windows(tokenizer, texts, 40, LENGTH, seed=0)
    assert (found.dtype, found.shape) == (torch.int32, (40, LENGTH))
    state = random.getstate()
    random.seed(0)
    for window in found.tolist():
        ids = documents[random.randint(0, len(documents) - 1)]
        while len(ids) <= LENGTH:
            ids = documents[random.randint(0, len(documents) - 1)]
        start = random.randint(0, len(ids) - LENGTH - 1)
        assert window == ids[start : start + LENGTH]
    random.setstate(state)
    drawn = [sources(window, documents)[0] for window in found.tolist()]
    assert len(set(drawn)) < len(drawn), "with replacement"


def test_as_released_texts_that_are_all_too_short_are_refused(tokenizer, refused):
    with refused("none of 2 documents", "length=48"):
        released_windows(tokenizer, ["The friend of Dala.", "Dala."], 3, LENGTH, seed=0)


def test_the_seed_decides_the_shard(texts, tokenizer):
    one, again, other = (random_windows(tokenizer, texts, 10, LENGTH, seed) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_document_of_exactly_the_windows_length_does_not_do(tokenizer, texts, documents, refused):
    exact = len(documents[0])
    assert random_windows(tokenizer, texts[:1], 1, exact - 1, seed=0).tolist() == [documents[0][: exact - 1]]
    with refused("only 0 of 1", f"length={exact}", "sequences=1"):
        random_windows(tokenizer, texts[:1], 1, exact, seed=0)


def test_too_few_long_documents_are_told_with_the_numbers(tokenizer, texts, refused):
    with refused("of 31 documents", "length=48", "sequences=32"):
        random_windows(tokenizer, texts, 32, 48, seed=0)


def test_a_text_of_one_document_a_line_is_told_what_ends_a_document(tokenizer, texts, refused):
    lines = ["\n".join(text.replace("\n", " ") for text in texts)]
    for draw in (random_windows, released_windows):
        with refused("1 documents", "in a .txt, blank lines separate documents"):
            draw(tokenizer, lines, 32, 10**6, seed=0)


def test_the_hash_is_that_of_the_ids_as_little_endian_int32():
    expected = hashlib.sha256(struct.pack("<6i", 0, 1, 2, 300, 70000, 5)).hexdigest()
    assert ids_sha256(torch.tensor([[0, 1, 2], [300, 70000, 5]])) == expected


def test_the_hash_depends_on_neither_type_layout_nor_file(tmp_path):
    ids = torch.randint(1280, (6, 9), generator=torch.Generator().manual_seed(0))
    save_file({"tokens": ids.to(torch.int32)}, tmp_path / "tokens.safetensors")
    read = load_file(tmp_path / "tokens.safetensors")["tokens"]
    assert len({ids_sha256(form) for form in (ids, ids.to(torch.int16), ids.t().contiguous().t(), read)}) == 1
    assert ids_sha256(ids) != ids_sha256(ids.flip(0))
