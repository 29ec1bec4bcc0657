"""Facts that hold for BERT with any weights: which inputs an output depends on, its parts, its limits, its start."""

import math

import pytest
import torch
from torch import Tensor, nn

from minbert.bert import ATTENTION, BertModel
from minbert.config import BertConfig
from tests.model.twins import LENGTHS, inputs, twins


@pytest.fixture(params=ATTENTION)
def model(request) -> BertModel:
    """Our BERT with random weights, in evaluation."""
    return twins("odd sizes", request.param)[0]


def hidden(model: BertModel, batch: dict[str, Tensor], **changes: Tensor) -> Tensor:
    return model(**batch | changes)["last_hidden_state"]


def test_forward_is_embed_then_encode_then_pool(model):
    batch = inputs("odd sizes")
    output = model(**batch)
    states = model.encode(model.embed(batch["input_ids"], batch["token_type_ids"]), batch["attention_mask"])
    assert torch.equal(output["last_hidden_state"], states)
    assert torch.equal(output["pooler_output"], model.pool(states))
    assert states.shape == (4, 13, 36) and output["pooler_output"].shape == (4, 36)


def test_pads_change_no_output_and_every_token_changes_all_of_its_row(model):
    batch = inputs("odd sizes")
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    before, after = hidden(model, batch), hidden(model, batch, input_ids=torch.where(mask, ids, 77))
    torch.testing.assert_close(after[mask], before[mask], rtol=0, atol=1e-6)
    for i in range(len(ids)):  # the number of pads changes nothing either
        alone = {name: tensor[i : i + 1, : LENGTHS["odd sizes"][i]] for name, tensor in batch.items()}
        torch.testing.assert_close(hidden(model, alone)[0], before[i][mask[i]], rtol=0, atol=1e-5)
    # another id at one real token changes the output of every token of its row
    ids = ids.clone()
    ids[2, 1] += 1
    assert ((hidden(model, batch, input_ids=ids) - before)[2].abs().amax(dim=-1)[mask[2]] > 1e-3).all()


def test_without_positions_permuted_tokens_give_permuted_outputs(model):
    """Attention treats tokens as a set. Only the position embeddings carry the order."""
    batch = inputs("many heads")
    order = torch.tensor([2, 0, 1])
    permuted = {name: tensor[:, order] for name, tensor in batch.items()}

    def distance() -> float:
        return (hidden(model, permuted) - hidden(model, batch)[:, order])[permuted["attention_mask"] == 1].abs().max()

    assert distance() > 0.1
    nn.init.zeros_(model.pos_embedding.weight)
    assert distance() < 1e-5


def test_token_types_are_zeros_unless_given(model):
    batch = inputs("odd sizes")
    zeros = hidden(model, batch, token_type_ids=torch.zeros_like(batch["input_ids"]))
    assert torch.equal(model(batch["input_ids"], batch["attention_mask"])["last_hidden_state"], zeros)
    assert not torch.equal(hidden(model, batch), zeros)


def test_more_tokens_than_positions_are_refused(model):
    ones = torch.ones(1, 34, dtype=torch.long)
    with pytest.raises(ValueError, match=r"34 tokens.* 33 positions"):
        model(ones, ones)
    model(ones[:, :33], ones[:, :33])


def test_a_row_of_nothing_but_pads_gives_no_nan_and_leaves_the_other_rows_as_they_are(model):
    batch = inputs("odd sizes")
    expected = hidden(model, batch)
    batch["attention_mask"][1] = 0
    output = hidden(model, batch)
    output.sum().backward()
    assert output.isfinite().all()
    assert all(parameter.grad.isfinite().all() for name, parameter in model.named_parameters() if "pooler" not in name)
    real = batch["attention_mask"] == 1
    torch.testing.assert_close(output[real], expected[real], rtol=0, atol=1e-6)


def test_fresh_weights_are_berts():
    """N(0, σ²) with the config's σ, for linear and embedding weights; zero biases; a zero vector for [PAD]."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=3000, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=500,
        max_position_embeddings=500, type_vocab_size=200, initializer_range=0.05, pad_token_id=3,
    )  # fmt: skip
    model = BertModel(config)
    assert (model.word_embedding.weight[3] == 0).all()
    assert (model.word_embedding.weight[0] != 0).any()
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            assert (parameter == (1 if name.endswith("weight") else 0)).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:  # of n ≥ 64·64 numbers, the sample's std and mean lie within 5 standard errors of σ and 0
            n = parameter.numel()
            assert parameter.std().item() == pytest.approx(0.05, rel=5 / math.sqrt(2 * n) + 1e-3), name
            assert parameter.mean().abs().item() < 5 * 0.05 / math.sqrt(n), name
