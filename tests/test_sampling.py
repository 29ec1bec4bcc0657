"""Schedules: counts worked by hand for the course's files, draws against their probabilities, priorities by script.

A draw is right if its counts could well have come from the probabilities (chi-square, p > .001, seeds fixed), and the
test is worth something if it can tell one schedule's draws from another's.
"""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from minbert.sampling import SCHEDULES, Plan, equal_sizes, priorities, proportional_sizes

COURSE = {"sst": 8544, "para": 141506, "sts": 6040}  # training examples in the course's files
SMALL = {"sst": 10, "para": 33, "sts": 7}
EVERY_TASK = ["sst", "para", "sts"]
DRAWN = {"proportional": 1.0, "sqrt": 0.5, "uniform": 0.0}  # α of p_i ∝ N_i^α


def steps(name: str, sizes=COURSE, epoch: int = 0, batch_size: int = 64, **plan) -> list[list[str]]:
    return SCHEDULES[name].steps(Plan(sizes, batch_size, **plan), epoch)


def batches(epoch: list[list[str]]) -> dict[str, int]:
    """How many batches of each task."""
    return dict(Counter(itertools.chain(*epoch)))


# ---------------------------------------------------------------------------------------------- counts, by hand


def test_sequential_sees_all_of_one_task_after_the_other():
    """8544/64 = 133.5, 141506/64 = 2211.03, 6040/64 = 94.375: the last batch of each is smaller than the others."""
    assert steps("sequential") == [["sst"]] * 134 + [["para"]] * 2212 + [["sts"]] * 95
    assert steps("sequential", SMALL, batch_size=5) == [["sst"]] * 2 + [["para"]] * 7 + [["sts"]] * 2
    assert steps("sequential", epoch=3) == steps("sequential")


def test_round_robin_stops_with_the_smallest_task():
    """⌊6040/64⌋ = 94, and at batch 8: 755."""
    assert steps("round_robin") == [EVERY_TASK] * 94
    assert steps("round_robin", batch_size=8) == [EVERY_TASK] * 755
    assert steps("round_robin", SMALL, batch_size=3) == [EVERY_TASK] * 2
    assert steps("round_robin", SMALL, batch_size=64) == [EVERY_TASK]  # not an epoch of nothing


def test_interleaved_sees_all_of_the_largest_task():
    """64 of Quora with 64·8544/141506 = 3.86 of SST and 2.73 of STS, cut to 3 and 2: 2,212 times."""
    assert steps("interleaved") == [EVERY_TASK] * 2212
    sizes = SCHEDULES["interleaved"].sizes(Plan(COURSE, 64))
    assert sizes == {"sst": 3, "para": 64, "sts": 2}
    assert 2211 * sizes["para"] < COURSE["para"] <= 2212 * sizes["para"]

    assert steps("interleaved", SMALL, batch_size=5) == [EVERY_TASK] * 7
    assert proportional_sizes(Plan(SMALL, 5)) == {"sst": 1, "para": 5, "sts": 1}
    assert proportional_sizes(Plan({"a": 1000, "b": 1}, 8)) == {"a": 8, "b": 1}  # not a batch of nothing


def test_every_other_schedule_has_one_batch_size():
    for name, schedule in SCHEDULES.items():
        assert schedule.sizes is (proportional_sizes if name == "interleaved" else equal_sizes)
    assert equal_sizes(Plan(COURSE, 64)) == {"sst": 64, "para": 64, "sts": 64}


def test_quora_first_begins_with_nine_tenths_of_the_largest():
    """.9·2212 = 1990.8. The second epoch, and every one after it, is round-robin."""
    assert steps("quora_first") == [["para"]] * 1991 + [EVERY_TASK] * 94
    assert steps("quora_first", epoch=1) == steps("quora_first", epoch=7) == [EVERY_TASK] * 94
    assert steps("quora_first", SMALL, batch_size=5) == [["para"]] * 7 + [EVERY_TASK]  # .9·7 = 6.3


