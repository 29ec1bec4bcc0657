"""How many passes the terms of the loss take, in which order they run, and what they do to random numbers."""

import itertools
from functools import cached_property

import pytest
import torch
from torch import Tensor

from minbert.bert import BertModel
from minbert.smart import Proximal
from minbert.terms import Pass
from tests.cli.runs import ALL, BOTH, EVERY_TASK, FULL, ONE_UPDATE, SMART, STILL, distance


@pytest.mark.parametrize(
    ("flags", "extra"),
    [
        (STILL, 0),
        ((*STILL, *SMART), 2),  # one in the search, and f(x̃); f(x) is the loss's own pass
        ((*STILL, *SMART, "--smart_steps", "3"), 4),
        ((*STILL, "--bregman", "1"), 1),  # f(x; θ̃)
        ((*STILL, *BOTH), 3),
        ((), 0),
        (SMART, 3),  # with dropout f(x) needs a pass of its own
        (("--hidden_dropout_prob", "0", *SMART), 3),
        (("--bert_dropout", "0", *SMART), 3),
        ((*STILL, *SMART, "--precision", "bf16"), 3),  # in bf16 too
        (("--bregman", "1"), 2),
        (BOTH, 4),
        ((*BOTH, "--smart_steps", "3"), 6),
        (("--rdrop", "1"), 1),  # the second pass
        ((*SMART, "--rdrop", "1"), 4),
        (ALL, 5),
        (("--smart", "5", "--smart_tasks", "sst", "--tasks", "para,sst", "--task_weights", "1,1"), 3 / 2),
        ((*SMART, "--schedule", "priority", "--combine", "separate"), 0),  # in its first epoch
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_the_number_of_passes_beside_the_losss_own(train, no_evaluation, monkeypatch, flags, extra):
    """The loss takes one pass of a batch through BERT; this counts all."""
    calls, encode = [], BertModel.encode
    monkeypatch.setattr(BertModel, "encode", lambda self, *args: (calls.append(1), encode(self, *args))[1])
    tasks = () if "--tasks" in flags else ("--tasks", "sst")
    train(*FULL, *ONE_UPDATE, *tasks, *flags)
    batches = 2 if "--tasks" in flags else 1
    assert len(calls) == batches * (1 + extra)


@pytest.mark.parametrize(
    ("flags", "order"),
    [
        (SMART, "F B FFF B"),
        ((*STILL, *SMART), "FFF B"),
        (("--rdrop", "1"), "FF B"),
        ((*SMART, "--rdrop", "1"), "FF B FFF B"),
    ],
    ids=["", "without dropout", "R-Drop", "SMART and R-Drop"],
)
def test_the_loss_goes_backward_before_the_forward_passes_of_terms_that_do_not_use_its_pass(
    train, no_evaluation, monkeypatch, flags, order
):
    """So its activations are freed before. F is a pass through BERT, B a backward pass; there are three tasks."""
    events, encode, backward = [], BertModel.encode, Tensor.backward
    monkeypatch.setattr(BertModel, "encode", lambda self, *args: (events.append("F"), encode(self, *args))[1])
    monkeypatch.setattr(Tensor, "backward", lambda self, *args: (events.append("B"), backward(self, *args))[1])
    train(*FULL, *ONE_UPDATE, *flags)
    assert "".join(events) == 3 * order.replace(" ", "")


def test_the_losss_own_pass_is_as_good_as_a_separate_clean_one(train, float64, monkeypatch):
    """It is used without dropout and in fp32."""
    shared = train(*FULL, *STILL, *BOTH)
    assert isinstance(Pass.__dict__["is_clean"], cached_property)
    monkeypatch.setattr(Pass, "is_clean", False)
    alone = train(*FULL, *STILL, *BOTH)
    assert distance(shared.weights, alone.weights) < 1e-9
    for task in EVERY_TASK:
        for value in ("loss", "smart", "bregman"):
            one, other = (run.metrics[0][value][task] for run in (shared, alone))
            assert one == pytest.approx(other, rel=1e-6)


def test_the_terms_do_not_depend_on_the_dropout_or_the_precision_of_the_loss(train):
    """At the first update the weights are the same; the losses differ."""
    still, dropout, rough = (
        train(*FULL, *ONE_UPDATE, *SMART, *more).metrics[0] for more in (STILL, (), (*STILL, "--precision", "bf16"))
    )
    for other in (dropout, rough):
        for task in EVERY_TASK:
            assert other["loss"][task] != still["loss"][task]
            assert other["smart"][task] == pytest.approx(still["smart"][task], rel=1e-3)


def test_bregmans_distance_is_0_in_the_first_step(train):
    """θ̃ is θ then; with dropout or bf16 on one side alone the distance would not be 0."""
    for more in ((), (*STILL, "--precision", "bf16")):
        (line,) = train(*FULL, *ONE_UPDATE, "--bregman", "1", *more).metrics
        assert all(numbers["distance"] < 1e-12 for numbers in line["bregman"].values())


# ------------------------------------------------------------------------------------------ random numbers, progress


def test_smart_and_bregman_leave_dropouts_random_numbers(train):
    """The search has a generator of its own: with dropout on, the loss of the first update is the same to the bit,
    and so is the state of PyTorch's generator after a whole epoch."""
    losses, states = [], []
    for terms in ((), SMART, ("--bregman", "1"), (*BOTH, "--smart_steps", "3")):
        losses.append(train(*FULL, *ONE_UPDATE, *terms).metrics[0]["loss"])
        train(*FULL, *terms)
        states.append(torch.get_rng_state())
    assert all(loss == losses[0] for loss in losses)
    assert all(torch.equal(state, states[0]) for state in states)
    assert train(*FULL, *ONE_UPDATE, "--seed", "1").metrics[0]["loss"] != losses[0]


def test_the_random_start_depends_on_the_seed(train, monkeypatch):
    """Every batch has another start."""
    starts = []
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *a, **k: (starts.append(randn(*a, **k)), starts[-1])[1])
    for seed in ("1", "1", "2"):
        train(*FULL, *SMART, "--seed", seed, "--tasks", "sst", "--steps_per_epoch", "2")
    heads = [start.flatten()[:20] for start in starts]
    assert len(heads) == 6
    same = [(i, j) for i, j in itertools.combinations(range(6), 2) if torch.equal(heads[i], heads[j])]
    assert same == [(0, 2), (1, 3)]


def test_the_bregman_average_gets_the_share_of_the_training_that_is_done_after_every_step(train, monkeypatch):
    progress = []
    update = Proximal.update
    monkeypatch.setattr(Proximal, "update", lambda self, share: (progress.append(share), update(self, share))[1])
    train(*FULL, "--bregman", "1", "--epochs", "2", "--steps_per_epoch", "2")  # three tasks a step, an update each
    assert progress == pytest.approx([i / 12 for i in range(12)])
    progress.clear()
    train(*FULL, "--bregman", "1", "--epochs", "2", "--steps_per_epoch", "2", "--combine", "sum")
    assert progress == pytest.approx([0, 1 / 4, 2 / 4, 3 / 4])
