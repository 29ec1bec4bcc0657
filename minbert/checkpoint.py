"""A trained model in one file, written whole or not at all, read without running anything in it.

`save_model` writes a file that is self-contained: the weights, BERT's sizes, how the heads and what was added to BERT
were built, and the vocabulary. It is what `--predict` answers from, and `--pretrained FILE.pt` takes its BERT as a
starting point.

Where BERT's pretrained weights stayed frozen, all that a run made is small: LoRA's additions, adapters, heads.
`save_trained` writes these alone, with a fingerprint of the BERT that they belong to; `load_trained` puts them around
that BERT again, and around no other.
"""

import hashlib
from pathlib import Path

import torch

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.errors import UserError
from minbert.files import atomic_save, safe_load
from minbert.multitask import MultitaskBert, part_of
from minbert.pretrained import load_strictly, saved_tokenizer
from minbert.tokenizer import BertTokenizer


def save_model(path: str | Path, model: MultitaskBert, tokenizer: BertTokenizer, **notes):
    """Write `model` with all that it takes to use it. notes: further plain values to keep (flags, scores)."""
    saved = {
        "model": model.state_dict(),
        "config": model.bert.config.to_dict(),
        "build": model.build,
        "vocab": tokenizer.vocab,
        "lowercase": tokenizer.lowercase,
        "tokenizer": tokenizer.to_json(),
        "max_length": tokenizer.max_length,
        "notes": notes,
    }
    atomic_save(path, saved)


def load_model(path: str | Path, attention: str = "plain") -> tuple[MultitaskBert, BertTokenizer]:
    """The model and tokenizer of a file that `save_model` wrote; UserError if it is damaged or another's."""
    path = Path(path)
    saved = safe_load(path)
    if not {"model", "config", "build", "vocab", "lowercase", "max_length"} <= saved.keys():
        raise UserError(f"{path}: not a checkpoint of this trainer; --pretrained takes BERT's weights out of others")
    try:
        bert = BertModel(BertConfig.from_dict(saved["config"]), attention)
        model = MultitaskBert(bert, **saved["build"])
    except (AttributeError, KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"{path}: cannot be built again ({error}); is it of another version?") from error
    load_strictly(model, saved["model"], path)
    return model, saved_tokenizer(saved, path, saved["max_length"])


def save_trained(path: str | Path, model: MultitaskBert):
    """Write what is not BERT's own: additions, adapters, heads, and which BERT they belong to.

    Raises ValueError where BERT's own weights train, for then they are not those of any other BERT.
    """
    if any(p.requires_grad for name, p in model.named_parameters() if part_of(name) == "BERT"):
        raise ValueError("BERT's own weights train in this model: save_model keeps them, save_trained would not")
    weights = {name: tensor for name, tensor in model.state_dict().items() if part_of(name) != "BERT"}
    atomic_save(path, {"trained": weights, "build": model.build, "base": fingerprint(model.bert)})


def load_trained(path: str | Path, bert: BertModel) -> MultitaskBert:
    """Put what `save_trained` wrote around `bert`; UserError where that is not the BERT that it was trained on."""
    saved = safe_load(Path(path))
    kinds = {"trained": dict, "build": dict, "base": str}
    if any(not isinstance(saved.get(key), kind) for key, kind in kinds.items()):
        raise UserError(f"{path}: holds no LoRA additions, adapters and heads by themselves")
    base = fingerprint(bert)
    if base != saved["base"]:
        raise UserError(f"{path}: belongs to a BERT with fingerprint {saved['base'][:12]}…, not to this ({base[:12]}…)")
    try:
        model = MultitaskBert(bert, **saved["build"])
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be put around this BERT ({error})") from error
    model.freeze_bert()
    own = {name: tensor for name, tensor in model.state_dict().items() if part_of(name) == "BERT"}
    load_strictly(model, saved["trained"] | own, path)
    return model


def fingerprint(bert: BertModel) -> str:
    """sha256 of BERT's own weights and sizes; what was added to it does not count, nor does dropout."""
    sizes = {name: value for name, value in bert.config.to_dict().items() if "dropout" not in name}
    digest = hashlib.sha256(repr(sorted(sizes.items())).encode())
    for name, tensor in bert.state_dict().items():
        if part_of(f"bert.{name}") == "BERT":
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()