def test_priority_begins_with_the_ratio_of_the_sizes():
    """141506/6040 = 23.4 and 8544/6040 = 1.4: iterations of (1, 23, 1) batches, ⌊6040/64⌋ = 94 of them, shuffled."""
    epoch = [task for (task,) in steps("priority")]
    assert len(epoch) == 25 * 94
    iterations = [epoch[i : i + 25] for i in range(0, len(epoch), 25)]
    assert all(Counter(iteration) == {"sst": 1, "para": 23, "sts": 1} for iteration in iterations)
    assert len({iteration.index("sst") for iteration in iterations}) > 10  # not Quora in a row, and not always first
    assert steps("priority", seed=1) != steps("priority") == steps("priority")
    assert batches(steps("priority", SMALL, batch_size=3)) == {"sst": 2, "para": 10, "sts": 2}  # 1.43, 4.71


def test_a_step_has_every_task_in_the_schedules_that_say_so():
    """Only where a step has several tasks is there something to combine. (In `quora_first` not in the first part.)"""
    for name, schedule in SCHEDULES.items():
        assert schedule.together == (steps(name, epoch=1)[0] == EVERY_TASK), name
    together = [name for name, schedule in SCHEDULES.items() if schedule.together]
    assert together == ["round_robin", "interleaved", "quora_first"]


# ---------------------------------------------------------------------------------------------- draws

DRAWS = 20_000


def check_probabilities(epoch: list[list[str]], alpha: float, sizes=COURSE):
    """The counts of the tasks could well be draws with p_i = N_i^α / Σ N_j^α."""
    p = np.array(list(sizes.values()), dtype=float) ** alpha
    counts = batches(epoch)
    assert set(map(len, epoch)) == {1} and len(epoch) >= DRAWS
    assert chisquare([counts.get(task, 0) for task in sizes], len(epoch) * p / p.sum()).pvalue > 1e-3


@pytest.mark.parametrize("sizes", [COURSE, SMALL], ids=["course", "small"])
@pytest.mark.parametrize(("name", "alpha"), DRAWN.items())
def test_draws_have_their_schedule_s_probabilities(name, alpha, sizes):
    """For the course's files: (.055, .907, .039), (.169, .689, .142), (.333, .333, .333)."""
    check_probabilities(steps(name, sizes, steps_per_epoch=DRAWS, seed=1), alpha, sizes)


@pytest.mark.parametrize(("name", "other"), list(itertools.permutations(DRAWN, 2)))
def test_draws_of_one_schedule_do_not_pass_for_another_s(name, other):
    with pytest.raises(AssertionError):
        check_probabilities(steps(name, steps_per_epoch=DRAWS, seed=1), DRAWN[other])


def test_the_probabilities_in_figures():
    """The docstring's, which somebody can check with a pocket calculator."""
    counts = batches(steps("sqrt", steps_per_epoch=DRAWS))
    np.testing.assert_allclose([counts[task] / DRAWS for task in EVERY_TASK], [0.169, 0.689, 0.142], atol=0.01)


@pytest.mark.parametrize("epoch", range(10))
def test_annealing_goes_from_proportional_nearly_to_uniform(epoch):
    """Stickland & Murray 2019: α = 1 - .8·(e-1)/(E-1), e = 1 … E; here E = 10 and e = epoch + 1."""
    alphas = [1, 0.9111, 0.8222, 0.7333, 0.6444, 0.5556, 0.4667, 0.3778, 0.2889, 0.2]
    drawn = steps("annealed", epoch=epoch, epochs=10, steps_per_epoch=DRAWS)
    check_probabilities(drawn, alphas[epoch])
    with pytest.raises(AssertionError):
        check_probabilities(drawn, alphas[epoch - 1])  # the epoch before; before the first, the last


def test_annealing_over_one_epoch_is_proportional():
    """E = 1 makes (e-1)/(E-1) 0/0."""
    check_probabilities(steps("annealed", epochs=1, steps_per_epoch=DRAWS), 1.0)
    check_probabilities(steps("annealed", epochs=2, epoch=1, steps_per_epoch=DRAWS), 0.2)


