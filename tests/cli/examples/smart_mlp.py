"""SMART's smoothness term on a network that is no BERT."""

import torch
from torch import nn

from minbert.smart import smoothness, symmetric_kl

torch.manual_seed(0)
mlp, x, y = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), torch.randn(16, 4), torch.randint(3, (16,))
result = smoothness(mlp, x, symmetric_kl, epsilon=0.1)
(nn.functional.cross_entropy(mlp(x), y) + 5 * result.term).backward()
print(f"before the ascent {result.before:.4f}, after {result.term:.4f}")
