"""The shape of a BERT: its sizes and its dropout rates.

A pretrained model comes with a `config.json` that names them; `BertConfig.from_json` reads it, and everything
after this file takes its sizes from the object. The defaults are BERT-base (Devlin et al. 2019, section 3):
12 layers of width 768 with 12 attention heads, over 30,522 word pieces.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from minbert.errors import UserError
from minbert.files import read_json

LAYERS = 1000  # the most that a BERT may have; the largest published one has 48
CONFIG_FILES = ("config.json", "bert_config.json")  # the second is Google's name for the same


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT, under the names of Hugging Face's `config.json`. Symbols as used in `bert.py`."""

    vocab_size: int = 30522  # V
    hidden_size: int = 768  # C, the width of a token's vector
    num_hidden_layers: int = 12  # L
    num_attention_heads: int = 12  # H, each of width D = C / H
    intermediate_size: int = 3072  # width of the feed-forward layer
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512  # the longest sentence, in tokens
    type_vocab_size: int = 2
    initializer_range: float = 0.02  # standard deviation of fresh weights
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0

    def __post_init__(self):
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                     "max_position_embeddings", "type_vocab_size"):  # fmt: skip
            value = getattr(self, name)
            most = LAYERS if name == "num_hidden_layers" else 2**31 - 1
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise UserError(f"{name} is {_short(value)}, not a whole number from 1 to {most}")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} does not divide into "
                f"{self.num_attention_heads} attention heads (num_attention_heads)"
            )
        for name, high in (("hidden_dropout_prob", 1), ("attention_probs_dropout_prob", 1),
                           ("initializer_range", math.inf), ("layer_norm_eps", math.inf)):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < min(high, 1e30):
                scale = "from 0 to less than 1" if high == 1 else "of at least 0"
                raise UserError(f"{name} is {_short(value)}, not a number {scale}")
        pad = self.pad_token_id
        if pad is not None and (not isinstance(pad, int) or not 0 <= pad < self.vocab_size):
            raise UserError(f"pad_token_id is {_short(pad)}, not an id below vocab_size {self.vocab_size}")

    @classmethod
    def from_dict(cls, values: dict) -> "BertConfig":
        """Take the sizes out of a parsed `config.json`; other entries are ignored.

        Raises UserError for an impossible size, and for a model that is not the BERT written here (another
        architecture, an approximate GELU, relative positions, a decoder), since its outputs would be wrong.
        """
        required = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute",
                    "is_decoder": False, "add_cross_attention": False}  # fmt: skip
        for key, ours in required.items():
            theirs = values.get(key, ours)
            if not isinstance(theirs, type(ours)) or theirs != ours:
                raise UserError(f"config.json says {key} = {_short(theirs)}; this BERT is {key} = {ours!r}")
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: values[name] for name in names if name in values})

    @classmethod
    def from_json(cls, path: str | Path) -> "BertConfig":
        """Read a `config.json`, or Google's `bert_config.json`. UserError where it is not this BERT's."""
        values = read_json(Path(path))
        try:
            config = cls.from_dict(values)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        if "hidden_size" not in values:  # else any JSON would pass for BERT-base
            raise UserError(f"{path}: not a BERT's config.json (it has no hidden_size)")
        return config

    def to_dict(self) -> dict:
        """The entries of a `config.json` that `transformers` reads as a BERT."""
        return {"model_type": "bert", "hidden_act": "gelu", **dataclasses.asdict(self)}


def _short(value: object) -> str:
    """The first 40 letters of a value, for a message."""
    try:
        return repr(value).partition("\n")[0][:40]
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"


def config_file(folder: Path) -> Path:
    """The path of `bert_config.json` where a model's directory has only that, else of `config.json`, there or not."""
    return next((folder / name for name in CONFIG_FILES if (folder / name).exists()), folder / CONFIG_FILES[0])
