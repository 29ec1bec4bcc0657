"""The smoothness of a small BERT: the ascent climbs and stays in its ball, without dropout, at places and not words."""

import pytest
import torch
from torch import nn

from minbert.smart import SmoothnessTerm, bernoulli_symmetric_kl, exact, smoothness, symmetric_kl
from tests.techniques.smart_models import case, close, every_way, mixed_case, seeded
from tests.techniques.test_smoothness import algorithm_1


def check_climb(method, task: str = "sst", pairs: str = "separate", seeds=range(3), **how):
    """After a step R_s has grown, no number has left the ball, no pad has moved, and every token has."""
    for seed in seeds:
        here = case(task, pairs, seed=seed)
        term, before, delta = here.search(method, seed, **how)
        assert term > before > 0
        assert term > 2 * before or how
        assert delta.abs().max() <= how.get("epsilon", 1e-5)
        assert (delta[here.batch.attention_mask == 0] == 0).all()
        assert (delta[here.batch.attention_mask == 1] != 0).all()


@every_way
def test_a_step_climbs_and_stays_in_the_ball(task, pairs):
    check_climb(smoothness, task, pairs, seeds=range(17))  # 6 · 17 = 102 models, batches and starts


@every_way
def test_a_short_step_climbs_too(task, pairs):
    """A long step down would end in the opposite corner, where ℓ is nearly as large. Only short steps can tell
    whether the direction is up."""
    check_climb(smoothness, task, pairs, eta=1e-6, sigma=2e-6)


@every_way
def test_more_steps_never_end_lower(task, pairs):
    """A convex ℓ cannot fall in a step δ' = Π(δ + ηg) from a δ in the ball: ℓ(δ') ≥ ℓ(δ) + gᵀ(δ' - δ), and Π makes
    gᵀ(δ' - δ) ≥ ‖δ' - δ‖²/η. Around x, for a small ε, ℓ is a convex quadratic."""
    more = 0
    for seed in range(5):
        here = case(task, pairs, seed=seed)
        terms = [here.search(seed=seed, steps=K).term for K in (1, 2, 3)]
        assert terms[0] * (1 - 1e-4) <= terms[1] and terms[1] * (1 - 1e-4) <= terms[2]
        more += terms[2] > 1.0001 * terms[0]
    assert more  # for some seed further steps climb higher


@every_way
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_perturbation_the_term_is_0_whatever_the_dropout(task, pairs, dtype, method=smoothness):
    """Where δ must be 0, R_s is 0, with a dropout of ½ everywhere and the model in train mode."""
    here = case(task, pairs, dropout=0.5, dtype=dtype)
    here.model.train()
    assert not torch.equal(here.f(here.x), here.f(here.x))
    for how in ({"sigma": 0.0}, {"epsilon": 0.0}, {"epsilon": 1e-30, "sigma": 0.0, "steps": 2}):
        term, before, delta = here.search(method, **how)
        assert term.abs() < 1e-9 and delta.abs().max() < 1e-29
        assert how.get("sigma") != 0 or before.abs() < 1e-9


def check_places(delta_of):
    """The same word at two places of a sentence is moved in two directions, for it is two vectors of x."""
    here = case("sst")
    delta = delta_of(here)
    assert here.batch.input_ids[0, 1] == here.batch.input_ids[0, 2]
    assert not torch.equal(delta[0, 1], delta[0, 2])


def test_places_are_moved_and_not_words():
    check_places(lambda here: here.search().delta)


@every_way
def test_float32_gives_the_result_of_float64(task, pairs):
    """ε = 1e-5 in float32, from the same start: R_s is 1e-10 or less, made of differences in the last digits."""
    here, double = case(task, pairs, dtype=torch.float32), case(task, pairs)
    double.model.load_state_dict(here.model.state_dict())
    start = torch.randn(here.x.shape, generator=seeded(0)).double()
    result, right = here.search(), double.search(algorithm_1, x=here.x.detach().double(), start=start)
    close(result.term.double(), right.term, rtol=0.1)
    close(result.before.double(), right.before, rtol=0.2)


def test_the_start_comes_from_the_generator_or_from_pytorchs():
    here = case("sst")
    assert torch.equal(here.search(seed=5).delta, here.search(seed=5).delta)
    assert not torch.equal(here.search(seed=5).delta, here.search(seed=6).delta)
    how = dict(divergence=symmetric_kl, f=here.f, mask=here.batch.attention_mask)
    torch.manual_seed(5)
    assert torch.equal(smoothness(here.model, here.x, **how).delta, here.search(seed=5).delta)
    random = seeded(5)
    two = [smoothness(here.model, here.x, **how, generator=random).delta for _ in range(2)]
    assert not torch.equal(*two)  # a generator continues


def test_the_term_s_generator_goes_on_where_it_was_saved_and_on_another_device_as_it_was_seeded():
    model = mixed_case().model
    first, again, elsewhere = (SmoothnessTerm(model, seed, smart=1.0) for seed in (1, 2, 2))
    torch.rand(3, generator=first.random)
    again.load_state_dict(first.state_dict())
    assert torch.equal(torch.rand(3, generator=again.random), torch.rand(3, generator=first.random))
    of_a_gpu = {"random": torch.zeros(16, dtype=torch.uint8), "device": "cuda"}  # 16 bytes long there, 5,056 here
    elsewhere.load_state_dict(of_a_gpu)
    assert torch.equal(torch.rand(3, generator=elsewhere.random), torch.rand(3, generator=seeded(2)))


# ------------------------------------------------------------------------------------------ number formats


@every_way
def test_inside_autocast_the_term_is_the_same(task, pairs, method=smoothness):
    """bf16 has 8 bits: it can tell 1 from 1.004, but not from 1.00001."""
    here = case(task, pairs, dtype=torch.float32)
    outside = here.search(method)
    with torch.autocast("cpu", torch.bfloat16):
        inside = here.search(method)
        assert torch.is_autocast_enabled("cpu")
    close(inside.term, outside.term, rtol=1e-3)
    close(inside.before, outside.before, rtol=1e-3)
    assert torch.equal(inside.delta, outside.delta)
    here.model.precision = "bf16"  # which concerns `model.autocast()` alone
    close(here.search(method).term, outside.term, rtol=1e-3)


def test_f_runs_without_autocast_and_dropout_inside_a_region_that_has_them():
    here, seen = mixed_case(), []

    def f(x):
        seen.append((torch.is_autocast_enabled("cpu"), any(module.training for module in here.model.modules())))
        logits = here.f(x)
        assert logits.dtype == torch.float32 and (x @ x.mT).dtype == torch.float32
        return logits

    with torch.autocast("cpu", torch.bfloat16):
        smoothness(here.model, here.x, bernoulli_symmetric_kl, f, generator=seeded(0))
        assert (here.x @ here.x.mT).dtype == torch.bfloat16
    assert seen == [(False, False)] * 3


def test_exact_can_be_nested():
    model = mixed_case().model
    modes = [module.training for module in model.modules()]
    with exact(model), exact(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes
    with exact(nn.ReLU()) as nothing:  # a model without parameters has no device
        assert nothing is None
