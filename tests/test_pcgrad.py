"""Gradient surgery against the papers' algorithms, written out on flat vectors, and against answers on paper.

`minbert.pcgrad` never touches a flat vector: it plays each algorithm on the T×T table of the gradients' products.
Here stands the other way, the papers' own, one line of the algorithm a line of numpy. Every check is a function of the
method, so that it can be shown to fail on methods that are a little wrong, as public code often is.
"""

import copy
import functools
import io
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
from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.data import Batch
from minbert.multitask import MultitaskBert
from minbert.optimizer import AdamW
from minbert.pcgrad import COMBINE, Memory, cagrad, give_gradients, gradvac, pcgrad, sum_gradients, take_gradients
from minbert.tasks import TASKS

EXAMPLE_2 = np.array([[1.0, 0], [-1, 1]])  # two tasks in conflict
EXAMPLE_3 = np.array([[1.0, 0, 0], [-1, 1, 0], [-0.5, -1, 1]])  # three, every pair in conflict
SHAPES = [(2, 3), (4,), (1, 2, 2), (), (5, 1)]  # of some parameters; 20 numbers


def gradients_of(G: np.ndarray, shapes=None, dtype=torch.float64) -> list[list[torch.Tensor]]:
    """The rows of G as gradients: a list of tensors each, of these shapes or of one number and the others."""
    shapes = shapes or [(1,), (G.shape[1] - 1,)]
    cuts = [math.prod(shape) for shape in shapes]
    return [[part.reshape(s).to(dtype) for part, s in zip(torch.tensor(g).split(cuts), shapes, strict=True)] for g in G]


def flat(gradient: list[torch.Tensor]) -> np.ndarray:
    """A gradient as one vector, (n,)."""
    return torch.cat([part.flatten() for part in gradient]).double().numpy()


def combined(combine, G: np.ndarray, memory: Memory | None = None, **how) -> np.ndarray:
    """What a method makes of the rows of G, (n,)."""
    return flat(combine(gradients_of(np.asarray(G, dtype=np.float64), **how), memory or Memory(0)))


# ---------------------------------------------------------------------------------------------- PCGrad, literally


def surgery(against="originals", squared=True, add=np.sum, conflict=lambda dot: dot < 0, orders=None, extra=None):
    """Yu et al. 2020, Algorithm 1, as printed. Every option is a way to get it wrong."""

    def combine(gradients, memory):
        G = np.stack([flat(g) for g in gradients])
        G_pc = G.copy()
        for i, others in (orders or module.orders)(len(G), memory):
            for j in others:
                g_j = G_pc[j] if against == "projected" else G[j]
                dot, norm2 = G_pc[i] @ g_j, g_j @ g_j + (extra[j] if extra else 0)
                if conflict(dot):
                    G_pc[i] = G_pc[i] - dot / (norm2 if squared else norm2**0.5) * g_j
        return [torch.from_numpy(add(G_pc, axis=0))]

    return combine


def shuffle_thrown_away(T, memory):
    for i in range(T):
        others = [j for j in range(T) if j != i]
        torch.randperm(T, generator=memory.random)  # as `sorted(others, key=random)` on a line of its own
        yield i, others


def one_shuffle_for_all(T, memory):
    order = torch.randperm(T, generator=memory.random).tolist()
    yield from ((i, [j for j in order if j != i]) for i in range(T))


WRONG = {  # methods that compute something else, whatever the order
    "projects against projected gradients": surgery(against="projected"),
    "divides by the norm, not by its square": surgery(squared=False),
    "mean instead of sum": surgery(add=np.mean),
    "projects without conflict": surgery(conflict=lambda dot: True),
    "plain sum": sum_gradients,
}
wrong_methods = pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)


def fixed(order):
    """An `orders` that gives every task the others in this order."""
    return lambda T, memory: [(i, [j for j in order if j < T and j != i]) for i in range(T)]


