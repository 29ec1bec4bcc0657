"""Heads: from sentence vectors to a task's outputs.

A head takes BERT's vectors of a batch, an `Encoded`, and returns K raw outputs an example: logits, or a number on the
labels' scale. Softmax and sigmoid belong to the loss, so no head has one. Heads share one signature and are chosen by
name from the table `HEADS`; u and v are the two sentences' vectors:

    linear           W·u + b                        sst; and a pair that BERT read as one row (joint)
    concat           W·[u; v] + b                   a pair read as two rows (separate), as for all heads below [D]
    difference       W·[u; v; |u-v|] + b            as in SBERT (Reimers & Gurevych 2019) [B]
    hadamard         W·(u⊙v)/(‖u‖‖v‖) + b           "feature-wise cosine": with all weights 1 it is cos(u, v) [A]
    dot              (Pu+c)·(Pv+c) + b              one projection for both, then their dot product [E]
    cosine           5·cos(u, v)                    on the labels' scale: identical sentences score 5; no weights [B]
    mapped_cosine    5·(1 + cos(u, v))/2            the cosine's whole range on the labels' scale; no weights [D]
    cross_attention  each sentence's tokens attend to the other's; a linear layer on the two results [A]
    relational       one layer shared by Quora and STS, then a linear layer for each [B, §3.3]

Why not always [u; v]? A linear layer on it is a sum, of something about u and something about v, and cannot compare
the two. A product or |u-v| can, number by number; the cosine and the dot product make one number of all comparisons.
A head needs enough examples for its weights: after 4,000 pairs the cosine, which has none, has .698 on STS and
difference .404, and dot has learned nothing of Quora (.453; minbert/recipes/RESULTS.md, "heads and pooling").

Swapping the sentences changes nothing for hadamard, dot, the cosines and cross_attention. The letters are course
reports: A Trujillo & Mahvash 2024, B Hollister, Cooper & Brink 2023, D Mo & Ho, E Zhang, Pan & Tao.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.bert import plain_attention
from minbert.errors import UserError
from minbert.tasks import Task


class Encoded(NamedTuple):
    """B examples after BERT. The fields that end in v are None where an example is one row.

    u, v: (B, C), the vectors of the first and the second sentence. tokens_u, tokens_v: (B, T, C), their tokens'
    vectors. mask_u, mask_v: (B, T), 1 for a token, 0 for a pad.
    """

    u: Tensor
    v: Tensor | None = None
    tokens_u: Tensor | None = None
    tokens_v: Tensor | None = None
    mask_u: Tensor | None = None
    mask_v: Tensor | None = None


def mean_pool(tokens: Tensor, mask: Tensor) -> Tensor:
    """The mean of the tokens' vectors: (B, T, C), (B, T) → (B, C).

        u = Σ_t mask_t·h_t / Σ_t mask_t

    Pads do not count. If they did, a sentence's vector would change with the longest sentence in its batch.
    """
    mask = mask[:, :, None].to(tokens.dtype)  # (B, T, 1)
    return (tokens * mask).sum(dim=1) / mask.sum(dim=1)  # (B, C)


# ------------------------------------------------------------------------------------------ pair features


def concat(u: Tensor, v: Tensor) -> Tensor:
    """[u; v]: (B, C), (B, C) → (B, 2C)."""
    return torch.cat([u, v], dim=-1)


def difference(u: Tensor, v: Tensor) -> Tensor:
    """[u; v; |u-v|]: (B, C), (B, C) → (B, 3C)."""
    return torch.cat([u, v, (u - v).abs()], dim=-1)


def hadamard(u: Tensor, v: Tensor) -> Tensor:
    """(u⊙v)/(‖u‖‖v‖): (B, C), (B, C) → (B, C), whose sum over C is the cosine."""
    return F.normalize(u, dim=-1) * F.normalize(v, dim=-1)


# ------------------------------------------------------------------------------------------ heads


class LinearHead(nn.Module):
    """Dropout, then one linear layer, on u alone or on features of (u, v).

    width: of the features. start: the initial bias.
    """

    def __init__(self, width: int, outputs: int, dropout: float, start: float, features: Callable | None = None):
        super().__init__()
        self.features = features
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, outputs)
        nn.init.constant_(self.linear.bias, start)

    def forward(self, encoded: Encoded) -> Tensor:
        features = self.features(encoded.u, encoded.v) if self.features else encoded.u  # (B, ·): C, 2C or 3C wide
        return self.linear(self.dropout(features))  # (B, K)


class HadamardHead(LinearHead):
    """W·(u⊙v)/(‖u‖‖v‖) + b, "feature-wise cosine". It starts as the cosine head, with all weights `top`."""

    def __init__(self, C: int, dropout: float, top: float):
        super().__init__(C, 1, dropout, 0.0, hadamard)
        nn.init.constant_(self.linear.weight, top)


class CosineHead(nn.Module):
    """top·cos(u, v): no parameters; `top` is the label of two sentences that mean the same.

        cos(u, v) = u·v/(‖u‖‖v‖)

    The cosine goes from -1 to 1, and the labels from 0 to 5: without the factor no pair could score above 1. A negative
    cosine stays negative, which Pearson's r allows. With BERT frozen this head has nothing to learn.
    """

    def __init__(self, top: float):
        super().__init__()
        self.top = top

    def forward(self, encoded: Encoded) -> Tensor:
        return self.top * F.cosine_similarity(encoded.u, encoded.v, dim=-1)[:, None]  # (B, 1)


class MappedCosineHead(nn.Module):
    """low + (top - low)·(1 + cos(u, v))/2: the cosines from -1 to 1 become the labels from `low` to `top`."""

    def __init__(self, low: float, top: float):
        super().__init__()
        self.low, self.top = low, top

    def forward(self, encoded: Encoded) -> Tensor:
        share = (1 + F.cosine_similarity(encoded.u, encoded.v, dim=-1)[:, None]) / 2
        return self.low + (self.top - self.low) * share


class DotHead(nn.Module):
    """(Pu+c)·(Pv+c) + b after dropout, the same projection for both sentences."""

    def __init__(self, C: int, dropout: float, start: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(C, C)
        self.bias = nn.Parameter(torch.tensor([start]))

    def forward(self, encoded: Encoded) -> Tensor:
        u, v = (self.project(self.dropout(x)) for x in (encoded.u, encoded.v))
        return (u * v).sum(dim=-1, keepdim=True) + self.bias  # (B, 1)


class CrossAttentionHead(nn.Module):
    """Attention from each sentence to the other, then a linear layer on [|ũ-ṽ|; ũ⊙ṽ], which is symmetric.

    Every token of u attends to the tokens of v, softmax(QKᵀ/√C)V with one Q, K, V for both directions. ũ is the mean
    of the results over u's tokens; ṽ is the same with the sentences exchanged.
    """

    def __init__(self, C: int, outputs: int, dropout: float, start: float):
        super().__init__()
        self.query, self.key, self.value = nn.Linear(C, C), nn.Linear(C, C), nn.Linear(C, C)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * C, outputs)
        nn.init.constant_(self.linear.bias, start)

    def attend(self, tokens: Tensor, mask: Tensor, others: Tensor, others_mask: Tensor) -> Tensor:
        """Attention from one sentence's tokens to the other's, and the mean over the tokens.

        tokens, others: (B, T, C). mask, others_mask: (B, T). Returns (B, C).
        """
        pads = (1 - others_mask[:, None, None, :].to(tokens.dtype)) * torch.finfo(tokens.dtype).min  # (B, 1, 1, T)
        q, k, v = self.query(tokens)[:, None], self.key(others)[:, None], self.value(others)[:, None]  # one head
        return mean_pool(plain_attention(q, k, v, pads, self.dropout)[:, 0], mask)

    def forward(self, encoded: Encoded) -> Tensor:
        _, _, tokens_u, tokens_v, mask_u, mask_v = encoded
        u = self.attend(tokens_u, mask_u, tokens_v, mask_v)
        v = self.attend(tokens_v, mask_v, tokens_u, mask_u)
        return self.linear(self.dropout(torch.cat([(u - v).abs(), u * v], dim=-1)))  # (B, K)


class RelationalLayer(nn.Module):
    """LeakyReLU(W·[u; v; |u-v|; (u⊙v)/(‖u‖‖v‖)] + b): what Quora and STS have in common can be learned from both."""

    def __init__(self, C: int):
        super().__init__()
        self.linear = nn.Linear(4 * C, C)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """(B, C), (B, C) → (B, C)."""
        features = torch.cat([difference(u, v), hadamard(u, v)], dim=-1)  # (B, 4C)
        return F.leaky_relu(self.linear(features))


class RelationalHead(nn.Module):
    """A relational layer, which `build_heads` lets the tasks share, and a linear layer of the task's own."""

    def __init__(self, C: int, outputs: int, dropout: float, start: float):
        super().__init__()
        self.shared = RelationalLayer(C)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(C, outputs)
        nn.init.constant_(self.linear.bias, start)

    def forward(self, encoded: Encoded) -> Tensor:
        return self.linear(self.dropout(self.shared(encoded.u, encoded.v)))  # (B, K)


