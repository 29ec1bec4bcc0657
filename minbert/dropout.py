"""Dropout whose random numbers are drawn in blocks, for processors without a GPU.

In training dropout sets each number to 0 with probability p, and makes the others larger, so that the mean stays:

    y_i = x_i·k_i/(1 - p)        k_i = 0 with probability p, else 1        (Srivastava et al. 2014, §4 and §10)

On a CPU PyTorch draws the k_i one by one, which takes 8% of a step of minilm's training. Here 64 random bits make
four numbers b_i from -2¹⁵ to 2¹⁵ - 1, and k_i = 1 where b_i ≥ p·2¹⁶ - 2¹⁵. This takes half as long. The share that is
dropped is the multiple of 2⁻¹⁶ nearest to p; for p = 0.1 it is 0.100006.

The bits come from PyTorch's own generator, so that `torch.manual_seed` fixes them and a checkpoint holds them already.
A GPU draws in parallel by itself: there, and in evaluation, this module does what nn.Dropout does.
"""

import torch
from torch import Tensor, nn

DRAWS = 2**16  # values of the 16 bits


class BlockDropout(nn.Dropout):
    """nn.Dropout with draws in blocks; everything else, its rate `p` and its name in a model, is the same."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop numbers of `input`, of any shape."""
        least = round(self.p * DRAWS)  # the smallest draw that keeps its number
        if not self.training or least in (0, DRAWS) or input.device.type != "cpu":
            return super().forward(input)
        n = input.numel()
        bits = torch.empty(-(-n // 4), dtype=torch.int64).random_(-(2**63), None)  # all 64 bits of each
        draws = bits.view(torch.int16)[:n].view(input.shape)  # b, of input's shape
        kept = (draws >= least - DRAWS // 2).float()  # k, 0 or 1
        return (input * kept.mul_(DRAWS / (DRAWS - least))).to(input.dtype)  # x·k/(1 - p)


def draw_in_blocks(model: nn.Module):
    """Replace every nn.Dropout inside `model`; the weights and their names stay as they are."""
    for name, module in list(model.named_children()):
        if type(module) is nn.Dropout:
            setattr(model, name, BlockDropout(module.p).train(module.training))
        else:
            draw_in_blocks(module)
