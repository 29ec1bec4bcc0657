"""What trains: on a frozen BERT, with all of BERT, and beside LoRA; and what the functions refuse."""

import copy

import pytest
import torch

from minbert.lora import LoRALinear
from minbert.multitask import MultitaskBert, part_of
from minbert.optimizer import AdamW
from minbert.pals import AdaptedLayer, add_low_rank, add_pals, use_task
from minbert.pcgrad import sum_gradients
from tests.techniques.models import NAMES, batch_of, combine_as_in_training, loss_of, rows
from tests.techniques.pals_models import (
    WAYS,
    a_pal_and_a_low_rank,
    adapted,
    adapters,
    add,
    copies,
    equal,
    model_of,
    own_of,
    random_bert,
    randomize,
)
from tests.techniques.test_pals_sharing import check_sharing


def learn(model: MultitaskBert, parameters, lr: float, steps: int = 30):
    """Train on all three tasks, 8 examples each; the loss of each must fall by 15% or more."""
    batches = [batch_of(task, B=8) for task in NAMES]
    optimizer = AdamW(parameters, lr=lr)
    losses = []
    for _ in range(steps):
        step = [loss_of(model, batch) for batch in batches]
        optimizer.zero_grad()
        sum(step).backward()
        optimizer.step()
        losses.append([loss.item() for loss in step])
    for task, first, last in zip(NAMES, losses[0], losses[-1], strict=True):
        assert last < 0.85 * first, f"{task}: {first} → {last}"


def at_the_start(way: dict) -> MultitaskBert:
    torch.manual_seed(1)
    return MultitaskBert(random_bert(), NAMES, heads={"sts": "hadamard"}, dropout=0.0, additions={"adapter": way})


@a_pal_and_a_low_rank
def test_added_layers_learn_on_a_frozen_bert_under_frozen_heads(way):
    """From their start, V_D = 0."""
    model = at_the_start(way)
    model.freeze_bert()
    own, heads = copies(own_of(model)), copy.deepcopy(model.heads.state_dict())
    learn(model, adapters(model).values(), lr=0.05)
    assert equal(own_of(model), own) and equal(model.heads.state_dict(), heads)


@a_pal_and_a_low_rank
def test_bert_its_added_layers_and_heads_learn_together(way):
    model = at_the_start(way)
    learn(model, model.parameters(), lr=0.02, steps=12)


@a_pal_and_a_low_rank
@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_bert_keeps_its_bits_and_all_else_changes(way, frozen):
    """Where BERT is not frozen it changes as well."""
    model = model_of(way)
    if frozen:
        model.freeze_bert()
    before = copies(dict(model.named_parameters()))
    optimizer = AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(2):
        combine_as_in_training(model, [batch_of(task) for task in NAMES], sum_gradients)
        optimizer.step()
        optimizer.zero_grad()
    for name, p in model.named_parameters():
        if part_of(name) == "BERT" and frozen:
            assert not p.requires_grad and p.grad is None and torch.equal(p, before[name]), name
        else:
            assert p.requires_grad and not torch.equal(p, before[name]), name


@a_pal_and_a_low_rank
def test_freezing_holds_berts_own_parameters_alone(way):
    model, plain = model_of(way), model_of(None)
    model.freeze_bert()
    names = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert names == {name for name, _ in plain.named_parameters() if part_of(name) == "BERT"} == own_of(model).keys()
    assert {part_of(name) for name, p in model.named_parameters() if p.requires_grad} == {"adapter", "heads"}


def test_lora_leaves_added_layers_alone():
    """LoRA goes to BERT's own matrices and freezes them; a task's layers stay plain, and train."""
    model = model_of(WAYS["pal 6"], also={"lora": {"rank": 2, "alpha": 4}})
    check_sharing(model.bert, "pal")
    assert not any(isinstance(m, LoRALinear) for layer in model.bert.bert_layers for m in layer.adapter.modules())
    assert {part_of(name) for name, p in model.named_parameters() if p.requires_grad} == {"lora", "adapter", "heads"}
    assert not any(p.requires_grad for p in own_of(model).values())


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("size", [1, 4, 5, 7])
def test_a_pals_size_must_be_a_multiple_of_the_heads(size):
    bert = random_bert()
    with pytest.raises(ValueError, match=f"multiple of BERT's 3 heads, not {size}"):
        add_pals(bert, NAMES, size=size)
    assert not adapters(bert) and not any(isinstance(layer, AdaptedLayer) for layer in bert.bert_layers)
    add_low_rank(bert, NAMES, size=size)  # which has no heads


@pytest.mark.parametrize("first", ["pal", "low_rank"])
@pytest.mark.parametrize("second", ["pal", "low_rank"])
def test_layers_cannot_be_added_twice(first, second):
    bert = randomize(add(random_bert(), {"adapter": first}))
    before = copies(bert.state_dict())
    with pytest.raises(ValueError, match="added already"):
        add(bert, {"adapter": second}, ["sst"])
    assert equal(bert.state_dict(), before)


def test_unknown_names_empty_tasks_and_no_size_are_refused():
    for options, error in (({"activation": "relu"}, ValueError), ({"adapter": "houlsby"}, KeyError)):
        bert = random_bert()
        with pytest.raises(error, match="identity, gelu" if error is ValueError else "houlsby"):
            add(bert, {"adapter": "low_rank"} | options)
        assert not adapters(bert)
    for kind in ("pal", "low_rank"):
        bert = random_bert()
        with pytest.raises(ValueError, match="a task"):
            add(bert, {"adapter": kind}, [])
        with pytest.raises(ValueError, match="size"):
            add(bert, {"adapter": kind, "size": 0})
        assert not adapters(bert)
        assert not any(module.training for module in add(bert.eval(), {"adapter": kind}).modules())
    bert, (ids, mask) = adapted(WAYS["pal"]), rows()
    with pytest.raises(KeyError, match="cfimdb"):
        use_task(bert, "cfimdb")
        bert(ids, mask)


@a_pal_and_a_low_rank
def test_the_tasks_may_come_as_an_iterator_and_any_number_of_them(way):
    bert = add(random_bert(), way, iter(["sts", "sst"]))
    for layer in bert.bert_layers:
        assert list(layer.adapter) == ["sts", "sst"]
    assert list(add(random_bert(), way, ["para"]).bert_layers[0].adapter) == ["para"]


@a_pal_and_a_low_rank
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_added_layers_have_berts_device_and_number_format(way, dtype):
    bert = add(random_bert().to(dtype), way)
    assert {p.dtype for p in bert.parameters()} == {dtype}
    assert {p.device.type for p in add(random_bert().to("meta"), way).parameters()} == {"meta"}


def test_adding_returns_the_same_bert():
    for way in WAYS.values():
        bert = random_bert()
        assert add(bert, way) is bert


@a_pal_and_a_low_rank
def test_a_layer_with_additions_keeps_the_very_modules_of_the_layer_that_it_replaces(way):
    """So the names in a state_dict stay, and an optimizer that held BERT's parameters still holds them."""
    bert = random_bert()
    layers, names = list(bert.bert_layers), list(bert.state_dict())
    modules = [dict(layer.named_modules()) for layer in layers]
    add(bert, way)
    for layer, before in zip(bert.bert_layers, modules, strict=True):
        assert isinstance(layer, AdaptedLayer)
        after = dict(layer.named_modules())
        assert all(after[name] is module for name, module in before.items() if name)
        assert {name.split(".")[0] for name in after.keys() - before.keys()} == {"adapter"}
    assert [name for name in bert.state_dict() if ".adapter." not in name] == names
