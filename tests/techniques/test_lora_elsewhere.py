"""LoRA on PyTorch's own transformer, parts of which read a layer's weight without calling the layer."""

import copy

import pytest
import torch
from torch import nn

from minbert.lora import add_lora, lora_layers, merged_state_dict

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


def encoder() -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2).eval()


def output(model: nn.Module) -> torch.Tensor:
    """In evaluation and without gradients, where PyTorch would take its shortcut."""
    with torch.no_grad():
        return model.eval()(X)


def adapted() -> tuple[nn.TransformerEncoder, nn.TransformerEncoder]:
    """An encoder with additions that are not zero, and the plain encoder with the merged weights."""
    model, plain = encoder(), encoder()
    add_lora(model, rank=2, alpha=4, targets=["linear1", "linear2"])
    for layer in lora_layers(model):
        nn.init.normal_(layer.lora_B["all"], std=0.5)
    plain.load_state_dict(merged_state_dict(model))
    return model, plain


def test_additions_count_in_evaluation_too():
    model, plain = adapted()
    torch.testing.assert_close(output(model), output(plain), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(output(model), output(encoder()), atol=1e-2)


def test_the_shortcut_would_pass_by_the_additions():
    model, _ = adapted()
    for layer in model.layers:
        layer.activation_relu_or_gelu = 1  # what PyTorch sets for relu
    torch.testing.assert_close(output(model), output(encoder()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("targets", [None, ["out_proj"]])
def test_the_projection_of_multihead_attention_is_refused_and_the_module_stays_as_it_was(targets):
    for module in (nn.MultiheadAttention(8, 2, batch_first=True), encoder()):
        before = copy.deepcopy(module.state_dict())
        with pytest.raises(ValueError, match=r"out_proj: nn.MultiheadAttention reads this layer's weight"):
            add_lora(module, rank=2, alpha=4, targets=targets)
        assert not any(lora_layers(module)) and all(p.requires_grad for p in module.parameters())
        assert module.state_dict().keys() == before.keys()
