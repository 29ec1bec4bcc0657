"""Schedules: counts worked by hand for the course's files, and draws against their probabilities.

A draw is right if its counts could well have come from the probabilities (chi-square, p > .001, seeds fixed).
tests/mutants/test_sampling.py shows that the same test tells one schedule's draws from another's.
"""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from minbert.sampling import SCHEDULES, Plan, equal_sizes, proportional_sizes

COURSE = {"sst": 8544, "para": 141506, "sts": 6040}  # training examples in the course's files
SMALL = {"sst": 10, "para": 33, "sts": 7}
EVERY_TASK = ["sst", "para", "sts"]
DRAWN = {"proportional": 1.0, "sqrt": 0.5, "uniform": 0.0}  # α of p_i ∝ N_i^α


def steps(name: str, sizes=COURSE, epoch: int = 0, batch_size: int = 64, **plan) -> list[list[str]]:
    return SCHEDULES[name].steps(Plan(sizes, batch_size, **plan), epoch)


def batches(epoch: list[list[str]]) -> dict[str, int]:
    """How many batches of each task."""
    return dict(Counter(itertools.chain(*epoch)))


# ------------------------------------------------------------------------------------------ counts by hand


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
    assert steps("round_robin", SMALL, batch_size=64) == [EVERY_TASK]  # at least one step


def test_interleaved_sees_all_of_the_largest_task():
    """64 of Quora with 64·8544/141506 = 3.86 of SST and 2.73 of STS, cut to 3 and 2: 2,212 times."""
    assert steps("interleaved") == [EVERY_TASK] * 2212
    sizes = SCHEDULES["interleaved"].sizes(Plan(COURSE, 64))
    assert sizes == {"sst": 3, "para": 64, "sts": 2}
    assert 2211 * sizes["para"] < COURSE["para"] <= 2212 * sizes["para"]

    assert steps("interleaved", SMALL, batch_size=5) == [EVERY_TASK] * 7
    assert proportional_sizes(Plan(SMALL, 5)) == {"sst": 1, "para": 5, "sts": 1}
    assert proportional_sizes(Plan({"a": 1000, "b": 1}, 8)) == {"a": 8, "b": 1}  # at least one example


def test_every_schedule_but_interleaved_has_one_batch_size():
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
    assert (
        len({iteration.index("sst") for iteration in iterations}) > 10
    )  # SST's batch is at many places of an iteration
    assert steps("priority", seed=1) != steps("priority") == steps("priority")
    assert batches(steps("priority", SMALL, batch_size=3)) == {"sst": 2, "para": 10, "sts": 2}  # 1.43, 4.71


def test_fixed_keeps_the_priorities_that_it_is_given():
    """Trujillo & Mahvash: one batch of SST, eight of Quora, one of STS an iteration, 1,000 batches an epoch."""
    plan = Plan(COURSE, 16, steps_per_epoch=1000, priorities={"sts": 1, "para": 8, "sst": 1})
    plan.history.extend([{"sst": 0.5, "para": 0.5, "sts": 0.5}] * 3)  # no task improves
    epoch = SCHEDULES["fixed"].steps(plan, 3)
    assert batches(epoch) == {"sst": 100, "para": 800, "sts": 100}
    assert all(batches(epoch[i : i + 10]) == {"sst": 1, "para": 8, "sts": 1} for i in range(0, 1000, 10))
    assert epoch != SCHEDULES["fixed"].steps(plan, 2)  # in a fresh order each epoch
    assert {*batches(SCHEDULES["priority"].steps(plan, 3)).values()} == {333, 334}  # its end phase
    assert steps("fixed") == steps("priority")  # without priorities of one's own, and before any history


def test_the_schedules_marked_together_have_every_task_in_a_step():
    """Gradients can be combined only where a step has several tasks. (`quora_first` begins with one task.)"""
    for name, schedule in SCHEDULES.items():
        assert schedule.together == (steps(name, epoch=1)[0] == EVERY_TASK), name
    together = [name for name, schedule in SCHEDULES.items() if schedule.together]
    assert together == ["round_robin", "interleaved", "quora_first"]


# ------------------------------------------------------------------------------------------ draws

DRAWS = 20_000


def check_probabilities(epoch: list[list[str]], alpha: float, sizes=COURSE):
    """The counts of the tasks could well be draws with p_i = N_i^α / Σ N_j^α."""
    p = np.array(list(sizes.values()), dtype=float) ** alpha
    counts = batches(epoch)
    assert set(map(len, epoch)) == {1} and len(epoch) >= DRAWS
    assert chisquare([counts.get(task, 0) for task in sizes], len(epoch) * p / p.sum()).pvalue > 1e-3


@pytest.mark.parametrize("sizes", [COURSE, SMALL], ids=["course", "small"])
@pytest.mark.parametrize(("name", "alpha"), DRAWN.items())
def test_draws_have_their_schedules_probabilities(name, alpha, sizes):
    """For the course's files: (.055, .907, .039), (.169, .689, .142), (.333, .333, .333)."""
    check_probabilities(steps(name, sizes, steps_per_epoch=DRAWS, seed=1), alpha, sizes)


