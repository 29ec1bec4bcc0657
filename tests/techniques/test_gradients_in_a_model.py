"""`take_gradients` and `give_gradients`: which parameters are combined, and a whole step of a small model."""

import copy
import functools

import torch
from torch import nn

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.data import Batch
from minbert.multitask import MultitaskBert
from minbert.optimizer import AdamW
from minbert.pcgrad import Memory, give_gradients, pcgrad, sum_gradients, take_gradients
from tests.techniques.gradients import EXAMPLE_3, algorithm_1, gradients_of, methods
from tests.techniques.models import NAMES, T, V, batch_of, combine_as_in_training, loss_of


def parameters_with(*gradients: list[float] | None) -> list[nn.Parameter]:
    """Parameters of two numbers with these gradients."""
    parameters = [nn.Parameter(torch.zeros(2)) for _ in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = None if g is None else torch.tensor(g)
    return parameters


def test_take_gradients_leaves_none_and_copies_nothing():
    parameters = parameters_with([1.0, 2.0], None, [3.0, 4.0])
    before = [p.grad for p in parameters]
    taken = take_gradients(parameters)
    assert [p.grad for p in parameters] == [None] * 3
    assert list(taken) == [parameters[0], parameters[2]]  # in their order
    assert taken[parameters[0]] is before[0] and taken[parameters[2]] is before[2]


def test_only_parameters_that_every_task_reaches_are_projected():
    """(1, 0) and (-1, 1) conflict. Where both tasks reach, they are projected; where some do, they are summed."""
    all_three, two, one, none = parameters_with(None, None, None, None)
    g1, g2 = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    tasks = [
        {all_three: g1.clone(), two: g1.clone(), one: g1.clone()},
        {two: g2.clone(), all_three: g2.clone()},  # the order of a task's parameters changes nothing
        {all_three: torch.zeros(2)},
    ]
    give_gradients(tasks, pcgrad, Memory(0))
    assert all_three.grad.tolist() == [0.5, 1.5]
    assert two.grad.tolist() == [0.0, 1.0]
    assert one.grad.tolist() == [1.0, 0.0]
    assert none.grad is None


def test_parameters_that_some_tasks_reach_do_not_count_in_the_norms():
    """The tasks agree in `shared` and oppose each other in `own`. Counted together, they would conflict."""
    shared, own = parameters_with(None, None)
    both = [{shared: torch.tensor([1.0, 0.0])}, {shared: torch.tensor([1.0, 1.0])}, {shared: torch.tensor([0.0, 1.0])}]
    for task, sign in zip(both[:2], (1, -1), strict=True):
        task[own] = sign * torch.tensor([9.0, 9.0])
    give_gradients(both, pcgrad, Memory(0))
    assert shared.grad.tolist() == [2.0, 2.0] and own.grad.tolist() == [0.0, 0.0]


@methods
def test_a_task_alone_keeps_its_gradient(combine):
    """In a step with one task the same tensor comes back, with the same numbers."""
    parameters = parameters_with([1.0, -2.0], [3.0, 4.0])
    before = [p.grad for p in parameters]
    give_gradients([take_gradients(parameters)], combine, Memory(0))
    for p, g, numbers in zip(parameters, before, ([1.0, -2.0], [3.0, 4.0]), strict=True):
        assert p.grad is g and g.tolist() == numbers


@methods
def test_steps_with_one_task_may_come_before_steps_with_three(combine):
    """As in the schedule `quora_first`."""
    (p,) = parameters_with(None)
    memory, fresh = Memory(0), Memory(0)
    give_gradients([{p: torch.ones(2)}], combine, memory)
    fresh.load_state_dict({"random": memory.random.get_state(), "targets": None})
    updates = []
    for m in (memory, fresh):
        give_gradients([{p: g[0]} for g in gradients_of(EXAMPLE_3[:, :2], [(2,)], torch.float32)], combine, m)
        updates.append(p.grad.tolist())
    assert updates[0] == updates[1]


@methods
def test_the_result_lies_in_the_first_tasks_memory(combine):
    """A gradient is as large as BERT. One is held for every task, and no further one for the result."""
    shared = parameters_with(None, None)
    tasks = [{p: torch.randn(2) for p in shared} for _ in range(3)]
    places = [tasks[0][p].data_ptr() for p in shared]
    give_gradients(tasks, combine, Memory(0))
    assert [p.grad.data_ptr() for p in shared] == places


# ------------------------------------------------------------------------------------------ in a model


def tiny_model(seed: int = 0) -> MultitaskBert:
    """A random BERT of one layer in float64, without dropout, with the three tasks' heads."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=V, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=T, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    # With heads that all have weights, so that each has something to learn:
    return MultitaskBert(BertModel(config), NAMES, heads={"sts": "hadamard"}, dropout=0.0).double()


BATCHES = [batch_of("sst", B=4, seed=1), batch_of("para", B=3, seed=2), batch_of("sts", B=2, seed=3)]


def combine_by_hand(model: MultitaskBert, batches: list[Batch], combine):
    """The same without `.backward()`: BERT's gradients through `combine` as flat vectors, the heads' as they are.

    combine: (flat gradients, the squared norms of the tasks' gradients in their heads) → a method.
    """
    bert, heads = list(model.bert.parameters()), list(model.heads.parameters())
    flats, head_norms = [], []
    for batch in batches:
        gradients = torch.autograd.grad(loss_of(model, batch), bert + heads, allow_unused=True)
        in_bert, in_heads = gradients[: len(bert)], gradients[len(bert) :]
        flats.append([torch.cat([g.flatten() for g in in_bert])])
        head_norms.append(sum(g.square().sum().item() for g in in_heads if g is not None))
        for p, g in zip(heads, in_heads, strict=True):  # no head has two tasks
            p.grad = g if g is not None else p.grad
    (update,) = combine(head_norms)(flats, Memory(0))
    for p, part in zip(bert, update.split([p.numel() for p in bert]), strict=True):
        p.grad = part.view_as(p)


def stepped(model: MultitaskBert) -> dict[str, torch.Tensor]:
    """The model's weights after one step along `.grad`."""
    AdamW(
        model.parameters(), lr=0.01, eps=1.0, weight_decay=0.1
    ).step()  # with a large ε the step depends on the gradient's size, too
    return {name: p.detach() for name, p in model.named_parameters()}


@functools.cache
def our_step() -> dict[str, torch.Tensor]:
    model = tiny_model()
    combine_as_in_training(model, BATCHES, pcgrad)
    return stepped(model)


def check_model(combine):
    """One step of all three tasks gives every weight the value that `combine` by hand gives it."""
    model = tiny_model()
    combine_by_hand(model, BATCHES, combine)
    by_hand = stepped(model)
    for name, p in our_step().items():
        torch.testing.assert_close(p, by_hand[name], rtol=0, atol=1e-10, msg=name)


def test_a_step_of_a_model_is_algorithm_1_on_bert_and_plain_on_the_heads():
    check_model(lambda head_norms: algorithm_1)


def test_a_sum_of_gradients_is_the_gradient_of_the_sum():
    """Three backward passes and `sum_gradients` equal one backward pass of the summed losses."""
    ours, theirs = tiny_model(), tiny_model()
    combine_as_in_training(ours, BATCHES, sum_gradients)
    sum(loss_of(theirs, batch) for batch in BATCHES).backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12)


@methods
def test_heads_keep_their_own_gradients(combine):
    model = tiny_model()
    combine_as_in_training(model, BATCHES, combine)
    for batch in BATCHES:
        own = list(model.heads[batch.task].parameters())
        for p, g in zip(own, torch.autograd.grad(loss_of(model, batch), own), strict=True):
            torch.testing.assert_close(p.grad, g, rtol=0, atol=0)


def test_a_head_without_a_batch_stays_as_it_is():
    """Its gradient is None, so it does not even decay. A gradient of zeros would let it decay."""
    model = tiny_model()
    start = copy.deepcopy(model.heads["para"].state_dict())
    combine_as_in_training(model, [BATCHES[0], BATCHES[2]], pcgrad)
    assert all(p.grad is None for p in model.heads["para"].parameters())
    stepped(model)
    assert all(torch.equal(p, start[name]) for name, p in model.heads["para"].named_parameters())

    for p in model.heads["para"].parameters():
        p.grad = torch.zeros_like(p)
    stepped(model)
    assert not torch.equal(model.heads["para"].linear.weight, start["linear.weight"])
