"""--smart and --bregman in the trainer: off and on, for which tasks, when, and beside every other technique."""

import itertools

import pytest

from minbert import smart
from minbert.heads import PAIR_HEADS
from minbert.pcgrad import COMBINE
from minbert.pretrained import load_bert
from minbert.sampling import SCHEDULES
from minbert.smart import SmoothnessTerm
from minbert.tasks import TASKS
from tests.cli.runs import BOTH, EVERY_TASK, FULL, ONE_UPDATE, SMART, STILL, distance


def test_terms_with_weight_0_change_no_bit_of_a_run(train):
    plain, zero, smooth = (
        train(*FULL),
        train(*FULL, "--smart", "0", "--bregman", "0", "--rdrop", "0"),
        train(*FULL, *SMART),
    )
    assert distance(plain.weights, zero.weights) == 0 and plain.numbers() == zero.numbers()
    assert distance(plain.weights, smooth.weights) > 1e-4


WAYS = [
    *(("--schedule", name) for name in SCHEDULES),
    *(("--combine", name) for name in COMBINE),
    *((f"--{task}_head", name) for task in ("para", "sts") for name in PAIR_HEADS[TASKS[task].kind]),
    *(("--pairs", "joint", "--combine", name) for name in ("separate", "pcgrad")),
    ("--pooling", "mean"), ("--precision", "bf16"), ("--attention", "sdpa"), ("--sts_loss", "cosine"), ("--clip", "1"),
    ("--smart_noise", "relative"), ("--smart_steps", "3"), STILL,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_the_terms_work_beside_every_other_technique(train, no_evaluation, way):
    """The ascent ends at a larger divergence than it starts with, and stays in its ball."""
    (line,) = train(*FULL, *BOTH, "--smart_sigma", "0.03", *way).metrics
    tasks = set(line["loss"])
    assert tasks <= EVERY_TASK and set(line["bregman"]) == tasks
    assert set(line.get("smart", {})) == (set() if "priority" in way else tasks)  # priority: below
    for numbers in line.get("smart", {}).values():
        assert set(numbers) == {"before", "after", "max_delta"}
        assert 0 < numbers["before"] < numbers["after"] < 0.1
        if "relative" not in way:  # its radius is a share of each vector
            assert numbers["max_delta"] == pytest.approx(0.1, rel=1e-6)  # one step reaches the edge of the ball
    distances = [numbers["distance"] for numbers in line["bregman"].values()]
    assert all(0 <= value < 0.1 for value in distances) and max(distances) > 0


def test_the_papers_figures_are_the_defaults_of_a_run(train):
    """ε = 1e-5; the term is about its square."""
    (line,) = train(*FULL, "--smart", "5").metrics
    for numbers in line["smart"].values():
        assert numbers["max_delta"] == pytest.approx(1e-5) and 0 < numbers["after"] < 1e-9


def test_pads_are_not_moved(train, monkeypatch):
    """No token attends to a pad, so a pad's δ would change neither loss nor weights; it would count for max|δ|."""
    results, masks = [], []
    smoothness, call = smart.smoothness, SmoothnessTerm.__call__
    monkeypatch.setattr(smart, "smoothness", lambda *a, **k: (results.append(smoothness(*a, **k)), results[-1])[1])
    monkeypatch.setattr(
        SmoothnessTerm, "__call__", lambda self, first: (masks.append(first.batch.attention_mask), call(self, first))[1]
    )
    train(*FULL, *SMART)
    pads = [mask == 0 for mask in masks]
    assert len(results) == 6 and any(mask.any() for mask in pads)
    for (_, _, delta), mask in zip(results, pads, strict=True):
        assert (delta[mask] == 0).all() and (delta[~mask] != 0).float().mean() > 0.9


# ------------------------------------------------------------------------------------------ which tasks, and when


def test_priority_switches_the_smoothness_on_when_all_tasks_stand_still(train, no_evaluation, capsys):
    """The dev scores never change: after the second epoch all tasks are saturated, and the end phase begins."""
    run, plain = (train(*FULL, *more, "--schedule", "priority", "--epochs", "4") for more in (BOTH, ("--bregman", "1")))
    assert [set(line.get("smart", {})) for line in run.metrics] == [set(), set(), EVERY_TASK, EVERY_TASK]
    assert [set(line["bregman"]) for line in run.metrics] == [EVERY_TASK] * 4
    same = [line["loss"] == other["loss"] for line, other in zip(run.metrics, plain.metrics, strict=True)]
    assert same == [True, True, False, False]

    always = train(*FULL, *SMART, "--schedule", "round_robin", "--epochs", "4")
    assert [set(line["smart"]) for line in always.metrics] == [EVERY_TASK] * 4


def test_smart_tasks_names_the_tasks_whose_loss_has_the_term(train):
    """After one update, the heads of these tasks and BERT differ from the run without the term."""
    heads = ("--sts_head", "difference")
    plain = train(*FULL, *ONE_UPDATE, *heads)
    for names in ({"sts"}, {"sst", "para"}, EVERY_TASK):
        run = train(*FULL, *ONE_UPDATE, *heads, *SMART, "--smart_tasks", ",".join(names))
        assert set(run.metrics[0]["smart"]) == names
        for task in EVERY_TASK:
            moved = distance(run.part(f"heads.{task}."), plain.part(f"heads.{task}."))
            assert (moved > 0) == (task in names), task
        assert distance(run.part("bert."), plain.part("bert.")) > 0


def test_smart_tasks_leaves_the_other_tasks_bit_for_bit(train):
    """Over an epoch with BERT frozen: dropout draws the same numbers, too."""
    noisy = ("--sts_head", "dot", "--bert_dropout", "0.1")
    run, plain = (train(*noisy, *more) for more in ((*SMART, "--smart_tasks", "sts"), ()))
    for task in EVERY_TASK:
        same = distance(run.part(f"heads.{task}."), plain.part(f"heads.{task}.")) == 0
        assert same == (run.metrics[0]["loss"][task] == plain.metrics[0]["loss"][task]) == (task != "sts")


def test_the_terms_train_the_heads_on_a_frozen_bert_and_leave_bert(train, tiny):
    plain = train("--sts_head", "dot")
    for terms in (SMART, ("--bregman", "100"), BOTH):
        run = train("--sts_head", "dot", *terms)
        start = {f"bert.{name}": tensor for name, tensor in load_bert(tiny).state_dict().items()}
        assert distance(run.part("bert."), start) == 0
        for task in EVERY_TASK:
            assert distance(run.part(f"heads.{task}."), plain.part(f"heads.{task}.")) > 1e-5


def test_bregman_changes_the_weights_from_the_second_step_on(train):
    """In the first step D = 0, whose gradient is 0."""
    for steps, different in (("1", False), ("2", True)):
        flags = (*FULL, *STILL, "--combine", "sum", "--steps_per_epoch", steps)
        plain, near = train(*flags), train(*flags, "--bregman", "100")
        assert (distance(plain.weights, near.weights) > 1e-5) == different


# ------------------------------------------------------------------------------------------ classifier.py


def test_classifier_has_the_terms(train):
    import classifier

    plain, smooth, near = (train(*FULL, "--tasks", "sst", *more, script=classifier) for more in ((), SMART, BOTH))
    assert set(smooth.metrics[0]["smart"]) == set(near.metrics[0]["bregman"]) == {"sst"}
    assert not {"smart", "bregman"} & set(plain.metrics[0]) and "bregman" not in smooth.metrics[0]
    for one, other in itertools.combinations((plain, smooth, near), 2):
        assert distance(one.weights, other.weights) > 1e-5
