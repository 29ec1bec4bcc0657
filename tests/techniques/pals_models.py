"""Small BERTs with layers of each task's own beside their layers, and how their tests compare them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.multitask import MultitaskBert, part_of
from minbert.pals import ADAPTERS
from tests.techniques.models import NAMES, V, batch_of

H, L = 3, 2  # heads and layers

CONFIG = BertConfig(
    vocab_size=V, hidden_size=12, num_hidden_layers=L, num_attention_heads=H, intermediate_size=20,
    max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.3,
)  # fmt: skip

NOISY = replace(CONFIG, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)

WAYS = {  # settings of `MultitaskBert(additions={"adapter": …})`
    "pal": {"adapter": "pal"},
    "pal 6": {"adapter": "pal", "size": 6},
    "low_rank": {"adapter": "low_rank"},
    "low_rank 3": {"adapter": "low_rank", "size": 3},
    "low_rank gelu": {"adapter": "low_rank", "size": 4, "activation": "gelu"},
}

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
a_pal_and_a_low_rank = pytest.mark.parametrize("way", [WAYS["pal 6"], WAYS["low_rank 3"]], ids=["pal", "low_rank"])


def add(bert: BertModel, way: dict, tasks=NAMES) -> BertModel:
    options = dict(way)
    return ADAPTERS[options.pop("adapter")](bert, tasks, **options)


def adapters(bert: nn.Module, task: str = "") -> dict[str, nn.Parameter]:
    """The added parameters of one task or of all. A parameter that layers share occurs once."""
    return {name: p for name, p in bert.named_parameters() if f".adapter.{task}" in name}


def own_of(model: MultitaskBert) -> dict[str, nn.Parameter]:
    """The parameters that are BERT's own."""
    return {name: p for name, p in model.named_parameters() if part_of(name) == "BERT"}


def randomize(module: nn.Module, seed: int = 7) -> nn.Module:
    """Put random numbers into all added parameters, V_D and the biases too, as if they had been trained."""
    random = torch.Generator().manual_seed(seed)
    for p in adapters(module).values():
        p.data = 0.5 * torch.randn(p.shape, generator=random, dtype=torch.float64).to(p.dtype)
    return module


def random_bert(config: BertConfig = CONFIG, attention: str = "plain") -> BertModel:
    """A BERT with random weights, its LayerNorms' too."""
    torch.manual_seed(0)
    bert = BertModel(config, attention)
    for module in bert.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, mean=1.0, std=0.3)
            nn.init.normal_(module.bias, std=0.3)
    return bert.eval()


def adapted(way: dict, attention: str = "plain", dtype=torch.float64) -> BertModel:
    return randomize(add(random_bert(attention=attention).to(dtype), way)).eval()


def vectors(mask: Tensor, seed: int = 2, C: int = CONFIG.hidden_size) -> Tensor:
    """Random vectors of the tokens and of the pads, (B, T, C) float64."""
    return torch.randn(*mask.shape, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def additive(mask: Tensor) -> Tensor:
    """(B, T) of 1 and 0 → (B, 1, 1, T) float64 of 0 and a hugely negative number."""
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(mask == 0, -1e300)[:, None, None, :]


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def model_of(
    way: dict | None, pairs: str = "separate", config: BertConfig = CONFIG, also: dict | None = None
) -> MultitaskBert:
    """Three tasks on a random BERT, whose own layers have random weights, in train mode and without dropout.

    STS has a head with weights, so that each head has something to learn. also: further additions.
    """
    additions = ({"adapter": way} if way else {}) | (also or {})
    heads = {"sts": "hadamard"} if pairs == "separate" else None
    model = MultitaskBert(random_bert(config), NAMES, pairs, heads=heads, dropout=0.0, additions=additions)
    return randomize(model.train())


def answers(model: MultitaskBert, order=NAMES) -> dict[str, Tensor]:
    """The model's outputs for a batch of every task, computed in this order."""
    with torch.no_grad():
        return {task: model(batch_of(task, model.pairs[task])) for task in order}


def copies(named: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in named.items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two dicts of tensors are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