class ScaledHead(nn.Module):
    """A head for labels on a scale of 5, as those of STS are, times `scale`: outputs on the scale of other labels.

    An optimizer moves a weight by about the learning rate in a step, in whatever unit the labels are. Without the
    factor a head for labels up to 1,000 would need hundreds of times as many steps as one for labels up to 5.
    """

    def __init__(self, head: nn.Module, scale: float):
        super().__init__()
        self.head, self.scale = head, scale

    def forward(self, encoded: Encoded) -> Tensor:
        return self.scale * self.head(encoded)


# ------------------------------------------------------------------------------------------ the table


def middle(task: Task) -> float:
    """The initial bias of a task's outputs: the middle of the labels for numbers, 0 for logits.

    With a bias of 0, a head for labels from 0 to 5 would spend its first steps, and BERT's, on learning their mean.
    """
    return 0.0 if task.whole else sum(task.label_range) / 2


HEADS: dict[str, Callable[[Task, int, float], nn.Module]] = {  # task, C, dropout → head
    "linear": lambda task, C, p: LinearHead(C, task.outputs, p, middle(task)),
    "concat": lambda task, C, p: LinearHead(2 * C, task.outputs, p, middle(task), concat),
    "difference": lambda task, C, p: LinearHead(3 * C, task.outputs, p, middle(task), difference),
    "hadamard": lambda task, C, p: HadamardHead(C, p, task.label_range[1]),
    "dot": lambda task, C, p: DotHead(C, p, middle(task)),
    "cosine": lambda task, C, p: CosineHead(task.label_range[1]),
    "mapped_cosine": lambda task, C, p: MappedCosineHead(*task.label_range),
    "cross_attention": lambda task, C, p: CrossAttentionHead(C, task.outputs, p, middle(task)),
    "relational": lambda task, C, p: RelationalHead(C, task.outputs, p, middle(task)),
}
PAIR_HEADS = {  # the heads that a task of each kind may choose for separate pairs, its default first
    "yes_no": ("difference", "concat", "dot", "relational"),
    "number": ("cosine", "mapped_cosine", "dot", "difference", "hadamard", "cross_attention", "relational"),
    "classes": ("difference", "concat", "relational"),
}


