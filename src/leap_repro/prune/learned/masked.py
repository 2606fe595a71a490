"""Run a model with relaxed masks on its frozen weights, one matrix at a time.

Noise is drawn once a step, so a masked linear layer makes W * M once, in the weights' type, and its passes over
micro-batches are plain products with it. The gradient at W * M is summed over micro-batches; in the step's last one it
is carried to the logits, together with the slopes of the regulariser in this matrix's mask sum and size
(`regularise.py`). Where memory is short W * M is made for each use, from the same noise (`gates.py`).

Shapes: x is [..., in], gradients of outputs [..., out], weights and masks [out, in].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from leap_repro.errors import UserError
from leap_repro.models.experts import unfused
from leap_repro.models.prunable import PrunableLinear, decoder_blocks
from leap_repro.portable import instructions
from leap_repro.prune.learned.declaration import LoopOptions, Relaxation
from leap_repro.prune.learned.gates import Gate, Noise
from leap_repro.prune.learned.stochastic_rounding import Chance, by_chance

COMPILER = "inductor"
"""What compiles blocks, by torch's name."""


@dataclass(frozen=True)
class Step:
    """What all masked layers share within one optimiser step, or within one pass of it (`of_pass`)."""

    seed: int
    number: int
    relaxation: Relaxation
    keeps_products: bool = False  # W * M is kept until its mask's last use; otherwise it is made for each
    keeps_masks: bool = False  # so is the mask with its graph, so that no noise is drawn twice
    anew: bool = False  # every micro-batch draws its own masks
    absolute: bool = False  # sizes are absolute sums, not squared norms
    sums: torch.dtype = torch.float32  # of gradients at masked weights over micro-batches
    noise: type[Noise] = Noise
    chances: type[Chance] = Chance
    micro: int = 0  # the number of the pass's micro-batch in the step
    measuring: bool = True  # a forward pass notes each mask's sum and size
    last: bool = False  # a backward pass carries gradients to the logits: of the last micro-batch, or of each anew

    def of_pass(self, micro: int, is_first: bool, is_last: bool) -> Step:
        """The same in the pass of one of this process's micro-batches."""
        return replace(self, micro=micro, measuring=self.anew or is_first, last=self.anew or is_last)


class TrainedLayer(Protocol):
    """A prunable matrix of which something is trained, in place of its module's forward pass."""

    @property
    def linear(self) -> PrunableLinear: ...

    @property
    def anchor(self) -> Tensor: ...

    def forward(self, x: Tensor, step: Any, /) -> Tensor: ...

    def backward(self, x: Tensor, gradient: Tensor, step: Any, needs_input: bool, /) -> Tensor | None: ...