def check_worked_examples(combine):
    """(1, 0) loses its part along (-1, 1), which is (.5, -.5), and so (-1, 1) its part along (1, 0). And on, by hand.

    Three tasks, each meeting the others in the order 1-2-3:
        g₁ = (1, 0, 0)     → meets g₂: (½, ½, 0)     → meets g₃: + ⅓g₃ = (⅓, ⅙, ⅓)
        g₂ = (-1, 1, 0)    → meets g₁: (0, 1, 0)     → meets g₃: + 4/9·g₃ = (-2/9, 5/9, 4/9)
        g₃ = (-½, -1, 1)   → meets g₁: (0, -1, 1)    → meets g₂: + ½g₂ = (-½, -½, 1)      sum (-.389, .222, 1.778)
    """
    np.testing.assert_allclose(combined(combine, EXAMPLE_2), [0.5, 1.5])
    np.testing.assert_allclose(combined(combine, EXAMPLE_3), [-7 / 18, 2 / 9, 16 / 9], rtol=1e-12)
    np.testing.assert_array_equal(combined(combine, [[1, 0], [1, 1]]), [2, 1])  # no conflict: nothing to do


def test_the_worked_examples(monkeypatch):
    monkeypatch.setattr(module, "orders", fixed([0, 1, 2]))
    check_worked_examples(surgery())
    check_worked_examples(pcgrad)


@wrong_methods
def test_the_worked_examples_tell_a_wrong_method(wrong, monkeypatch):
    monkeypatch.setattr(module, "orders", fixed([0, 1, 2]))
    with pytest.raises(AssertionError):
        check_worked_examples(wrong)


def test_six_orders_give_six_sums(monkeypatch):
    """With three tasks in conflict the order matters, and ours is that of the algorithm in each."""
    sums = set()
    for order in itertools.permutations(range(3)):
        monkeypatch.setattr(module, "orders", fixed(order))
        ours = combined(pcgrad, EXAMPLE_3)
        np.testing.assert_allclose(ours, combined(surgery(), EXAMPLE_3), atol=1e-12)
        sums.add(tuple(ours.round(9)))
    assert len(sums) == 6


def check_literal(combine, dtype=torch.float64, rtol=1e-10):
    """Two to five tasks, parameters of many shapes, gradients of unlike sizes, random orders: Algorithm 1's sum."""
    random = np.random.default_rng(1)
    for case in range(60):
        shapes = [SHAPES[i] for i in random.integers(0, len(SHAPES), random.integers(1, 5))]
        n = sum(map(math.prod, shapes))
        G = random.normal(size=(random.integers(2, 6), n)) * 10 ** random.uniform(-1, 1, size=(1, n))
        expected = combined(surgery(), G, Memory(case))
        ours = combined(combine, G, Memory(case), shapes=shapes, dtype=dtype)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=rtol * norm(G))


def test_it_is_algorithm_1():
    check_literal(pcgrad)


def test_it_is_algorithm_1_in_float32():
    check_literal(pcgrad, torch.float32, rtol=1e-5)


@wrong_methods
def test_a_wrong_method_is_not_algorithm_1(wrong):
    with pytest.raises(AssertionError):
        check_literal(wrong)


# ---------------------------------------------------------------------------------------------- chance


def check_random(combine):
    """Each of three tasks meets the other two in either order, independently: 2³ ways, equally often.

    Two of the eight are no permutation of the three (1 meets 2 before 3, 2 meets 3 before 1, 3 meets 1 before 2; and
    the reverse): who shuffles once for all tasks never has them.
    """
    ways = itertools.product(*([(i, o) for o in itertools.permutations({0, 1, 2} - {i})] for i in range(3)))
    names = [tuple(combined(surgery(orders=lambda T, m, way=way: way), EXAMPLE_3).round(9) + 0.0) for way in ways]
    assert len(set(names)) == 8
    memory = Memory(3)
    counts = Counter(tuple(combined(combine, EXAMPLE_3, memory).round(9) + 0.0) for _ in range(1600))
    assert set(counts) <= set(names)
    assert chisquare([counts[name] for name in names]).pvalue > 1e-3


