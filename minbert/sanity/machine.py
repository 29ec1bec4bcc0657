"""The machine on which their code runs: it has no GPU, no workers, no compiler, no half precision, and no flags."""

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

from minbert.sanity.starter import Flags


class OnTheCPU(TorchFunctionMode):
    """Lets code that asks for a GPU run on the CPU. asked: how often it asked."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), options: dict | None = None) -> Any:
        options = options or {}
        if function is Tensor.cuda:
            self.asked += 1
            return args[0]
        if _is_gpu(options.get("device")) or (function is Tensor.to and any(map(_is_gpu, args[1:]))):
            self.asked += 1
            options = {**options, **({"device": "cpu"} if "device" in options else {})}
            args = tuple("cpu" if _is_gpu(a) else a for a in args)
        return function(*args, **options)


def _is_gpu(device: Any) -> bool:
    return isinstance(device, str | torch.device) and str(device).startswith(("cuda", "mps", "xpu"))


def settle():
    """Switch off workers, compiler, half precision and warnings in this process; parsers then give their defaults."""
    warnings.simplefilter("ignore")
    real = torch.autocast.__init__

    def autocast(self: Any, device_type: str = "cpu", *args: Any, **options: Any):
        real(self, "cpu", enabled=False)

    def parse_known_args(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> tuple:
        lacking = [a.dest for a in self._actions if a.required and a.default in (None, argparse.SUPPRESS)]
        for action in self._actions:
            action.required = False
            if not action.option_strings:
                action.nargs = "?"
        given, _ = parse(self, [] if args is None else args, None)
        return Flags(**{k: v for k, v in vars(given).items() if k not in lacking}), []

    def loader(self: Any, dataset: Any, *args: Any, **options: Any):
        for name in ("num_workers", "pin_memory", "persistent_workers", "prefetch_factor", "multiprocessing_context"):
            options.pop(name, None)
        load(self, dataset, *args, **options)

    parse, load = argparse.ArgumentParser.parse_known_args, DataLoader.__init__
    argparse.ArgumentParser.parse_known_args = parse_known_args
    argparse.ArgumentParser.parse_args = lambda self, *args, **options: self.parse_known_args(*args, **options)[0]
    DataLoader.__init__ = loader
    torch.autocast.__init__ = autocast
    for owner, name in ((torch, "set_default_device"), (torch, "set_default_tensor_type"), (torch.cuda, "set_device")):
        setattr(owner, name, lambda *args, owner=owner, name=name: None)
    for owner, name in ((torch, "compile"), (torch.jit, "script")):  # each its own function, or PyTorch complains
        setattr(owner, name, _unchanged(name))


def _unchanged(name: str) -> Callable:
    """A decorator, with arguments or without, that changes nothing."""

    def decorate(model: Any = None, *args: Any, **options: Any) -> Any:
        return (lambda m: m) if model is None else model

    decorate.__name__ = name
    return decorate
