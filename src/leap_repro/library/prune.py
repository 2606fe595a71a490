"""`prune_model`: prune a model with any of the methods, without the pipeline but with its code."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from leap_repro.calibration.shards import ids_sha256
from leap_repro.errors import UserError
from leap_repro.harden.cell import harden_cell
from leap_repro.library.base import Base, kernels
from leap_repro.library.pruned import PrunedModel, require_fits
from leap_repro.library.tokens import Cut, read_ids, stream, windows
from leap_repro.models.checkpoint import position_limit
from leap_repro.portable import NATIVE, Bits
from leap_repro.prune.declaration import Declaration, Options
from leap_repro.prune.job import Job, Parent, read_budgets
from leap_repro.prune.run import arithmetic, load_method, load_selector, write_cell
from leap_repro.sparsity.budget import parse_sparsity
from leap_repro.sparsity.masks import unpack_masks
from leap_repro.store.artifacts import Artifact, writing
from leap_repro.store.machine import machine, versions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Ids = Tensor | Sequence[Sequence[int]] | Sequence[str]
"""Token ids [sequences, length], or texts."""
LENGTH = 2048
"""The default tokens per sequence that is cut from texts, if the model has as many positions."""
STARTS = {"warm_start": "warm_start", "pattern_start": "pattern_start", "parent": "parent", "selector": "selector"}
STARTS |= {"budgets": "budget_from"}
"""Argument -> what a declaration's `starts` calls it."""


@dataclass(frozen=True)
class Asked:
    """The request: everything that decides a result besides model, tokens and starts. `given` are the unchecked
    options.
    """

    method: Declaration
    options: Options
    given: dict[str, Any]
    sparsity: str
    seed: int
    hardening: str
    bits: Bits


def prune_model(
    model: PreTrainedModel | str | Path,
    *,
    method: str = "wanda",
    sparsity: float | str = 0.5,
    calibration: Ids | None = None,
    training: Ids | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    selector: str | Mapping[str, Any] | None = None,
    warm_start: PrunedModel | str | None = None,
    pattern_start: PrunedModel | None = None,
    parent: PrunedModel | None = None,
    budgets: PrunedModel | None = None,
    held_out: Ids | None = None,
    hardening: Literal["exact", "threshold"] = "exact",
    tokenizer: PreTrainedTokenizerBase | None = None,
    sequences: int = 128,
    length: int | None = None,
    dtype: str | None = None,
    bits: Bits = NATIVE,
) -> PrunedModel:
    """Prune a causal language model to `sparsity` and return masks and new values.

    The function uses the code of the pipeline's prune and harden stages. docs/methods describes each method, its
    options and its source; docs/library.md has examples.

    Args:
        model: A transformers model in memory, which is not changed (`PrunedModel.apply` changes a model); a folder with
        a checkpoint, which is read block by block unless the method trains; or the name of a bundled miniature. method:
        The name of a method, or the path of a method's file (.py). sparsity: The share of the prunable weights that is
        dropped, in [0, 1). calibration: Input of layer-wise methods: token ids [sequences, length] of any integer type,
        or texts. training: Input of methods that train, in the same forms. options: Options of the method. seed: Seed
        of all random draws: initial logits, noise, and the windows that are cut from texts. selector: For optima: the
        one-shot method that chooses the masks, as a name or as {"module": name, "options": {...}}. warm_start: For
        learned masks: an earlier result for the same model, or the name of a one-shot method, which runs first on
        `calibration` at the same sparsity. pattern_start: For patch: an earlier result with 2:4 masks. parent: For
        optima and recover: the earlier result from which it continues. budgets: For one-shot methods: an earlier result
        whose share of each matrix is kept. held_out: Text for LEAP's option `held_out_evaluations`, in the forms of
        `calibration`. hardening: How trained logits become a mask: "exact" meets the integer budget; "threshold" keeps
        logits above 0, as released. tokenizer: The tokenizer for texts. Default: the one in the model's folder; a model
        in memory has none. sequences: The number of sequences that are cut from texts, as the pipeline cuts them.
        length: Tokens per sequence cut from texts. Default: 2,048, or the model's positions if it has fewer. dtype: The
        type of a folder's weights. Default: float32. bits: "native" for this processor's kernels, or "portable" for the
        same results on every processor with AVX2; the process must then have been pinned before torch was imported
        (docs/numerics.md).

    Returns:
        The masks, the new values of kept weights, and the log.

    Raises:
        UserError: For a request that cannot be met: an unknown method or option, missing or foreign tokens, a sparsity
        or a start that the method does not take, a model that cannot be pruned, or a result that misses its budget.
    """
    declared, checked = load_method(method, dict(options or {}))
    starts = {"selector": selector, "warm_start": warm_start, "pattern_start": pattern_start}
    starts |= {"parent": parent, "budgets": budgets}
    _refuse_starts(declared, starts)
    base = Base.of(model, dtype)
    asked = Asked(declared, checked, dict(options or {}), _decimal(sparsity), seed, hardening, bits)
    cuts = _cuts(base, declared.tokens_of(checked), sequences, length, seed)
    ids = {"calibration": calibration, "training": training, "held_out": held_out}
    if isinstance(warm_start, str):
        starts["warm_start"] = _run_first(warm_start, base, asked, calibration, tokenizer, sequences, length)
    folder = tempfile.TemporaryDirectory(prefix="leap-repro-")
    with kernels(bits, base.dtype), base.to_prune(declared) as (loaded, residency), arithmetic(declared):
        tokens = {
            name: read_ids(name, given, cuts[name], lambda: base.tokenizer(tokenizer), loaded)
            for name, given in ids.items()
            if given is not None
        }
        read = _tokens_read(declared, checked, tokens)
        job = Job(
            model=loaded,
            options=checked,
            sparsity=parse_sparsity(asked.sparsity),
            seed=seed,
            tokens=read,
            held_out=tokens.get("held_out"),
            residency=residency,
            **_started(starts, asked, loaded),
        )
        return _result(Path(folder.name), asked, base, job, folder, starts["selector"])


