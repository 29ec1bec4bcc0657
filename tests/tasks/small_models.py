"""A small BERT with the three tasks' heads, its tokenizer, and four examples of each task."""

import pytest
import torch
from torch import nn

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.data import Batch, Dataset, Example
from minbert.heads import PAIR_HEADS
from minbert.multitask import MultitaskBert
from minbert.tasks import (
    TASKS,
)
from minbert.tokenizer import SPECIAL, BertTokenizer

WORDS = [f"w{i}" for i in range(30)]
TOKENIZER = BertTokenizer([*SPECIAL, *WORDS])

CONFIG = BertConfig(
    vocab_size=len(TOKENIZER.vocab), hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
    max_position_embeddings=32, initializer_range=0.3,
)  # fmt: skip

PAIRS = [("w1 w2 w3 w4 w5", "w6"), ("w7", "w8 w9 w10"), ("w11 w12", "w11 w12"), ("w13 w14 w15", "w16 w17 w18 w19")]
LABELS = {"sst": (0.0, 4.0, 2.0, 1.0), "para": (0.0, 1.0, 1.0, 0.0), "sts": (0.2, 2.6, 5.0, 3.0)}

WAYS = {  # every way from a pair to an output: the task, and how the model is built
    **{f"sts {head}": ("sts", {"pairs": "separate", "heads": {"sts": head}}) for head in PAIR_HEADS["number"]},
    **{f"para {head}": ("para", {"pairs": "separate", "heads": {"para": head}}) for head in PAIR_HEADS["yes_no"]},
    "joint": ("sts", {"pairs": "joint"}),
}

every_way = pytest.mark.parametrize(("task", "way"), WAYS.values(), ids=WAYS)


def build(**options) -> MultitaskBert:
    """A model with random weights, in eval mode."""
    torch.manual_seed(0)
    return MultitaskBert(BertModel(CONFIG), ["sst", "para", "sts"], **options).eval()


def batch_of(task: str, pairs: str = "separate", indices: tuple[int, ...] = (0, 1, 2, 3)) -> Batch:
    texts = PAIRS if TASKS[task].is_pair else [first for first, _ in PAIRS]
    examples = [
        Example(str(i), text if isinstance(text, tuple) else (text,), label)
        for i, (text, label) in enumerate(zip(texts, LABELS[task], strict=True))
    ]
    return Dataset(TASKS[task], examples, TOKENIZER, pairs).batch(list(indices))


def pooled(model: MultitaskBert, texts: tuple[str, ...]) -> torch.Tensor:
    """BERT's pooler output for a text alone, or for a pair as one row, (1, C)."""
    rows = TOKENIZER(*texts, return_tensors="pt")
    return model.bert(rows["input_ids"], rows["attention_mask"], rows["token_type_ids"])["pooler_output"]


def rates(module: nn.Module) -> set[float]:
    """All dropout rates in a module."""
    return {part.p for part in module.modules() if isinstance(part, nn.Dropout)}
