"""PALs and low-rank layers are the paper's formula, h' = LN(ffn_out + attn_out + TS(h)), written out by hand.

`layer_by_hand` is a whole BERT layer made of the raw matrices, einsum and erf. tests/mutants/test_pals.py computes TS
in other ways and puts it in other places, as public code does.
"""

import functools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from minbert.bert import BertModel
from minbert.pals import ACTIVATIONS, add_low_rank, add_pals, use_task
from tests.techniques.models import NAMES, rows
from tests.techniques.pals_models import (
    CONFIG,
    NOISY,
    WAYS,
    H,
    adapted,
    add,
    additive,
    close,
    every_way,
    random_bert,
    randomize,
    vectors,
)

Weights = dict[str, Tensor]


def dense(W: Weights, name: str, x: Tensor) -> Tensor:
    return torch.einsum("btc,oc->bto", x, W[f"{name}.weight"]) + W[f"{name}.bias"]


def norm(W: Weights, name: str, x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + CONFIG.layer_norm_eps).sqrt()
    return x * W[f"{name}.weight"] + W[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    """x·Φ(x), Φ the normal distribution's."""
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def attention_by_hand(W: Weights, name: str, x: Tensor, mask: Tensor) -> Tensor:
    """Multi-head attention, in which a pad has probability 0."""
    q, k, v = (dense(W, f"{name}.{part}", x).unflatten(-1, (H, -1)) for part in ("query", "key", "value"))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(q.shape[-1])
    p = scores.masked_fill(mask[:, None, None, :] == 0, -math.inf).softmax(dim=-1)
    return torch.einsum("bhij,bjhd->bihd", p, v).flatten(2)


def ts_by_hand(W: Weights, task: str, h: Tensor, mask: Tensor, activation: str | None) -> Tensor:
    """TS(h) of one task. activation: of a low-rank layer; None for a PAL."""
    name = f"adapter.{task}"
    if activation == "identity":  # one product: V_D·(V_E·h + b_E) + b_D = (V_D·V_E)·h + (V_D·b_E + b_D)
        V_E, b_E, V_D, b_D = (W[f"{name}.{side}code.{kind}"] for side in ("en", "de") for kind in ("weight", "bias"))
        return torch.einsum("oc,btc->bto", V_D @ V_E, h) + (V_D @ b_E + b_D)
    inner = dense(W, f"{name}.encode", h)
    inner = attention_by_hand(W, f"{name}.attention", inner, mask) if activation is None else gelu(inner)
    return dense(W, f"{name}.decode", inner)


def layer_by_hand(layer: nn.Module, task: str, h: Tensor, mask: Tensor, activation: str | None) -> Tensor:
    """h' = LN(ffn_out + attn_out + TS(h))."""
    W = dict(layer.named_parameters(remove_duplicate=False))
    attended = h + dense(W, "attention_dense", attention_by_hand(W, "self_attention", h, mask))
    attended = norm(W, "attention_layer_norm", attended)
    ffn = dense(W, "out_dense", gelu(dense(W, "interm_dense", attended)))
    return norm(W, "out_layer_norm", ffn + attended + ts_by_hand(W, task, h, mask, activation))


def g_of(way: dict) -> str | None:
    return way.get("activation", "identity") if way["adapter"] == "low_rank" else None


@every_way
@pytest.mark.parametrize("attention", ["plain", "sdpa"])
def test_a_bert_with_added_layers_is_the_papers_formula(way, attention, layer_of=layer_by_hand):
    """For every task, layer by layer; in float64, with all weights random, and with pads."""
    bert, (ids, mask) = adapted(way, attention), rows()
    for task in NAMES:
        use_task(bert, task)
        h = bert.embed(ids)
        ours = bert.encode(h, mask)
        for layer in bert.bert_layers:
            h = layer_of(layer, task, h, mask, g_of(way))
        tokens = mask.bool()
        close(ours[tokens], h[tokens])


def the_formula(first, second, ts, h):
    """LN₂(LN₁(h) + TS(h))."""
    return second(first(h) + ts(h))


@every_way
@pytest.mark.parametrize("hidden_dropout", [0.0, 0.5])
def test_ts_is_added_before_the_last_layer_norm(way, hidden_dropout, closed_form=the_formula):
    """A layer whose attention and feed-forward are 0 is h' = LN₂(LN₁(h) + TS(h)).

    closed_form: (LN₁, LN₂, TS, h) → h'. It holds in training too, whatever BERT's hidden dropout: TS is not dropped.
    """
    bert, (_, mask) = add(random_bert(replace(CONFIG, hidden_dropout_prob=hidden_dropout)).double(), way), rows()
    randomize(bert).train(hidden_dropout > 0)
    layer, h = bert.bert_layers[1], vectors(mask)
    for zero in (*layer.attention_dense.parameters(), *layer.out_dense.parameters()):
        nn.init.zeros_(zero)
    W = dict(layer.named_parameters())
    for task in NAMES:
        use_task(bert, task)
        ts = functools.partial(ts_by_hand, W, task, mask=mask, activation=g_of(way))
        first, second = (functools.partial(norm, W, f"{name}_layer_norm") for name in ("attention", "out"))
        close(layer(h, additive(mask)), closed_form(first, second, ts, h))


def test_one_token_worked_by_hand():
    """C = 2, rank 1, one token h = (3, 1): LN₁(h) = (1, -1). V_E = (1, 1), b_E = -2, so V_E·h = 2; V_D = (2, -1)ᵀ.

    TS(h) = (4, -2), LN₁(h) + TS(h) = (5, -3), whose mean is 1 and deviation 4: h' = (1, -1). With V_D = (-2, 1)ᵀ the
    sum is (-3, 1), and h' = (-1, 1).
    """
    config = replace(CONFIG, hidden_size=2, num_attention_heads=1, num_hidden_layers=1, intermediate_size=2)
    bert = add_low_rank(BertModel(config).double(), ["sst"], size=1)
    layer = bert.bert_layers[0]
    for zero in (layer.attention_dense, layer.out_dense):
        nn.init.zeros_(zero.weight)
    own = layer.adapter["sst"]
    own.encode.weight.data, own.encode.bias.data = torch.tensor([[1.0, 1.0]]).double(), torch.tensor([-2.0]).double()
    h = torch.tensor([[[3.0, 1.0]]], dtype=torch.float64)
    for sign in (1.0, -1.0):
        own.decode.weight.data = sign * torch.tensor([[2.0], [-1.0]]).double()
        assert own(h, torch.zeros(1, 1, 1, 1)).flatten().tolist() == [sign * 4, sign * -2]
        close(layer(h, torch.zeros(1, 1, 1, 1).double()), sign * torch.tensor([[[1.0, -1.0]]]).double())


def test_a_pal_has_berts_heads_no_output_matrix_and_attends_as_bert_does():
    for attention in ("plain", "sdpa"):
        bert = add_pals(random_bert(NOISY, attention), NAMES, size=6)
        for layer in bert.bert_layers:
            for pal in layer.adapter.values():
                assert pal.attention.num_heads == H and pal.attention.query.weight.shape == (6, 6)
                assert pal.attention.attend is layer.self_attention.attend
                assert pal.attention.dropout.p == 0.5
                parts = {"encode", "decode", "attention.query", "attention.key", "attention.value"}
                assert {name.rpartition(".")[0] for name, _ in pal.named_parameters()} == parts


@pytest.mark.parametrize("attention", ["plain", "sdpa"])
def test_the_only_dropout_of_added_layers_is_that_of_a_pals_attention(attention):
    """Two passes in training: a PAL drops other probabilities, and a low-rank layer has the same outputs."""
    _, mask = rows()
    for way, noisy in ((WAYS["pal 6"], True), (WAYS["low_rank gelu"], False)):
        bert = randomize(add(random_bert(NOISY, attention).double(), way))
        own, h = bert.bert_layers[0].adapter["para"], vectors(mask)
        twice = [bert.train() and own(h, additive(mask)) for _ in range(2)]
        assert torch.equal(*twice) != noisy
        assert torch.equal(*[bert.eval() and own(h, additive(mask)) for _ in range(2)])


def test_the_activations_are_identity_and_gelu():
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    assert set(ACTIVATIONS) == {"identity", "gelu"} and torch.equal(ACTIVATIONS["identity"](x), x)
    close(ACTIVATIONS["gelu"](x), gelu(x), 1e-14)