def _result(
    root: Path,
    asked: Asked,
    base: Base,
    job: Job,
    folder: tempfile.TemporaryDirectory[str],
    selector: str | Mapping[str, Any] | None,
) -> PrunedModel:
    """Prune and harden into two artifacts, as the two stages do."""
    name = f"{base.name}/{asked.method.name}/{asked.sparsity}/{asked.seed}"
    parameters = {"module": asked.method.name, "options": asked.given, "selector": _description(selector)}
    parameters |= {"sparsity": asked.sparsity, "seed": asked.seed, "dtype": base.dtype, "bits": asked.bits}
    origin = {"parameters": parameters, "inputs": {}, "versions": versions(), "machine": machine()}
    tokens = None if job.tokens is None else job.tokens[:]
    with writing(root / "prune", origin) as (payload, facts):
        facts |= write_cell(asked.method, job, payload)
        facts |= {"sparsity": asked.sparsity, "seed": asked.seed}
        facts |= {"tokens_sha256": None if tokens is None else ids_sha256([tokens])}
    pruned = Artifact.read(root / "prune")
    cell = harden_cell(pruned, name, asked.hardening)
    with writing(root / "harden", origin) as (payload, facts):
        cell.write(payload)
        facts |= cell.facts
    shape = None if tokens is None else (int(tokens.shape[0]), int(tokens.shape[1]))
    return PrunedModel(Artifact.read(root / "harden"), pruned, base, shape, parameters, folder)


def _refuse_starts(method: Declaration, starts: Mapping[str, Any]) -> None:
    for argument, given in starts.items():
        if given is not None and STARTS[argument] not in method.starts:
            takes = [name for name, called in STARTS.items() if called in method.starts]
            raise UserError(f"{argument} is given, but the method {method.name} does not take it; it takes {takes}")
        if not (given is None or isinstance(given, PrunedModel) or argument in ("selector", "warm_start")):
            raise UserError(f"{argument} is {type(given).__name__}; it must be what prune_model returned")


def _decimal(sparsity: float | str) -> str:
    """The sparsity as the decimal that names of cells and budgets use; UserError unless it lies in [0, 1)."""
    parse_sparsity(sparsity)
    return format(Decimal(str(sparsity)).normalize(), "f")


def _cuts(base: Base, reads: str | None, sequences: int, length: int | None, seed: int) -> dict[str, Cut]:
    """How texts are cut for each of the arguments; UserError if the model has positions for fewer tokens."""
    limit = position_limit(base.config)
    if length is not None and limit is not None and length > limit:
        raise UserError(f"length is {length}; the model has {limit} positions")
    tokens = length or min(LENGTH, limit or LENGTH)
    sample = windows(sequences, tokens, seed)
    grouped = reads == "mask_training_grouped"
    return {"calibration": sample, "held_out": sample, "training": stream(sequences, tokens, seed, grouped)}


def _tokens_read(method: Declaration, options: Options, tokens: Mapping[str, Tensor]) -> Tensor | None:
    """What the method reads of what was given; UserError if that is missing."""
    kind = method.tokens_of(options)
    if kind is None:
        return None
    name = "calibration" if kind == "calibration" else "training"
    if name not in tokens:
        raise UserError(f"{name} is not given, but the method {method.name} reads it: give ids or texts")
    return tokens[name]


def _description(selector: str | Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {"module": selector} if isinstance(selector, str) else dict(selector) if selector is not None else None


def _started(starts: Mapping[str, Any], asked: Asked, model: nn.Module) -> dict[str, Any]:
    """The job's fields of what the method starts from; UserError for results of another model or sparsity."""
    cells = {name: given.cell for name, given in starts.items() if isinstance(given, PrunedModel)}
    for cell in cells.values():
        require_fits(cell, model)
    found: dict[str, Any] = {"selector": load_selector(_description(starts["selector"]))}
    for name in ("warm_start", "pattern_start"):
        if name in cells:
            found[name] = unpack_masks(cells[name])
    if "parent" in cells:
        found["parent"] = Parent.of(cells["parent"])
    if "budgets" in cells:
        found["budgets"] = read_budgets(cells["budgets"], parse_sparsity(asked.sparsity))
    return found


def _run_first(
    method: str,
    base: Base,
    asked: Asked,
    calibration: Ids | None,
    tokenizer: PreTrainedTokenizerBase | None,
    sequences: int,
    length: int | None,
) -> PrunedModel:
    """The one-shot method whose mask a training starts from."""
    if not load_method(method, {})[0].selects:
        raise UserError(f"warm_start is {method!r}, which is not a one-shot method")
    return prune_model(
        base.source,
        method=method,
        sparsity=asked.sparsity,
        calibration=calibration,
        seed=asked.seed,
        tokenizer=tokenizer,
        sequences=sequences,
        length=length,
        dtype=base.dtype,
        bits=asked.bits,
    )
