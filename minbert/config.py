"""The shape of a BERT: its sizes and its dropout rates.

A pretrained model comes with a `config.json` that names them; `BertConfig.from_json` reads it, and everything
after this file takes its sizes from the object. The defaults are BERT-base (Devlin et al. 2019, section 3):
12 layers of width 768 with 12 attention heads, over 30,522 word pieces.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from minbert.errors import UserError


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
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)!r}, not a whole number of at least 1")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} does not divide into "
                f"{self.num_attention_heads} attention heads (num_attention_heads)"
            )

    @classmethod
    def from_dict(cls, values: dict) -> "BertConfig":
        """Take the sizes out of a parsed `config.json`; other entries are left alone.

        Raises UserError for a model that is not the BERT written here (another architecture, an approximate
        GELU, relative positions): it would load and compute something else.
        """
        required = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
        for key, value in required.items():
            if values.get(key, value) != value:
                raise UserError(f"config.json says {key} = {values[key]!r}; this BERT is {key} = {value!r}")
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: values[name] for name in names if name in values})

    @classmethod
    def from_json(cls, path: str | Path) -> "BertConfig":
        """Read a `config.json`."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls.from_dict(values)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not a BERT config.json ({error})") from error
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def to_dict(self) -> dict:
        """The entries of a `config.json` that `transformers` reads as a BERT."""
        return {"model_type": "bert", "hidden_act": "gelu", **dataclasses.asdict(self)}
