"""BERT's dropout stands at four places: after the embeddings' LayerNorm, on the attention probabilities, and after the
last dense layer of each sub-layer, before its residual. The oracle is `transformers.BertModel` in train mode.
"""

import pytest
import torch
from torch import nn

from minbert.bert import ATTENTION
from tests.model.twins import assert_equal, inputs, twins


def assert_same_dropout(surgery=None):
    """In train mode, values and gradients equal transformers'.

    Every dropout draws its mask from one stream of random numbers. From the same seed, two models agree exactly if
    their dropouts stand at the same places, in the same order, on tensors of the same shape, with the same rates.
    The two rates differ here, so that exchanging them is seen. surgery: a change to our model before the comparison.
    """
    ours, theirs = twins("odd sizes", hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.6)
    ours.train(), theirs.train()
    if surgery:
        surgery(ours)

    def seed(*_):
        torch.manual_seed(0)

    ours.register_forward_pre_hook(seed)
    theirs.register_forward_pre_hook(seed)
    assert_equal(ours, theirs, inputs("odd sizes"))


def test_dropout_stands_at_berts_four_places():
    assert_same_dropout()


def assert_dropout_on_probabilities(attention, p: float = 0.6, T: int = 60):
    """With q = 0 all T probabilities of a row are 1/T. V = [identity | ones] returns them, and beside them their sum.

    After dropout a probability is 0, in a share p of the places, or 1/(T·(1-p)); the last column is still their sum.
    """
    torch.manual_seed(0)
    q, v = torch.zeros(2, 3, T, T + 1), torch.cat([torch.eye(T), torch.ones(T, 1)], dim=1).expand(2, 3, T, T + 1)
    output = attention(q, q, v, torch.zeros(2, 1, 1, T), nn.Dropout(p))
    probabilities, sums = output[..., :T], output[..., T]
    kept = probabilities > 0
    torch.testing.assert_close(probabilities, kept / (T * (1 - p)))
    torch.testing.assert_close(probabilities.sum(dim=-1), sums)
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=0.02)  # of 21,600 places: 6 standard deviations


@pytest.mark.parametrize("attention", ATTENTION)
def test_attention_drops_probabilities(attention):
    """The comparison above cannot test the fused kernel, which draws other random numbers. This test can."""
    assert_dropout_on_probabilities(ATTENTION[attention])


@pytest.mark.parametrize("attention", ATTENTION)
def test_there_is_no_dropout_in_evaluation(attention):
    ours, _ = twins("odd sizes", attention, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.6)
    batch = inputs("odd sizes")
    assert torch.equal(ours(**batch)["last_hidden_state"], ours(**batch)["last_hidden_state"])
    ours.train()
    assert not torch.equal(ours(**batch)["last_hidden_state"], ours(**batch)["last_hidden_state"])
