"""Sequential layer-wise pruning: one driver for every method that prunes a matrix from its own inputs.

Block k's inputs come from the already pruned blocks before it; within a block one forward of the still unpruned block
collects all statistics, then every matrix is pruned (the protocol of Wanda, SparseGPT and ADMM's code).
A block's results are stored before the next block is read, so that memory does not grow with the number of blocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.models.prunable import PrunableLinear, decoder_blocks, linears_by_block, prunable_linears
from leap_repro.models.walker import BlockRunner, walk_blocks
from leap_repro.progress import Progress
from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.layerwise.declaration import CalibratedOptions, Needs
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.statistics import InputStatistics, relative_error
from leap_repro.sparsity.patterns import UNSTRUCTURED, check_shape, parse_pattern
from leap_repro.store.tokens import batch_indices

CALIBRATION_BATCH = 16
"""Sequences per forward pass, fewer where they are long: a pass holds at most CALIBRATION_TOKENS tokens."""
CALIBRATION_TOKENS = 8192


@torch.no_grad()
def prune_layers(
    job: Job, rule: Callable[[Layer, Any], PrunedLayer], statistics: Needs, facts: dict[str, str]
) -> PrunedCell:
    """Prune `job.model` in place with `rule(layer, options)`; returns masks, moved values and one log row per matrix.

    `statistics` is what the rule looks at: None (weights only), "norms" (input column norms), "moments" (means and
    variances besides) or "gram" (X'X); a reconstruction gets the last in any case. `facts` is what its masks promise.
    Raises UserError, naming the tensor, for a shape that an N:M pattern does not fit and, with its block, for weights
    or inputs that are not finite.
    """
    cell = PrunedCell(job.store, [], budgeted(facts, job))
    for linear in prunable_linears(job.model):
        check_shape(linear.name, linear.weight.shape[1], parse_pattern(facts["pattern"]))
    needs: set[str] = ({statistics} if statistics else set()) | ({"gram"} if job.reconstruct else set())
    given = job.options
    experts = given if isinstance(given, CalibratedOptions) else CalibratedOptions.model_validate({})
    progress = Progress("blocks", len(decoder_blocks(job.model)[1]))
    for linears, runner in blocks(job, needs):
        started = time.perf_counter()
        collected = collect(linears, runner, needs, experts)
        tensors: dict[str, Tensor] = {}
        for linear in linears:
            row = _prune_linear(linear, collected.pop(linear.name), job, rule, tensors)
            _note_raised_damping(row, cell.facts)
            cell.log.append(row)
        job.store.write(f"block-{linears[0].block:05d}", tensors)
        progress.report(linears[0].block + 1, f"the last in {time.perf_counter() - started:.1f} s")
    return cell


def budgeted(facts: dict[str, str], job: Job) -> dict[str, Any]:
    """What the masks promise: with `budgets` all matrices together keep their share, not each of them. UserError if the
    budgets are another model's, or the options allow no others than their own."""
    if job.budgets is None:
        return dict(facts)
    if facts["pattern"] != UNSTRUCTURED or facts["budget_scope"] == "none":
        raise UserError("budgets of another cell are for an unstructured pattern and rounding: exact only")
    if set(job.budgets) != {linear.name for linear in prunable_linears(job.model)}:
        raise UserError("the budgets were made for another model: their tensors are not this model's prunable ones")
    return facts | {"budget_scope": "global"}


def calibration_tokens(job: Job) -> Tensor:
    """int64 [sequences, length]: the whole sample, or with `training_sequences` what a training of that seed reads
    first; UserError if there are fewer."""
    tokens, options = job.required_tokens(), job.options
    count = options.training_sequences if isinstance(options, CalibratedOptions) else 0
    if count > len(tokens):
        raise UserError(f"training_sequences is {count}; it may be {len(tokens)} at most, which is all that is given")
    return tokens[batch_indices(0, count, len(tokens), job.seed)] if count else tokens[:]


def calibration_batch(length: int) -> int:
    """Sequences of `length` tokens per forward pass."""
    return max(1, min(CALIBRATION_BATCH, CALIBRATION_TOKENS // length))


def blocks(job: Job, needs: set[str]) -> Iterator[tuple[list[PrunableLinear], BlockRunner | None]]:
    """Every block's matrices, in memory, with a runner over the calibration sample if anything is needed of it."""
    if needs:
        tokens_NT = calibration_tokens(job)
        yield from walk_blocks(job.model, tokens_NT, calibration_batch(tokens_NT.shape[1]), job.residency)
        return
    for block, linears in linears_by_block(job.model).items():
        with job.residency(block):
            yield linears, None


def collect(
    linears: list[PrunableLinear], runner: BlockRunner | None, needs: set[str], experts: CalibratedOptions
) -> dict[str, InputStatistics | None]:
    """The `needs` of each matrix's inputs, by its name; UserError, naming it, if its weights or inputs are not finite,
    or it saw too few tokens."""
    for linear in linears:
        if not bool(torch.isfinite(linear.weight).all()):
            raise UserError(f"the weights of {linear.name} (block {linear.block}) are not finite")
    if runner is None:
        return {linear.name: None for linear in linears}
    statistics = {
        linear.name: InputStatistics(
            linear.module.in_features, linear.weight.device, "gram" in needs, needs_sums="moments" in needs
        )
        for linear in linears
    }
    observers = {linear.module: statistics[linear.name] for linear in linears}
    runner.collect(observers, all_tokens=experts.expert_tokens == "all")
    for linear in linears:
        _refuse_unseen(linear, statistics[linear.name].tokens, experts)
        if not bool(torch.isfinite(statistics[linear.name].total).all()):
            raise UserError(f"the inputs of {linear.name} (block {linear.block}), or their squares, are not finite")
    return dict(statistics)


def _refuse_unseen(linear: PrunableLinear, tokens: int, experts: CalibratedOptions) -> None:
    """What saw no token has no inputs to be pruned by: every weight would look worthless."""
    least = experts.expert_minimum if linear.is_expert else 1
    if tokens >= least:
        return
    what = f"{linear.name} (block {linear.block}) saw {tokens} calibration tokens"
    if linear.is_expert:
        lower = "lower it, " if least > 1 else ""
        raise UserError(
            f"{what}, but expert_minimum is {least}: calibrate with more sequences, {lower}or set expert_tokens to "
            "'all'"
        )
    raise UserError(f"{what}: the model does not use it, so it cannot be pruned by its inputs")


def _prune_linear(
    linear: PrunableLinear,
    statistics: InputStatistics | None,
    job: Job,
    rule: Callable[[Layer, Any], PrunedLayer],
    tensors: dict[str, Tensor],
) -> dict[str, Any]:
    """Prune one matrix, write the result into the model, so that later blocks see it, and into `tensors`; returns its
    row of the log."""
    weight = linear.weight.detach().float().clone()
    sparsity = job.sparsity if job.budgets is None else job.budgets[linear.name]
    pruned = rule(Layer(linear.name, weight.clone(), statistics, sparsity), job.options)
    if job.reconstruct:
        pruned = job.reconstruct(Layer(linear.name, weight.clone(), statistics, sparsity), pruned)
    values = (weight if pruned.values is None else pruned.values) * pruned.keep
    stored = values.to(linear.weight.dtype)
    if not bool(torch.isfinite(stored).all()):
        dtype = str(stored.dtype).removeprefix("torch.")
        raise UserError(f"the pruned weights of {linear.name} (block {linear.block}) are not finite in {dtype}")
    linear.module.weight.data.copy_(stored)
    tensors[f"{linear.name}.keep"] = pruned.keep.cpu()
    if pruned.values is not None:
        tensors[f"{linear.name}.values"] = stored.cpu()
    error = relative_error(weight, stored, statistics.gram) if statistics and statistics.needs_gram else None
    return {
        "block": linear.block,
        "tensor": linear.name,
        "kept": int(pruned.keep.sum()),
        "numel": weight.numel(),
        "relative_error": error,
    } | pruned.log


def _note_raised_damping(row: dict[str, Any], facts: dict[str, Any]) -> None:
    """A matrix whose Hessian needed more damping than asked for is named in the manifest."""
    raised = {column: tried for column, tried in row.items() if column.endswith("dampings") and len(tried) > 1}
    if raised:
        facts.setdefault("raised_dampings", {})[row["tensor"]] = raised
