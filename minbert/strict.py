"""Do these weights fit this model? A misfit is an error, raised before the model takes memory for its numbers.

A well-formed file can still hold values that would load as wrong weights (whole numbers, NaN, one number repeated a
million times), or describe a model that no machine can hold. `check_tensor` checks one weight; `check_fit` builds the
model on PyTorch's "meta" device, where tensors have shapes and no numbers, and compares.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minbert.errors import UserError

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def check_tensor(name: str, value: Any, source: str | Path):
    """UserError for a value that is no usable weight: quantised, sparse, without numbers, of integers, not finite."""
    if not isinstance(value, Tensor):
        raise UserError(f"{source}: {name} is a {type(value).__name__}, not a tensor")
    if value.is_meta:
        raise UserError(f"{source}: {name} has a shape but no numbers (a meta tensor); save the loaded model")
    if value.layout != torch.strided:
        raise UserError(f"{source}: {name} is {value.layout}; save it dense, by tensor.to_dense()")
    if value.dtype not in FLOATS:
        raise UserError(f"{source}: {name} holds {value.dtype}; save the weights as float32, bfloat16 or float16")
    numbers = value.untyped_storage().nbytes() // value.element_size()
    if value.numel() > numbers:
        raise UserError(f"{source}: {name} has {value.numel():,} numbers, of which the file holds {numbers:,}; save it "
                        "by tensor.contiguous()")  # fmt: skip
    if not torch.isfinite(value.float()).all():  # a finite float64 may be infinite in float32
        raise UserError(f"{source}: {name} holds NaN or infinite numbers; its training went wrong")


def check_table(weights: Mapping[Any, Any], source: str | Path):
    """UserError where a table of weights has an entry that is no weight, or a name that is no text."""
    for name, value in weights.items():
        if not isinstance(name, str):
            raise UserError(f"{source}: {str(name)[:40]!r} is not a text, so it cannot be the name of a weight")
        check_tensor(name, value, source)


def check_fit(build: Callable[[], nn.Module], weights: Mapping[str, Tensor], source: str | Path,
              counts: Callable[[str], bool] = bool):  # fmt: skip
    """UserError where the module of `build` has other weights; it is built without memory for its numbers.

    counts: name → whether this weight of the module must be among `weights`.
    """
    try:
        with torch.device("meta"), _NoNormal():
            expected = {name: tensor for name, tensor in build().state_dict().items() if counts(name)}
    except (AttributeError, IndexError, KeyError, MemoryError, OverflowError, RuntimeError, TypeError, ValueError,
            UserError) as error:  # fmt: skip
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{source}: cannot be built again ({reason}); is it of another version?") from error
    _compare(expected, weights, source)


class _NoNormal(TorchFunctionMode):
    """Makes `normal_` do nothing: a meta tensor has no numbers to fill, and PyTorch would load 800 modules for it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def load_strictly(module: nn.Module, weights: dict[str, Tensor], source: str | Path):
    """Copy weights by name; any that is missing, left over or misshapen is a UserError that names the first."""
    _compare(module.state_dict(), weights, source)
    module.load_state_dict(weights)


def _compare(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: str | Path):
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} belongs to no part of this model" for name in weights if name not in expected]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, this model's has {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if problems:
        more = f" (and {len(problems) - 1} more such)" if len(problems) > 1 else ""
        raise UserError(f"{source}: {problems[0]}{more}")
