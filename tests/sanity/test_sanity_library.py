"""The right BERT that the sanity check puts below a part of theirs is right: it gives what ours gives."""

import pytest
import torch

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.sanity import core, library

CONFIG = BertConfig(
    vocab_size=11, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
    max_position_embeddings=6, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.5,
)  # fmt: skip
IDS, MASK = torch.tensor([[2, 5, 7, 5, 3], [2, 9, 3, 0, 0]]), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
TYPES = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])


@pytest.mark.parametrize("training", [False, True])
def test_the_library_s_bert_gives_the_numbers_and_the_gradients_of_ours(training):
    ours, theirs = (core.fill(module(CONFIG)).train(training) for module in (BertModel, library.BertModel))
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    with core.visible_dropout():
        outputs = [model(IDS, MASK, TYPES) for model in (ours, theirs)]
    for name in ("last_hidden_state", "pooler_output"):
        a, b = (output[name] for output in outputs)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for output in outputs:
        (output["last_hidden_state"][MASK.bool()].cos().sum() + output["pooler_output"].cos().sum()).backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if name != "word_embedding.weight":  # ours leaves the pad's row alone
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_without_the_mask_the_numbers_differ():
    ours, theirs = (core.fill(module(CONFIG)).eval() for module in (BertModel, library.BertModel))
    hidden = [model(IDS, mask)["last_hidden_state"] for model, mask in ((ours, MASK), (theirs, torch.ones_like(MASK)))]
    assert (hidden[0] - hidden[1])[1, :3].abs().max() > 1e-2
