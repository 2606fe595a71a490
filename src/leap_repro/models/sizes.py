"""How large a model is and where its weights lie: all that an estimate of memory and time needs to know of it.

Known in four ways, the best that there is: of a model, of the headers of its checkpoint, of a few numbers of its
config.json, or of its number of parameters alone. No heavy imports: every dry run asks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leap_repro.errors import UserError
from leap_repro.models.checkpoint import NUMBERED, ROUTERS, Entry, largest_block

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VOCABULARY = 160_000
"""Rows of the embeddings where nobody knows: between Llama's 128,256 and Gemma's 262,144."""
Shape = dict[str, int]
"""Numbers of a model's config.json, by the names that they have there."""
UNKNOWN_PARAMETERS = 8_000_000_000
"""A model of which nobody said how large it is counts as the paper's largest."""
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")


@dataclass(frozen=True)
class Sizes:
    """Counts of numbers: `parameters` of the whole model, shared ones once; `prunable` those of the matrices that are
    pruned, `largest` those of the largest of them; `hidden` the width of the residual stream, `widest` the largest
    output of a prunable matrix, of a mixture that of all experts which one token sees; `blocks` the decoder blocks;
    `vocabulary` the rows of the embeddings; `largest_block` the parameters of the largest block, `gram` the entries of
    the Gram matrices of a block's matrices' inputs, every expert's its own."""

    parameters: float
    prunable: float
    largest: float
    hidden: float
    widest: float
    blocks: float
    vocabulary: float
    largest_block: float
    gram: float


def sizes_of(model: PreTrainedModel) -> Sizes:
    """Of a model, which may be on the meta device: nothing is computed. UserError if it cannot be pruned."""
    from leap_repro.models.prunable import decoder_blocks, prunable_linears

    linears, blocks = prunable_linears(model), decoder_blocks(model)[1]
    gram = Counter[int]()
    vocabulary, hidden = next(model.get_input_embeddings().parameters()).shape
    chosen = _chosen(model.config.to_dict())  # a token's activations in so many experts at once
    for linear in linears:
        gram[linear.block] += linear.module.in_features**2
    return Sizes(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        prunable=sum(linear.weight.numel() for linear in linears),
        largest=max(linear.weight.numel() for linear in linears),
        hidden=hidden,
        widest=max(linear.module.out_features * (chosen if linear.is_expert else 1) for linear in linears),
        blocks=len(blocks),
        vocabulary=vocabulary,
        largest_block=max(sum(p.numel() for p in block.parameters()) for block in blocks),
        gram=max(gram.values()),
    )


