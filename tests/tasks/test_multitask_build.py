"""How a model is built and built again, its dropout rates, its number formats."""

import json
from dataclasses import replace

import pytest
import torch

from minbert.bert import BertModel
from minbert.data import Dataset, Example
from minbert.errors import UserError
from minbert.evaluation import outputs
from minbert.multitask import MultitaskBert
from minbert.pretrained import load_bert
from minbert.tasks import (
    TASKS,
)
from tests.tasks.head_inputs import COSINES
from tests.tasks.small_models import CONFIG, LABELS, PAIRS, TOKENIZER, batch_of, build, every_way, rates


@every_way
def test_build_rebuilds_the_model(task, way):
    model = build(pooling="mean", dropout=0.2, **way)
    again = MultitaskBert(BertModel(CONFIG), **model.build).eval()
    assert again.build == model.build and (model.build["pooling"], model.build["dropout"]) == ("mean", 0.2)
    assert rates(again.heads) == rates(model.heads) <= {0.2}
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == shapes
    again.load_state_dict(model.state_dict())
    for name in ("sst", task):
        batch = batch_of(name, way["pairs"])
        assert torch.equal(again(batch), model(batch))


def test_build_is_plain_values_with_the_default_heads_by_name():
    """So a checkpoint can hold them, and another default does not change what an old file means."""
    assert build().build == {
        "tasks": ["sst", "para", "sts"], "pairs": "separate", "pooling": "cls", "dropout": 0.3,
        "heads": {"sst": "linear", "para": "difference", "sts": "cosine"}, "additions": {},
    }  # fmt: skip
    assert set(build(pairs="joint").build["heads"].values()) == {"linear"}


def test_each_task_may_have_its_own_form_of_pairs():
    """The outputs are those of a model with this form for all tasks, and the same weights."""
    each = build(pairs={"sst": "separate", "para": "joint", "sts": "separate"}, heads={"sts": "dot"})
    assert each.build["heads"] == {"sst": "linear", "para": "linear", "sts": "dot"}
    again = MultitaskBert(BertModel(CONFIG), **json.loads(json.dumps(each.build))).eval()
    again.load_state_dict(each.state_dict())
    for task, pairs in each.pairs.items():
        alone = MultitaskBert(each.bert, [task], pairs, heads={"sts": "dot"} if task == "sts" else None).eval()
        alone.heads = each.heads
        batch = batch_of(task, pairs)
        assert torch.equal(each(batch), alone(batch)) and torch.equal(again(batch), each(batch))
    assert len(batch_of("para", "joint").input_ids) == 4 and len(batch_of("sts").input_ids) == 8


def test_words_that_are_unknown_or_missing_are_named():
    with pytest.raises(ValueError, match=r"one for each: sst has none in \{'para': 'joint'\}"):
        build(pairs={"para": "joint"})
    with pytest.raises(ValueError, match="one for each: para has none"):
        build(pooling={"sst": "mean"})
    model = build()
    model.precision = "float16"
    with pytest.raises(ValueError, match="the precision is one of fp32, bf16, fp16, not 'float16'"):
        model.autocast()


def test_only_the_tasks_of_the_model_have_a_head():
    model = MultitaskBert(BertModel(CONFIG), ["sts"])
    assert list(model.heads) == ["sts"]
    with pytest.raises(KeyError):
        model(batch_of("sst"))


def test_a_pair_head_for_joint_pairs_is_refused():
    with pytest.raises(UserError, match=r"--sts_head cosine .* --pairs joint"):
        MultitaskBert(BertModel(CONFIG), ["sts"], pairs="joint", heads={"sts": "cosine"})


def test_the_device_is_that_of_the_weights():
    model = build()
    assert model.device == torch.device("cpu")
    assert model.to("meta").device == torch.device("meta")


# ------------------------------------------------------------------------------------------ dropout


