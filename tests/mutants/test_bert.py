"""Wrong variants of BERT: each must fail the comparison with `transformers` that the right one passes."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minbert import bert
from minbert.bert import BertLayer, BertModel, plain_attention
from tests.model.test_bert_dropout import assert_dropout_on_probabilities, assert_same_dropout
from tests.model.twins import assert_equal, inputs, twins


def tanh_gelu(monkeypatch):
    monkeypatch.setattr(bert, "F", SimpleNamespace(gelu=lambda x: F.gelu(x, approximate="tanh")))


def scores_not_divided(monkeypatch):
    monkeypatch.setattr(bert, "math", SimpleNamespace(sqrt=lambda D: 1.0))


def token_types_ignored(monkeypatch):
    embed = BertModel.embed
    monkeypatch.setattr(BertModel, "embed", lambda self, ids, types: embed(self, ids))


def mask_ignored(monkeypatch):
    encode = BertModel.encode
    monkeypatch.setattr(BertModel, "encode", lambda self, x, mask: encode(self, x, torch.ones_like(mask)))


def last_token_pooled(monkeypatch):
    monkeypatch.setattr(BertModel, "pool", lambda self, x: torch.tanh(self.pooler_dense(x[:, -1])))


def residual_detached(monkeypatch):  # right values, wrong gradients
    add_norm = BertLayer.add_norm
    monkeypatch.setattr(BertLayer, "add_norm", lambda self, x, *rest: add_norm(self, x.detach(), *rest))


@pytest.mark.parametrize(
    "mistake", [tanh_gelu, scores_not_divided, token_types_ignored, mask_ignored, last_token_pooled, residual_detached]
)
def test_a_mistake_fails_the_comparison_with_transformers(mistake, monkeypatch):
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        assert_equal(*twins("odd sizes"), inputs("odd sizes"))


# ------------------------------------------------------------------------------------------ dropout


def move(owner: nn.Module, dropout: str, module: nn.Module | None = None, after: bool = False):
    """Remove a dropout from its place; apply it before or after `module` instead, if that is given."""
    removed = getattr(owner, dropout)
    setattr(owner, dropout, nn.Identity())
    if module and after:
        module.register_forward_hook(lambda module, args, output: removed(output))
    elif module:
        module.register_forward_pre_hook(lambda module, args: (removed(args[0]), *args[1:]))


def attend(attention):
    """A surgery that puts another attention function into every layer."""
    return each_layer(lambda layer: setattr(layer.self_attention, "attend", attention))


def each_layer(change):
    return lambda ours: [change(layer) for layer in ours.bert_layers]


def dropout_on_scores(q, k, v, mask, dropout):
    return (dropout(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])) + mask).softmax(dim=-1) @ v


def dropout_on_output(q, k, v, mask, dropout):
    return dropout(plain_attention(q, k, v, mask, nn.Identity()))


def no_dropout(q, k, v, mask, dropout):
    return plain_attention(q, k, v, mask, nn.Identity())


@pytest.mark.parametrize(
    "surgery",
    {
        "embeddings: missing": lambda ours: move(ours, "embed_dropout"),
        "embeddings: before LN": lambda ours: move(ours, "embed_dropout", ours.embed_layer_norm),
        "attention: missing": attend(no_dropout),
        "attention: on the scores": attend(dropout_on_scores),
        "attention: on the output": attend(dropout_on_output),
        "attention: the wrong rate": each_layer(lambda x: setattr(x.self_attention.dropout, "p", 0.3)),
        "first half: missing": each_layer(lambda x: move(x, "attention_dropout")),
        "first half: before the dense": each_layer(lambda x: move(x, "attention_dropout", x.attention_dense)),
        "first half: after the residual": each_layer(lambda x: move(x, "attention_dropout", x.attention_layer_norm)),
        "first half: after LN": each_layer(lambda x: move(x, "attention_dropout", x.attention_layer_norm, True)),
        "second half: missing": each_layer(lambda x: move(x, "out_dropout")),
        "second half: before the dense": each_layer(lambda x: move(x, "out_dropout", x.out_dense)),
        "second half: after the residual": each_layer(lambda x: move(x, "out_dropout", x.out_layer_norm)),
        "second half: after LN": each_layer(lambda x: move(x, "out_dropout", x.out_layer_norm, True)),
        "a fifth, inside the second half": each_layer(lambda x: x.interm_dense.register_forward_hook(
            lambda module, args, output: F.dropout(output, 0.3))),
    }.items(),
    ids=lambda item: item[0],
)  # fmt: skip
def test_a_dropout_at_another_place_fails_the_comparison(surgery):
    with pytest.raises(AssertionError):
        assert_same_dropout(surgery[1])


def test_moving_a_dropout_to_its_own_place_changes_nothing():
    """The surgeries above fail because of the place, and not because a hook applies the dropout."""
    assert_same_dropout(each_layer(lambda x: move(x, "out_dropout", x.out_dense, after=True)))


@pytest.mark.parametrize("attention", [no_dropout, dropout_on_scores, dropout_on_output])
def test_attention_with_another_dropout_fails_the_test_of_probabilities(attention):
    with pytest.raises(AssertionError):
        assert_dropout_on_probabilities(attention)
