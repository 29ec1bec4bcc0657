"""The sizes of a BERT, under names of their own."""

from dataclasses import dataclass


@dataclass
class BertConfig:
    d_model: int = 768
    n_heads: int = 12
    n_layers: int = 12
    d_ff: int = 3072
    vocab: int = 30522
    max_len: int = 512
    n_segments: int = 2
    dropout: float = 0.1
    ln_eps: float = 1e-12
    pad_id: int = 0

    def __post_init__(self):
        assert self.d_model % self.n_heads == 0, "the heads must divide the width"