def test_the_heads_dropout_does_not_reach_bert():
    heads = {"para": "relational", "sts": "cross_attention"}
    model = MultitaskBert(BertModel(CONFIG), ["sst", "para", "sts"], heads=heads, dropout=0.4)
    assert all(rates(head) == {0.4} for head in model.heads.values())
    assert rates(model.bert) == {0.1} == {CONFIG.hidden_dropout_prob}


def test_berts_dropout_reaches_all_of_bert_and_no_head(tiny):
    bert = load_bert(tiny, dropout=0.25)
    assert rates(bert) == {0.25} and rates(load_bert(tiny)) == {0.1}
    model = MultitaskBert(bert, ["sst", "para"], dropout=0.0)
    assert rates(model.heads) == {0.0} and rates(model.bert) == {0.25}


@every_way
def test_each_dropout_changes_the_outputs_in_training_alone(task, way):
    """Two passes differ if the model is in train mode and one of the rates is above 0."""
    batch = batch_of(task, way["pairs"])
    no_head_dropout = (way.get("heads") or {}).get("sts") in COSINES  # without weights and dropout

    def equal_passes(bert_dropout: float, dropout: float, training: bool) -> bool:
        config = replace(CONFIG, hidden_dropout_prob=bert_dropout, attention_probs_dropout_prob=bert_dropout)
        model = MultitaskBert(BertModel(config), ["para", "sts"], dropout=dropout, **way).train(training)
        return torch.equal(model(batch), model(batch))

    assert equal_passes(0.0, 0.0, training=True) and equal_passes(0.5, 0.5, training=False)
    assert not equal_passes(0.5, 0.0, training=True)
    assert equal_passes(0.0, 0.5, training=True) == no_head_dropout


# ------------------------------------------------------------------------------------------ number formats


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_bf16_is_near_fp32_and_returns_float32(task):
    """bfloat16 keeps 8 bits of a number: products are right to about 2⁻⁸, 0.4 %. Outside `autocast` all is float32."""
    model, batch = build(heads={"sts": "dot"}), batch_of(task)
    exact = model(batch)
    model.precision = "bf16"
    assert torch.equal(model(batch), exact)
    with model.autocast():
        rough, embedded = model(batch), model.embed(batch)
    assert rough.dtype == embedded.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0.02)
    TASKS[task].loss(rough, batch.labels).backward()
    assert all(p.dtype == torch.float32 and (p.grad is None or p.grad.isfinite().all()) for p in model.parameters())
    model.precision = "fp32"
    with model.autocast():
        assert torch.equal(model(batch), exact)


def test_an_evaluation_is_in_the_models_precision():
    examples = [Example(str(i), pair, label) for i, (pair, label) in enumerate(zip(PAIRS, LABELS["sts"], strict=True))]
    model, data = build(heads={"sts": "dot"}), Dataset(TASKS["sts"], examples, TOKENIZER)
    exact = outputs(model, data)
    model.precision = "bf16"
    rough = outputs(model, data)
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0.02)


@pytest.mark.parametrize("name", ["query", "train", "my.task", "two words", "word_embedding"])
def test_a_task_cannot_have_the_name_of_a_part_of_the_model(name):
    with pytest.raises(ValueError, match="a task cannot be called"):
        MultitaskBert(BertModel(CONFIG), [replace(TASKS["sst"], name=name)])


def test_a_bert_with_one_token_type_cannot_tell_the_sentences_of_a_joint_pair_apart():
    bert = BertModel(replace(CONFIG, type_vocab_size=1))
    for task in ("para", "sts"):
        with pytest.raises(UserError, match=r"one token type.*--pairs joint needs two; use separate"):
            MultitaskBert(bert, ["sst", task], pairs="joint")
    MultitaskBert(bert, ["para"], pairs="separate")(batch_of("para", "separate"))  # the advice
    MultitaskBert(bert, ["sst"], pairs="joint")(batch_of("sst", "joint"))
