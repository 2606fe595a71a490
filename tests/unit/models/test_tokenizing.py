"""What a tokenizer puts behind a text is left out, what it puts before one stays; and it cuts text as its file says."""

import json
import shutil
import time

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from leap_repro.calibration.shards import random_windows
from leap_repro.evaluate.perplexity import evaluate_perplexity
from leap_repro.miniature.bundled import bundled_models
from leap_repro.miniature.text import pages
from leap_repro.models import contained as containing
from leap_repro.models.contained import contained
from leap_repro.models.examine import examine
from leap_repro.models.load import load_model, load_tokenizer
from leap_repro.models.tokenizing import Added, added_tokens, left_out, without_appended

BOS, EOS = "<|begin|>", "<|end|>"
SPLITS = {
    "cl100k": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
}


@pytest.fixture
def folder(tmp_path):
    """A function that gives a miniature with its tokenizer.json changed."""

    def build(change=lambda tokenizer: None, name="llama3.2-1b-mini", **settings):
        made = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(bundled_models()[name], made)
        file, config = made / "tokenizer.json", made / "tokenizer_config.json"
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer = change(tokenizer) or tokenizer
        tokenizer.save(str(file))
        config.write_text(json.dumps(json.loads(config.read_text()) | settings))
        return made

    return build


def template(single, within=False):
    """A change of the post-processor: a template, or one within a sequence."""

    def change(tokenizer):
        tokens = [(token, tokenizer.token_to_id(token)) for token in (BOS, EOS) if token in single]
        made = processors.TemplateProcessing(single=single, pair=f"{single} $B", special_tokens=tokens)
        parts = [processors.ByteLevel(trim_offsets=False), made]
        tokenizer.post_processor = processors.Sequence(parts) if within else made

    return change


ADDED = {
    f"$A {EOS}": Added((), (2,)),
    f"{BOS} $A {EOS}": Added((1,), (2,)),
    f"{BOS} $A": Added((1,), ()),
    f"{EOS} $A": Added((2,), ()),
    f"{BOS} {BOS} $A {EOS} {EOS}": Added((1, 1), (2, 2)),
    "$A": Added((), ()),
}


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("single", ADDED)
def test_what_is_added_at_the_ends_is_found_and_only_what_is_before_stays(folder, single, within):
    place = folder(template(single, within))
    raw, tokenizer = AutoTokenizer.from_pretrained(place), load_tokenizer(place)
    assert added_tokens(raw) == ADDED[single]
    assert added_tokens(tokenizer) == Added(ADDED[single].before, ())
    plain = raw("the cat", add_special_tokens=False)["input_ids"]
    assert tokenizer("the cat")["input_ids"] == [*ADDED[single].before, *plain]
    assert tokenizer(["the cat"])["input_ids"] == [[*ADDED[single].before, *plain]]
    assert left_out(tokenizer) == " ".join(EOS for _ in ADDED[single].behind)
    assert raw("the cat")["input_ids"] == [*ADDED[single].before, *plain, *ADDED[single].behind], "it stays as it was"
    examine(place)


def test_a_setting_that_appends_is_a_tokenizer_that_appends(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder())
    tokenizer.add_bos_token, tokenizer.add_eos_token = True, True
    assert added_tokens(tokenizer) == Added((1,), (2,))
    assert added_tokens(without_appended(tokenizer)) == Added((1,), ())


def test_a_tokenizer_that_appends_nothing_is_itself(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder())
    assert without_appended(tokenizer) is tokenizer


def test_a_gemma_whose_tokenizer_adds_no_bos_is_refused(folder, refused):
    examine(folder(template(f"{BOS} $A {EOS}"), "gemma3-1b-mini"))
    with refused(BOS, "gemma3_text", "post_processor"):
        examine(folder(template("$A"), "gemma3-1b-mini"))


def test_calibration_and_perplexity_see_no_eos(folder):
    texts, clean, appending = pages("test", 12), folder(), folder(template(f"{BOS} $A {EOS}"))
    windows = [random_windows(load_tokenizer(place), texts, 8, 48, seed=0) for place in (clean, appending)]
    assert windows[0].tolist() == windows[1].tolist()
    found = [
        evaluate_perplexity(load_model(place), load_tokenizer(place), texts, 64, 8) for place in (clean, appending)
    ]
    assert (found[0].value, found[0].bos) == (found[1].value, found[1].bos)
    assert (found[0].left_out, found[1].left_out) == ("", EOS)


def learnt(split):
    """A change to a tokenizer learnt from text with numbers, cut by `split`."""

    def change(before):
        made = Tokenizer(models.BPE())
        cut = pre_tokenizers.Split(Regex(SPLITS[split]), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=before.get_vocab_size(),
            special_tokens=["<|pad|>", BOS, EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        texts = [f"{text} It was {7919 * i} and {i * i}.\n\n" for i, text in enumerate(pages("calibration", 100))]
        made.train_from_iterator(texts, trainer)
        return made

    return change


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ["GPT2Tokenizer", "Qwen2Tokenizer", "PreTrainedTokenizerFast"])
def test_a_class_that_cuts_otherwise_than_the_file_is_refused_by_its_name(folder, refused, split, name):
    place = folder(learnt(split), tokenizer_class=name)
    text = "\n\n".join(f"{page} It was {7919 * i}.\n\n" for i, page in enumerate(pages("test", 20)))
    file = Tokenizer.from_file(str(place / "tokenizer.json"))
    if load_tokenizer(place)(text, add_special_tokens=False)["input_ids"] == file.encode(text).ids:
        examine(place)
        assert name in ("PreTrainedTokenizerFast", "GPT2Tokenizer")
        return
    with refused("tokenizer_class", f"({name})", "tokenizer.json"):
        examine(place)


@pytest.mark.parametrize("name", bundled_models())
def test_the_bundled_tokenizers_cut_as_their_files_say(name):
    examine(bundled_models()[name])


@pytest.mark.parametrize("pattern", ["(a+)+$", "(\\w+\\s?)*$!", "(a|a?)+$"])
def test_an_expression_that_never_ends_is_one_sentence(folder, refused, pattern, monkeypatch):
    monkeypatch.setattr(containing.contained, "__defaults__", (3,))
    place = folder()
    path = place / "tokenizer.json"
    content = json.loads(path.read_text())
    content["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    path.write_text(json.dumps(content))
    with refused(str(place), "tokenizer"):
        examine(place)


ENDINGS = {
    "a panic": (lambda: (_ for _ in ()).throw(BaseException("it panicked")), "it panicked"),
    "an exit": (lambda: containing.os._exit(3), "exit status 3"),
    "too much memory": (lambda: bytearray(containing.MEMORY * 2), "MemoryError"),
    "no end": (lambda: time.sleep(60), "more than 1 seconds"),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_whatever_happens_within_is_one_sentence(refused, ending):
    work, words = ENDINGS[ending]
    with refused("the file", words):
        contained(work, "the file", 1)


def test_what_is_found_within_comes_out(refused):
    assert contained(lambda: {"a": 1}, "the file") == {"a": 1}
    with refused("this is wrong"):
        contained(_refuse, "the file")


def _refuse():
    raise containing.UserError("this is wrong")
