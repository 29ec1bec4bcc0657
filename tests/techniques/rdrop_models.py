"""A linear model whose dropout masks are given, and one pass of it, as `RDropTerm` sees a pass."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from minbert.smart import bernoulli_symmetric_kl, squared_error, symmetric_kl
from minbert.tasks import binary_loss, classification_loss, regression_loss


class GivenDropout(nn.Dropout):
    """Dropout with given masks, one a pass: x∘m/(1 - p) in train mode."""

    def __init__(self, p: float, masks: list[Tensor]):
        super().__init__(p)
        self.masks: Iterator[Tensor] = iter(masks)

    def forward(self, x: Tensor) -> Tensor:
        return x * next(self.masks) / (1 - self.p) if self.training else x


class Linear(nn.Module):
    """f = W·(x∘m/(1 - p)), with K outputs, in float64."""

    def __init__(self, weight: Tensor, p: float, masks: list[Tensor]):
        super().__init__()
        self.weight, self.dropout = nn.Parameter(weight.clone()), GivenDropout(p, masks)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x) @ self.weight.T


class LinearPass:
    """One pass of a batch through the linear model, with the names of `terms.Pass`."""

    def __init__(self, model: Linear, x: Tensor, labels: Tensor, loss: Callable, divergence: Callable):
        self.model, self.x, self.labels, self.loss_function, self.divergence = model, x, labels, loss, divergence
        self.logits = model(x)
        self.loss = loss(self.logits, labels)

    def again(self) -> "LinearPass":
        return type(self)(self.model, self.x, self.labels, self.loss_function, self.divergence)


P, ALPHA = 0.5, 3.0
KINDS = {  # kind → (outputs, loss, divergence, labels of three examples)
    "classes": (4, classification_loss, symmetric_kl, [3.0, 0.0, 1.0]),
    "yes_no": (1, binary_loss, bernoulli_symmetric_kl, [1.0, 0.0, 0.0]),
    "number": (1, lambda f, y: regression_loss(f, y, 0, 1), squared_error, [0.3, 2.6, 5.0]),
}


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = randn(3, 5, seed=0)
MASKS = [(randn(3, 5, seed=seed) > 0).double() for seed in (1, 2)]  # of the first and the second pass


def first_pass(kind: str, masks: list[Tensor] = MASKS, shift: Tensor | float = 0.0) -> LinearPass:
    """The first pass of three examples; the second has the second mask. shift: is added to W."""
    K, loss, divergence, labels = KINDS[kind]
    model = Linear(randn(K, 5, seed=3) + shift, P, masks)
    return LinearPass(model, X, torch.tensor(labels, dtype=torch.float64), loss, divergence)