@dataclass
class MaskedLinear:
    """One prunable matrix with its gate; `index` numbers the matrices of a model in module order. `slopes` are those of
    the regulariser in the mask's sum and in the size of W * M."""

    linear: PrunableLinear
    gate: Gate
    index: int
    sum: Tensor | None = None
    size: Tensor | None = None
    slopes: tuple[float, float] = (0.0, 0.0)
    gradient: Tensor | None = field(default=None, repr=False)
    kept_mask: Tensor | None = field(default=None, repr=False)
    kept_product: Tensor | None = field(default=None, repr=False)

    @property
    def anchor(self) -> Tensor:
        """What is trained here, by one of its tensors: the output of the layer needs a gradient because of it."""
        return next(iter(self.gate.logits.values()))

    def weight(self) -> Tensor:
        return self.linear.weight.detach().float()

    def mask(self, step: Step, graph: bool) -> Tensor:
        """The relaxed mask of this step or micro-batch, the same whenever asked for; with a graph if asked for, or
        if it is kept."""
        if self.kept_mask is not None:
            return self.kept_mask
        with torch.set_grad_enabled(graph or step.keeps_masks):
            mask = self.gate.mask(self.noise(step), step.relaxation)
        self.kept_mask = mask if step.keeps_masks else None
        return mask

    def noise(self, step: Step) -> Noise:
        """This matrix's in this step or micro-batch."""
        numbers = (step.seed, step.number, self.index, *((step.micro,) if step.anew else ()))
        return step.noise(self.linear.weight.device, *numbers)

    @torch.no_grad()
    def forward(self, x: Tensor, step: Step) -> Tensor:
        if step.measuring and self.sum is not None:
            name = self.linear.name
            raise UserError(f"{name} is used twice in a pass: a mask is learned for one use of its weight")
        if step.measuring:
            self.kept_mask = self.kept_product = None
        product = self.product(step, measuring=step.measuring)
        return linear(x, product, self.linear.module.bias)

    def product(self, step: Step, mask: Tensor | None = None, measuring: bool = False) -> Tensor:
        """W * M in the weight's type: the kept one, or made of `mask` or of this step's."""
        if self.kept_product is not None:
            return self.kept_product
        mask = self.mask(step, graph=False) if mask is None else mask
        product = self._product(mask, step, measuring)
        self.kept_product = product if step.keeps_products else None
        return product

    def _product(self, mask: Tensor, step: Step, measuring: bool = False) -> Tensor:
        """W * M, made; if measuring, the sum of M and the size of W * M before it is rounded are noted."""
        mask = mask.detach()
        masked = self.weight() * mask
        if measuring:
            self.sum, self.size = mask.sum(dtype=torch.float32), size_of(masked, step.absolute)
        return masked.to(self.linear.weight.dtype)

    def backward(self, x: Tensor, gradient: Tensor, step: Step, needs_input: bool) -> Tensor | None:
        """Note the gradient at the masked weight and return the one at the input, if it is needed."""
        gradient_TO = gradient.reshape(-1, gradient.shape[-1])
        self._accumulate(gradient_TO.T, x.reshape(-1, x.shape[-1]), step)
        mask = self.mask(step, graph=True) if step.last else None
        at_input = None
        if needs_input:
            at_input = matrix_product(gradient_TO, self.product(step, mask))
            at_input = at_input.to(gradient.dtype).view(x.shape)
        if mask is not None:
            self._to_logits(mask, step)
        return at_input

    def _accumulate(self, gradient_OT: Tensor, x_TI: Tensor, step: Step) -> None:
        """Add up this process's micro-batches, or take the only one that has this mask. Between them the sum may lie in
        bfloat16, rounded by chance, so that many small parts count."""
        before = None if self.gradient is None else self.gradient.float()
        total = with_product(before, gradient_OT, x_TI)
        whole = step.last or step.sums == torch.float32
        self.gradient = total if whole else by_chance(total, step.sums, self._chance(step))

    def _chance(self, step: Step) -> Chance:
        """What decides how a sum is rounded, of this matrix, step and micro-batch."""
        numbers = (step.seed, step.number, self.index, step.micro)
        return step.chances(self.linear.weight.device, "sums", *numbers)

    def _to_logits(self, mask: Tensor, step: Step) -> None:
        gradients = self._at_logits(mask, step, *self.slopes)
        self.gradient = self.kept_mask = self.kept_product = None
        for leaf, gradient in zip(self.gate.logits.values(), gradients, strict=True):
            leaf.grad = gradient if leaf.grad is None else leaf.grad.add_(gradient)

    def _at_logits(self, mask: Tensor, step: Step, at_sum: float, at_size: float) -> tuple[Tensor, ...]:
        """The gradient at W * M and the regulariser's slopes, carried to each of the gate's logits."""
        weight, total = self.weight(), self.gradient
        assert total is not None
        if step.absolute:
            at_mask = total.mul_(weight).add_(weight.abs(), alpha=at_size).add_(at_sum)
        else:
            at_mask = total.addcmul_(weight, mask.detach().float(), value=2 * at_size).mul_(weight).add_(at_sum)
        return torch.autograd.grad(mask, list(self.gate.logits.values()), at_mask.to(mask.dtype))


