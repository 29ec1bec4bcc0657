"""A trained model in one folder, written whole or not at all, and read without running code from it (`state.py`).

`save_model` writes a folder that is self-contained: the weights, BERT's sizes, the settings of the heads and of BERT's
additions, and the tokenizer. `--predict` answers from it, and `--pretrained` takes its BERT as a starting point.

If BERT's pretrained weights are frozen, the trained ones are few: LoRA's matrices, adapters, heads. `save_trained`
writes these alone, with a fingerprint of the BERT that they belong to; `load_trained` puts them around that BERT
again, and around no other.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from minbert import processes
from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.errors import UserError
from minbert.files import sha256_of
from minbert.multitask import MultitaskBert, part_of
from minbert.pretrained import as_model, saved_tokenizer
from minbert.state import finite, is_state, read_state, write_state
from minbert.strict import check_fit, check_table, load_strictly
from minbert.tokenizer import BertTokenizer


def save_model(path: str | Path, model: MultitaskBert, tokenizer: BertTokenizer, **notes):
    """Write `model` with all that its use requires. notes: further plain values to keep (flags, scores).

    Of several processes the first one writes. Raises UserError, and writes nothing, where a weight is not a finite
    number.
    """
    weights = model.state_dict()
    if name := finite(weights):
        raise UserError(f"{path}: not written: {name} is not a finite number any more; lower --lr, or add --clip 1")
    if processes.rank() == 0:
        write_state(path, {"model": weights, **about_model(model, tokenizer), "notes": notes})


def about_model(model: MultitaskBert, tokenizer: BertTokenizer) -> dict[str, Any]:
    """All that the use of `model` requires besides its weights."""
    return {
        "config": model.bert.config.to_dict(),
        "build": model.build,
        "tokenizer": tokenizer.to_json(),
        "max_length": tokenizer.max_length,
    }


def identity(model: MultitaskBert, tokenizer: BertTokenizer) -> dict[str, str]:
    """The sha256 of how `model` is built, of what trains in it and of its dropout; and that of BERT's weights."""
    build = about_model(model, tokenizer)
    build["trained"] = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    build["dropout"] = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    return {"build": sha256_of(build), "BERT": fingerprint(model.bert)}


def load_model(path: str | Path, attention: str = "plain") -> tuple[MultitaskBert, BertTokenizer]:
    """The model and tokenizer of a folder that `save_model` wrote; UserError if it is damaged or no such folder.

    path: that folder, the folder of a run, whose `best` is taken, or a checkpoint of a run.
    """
    path = Path(path)
    path = path if is_state(path) or not is_state(path / "best") else path / "best"
    if path.is_file():
        raise UserError(f"{path}: a file and not the folder of a model; --pretrained takes BERT's weights out of files")
    saved = as_model(read_state(path))
    saved = _checked(saved, {"model": dict, "config": dict, "build": dict, "max_length": int}, path)
    config = _config(saved["config"], path)
    check_table(saved["model"], path)
    check_fit(lambda: MultitaskBert(BertModel(config), **saved["build"]), saved["model"], path)
    model = MultitaskBert(BertModel(config, attention), **saved["build"])
    load_strictly(model, saved["model"], path)
    tokenizer = saved_tokenizer(saved, path, min(saved["max_length"], config.max_position_embeddings))
    pieces, rows = len(tokenizer.vocab), config.vocab_size
    if pieces > rows:
        raise UserError(f"{path}: its tokenizer has {pieces:,} pieces, but word_embedding.weight has {rows:,} rows")
    return model, tokenizer


def _checked(saved: Any, kinds: Mapping[str, type], path: Path) -> dict:
    """`saved`, if it has entries of these kinds; else UserError."""
    if not isinstance(saved, dict) or any(not isinstance(saved.get(key), kind) for key, kind in kinds.items()):
        raise UserError(f"{path}: holds no {' and no '.join(kinds)}: not what this program writes there")
    return saved


def _config(values: dict, path: Path) -> BertConfig:
    try:
        return BertConfig.from_dict(values)
    except (TypeError, ValueError, UserError) as error:
        raise UserError(f"{path}: its config cannot be used ({error})") from error


def save_trained(path: str | Path, model: MultitaskBert):
    """Write the weights of additions and heads, and the fingerprint of the BERT that they belong to.

    Raises ValueError if BERT's own weights train, since no other BERT has the same then.
    """
    if any(p.requires_grad for name, p in model.named_parameters() if part_of(name) == "BERT"):
        raise ValueError("BERT's own weights train in this model: save_model keeps them, save_trained would not")
    weights = {name: tensor for name, tensor in model.state_dict().items() if part_of(name) != "BERT"}
    if processes.rank() == 0:
        write_state(path, {"trained": weights, "build": model.build, "base": fingerprint(model.bert)})


def load_trained(path: str | Path, bert: BertModel) -> MultitaskBert:
    """Put what `save_trained` wrote around `bert`; UserError if it was trained around another BERT."""
    path = Path(path)
    saved = _checked(read_state(path), {"trained": dict, "build": dict, "base": str}, path)
    base = fingerprint(bert)
    if base != saved["base"]:
        raise UserError(f"{path}: belongs to a BERT with fingerprint {saved['base'][:12]}…, not to this ({base[:12]}…)")
    check_table(saved["trained"], path)
    build, ours = saved["build"], lambda name: part_of(name) != "BERT"
    check_fit(lambda: MultitaskBert(BertModel(bert.config), **build), saved["trained"], path, ours)
    model = MultitaskBert(bert, **build)
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
