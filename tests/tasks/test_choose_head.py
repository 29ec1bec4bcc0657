"""Which head a task gets, and which it may choose."""

import pytest
import torch

from minbert.errors import UserError
from minbert.heads import HEADS, PAIR_HEADS, Encoded, choose_head
from minbert.tasks import (
    TASKS,
)
from tests.tasks.test_tasks import EASE, MINE, TOPICS


def test_the_default_head_follows_from_the_tasks_kind():
    names = ("sst", "para", "sts", "nli")
    assert [choose_head(TASKS[t], "separate") for t in names] == ["linear", "difference", "cosine", "difference"]
    assert [choose_head(TASKS[t], "joint") for t in names] == ["linear"] * 4
    assert choose_head(TASKS["sts"], "separate", "dot") == "dot"
    assert [choose_head(task, "separate") for task in (TOPICS, EASE, MINE)] == ["linear", "linear", "difference"]


def test_every_head_can_be_chosen_somewhere():
    assert {"linear", *(head for heads in PAIR_HEADS.values() for head in heads)} == set(HEADS)


CHOICES = [(task, head) for task in ("para", "sts", "nli") for head in PAIR_HEADS[TASKS[task].kind]]


@pytest.mark.parametrize(("task", "head"), CHOICES)
def test_a_head_of_two_vectors_cannot_be_chosen_for_joint_pairs(task, head):
    assert choose_head(TASKS[task], "separate", head) == head
    with pytest.raises(UserError, match=rf"--{task}_head {head} .*--pairs joint"):
        choose_head(TASKS[task], "joint", head)


@pytest.mark.parametrize(
    ("task", "head"), [("para", "cosine"), ("sts", "concat"), ("sts", "linear"), ("nli", "dot"), ("para", "x")]
)
def test_a_head_that_is_not_for_the_tasks_kind_is_refused_with_a_list_of_those_that_are(task, head):
    with pytest.raises(UserError, match=rf"--{task}_head {head} .*{PAIR_HEADS[TASKS[task].kind][0]}"):
        choose_head(TASKS[task], "separate", head)


@pytest.mark.parametrize("pairs", ["separate", "joint"])
def test_a_pair_head_for_single_sentences_is_refused(pairs):
    with pytest.raises(UserError, match="--sst_head dot needs two sentence vectors, but sst has single sentences"):
        choose_head(TASKS["sst"], pairs, "dot")


@pytest.mark.parametrize(("task", "head"), CHOICES)
def test_every_head_that_may_be_chosen_has_the_outputs_of_its_task(task, head):
    row, random = TASKS[task], torch.Generator().manual_seed(0)
    tokens_u, tokens_v = (torch.randn(6, 5, 8, generator=random) for _ in range(2))
    mask = torch.ones(6, 5)
    encoded = Encoded(tokens_u.mean(1), tokens_v.mean(1), tokens_u, tokens_v, mask, mask)
    assert HEADS[head](row, 8, 0.0)(encoded).shape == (6, row.outputs)