def test_orders_are_random_and_each_task_has_its_own():
    check_random(surgery())
    check_random(pcgrad)


@pytest.mark.parametrize("wrong", [shuffle_thrown_away, one_shuffle_for_all, fixed([2, 0, 1])])
def test_an_order_that_is_not_random_shows(wrong):
    with pytest.raises(AssertionError):
        check_random(surgery(orders=wrong))


def sums(memory: Memory, count: int = 20) -> list[list[float]]:
    return [combined(pcgrad, EXAMPLE_3, memory).tolist() for _ in range(count)]


def test_orders_come_from_the_seed():
    assert sums(Memory(7)) == sums(Memory(7)) != sums(Memory(8))
    before = torch.get_rng_state()
    sums(Memory(7))
    assert torch.equal(torch.get_rng_state(), before)  # dropout's chance is another


def reloaded(memory: Memory) -> Memory:
    """A memory that was written to a file and read by another run, begun with another seed."""
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    new = Memory(99)
    new.load_state_dict(torch.load(file, weights_only=True))
    return new


def test_a_saved_memory_goes_on_with_the_same_orders():
    memory = Memory(7)
    sums(memory)
    saved = reloaded(memory)
    assert sums(memory) == sums(saved) != sums(Memory(7))


# ---------------------------------------------------------------------------------------------- what must always hold

whole = st.integers(-9, 9).map(float)  # products of whole numbers are exact: in conflict or not, without a doubt
pairs = st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(whole, min_size=n, max_size=n), min_size=2, max_size=2))


def check_no_conflict(combine, G):
    """After surgery on two tasks, a small step makes neither worse: the update opposes neither gradient."""
    update = combined(combine, G, shapes=[(len(G[0]),)])
    assert (G @ update >= -1e-9).all()


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_the_update_of_two_tasks_opposes_neither(G):
    check_no_conflict(pcgrad, np.array(G))


@pytest.mark.parametrize("wrong", ["plain sum", "divides by the norm, not by its square"])
def test_a_wrong_update_opposes_one(wrong):
    with pytest.raises(AssertionError):
        check_no_conflict(WRONG[wrong], np.array([[1.0, 0.0], [-8.0, 1.0]]))


def check_untouched(combine, G):
    """Gradients that agree are added up as they are, to the last bit."""
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


@pytest.mark.parametrize("wrong", ["mean instead of sum", "projects without conflict"])
def test_a_wrong_sum_shows(wrong):
    with pytest.raises(AssertionError):
        check_untouched(lambda g, m: [WRONG[wrong](g, m)[0].float()], [[1.0, 2, 3, 4], [1.0, 0, 0, 0]])


methods = pytest.mark.parametrize("combine", COMBINE.values(), ids=COMBINE)


@methods
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tasks_without_a_slope_do_no_harm(combine, dtype):
    """A gradient of zeros has no direction. Whichever tasks have one, the update is finite, and no longer than due."""
    for present in itertools.product([0.0, 1.0], repeat=3):
        update = combined(combine, EXAMPLE_3 * np.array(present)[:, None], dtype=dtype)
        assert np.isfinite(update).all()
        assert norm(update) <= 2 * norm(EXAMPLE_3) * any(present)


@pytest.mark.parametrize("combine", [sum_gradients, pcgrad, gradvac])
def test_a_task_without_a_slope_leaves_the_others_sum(combine):
    three = np.array([[1.0, 0], [0, 0], [-1, 1]])
    np.testing.assert_allclose(combined(combine, three), combined(combine, EXAMPLE_2), atol=1e-12)


@methods
def test_a_slope_too_small_to_square_does_no_harm(combine):
    """1e-30 is a float32, its square is not: beside it a division by ‖g_j‖² = 0 lurks."""
    update = combined(combine, [[1.0, 1.0], [-1e-30, 0.0]], dtype=torch.float32)
    assert np.isfinite(update).all() and norm(update) < 2


# ---------------------------------------------------------------------------------------------- GradVac


