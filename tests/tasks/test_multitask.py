"""One BERT and its heads: the outputs equal the same steps taken by hand, and a loss reaches the right parameters."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minbert.checkpoint import load_model, save_model
from minbert.heads import Encoded
from minbert.tasks import TASKS
from tests.tasks.small_models import CONFIG, PAIRS, TOKENIZER, batch_of, build, every_way, pooled


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_forward_is_embed_then_logits(task, pooling):
    model, batch = build(pooling=pooling), batch_of(task)
    embedded = model.embed(batch)
    assert embedded.shape == (*batch.input_ids.shape, CONFIG.hidden_size)
    assert model(batch).shape == (4, TASKS[task].outputs)
    assert torch.equal(model(batch), model.logits(batch, embedded))
    assert not torch.equal(model(batch), model.logits(batch, embedded + 0.1 * torch.randn_like(embedded)))


def test_the_logits_of_single_sentences_by_hand():
    model = build()
    W, b = model.heads["sst"].linear.weight, model.heads["sst"].linear.bias
    by_hand = torch.cat([pooled(model, (first,)) @ W.T + b for first, _ in PAIRS])
    torch.testing.assert_close(model(batch_of("sst")), by_hand)


def test_the_outputs_of_separate_pairs_by_hand():
    """Each sentence through BERT alone: the batch's first B rows are the first sentences, the others the second."""
    model = build()
    u, v = (torch.cat([pooled(model, (pair[side],)) for pair in PAIRS]) for side in (0, 1))
    cos = (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))
    torch.testing.assert_close(model(batch_of("sts"))[:, 0], 5 * cos)
    features = torch.cat([u, v, (u - v).abs()], dim=1)
    linear = model.heads["para"].linear
    torch.testing.assert_close(model(batch_of("para")), features @ linear.weight.T + linear.bias)
    # rows in turn (u₁, v₁, u₂, v₂, …) would give the cosines of other pairs
    assert not torch.allclose(5 * F.cosine_similarity(u, v.roll(1, 0)), 5 * cos, atol=1e-3)


def test_the_outputs_of_mean_pooling_by_hand():
    """The mean over the tokens of each sentence, with [CLS] and [SEP] and without pads."""
    model = build(pooling="mean")

    def mean(text):
        rows = TOKENIZER(text, return_tensors="pt")
        return model.bert(rows["input_ids"], rows["attention_mask"])["last_hidden_state"].mean(dim=1)

    by_hand = [5 * F.cosine_similarity(mean(a), mean(b)) for a, b in PAIRS]
    torch.testing.assert_close(model(batch_of("sts"))[:, 0], torch.cat(by_hand))


def test_each_task_can_have_its_own_pooling(tmp_path):
    """As Mo & Ho: BERT's pooler for SST and Quora, the mean for STS. It is part of the saved model."""
    model = build(pooling={"sst": "cls", "para": "cls", "sts": "mean"})
    save_model(tmp_path / "model.pt", model, TOKENIZER)
    again = load_model(tmp_path / "model.pt")[0].eval()
    for task, pooling in (("sst", "cls"), ("para", "cls"), ("sts", "mean")):
        batch, other = batch_of(task), {"cls": "mean", "mean": "cls"}[pooling]
        assert torch.equal(model(batch), build(pooling=pooling)(batch)), task
        assert torch.equal(again(batch), model(batch)), task
        assert not torch.allclose(model(batch), build(pooling=other)(batch), atol=1e-4), task


def test_the_outputs_of_joint_pairs_by_hand():
    """[CLS] a [SEP] b [SEP] in one pass, and one vector of it."""
    model = build(pairs="joint")
    vectors = torch.cat([pooled(model, pair) for pair in PAIRS])
    for task in ("para", "sts"):
        linear = model.heads[task].linear
        batch = batch_of(task, "joint")
        torch.testing.assert_close(model(batch), vectors @ linear.weight.T + linear.bias)
        without_types = replace(batch, token_type_ids=torch.zeros_like(batch.token_type_ids))
        assert not torch.allclose(model(without_types), model(batch), atol=1e-4)


