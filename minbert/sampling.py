"""Schedules: the tasks and the batch sizes of each step of an epoch.

Quora has twenty-three times the examples of STS. A schedule says how much of Quora an epoch uses, and how often it
repeats the small tasks. When they are trained one after the other, the last overwrites what BERT learned for the first
(SST .346 by `sequential` and .431 by `round_robin`, on 4,000 examples of each; minbert/recipes/RESULTS.md).

    sequential    all of one task, then all of the next, every epoch (Zhang, Pan & Tao)
    round_robin   a batch of every task, as often as the smallest task has batches
    interleaved   a batch of every task, its size in proportion to the task's, as often as the largest task has batches
    quora_first   most of Quora once, at the start; then round_robin
    proportional  one task at a time, drawn with p_i ∝ N_i
    sqrt          the same with p_i ∝ √N_i
    uniform       the same with equal p_i
    annealed      the same with p_i ∝ N_i^α, α falling from 1 to 0.2 over the epochs (Stickland & Murray 2019)
    priority      p_i batches of task i, p_i falling while its dev score stays (Trujillo & Mahvash 2024, §3.2)
    fixed         the same with p_i that stay (their 1, 8, 1)

(round_robin, interleaved and quora_first: Hollister, Cooper & Brink 2023, §3.2.) N_i is a task's number of training
examples. A schedule is a function of a `Plan` and the epoch's number; it returns the epoch's steps, each a list of
tasks that take a batch. Random draws depend on (seed, epoch) alone, so only the plan's history must be saved. To resume
a run in the middle of an epoch, compute the epoch again and skip the steps that are done.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

Step = list[str]  # the tasks that one step trains on, a batch of each


@dataclass(frozen=True)
class Plan:
    """The facts that a schedule may use.

    sizes: training examples of each task, N_i. batch_size: examples in a full batch. epochs: E, their number.
    seed: of the draws. steps_per_epoch: None for the schedule's own number; "3xsts" becomes three times the batches of
    sts. history: the dev scores of the tasks after each epoch so far; the trainer appends to it. priorities: the p_i
    at the start, of each task; None for round(N_i / N_min).
    """

    sizes: Mapping[str, int]
    batch_size: int
    epochs: int = 1
    seed: int = 0
    steps_per_epoch: int | str | None = None
    history: list[Mapping[str, float]] = field(default_factory=list)
    priorities: Mapping[str, int] | None = None

    def __post_init__(self):
        if isinstance(self.steps_per_epoch, str):
            times, _, task = self.steps_per_epoch.partition("x")
            object.__setattr__(self, "steps_per_epoch", int(times) * self.batches(task))

    @property
    def largest(self) -> str:
        return max(self.sizes, key=self.sizes.__getitem__)

    @property
    def smallest(self) -> str:
        return min(self.sizes, key=self.sizes.__getitem__)

    def state_dict(self) -> dict:
        return {"history": list(self.history)}

    def load_state_dict(self, state: Mapping):
        self.history[:] = state["history"]

    def batches(self, task: str) -> int:
        """The number of batches that hold all of a task: ⌈N_i / batch size⌉."""
        return -(-self.sizes[task] // self.batch_size)


def _stretch(steps: list[Step], plan: Plan) -> list[Step]:
    """Cut or repeat an epoch to `plan.steps_per_epoch` steps."""
    n = plan.steps_per_epoch or len(steps)
    return [steps[i % len(steps)] for i in range(n)]


def sequential(plan: Plan, epoch: int) -> list[Step]:
    """⌈N_i / batch⌉ steps of each task in turn. (`steps_per_epoch` does not apply to it.)"""
    return [[task] for task in plan.sizes for _ in range(plan.batches(task))]


def round_robin(plan: Plan, epoch: int) -> list[Step]:
    """⌊N_min / batch⌋ steps of every task, at least one."""
    return _stretch([list(plan.sizes)] * max(1, plan.sizes[plan.smallest] // plan.batch_size), plan)


def interleaved(plan: Plan, epoch: int) -> list[Step]:
    """⌈N_max / batch⌉ steps of every task, with the batches of `proportional_sizes`."""
    return _stretch([list(plan.sizes)] * plan.batches(plan.largest), plan)


def quora_first(plan: Plan, epoch: int) -> list[Step]:
    """In the first epoch nine tenths of Quora, then round_robin; in later epochs round_robin, of `steps_per_epoch`."""
    first = [["para"]] * -(-9 * plan.batches("para") // 10) if epoch == 0 else []
    return first + round_robin(plan, epoch)


def _draw(plan: Plan, epoch: int, alpha: float) -> list[Step]:
    """One task a step, p_i ∝ N_i^α; as many steps as all tasks together have batches."""
    steps = plan.steps_per_epoch or sum(map(plan.batches, plan.sizes))
    random = np.random.default_rng((plan.seed, epoch))
    return [[str(task)] for task in random.choice(list(plan.sizes), size=steps, p=probabilities(plan, alpha))]


def probabilities(plan: Plan, alpha: float) -> list[float]:
    """p_i = N_i^α / Σ_j N_j^α, in the order of `plan.sizes`."""
    powers = [size**alpha for size in plan.sizes.values()]
    return [power / sum(powers) for power in powers]


def proportional(plan: Plan, epoch: int) -> list[Step]:
    """p_i ∝ N_i."""
    return _draw(plan, epoch, 1.0)


def sqrt(plan: Plan, epoch: int) -> list[Step]:
    """p_i ∝ √N_i."""
    return _draw(plan, epoch, 0.5)


def uniform(plan: Plan, epoch: int) -> list[Step]:
    """Equal p_i."""
    return _draw(plan, epoch, 0.0)


def annealed(plan: Plan, epoch: int) -> list[Step]:
    """p_i ∝ N_i^α with α = 1 - 0.8·(e-1)/(E-1) in epoch e = 1 … E; α = 1 where there is one epoch."""
    return _draw(plan, epoch, 1 - 0.8 * epoch / max(1, plan.epochs - 1))


def priority(plan: Plan, epoch: int) -> list[Step]:
    """`fixed` with the p_i of `priorities`."""
    return _iterations(plan, epoch, priorities(plan)[0])


def fixed(plan: Plan, epoch: int) -> list[Step]:
    """⌊N_min / batch⌋ iterations of p_i batches of task i, each in a fresh random order."""
    return _iterations(plan, epoch, first_priorities(plan))


def _iterations(plan: Plan, epoch: int, p: Mapping[str, int]) -> list[Step]:
    iteration = [task for task in plan.sizes for _ in range(p[task])]
    count = max(1, plan.sizes[plan.smallest] // plan.batch_size)
    if plan.steps_per_epoch:
        count = -(-plan.steps_per_epoch // len(iteration))
    random = np.random.default_rng((plan.seed, epoch))
    steps = [[str(task)] for _ in range(count) for task in random.permutation(iteration)]
    return steps[: plan.steps_per_epoch]


def first_priorities(plan: Plan) -> dict[str, int]:
    """p_i at the start: `plan.priorities`, or round(N_i / N_min)."""
    if plan.priorities:
        return {task: plan.priorities[task] for task in plan.sizes}
    return {task: round(size / plan.sizes[plan.smallest]) for task, size in plan.sizes.items()}


def priorities(plan: Plan) -> tuple[dict[str, int], bool]:
    """p_i after the scores in `plan.history`, and whether the end phase has begun.

    p_i starts at `first_priorities`. A task is saturated while its dev score is no better than its best so far. Each
    such epoch halves its p_i, at last to zero; when the score improves again, p_i is at least 1. The end phase begins
    when all tasks are saturated: every p_i is 1, and the smoothness term, if there is one, is switched on.
    (The report says "gradually decrease, even to zero"; the halving and the way back are ours.)
    """
    p = first_priorities(plan)
    best: dict[str, float] = {}
    saturated = set()
    for scores in plan.history:
        for task in p:
            if scores[task] > best.get(task, -np.inf):
                best[task] = scores[task]
                saturated.discard(task)
                p[task] = max(1, p[task])
            else:
                saturated.add(task)
                p[task] //= 2
        if saturated == set(p):
            return dict.fromkeys(p, 1), True
    return p, False


def equal_sizes(plan: Plan) -> dict[str, int]:
    """The same batch size for every task."""
    return dict.fromkeys(plan.sizes, plan.batch_size)


def proportional_sizes(plan: Plan) -> dict[str, int]:
    """⌊batch · N_i / N_max⌋, at least 1: (64, 3, 2) for Quora's 141,506, SST's 8,544 and STS's 6,040."""
    return {task: max(1, plan.batch_size * size // plan.sizes[plan.largest]) for task, size in plan.sizes.items()}


class Schedule(NamedTuple):
    """A row of SCHEDULES. steps: of an epoch. sizes: the batch size of each task. together: whether a step has several
    tasks. waits: the names of the terms of the loss (`terms.py`) that stay off in the coming epoch."""

    steps: Callable[[Plan, int], list[Step]]
    sizes: Callable[[Plan], dict[str, int]] = equal_sizes
    together: bool = False
    waits: Callable[[Plan], tuple[str, ...]] = lambda plan: ()


SCHEDULES: dict[str, Schedule] = {
    "sequential": Schedule(sequential),
    "round_robin": Schedule(round_robin, together=True),
    "interleaved": Schedule(interleaved, proportional_sizes, together=True),
    "quora_first": Schedule(quora_first, together=True),
    "proportional": Schedule(proportional),
    "sqrt": Schedule(sqrt),
    "uniform": Schedule(uniform),
    "annealed": Schedule(annealed),
    "priority": Schedule(priority, waits=lambda plan: () if priorities(plan)[1] else ("smart",)),
    "fixed": Schedule(fixed),
}
