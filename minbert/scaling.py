"""Loss scaling: training in float16 without losing small gradients (Micikevicius et al. 2018, arXiv 1710.03740, §3.2).

float16 has 5 bits of exponent. Numbers below 2⁻²⁵ ≈ 3e-8 become 0 in it, and numbers above 65,504 become infinite.
Many gradients of activations are smaller than that. So the loss is multiplied by a large S before the backward pass,
and the gradients of the weights, which are float32, are divided by S afterwards:

    g = (1/S)·∇(S·L)        the same gradient; inside the backward pass all numbers are S times as large

The best S is the largest with which nothing becomes infinite, and it changes during training. It begins at 2¹⁶. Where
a gradient is infinite or NaN, S is halved and the same batch is computed again. After 2,000 batches without that, S
is doubled. (These numbers are those of `torch.amp.GradScaler`, which leaves the batch out instead.)

S does nothing for the forward pass: where the model itself makes numbers above 65,504, fp16 cannot be used.
bfloat16 has the exponent of float32 and needs none of this, but has only 8 bits of precision instead of 11.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from minbert import processes

START, INTERVAL = 2.0**16, 2000  # the first S, and the batches without an infinite gradient after which it doubles


class LossScale:
    """S, and how it changes. precision: of the model; S is 1 and stays so where that is not "fp16"."""

    def __init__(self, precision: str = "fp32"):
        self.is_on = precision == "fp16"
        self.value, self.good = (START if self.is_on else 1.0), 0  # good: batches since S changed

    def undo(self, parameters: Iterable[nn.Parameter]) -> bool:
        """Divide the gradients of S·L by S and return True; where S was too large, halve S and return False.

        With S = 1 a gradient that is not finite comes from the loss itself; `engine.checked_step` reports it. With
        several processes S is the same in all of them, and all compute their shares of the batch again.
        """
        if not self.is_on:
            return True
        gradients = [p.grad for p in parameters if p.grad is not None]
        infinite = ~torch.isfinite(torch.nn.utils.get_total_norm(gradients))
        if processes.largest(infinite.int()).item() and self.value > 1:
            self.value, self.good = self.value / 2, 0
            return False
        torch._foreach_mul_(gradients, 1 / self.value)
        self.good += 1
        if self.good == INTERVAL:
            self.value, self.good = self.value * 2, 0
        return True

    def state_dict(self) -> dict[str, float]:
        return {"value": self.value, "good": self.good}

    def load_state_dict(self, state: Mapping[str, float]):
        self.value, self.good = state["value"], state["good"]
