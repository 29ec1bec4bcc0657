"""Random pairs of sentences, as a head gets them."""

import torch
from torch import nn

from minbert.heads import HEADS, Encoded
from minbert.tasks import (
    TASKS,
)

PAIR = [name for name in HEADS if name != "linear"]  # heads that compare two vectors
SYMMETRIC = {"hadamard", "dot", "cosine", "mapped_cosine", "cross_attention"}  # what heads.py says of them
NOT_SYMMETRIC = {"concat", "difference", "relational"}
COSINES = {"cosine", "mapped_cosine"}  # which have no weights
STS, PARA = TASKS["sts"], TASKS["para"]


def pairs_of(B: int = 6, C: int = 8, T: int = 5, S: int = 4) -> Encoded:
    """Random sentences of T and of S tokens without pads; their vectors are the tokens' means."""
    random = torch.Generator().manual_seed(1)
    tokens_u = torch.randn(B, T, C, generator=random)
    tokens_v = torch.randn(B, S, C, generator=random)
    mask_u, mask_v = torch.ones(B, T, dtype=torch.long), torch.ones(B, S, dtype=torch.long)
    return Encoded(tokens_u.mean(1), tokens_v.mean(1), tokens_u, tokens_v, mask_u, mask_v)


def fresh(name: str, C: int = 8, task=STS) -> nn.Module:
    torch.manual_seed(0)
    return HEADS[name](task, C, 0.0)
