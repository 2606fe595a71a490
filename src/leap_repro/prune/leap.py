"""LEAP (arXiv 2605.17289): learn a keep/drop gate per weight, end to end, on the language-modelling loss.

    min over theta of  E_m[ L_LM(W * m) ] + lambda1 |mean(m) - d| - lambda2 (1 - t/T) sum ||W * m||_F / sum ||W||_F

with the weights W frozen and the gates m relaxed (`gates.py`). The budget d is global: layers may differ in density.
The result is one logit per prunable weight; hardening turns them into a mask.
"""

from __future__ import annotations

import torch

from leap_repro.models.prunable import prunable_linears
from leap_repro.prune.gates import initial_logits
from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.trainer import MaskTrainer, Options

__all__ = ["Options", "prune_cell"]
WHOLE_MODEL = True


def prune_cell(job: Job) -> PrunedCell:
    """Train the logits from the job's warm start; "<name>.logits" per matrix and one log row per step."""
    linears = prunable_linears(job.model)
    warm_start = None
    if job.warm_start is not None:
        warm_start = torch.cat([job.warm_start[linear.name].flatten() for linear in linears])
    count = sum(linear.weight.numel() for linear in linears)
    theta = initial_logits(count, warm_start, job.seed)
    trainer = MaskTrainer(job.model, job.required_tokens(), theta, float(1 - job.sparsity), job.options, job.seed)
    log = trainer.run(job.checkpoints)
    logits = trainer.weights.split(trainer.theta.detach().cpu())
    tensors = {f"{name}.logits": matrix.contiguous() for name, matrix in logits.items()}
    return PrunedCell(tensors, log, {"pattern": "unstructured", "budget_scope": "global"})