def sizes_of_files(entries: dict[str, Entry], config: dict[str, Any]) -> Sizes | None:
    """Of a checkpoint's headers and its config.json; None if they hold no decoder blocks and embeddings.

    What lies under a number is in a block, and what lies in the list of the most weights in the decoder; the largest
    matrix beside the blocks is the embeddings. Of experts in one tensor [E, ...] each is a matrix.
    """
    of_lists = Counter[str]()
    for name, entry in entries.items():
        if (listed := _list_of(name)) is not None:
            of_lists[listed] += entry.elements
    outside = [entry for name, entry in entries.items() if len(entry.shape) == 2 and not NUMBERED.match(name)]
    if not of_lists or not outside:
        return None
    decoder = max(of_lists, key=of_lists.__getitem__)
    inside = {name: entry for name, entry in entries.items() if _list_of(name) == decoder}
    matrices = {name: entry for name, entry in inside.items() if _is_prunable(name, entry)}
    if not matrices:
        return None
    vocabulary, hidden = max(outside, key=lambda entry: entry.elements).shape
    chosen = _chosen(config)
    block, gram = largest_block(inside)
    return Sizes(
        parameters=sum(entry.elements for entry in entries.values()),
        prunable=sum(entry.elements for entry in matrices.values()),
        largest=max(entry.elements // _experts(entry) for entry in matrices.values()),
        hidden=hidden,
        widest=max(_outputs(name, entry, hidden, chosen) for name, entry in matrices.items()),
        blocks=len({found[0] for name in inside if (found := NUMBERED.match(name))}),
        vocabulary=vocabulary,
        largest_block=block,
        gram=gram,
    )


def sizes_of_shape(shape: Shape, parameters: float) -> Sizes:
    """Of a decoder with a gated MLP, by its numbers in config.json and how many parameters it has: its matrices are
    q and o [D, heads], k and v [D, key-value heads], gate, up and down [D, F]."""
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    head = shape.get("head_dim") or width // shape["num_attention_heads"]
    heads, shared = head * shape["num_attention_heads"], head * shape["num_key_value_heads"]
    block = 2 * width * heads + 2 * width * shared + 3 * width * inner
    return Sizes(
        parameters=parameters,
        prunable=shape["num_hidden_layers"] * block,
        largest=width * max(inner, heads),
        hidden=width,
        widest=max(inner, heads),
        blocks=shape["num_hidden_layers"],
        vocabulary=shape["vocab_size"],
        largest_block=block,
        gram=5 * width**2 + heads**2 + inner**2,
    )


def sizes_as_declared(spec: dict[str, Any]) -> Sizes:
    """By what the configuration says of a model: its shape, or how many parameters it has."""
    parameters = int(spec.get("parameters") or (spec.get("expect") or {}).get("parameters") or UNKNOWN_PARAMETERS)
    shape = spec.get("shape")
    return sizes_of_shape(shape, parameters) if shape else sizes_by_rule_of_thumb(parameters)


def sizes_by_rule_of_thumb(parameters: float) -> Sizes:
    """Of a decoder of which only the number of parameters is known, 0 included: it is 2 P^(1/3) wide (Llama 8B: 4,000
    against the true 4,096; 1B: 2,000 against 2,048), its blocks hold 12 D^2 weights each, the largest matrix
    D x 4 D."""
    width = 2 * parameters ** (1 / 3)
    # A tiny model's embeddings hold no more than all its weights; at the least half of all weights are pruned.
    vocabulary = min(VOCABULARY, parameters / width) if parameters else 0
    prunable = max(parameters / 2, parameters - vocabulary * width)
    return Sizes(
        parameters=parameters,
        prunable=prunable,
        largest=4 * width**2,
        hidden=width,
        widest=4 * width,
        blocks=prunable / (12 * width**2) if parameters else 0,
        vocabulary=vocabulary,
        largest_block=12 * width**2,
        gram=6 * width**2 + (4 * width) ** 2,
    )


def refuse_other_shape(name: str, shape: Shape | None, config: dict[str, Any]) -> None:
    """UserError if a number that the configuration says of the model `name` is another in its config.json."""
    for key, number in (shape or {}).items():
        found = [part[key] for part in _parts(config) if key in part]
        if found and found[0] != number:
            raise UserError(f"{name}: shape.{key} is {number}, its config.json has {found[0]}")


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Where a config.json may say a thing of the language model."""
    return [config, config.get("text_config") or {}]


def _chosen(config: dict[str, Any]) -> int:
    """How many experts see a token; 1 where there are none."""
    parts = _parts(config)
    return next((part[key] for part in parts for key in CHOSEN if isinstance(part.get(key), int)), 1)


def _list_of(name: str) -> str | None:
    """The list of blocks that a tensor lies in, by its name; None for one under no number."""
    found = NUMBERED.match(name)
    return found[0].rstrip(".0123456789") if found else None


def _is_prunable(name: str, entry: Entry) -> bool:
    """Whether a tensor of a block is a matrix, or one of experts', and no router."""
    return len(entry.shape) in (2, 3) and not name.endswith("bias") and not ROUTERS & set(name.split("."))


def _experts(entry: Entry) -> int:
    return entry.shape[0] if len(entry.shape) == 3 else 1


def _outputs(name: str, entry: Entry, hidden: int, chosen: int) -> int:
    """The outputs of a matrix that one token sees. Families turn experts in one tensor either way, but one side of
    theirs is the hidden size."""
    if len(entry.shape) == 3:
        return chosen * entry.elements // entry.shape[0] // hidden
    return entry.shape[0] * (chosen if ".experts." in name else 1)
