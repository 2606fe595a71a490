"""The roofline against operations and bytes counted by hand, and against what it must do when a setting changes."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from leap_repro.costs.roofline import H100, H200, parts, product_share, step_seconds, way_of
from leap_repro.models.sizes import sizes_of_shape
from leap_repro.prune.methods import declaration

REPOSITORY = Path(__file__).resolve().parents[3]
SHAPE = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
SIZES = sizes_of_shape(SHAPE, 8_030_261_248)
TOKENS = 256 * 4096


def leap(**options):
    return declaration("leap").options(**{"noise_source": "counter"} | options)


def of(options, gpu=H200, processes=1):
    return parts(SIZES, options, way_of(SIZES, options, "bfloat16"), 4096, processes, gpu)


def test_a_step_is_what_it_computes_over_what_the_gpu_does():
    """8B without recompute, a matrix at a time: its product forward, and twice backward; half of all pairs attend."""
    found = of(leap(micro_batch_size=8))
    matrices = 32 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    products = (3 * 2 * matrices + 2 * 2 * 4096 * 128256) * TOKENS
    assert found["products"] == pytest.approx(products / (0.80 * 790e12))
    pairs = TOKENS * 4096 / 2 * 32
    assert found["attention"] == pytest.approx(3.5 * 2 * 2 * 4096 * pairs / (0.40 * 790e12), rel=1e-9)
    assert found["sums"] == pytest.approx(32 * 8 * matrices / (0.85 * 4.3e12))
    assert found["gates"] == pytest.approx((8 + 14) * matrices / (0.85 * 4.3e12))
    assert found["optimiser"] == pytest.approx(28 * matrices / (0.85 * 4.3e12))
    assert step_seconds(found) == pytest.approx(sum(found.values()) - found["launches"])


def test_recompute_makes_all_of_a_block_again_but_its_last_product():
    plain, again = (of(leap(micro_batch_size=2, gradient_checkpointing=on)) for on in (False, True))
    blocks = 32 * (2 * 4096**2 + 2 * 4096 * 1024 + 2 * 4096 * 14336)  # without down
    more = again["products"] - plain["products"]
    assert more == pytest.approx(2 * blocks * TOKENS / (0.80 * 790e12))
    assert again["attention"] == pytest.approx(plain["attention"] * 4.5 / 3.5)
    assert again["elementwise"] == pytest.approx(plain["elementwise"] * 4 / 3)
    assert again["loss"] == plain["loss"]


def test_masked_weights_that_are_kept_are_made_once_a_step():
    kept, remade = (of(leap(micro_batch_size=2, masked_weights=way)) for way in ("kept", "remade"))
    each = (remade["gates"] - kept["gates"]) / (2 * 128 - 1)
    assert each == pytest.approx(8 * SIZES.prunable / (0.85 * 4.3e12))
    assert remade["launches"] > kept["launches"]
    anew = of(leap(micro_batch_size=2, noise="forward"))
    assert anew["gates"] == remade["gates"]


def test_a_dense_step_has_no_gates_and_costs_hardly_less_than_one_whose_masked_weights_are_kept():
    options = leap(micro_batch_size=2, gradient_checkpointing=True)
    way = way_of(SIZES, options, "bfloat16")
    dense, masked = (parts(SIZES, options, each, 4096, gpu=H200) for each in (way.dense, way))
    assert dense["gates"] == 0
    assert 1 < step_seconds(masked) / step_seconds(dense) < 1.01


def test_a_step_is_never_faster_than_its_launches():
    options = leap(micro_batch_size=1)
    small = replace(SIZES, prunable=32 * 1e5, hidden=64, widest=128)
    found = parts(small, options, way_of(small, options, "bfloat16"), 4096)
    assert step_seconds(found) == found["launches"] > 256 * 32 * 6e-6 * 100


def test_processes_share_tokens_and_not_the_making_of_masks():
    one, four = (of(leap(micro_batch_size=2), processes=count) for count in (1, 4))
    for name in ("products", "attention", "elementwise", "loss", "sums", "launches", "optimiser"):
        assert four[name] == pytest.approx(one[name] / 4)
    assert four["gates"] == one["gates"]


def test_plain_gates_and_sums_by_chance_cost_more():
    kernels, plain = of(leap(micro_batch_size=2)), of(leap(micro_batch_size=2, noise_source="generator"))
    assert plain["gates"] > 5 * kernels["gates"]
    few = of(leap(micro_batch_size=2, gradients_dtype="bfloat16"))
    assert few["sums"] > 5 * kernels["sums"]


def test_an_h100_computes_as_an_h200_and_moves_less():
    slow, fast = of(leap(), H100), of(leap(), H200)
    assert slow["products"] == pytest.approx(fast["products"], rel=0.01)
    assert slow["loss"] > 1.3 * fast["loss"]


@pytest.mark.parametrize(("width", "share"), [(100, 0.5), (896, 0.5), (2048, 0.68), (4096, 0.8), (16384, 0.8)])
def test_wider_models_use_more_of_a_gpu(width, share):
    assert product_share(width) == pytest.approx(share)


def test_between_two_widths_the_share_lies_between_theirs():
    assert 0.5 < product_share(1152) < product_share(1500) < 0.68 < product_share(3072) < 0.8


def counted(way, recompute, masked, micro_batches):
    """Bytes a weight of a step, by the benchmark that counts them."""
    for row in csv.DictReader((REPOSITORY / "benchmarks/gate_bytes.csv").open()):
        if (row["way"], row["gradient_checkpointing"], row["masked_weights"]) == (way, str(recompute), masked):
            return float(row[f"of {micro_batches}"])
    raise LookupError(way)


@pytest.mark.parametrize("source", ["counter", "generator"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("masked", ["kept", "remade"])
@pytest.mark.parametrize("micro_batches", [1, 128])
def test_gates_move_what_was_counted(source, recompute, masked, micro_batches):
    """Beyond a dense step, whose products read the weights as well."""
    options = leap(
        noise_source=source,
        gradient_checkpointing=recompute,
        masked_weights=masked,
        micro_batch_size=256 // micro_batches,
    )
    found = of(options)["gates"] * 0.85 * 4.3e12 / SIZES.prunable
    way = {"counter": "kernels", "generator": "plain"}[source]
    more = counted(way, recompute, masked, micro_batches) - counted("dense", recompute, "-", micro_batches)
    assert found == pytest.approx(more, rel=0.06)