def vaccine(update="always", of="changed", add=np.sum, beta=0.01):
    """Wang et al. 2021, Algorithm 1, as printed, for one component (the whole model). Options are ways to be wrong."""
    targets = {}

    def combine(gradients, memory):
        G = np.stack([flat(g) for g in gradients])
        G_new = G.copy()
        for i, others in module.orders(len(G), memory):
            for j in others:
                g_i, g_j = (G_new if of == "changed" else G)[i], G[j]
                phi = g_i @ g_j / (norm(g_i) * norm(g_j))
                target = targets.get((i, j), 0.0)
                if phi < target:
                    up = norm(g_i) * (target * math.sqrt(1 - phi**2) - phi * math.sqrt(1 - target**2))
                    G_new[i] = G_new[i] + up / (norm(g_j) * math.sqrt(1 - target**2)) * g_j
                if update == "always" or (update == "inside the if" and phi < target):
                    targets[i, j] = (1 - beta) * target + beta * phi
        return [torch.from_numpy(add(G_new, axis=0))]

    combine.targets = targets
    return combine


def drifting(steps: int = 40, T: int = 3, n: int = 20) -> list[np.ndarray]:
    """Gradients of T tasks over a run: a direction in common, one of their own, and noise."""
    random = np.random.default_rng(2)
    common, own = random.normal(size=(1, n)), random.normal(size=(T, n))
    return [math.cos(k / 7) * common + own + random.normal(size=(T, n)) for k in range(steps)]


def check_gradvac(combine):
    """Step after step the published update, with targets that follow the cosines they aim at."""
    literal, memory, its = vaccine(), Memory(4), Memory(4)
    for G in drifting():
        expected = combined(literal, G, its)
        np.testing.assert_allclose(combined(combine, G, memory, shapes=SHAPES), expected, rtol=1e-9, atol=1e-10)
    return literal, memory


def test_gradvac_is_the_published_algorithm():
    literal, memory = check_gradvac(gradvac)
    for (i, j), target in literal.targets.items():
        assert memory.targets[i, j].item() == pytest.approx(target, rel=1e-9)
    assert len(literal.targets) == 6 and max(literal.targets.values()) > 0.05


@pytest.mark.parametrize(
    "wrong", [{"update": "inside the if"}, {"update": "never"}, {"of": "originals"}, {"add": np.mean}, {"beta": 0.1}]
)
def test_a_wrong_gradvac_shows(wrong):
    with pytest.raises(AssertionError):
        check_gradvac(vaccine(**wrong))


@pytest.mark.parametrize("wrong", [pcgrad, sum_gradients])
def test_gradvac_is_no_other_method(wrong):
    with pytest.raises(AssertionError):
        check_gradvac(wrong)


@pytest.mark.parametrize("target", [-0.2, 0.0, 0.3, 0.9])
def test_gradvac_raises_a_cosine_to_its_target_and_no_further(target):
    """The formula is the law of sines; what it is for can be measured: cos(g₁', g₂) is the target, if it was below."""
    for g1, g2 in np.random.default_rng(5).normal(size=(50, 2, 4)):
        memory = Memory(0)
        memory.targets = torch.tensor([[0, target], [-1, 0]], dtype=torch.float64)  # g₂ wants nothing of g₁
        g1_new = combined(gradvac, [g1, g2], memory) - g2
        before, after = g1 @ g2 / norm(g1) / norm(g2), g1_new @ g2 / norm(g1_new) / norm(g2)
        assert after == pytest.approx(max(before, target), abs=1e-9)


def test_gradvac_begins_as_pcgrad():
    """With every target at 0 it asks for no conflict and no more; that is its first step."""
    for G in drifting():
        np.testing.assert_allclose(combined(gradvac, G, Memory(6)), combined(pcgrad, G, Memory(6)), atol=1e-9)


