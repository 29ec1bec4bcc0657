"""Other people's checkpoints: where BERT is in them, and the one size that its weights do not show.

A file of weights can have been saved by the course's trainer, by Lightning, by a class that holds BERT under a name of
its own, from inside DataParallel or torch.compile. So three things are looked for, and where there is more than one
answer the file is refused:

    the table     among nested dicts, the one that has a word embedding in it
    BERT in it    all that has the same prefix as the word embedding: `bert.`, `model.bert.`, `module.net.bert.`
    its config    sizes are the weights' shapes; only the number of attention heads shows nowhere in them
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minbert.config import BertConfig, config_file
from minbert.errors import UserError
from minbert.files import read_json
from minbert.strict import check_table

WORDS = re.compile(r"((?:.+\.)?)(?:embeddings\.word_embeddings(?:\.weight)?|word_embedding\.weight)")  # theirs, ours
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # DataParallel, compile, …
TABLES = ("model", "model_state_dict", "state_dict")  # the usual names of a table of weights
PUBLISHED = {30522: "bert-base-uncased", 28996: "bert-base-cased"}  # rows of the word embedding → whose vocabulary


def plain_name(name: str) -> str:
    """A weight's name without the parts of wrappers, and with dots where TensorFlow has slashes."""
    return ".".join(part for part in re.split(r"[./]", name) if part not in WRAPPERS)


# ---------------------------------------------------------------------------------------------- the table


def find_table(saved: Mapping, path: Path) -> dict[str, Tensor]:
    """The table of weights in a checkpoint's content; UserError if there is none, or more than one."""
    tables = dict(tables_in(saved))
    chosen = [name for name in TABLES if name in tables] or list(tables)
    if not chosen:
        names = ", ".join(map(str, list(saved)[:5])) or "nothing"
        raise UserError(f"{path}: word_embedding.weight is missing: there is no BERT among {names}")
    if len(chosen) > 1:
        raise UserError(f"{path}: holds several tables of weights ({', '.join(chosen)}); save the one that is meant")
    return tables[chosen[0]]


def tables_in(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, dict]]:
    """Each nested dict with a word embedding, after the keys that lead to it: ("state.model", dict)."""
    if not isinstance(value, Mapping) or depth > 3:
        return
    if any(isinstance(key, str) and WORDS.fullmatch(plain_name(key)) for key in value):
        yield name, dict(value)
        return
    for key, inner in value.items():
        yield from tables_in(inner, f"{name}.{key}".lstrip("."), depth + 1)


# ---------------------------------------------------------------------------------------------- BERT in it


