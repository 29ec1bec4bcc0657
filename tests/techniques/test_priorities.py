"""The schedule `priority`: how its p_i follow the dev scores, against a history worked by hand and literal rules."""

from hypothesis import given, settings
from hypothesis import strategies as st

from minbert.sampling import SCHEDULES, Plan, priorities
from tests.techniques.test_sampling import SCORES, batches

THREE = {"a": 100, "b": 330, "c": 210}  # p begins as (1, 3, 2)


def p_after(*history: tuple[float, float, float], of=priorities, sizes=THREE) -> tuple[tuple[int, ...], bool]:
    """p and whether the end phase has begun, after epochs with these dev scores of a, b and c."""
    p, end = of(Plan(sizes, 8, history=[dict(zip(sizes, scores, strict=True)) for scores in history]))
    return tuple(p[task] for task in sizes), end


def test_priorities_over_a_run(of=priorities):
    """Epoch by epoch: b stands still, is halved down to 0, improves again; then all tasks stand still."""
    run = [(0.1, 0.5, 0.3)]
    assert p_after(of=of) == p_after(*run, of=of) == ((1, 3, 2), False)
    for scores, p in (
        ((0.2, 0.6, 0.4), (1, 3, 2)),  # all improve
        ((0.3, 0.6, 0.5), (1, 1, 2)),  # b scores the same: 3 // 2
        ((0.4, 0.5, 0.6), (1, 0, 2)),  # b scores worse
        ((0.5, 0.55, 0.7), (1, 0, 2)),  # b scores better than the last time, but not than its best
        ((0.6, 0.9, 0.8), (1, 1, 2)),  # a new best brings b back
        ((0.6, 0.9, 0.9), (0, 0, 2)),  # a and b stall, c does not
        ((0.7, 0.9, 0.8), (1, 0, 1)),  # c and b stall, a does not
    ):
        run.append(scores)
        assert p_after(*run, of=of) == (p, False)
    run.append((0.7, 0.8, 0.8))  # all stall
    assert p_after(*run, of=of) == ((1, 1, 1), True)
    for scores in ((0.0, 0.0, 0.0), (2.0, 2.0, 2.0)):  # it stays so, whatever the scores
        run.append(scores)
        assert p_after(*run, of=of) == ((1, 1, 1), True)


def literal(plan: Plan) -> tuple[dict[str, int], bool]:
    """The rules in another form, task by task."""
    stalls, p = {}, {}
    for task, size in plan.sizes.items():
        x = [scores[task] for scores in plan.history]
        stalls[task] = [epoch > 0 and x[epoch] <= max(x[:epoch]) for epoch in range(len(x))]
        p[task] = round(size / min(plan.sizes.values()))
        for stall in stalls[task]:
            p[task] = p[task] // 2 if stall else max(1, p[task])
    ended = any(all(epoch) for epoch in zip(*stalls.values(), strict=True))
    return (dict.fromkeys(p, 1) if ended else p), ended


@settings(max_examples=100, deadline=None)
@given(st.lists(SCORES, max_size=12))
def test_priorities_of_any_history(history):
    """They equal the rules; they are never negative nor above their start; the end phase does not end."""
    ended = False
    for epochs in range(len(history) + 1):
        p, end = p_after(*history[:epochs])
        assert (p, end) == p_after(*history[:epochs], of=literal)
        assert all(0 <= now <= first for now, first in zip(p, (1, 3, 2), strict=True))
        assert end or not ended
        ended = end


def test_priorities_of_ones_own_are_where_it_starts():
    plan = Plan(THREE, 50, priorities={"a": 1, "b": 10, "c": 4})
    improving = {"a": 0.1, "b": 0.5, "c": 0.1}
    for scores, p in (
        (improving, (1, 10, 4)),
        ({"a": 0.2, "b": 0.5, "c": 0.1}, (1, 5, 2)),  # b and c stall
        ({"a": 0.3, "b": 0.6, "c": 0.1}, (1, 5, 1)),
    ):
        plan.history.append(scores)
        assert tuple(priorities(plan)[0].values()) == p


def test_a_priority_epoch_follows_the_history():
    """The trainer appends to the history."""
    plan = Plan(THREE, 50)
    priority = SCHEDULES["priority"].steps
    assert batches(priority(plan, 0)) == {"a": 2, "b": 6, "c": 4}
    plan.history.extend([{"a": 0.1, "b": 0.5, "c": 0.1}, {"a": 0.2, "b": 0.4, "c": 0.2}])
    assert batches(priority(plan, 2)) == {"a": 2, "b": 2, "c": 4}
    plan.history.append({"a": 0.1, "b": 0.4, "c": 0.1})
    assert batches(priority(plan, 3)) == {"a": 2, "b": 2, "c": 2}


def test_priority_alone_holds_back_the_smoothness_term_until_its_end_phase():
    """The plan's history is the one that the trainer appends its dev scores to."""
    plan, waiting = Plan(THREE, 50, epochs=5), []
    for scores in ((0.5, 0.5, 0.5), (0.5, 0.6, 0.5), (0.5, 0.5, 0.5), (0.9, 0.9, 0.9), None):
        waiting.append({name: schedule.waits(plan) for name, schedule in SCHEDULES.items()})
        if scores:
            plan.history.append(dict(zip(THREE, scores, strict=True)))
    assert [epoch.pop("priority") for epoch in waiting] == [("smart",)] * 3 + [()] * 2  # in the third epoch all stall
    assert waiting == [dict.fromkeys(SCHEDULES.keys() - {"priority"}, ())] * 5