def check_independent(epoch: list[list[str]]):
    """What is drawn next does not depend on what was drawn last: of all 3×3 neighbours as many as chance makes."""
    drawn = [step[0] for step in epoch]
    neighbours = Counter(itertools.pairwise(drawn))
    assert chi2_contingency([[neighbours[a, b] for b in EVERY_TASK] for a in EVERY_TASK]).pvalue > 1e-3


@pytest.mark.parametrize("name", [*DRAWN, "annealed"])
def test_draws_are_independent(name):
    drawn = steps(name, steps_per_epoch=DRAWS)
    check_independent(drawn)
    with pytest.raises(AssertionError):
        check_independent(sorted(drawn))  # the same counts, one task after the other


@pytest.mark.parametrize("name", [*DRAWN, "annealed"])
def test_draws_depend_on_seed_and_epoch_alone(name):
    """So that a run can be taken up in the middle."""

    def drawn(epoch, seed):
        return steps(name, {"a": 1000, "b": 1000}, epoch=epoch, seed=seed, epochs=3, batch_size=8)

    assert drawn(1, 11711) == drawn(1, 11711)
    assert len({str(drawn(epoch, seed)) for epoch in range(3) for seed in (0, 1, 11711)}) == 9


@pytest.mark.parametrize("name", [*DRAWN, "annealed"])
def test_a_drawn_epoch_is_as_long_as_the_data(name):
    """134 + 2212 + 95 batches hold all of them."""
    assert len(steps(name)) == 2441


# ---------------------------------------------------------------------------------------------- length on demand


@pytest.mark.parametrize("n", [1, 93, 95, 5000])
@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "sequential"])
def test_steps_per_epoch_cuts_an_epoch_or_repeats_it(name, n):
    """In the second epoch, that is: `quora_first` begins with its Quora, whatever is asked."""
    asked, whole = steps(name, epoch=1, epochs=2, steps_per_epoch=n), steps(name, epoch=1, epochs=2)
    assert len(asked) == n
    if name not in [*DRAWN, "annealed", "priority"]:  # those draw
        assert asked == (whole * 60)[:n]
    if name == "priority":
        assert asked[:2350] == whole[:n]


def test_steps_per_epoch_and_the_two_schedules_that_want_to_see_all():
    assert steps("quora_first", steps_per_epoch=10) == [["para"]] * 1991 + [EVERY_TASK] * 10
    assert steps("sequential", steps_per_epoch=10) == steps("sequential")


# ---------------------------------------------------------------------------------------------- priorities

THREE = {"a": 100, "b": 330, "c": 210}  # p begins as (1, 3, 2)


def p_after(*history: tuple[float, float, float], of=priorities, sizes=THREE) -> tuple[tuple[int, ...], bool]:
    """p and whether the end phase has begun, after epochs with these dev scores of a, b and c."""
    p, end = of(Plan(sizes, 8, history=[dict(zip(sizes, scores, strict=True)) for scores in history]))
    return tuple(p[task] for task in sizes), end


def check_script(of=priorities):
    """A run, epoch by epoch: b stands still, gives way by halves, down to nothing, improves again; then all stall."""
    run = [(0.1, 0.5, 0.3)]
    assert p_after(of=of) == p_after(*run, of=of) == ((1, 3, 2), False)
    for scores, p in (
        ((0.2, 0.6, 0.4), (1, 3, 2)),  # all improve: nobody gives way
        ((0.3, 0.6, 0.5), (1, 1, 2)),  # b scores the same: 3 // 2
        ((0.4, 0.5, 0.6), (1, 0, 2)),  # b scores worse
        ((0.5, 0.55, 0.7), (1, 0, 2)),  # better than the last time, but not than its best
        ((0.6, 0.9, 0.8), (1, 1, 2)),  # a new best brings it back
        ((0.6, 0.9, 0.9), (0, 0, 2)),  # a and b stall, c does not
        ((0.7, 0.9, 0.8), (1, 0, 1)),  # c and b stall, a does not
    ):
        run.append(scores)
        assert p_after(*run, of=of) == (p, False)
    run.append((0.7, 0.8, 0.8))  # now all do
    assert p_after(*run, of=of) == ((1, 1, 1), True)
    for scores in ((0.0, 0.0, 0.0), (2.0, 2.0, 2.0)):  # and it stays so, come what may
        run.append(scores)
        assert p_after(*run, of=of) == ((1, 1, 1), True)