def bert_part(weights: Mapping[str, Any], source: str | Path) -> dict[str, Tensor]:
    """BERT's own entries of a table, without the prefix that they have there; heads and all else are left out.

    Without a prefix everything is taken for BERT's, except for what `transformers` is known to add.
    """
    wrong = next((name for name in weights if not isinstance(name, str)), None)
    if wrong is not None:
        raise UserError(f"{source}: {str(wrong)[:40]!r} is not a text, so it cannot be the name of a weight")
    plain = {plain_name(name): value for name, value in weights.items()}
    if len(plain) < len(weights):
        raise UserError(f"{source}: some weights are there twice, with {' or '.join(WRAPPERS[:2])} in their names and "
                        "without; save one of the two")  # fmt: skip
    prefixes = list(dict.fromkeys(match[1] for name in plain if (match := WORDS.fullmatch(name))))
    if not prefixes:
        prefixes = ["bert." if any(name.startswith("bert.") for name in plain) else ""]
    parts = [{n[len(p) :]: tensor for n, tensor in plain.items() if n.startswith(p)} for p in prefixes]
    if any(not same(part, parts[0]) for part in parts[1:]):
        raise UserError(f"{source}: holds {len(parts)} BERTs, under {', '.join(prefixes)}; save the one that is meant")
    known = re.compile(r"cls\..*|(.*\.)?(position_ids|token_type_ids)")  # pre-training heads; buffers: 0, 1, 2, …
    result = {name: value for name, value in parts[0].items() if not known.fullmatch(name)}
    check_table(result, source)
    return result


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether both hold the same: a module that is used in two places is saved twice."""
    pairs = [(tensor, other.get(name)) for name, tensor in one.items()]
    tensors = all(isinstance(tensor, Tensor) and isinstance(twin, Tensor) for tensor, twin in pairs)
    return tensors and one.keys() == other.keys() and all(torch.equal(tensor, twin) for tensor, twin in pairs)


# ---------------------------------------------------------------------------------------------- its config


def checkpoint_config(saved: Mapping, weights: Mapping[str, Tensor], path: Path, heads: int | None) -> BertConfig:
    """The config of a BERT that is in a file by itself. weights: BERT's, under our names. heads: their number, or None.

    The number of heads is what the file says, else what a config.json beside it says, else that of the published BERTs
    if the vocabulary has their size (which is then said on stderr); otherwise UserError.
    """
    vocab_size, hidden_size = matrix_shape(weights, "word_embedding.weight", path)
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": len({name.split(".")[1] for name in weights if name.startswith("bert_layers.")}),
        "intermediate_size": matrix_shape(weights, "bert_layers.0.interm_dense.weight", path)[0],
        "max_position_embeddings": matrix_shape(weights, "pos_embedding.weight", path)[0],
        "type_vocab_size": matrix_shape(weights, "tk_type_embedding.weight", path)[0],
    }
    source, values = path, config_in(saved)
    if heads is None and not values:
        source = config_file(path.parent)
        values = read_json(source)
    for key in BertConfig.__dataclass_fields__:
        if not isinstance(values.get(key), int | float | None):
            raise UserError(f"{source}: says {key} = {str(values[key])[:40]!r}, which is no number")
    heads = heads or values.get("num_attention_heads")
    if heads is None:
        heads = 12 if hidden_size == 384 else hidden_size // 64  # MiniLM's heads are 32 wide
        if vocab_size not in PUBLISHED or hidden_size % 64:
            raise UserError(
                f"{path}: does not say how many attention heads its BERT has; put a config.json beside it, with at "
                'least {"num_attention_heads": N} (from Python: load_bert(path, num_attention_heads=N))'
            )
        print(f"{path}: does not say how many attention heads its BERT has; it is taken for a published one, with "
              f"{heads} (a config.json beside it can say otherwise)", file=sys.stderr)  # fmt: skip
    for name in ("hidden_size", "num_hidden_layers", "intermediate_size"):
        if values.get(name, sizes[name]) != sizes[name]:
            raise UserError(
                f"{source}: says {name} = {values[name]}, but the weights of {path.name} have {sizes[name]}"
            )
    try:
        return BertConfig.from_dict({**values, **sizes, "num_attention_heads": heads})
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def matrix_shape(weights: Mapping[str, Tensor], name: str, path: Path) -> tuple[int, int]:
    """The two sizes of a matrix; UserError where it is missing or no matrix."""
    if name not in weights:
        raise UserError(f"{path}: {name} is missing")
    shape = tuple(weights[name].shape)
    if len(shape) != 2:
        raise UserError(f"{path}: {name} has shape {shape}, and not that of a matrix")
    return shape


def config_in(value: Any, depth: int = 0) -> dict:
    """The dict or namespace inside a checkpoint that says num_attention_heads; {} where there is none."""
    if isinstance(value, Mapping) or (hasattr(value, "__dict__") and not isinstance(value, Tensor)):
        entries = dict(value) if isinstance(value, Mapping) else vars(value)
        if "num_attention_heads" in entries:
            return entries
        if depth < 3:
            return next(filter(None, (config_in(inner, depth + 1) for inner in entries.values())), {})
    return {}
