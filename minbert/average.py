"""A running mean of the weights, with which the model is evaluated and kept (after Polyak & Juditsky 1992).

Each step of AdamW follows the gradient of one small batch, so the weights move around the point that they approach. A
mean over the last steps lies nearer to that point:

    θ̄ ← β_t·θ̄ + (1 - β_t)·θ,    β_t = min(β, (1 + t)/(10 + t))    after step t = 0, 1, …

θ are the weights that train; training itself does not use θ̄. β = .999 is a mean over about 1/(1 - β) = 1,000 steps. In
the first steps β_t is smaller, so that the mean soon forgets the weights with which training began (the ramp is that
of TensorFlow's `ExponentialMovingAverage`). Polyak & Juditsky give all steps the same weight; here older steps count
less. Tarvainen & Valpola 2017 take such a mean as their teacher.

A learning rate that falls to zero (`--lr_decay linear`) has the same effect at the end; the mean helps earlier, and
where the rate is constant (minbert/recipes/RESULTS.md has figures).
`smart.py` keeps another such mean, θ̃, for its Bregman term, and there it changes the loss.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """θ̄ of the weights of `model` that train. beta: β, from 0 to 1; with 0 nothing is kept, and θ̄ is θ."""

    def __init__(self, model: nn.Module, beta: float = 0.0):
        self.beta, self.step = beta, 0
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad and beta}
        self.mean = {name: p.detach().clone() for name, p in self.weights.items()}

    @torch.no_grad()
    def update(self):
        """θ̄ ← β_t·θ̄ + (1 - β_t)·θ, after every step of the optimizer."""
        beta = min(self.beta, (1 + self.step) / (10 + self.step))
        self.step += 1
        for name, mean in self.mean.items():
            mean.lerp_(self.weights[name], 1 - beta)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the weights θ̄; afterwards it has θ again, the same bits."""
        own = {name: p.data for name, p in self.weights.items()}
        try:
            self._put(self.mean)
            yield
        finally:
            self._put(own)

    def _put(self, values: Mapping[str, Tensor]):
        for name, p in self.weights.items():
            p.data = values[name]

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "mean": dict(self.mean)}

    def load_state_dict(self, state: Mapping[str, Any]):
        if state["mean"].keys() != self.mean.keys():
            raise ValueError("the running mean is not of these weights")
        self.step = state["step"]
        for name, mean in self.mean.items():
            mean.copy_(state["mean"][name])
