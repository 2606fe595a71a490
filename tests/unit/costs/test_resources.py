"""Requests to a cluster: sized from the model, whatever is known of it, and larger at every attempt."""

import csv
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
from families import tiny

from leap_repro.costs import resources
from leap_repro.costs.requests import cores, request
from leap_repro.costs.resources import (
    FLOAT32_COST,
    QUESTIONS,
    evaluation_tokens,
    flops_per_second,
    model_sizes,
    need,
)
from leap_repro.models.examine import describe, empty_model
from leap_repro.models.sizes import UNKNOWN_PARAMETERS, sizes_by_rule_of_thumb, sizes_of
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.reading import read_config
from leap_repro.prune.learned.memory import training_bytes

REPOSITORY = Path(__file__).resolve().parents[3]
NOWHERE = Path("nowhere")
BY_THUMB = sizes_by_rule_of_thumb


def study(scale, **settings):
    config = read_config(project=REPOSITORY)
    config["scales"][scale] |= settings
    return read_study(config | {"scale": scale})


def parameters(spec, root=NOWHERE):
    return sizes(spec, root).parameters


def sizes(spec, root=NOWHERE):
    return model_sizes(SimpleNamespace(models={"one": spec}), root, "one")


@pytest.fixture
def fetched(tmp_path):
    """(model or None, facts) -> the root of results with it as the models stage leaves it."""

    def fetch(model, facts):
        folder = tmp_path / "models/one"
        if model:
            model.save_pretrained(folder / "payload")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_text(json.dumps({"facts": facts}))
        return tmp_path

    return fetch


def test_a_fetched_model_is_as_large_as_its_manifest_says(fetched):
    spec = {"source": "bundled", "name": "llama3.2-1b-mini", "parameters": 5}
    assert parameters(spec, fetched(None, {"parameters": 17})) == 17


def test_a_declared_size_is_believed_before_the_model_is_fetched():
    assert parameters({"source": "path", "path": "not/there", "parameters": 5}) == 5
    assert parameters({"source": "hub", "id": "a/b", "expect": {"parameters": 7}}) == 7
    assert parameters({"source": "hub", "id": "a/b", "expect": None}) == UNKNOWN_PARAMETERS


def test_every_model_of_the_paper_is_sized():
    sizes = {name: parameters(spec) for name, spec in study("paper").models.items()}
    assert len(set(sizes.values())) == 5
    assert max(sizes, key=sizes.get) == "llama3.1-8b"


@pytest.mark.parametrize("family", ["llama", "mixtral", "gpt_oss"])
def test_the_largest_block_is_known_from_files_as_from_the_model(tmp_path, fetched, family):
    model = tiny(family)
    model.save_pretrained(tmp_path / "local")
    facts = describe(model, tmp_path / "local")
    found = sizes({"source": "path", "path": str(tmp_path / "local")})
    assert found.largest_block == facts["largest_block"]
    assert facts["largest_gram"] <= 1.3 * found.gram <= 4 * facts["largest_gram"]
    later = sizes({"source": "hub", "expect": None}, fetched(model, facts))
    assert (later.gram, later.prunable, later.hidden) == (facts["largest_gram"], facts["prunable"], found.hidden)


def test_a_mixture_asks_for_the_statistics_of_all_its_experts():
    small, large = (
        need("prune", study("paper"), replace(BY_THUMB(1e9), largest_block=size, gram=size), "sparsegpt").gpu_bytes
        for size in (10**7, 10**9)
    )
    assert large - small > 4e9


@pytest.mark.parametrize("scale", ["miniature", "paper", "open"])
def test_what_a_training_needs_is_planned_by_its_one_formula(scale):
    """For every training of every grid, and for models on this machine at their own sizes."""
    asked, tried = study(scale), 0
    device = "cuda" if asked.settings.cluster.gpus else "cpu"
    for model, name in product(asked.models, asked.methods):
        line = asked.line(name, model)
        if line.declaration.leaves_logits:
            found = model_sizes(asked, NOWHERE, model)
            length = asked.settings.mask_training.length
            parts = training_bytes(found, line.options, asked.settings.dtype, length, line.gpus, device)
            assert need("prune", asked, found, name, model).gpu_bytes == sum(parts.values())
            tried += 1
    assert tried >= len(asked.models)


