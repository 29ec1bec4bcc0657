"""Merging: W + (α/r)·B·A in W's place gives the same outputs, and W comes back bit for bit."""

import copy

import pytest
import torch

from minbert.lora import add_lora, lora_layers, merge_lora, merged_state_dict, unmerge_lora
from tests.techniques.lora_models import (
    answer,
    base_bits,
    bits,
    close,
    make_bert,
    make_layers,
    make_lora,
    randomize,
    same,
    trainable,
)
from tests.techniques.test_lora import layer_by_hand


def test_a_merged_model_has_the_same_outputs_and_W_comes_back():
    """Merging again changes nothing. After unmerging, W is the same tensor as before."""
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 5e-6)):
        bert = make_lora(dtype=dtype)
        before, weights = answer(bert), {layer: layer.weight for layer in lora_layers(bert)}
        start = bits(bert)
        assert (before - answer(make_bert(dtype))).abs().max() > 0.1  # the additions change the outputs
        merge_lora(bert)
        merged = answer(bert)
        close(merged, before, tolerance)
        assert not any(layer.weight is W or same(layer.weight, W) for layer, W in weights.items())
        values = [layer.weight.clone() for layer in lora_layers(bert)]
        merge_lora(bert)
        assert same(answer(bert), merged)
        assert all(same(layer.weight, W) for layer, W in zip(lora_layers(bert), values, strict=True))
        for _ in range(2):
            unmerge_lora(bert)
            assert same(answer(bert), before) and bits(bert) == start
            assert all(layer.weight is W for layer, W in weights.items())


def test_a_hundred_merges_leave_every_bit_of_W():
    for dtype in (torch.float32, torch.float16):
        module = randomize(add_lora(make_layers(dtype), 2, 3.0))
        before = bits(module)
        for _ in range(100):
            merge_lora(module)
            unmerge_lora(module)
        assert bits(module) == before


def test_a_merged_model_refuses_to_train():
    """A step would change an A that has no part in the output. Without gradients, merged layers work in any mode."""
    bert = make_lora()
    before = answer(bert)
    merge_lora(bert)
    bert.train()
    with pytest.raises(RuntimeError, match="merged LoRA layers cannot train: call unmerge_lora first"):
        answer(bert)
    with torch.no_grad():
        close(answer(bert), before)
    close(answer(bert.eval()), before)
    unmerge_lora(bert.train())
    answer(bert).sum().backward()
    assert all(p.grad.any() for p in trainable(bert).values())


def test_a_merge_takes_A_and_B_as_they_are_then():
    """A and B have changed since the last merge."""
    bert = make_lora()
    merge_lora(bert)
    unmerge_lora(bert)
    randomize(bert, seed=9)
    before = answer(bert)
    merge_lora(bert)
    close(answer(bert), before)


def test_a_state_dict_has_the_pretrained_W_merged_or_not():
    """It has the same names and the same bits, and loads into a model that is merged or not."""
    bert, plain = make_lora(), make_bert()
    before = answer(bert)
    state = copy.deepcopy(bert.state_dict())
    assert base_bits(bert) == bits(plain)
    merge_lora(bert)
    assert list(bert.state_dict()) == list(state) and bits(bert) == bits(state)
    assert base_bits(bert) == bits(plain) and list(base_bits(bert)) == list(plain.state_dict())

    for merged_there in (False, True):
        other = randomize(add_lora(make_bert(seed=5), 2, 3.0), seed=6).eval()
        if merged_there:
            merge_lora(other)
        other.load_state_dict(bert.state_dict())
        assert bits(other) == bits(state)
        close(answer(other), before)
        merge_lora(other)
        close(answer(other), before)
        unmerge_lora(other)
        assert same(answer(other), before)


def test_a_copy_of_a_merged_model_is_merged_and_shares_nothing():
    """W comes back in both."""
    bert = make_lora()
    before, state = answer(bert), bits(bert)
    merge_lora(bert)
    twin = copy.deepcopy(bert)
    assert same(answer(twin), answer(bert)) and bits(twin) == state
    unmerge_lora(twin)
    assert bits(twin) == state and same(answer(twin), before)
    assert all(layer.pretrained is not None for layer in lora_layers(bert))
    randomize(twin, seed=9)
    assert not torch.allclose(answer(twin), before)
    unmerge_lora(bert)
    assert bits(bert) == state and same(answer(bert), before)
    assert not {p.data_ptr() for p in bert.parameters()} & {p.data_ptr() for p in twin.parameters()}


@pytest.mark.parametrize("merged", [True, False])
def test_a_cast_takes_along_W_and_A_and_B(merged):
    """`.to` and `.half` also cast the W that a merged layer keeps aside."""
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(4))
    module = randomize(add_lora(make_layers(torch.float32), 2, 3.0)).eval()
    before, state = module(x), copy.deepcopy(module.state_dict())
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float16, 0.005), (torch.bfloat16, 0.02)):
        other = copy.deepcopy(module)
        if merged:
            merge_lora(other)
        other = other.half() if dtype == torch.float16 else other.to(dtype)
        assert {p.dtype for p in other.parameters()} == {dtype}
        close(other(x.to(dtype)).float(), before, tolerance)
        assert all(same(tensor, state[name].to(dtype)) for name, tensor in other.state_dict().items())
        unmerge_lora(other)
        assert all(same(tensor, state[name].to(dtype)) for name, tensor in other.named_parameters())
        close(other(x.to(dtype)).float(), before, tolerance)
        assert other[0].weight.requires_grad is False


def test_a_merged_state_dict_is_a_plain_models():
    """It loads into a plain BERT, which then has the same outputs. The model stays as it is."""
    bert = make_lora()
    before, state = answer(bert), bits(bert)
    for merged in (False, True):
        if merged:
            merge_lora(bert)
        plain = make_bert(seed=7)
        weights = merged_state_dict(bert)
        assert list(weights) == list(plain.state_dict()) and not any(t.requires_grad for t in weights.values())
        plain.load_state_dict(weights)
        close(answer(plain), before)
        assert bits(bert) == state
        layer = bert.bert_layers[0].self_attention.key
        A, B, W = layer.lora_A["all"], layer.lora_B["all"], bert.state_dict()["bert_layers.0.self_attention.key.weight"]
        close(weights["bert_layers.0.self_attention.key.weight"], W + 3 / 2 * B @ A)
        assert all((layer.pretrained is not None) == merged for layer in lora_layers(bert))


def test_a_merged_state_dict_of_a_layer_alone():
    layer = layer_by_hand([[1, -1], [0, 2]], [[2, 1], [0.5, 0]], alpha=3)
    state = merged_state_dict(layer)
    assert list(state) == ["weight", "bias"] and state["weight"].tolist() == [[4, 2], [3.75, 3.25]]