@pytest.mark.parametrize(("mine", "theirs"), [("joint", "separate"), ("separate", "joint")])
def test_pairs_that_are_given_in_the_other_way_are_an_error(mine, theirs):
    """Else a model with joint pairs would read the first sentences alone. Single sentences are the same either way."""
    model, message = build(pairs=mine), f"task para: the model has pairs='{mine}', and the data has pairs='{theirs}'"
    batch = batch_of("para", theirs)
    known = replace(batch, vectors=torch.ones(len(batch.input_ids), CONFIG.hidden_size))
    for call in (lambda: model(batch), lambda: model.logits(batch, model.embed(batch)), lambda: model(known)):
        with pytest.raises(ValueError, match=f"{message}; make the Dataset with pairs='{mine}'"):
            call()
    assert torch.equal(model(batch_of("sst", theirs)), model(batch_of("sst", mine)))
    right = batch_of("para", mine)
    assert model(right).shape == (4, 1)  # and the advice works, with vectors as well
    assert model(replace(right, vectors=torch.ones(len(right.input_ids), CONFIG.hidden_size))).shape == (4, 1)


def test_a_head_gets_tokens_and_masks_of_its_own_sentences():
    """These are the inputs of `cross_attention`. Where an example is one row, the second sentence is None."""
    model, inputs = build(), []

    class Listener(nn.Module):
        def forward(self, encoded: Encoded):
            inputs.append(encoded)
            return encoded.u[:, :1]

    model.heads["para"] = model.heads["sst"] = Listener()
    for task in ("para", "sst"):
        model(batch_of(task))
    pair, single = inputs
    assert pair.mask_u.sum(1).tolist() == [7, 3, 4, 5] and pair.mask_v.sum(1).tolist() == [3, 5, 4, 6]  # with specials
    torch.testing.assert_close(pair.u, model.bert.pool(pair.tokens_u))
    torch.testing.assert_close(pair.v, model.bert.pool(pair.tokens_v))
    assert single.v is single.tokens_v is single.mask_v is None


@every_way
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_an_example_alone_and_in_a_batch_and_with_more_pads_has_the_same_output(task, way, pooling):
    model = build(pooling=pooling, **way)
    together = model(batch_of(task, way["pairs"]))
    assert together.std() > 1e-4  # the outputs differ from one another
    for i in range(4):
        alone = model(batch_of(task, way["pairs"], (i,)))
        assert alone.shape == (1, 1)
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=1e-5)

    batch = batch_of(task, way["pairs"])
    columns = ("input_ids", "attention_mask", "token_type_ids")
    wider = replace(batch, **{name: F.pad(getattr(batch, name), (0, 5)) for name in columns})
    torch.testing.assert_close(model(wider), together, atol=1e-5, rtol=1e-5)
    seen = replace(wider, attention_mask=torch.ones_like(wider.attention_mask))
    assert not torch.allclose(model(seen), together, atol=1e-4)  # pads that are attended to change the output


# ------------------------------------------------------------------------------------------ what learns


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_a_loss_reaches_bert_and_its_own_head_and_no_other(task):
    model = build(heads={"sts": "dot"})
    TASKS[task].loss(model(batch_of(task)), batch_of(task).labels).backward()
    for name, head in model.heads.items():
        gradients = [p.grad for p in head.parameters()]
        assert gradients
        if name == task:
            assert all(g is not None and g.abs().sum() > 0 for g in gradients)
        else:
            assert all(g is None for g in gradients)
    assert all(p.grad is not None for p in model.bert.parameters())
    assert model.bert.word_embedding.weight.grad.abs().sum() > 0


def test_parameters_of_a_task_are_those_that_its_loss_can_reach():
    """All of BERT and its own head; with mean pooling BERT's pooler is not used."""
    for pooling, unused in (("cls", set()), ("mean", {"bert.pooler_dense.weight", "bert.pooler_dense.bias"})):
        model = build(pooling=pooling, heads={"para": "relational", "sts": "relational"})
        for task in model.heads:
            model.zero_grad()
            TASKS[task].loss(model(batch_of(task)), batch_of(task).labels).backward()
            reached = {name for name, p in model.named_parameters() if p.grad is not None}
            mine = {id(p) for p in model.parameters_of(task)}
            assert {name for name, p in model.named_parameters() if id(p) in mine} - unused == reached


def test_a_frozen_bert_gets_no_gradient_and_its_heads_do():
    model = build()
    model.freeze_bert()
    assert not any(p.requires_grad for p in model.bert.parameters())
    for task in ("sst", "para"):
        TASKS[task].loss(model(batch_of(task)), batch_of(task).labels).backward()
        assert all(p.grad is not None for p in model.heads[task].parameters())
    assert all(p.grad is None for p in model.bert.parameters())
    assert not model(batch_of("sts")).requires_grad  # the cosine of frozen vectors depends on nothing that trains
