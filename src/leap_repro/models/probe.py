"""What a model's layers do in a pass: which are called, and which compute x W' + b. No weight is read for it.

The pass is run by a twin of the model on the meta device, where tensors have shapes and no values, so it costs
milliseconds for a model of any size. Where a model looks at a value (is this mask all ones? which experts were chosen?)
it is given zero, false, or one position: enough to go on, and no layer's use hangs on it.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from leap_repro.errors import UserError, reason
from leap_repro.models.experts import is_experts

TOKENS = 8
CLOSE = 1e-4


def called_modules(model: nn.Module) -> Counter[str]:
    """{name: calls} of the linear layers and of the modules of experts that a pass over a few tokens calls.

    Raises UserError if the pass cannot be run.
    """
    twin, called = _twin(model), Counter()
    for name, module in twin.named_modules():
        if is_experts(module):
            module.forward = lambda hidden, *routing, name=name: called.update([name]) or torch.empty_like(hidden)
        elif isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda module, args, name=name: called.update([name]))
    tokens_BT = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    try:
        with torch.no_grad(), _Guessed():
            twin(tokens_BT, use_cache=False)
    except Exception as error:
        raise UserError(
            f"{type(model).__name__} cannot be pruned: a pass over tokens alone, which shows the layers that it "
            f"calls, fails ({type(error).__name__}: {reason(error)})"
        ) from error
    return called


def _twin(model: nn.Module) -> nn.Module:
    """The same modules with tensors on the meta device, those that are no parameters or buffers too."""
    kept = [*model.parameters(), *model.buffers()]
    kept += [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return copy.deepcopy(model, {id(tensor): _without_values(tensor) for tensor in kept}).eval()


def _without_values(tensor: Tensor) -> Tensor:
    meta = tensor.detach().to("meta")
    return nn.Parameter(meta, requires_grad=False) if isinstance(tensor, nn.Parameter) else meta


class _Guessed(TorchDispatchMode):
    """Answers what depends on values that a tensor on the meta device does not have."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], Tensor) and args[0].is_meta:
            if func is torch.ops.aten._local_scalar_dense.default:
                return torch.zeros((), dtype=args[0].dtype).item()
            if func is torch.ops.aten.nonzero.default:
                return torch.empty(1, args[0].dim(), dtype=torch.long, device="meta")
        return func(*args, **(kwargs or {}))


def computes_linear(module: Any, tried: dict[Any, bool]) -> bool:
    """Whether calling the module gives x W' + b with W and b its own: a subclass of nn.Linear may do anything.

    One with a forward of its own is tried on random numbers of its size, once for all that are alike (`tried`).
    """
    if "weight" not in module._parameters or module._forward_hooks or module._forward_pre_hooks:
        return False
    if type(module).forward is nn.Linear.forward and "forward" not in vars(module):
        return True
    plain = {name: value for name, value in vars(module).items() if isinstance(value, bool | int | float | str)}
    alike = (type(module), module.weight.shape, module.bias is None, tuple(sorted(plain.items())))
    if alike not in tried:
        tried[alike] = _is_linear(module)
    return tried[alike]


def _is_linear(module: nn.Linear) -> bool:
    generator = torch.Generator().manual_seed(0)
    values = {id(p): nn.Parameter(torch.randn(p.shape, generator=generator), False) for p in module.parameters()}
    trial, x = copy.deepcopy(module, values).eval(), torch.randn(3, module.in_features, generator=generator)
    try:
        output = trial(x)
    except Exception:  # whatever it wants to be called with, it is not x alone
        return False
    expected = nn.functional.linear(x, trial.weight, trial.bias)
    return isinstance(output, Tensor) and output.shape == expected.shape and _close(output, expected)


def _close(output: Tensor, expected: Tensor) -> bool:
    return bool((output - expected).abs().max() <= CLOSE * expected.abs().max())
