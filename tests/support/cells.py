"""A hardened cell of random masks for a model, as a pruner's would lie on disk."""

import torch

from leap_repro.models.prunable import prunable_linears
from leap_repro.pipeline.stages.harden import main as harden
from leap_repro.pipeline.stages.harden import parser
from leap_repro.sparsity.pruned import PrunedFolder
from leap_repro.store.artifacts import Artifact, writing


def cell_of(model, folder, share):
    """The share of each matrix's weights that stays, at random places."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for linear in prunable_linears(model):
        numel = linear.weight.numel()
        keep = torch.rand(numel, generator=generator).argsort() < round(share * numel)
        tensors[f"{linear.name}.keep"] = keep.view(linear.weight.shape)
    with writing(folder / "pruned", {}) as (payload, facts):
        store = PrunedFolder(payload)
        store.write("pruned", tensors)
        facts |= {"tensors": store.finish(), "sparsity": f"{1 - share:g}", "seed": 0, "tokens_sha256": None}
        facts |= {"pattern": "unstructured", "budget_scope": "none"}
    arguments = ["--pruned", folder / "pruned", "--cell", "a/cell", "--output", folder / "cell"]
    harden(parser().parse_args([str(argument) for argument in arguments]))
    return Artifact.read(folder / "cell")
