"""PCGrad against the paper's algorithm, written out on flat vectors, and against examples worked by hand.

`minbert.pcgrad` never computes with a flat vector: it works on the T×T table of the gradients' products. The tests take
the method as an argument, so that tests/mutants/test_pcgrad.py can run them on methods that are wrong.
"""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.linalg import norm
from scipy.stats import chisquare
from torch import nn

from minbert import pcgrad as module
from minbert.pcgrad import Memory, give_gradients, pcgrad, sum_gradients
from tests.techniques.gradients import EXAMPLE_2, EXAMPLE_3, SHAPES, algorithm_1, combined, fixed, reloaded


@pytest.mark.parametrize("combine", [pcgrad, algorithm_1])
def test_the_worked_examples(combine, monkeypatch):
    """(1, 0) loses its part along (-1, 1), which is (.5, -.5); (-1, 1) loses its part along (1, 0).

    Three tasks, each meeting the others in the order 1-2-3:
        g₁ = (1, 0, 0)     → meets g₂: (½, ½, 0)     → meets g₃: + ⅓g₃ = (⅓, ⅙, ⅓)
        g₂ = (-1, 1, 0)    → meets g₁: (0, 1, 0)     → meets g₃: + 4/9·g₃ = (-2/9, 5/9, 4/9)
        g₃ = (-½, -1, 1)   → meets g₁: (0, -1, 1)    → meets g₂: + ½g₂ = (-½, -½, 1)      sum (-.389, .222, 1.778)
    """
    monkeypatch.setattr(module, "orders", fixed([0, 1, 2]))
    np.testing.assert_allclose(combined(combine, EXAMPLE_2), [0.5, 1.5])
    np.testing.assert_allclose(combined(combine, EXAMPLE_3), [-7 / 18, 2 / 9, 16 / 9], rtol=1e-12)
    np.testing.assert_array_equal(combined(combine, [[1, 0], [1, 1]]), [2, 1])  # no conflict: nothing to do


def test_six_orders_give_six_sums(monkeypatch):
    """With three tasks in conflict the result depends on the order; in each order it is the algorithm's."""
    sums = set()
    for order in itertools.permutations(range(3)):
        monkeypatch.setattr(module, "orders", fixed(order))
        ours = combined(pcgrad, EXAMPLE_3)
        np.testing.assert_allclose(ours, combined(algorithm_1, EXAMPLE_3), atol=1e-12)
        sums.add(tuple(ours.round(9)))
    assert len(sums) == 6


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_pcgrad_is_algorithm_1(dtype, rtol, combine=pcgrad):
    """Two to five tasks, parameters of many shapes, gradients of unlike sizes, random orders: Algorithm 1's sum."""
    random = np.random.default_rng(1)
    for case in range(60):
        shapes = [SHAPES[i] for i in random.integers(0, len(SHAPES), random.integers(1, 5))]
        n = sum(map(math.prod, shapes))
        G = random.normal(size=(random.integers(2, 6), n)) * 10 ** random.uniform(-1, 1, size=(1, n))
        expected = combined(algorithm_1, G, Memory(case))
        ours = combined(combine, G, Memory(case), shapes=shapes, dtype=dtype)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=rtol * norm(G))


# ------------------------------------------------------------------------------------------ random orders


def sum_in_order(way: tuple) -> tuple[float, ...]:
    """The algorithm's sum for EXAMPLE_3 in one order. way: (task, the others in order) for each task."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "orders", lambda T, memory: way)
        return tuple(combined(algorithm_1, EXAMPLE_3).round(9) + 0.0)


@pytest.mark.parametrize("combine", [pcgrad, algorithm_1])
def test_each_task_meets_the_others_in_a_random_order_of_its_own(combine):
    """Each of three tasks meets the other two in either order, independently: 2³ ways, equally often.

    Two of the eight are no permutation of the three (1 meets 2 before 3, 2 meets 3 before 1, 3 meets 1 before 2; and
    the reverse). A method that shuffles once for all tasks never has them.
    """
    ways = itertools.product(*([(i, o) for o in itertools.permutations({0, 1, 2} - {i})] for i in range(3)))
    names = [sum_in_order(way) for way in ways]
    assert len(set(names)) == 8
    memory = Memory(3)
    counts = Counter(tuple(combined(combine, EXAMPLE_3, memory).round(9) + 0.0) for _ in range(800))
    assert set(counts) <= set(names)
    assert chisquare([counts[name] for name in names]).pvalue > 1e-3


def sums(memory: Memory, count: int = 20) -> list[list[float]]:
    return [combined(pcgrad, EXAMPLE_3, memory).tolist() for _ in range(count)]


def test_orders_come_from_the_seed():
    assert sums(Memory(7)) == sums(Memory(7)) != sums(Memory(8))
    before = torch.get_rng_state()
    sums(Memory(7))
    assert torch.equal(torch.get_rng_state(), before)  # dropout's generator is not used


def test_a_saved_memory_continues_with_the_same_orders():
    memory = Memory(7)
    sums(memory)
    saved = reloaded(memory)
    assert sums(memory) == sums(saved) != sums(Memory(7))


def test_tasks_without_a_shared_weight_have_no_cosines():
    """As in a frozen BERT, or with --lora_per_task. A cosine of 0 would say that the gradients are at a right angle."""
    own, shared = [nn.Parameter(torch.zeros(2)) for _ in range(2)], nn.Parameter(torch.zeros(2))
    for combine in filter(None, module.COMBINE.values()):
        memory = Memory(0)
        give_gradients([{p: torch.ones(2), shared: torch.ones(2)} for p in own], combine, memory)
        torch.testing.assert_close(memory.cosines(), torch.ones(2, 2, dtype=torch.float64))
        for p in own:
            p.grad = None
        give_gradients([{p: torch.ones(2)} for p in own], combine, memory)
        assert memory.cosines() is None and all(torch.equal(p.grad, torch.ones(2)) for p in own)


# ------------------------------------------------------------------------------------------ what always holds

whole = st.integers(-9, 9).map(float)  # their products are exact, so it is certain whether two gradients conflict
pairs = st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(whole, min_size=n, max_size=n), min_size=2, max_size=2))


def check_no_conflict(combine, G):
    """After surgery on two tasks, the update opposes neither gradient, so that a small step makes neither worse."""
    update = combined(combine, G, shapes=[(len(G[0]),)])
    assert (G @ update >= -1e-9).all()


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_the_update_of_two_tasks_opposes_neither(G):
    check_no_conflict(pcgrad, np.array(G))


def check_untouched(combine, G):
    """The result is the plain sum of the gradients, bit for bit."""
    plain = torch.tensor(G[0], dtype=torch.float32)
    for g in G[1:]:
        plain = plain + torch.tensor(g, dtype=torch.float32)
    update = combine([[torch.tensor(g, dtype=torch.float32)] for g in G], Memory(0))
    assert torch.equal(update[0], plain)


anything_positive = st.lists(st.floats(0, 1e3, width=32), min_size=4, max_size=4)


@settings(max_examples=50, deadline=None)
@given(st.lists(anything_positive, min_size=1, max_size=5))
def test_gradients_that_agree_are_summed_to_the_last_bit(G):
    check_untouched(pcgrad, G)
    check_untouched(sum_gradients, G)


@settings(max_examples=50, deadline=None)
@given(pairs.filter(lambda G: np.dot(*G) >= 0))
def test_two_gradients_at_less_than_a_right_angle_are_summed_to_the_last_bit(G):
    check_untouched(pcgrad, G)
