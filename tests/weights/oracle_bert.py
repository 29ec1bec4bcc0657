"""A small BERT of transformers' with random weights, for the tests of loading, and what they compare it with."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.errors import UserError
from minbert.tokenizer import SPECIAL

VOCAB = [*SPECIAL, *"abcdefghijkl", "##a", "##b", "hello"]
CONFIG = BertConfig(
    vocab_size=len(VOCAB), hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
    max_position_embeddings=16,
)  # fmt: skip
WORDS = "embeddings.word_embeddings.weight"


def random_bert(config: BertConfig = CONFIG) -> transformers.BertModel:
    """A BERT of transformers', whose every weight is random, biases and LayerNorms too."""
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**config.to_dict())).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def model_folder(folder: Path, config: BertConfig = CONFIG) -> Path:
    """A directory with a config.json and a vocab.txt and still without weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    return folder


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def course_weights(theirs: transformers.BertModel, prefix: str = "bert.") -> dict[str, torch.Tensor]:
    """The state of the course's MultitaskBERT, under the course's names: BERT with its position_ids, and heads."""
    table = (
        ("embeddings.word_embeddings", "word_embedding"), ("embeddings.position_embeddings", "pos_embedding"),
        ("embeddings.token_type_embeddings", "tk_type_embedding"), ("embeddings.LayerNorm", "embed_layer_norm"),
        ("pooler.dense", "pooler_dense"), ("encoder.layer.", "bert_layers."),
        ("attention.self.", "self_attention."), ("attention.output.dense", "attention_dense"),
        ("attention.output.LayerNorm", "attention_layer_norm"), ("intermediate.dense", "interm_dense"),
        ("output.dense", "out_dense"), ("output.LayerNorm", "out_layer_norm"),
    )  # fmt: skip
    result = {f"{prefix}position_ids": torch.arange(theirs.config.max_position_embeddings)[None]}
    for name, tensor in weights_of(theirs).items():
        for old, new in table:
            name = name.replace(old, new)
        result[f"{prefix}{name}"] = tensor
    heads = prefix.removesuffix("bert.")
    width = theirs.config.hidden_size
    return result | {f"{heads}sentiment.weight": torch.ones(5, width), f"{heads}sentiment.bias": torch.ones(5)}


def put(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    save_file(weights, folder / "model.safetensors")
    return folder


def assert_same_outputs(ours: BertModel, theirs: transformers.BertModel, tolerance: float = 1e-5):
    """Both say the same of two padded pairs of sentences."""
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(5, ours.config.vocab_size, (2, 9), generator=random)
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    types = torch.tensor([[0] * 4 + [1] * 5] * 2)
    with torch.no_grad():
        one, other = ours(ids, mask, types), theirs(ids, mask, types)
    for name in ("last_hidden_state", "pooler_output"):
        a, b = one[name], other[name]
        if name == "last_hidden_state":
            a, b = a[mask == 1], b[mask == 1]
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def refusal(action) -> str:
    """The message with which an action is refused: one line."""
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)
