"""How many parameters are added, and how they begin: the model has the same outputs as before."""

import itertools
from dataclasses import replace
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.pals import add_low_rank, add_pals, low_rank_size, pal_size, use_task
from tests.techniques.models import NAMES, rows
from tests.techniques.pals_models import (
    CONFIG,
    WAYS,
    L,
    a_pal_and_a_low_rank,
    adapters,
    add,
    every_way,
    random_bert,
    randomize,
)


def pal_numbers(C: int, L: int, size: int) -> int:
    """V_E and V_D once, with their biases, and q, k, v in every layer."""
    return (C * size + size) + (size * C + C) + L * 3 * (size**2 + size)


def low_rank_numbers(C: int, L: int, size: int) -> int:
    """V_E and V_D in every layer."""
    return L * ((C * size + size) + (size * C + C))


def meta_bert(**sizes) -> BertModel:
    """A BERT without memory or random numbers. (For `normal_` on "meta" PyTorch imports its compiler, in 4 s.)"""
    with torch.device("meta"), mock.patch("torch.nn.init.normal_"):
        return BertModel(BertConfig(**sizes))


def numbers(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (add_pals, (768 * 204 + 204) + (204 * 768 + 768) + 12 * 3 * (204**2 + 204)),
        (add_low_rank, 12 * (2 * 768 * 100 + 100 + 768)),
    ],
)
def test_the_published_sizes_beside_bert_base(added, expected):
    """1.82 and 1.85 million a task: the paper's eight tasks add 13% to BERT, our three less than 6%."""
    assert expected in (1_819_836, 1_853_616)
    bert = meta_bert()
    assert numbers(bert) == 109_482_240
    added(bert, NAMES)
    assert [sum(p.numel() for p in adapters(bert, task).values()) for task in NAMES] == [expected] * 3
    assert numbers(bert) == 109_482_240 + 3 * expected <= 1.06 * 109_482_240
    assert round(1 + 8 * expected / 110e6, 2) == 1.13


@pytest.mark.parametrize(("C", "L", "H"), [(384, 6, 12), (64, 1, 8), (96, 3, 4)])
@pytest.mark.parametrize("size", [None, 24, 48])
@pytest.mark.parametrize("kind", ["pal", "low_rank"])
def test_the_number_of_parameters_is_the_formulas(C, L, H, size, kind):
    sizes = {"hidden_size": C, "num_hidden_layers": L, "num_attention_heads": H}
    bert = meta_bert(**sizes, vocab_size=5, intermediate_size=7, max_position_embeddings=4)
    before = numbers(bert)
    add(bert, {"adapter": kind, "size": size}, ["sst"])
    if kind == "pal":
        expected = pal_numbers(C, L, size or pal_size(C, H))
    else:
        expected = low_rank_numbers(C, L, size or low_rank_size(C))
    assert numbers(bert) - before == expected


def test_sizes_are_in_proportion_to_the_published_ones():
    """MiniLM's 102 lies half-way between two multiples of its 12 heads."""
    assert [pal_size(C, H) for C, H in [(768, 12), (1024, 16), (384, 12), (128, 2), (8, 2)]] == [204, 272, 96, 34, 2]
    assert [low_rank_size(C) for C in (768, 1024, 384, 128, 8)] == [100, 133, 50, 17, 1]


@given(st.integers(1, 40), st.integers(1, 200))
def test_a_size_is_near_the_proportion_fits_the_heads_and_is_never_zero(H, D):
    C = H * D
    size, rank = pal_size(C, H), low_rank_size(C)
    assert size % H == 0 and size >= H and (size == H or abs(size - 204 / 768 * C) <= H / 2 + 1e-9)
    assert rank >= 1 and (rank == 1 or abs(rank - 100 / 768 * C) <= 0.5 + 1e-9)


# ------------------------------------------------------------------------------------------ the start


def check_identity(change, attention: str = "plain"):
    """For every task, BERT's outputs for each token and for the sentence are the same bits as before `change`."""
    bert = random_bert(attention=attention)
    ids, mask = rows()
    before = bert(ids, mask)
    change(bert)
    bert.eval()
    for task in NAMES:
        use_task(bert, task)
        after = bert(ids, mask)
        assert torch.equal(after["last_hidden_state"], before["last_hidden_state"])
        assert torch.equal(after["pooler_output"], before["pooler_output"])