@pytest.mark.parametrize("name", ["qwen2.5-0.5b-mini", "gemma3-1b-mini", "llama3.2-1b-mini"])
def test_a_model_on_this_machine_is_planned_at_its_own_sizes(name):
    folder = REPOSITORY / "src/leap_repro/miniature/released" / name
    assert model_sizes(study("miniature"), NOWHERE, name) == sizes_of(empty_model(folder))


def test_a_bundled_model_is_measured_too():
    assert 1e5 < parameters({"source": "bundled", "name": "llama3.2-1b-mini"}) < 1e6


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}"])
def test_an_unknown_or_damaged_model_counts_as_the_largest(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    assert parameters({"source": "path", "path": str(tmp_path)}) == UNKNOWN_PARAMETERS


@pytest.mark.parametrize(("parameters", "width"), [(1_235_814_400, 2048), (3_212_749_824, 3072), (8_030_261_248, 4096)])
def test_the_rule_of_thumb_for_the_width_holds_for_the_llamas(parameters, width):
    assert BY_THUMB(parameters).hidden == pytest.approx(width, rel=0.1)


@pytest.mark.parametrize("stage", ["prune", "harden", "evaluate"])
@pytest.mark.parametrize("method", ["dense", "magnitude", "sparsegpt", "leap"])
def test_larger_models_ask_for_more_and_more_is_asked_at_every_attempt(stage, method):
    paper = study("paper")
    small, large = (request(stage, paper, BY_THUMB(size), method) for size in (5e8, 8e9))
    assert small.mem_mb < large.mem_mb
    assert small.runtime <= large.runtime
    again = request(stage, paper, BY_THUMB(8e9), method, attempt=3)
    assert (again.mem_mb, again.runtime) == (3 * large.mem_mb, 3 * large.runtime)


def test_only_jobs_that_compute_ask_for_a_gpu():
    paper = study("paper")
    asked = {
        method: request("prune", paper, BY_THUMB(1e9), method).gpu for method in ("dense", "magnitude", "wanda", "leap")
    }
    assert asked == {"dense": 0, "magnitude": 0, "wanda": 1, "leap": 1}
    assert request("evaluate", paper, BY_THUMB(1e9), "dense").gpu == 1
    assert request("harden", paper, BY_THUMB(1e9), "leap").gpu == 0
    assert request("prune", study("miniature"), BY_THUMB(1e6), "leap").gpu == 0


def test_a_training_on_several_gpus_asks_for_them_and_for_their_nodes():
    paper = study("paper", gpus={"leap": 8}, cluster={"gpus": 1, "gpus_per_node": 4})
    one, eight = request("prune", study("paper"), BY_THUMB(1e9), "leap"), request("prune", paper, BY_THUMB(1e9), "leap")
    assert (eight.gpu, eight.processes, eight.nodes) == (8, 8, 2)
    assert eight.mem_mb == 4 * one.mem_mb  # of each node
    assert eight.runtime < one.runtime
    assert eight.slurm == {"mpi": "srun", "tasks": 2, "tasks_per_gpu": 0, "slurm_extra": "--gpus-per-node=4"}
    assert cores(paper, "leap", on_cluster=True) == 4 * cores(paper, "wanda", on_cluster=True)
    other = request("prune", paper, BY_THUMB(1e9), "wanda")
    assert (other.gpu, other.processes, other.nodes, other.slurm) == (1, 1, 1, {})


def test_this_machine_is_one_node_and_has_the_devices_that_it_has():
    paper = study("paper", gpus={"leap": 8}, cluster={"gpus": 0, "gpus_per_node": 4})
    asked = [request("prune", paper, BY_THUMB(1e9), "leap", devices=devices) for devices in (None, 0, 8)]
    assert [(each.gpu, each.processes, each.nodes) for each in asked] == [(0, 8, 2), (0, 8, 1), (8, 8, 1)]
    assert request("harden", paper, BY_THUMB(1e9), "leap", devices=8).gpu == 0
    assert cores(paper, "leap", on_cluster=False) == 8 * paper.settings.threads


def test_partitions_follow_the_gpu_and_jobs_that_share_one_agree():
    paper = study("paper", cluster={"gpus": 1, "partition": "cpu", "gpu_partition": "gpu"})
    assert request("models", paper, BY_THUMB(1e9)).slurm_partition == "cpu"
    assert request("prune", paper, BY_THUMB(1e9), "magnitude").slurm_partition == "cpu"
    assert request("prune", paper, BY_THUMB(1e9), "leap").slurm_partition == "gpu"
    assert (
        request("harden", paper, BY_THUMB(1e9), "leap").slurm_partition
        == request("evaluate", paper, BY_THUMB(1e9)).slurm_partition
    )


def test_time_stops_at_the_partitions_limit():
    paper = study("paper", cluster={"gpus": 1, "max_runtime": 600})
    assert request("prune", paper, BY_THUMB(8e9), "leap").runtime == 600
    assert request("prune", paper, BY_THUMB(8e9), "magnitude", attempt=2).runtime < 600


@pytest.mark.parametrize("limit", [20, 45, 300])
@pytest.mark.parametrize("attempt", [1, 3])
def test_jobs_that_share_a_cluster_job_stop_at_the_limit_together(limit, attempt):
    paper = study("paper", cluster={"max_runtime": limit})
    asked = [request(stage, paper, BY_THUMB(8e9), "leap", attempt).runtime for stage in ("harden", "evaluate")]
    assert min(asked) > 0
    assert sum(asked) <= limit


def test_the_tables_which_share_one_cluster_job_ask_for_little_each():
    assert (
        request("aggregate", study("paper"), BY_THUMB(8e9)).runtime
        < request("models", study("paper"), BY_THUMB(8e9)).runtime
    )


def test_the_model_of_a_job_fits_into_what_it_asks_for():
    paper = study("paper")
    assert need("prune", paper, BY_THUMB(8e9), "leap").host_bytes >= 2 * 8e9
    assert need("evaluate", paper, BY_THUMB(8e9), "leap").host_bytes >= 2 * 8e9
    assert need("prune", paper, BY_THUMB(8e9), "leap").gpu_bytes >= 8e9 * (2 + 4 * 3)  # weights, logits, two moments


LLAMA_8B = ((4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096), (14336, 4096), (14336, 4096), (4096, 14336))
"""Rows and columns of the matrices of each of Llama-3.1-8B's 32 blocks."""


def test_optimas_solves_are_counted_as_of_the_true_shapes():
    """By the rule of thumb for the width; conjugate gradients on all of them, in float32."""
    paper = study("paper")
    solves = need("prune", paper, BY_THUMB(8_030_261_248), "wanda+optima").flops
    solves -= need("prune", paper, BY_THUMB(8_030_261_248), "sparsegpt").flops
    products = 32 * sum(rows * 2 * columns**2 for rows, columns in LLAMA_8B)
    assert 41 * products < solves / FLOAT32_COST < 1.5 * 41 * products
    assert 32 * sum(rows * (columns / 2) ** 3 / 3 for rows, columns in LLAMA_8B) > 4 * 41 * products


def test_optima_at_8b_takes_less_than_an_hour_of_one_h100_by_plan():
    paper = study("paper")
    seconds = need("prune", paper, BY_THUMB(8_030_261_248), "wanda+optima").flops / flops_per_second(paper, True)
    assert 600 < seconds < 3600
    assert need("prune", paper, BY_THUMB(8_030_261_248), "wanda+optima-as-released").flops / 2e14 > 2 * seconds


def test_a_processor_with_instructions_for_bfloat16_is_three_times_as_fast_in_it(monkeypatch):
    on_cpu = study("paper", cluster={"gpus": 0})
    rates = []
    for has_them in (False, True):
        monkeypatch.setattr(resources, "multiplies_bfloat16", lambda has_them=has_them: has_them)
        solves = need("prune", on_cpu, BY_THUMB(1e9), "sparsegpt").flops
        rates.append((flops_per_second(on_cpu, False), solves))
    assert rates[1][0] == 3 * rates[0][0]
    assert rates[0][1] < rates[1][1] < 3 * rates[0][1], "its solves are in float32 and not faster"
    assert flops_per_second(study("miniature"), False) == 5e10


def test_what_float32_computes_counts_at_its_own_rate_on_a_gpu_only(monkeypatch):
    monkeypatch.setattr(resources, "multiplies_bfloat16", lambda: False)
    on_gpu, on_cpu = study("paper"), study("paper", cluster={"gpus": 0})
    for method, grows in (("wanda", False), ("sparsegpt", True)):
        flops = [need("prune", each, BY_THUMB(1e9), method).flops for each in (on_gpu, on_cpu)]
        assert (flops[0] > 5 * flops[1]) is grows
    tokens = 128 * 2048
    assert need("prune", on_cpu, BY_THUMB(1e9), "sparsegpt").flops == pytest.approx(
        8e9 * tokens + 60e9 * BY_THUMB(1e9).hidden
    )


MEASURED = REPOSITORY / "benchmarks/memory_at_size.csv"
ALONE_BYTES = 0.5e9
"""Python, torch and transformers before any model: what `--shape tiny` measures."""


@pytest.mark.parametrize(
    "row",
    [row for row in csv.DictReader(MEASURED.open()) if row["shape"] != "tiny"],
    ids=lambda row: f"{row['shape']} {row['method']}",
)
def test_layer_wise_estimates_cover_what_was_measured_and_not_much_more(row):
    parameters = {"llama3.2-1b": 1_235_814_400, "llama3.1-8b-block": 8_030_261_248}[row["shape"]]
    shard = {"sequences": int(row["sequences"]), "length": int(row["length"])}
    estimate = need("prune", study("paper", calibration=shard), BY_THUMB(parameters), row["method"])
    measured, estimated = 1e6 * float(row["peak_mb"]), ALONE_BYTES + max(estimate.host_bytes, estimate.gpu_bytes)
    assert measured <= estimated <= 2.5 * measured
    assert abs(float(row["estimate_mb"]) - estimated / 1e6) <= 1


def test_the_memory_of_a_layer_wise_method_hardly_grows_with_the_number_of_blocks():
    one, ten = (need("prune", study("paper"), BY_THUMB(size), "sparsegpt").gpu_bytes for size in (8e8, 8e9))
    assert ten < 6 * one


def test_an_evaluation_is_planned_by_what_it_asks():
    """The tokens that lm-eval 0.4.13's requests of the real sets hold, one-token choices of a question read once."""
    config = read_config(project=REPOSITORY)
    asked = config["scales"]["paper"]["evaluation"]
    whole = evaluation_tokens(read_study(config | {"scale": "paper"}))
    counted = 1_765_055 + 129_198 + 249_161 + 156_157 + 54_426 + 21_983
    assert whole == pytest.approx(counted + 2 * 304_978, rel=0.01)
    assert whole >= counted + 2 * 304_978
    asked |= {"questions": 200, "perplexity_windows": 10, "perplexity_lengths": [2048]}
    part = evaluation_tokens(read_study(config | {"scale": "paper"}))
    assert part == 200 * sum(tokens for _, tokens in QUESTIONS.values()) + 20_480


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_recovery_needs_its_masters_moments_gradients_and_masks(dtype):
    """Beside the model: in float32 the weights are their own master. What a micro-batch keeps is LEAP's."""
    asked = _with(study("paper", dtype=dtype), "wanda+recover", gradient_checkpointing=True, micro_batch_size=1)
    weight, sizes = {"float32": 4, "bfloat16": 2}[dtype], BY_THUMB(8e9)
    matrix = 24 * sizes.largest
    bare = need("prune", asked, sizes, "wanda+recover").gpu_bytes - matrix
    lean = _with(asked, "wanda+recover", state_dtype="int8")
    pairs = _with(asked, "wanda+recover", lora_rank=16)
    per_weight = 1 + 4 + 8 + (weight < 4) * 4  # mask, gradient, moments, master
    passing = bare - weight * sizes.parameters - per_weight * sizes.prunable
    assert 0 < passing < 15e9
    assert need("prune", lean, sizes, "wanda+recover").gpu_bytes - bare < -5.5 * sizes.prunable
    low = need("prune", pairs, sizes, "wanda+recover").gpu_bytes - passing
    rank = 16 * 1.5 / sizes.hidden * 16  # a pair with its gradient and moments
    expected = weight * sizes.parameters + (weight + 1 + rank) * sizes.prunable + matrix
    assert low == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_elsa_needs_what_a_recovery_needs_and_four_bytes_a_weight(dtype):
    config = read_config(project=REPOSITORY)
    config["methods"]["split"] = {"module": "elsa", "label": "ELSA"}
    config["scales"]["paper"] |= {"dtype": dtype, "methods": ["dense", "wanda", "split", "wanda+recover"]}
    asked = read_study(config | {"scale": "paper"})
    sizes = BY_THUMB(8e9)
    split, recovery = (need("prune", asked, sizes, name) for name in ("split", "wanda+recover"))
    assert split.gpu_bytes - recovery.gpu_bytes == pytest.approx(4 * sizes.prunable)
    assert (split.flops, split.host_bytes) == (recovery.flops, recovery.host_bytes)


def _with(asked, name, **options):
    line = asked.methods[name]
    changed = replace(line, options=line.options.model_copy(update=options))
    return replace(asked, methods=asked.methods | {name: changed})
