"""BERT against `transformers.BertModel`, with random and with real weights, against an example worked by hand, and
against the figures of the course's sanity check.
"""

import math
import os
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn

from minbert import hub
from minbert.bert import ATTENTION, BertModel
from minbert.config import BertConfig
from minbert.errors import UserError
from minbert.tokenizer import BertTokenizer
from tests.model.twins import CONFIGS, assert_equal, inputs, outputs_and_gradients, twins


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("name", CONFIGS)
def test_values_and_gradients_equal_transformers(name, attention):
    assert_equal(*twins(name, attention), inputs(name))


@pytest.fixture(scope="module")
def minilm() -> Path:
    try:
        return hub.find("minilm")
    except (UserError, OSError) as error:
        pytest.skip(f"no real weights: {error}")


@pytest.mark.parametrize("attention", ATTENTION)
def test_values_and_gradients_equal_transformers_with_real_weights(minilm, attention):
    theirs = transformers.BertModel.from_pretrained(minilm, attn_implementation="eager").eval()
    tokenizer = BertTokenizer.from_pretrained("minilm")
    texts = ["Is it raining?", "The film drags, but its last half hour is worth it."], ["It pours.", "Yes!"]
    batch = tokenizer(*texts, padding=True, return_tensors="pt")
    assert_equal(BertModel.from_pretrained("minilm", attention).eval(), theirs, batch)


