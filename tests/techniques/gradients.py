"""Gradients as flat vectors, and PCGrad's algorithm on them: what the tests of gradient surgery share."""

import io
import math

import numpy as np
import pytest
import torch

from minbert import pcgrad as module
from minbert.pcgrad import COMBINE, Memory

EXAMPLE_2 = np.array([[1.0, 0], [-1, 1]])  # two tasks in conflict
EXAMPLE_3 = np.array([[1.0, 0, 0], [-1, 1, 0], [-0.5, -1, 1]])  # three, every pair in conflict
SHAPES = [(2, 3), (4,), (1, 2, 2), (), (5, 1)]  # of some parameters; 20 numbers
METHODS = {name: combine for name, combine in COMBINE.items() if combine}  # all but "separate"
methods = pytest.mark.parametrize("combine", METHODS.values(), ids=METHODS)


def gradients_of(G: np.ndarray, shapes=None, dtype=torch.float64) -> list[list[torch.Tensor]]:
    """The rows of G as gradients: a list of tensors each, of these shapes or of one number and the others."""
    shapes = shapes or [(1,), (G.shape[1] - 1,)]
    cuts = [math.prod(shape) for shape in shapes]
    return [[part.reshape(s).to(dtype) for part, s in zip(torch.tensor(g).split(cuts), shapes, strict=True)] for g in G]


def flat(gradient: list[torch.Tensor]) -> np.ndarray:
    """A gradient as one vector, (n,)."""
    return torch.cat([part.flatten() for part in gradient]).double().numpy()


def combined(combine, G: np.ndarray, memory: Memory | None = None, **how) -> np.ndarray:
    """A method's result for the rows of G, (n,)."""
    return flat(combine(gradients_of(np.asarray(G, dtype=np.float64), **how), memory or Memory(0)))


def reloaded(memory: Memory) -> Memory:
    """The memory of another run, begun with another seed, after it has read `memory` from a file."""
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    new = Memory(99)
    new.load_state_dict(torch.load(file, weights_only=True))
    return new


def drifting(steps: int = 40, T: int = 3, n: int = 20) -> list[np.ndarray]:
    """Gradients of T tasks over a run: a direction in common, one of their own, and noise."""
    random = np.random.default_rng(2)
    common, own = random.normal(size=(1, n)), random.normal(size=(T, n))
    return [math.cos(k / 7) * common + own + random.normal(size=(T, n)) for k in range(steps)]


def some_gradients(T: int, unlike: float, count: int = 60):
    """T independent vectors each time, some up to 10^(2·unlike) times as long as others; also very long and short."""
    random = np.random.default_rng(8)
    for n in random.integers(T, 8, count):
        yield random.normal(size=(T, n)) * 10 ** random.uniform(-unlike, unlike, size=(T, 1))


def fixed(order):
    """An `orders` that gives every task the others in this order."""
    return lambda T, memory: [(i, [j for j in order if j < T and j != i]) for i in range(T)]


def algorithm_1(gradients: list[list[torch.Tensor]], memory: Memory) -> list[torch.Tensor]:
    """PCGrad as printed (Yu et al. 2020, Algorithm 1), on flat vectors."""
    G = np.stack([flat(g) for g in gradients])
    G_pc = G.copy()
    for i, others in module.orders(len(G), memory):
        for j in others:
            dot = G_pc[i] @ G[j]
            if dot < 0:
                G_pc[i] = G_pc[i] - dot / (G[j] @ G[j]) * G[j]
    return [torch.from_numpy(G_pc.sum(axis=0))]
