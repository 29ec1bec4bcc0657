"""What the layers of a task share, and which tokens an added layer looks at."""

import copy
import itertools

import pytest
import torch

from minbert.bert import BertModel
from minbert.pals import use_task
from tests.techniques.models import NAMES, T, rows
from tests.techniques.pals_models import (
    CONFIG,
    WAYS,
    L,
    a_pal_and_a_low_rank,
    adapted,
    adapters,
    add,
    additive,
    answers,
    close,
    every_way,
    model_of,
    random_bert,
    randomize,
    vectors,
)


def tensors(bert: BertModel, part: str) -> list[set[int]]:
    """Which tensors the layers of BERT have for `part` of each task: one set a task, of their places in memory."""
    return [
        {p.data_ptr() for layer in bert.bert_layers for p in layer.adapter[task].get_submodule(part).parameters()}
        for task in NAMES
    ]


def check_sharing(bert: BertModel, kind: str):
    """A PAL's V_E and V_D are one (weight, bias) for all layers, and each layer has its own q, k, v. A low-rank layer
    has its own V_E and V_D. Tasks share nothing."""
    parts = {"encode": 2, "decode": 2, "attention": 6 * L} if kind == "pal" else {"encode": 2 * L, "decode": 2 * L}
    seen = []
    for part, count in parts.items():
        places = tensors(bert, part)
        assert [len(of_task) for of_task in places] == [count] * len(NAMES), part
        seen += itertools.chain(*places)
    assert len(seen) == len(set(seen)) == len(adapters(bert))


@every_way
def test_a_pals_layers_share_v_e_and_v_d_and_low_rank_layers_share_nothing(way):
    bert = adapted(way)
    check_sharing(bert, way["adapter"])
    check_sharing(copy.deepcopy(bert), way["adapter"])
    check_sharing(copy.deepcopy(bert).float(), way["adapter"])
    with pytest.raises(AssertionError):
        check_sharing(bert, {"pal": "low_rank", "low_rank": "pal"}[way["adapter"]])


@a_pal_and_a_low_rank
def test_a_state_dict_loads_and_keeps_the_sharing(way):
    bert, (ids, mask) = adapted(way), rows()
    again = randomize(add(random_bert().double(), way), seed=8).eval()
    for task in NAMES:
        use_task(bert, task), use_task(again, task)
        assert not torch.equal(again(ids, mask)["last_hidden_state"], bert(ids, mask)["last_hidden_state"])
        again.load_state_dict(copy.deepcopy(bert.state_dict()))
        assert torch.equal(again(ids, mask)["last_hidden_state"], bert(ids, mask)["last_hidden_state"])
        randomize(again, seed=8)
    check_sharing(again, way["adapter"])


def test_a_shared_v_e_learns_from_every_layer():
    """Its gradient is the sum of the gradients that the layers give when each has a V_E of its own."""
    bert, (ids, mask) = adapted(WAYS["pal 6"]), rows()
    apart = copy.deepcopy(bert)
    for layer in apart.bert_layers:
        layer.adapter["sst"].encode = copy.deepcopy(layer.adapter["sst"].encode)
    for each in (bert, apart):
        each(ids, mask)["last_hidden_state"].pow(3).mean().backward()
    summed = sum(layer.adapter["sst"].encode.weight.grad for layer in apart.bert_layers)
    close(bert.bert_layers[0].adapter["sst"].encode.weight.grad, summed)


# ------------------------------------------------------------------------------------------ tokens and pads


def check_pads(bert: BertModel):
    """Other numbers at the pads change no bit of a token's result; other numbers at a token change it."""
    (_, mask), tokens = rows(), rows()[1].bool()
    h = vectors(mask)
    other = torch.where(tokens[:, :, None], h, 3 * vectors(mask, seed=9))
    ours, theirs = bert.encode(h, mask), bert.encode(other, mask)
    assert torch.equal(ours[tokens], theirs[tokens])
    h[:, 1] = other[:, 0]
    assert not torch.equal(ours[:, 0], bert.encode(h, mask)[:, 0])


@a_pal_and_a_low_rank
@pytest.mark.parametrize("attention", ["plain", "sdpa"])
def test_pads_are_not_attended_to(way, attention):
    check_pads(adapted(way, attention))


@every_way
def test_an_added_layer_depends_on_other_tokens_in_a_pal_alone(way):
    """Another last token changes no other token's TS in a low-rank layer, and every token's in a PAL."""
    own, h = adapted(way).bert_layers[0].adapter["sts"], vectors(torch.ones(2, T))
    moved = h.clone()
    moved[:, -1] += 1
    mask = additive(torch.ones(2, T))
    same = (own(h, mask) == own(moved, mask)).all(dim=-1)[:, :-1]
    assert same.all() if way["adapter"] == "low_rank" else not same.any()
    assert not torch.equal(own(h, mask)[:, -1], own(moved, mask)[:, -1])


@pytest.mark.parametrize("size", [1, 3, 12, 20])
def test_a_low_rank_layer_is_a_matrix_of_its_rank(size):
    """TS(h) - TS(0) on the C unit vectors is the matrix V_D·V_E: C×C of rank min(size, C). With GELU inside
    TS is not linear: TS(x + y) differs from TS(x) + TS(y)."""
    C = CONFIG.hidden_size
    for activation, linear in (("identity", True), ("gelu", False)):
        way = {"adapter": "low_rank", "size": size, "activation": activation}
        own = adapted(way).bert_layers[0].adapter["sst"]

        def ts(h, own=own):
            return (own(h, None) - own(torch.zeros_like(h), None))[0]

        unit, x, y = torch.eye(C, dtype=torch.float64)[None], *vectors(torch.ones(2, T)).split(1)
        additive_error = (ts(x + y) - ts(x) - ts(y)).abs().max()
        assert (additive_error < 1e-12) if linear else (additive_error > 1e-3)
        if linear:
            assert torch.linalg.matrix_rank(ts(unit), rtol=1e-9) == min(size, C)
            close(ts(unit).T, own.decode.weight @ own.encode.weight)


@a_pal_and_a_low_rank
def test_bf16_is_near_fp32_and_returns_float32(way):
    model = model_of(way).eval()
    exactly = answers(model)
    model.precision = "bf16"
    with model.autocast():
        rough = answers(model)
    for task in NAMES:
        assert rough[task].dtype == torch.float32 and not torch.equal(rough[task], exactly[task])
        torch.testing.assert_close(rough[task], exactly[task], atol=0.15, rtol=0.05)