def test_outputs_at_the_pads_equal_transformers_too():
    ours, theirs = twins("odd sizes")
    batch = inputs("odd sizes")
    actual, expected = (model(**batch)["last_hidden_state"] for model in (ours, theirs))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_both_attentions_are_the_same_function():
    (plain, _), (fused, _) = twins("odd sizes"), twins("odd sizes", "sdpa")
    batch = inputs("odd sizes")
    (h, u, gradients), (h_, u_, gradients_) = outputs_and_gradients(plain, batch), outputs_and_gradients(fused, batch)
    torch.testing.assert_close(h_, h, rtol=0, atol=1e-5)
    torch.testing.assert_close(u_, u, rtol=0, atol=1e-5)
    for name in gradients:
        torch.testing.assert_close(gradients_[name], gradients[name], rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------ by hand


@pytest.mark.parametrize("attention", ATTENTION)
def test_outputs_equal_an_example_worked_by_hand(attention):
    """One layer, C = 4, H = 2 (so D = 2), two tokens A and B and a pad; every number below can be done on paper.

    Embeddings   A = word (1, 1, -1, -2) + position 0 (0, 0, 0, 1)       = (1,  1, -1, -1)
                 B = word (0, -1, 1, -1) + token type 1 (1, 0, 0, 0)     = (1, -1,  1, -1)
                 Both have mean 0 and variance 1, so LN leaves them. The pad is (9, 0, 0, -9), on which nothing depends.
    Head 0       columns 0 and 1. q = (0, ln 3 /√2) for every token, k = v = x. Scores qᵀk/√D: A ½ ln 3, B -½ ln 3,
                 probabilities ¾ and ¼: ¾·(1, 1) + ¼·(1, -1) = (1, ½).
    Head 1       columns 2 and 3. q = 0, probabilities ½ and ½: ½·(-1, -1) + ½·(1, -1) = (0, -1).
    Residual     attention_dense doubles and adds (-1, 0, -1, 1): (2, 1, 0, -2) + (-1, 0, -1, 1) = (1, 1, -1, -1).
                 A + that = (2, 2, -2, -2), LN → (1, 1, -1, -1).   B + that = (2, 0, 0, -2), LN → (√2, 0, 0, -√2).
    Feed-forward one unit that reads column 1: A 1, B 0; GELU(1) = Φ(1) = .841345 = g, GELU(0) = 0; written to columns
                 0 and 1 as (g, -g). A: (1+g, 1-g, -1, -1), mean 0, variance 1 + g²/2.   B: unchanged.
    Pooler       reads column 2 of [CLS], which is A, and adds 1.
    """
    config = BertConfig(
        vocab_size=3, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=1,
        max_position_embeddings=3,
    )  # fmt: skip
    model = BertModel(config, attention).eval()
    layer = model.bert_layers[0]
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    for norm in (model.embed_layer_norm, layer.attention_layer_norm, layer.out_layer_norm):
        nn.init.ones_(norm.weight)

    def put(parameter: nn.Parameter, values):
        parameter.data = torch.tensor(values, dtype=torch.float32).expand_as(parameter).clone()

    put(model.word_embedding.weight, [[9, 0, 0, -9], [1, 1, -1, -2], [0, -1, 1, -1]])
    put(model.pos_embedding.weight, [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    put(model.tk_type_embedding.weight, [[0, 0, 0, 0], [1, 0, 0, 0]])
    put(layer.self_attention.query.bias, [0, math.log(3) / math.sqrt(2), 0, 0])
    put(layer.self_attention.key.weight, torch.eye(4).tolist())
    put(layer.self_attention.value.weight, torch.eye(4).tolist())
    put(layer.attention_dense.weight, (2 * torch.eye(4)).tolist())
    put(layer.attention_dense.bias, [-1, 0, -1, 1])
    put(layer.interm_dense.weight, [[0, 1, 0, 0]])
    put(layer.out_dense.weight, [[1], [-1], [0], [0]])
    put(model.pooler_dense.weight, [[0, 0, 1, 0]])
    put(model.pooler_dense.bias, 1)

    output = model(torch.tensor([[1, 2, 0]]), torch.tensor([[1, 1, 0]]), torch.tensor([[0, 1, 0]]))

    g = 0.8413447
    std = math.sqrt(1 + g**2 / 2)
    a = [(1 + g) / std, (1 - g) / std, -1 / std, -1 / std]
    b = [math.sqrt(2), 0, 0, -math.sqrt(2)]
    torch.testing.assert_close(output["last_hidden_state"][0, :2], torch.tensor([a, b]), rtol=0, atol=1e-6)
    pooled = torch.full((1, 4), math.tanh(1 - 1 / std))
    torch.testing.assert_close(output["pooler_output"], pooled, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------ the course


# The figures that the course's file holds: bert-base-uncased on the two sentences of its sanity check.
IDS = torch.tensor([[101, 7592, 2088, 102, 0, 0, 0, 0], [101, 7592, 15756, 2897, 2005, 17953, 2361, 102]])
FIRST_CLS = [-0.168884, 0.136064, -0.139400, -0.054359]  # the first four numbers
SECOND_SEP = [0.645269, -0.115473, -0.436594, 0.339301]
POOLED = [[-0.906153, -0.311153, -0.621654, 0.774093], [-0.804259, -0.286005, -0.282890, 0.491087]]
NORMS = [31.310722, 42.963096, 16.808625, 14.544161]  # of the real tokens' states, and of the pooled vectors


def assert_the_courses_figures(hidden: Tensor, pooled: Tensor):
    def close(actual: Tensor, expected: list):
        torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-3, atol=1e-5)

    close(hidden[0, 0, :4], FIRST_CLS)
    close(hidden[1, 7, :4], SECOND_SEP)
    close(pooled[:, :4], POOLED)
    close(torch.stack([hidden[0, :4].norm(), hidden[1].norm(), *pooled.norm(dim=1)]), NORMS)


def course_file(folder: Path) -> tuple[Tensor, Tensor]:
    path = folder / "course-sanity-check.data"
    if not path.exists():
        pytest.skip(f"no {path.name} in {folder}")
    stored = torch.load(path, weights_only=True)
    return stored["last_hidden_state"], stored["pooler_output"]


def test_the_courses_file_holds_these_figures(real_data):
    assert_the_courses_figures(*course_file(real_data))


@pytest.mark.parametrize("attention", ATTENTION)
def test_bert_base_passes_the_courses_own_check(attention):
    """The course's `sanity_check.py`. It runs where the weights are in the hub cache; a test does not fetch 440 MB."""
    if not hub.in_hub_cache("bert-base-uncased"):
        pytest.skip("bert-base-uncased is not in this machine's hub cache")
    output = BertModel.from_pretrained("bert-base-uncased", attention).eval()(IDS, (IDS != 0).long())
    hidden, pooled = output["last_hidden_state"].detach(), output["pooler_output"].detach()
    assert_the_courses_figures(hidden, pooled)
    if os.environ.get("MINBERT_DATA"):
        stored = course_file(Path(os.environ["MINBERT_DATA"]))
        torch.testing.assert_close(hidden[IDS != 0], stored[0][IDS != 0], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(pooled, stored[1], rtol=1e-3, atol=1e-5)