def build_heads(names: dict[str, str], tasks: dict[str, Task], C: int, dropout: float) -> nn.ModuleDict:
    """A head for every task in `names`; relational heads share one relational layer."""
    heads = nn.ModuleDict({name: _build_head(head, tasks[name], C, dropout) for name, head in names.items()})
    relational = [head for head in map(inner, heads.values()) if isinstance(head, RelationalHead)]
    for head in relational:
        head.shared = relational[0].shared
    return heads


def _build_head(name: str, task: Task, C: int, dropout: float) -> nn.Module:
    low, high = task.label_range
    scale = (high - low) / 5 if task.kind == "number" else 1.0
    if scale == 1.0:
        return HEADS[name](task, C, dropout)
    return ScaledHead(HEADS[name](replace(task, label_range=(low / scale, high / scale)), C, dropout), scale)


def inner(head: nn.Module) -> nn.Module:
    """The head itself, without the factor of its labels' scale."""
    return head.head if isinstance(head, ScaledHead) else head


def choose_head(task: Task, pairs: str, name: str | None = None, flag: str | None = None) -> str:
    """The head of a task: `name`, or its default. UserError where `name` cannot work with these pairs.

    flag: the flag that gave the name, for the error.
    """
    has_two_vectors = task.is_pair and pairs == "separate"
    choices = PAIR_HEADS[task.kind] if has_two_vectors else ("linear",)
    if name is None:
        return "mapped_cosine" if choices[0] == "cosine" and task.label_range[0] < 0 else choices[0]
    if name == "cosine" and task.label_range[1] <= 0:
        raise UserError(f"{flag or f'--{task.name}_head'} cosine needs labels above 0; choose mapped_cosine")
    if name not in choices:
        flag = f"{flag or f'--{task.name}_head'} {name}"
        if not task.is_pair:
            raise UserError(f"{flag} needs two sentence vectors, but {task.name} has single sentences")
        if not has_two_vectors:
            raise UserError(f"{flag} needs two sentence vectors, but --pairs joint gives one for each pair; "
                            "leave out one of the two flags")  # fmt: skip
        raise UserError(f"{flag} does not go with separate pairs; choose one of {', '.join(choices)}")
    return name
