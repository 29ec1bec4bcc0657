"""GradVac and CAGrad against the papers' algorithms, written out on flat vectors, and by what they are for."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from numpy.linalg import norm

from minbert import pcgrad as module
from minbert.pcgrad import Memory, cagrad, gradvac, pcgrad, sum_gradients
from tests.techniques.gradients import (
    EXAMPLE_2,
    EXAMPLE_3,
    SHAPES,
    combined,
    drifting,
    flat,
    methods,
    reloaded,
    some_gradients,
)

# ------------------------------------------------------------------------------------------ GradVac


class Vaccine:
    """Wang et al. 2021, Algorithm 1, as printed, for one component (the whole model). targets: (i, j) → φ̂."""

    def __init__(self):
        self.targets: dict[tuple[int, int], float] = {}

    def __call__(self, gradients, memory):
        G = np.stack([flat(g) for g in gradients])
        G_new = G.copy()
        for i, others in module.orders(len(G), memory):
            for j in others:
                g_i, g_j = G_new[i], G[j]
                phi = g_i @ g_j / (norm(g_i) * norm(g_j))
                target = self.targets.get((i, j), 0.0)
                if phi < target:
                    up = norm(g_i) * (target * math.sqrt(1 - phi**2) - phi * math.sqrt(1 - target**2))
                    G_new[i] = G_new[i] + up / (norm(g_j) * math.sqrt(1 - target**2)) * g_j
                self.targets[i, j] = 0.99 * target + 0.01 * phi
        return [torch.from_numpy(G_new.sum(axis=0))]


def check_gradvac(combine) -> tuple[Vaccine, Memory]:
    """Step after step the update is the published one, with targets that follow the cosines."""
    literal, memory, memory_of_literal = Vaccine(), Memory(4), Memory(4)
    for G in drifting():
        expected = combined(literal, G, memory_of_literal)
        np.testing.assert_allclose(combined(combine, G, memory, shapes=SHAPES), expected, rtol=1e-9, atol=1e-10)
    return literal, memory


def test_gradvac_is_the_published_algorithm():
    literal, memory = check_gradvac(gradvac)
    for (i, j), target in literal.targets.items():
        assert memory.targets[i, j].item() == pytest.approx(target, rel=1e-9)
    assert len(literal.targets) == 6 and max(literal.targets.values()) > 0.05


@pytest.mark.parametrize("target", [-0.2, 0.0, 0.3, 0.9])
def test_gradvac_raises_a_cosine_to_its_target_and_no_further(target):
    """cos(g₁', g₂) is the target where it was below; otherwise g₁ stays."""
    for g1, g2 in np.random.default_rng(5).normal(size=(50, 2, 4)):
        memory = Memory(0)
        memory.targets = torch.tensor([[0, target], [-1, 0]], dtype=torch.float64)  # g₂ is not changed by g₁
        g1_new = combined(gradvac, [g1, g2], memory) - g2
        before, after = g1 @ g2 / norm(g1) / norm(g2), g1_new @ g2 / norm(g1_new) / norm(g2)
        assert after == pytest.approx(max(before, target), abs=1e-9)


def test_gradvac_begins_as_pcgrad():
    """With every target at 0, as in its first step, it only removes conflicts."""
    for G in drifting():
        np.testing.assert_allclose(combined(gradvac, G, Memory(6)), combined(pcgrad, G, Memory(6)), atol=1e-9)


def test_gradvac_continues_from_a_saved_memory():
    memory, without_targets = Memory(7), Memory(7)
    first, rest = drifting()[:30], drifting()[30:]
    for G in first:
        combined(gradvac, G, memory)
    saved = reloaded(memory)
    without_targets.random.set_state(memory.random.get_state())  # the same orders
    continued = [combined(gradvac, G, memory).tolist() for G in rest]
    assert [combined(gradvac, G, saved).tolist() for G in rest] == continued
    assert [combined(gradvac, G, without_targets).tolist() for G in rest] != continued


# ------------------------------------------------------------------------------------------ CAGrad

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


def check_cagrad(combine, T: int, unlike: float):
    """The update is g₀ + √φ/‖g_w‖·g_w for a w on the simplex, and no w of a fine grid does better.

    The gradients are independent, so that w follows from the update, which is Σ aᵢgᵢ with aᵢ = 1/T + λwᵢ. F(w) may
    exceed the grid's least value by a millionth, 1e-6·‖g₀‖·max‖gᵢ‖.
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
@pytest.mark.parametrize("unlike", [0.3, 1.5], ids=["", "gradients of unlike sizes"])
def test_cagrad_is_the_published_update(T, unlike):
    check_cagrad(cagrad, T, unlike)


def test_cagrad_helps_the_worst_off_task_most(combine=cagrad):
    """Of all d with ‖d - g₀‖ ≤ c‖g₀‖, CAGrad's update has the largest min gᵢ·d.

    In the plane the best d lies on the circle around g₀; the test tries 100,000 angles.
    """
    angles = np.linspace(0, 2 * math.pi, 100_000)
    circle = np.stack([np.cos(angles), np.sin(angles)])  # (2, angles)
    for G in np.random.default_rng(9).normal(size=(60, 2, 2)):
        g_0, update = G.mean(axis=0), combined(combine, G)
        best = (G @ (g_0[:, None] + C * norm(g_0) * circle)).min(axis=0).max()
        assert (G @ update).min() >= best - 1e-6
        assert norm(update - g_0) <= C * norm(g_0) * (1 + 1e-6)


def test_cagrad_with_c_0_is_the_mean(monkeypatch):
    monkeypatch.setattr(module, "CAGRAD_C", 0.0)
    np.testing.assert_allclose(combined(cagrad, EXAMPLE_3), EXAMPLE_3.mean(axis=0), rtol=0, atol=1e-12)
    monkeypatch.setattr(module, "CAGRAD_C", 1e-6)
    np.testing.assert_allclose(combined(cagrad, EXAMPLE_3), EXAMPLE_3.mean(axis=0), atol=1e-6)


# ------------------------------------------------------------------------------------------ all methods


@methods
@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e6])
def test_scaled_losses_give_a_scaled_update(combine, scale):
    """Losses a million times as large have gradients, and an update, a million times as large."""
    for G in some_gradients(3, unlike=0.5, count=20):
        update = combined(combine, G, Memory(1))
        scaled = combined(combine, scale * G, Memory(1)) / scale
        np.testing.assert_allclose(scaled, update, atol=1e-5 * norm(update))


@methods
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_zeros_give_a_finite_update(combine, dtype):
    """A gradient of zeros has no direction. Whichever tasks have one, the update is finite and not too long."""
    for present in itertools.product([0.0, 1.0], repeat=3):
        update = combined(combine, EXAMPLE_3 * np.array(present)[:, None], dtype=dtype)
        assert np.isfinite(update).all()
        assert norm(update) <= 2 * norm(EXAMPLE_3) * any(present)


@pytest.mark.parametrize("combine", [sum_gradients, pcgrad, gradvac])
def test_a_gradient_of_zeros_leaves_the_others_combination(combine):
    three = np.array([[1.0, 0], [0, 0], [-1, 1]])
    np.testing.assert_allclose(combined(combine, three), combined(combine, EXAMPLE_2), atol=1e-12)


@methods
def test_a_gradient_too_small_to_square_gives_a_finite_update(combine):
    """1e-30 is a float32 and its square is not, so that ‖g_j‖² = 0 for a gradient that is not 0."""
    update = combined(combine, [[1.0, 1.0], [-1e-30, 0.0]], dtype=torch.float32)
    assert np.isfinite(update).all() and norm(update) < 2