def literal(plan, lower=lambda p: p // 2, back=1, worse_than=max, ends=all, one_at_the_end=True):
    """The rules said in another way, task by task. Every option is a way to get them wrong."""
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


def test_priorities_over_a_run():
    check_script(literal)
    check_script(priorities)


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
def test_wrong_priorities_show(wrong):
    with pytest.raises(AssertionError):
        check_script(lambda plan: literal(plan, **wrong))


scores = st.tuples(*[st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5])] * 3)
some_sizes = st.dictionaries(st.sampled_from(EVERY_TASK), st.integers(1, 5000), min_size=1).map(
    lambda sizes: {"para": 1000} | sizes
)


@settings(max_examples=100, deadline=None)
@given(st.lists(scores, max_size=12))
def test_priorities_of_any_history(history):
    """They are what the rules say; never negative, never above where they began; once at the end, at the end."""
    ended = False
    for epochs in range(len(history) + 1):
        p, end = p_after(*history[:epochs])
        assert (p, end) == p_after(*history[:epochs], of=literal)
        assert all(0 <= now <= first for now, first in zip(p, (1, 3, 2), strict=True))
        assert end or not ended
        ended = end


def test_a_priority_epoch_follows_the_history():
    """The trainer appends to it, and the next epoch is another."""
    plan = Plan(THREE, 50)
    priority = SCHEDULES["priority"].steps
    assert batches(priority(plan, 0)) == {"a": 2, "b": 6, "c": 4}
    plan.history.extend([{"a": 0.1, "b": 0.5, "c": 0.1}, {"a": 0.2, "b": 0.4, "c": 0.2}])
    assert batches(priority(plan, 2)) == {"a": 2, "b": 2, "c": 4}
    plan.history.append({"a": 0.1, "b": 0.4, "c": 0.1})
    assert batches(priority(plan, 3)) == {"a": 2, "b": 2, "c": 2}


def test_the_smoothness_term_is_always_on_but_for_priority_before_its_end_phase():
    """The plan is the one that the trainer appends its dev scores to."""
    plan, switched = Plan(THREE, 50, epochs=5), []
    for scores in ((0.5, 0.5, 0.5), (0.5, 0.6, 0.5), (0.5, 0.5, 0.5), (0.9, 0.9, 0.9), None):
        switched.append({name: schedule.smooth(plan) for name, schedule in SCHEDULES.items()})
        if scores:
            plan.history.append(dict(zip(THREE, scores, strict=True)))
    assert [epoch.pop("priority") for epoch in switched] == [False, False, False, True, True]  # the third stalls all
    assert switched == [dict.fromkeys(SCHEDULES.keys() - {"priority"}, True)] * 5


def test_quora_first_begins_with_quora_whatever_the_sizes():
    equal = dict.fromkeys(EVERY_TASK, 100)
    assert steps("quora_first", equal, batch_size=10)[:9] == [["para"]] * 9
    assert steps("quora_first", equal, batch_size=10, epoch=1)[0] == EVERY_TASK


# ---------------------------------------------------------------------------------------------- whatever the sizes


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=20, deadline=None)
@given(
    sizes=some_sizes, batch_size=st.integers(1, 5000), epochs=st.integers(1, 4), seed=st.integers(0, 2**32 - 1),
    history=st.lists(scores, max_size=4),
)  # fmt: skip
def test_every_epoch_has_steps_and_every_step_has_tasks(name, sizes, batch_size, epochs, seed, history):
    history = [dict(zip(EVERY_TASK, row, strict=True)) for row in history]
    plan = Plan(sizes, batch_size, epochs, seed, history=history)
    schedule = SCHEDULES[name]
    assert set(schedule.sizes(plan)) == set(sizes) and min(schedule.sizes(plan).values()) >= 1
    for epoch in range(epochs):
        epoch = schedule.steps(plan, epoch)
        assert epoch and all(epoch)
        assert {task for step in epoch for task in step} <= set(sizes)
