"""Small models and batches for the tests of SMART. Most are in float64: δ is 1e-5 and R_s about its square."""

import itertools
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.data import Batch
from minbert.multitask import MultitaskBert
from minbert.smart import Smoothness, smoothness
from minbert.tasks import TASKS
from tests.techniques.models import T, V


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0, dtype=torch.float64) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


def close(a, b, rtol: float = 1e-9, atol: float = 0.0):
    torch.testing.assert_close(a.detach(), torch.as_tensor(b, dtype=a.dtype).detach(), rtol=rtol, atol=float(atol))


def kl_both_ways(a: Tensor, b: Tensor) -> Tensor:
    """KL(p‖q) + KL(q‖p) as PyTorch has them; `F.kl_div(log q, log p)` is KL(p‖q)."""
    log_p, log_q = a.log_softmax(dim=-1), b.log_softmax(dim=-1)
    both = (F.kl_div(x, y, reduction="none", log_target=True) for x, y in ((log_q, log_p), (log_p, log_q)))
    return sum(both).sum(dim=-1)


# ------------------------------------------------------------------------------------------ a small BERT


class Case(NamedTuple):
    """A model, one of its batches, and the embeddings of that batch."""

    model: MultitaskBert
    batch: Batch
    x: Tensor

    def f(self, x: Tensor) -> Tensor:
        return self.model.logits(self.batch, x)

    def search(self, method=smoothness, seed: int = 0, x: Tensor | None = None, **how) -> Smoothness:
        divergence, how = TASKS[self.batch.task].divergence, {"mask": self.batch.attention_mask, **how}
        return method(self.model, self.x if x is None else x, divergence, self.f, generator=seeded(seed), **how)


def random_batch(task: str, pairs: str = "separate", B: int = 3, seed: int = 0) -> Batch:
    """Rows of 2 to T random words. The first row has the same word at its second and third place."""
    random = seeded(seed)
    R = 2 * B if TASKS[task].is_pair and pairs == "separate" else B
    ids = torch.randint(1, V, (R, T), generator=random)
    ids[0, 2] = ids[0, 1]
    mask = (torch.arange(T) < torch.tensor([[T], [2], *([n] for n in range(3, R + 1))])[:R]).long()
    types = (torch.arange(T) > 2).long().expand(R, T) if pairs == "joint" else torch.zeros_like(ids)
    return Batch(task, list(range(B)), ids * mask, mask, types * mask, torch.zeros(B))


def case(task: str, pairs: str = "separate", dropout: float = 0.0, dtype=torch.float64, seed: int = 0, **options):
    """A random BERT of two layers, with large weights, in eval mode; its embeddings have a gradient."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=V, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=T, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
        initializer_range=0.3,
    )  # fmt: skip
    model = MultitaskBert(BertModel(config), TASKS, pairs, dropout=dropout, **options).to(dtype).eval()
    batch = random_batch(task, pairs, seed=seed)
    return Case(model, batch, model.embed(batch))


WAYS = [("sst", "separate"), ("cfimdb", "joint"), *itertools.product(("para", "sts"), ("separate", "joint"))]
every_way = pytest.mark.parametrize(("task", "pairs"), WAYS)


def mixed_case(**options) -> Case:
    """A model in train mode with some parts in eval mode, some gradients, and a frozen part."""
    here = case("para", dropout=0.5, dtype=torch.float32, **options)
    here.model.train()
    here.model.bert.bert_layers[0].eval()
    here.model.heads["para"].dropout.eval()
    here.model.bert.pooler_dense.requires_grad_(False)
    for i, parameter in enumerate(here.model.parameters()):
        if i % 2 and parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, float(i))
    return Case(here.model, here.batch, here.model.embed(here.batch))


def state(model: nn.Module) -> list:
    """All that a search could change and must not."""
    return [
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if parameter.grad is None else parameter.grad.tolist() for parameter in model.parameters()],
        [tensor.tolist() for tensor in model.state_dict().values()],
        torch.get_rng_state().tolist(),
        torch.is_autocast_enabled("cpu"),
        torch.is_grad_enabled(),
    ]


# ------------------------------------------------------------------------------------------ a linear model

W = torch.tensor([3.0, -1.0, 0.5, 2.0, -0.25, 1.0], dtype=torch.float64)  # ‖W‖₁ = 7.75


def linear_model(*columns: Tensor) -> nn.Linear:
    """f(x) = x·(columns) + .3"""
    model = nn.Linear(len(columns[0]), len(columns)).double()
    model.weight.data.copy_(torch.stack(columns))
    nn.init.constant_(model.bias, 0.3)
    return model


def start_of(x: Tensor, sigma: float, seed: int) -> Tensor:
    return sigma * torch.randn(x.shape, generator=seeded(seed), dtype=x.dtype)
