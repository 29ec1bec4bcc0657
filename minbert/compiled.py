"""`--compile`: BERT's layers through PyTorch's compiler.

Between two matrix products a layer has a few cheap operations: dropout, the residual, LayerNorm, GELU. Each of them
reads and writes all of a batch's numbers. The compiler writes one loop for several of them (in C++ on a CPU, in Triton
on a GPU), so that the numbers are read and written once. The function stays the same; dropout's draws are others.

On a CPU nothing is gained: nearly all of a step is matrix products, which the compiler leaves as they are, and compiled
code draws dropout's numbers one at a time. On a GPU it has not been measured.

All layers have the same code, so it is compiled once for training, and once for evaluation without gradients. The
lengths of rows and batches are variables of the compiled code; a batch of one row is compiled by itself, and so is each
task where tasks have additions of their own. After the first epoch nothing is left to compile.
"""

import sys
from types import MethodType

import torch
from torch import nn

from minbert.errors import UserError, one_line

VARIANTS = 64  # of a function's compiled code; PyTorch's own limit, 8, is soon reached by several tasks


def compile_layers(bert: nn.Module, resumed: bool = False):
    """Let the layers of `bert` run through compiled code. The weights, their names and the modules stay as they are.

    UserError where PyTorch cannot compile. A run that is resumed there goes on without compiled code instead.
    """
    try:
        _try(next(bert.parameters()).device)
    except UserError as error:
        if not resumed:
            raise UserError(f"{error}; install it, or leave the flag out") from error
        print(f"{error}, so the run goes on uncompiled", file=sys.stderr)
        return
    torch._dynamo.config.recompile_limit = VARIANTS
    for kind in {type(layer) for layer in bert.bert_layers}:
        forward = torch.compile(kind.forward, dynamic=True)
        for layer in bert.bert_layers:
            if type(layer) is kind:
                layer.forward = MethodType(forward, layer)


def _try(device: torch.device):
    """Compile a function of one line. UserError where that fails."""
    try:
        torch.compile(lambda x: x.exp() + 1)(torch.ones(2, device=device))
    except RuntimeError as error:
        reason = one_line(next((line for line in str(error).splitlines() if line.strip()), type(error).__name__))
        raise UserError(
            f"--compile: PyTorch's compiler does not work here ({reason[:200]}); it needs a C++ compiler such as "
            "g++, and Triton on a GPU"
        ) from error
