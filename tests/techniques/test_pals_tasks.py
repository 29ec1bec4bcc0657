"""Each task has its own layers: its loss, its gradients, its steps and its outputs involve no other task's."""

import itertools

import pytest
import torch

from minbert.data import Batch
from minbert.multitask import MultitaskBert, part_of
from minbert.optimizer import AdamW
from minbert.pals import AdaptedLayer, use_task
from minbert.pcgrad import COMBINE, pcgrad, sum_gradients
from tests.techniques.models import NAMES, batch_of, combine_as_in_training, loss_of, rows
from tests.techniques.pals_models import (
    a_pal_and_a_low_rank,
    adapted,
    adapters,
    answers,
    close,
    copies,
    equal,
    model_of,
    own_of,
)


def check_gradients_are_the_tasks_own(model: MultitaskBert):
    """A task's loss gives a gradient to all of its own layers, and None, not zeros, to the other tasks'."""
    for task in NAMES:
        model.zero_grad()
        loss_of(model, batch_of(task, model.pairs[task])).backward()
        for other in NAMES:
            for name, p in adapters(model, other).items():
                assert (p.grad is not None) == (task == other), f"{task}: {name}"
                # A key's bias adds the same to all scores of a row, which does not change the softmax.
                assert p.grad is None or name.endswith("key.bias") or p.grad.any(), f"{task}: {name}"
        assert all(p.grad is not None for name, p in model.named_parameters() if part_of(name) == "BERT")


@a_pal_and_a_low_rank
@pytest.mark.parametrize("pairs", ["separate", "joint"])
def test_a_tasks_loss_reaches_its_own_layers_alone(way, pairs):
    check_gradients_are_the_tasks_own(model_of(way, pairs))


@a_pal_and_a_low_rank
def test_the_parameters_of_a_task_are_those_that_its_loss_reaches(way):
    model = model_of(way)
    for task in NAMES:
        model.zero_grad()
        loss_of(model, batch_of(task)).backward()
        mine = {id(p) for p in model.parameters_of(task)}
        assert mine == {id(p) for p in model.parameters() if p.grad is not None}
        assert len(list(model.parameters_of(task))) == len(mine)


@a_pal_and_a_low_rank
def test_gradient_surgery_is_on_bert_and_leaves_a_tasks_own_layers_alone(way, norms_with_adapters=False):
    """Two tasks in conflict. BERT's own weights get PCGrad's gradient, and a task's layers get the task's alone."""
    model = model_of(way).double()
    own = list(own_of(model).values())
    for seed in itertools.count():
        batches = [batch_of("sst", seed=seed), batch_of("sts", seed=seed)]
        alone = [torch.autograd.grad(loss_of(model, batch), own) for batch in batches]
        g1, g2 = (torch.cat([g.flatten() for g in gradient]) for gradient in alone)
        if g1 @ g2 < 0:
            break
    in_adapters = {
        batch.task: torch.autograd.grad(loss_of(model, batch), list(adapters(model, batch.task).values()))
        for batch in batches
    }
    norms = [g.square().sum() for g in (g1, g2)]
    if norms_with_adapters:
        norms = [n + sum(g.square().sum() for g in gs) for n, gs in zip(norms, in_adapters.values(), strict=True)]
    by_hand = (g1 - g1 @ g2 / norms[1] * g2) + (g2 - g2 @ g1 / norms[0] * g1)

    combine_as_in_training(model, batches, pcgrad)
    close(torch.cat([p.grad.flatten() for p in own]), by_hand)
    for task, gradients in in_adapters.items():
        for p, g in zip(adapters(model, task).values(), gradients, strict=True):
            close(p.grad, g, 0.0)
    assert all(p.grad is None for p in adapters(model, "para").values())


@pytest.mark.parametrize(
    "combine", [method for method in COMBINE.values() if method], ids=[name for name in COMBINE if COMBINE[name]]
)
@a_pal_and_a_low_rank
def test_every_method_gives_a_tasks_layers_the_tasks_own_gradient(way, combine):
    """Three tasks in a step, with BERT trained or frozen. With a frozen BERT there is nothing to combine."""
    for frozen in (False, True):
        model = model_of(way)
        if frozen:
            model.freeze_bert()
        combine_as_in_training(model, [batch_of(task) for task in NAMES], combine)
        for task in NAMES:
            own = adapters(model, task)
            alone = torch.autograd.grad(loss_of(model, batch_of(task)), list(own.values()))
            assert all(torch.equal(p.grad, g) for p, g in zip(own.values(), alone, strict=True))


def check_moved_layers(model: MultitaskBert, batches: list[Batch], zeros: bool = False):
    """After two steps of AdamW with weight decay, the layers of the batches' tasks have changed, and no others."""
    before = copies(adapters(model))
    optimizer = AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(2):
        combine_as_in_training(model, batches, sum_gradients)
        if zeros:
            for p in model.parameters():
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        optimizer.step()
        optimizer.zero_grad()
    trained = {batch.task for batch in batches}
    for task in NAMES:
        for name, p in adapters(model, task).items():
            assert torch.equal(p, before[name]) != (task in trained), name


@a_pal_and_a_low_rank
@pytest.mark.parametrize("tasks", [["sst"], ["para", "sts"], NAMES], ids=lambda tasks: "-".join(tasks))
def test_a_step_changes_the_layers_of_its_tasks_alone(way, tasks):
    check_moved_layers(model_of(way), [batch_of(task) for task in tasks])


def check_others_unchanged(model: MultitaskBert, freeze: bool = True):
    """On a frozen BERT, a step for one task changes its outputs and no bit of another task's."""
    if freeze:
        model.freeze_bert()
    for task in NAMES:
        before = answers(model)
        loss_of(model, batch_of(task)).backward()
        optimizer = AdamW(model.parameters(), lr=0.01)
        optimizer.step()
        optimizer.zero_grad()
        after = answers(model)
        assert [torch.equal(before[name], after[name]) for name in NAMES] == [name != task for name in NAMES]


@a_pal_and_a_low_rank
def test_a_step_for_one_task_changes_no_other_tasks_outputs_while_bert_is_frozen(way):
    check_others_unchanged(model_of(way))


@a_pal_and_a_low_rank
def test_a_tasks_outputs_do_not_depend_on_the_tasks_before_it(way):
    model = model_of(way).eval()
    first = answers(model)
    for order in itertools.permutations(NAMES):
        assert equal({task: answers(model, order)[task] for task in NAMES}, first)
    ids, mask = rows()
    pooled = []
    for task in [*NAMES, *NAMES]:
        use_task(model.bert, task)
        pooled.append(model.bert(ids, mask)["pooler_output"])
    assert all(torch.equal(a, b) for a, b in zip(pooled[:3], pooled[3:], strict=True))
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(pooled[:3], 2))


@a_pal_and_a_low_rank
def test_the_first_task_is_in_use_until_another_is_chosen(way):
    bert, (ids, mask) = adapted(way), rows()
    before = bert(ids, mask)["pooler_output"]
    use_task(bert, NAMES[0])
    assert torch.equal(bert(ids, mask)["pooler_output"], before)


def test_a_bert_without_additions_has_no_layers_of_tasks():
    model = model_of(None).eval()
    assert not any(isinstance(layer, AdaptedLayer) for layer in model.bert.bert_layers) and not adapters(model)
    before = answers(model)
    use_task(model.bert, "sst")
    assert equal(answers(model), before) and set(map(part_of, model.state_dict())) == {"BERT", "heads"}
