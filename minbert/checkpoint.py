"""A trained model in one file, written whole or not at all, read without running anything in it.

The file is self-contained: the weights, BERT's sizes, how the heads were built, and the vocabulary. It is what
`--predict` answers from, and `--pretrained FILE.pt` takes its BERT as a starting point.
"""

from pathlib import Path

import torch

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.errors import UserError
from minbert.files import atomic, safe_load
from minbert.multitask import MultitaskBert
from minbert.pretrained import load_strictly
from minbert.tokenizer import BertTokenizer


def save_model(path: str | Path, model: MultitaskBert, tokenizer: BertTokenizer, **notes):
    """Write `model` with all that it takes to use it. notes: further plain values to keep (flags, scores)."""
    saved = {
        "model": model.state_dict(),
        "config": model.bert.config.to_dict(),
        "build": model.build,
        "vocab": tokenizer.vocab,
        "lowercase": tokenizer.lowercase,
        "max_length": tokenizer.max_length,
        "notes": notes,
    }
    with atomic(path) as temporary:
        try:
            torch.save(saved, temporary)
        except RuntimeError as error:  # how PyTorch's writer says that the disk is full
            raise UserError(f"{path}: cannot be written ({str(error).splitlines()[0]}); is the disk full?") from error


def load_model(path: str | Path, attention: str = "plain") -> tuple[MultitaskBert, BertTokenizer]:
    """The model and tokenizer of a file that `save_model` wrote; UserError if it is damaged or another's."""
    saved = safe_load(Path(path))
    if not {"model", "config", "build", "vocab", "lowercase", "max_length"} <= saved.keys():
        raise UserError(f"{path}: not a checkpoint of this trainer; --pretrained takes BERT's weights out of others")
    bert = BertModel(BertConfig.from_dict(saved["config"]), attention)
    model = MultitaskBert(bert, **saved["build"])
    load_strictly(model, saved["model"], path)
    return model, BertTokenizer(saved["vocab"], saved["lowercase"], saved["max_length"])
