"""LoRA in a model of several tasks: one set of additions for all, or one a task."""

import pytest
import torch
from torch import nn

from minbert.lora import lora_layers, merge_lora
from minbert.multitask import MultitaskBert, part_of
from tests.techniques.lora_models import (
    QUERY_VALUE,
    additions,
    all_same,
    answers,
    base_bits,
    close,
    layer_names,
    make_bert,
    make_model,
    options,
    same,
    trainable,
)
from tests.techniques.models import NAMES, batch_of, loss_of


@pytest.mark.parametrize("per_task", [False, True], ids=["shared", "per task"])
def test_a_task_trains_its_own_additions_and_its_head(per_task):
    """These, and BERT's frozen weights, are `parameters_of` the task; nothing else in the model has a gradient."""
    model = make_model(per_task=per_task)
    for task in NAMES:
        model.zero_grad()
        loss_of(model, batch_of(task)).backward()
        mine = task if per_task else "all"
        learners = {name for name, p in model.named_parameters() if p.grad is not None}
        head = {f"heads.{task}.{name}" for name, _ in model.heads[task].named_parameters()}
        assert learners == {name for name in additions(model) if name.endswith(f".{mine}")} | head
        assert len(learners - head) == 2 * 13
        own = {id(p) for p in model.parameters_of(task)}
        berts = {f"bert.{name}" for name in base_bits(model.bert)}
        assert {name for name, p in model.named_parameters() if id(p) in own} == learners | berts


def test_each_task_answers_with_its_own_additions():
    """In any order of tasks, each has the outputs of the model with this task's A's and B's alone, and no other's."""
    model, alone = make_model(per_task=True), {task: make_model() for task in NAMES}
    for task, other in alone.items():
        state = model.state_dict()
        own = {n.removesuffix(task) + "all": p for n, p in state.items() if n.endswith(task) and part_of(n) == "lora"}
        other.load_state_dict({n: p for n, p in state.items() if part_of(n) != "lora"} | own)
    for task in ("sts", "sst", "para", "sst", "sts"):
        output = model(batch_of(task))
        assert [name for name in NAMES if same(alone[name](batch_of(task)), output)] == [task]


def test_a_model_merged_for_one_task_refuses_another():
    model = make_model(per_task=True)
    before = model(batch_of("para"))
    merge_lora(model)
    close(model(batch_of("para")), before, 1e-5)
    with pytest.raises(RuntimeError, match="adapter 'para' is merged"):
        model(batch_of("sst"))


def test_lora_starts_a_model_as_it_was_and_leaves_the_heads_alone():
    torch.manual_seed(1)
    plain = MultitaskBert(make_bert(torch.float32), NAMES, heads={"sts": "hadamard"}).eval()
    model = make_model()
    for layer in lora_layers(model):
        nn.init.zeros_(layer.lora_B["all"])
    model.heads.load_state_dict(plain.heads.state_dict())
    assert all_same(answers(model), answers(plain))
    assert not layer_names(model.heads) and all(p.requires_grad for p in model.heads.parameters())
    assert {part_of(name) for name in trainable(model)} == {"lora", "heads"}
    assert plain.build["additions"] == {} and model.build["additions"] == {"lora": options()}
    assert list(model.additions) == ["lora"] and not plain.additions


def test_targets_and_dropout_reach_the_layers():
    model = make_model(targets=QUERY_VALUE, dropout=0.4)
    assert {name.rpartition(".")[2] for name in layer_names(model)} == set(QUERY_VALUE)
    assert {layer.lora_dropout.p for layer in lora_layers(model)} == {0.4}
    assert {layer.scale for layer in lora_layers(model)} == {1.5}


def test_freezing_bert_leaves_its_additions_to_train():
    model = make_model()
    before = set(trainable(model))
    model.freeze_bert()
    assert set(trainable(model)) == before
