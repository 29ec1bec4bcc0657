"""LoRA against the library `peft`: the same A's and B's give the same outputs, gradients and merged matrices."""

import re

import pytest
import torch
from torch import nn

from minbert.lora import LoRALinear, add_lora, merge_lora, merged_state_dict
from minbert.pretrained import bert_weights
from tests.techniques.lora_models import (
    CONFIG,
    IDS,
    MASK,
    QUERY_VALUE,
    answer,
    base_bits,
    close,
    make_bert,
    make_layers,
    randomize,
    trainable,
)


def our_name(theirs: str) -> str:
    return next(iter(bert_weights({theirs: torch.zeros(1)})))


def our_lora_name(theirs: str) -> str:
    """peft's name of an A or a B in a wrapped `transformers.BertModel`, or in an nn.Sequential → ours."""
    module, matrix = re.fullmatch(r"base_model\.model\.(.+)\.(lora_[AB])\.default\.weight", theirs).groups()
    return f"{our_name(f'{module}.weight').removesuffix('.weight')}.{matrix}.all"


def wrapped(module: nn.Module, rank: int, alpha: float, targets: list[str], dropout: float = 0.0):
    """peft's model around `module`, its A's and B's random."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=dropout)
    return randomize(peft.get_peft_model(module, config))


def assert_equal_to_peft(ours: nn.Module, theirs: nn.Module, ours_of, theirs_of, tolerance: float):
    """The same A's and B's give the same outputs, gradients, and merged matrices; and nothing else trains."""
    matrices = {our_lora_name(name): p for name, p in trainable(theirs).items()}
    assert trainable(ours).keys() == matrices.keys()
    with torch.no_grad():
        for name, p in trainable(ours).items():
            p.copy_(matrices[name])
    y, expected = ours_of(ours), theirs_of(theirs)
    close(y, expected, tolerance)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    for name, p in trainable(ours).items():
        assert p.grad.abs().max() > 1e-3
        close(p.grad, matrices[name].grad, tolerance)

    merged = {our_name(name): tensor for name, tensor in theirs.merge_and_unload().state_dict().items()}
    state = merged_state_dict(ours)
    assert state.keys() == merged.keys()
    for name, tensor in state.items():
        close(tensor, merged[name], tolerance)
    before = base_bits(ours)
    merge_lora(ours)
    for name, layer in ours.named_modules():
        if isinstance(layer, LoRALinear):
            close(layer.weight, merged[f"{name}.weight"], tolerance)
    assert base_bits(ours) == before  # state_dict still has the pretrained W's


def assert_bert_equal_to_peft(rank=4, alpha=6.0, targets=None, dtype=torch.float64, tolerance=1e-12):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    theirs = transformers.BertModel(transformers.BertConfig(**CONFIG.to_dict())).to(dtype).eval()
    ours = make_bert(dtype)
    ours.load_state_dict(bert_weights(theirs.state_dict()))
    add_lora(ours, rank, alpha, targets=targets)

    def theirs_of(model):
        output = model(input_ids=IDS, attention_mask=MASK)
        return torch.cat([output.last_hidden_state[MASK == 1].flatten(), output.pooler_output.flatten()])

    theirs = wrapped(theirs, rank, alpha, targets or ["query", "key", "value", "dense"]).eval()
    assert_equal_to_peft(ours, theirs, answer, theirs_of, tolerance)


@pytest.mark.parametrize(
    ("rank", "alpha", "targets"), [(1, 1.0, None), (4, 6.0, None), (12, 2.0, QUERY_VALUE), (2, 16.0, ["key"])]
)
def test_a_bert_with_lora_equals_pefts(rank, alpha, targets):
    assert_bert_equal_to_peft(rank, alpha, targets)


def test_a_bert_with_lora_in_float32_equals_pefts():
    assert_bert_equal_to_peft(dtype=torch.float32, tolerance=5e-6)


@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize("alpha", [1, 5, 32])
def test_linear_layers_with_lora_equal_pefts(rank, alpha):
    x = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for targets in (["0", "2", "4"], ["2"], ["0", "4"]):
        ours, theirs = make_layers(), wrapped(make_layers(), rank, alpha, targets)
        add_lora(ours, rank, alpha, targets=targets)
        assert_equal_to_peft(ours.eval(), theirs.eval(), lambda m: m(x), lambda m: m(x), 1e-12)


def test_dropout_equals_pefts():
    """From the same random state both drop the same numbers."""
    x = torch.randn(6, 5, dtype=torch.float64)
    ours, theirs = make_layers(), wrapped(make_layers(), 2, 4, ["0", "2", "4"], dropout=0.4).train()
    add_lora(ours, 2, 4.0, dropout=0.4).train()

    def outputs(module):
        torch.manual_seed(5)
        return module(x)

    ours.load_state_dict(ours.state_dict() | {our_lora_name(n): p for n, p in trainable(theirs).items()})
    close(outputs(ours), outputs(theirs))
    assert not torch.equal(outputs(ours), ours(x))