@every_way
@pytest.mark.parametrize("attention", ["plain", "sdpa"])
def test_added_layers_change_nothing_at_first(way, attention):
    check_identity(lambda bert: add(bert, way), attention)


@every_way
@pytest.mark.parametrize("hidden", [0.0, 0.3])
def test_added_layers_change_nothing_in_training_either(way, hidden):
    """The gradients are the same too, with BERT's own dropout and the same seed. (A PAL's attention with a dropout
    draws random numbers of its own, so that rate is 0 here.)"""
    attention = 0.0 if way["adapter"] == "pal" else hidden
    config = replace(CONFIG, hidden_dropout_prob=hidden, attention_probs_dropout_prob=attention)
    bert, (ids, mask) = random_bert(config), rows()
    own = dict(bert.named_parameters())

    def step() -> list[Tensor]:
        torch.manual_seed(5)
        out = bert.train()(ids, mask)
        loss = out["last_hidden_state"].square().mean() + out["pooler_output"].mean()
        return [*out.values(), *torch.autograd.grad(loss, own.values())]

    before = step()
    add(bert, way)
    assert all(torch.equal(a, b) for a, b in zip(step(), before, strict=True))


@every_way
def test_v_d_has_a_gradient_at_the_start_and_the_weights_before_it_have_none(way):
    """∂loss/∂V_D = (…)·g(V_E·h) is not 0 at V_D = 0. The gradient of V_E has V_D as a factor, so V_E must not be 0."""
    bert, (ids, mask) = add(random_bert(), way), rows()
    bert(ids, mask)["last_hidden_state"].square().mean().backward()
    for name, p in adapters(bert, "sst").items():
        assert p.grad is not None and p.grad.any() == (".decode." in name), name


@a_pal_and_a_low_rank
@pytest.mark.parametrize("std", [0.02, 0.3])
def test_fresh_weights_are_berts_and_no_two_matrices_the_same(way, std):
    """N(0, std²) with BERT's initializer_range, biases 0; V_D all zeros. No task or layer begins as a copy of another.

    A PAL or low-rank layer of 48 to BERT's 48 has 2,304 numbers a matrix: the sample's std is right to 1/√4608, 1.5%.
    """
    sizes = {"hidden_size": 48, "intermediate_size": 4, "initializer_range": std}
    bert = add(random_bert(replace(CONFIG, **sizes)), way | {"size": 48})
    fresh = [p for name, p in adapters(bert).items() if ".decode." not in name and name.endswith(".weight")]
    assert len(fresh) == 3 * (1 + 3 * L if way["adapter"] == "pal" else L)
    for p in fresh:
        assert p.std().item() == pytest.approx(std, rel=0.08) and abs(p.mean().item()) < 0.1 * std
    assert not any(torch.equal(p, q) for p, q in itertools.combinations(fresh, 2))
    assert not any(p.any() for name, p in adapters(bert).items() if ".decode." in name or name.endswith(".bias"))


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([(1, 1), (2, 1), (2, 3), (4, 2)]), st.integers(1, 3), st.integers(1, 4), st.sampled_from(list(WAYS))
)
def test_layers_can_be_added_to_a_bert_of_any_shape(shape, layers, multiple, way):
    """At the start the outputs are BERT's own; with random added weights they differ."""
    heads, width = shape
    sizes = {"hidden_size": heads * width, "num_attention_heads": heads, "num_hidden_layers": layers}
    bert = random_bert(replace(CONFIG, **sizes))
    ids, mask = rows()
    before = bert(ids, mask)["last_hidden_state"]
    add(bert, WAYS[way] | {"size": multiple * heads}).eval()
    assert torch.equal(bert(ids, mask)["last_hidden_state"], before)
    after = randomize(bert)(ids, mask)["last_hidden_state"]
    assert after.shape == before.shape and after.isfinite().all()
    assert heads * width == 1 or not torch.equal(after, before)
