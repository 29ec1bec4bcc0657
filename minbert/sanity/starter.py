"""What the course promises beside a student's code: its starter's other files, its flags, its batches.

Each thing here does what the course's does, and no more. Code that asks for more gets `CannotCheck`.
"""

import argparse
import re
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from minbert.sanity.evidence import NoAttribute, NoKey
from minbert.sanity.source import is_magic


def extended_mask(attention_mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The starter's `utils.get_extended_attention_mask`: (B, T) of 1 and 0 → (B, 1, 1, T) of 0 and -10000."""
    mask = attention_mask[:, None, None, :] if attention_mask.dim() == 2 else attention_mask[:, None, :, :]
    return (1.0 - mask.to(dtype)) * -10000.0


class BertPreTrainedModel(nn.Module):
    """What a BertModel needs of the starter's base class."""

    def __init__(self, config: Any, *inputs: Any, **options: Any):
        super().__init__()
        self.config = config

    def init_weights(self):
        pass

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


class Settings(SimpleNamespace):
    """A config."""


class Words:
    """Stands for the tokenizer: `w10` is number 10, every other word number 4; 2 is [CLS], 3 [SEP], 0 a pad."""

    pad_token_id, cls_token_id, sep_token_id, unk_token_id, mask_token_id = 0, 2, 3, 4, 5
    pad_token, cls_token, sep_token, unk_token, mask_token = "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"
    vocab_size, model_max_length, padding_side = 20, 512, "right"

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> "Words":
        return cls()

    def __getattr__(self, name: str) -> Any:
        if is_magic(name):
            raise AttributeError(name)
        raise NoAttribute(f"it asks the tokenizer for `{name}`, which the check's stand-in does not have")

    def __len__(self) -> int:
        return self.vocab_size

    def tokenize(self, text: str, **options: Any) -> list[str]:
        return text.split()

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        special = {self.pad_token: 0, self.cls_token: 2, self.sep_token: 3, self.mask_token: 5}
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        return special.get(tokens) or (int(tokens[1:]) if re.fullmatch(r"w\d+", tokens) else 4)

    def __call__(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
        """One text or a list, alone or in pairs, as the starter's tokenizer reads them."""
        one = isinstance(text, str)
        pairs = [text_pair] if one and text_pair is not None else text_pair
        rows = []
        for i, first in enumerate([text] if one else text):
            if pairs is None and isinstance(first, tuple | list) and not options.get("is_split_into_words"):
                first, second = first
            else:
                second = None if pairs is None else pairs[i]
            a, b = [self.convert_tokens_to_ids(t.split()) if t is not None else [] for t in (first, second)]
            rows.append(([2, *a, 3, *b, *([3] if b else [])], [0] * (len(a) + 2) + [1] * (len(b) + 1) * bool(b)))
        longest = max(len(ids) for ids, _ in rows)
        if options.get("padding") == "max_length":
            longest = max(longest, min(options.get("max_length") or 16, 32))
        pad = [0] * longest
        batch = {
            "input_ids": [(ids + pad)[:longest] for ids, _ in rows],
            "token_type_ids": [(types + pad)[:longest] for _, types in rows],
            "attention_mask": [([1] * len(ids) + pad)[:longest] for ids, _ in rows],
        }
        if options.get("return_tensors") == "pt":
            return Encoding({name: torch.tensor(value) for name, value in batch.items()})
        return Encoding({name: value[0] for name, value in batch.items()} if one else batch)

    encode_plus = batch_encode_plus = __call__

    def encode(self, text: str, text_pair: str | None = None, **options: Any) -> Any:
        return self(text, text_pair, **options)["input_ids"]


class Encoding(dict):
    """A tokenizer's answer: a dictionary whose keys are attributes too."""

    of = "the tokenizer's answer"

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if is_magic(name):
            raise AttributeError(name)
        raise NoAttribute(f"it asks {self.of} for `{name}`, which the course does not put there")

    def __missing__(self, key: Any) -> Any:
        raise NoKey(f"it asks {self.of} for {key!r}, which the course does not put there")

    def to(self, device: Any) -> "Encoding":
        return self


class Flags(argparse.Namespace):
    """What a parser of theirs gives without arguments, with what the course's parsers have; no more is promised."""

    def __getattr__(self, name: str) -> Any:
        if is_magic(name):
            raise AttributeError(name)
        raise NoAttribute(
            f"it reads `args.{name}`, for which the check finds no default in your parser",
            f"Give the parser a flag --{name} with a default.",
        )


class Batch(Encoding):
    """A batch as the course's data loaders give it."""

    of = "a batch"


def batch_of(ids: Tensor, mask: Tensor, ids2: Tensor | None = None, mask2: Tensor | None = None) -> Batch:
    """A batch; one of pairs also has them joined, as a data set for a cross-encoder has."""
    batch = Batch(sents=["x"] * len(ids), sent_ids=[str(i) for i in range(len(ids))])
    batch["labels"] = torch.zeros(len(ids), dtype=torch.long)
    rows = [(ids, mask, "")] if ids2 is None else [(ids, mask, "_1"), (ids2, mask2, "_2")]
    for x, m, end in rows:
        batch |= {f"token_ids{end}": x, f"attention_mask{end}": m, f"token_type_ids{end}": torch.zeros_like(x)}
    if ids2 is not None:
        batch |= joined(ids, mask, ids2, mask2)
    return batch


def joined(ids: Tensor, mask: Tensor, ids2: Tensor, mask2: Tensor) -> dict[str, Tensor]:
    """[CLS] a [SEP] b [SEP] in one row, padded at its end; what a mask hides stays hidden."""
    rows = []
    for a, m, b, n in zip(ids, mask, ids2, mask2, strict=True):
        one, two = a != 0, (b != 0) & (torch.arange(len(b)) > 0)
        types = torch.cat([torch.zeros_like(a[one]), torch.ones_like(b[two])])
        rows.append((torch.cat([a[one], b[two]]), torch.cat([m[one], n[two]]), types))
    names = ("token_ids", "attention_mask", "token_type_ids")
    return {name: nn.utils.rnn.pad_sequence([row[i] for row in rows], batch_first=True) for i, name in enumerate(names)}