def test_sqrts_shares_are_those_of_a_pocket_calculator():
    """√8544 = 92.4, √141506 = 376.2, √6040 = 77.7, and their sum is 546.3."""
    counts = batches(steps("sqrt", steps_per_epoch=DRAWS))
    np.testing.assert_allclose([counts[task] / DRAWS for task in EVERY_TASK], [0.169, 0.689, 0.142], atol=0.01)


ANNEALED = [1, 0.9111, 0.8222, 0.7333, 0.6444, 0.5556, 0.4667, 0.3778, 0.2889, 0.2]  # α of ten epochs


def annealed(epoch: int) -> list[list[str]]:
    return steps("annealed", epoch=epoch, epochs=10, steps_per_epoch=DRAWS)


@pytest.mark.parametrize("epoch", range(10))
def test_annealing_goes_from_proportional_nearly_to_uniform(epoch):
    """Stickland & Murray 2019: α = 1 - .8·(e-1)/(E-1), e = 1 … E; here E = 10 and e = epoch + 1."""
    check_probabilities(annealed(epoch), ANNEALED[epoch])


def test_annealing_over_one_epoch_is_proportional():
    """With E = 1 the formula has 0/0; α is 1."""
    check_probabilities(steps("annealed", epochs=1, steps_per_epoch=DRAWS), 1.0)
    check_probabilities(steps("annealed", epochs=2, epoch=1, steps_per_epoch=DRAWS), 0.2)


def check_independent(epoch: list[list[str]]):
    """The task of a step does not depend on that of the step before (chi-square on the 3×3 table of neighbours)."""
    neighbours = Counter(itertools.pairwise(step[0] for step in epoch))
    assert chi2_contingency([[neighbours[a, b] for b in EVERY_TASK] for a in EVERY_TASK]).pvalue > 1e-3


@pytest.mark.parametrize("name", [*DRAWN, "annealed"])
def test_draws_are_independent(name):
    check_independent(steps(name, steps_per_epoch=DRAWS))


@pytest.mark.parametrize("name", [*DRAWN, "annealed"])
def test_draws_depend_on_seed_and_epoch_alone(name):
    """So a run can be resumed in the middle."""

    def drawn(epoch, seed):
        return steps(name, {"a": 1000, "b": 1000}, epoch=epoch, seed=seed, epochs=3, batch_size=8)

    assert drawn(1, 11711) == drawn(1, 11711)
    assert len({str(drawn(epoch, seed)) for epoch in range(3) for seed in (0, 1, 11711)}) == 9


@pytest.mark.parametrize("name", [*DRAWN, "annealed"])
def test_a_drawn_epoch_is_as_long_as_the_data(name):
    """134 + 2212 + 95 batches hold all examples."""
    assert len(steps(name)) == 2441


# ------------------------------------------------------------------------------------------ the length of an epoch


@pytest.mark.parametrize("n", [1, 93, 95, 5000])
@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "sequential"])
def test_steps_per_epoch_cuts_an_epoch_or_repeats_it(name, n):
    """Here in the second epoch; the first one of `quora_first` has its Quora besides."""
    epoch, whole = steps(name, epoch=1, epochs=2, steps_per_epoch=n), steps(name, epoch=1, epochs=2)
    assert len(epoch) == n
    if name not in [*DRAWN, "annealed", "priority", "fixed"]:  # these draw
        assert epoch == (whole * 60)[:n]
    if name in ("priority", "fixed"):
        assert epoch[:2350] == whole[:n]


def test_steps_per_epoch_can_be_a_multiple_of_a_tasks_batches():
    """Zhang, Pan & Tao: "the size of the STS dataset divided by the batch size and times 3", 6040/8·3 = 2265."""
    assert len(steps("annealed", batch_size=8, steps_per_epoch="3xsts")) == 2265
    assert steps("round_robin", batch_size=16, steps_per_epoch="1xpara") == [EVERY_TASK] * 8845  # 141506/16 = 8844.1
    assert len(steps("uniform", SMALL, batch_size=5, steps_per_epoch="2xsts")) == 4  # 7/5 makes 2 batches


def test_steps_per_epoch_is_added_to_quora_firsts_quora_and_does_not_change_sequential():
    assert steps("quora_first", steps_per_epoch=10) == [["para"]] * 1991 + [EVERY_TASK] * 10
    assert steps("sequential", steps_per_epoch=10) == steps("sequential")


def test_quora_first_begins_with_quora_whatever_the_sizes():
    equal = dict.fromkeys(EVERY_TASK, 100)
    assert steps("quora_first", equal, batch_size=10)[:9] == [["para"]] * 9
    assert steps("quora_first", equal, batch_size=10, epoch=1)[0] == EVERY_TASK


SIZES = st.dictionaries(st.sampled_from(EVERY_TASK), st.integers(1, 5000), min_size=1).map(
    lambda sizes: {"para": 1000} | sizes
)

SCORES = st.tuples(*[st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5])] * 3)


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=20, deadline=None)
@given(
    sizes=SIZES, batch_size=st.integers(1, 5000), epochs=st.integers(1, 4), seed=st.integers(0, 2**32 - 1),
    history=st.lists(SCORES, max_size=4),
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
