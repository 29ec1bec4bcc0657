"""What the sanity check knows of this project alone: one tiny layer done by hand, and the course's 1,000 steps."""

from functools import partial

import pytest
import torch
from torch import nn

import sanity_check
from minbert.bert import BertLayer, BertModel, BertSelfAttention
from minbert.optimizer import AdamW


def test_right_code_passes_the_checks_by_hand():
    assert sanity_check.check_tiny_bert() == ""
    assert sanity_check.check_tiny_bert(lambda config: BertModel(config, "sdpa")) == ""
    assert sanity_check.check_adamw() == ""


def attention_with(scale=None, use_mask=True):
    def attention(q, k, v, mask, dropout):
        scores = q @ k.transpose(-2, -1) / (scale or q.shape[-1] ** 0.5)
        return (scores + mask if use_mask else scores).softmax(-1) @ v

    return attention


def wrong_attention(**how):
    def build(config):
        model = BertModel(config)
        for layer in model.bert_layers:
            layer.self_attention.attend = attention_with(**how)
        return model

    return build


def patched(owner, name, replacement):
    """A builder of a BertModel while `owner.name` is `replacement`."""

    def build(config):
        model = BertModel(config)
        forward = model.forward

        def wrong(*args):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(owner, name, replacement)
                return forward(*args)

        model.forward = wrong
        return model

    return build


def no_residual(self, input, output, dense_layer, dropout, ln_layer):
    return ln_layer(dropout(dense_layer(output)))


def heads_swapped(self, x, linear):
    B, T, C = x.shape
    return linear(x).view(B, T, C // self.num_heads, self.num_heads).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "build",
    [
        wrong_attention(scale=1.0),
        wrong_attention(scale=2.0),  # √C
        wrong_attention(use_mask=False),
        patched(nn.functional, "gelu", partial(nn.functional.gelu, approximate="tanh")),
        patched(nn.functional, "gelu", torch.relu),
        patched(BertLayer, "add_norm", no_residual),
        patched(BertSelfAttention, "transform", heads_swapped),
    ],
    ids=["no √D", "√C", "no mask", "tanh GELU", "ReLU", "no residual", "heads (D, H)"],
)
def test_a_wrong_bert_is_found_by_hand(build):
    assert "expected" in sanity_check.check_tiny_bert(build)


def test_a_wrong_adamw_is_found_by_the_course_s_check():
    class NoCorrection(AdamW):
        def __init__(self, params, **options):
            super().__init__(params, **options | {"correct_bias": False})

    assert "expected" in sanity_check.check_adamw(NoCorrection)