def test_gradvac_goes_on_from_a_saved_memory():
    memory, forgetful = Memory(7), Memory(7)
    first, rest = drifting()[:30], drifting()[30:]
    for G in first:
        combined(gradvac, G, memory)
    saved = reloaded(memory)
    forgetful.random.set_state(memory.random.get_state())  # the same orders, but no targets
    goes_on = [combined(gradvac, G, memory).tolist() for G in rest]
    assert [combined(gradvac, G, saved).tolist() for G in rest] == goes_on
    assert [combined(gradvac, G, forgetful).tolist() for G in rest] != goes_on


# ---------------------------------------------------------------------------------------------- CAGrad

C = module.CAGRAD_C


@functools.cache
def simplex(T: int) -> np.ndarray:
    """Weights w ≥ 0 that sum to 1, in a fine grid: steps of 1/20,000 for two tasks, 1/300 for three."""
    if T == 2:
        w = np.linspace(0, 1, 20_001)
        return np.stack([w, 1 - w], axis=1)
    i, j = (x.flatten() for x in np.meshgrid(np.arange(301), np.arange(301)))
    i, j = i[i + j <= 300], j[i + j <= 300]
    return np.stack([i, j, 300 - i - j], axis=1) / 300


def dual(w: np.ndarray, G: np.ndarray) -> np.ndarray:
    """Liu et al. 2021, Algorithm 1: F(w) = g_w·g₀ + √φ‖g_w‖, g_w = Σ wᵢgᵢ/T, √φ = c‖g₀‖. w: (rows, T)."""
    g_0, g_w = G.mean(axis=0), w @ G / len(G)
    return g_w @ g_0 + C * norm(g_0) * norm(g_w, axis=-1)


def some_gradients(T: int, unlike: float, count: int = 60):
    """T independent vectors each time, some up to 10^(2·unlike) times as long as others; also very long and short."""
    random = np.random.default_rng(8)
    for n in random.integers(T, 8, count):
        yield random.normal(size=(T, n)) * 10 ** random.uniform(-unlike, unlike, size=(T, 1))


def check_cagrad(combine, T: int, unlike: float = 1.5):
    """The update is g₀ + √φ/‖g_w‖·g_w for a w on the simplex, and no w of a fine grid does better.

    The gradients are independent, so that the update says what w was: it is Σ aᵢgᵢ with aᵢ = 1/T + λwᵢ. "No better"
    is meant to a millionth: F may exceed the grid's least by 1e-6·‖g₀‖·max‖gᵢ‖.
    """
    for G in some_gradients(T, unlike):
        update, g_0 = combined(combine, G), G.mean(axis=0)
        a = np.linalg.lstsq(G.T, update, rcond=None)[0]
        w = (a - 1 / T) / (a - 1 / T).sum()
        assert (w > -1e-6).all()  # and sums to 1
        g_w = w @ G / T
        distance = update - g_0
        np.testing.assert_allclose(distance, C * norm(g_0) / norm(g_w) * g_w, atol=1e-6 * norm(g_0))
        assert norm(distance) <= C * norm(g_0) * (1 + 1e-6)
        assert dual(w, G) <= dual(simplex(T), G).min() + 1e-6 * norm(g_0) * norm(G, axis=1).max()


@pytest.mark.parametrize("T", [2, 3])
def test_cagrad_is_the_published_update(T):
    check_cagrad(cagrad, T, unlike=0.3)


@pytest.mark.parametrize("T", [2, 3])
def test_cagrad_is_the_published_update_for_gradients_of_unlike_sizes(T):
    check_cagrad(cagrad, T, unlike=1.5)


def toward(w_of):
    """CAGrad with another w."""

    def combine(gradients, memory):
        G = np.stack([flat(g) for g in gradients])
        g_0, g_w = G.mean(axis=0), w_of(G) @ G
        return [torch.from_numpy(g_0 + C * norm(g_0) * g_w / norm(g_w))]

    return combine


def least_norm(G):
    return simplex(len(G))[norm(simplex(len(G)) @ G, axis=1).argmin()]


