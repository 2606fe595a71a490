"""What `auto` becomes: the fastest options that fit, by the formula, a function of the configuration alone."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from leap_repro.errors import UserError
from leap_repro.models.sizes import sizes_as_declared, sizes_of_shape
from leap_repro.pipeline.asked import asked_of
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.reading import read_config
from leap_repro.prune.job import Job
from leap_repro.prune.learned.automatic import FILLED, chosen, in_words
from leap_repro.prune.learned.memory import training_bytes
from leap_repro.prune.methods import declaration

REPOSITORY = Path(__file__).resolve().parents[4]
AUTO = dict.fromkeys(("masked_weights", "gradient_checkpointing", "micro_batch_size"), "auto")
LLAMA_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
SIZES = sizes_of_shape(LLAMA_1B, 1_235_814_400)


def leap(**options):
    return declaration("leap").options(**AUTO | options)


def bytes_of(options, processes=1):
    return sum(training_bytes(SIZES, options, "bfloat16", 4096, processes, "cuda").values())


def all_ways(batch_size):
    micros = [size for size in range(1, batch_size + 1) if batch_size % size == 0 and not size & (size - 1)]
    for masked, again, micro in product(("kept", "remade"), (False, True), micros):
        yield leap(batch_size=batch_size, masked_weights=masked, gradient_checkpointing=again, micro_batch_size=micro)


def rank(options):
    """Among those that fit: first what keeps masked weights, then what keeps activations, then large micro-batches."""
    return (options.masked_weights == "kept", not options.gradient_checkpointing, options.micro_batch_size)


@pytest.mark.parametrize("gigabytes", [12, 16, 20, 24, 32, 40, 80, 141, 1000])
@pytest.mark.parametrize("batch_size", [256, 96])
def test_the_first_of_all_ways_that_fit_is_chosen(gigabytes, batch_size):
    """Against all of them tried; of none the one that needs the least memory."""
    found = chosen(leap(batch_size=batch_size), SIZES, "bfloat16", 4096, 1, gigabytes * 1e9)
    fitting = [way for way in all_ways(batch_size) if bytes_of(way) <= FILLED * gigabytes * 1e9]
    assert not found.automatic
    if fitting:
        assert rank(found) == max(map(rank, fitting))
    else:
        assert bytes_of(found) == min(map(bytes_of, all_ways(batch_size)))


def test_what_is_given_stays_and_the_rest_is_chosen_for_it():
    found = chosen(leap(micro_batch_size=2), SIZES, "bfloat16", 4096, 1, 80e9)
    assert (found.micro_batch_size, found.gradient_checkpointing, found.masked_weights) == (2, False, "kept")
    assert chosen(leap(**vars_of(found)), SIZES, "bfloat16", 4096, 1, 1e9) == found
    assert in_words(found) == "micro-batch 2, no recompute"


def vars_of(options):
    return {name: getattr(options, name) for name in AUTO}


def test_processes_share_whole_micro_batches():
    for processes in (1, 3, 4):
        found = chosen(leap(batch_size=96), SIZES, "bfloat16", 4096, processes, 1e12)
        assert found.micro_batch_size == {1: 32, 3: 32, 4: 8}[processes]
        assert (96 // found.micro_batch_size) % processes == 0


def test_a_model_of_unknown_shape_is_trained_with_the_least_memory():
    found = chosen(leap(), None, "bfloat16", 4096, 1, 1e12)
    assert vars_of(found) == {"masked_weights": "remade", "gradient_checkpointing": True, "micro_batch_size": 1}


def test_a_training_refuses_what_nobody_has_chosen(build_tiny):
    method = declaration("leap")
    job = Job(build_tiny("llama"), leap(), 0.5, 0, None)
    with pytest.raises(UserError, match=r"leap: options.masked_weights is auto; auto needs a scale with gpu_memory"):
        method.run(job)


@pytest.fixture(scope="module")
def paper():
    return read_study(read_config(project=REPOSITORY) | {"scale": "paper"})


def test_the_grids_options_follow_from_the_configuration_alone(paper):
    """What is said of how a model is called, where it lies or what it is gated by changes nothing; memory does."""
    options = {model: paper.line("leap", model).options for model in paper.models}
    assert len({in_words(each) for each in options.values()}) > 2
    assert not any(each.automatic for each in options.values())
    larger = replace(paper, settings=paper.settings.model_copy(update={"gpu_memory": 300.0}))
    assert larger.line("leap", "llama3.1-8b").options != options["llama3.1-8b"]
    assert paper.line("wanda", "llama3.1-8b") is paper.methods["wanda"]


def test_auto_without_the_memory_of_a_gpu_is_refused():
    config = read_config(project=REPOSITORY)
    del config["scales"]["paper"]["gpu_memory"]
    with pytest.raises(UserError, match=r"is auto; this needs gpu_memory"):
        read_study(config | {"scale": "paper"})


@pytest.mark.parametrize("scale", ["paper", "open"])
def test_every_shape_has_as_many_parameters_as_its_model(scale):
    """Matrices and embeddings, once or twice; what is left are norms and biases."""
    study = read_study(read_config(project=REPOSITORY) | {"scale": scale})
    for model, spec in study.models.items():
        sizes = sizes_as_declared(spec)
        embeddings = sizes.hidden * sizes.vocabulary
        left = min(abs(sizes.parameters - sizes.prunable - count * embeddings) for count in (1, 2))
        assert left < 3e-4 * sizes.parameters, model


def test_jobs_are_told_what_was_chosen(paper):
    """And results are asked for with it, so that a cell of another choice is another cell."""
    told = {}
    for model in paper.models:
        options = asked_of(paper, model)["methods"]["leap"]["parameters"]["options"]
        assert options == paper.line("leap", model).given
        told[model] = tuple(options[name] for name in AUTO)
    assert told["qwen2.5-0.5b"] == ("kept", False, 8)
    assert told["llama3.1-8b"] == ("remade", True, 1)
    assert "auto" not in str(told)
