"""Two BERTs with the same random weights, ours and `transformers.BertModel`, and how they are compared."""

import torch
import transformers
from torch import Tensor, nn

from minbert import pretrained
from minbert.bert import BertModel
from minbert.config import BertConfig

CONFIGS = {
    "one head": dict(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=1, intermediate_size=40,
        max_position_embeddings=12,
    ),
    "odd sizes": dict(
        vocab_size=101, hidden_size=36, num_hidden_layers=3, num_attention_heads=3, intermediate_size=50,
        max_position_embeddings=33, type_vocab_size=3, layer_norm_eps=1e-2,
    ),
    "many heads": dict(
        vocab_size=64, hidden_size=64, num_hidden_layers=1, num_attention_heads=16, intermediate_size=256,
        max_position_embeddings=64,
    ),
}  # fmt: skip

LENGTHS = {"one head": [12, 12], "odd sizes": [7, 1, 5, 13], "many heads": [3, 2]}  # of a batch's rows, before pads


def twins(name: str, attention: str = "plain", **changes) -> tuple[BertModel, transformers.BertModel]:
    """Our BERT and transformers' with the same random weights. None is zero or one, so each one changes the result."""
    sizes = CONFIGS[name] | changes
    torch.manual_seed(0)
    theirs = transformers.BertModel(transformers.BertConfig(**sizes, attn_implementation="eager"))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    ours = BertModel(BertConfig(**sizes), attention)
    ours.load_state_dict(pretrained.bert_weights(theirs.state_dict()))
    return ours.eval(), theirs.eval()


def inputs(name: str) -> dict[str, Tensor]:
    """A batch of random ids and random token types, padded to its longest row."""
    random = torch.Generator().manual_seed(1)
    sizes, lengths = CONFIGS[name], torch.tensor(LENGTHS[name])
    shape = (len(lengths), int(lengths.max()))
    mask = (torch.arange(shape[1]) < lengths[:, None]).long()
    ids = torch.randint(1, sizes["vocab_size"], shape, generator=random)
    types = torch.randint(0, sizes.get("type_vocab_size", 2), shape, generator=random)
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types * mask}


def outputs_and_gradients(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Hidden states of the real tokens (N, C), pooled (B, C), gradients of a random weighting of both, our names."""
    output = model(**batch)
    hidden, pooled = output["last_hidden_state"][batch["attention_mask"] == 1], output["pooler_output"]
    random = torch.Generator().manual_seed(2)
    weight_hidden, weight_pooled = (torch.randn(x.shape, generator=random) for x in (hidden, pooled))
    model.zero_grad()
    ((hidden * weight_hidden).sum() + (pooled * weight_pooled).sum()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    if isinstance(model, transformers.BertModel):
        gradients = pretrained.bert_weights(gradients)
    return hidden.detach(), pooled.detach(), gradients


def assert_equal(ours: BertModel, theirs: transformers.BertModel, batch: dict[str, Tensor]):
    """Values to 1e-5, every parameter's gradient to 1e-4 of its norm.

    Only real tokens count. No token attends to a pad, and the two libraries may round differently there.

    The keys' bias has a gradient of exactly zero: it adds q·b to all scores of a row, and the softmax does not change.
    The gradient that is computed is rounding error, so its tolerance is taken from the queries' bias.
    """
    (hidden, pooled, gradients), expected = outputs_and_gradients(ours, batch), outputs_and_gradients(theirs, batch)
    torch.testing.assert_close(hidden, expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(pooled, expected[1], rtol=0, atol=1e-5)
    assert gradients.keys() == expected[2].keys()
    for name, gradient in gradients.items():
        scale = expected[2][name.replace("key.bias", "query.bias")].norm()
        assert (gradient - expected[2][name]).norm() <= 1e-4 * scale, name
