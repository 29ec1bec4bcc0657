"""Gradient surgery on two losses of one network."""

import torch
from torch import nn

from minbert.pcgrad import Memory, give_gradients, pcgrad, take_gradients

network, x, gradients = nn.Linear(3, 1), torch.randn(8, 3), []
for target in (1.0, -1.0):
    (network(x) - target).square().mean().backward()
    gradients.append(take_gradients(network.parameters()))
give_gradients(gradients, pcgrad, Memory(seed=0))  # the combined gradient is now where the optimizer looks
print(network.weight.grad)