def size_of(weight: Tensor, absolute: bool) -> Tensor:
    """||W||_F^2, or ||W||_1; a scalar."""
    return weight.abs().sum() if absolute else weight.square().sum()


def matrix_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, in the type of the factors; in float32 where the processor cannot multiply their type."""
    return a @ b if instructions.multiplies(a) else a.float() @ b.float()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b in the type of x [..., in], computed as `matrix_product` says."""
    if instructions.multiplies(x):
        return nn.functional.linear(x, weight, bias)
    bias = None if bias is None else bias.float()
    return nn.functional.linear(x.float(), weight.float(), bias).to(x.dtype)


def with_product(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """total + a @ b in float32, in the place of `total`, or a @ b alone.

    A GPU adds up 16-bit factors in float32 and leaves the sum there: nothing is rounded between. On a
    CPU torch rounds each 16-bit product to the type of its factors.
    """
    if a.device.type == "cpu":
        product = matrix_product(a, b).float()
        return product if total is None else total.add_(product)
    if a.dtype == torch.float32:
        return a @ b if total is None else total.addmm_(a, b)
    if total is None:
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.addmm(total, a, b, out_dtype=torch.float32, out=total)


class _Input(torch.autograd.Function):
    """Keeps a layer's input before the layer computes. A block that is run again in the backward pass stops at the last
    input that is kept: the product behind it is not made again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None]:
        return gradient, None


class _Apply(torch.autograd.Function):
    """A layer as a node of the autograd graph. Its anchor makes the output need a gradient; what is trained gets its
    own by the layer's `backward`. The input is kept here, or `before`, by an `_Input`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, layer: TrainedLayer, step: Step | None, before: bool) -> Tensor:
        ctx.layer, ctx.step, ctx.input = layer, step, x.grad_fn if before else None
        if not before:
            ctx.save_for_backward(x)
        return layer.forward(x, step)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        keeper = ctx.input or ctx
        (x,), needs_input = keeper.saved_tensors, keeper.needs_input_grad[0]
        return ctx.layer.backward(x, gradient, ctx.step, needs_input), None, None, None, None


def _applied(layer: TrainedLayer, step: Step | None, x: Tensor) -> Tensor:
    return _Apply.apply(x, layer.anchor, layer, step, False)


def _applied_again(layer: TrainedLayer, step: Step | None, x: Tensor) -> Tensor:
    return _Apply.apply(_Input.apply(x, layer.anchor), layer.anchor, layer, step, True)


@cache
def _application(again: bool, compiled: bool) -> Callable[[TrainedLayer, Step | None, Tensor], Tensor]:
    """What puts a layer into the graph, of blocks that run again in the backward pass or once, compiled or not."""
    applied = _applied_again if again else _applied
    disable: Any = torch.compiler.disable  # it is typed for another kind of call
    return disable(applied) if compiled else applied


@contextmanager
def masked(layers: Sequence[TrainedLayer], step: Step | None, options: LoopOptions | None = None) -> Iterator[None]:
    """Within it, the model's prunable layers compute with their masks of `step`, in blocks that run as the options
    say (`running_blocks`)."""
    applied = _application(*((options.gradient_checkpointing, options.compiled_blocks) if options else (False, False)))
    for layer in layers:
        module: Any = layer.linear.module
        module.forward = partial(applied, layer, step)
    try:
        with unfused(layer.linear.module for layer in layers):
            yield
    finally:
        for layer in layers:
            del layer.linear.module.forward


@contextmanager
def running_blocks(model: nn.Module, options: LoopOptions) -> Iterator[None]:
    """Within it each decoder block runs as the options say: compiled; keeping its input only, and running again in the
    backward pass."""
    changed = options.compiled_blocks or options.gradient_checkpointing
    blocks = decoder_blocks(model)[1] if changed else []
    for block in blocks:
        forward = block.forward
        if options.compiled_blocks:
            forward = torch.compile(forward, backend=COMPILER)
        if options.gradient_checkpointing:
            forward = partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
        block.forward = forward
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