@pytest.mark.parametrize(
    "wrong",
    [
        toward(lambda G: np.full(len(G), 1 / len(G))),  # a longer mean
        toward(least_norm),  # MGDA's w, which minimises ‖g_w‖ alone
        lambda gradients, memory: [3 * flatten for flatten in cagrad(gradients, memory)],  # a sum's length
        pcgrad,
    ],
    ids=["mean", "least norm", "sum", "pcgrad"],
)
def test_a_wrong_cagrad_shows(wrong):
    with pytest.raises(AssertionError):
        check_cagrad(wrong, 3, unlike=0.3)


def check_worst_off(combine):
    """What CAGrad is for: of all d with ‖d - g₀‖ ≤ c‖g₀‖ it is the one that helps the worst-off task most.

    In the plane all of them can be tried: the best lies on the circle, at one of 100,000 angles.
    """
    angles = np.linspace(0, 2 * math.pi, 100_000)
    circle = np.stack([np.cos(angles), np.sin(angles)])  # (2, angles)
    for G in np.random.default_rng(9).normal(size=(60, 2, 2)):
        g_0, update = G.mean(axis=0), combined(combine, G)
        best = (G @ (g_0[:, None] + C * norm(g_0) * circle)).min(axis=0).max()
        assert (G @ update).min() >= best - 1e-6
        assert norm(update - g_0) <= C * norm(g_0) * (1 + 1e-6)


def test_cagrad_helps_the_worst_off_task_most():
    check_worst_off(cagrad)


@pytest.mark.parametrize("wrong", [toward(lambda G: np.full(2, 0.5)), toward(least_norm), pcgrad])
def test_other_methods_help_it_less(wrong):
    with pytest.raises(AssertionError):
        check_worst_off(wrong)


def test_cagrad_with_no_room_is_the_mean(monkeypatch):
    monkeypatch.setattr(module, "CAGRAD_C", 0.0)
    np.testing.assert_allclose(combined(cagrad, EXAMPLE_3), EXAMPLE_3.mean(axis=0), rtol=0, atol=1e-12)
    monkeypatch.setattr(module, "CAGRAD_C", 1e-6)
    np.testing.assert_allclose(combined(cagrad, EXAMPLE_3), EXAMPLE_3.mean(axis=0), atol=1e-6)


@methods
@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e6])
def test_the_unit_of_the_losses_does_not_matter(combine, scale):
    """Losses a million times as large have gradients, and an update, a million times as large."""
    for G in some_gradients(3, unlike=0.5, count=20):
        update = combined(combine, G, Memory(1))
        scaled = combined(combine, scale * G, Memory(1)) / scale
        np.testing.assert_allclose(scaled, update, atol=1e-5 * norm(update))


# ---------------------------------------------------------------------------------------------- taking and giving


