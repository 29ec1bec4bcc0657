"""Draws of another schedule and priorities by other rules: each must fail a test that the right ones pass."""

import itertools

import pytest

from tests.techniques.test_priorities import test_priorities_over_a_run as check_run
from tests.techniques.test_sampling import (
    ANNEALED,
    DRAWN,
    DRAWS,
    annealed,
    check_independent,
    check_probabilities,
    steps,
)


@pytest.mark.parametrize(("name", "other"), list(itertools.permutations(DRAWN, 2)))
def test_draws_of_one_schedule_are_not_anothers(name, other):
    with pytest.raises(AssertionError):
        check_probabilities(steps(name, steps_per_epoch=DRAWS, seed=1), DRAWN[other])


@pytest.mark.parametrize("epoch", range(10))
def test_an_annealed_epoch_is_not_the_one_before(epoch):
    with pytest.raises(AssertionError):
        check_probabilities(annealed(epoch), ANNEALED[epoch - 1])  # before the first: the last


@pytest.mark.parametrize("name", [*DRAWN, "annealed"])
def test_sorted_draws_are_not_independent(name):
    with pytest.raises(AssertionError):
        check_independent(sorted(steps(name, steps_per_epoch=DRAWS)))  # the same counts, one task after the other


# ------------------------------------------------------------------------------------------ priorities


def literal(plan, lower=lambda p: p // 2, back=1, worse_than=max, ends=all, one_at_the_end=True):
    """The rules in another form, task by task. Every option is a mistake."""
    smallest = min(plan.sizes.values())
    stalls, p = {}, {}
    for task, size in plan.sizes.items():
        x = [scores[task] for scores in plan.history]
        stalls[task] = [e > 0 and not x[e] > worse_than(x[:e]) for e in range(len(x))]
        p[task] = round(size / smallest)
        for stall in stalls[task]:
            p[task] = lower(p[task]) if stall else max(back, p[task])
    ended = any(ends(column) for column in zip(*stalls.values(), strict=True))
    return (dict.fromkeys(p, 1) if ended and one_at_the_end else p), ended


def test_the_rules_without_a_mistake_pass():
    check_run(literal)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lower": lambda p: p - 1},
        {"lower": lambda p: max(1, p // 2)},
        {"back": 0},
        {"worse_than": lambda before: before[-1]},  # compares with the last score, not with the best
        {"worse_than": lambda before: 9},  # lowers always
        {"ends": any},  # the first to saturate ends it for all
        {"ends": lambda stalls: False},
        {"one_at_the_end": False},
    ],
)
def test_wrong_rules_fail_the_run_by_hand(wrong):
    with pytest.raises(AssertionError):
        check_run(lambda plan: literal(plan, **wrong))