def parameters_with(*gradients: list[float] | None) -> list[nn.Parameter]:
    """Parameters of two numbers with these gradients."""
    parameters = [nn.Parameter(torch.zeros(2)) for _ in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = None if g is None else torch.tensor(g)
    return parameters


def test_taking_leaves_none_and_copies_nothing():
    parameters = parameters_with([1.0, 2.0], None, [3.0, 4.0])
    before = [p.grad for p in parameters]
    taken = take_gradients(parameters)
    assert [p.grad for p in parameters] == [None] * 3
    assert list(taken) == [parameters[0], parameters[2]]  # in their order
    assert taken[parameters[0]] is before[0] and taken[parameters[2]] is before[2]


def test_only_what_every_task_reaches_is_projected():
    """(1, 0) and (-1, 1) conflict. Where both tasks reach, they are projected; where some do, they are summed."""
    all_three, two, one, none = parameters_with(None, None, None, None)
    g1, g2 = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    tasks = [
        {all_three: g1.clone(), two: g1.clone(), one: g1.clone()},
        {two: g2.clone(), all_three: g2.clone()},  # the order in which a task lists its own does not matter
        {all_three: torch.zeros(2)},
    ]
    give_gradients(tasks, pcgrad, Memory(0))
    assert all_three.grad.tolist() == [0.5, 1.5]
    assert two.grad.tolist() == [0.0, 1.0]
    assert one.grad.tolist() == [1.0, 0.0]
    assert none.grad is None


def test_what_only_some_tasks_reach_does_not_count_in_the_norms():
    """Far apart in `own`, the tasks agree in `shared`: no conflict. Counted together they would seem to conflict."""
    shared, own = parameters_with(None, None)
    both = [{shared: torch.tensor([1.0, 0.0])}, {shared: torch.tensor([1.0, 1.0])}, {shared: torch.tensor([0.0, 1.0])}]
    for task, sign in zip(both[:2], (1, -1), strict=True):
        task[own] = sign * torch.tensor([9.0, 9.0])
    give_gradients(both, pcgrad, Memory(0))
    assert shared.grad.tolist() == [2.0, 2.0] and own.grad.tolist() == [0.0, 0.0]


@methods
def test_a_task_alone_keeps_its_gradient(combine):
    """In a step with one task there is nothing to combine: the very tensor comes back, with the same numbers."""
    parameters = parameters_with([1.0, -2.0], [3.0, 4.0])
    before = [p.grad for p in parameters]
    give_gradients([take_gradients(parameters)], combine, Memory(0))
    for p, g, numbers in zip(parameters, before, ([1.0, -2.0], [3.0, 4.0]), strict=True):
        assert p.grad is g and g.tolist() == numbers


@methods
def test_steps_with_one_task_may_come_before_steps_with_three(combine):
    """As in the schedule `quora_first`."""
    (p,) = parameters_with(None)
    memory, fresh = Memory(0), Memory(0)
    give_gradients([{p: torch.ones(2)}], combine, memory)
    fresh.load_state_dict({"random": memory.random.get_state(), "targets": None})
    updates = []
    for m in (memory, fresh):
        give_gradients([{p: g[0]} for g in gradients_of(EXAMPLE_3[:, :2], [(2,)], torch.float32)], combine, m)
        updates.append(p.grad.tolist())
    assert updates[0] == updates[1]


@methods
def test_the_result_lies_in_the_first_task_s_memory(combine):
    """A BERT's gradient is as large as BERT: one is held for every task, and none for the result."""
    shared = parameters_with(None, None)
    tasks = [{p: torch.randn(2) for p in shared} for _ in range(3)]
    places = [tasks[0][p].data_ptr() for p in shared]
    give_gradients(tasks, combine, Memory(0))
    assert [p.grad.data_ptr() for p in shared] == places


# ---------------------------------------------------------------------------------------------- in a real model

V, T = 30, 6


def tiny_model(seed: int = 0) -> MultitaskBert:
    """A random BERT of one layer in float64, without dropout, with the three tasks' heads."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=V, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=T, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    # With heads that all have weights, so that each has something to learn:
    return MultitaskBert(BertModel(config), ["sst", "para", "sts"], heads={"sts": "hadamard"}, dropout=0.0).double()


def random_batch(task: str, B: int, seed: int) -> Batch:
    random = torch.Generator().manual_seed(seed)
    R = 2 * B if TASKS[task].is_pair else B
    ids = torch.randint(1, V, (R, T), generator=random)
    mask = (torch.arange(T) < torch.randint(2, T + 1, (R, 1), generator=random)).long()
    low, high = TASKS[task].label_range
    labels = torch.randint(low, high + 1, (B,), generator=random).double()
    return Batch(task, list(range(B)), ids * mask, mask, torch.zeros_like(ids), labels)


BATCHES = [random_batch("sst", 4, 1), random_batch("para", 3, 2), random_batch("sts", 2, 3)]


def loss_of(model: MultitaskBert, batch: Batch) -> torch.Tensor:
    return TASKS[batch.task].loss(model(batch), batch.labels)


def combine_as_in_training(model: MultitaskBert, batches: list[Batch], combine):
    """Leave the combined gradients in `.grad`: the inner part of the training loop."""
    gradients = []
    for batch in batches:
        loss_of(model, batch).backward()
        gradients.append(take_gradients(model.bert.parameters()))
    give_gradients(gradients, combine, Memory(0))


def combine_by_hand(model: MultitaskBert, batches: list[Batch], combine):
    """The same without `.backward()`: BERT's gradients through `combine` as flat vectors, the heads' as they are.

    combine: (flat gradients, the squared norms of the tasks' gradients in their heads) → a method.
    """
    bert, heads = list(model.bert.parameters()), list(model.heads.parameters())
    flats, head_norms = [], []
    for batch in batches:
        gradients = torch.autograd.grad(loss_of(model, batch), bert + heads, allow_unused=True)
        in_bert, in_heads = gradients[: len(bert)], gradients[len(bert) :]
        flats.append([torch.cat([g.flatten() for g in in_bert])])
        head_norms.append(sum(g.square().sum().item() for g in in_heads if g is not None))
        for p, g in zip(heads, in_heads, strict=True):  # no head has two tasks
            p.grad = g if g is not None else p.grad
    (update,) = combine(head_norms)(flats, Memory(0))
    for p, part in zip(bert, update.split([p.numel() for p in bert]), strict=True):
        p.grad = part.view_as(p)


def stepped(model: MultitaskBert) -> dict[str, torch.Tensor]:
    """The model's weights after one step on what is in `.grad`, and on none for what has none."""
    AdamW(model.parameters(), lr=0.01, eps=1.0, weight_decay=0.1).step()  # a large ε: the update's size matters, too
    return {name: p.detach() for name, p in model.named_parameters()}


@functools.cache
def our_step() -> dict[str, torch.Tensor]:
    model = tiny_model()
    combine_as_in_training(model, BATCHES, pcgrad)
    return stepped(model)


def check_model(combine):
    """One step of all three tasks moves every weight of the model to where Algorithm 1, by hand, moves it."""
    model = tiny_model()
    combine_by_hand(model, BATCHES, combine)
    by_hand = stepped(model)
    for name, p in our_step().items():
        torch.testing.assert_close(p, by_hand[name], rtol=0, atol=1e-10, msg=name)


def test_a_step_of_a_real_model_is_algorithm_1_on_bert_and_plain_on_the_heads():
    check_model(lambda head_norms: surgery())


@pytest.mark.parametrize(
    "wrong",
    [lambda head_norms: surgery(extra=head_norms), *(lambda head_norms, w=w: w for w in WRONG.values())],
    ids=["norms that include the heads", *WRONG],
)
def test_a_wrong_step_of_a_real_model_shows(wrong):
    with pytest.raises(AssertionError):
        check_model(wrong)


def test_a_sum_of_gradients_is_the_gradient_of_the_sum():
    """`sum_gradients`, the long way round, is one backward pass of the summed losses."""
    ours, theirs = tiny_model(), tiny_model()
    combine_as_in_training(ours, BATCHES, sum_gradients)
    sum(loss_of(theirs, batch) for batch in BATCHES).backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12)


@methods
def test_heads_keep_their_own_gradients(combine):
    model = tiny_model()
    combine_as_in_training(model, BATCHES, combine)
    for batch in BATCHES:
        own = list(model.heads[batch.task].parameters())
        for p, g in zip(own, torch.autograd.grad(loss_of(model, batch), own), strict=True):
            torch.testing.assert_close(p.grad, g, rtol=0, atol=0)


def test_a_head_without_a_batch_stays_where_it_is():
    """Not even weight decay moves it: its gradient is None. A gradient of zeros would let it decay."""
    model = tiny_model()
    start = copy.deepcopy(model.heads["para"].state_dict())
    combine_as_in_training(model, [BATCHES[0], BATCHES[2]], pcgrad)
    assert all(p.grad is None for p in model.heads["para"].parameters())
    stepped(model)
    assert all(torch.equal(p, start[name]) for name, p in model.heads["para"].named_parameters())

    for p in model.heads["para"].parameters():
        p.grad = torch.zeros_like(p)
    stepped(model)
    assert not torch.equal(model.heads["para"].linear.weight, start["linear.weight"])
