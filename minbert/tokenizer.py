"""Text to ids: WordPiece (Wu et al. 2016) with BERT's vocabulary, by the `tokenizers` library.

    "He couldn't."  →  he couldn ' t .  →  ids;   a rare word splits into pieces: minbert → min ##bert

What BERT sees is one of two shapes, with token types that tell a first sentence (0) from a second (1):

    single   [CLS] a [SEP]                 types 0
    pair     [CLS] a [SEP] b [SEP]         types 0 up to the first [SEP], then 1

Splitting into pieces is the slow part and never depends on the batch, so it is done once for each text (`encode`);
putting the pieces together (`single`, `pair`) and padding a batch (`pad`) are cheap and come later.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch import Tensor

from minbert.errors import UserError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Row(NamedTuple):
    """One row of BERT's input: its ids, specials included, and how many of them, from the left, have type 0."""

    ids: list[int]
    first: int


class BertTokenizer:
    """BERT's tokenizer.

    vocab: the word pieces in the order of their ids. lowercase: as the uncased models want it.
    max_length: the longest row, specials included; longer ones are cut and counted in `truncated`.
    """

    def __init__(self, vocab: Sequence[str], lowercase: bool = True, max_length: int = 512):
        index = {piece: i for i, piece in enumerate(vocab)}
        missing = [piece for piece in SPECIAL if piece not in index]
        if missing:
            raise UserError(f"the vocabulary has no {', '.join(missing)}: is it a BERT's vocab.txt?")
        if max_length < 3:
            raise UserError(f"max_length must be at least 3, for [CLS] and two [SEP], not {max_length}")
        self.vocab, self.lowercase, self.max_length = list(vocab), lowercase, max_length
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (index[piece] for piece in SPECIAL)
        self.truncated = 0
        self._pieces = Tokenizer(WordPiece(index, unk_token="[UNK]", max_input_chars_per_word=100))
        self._pieces.normalizer = BertNormalizer(lowercase=lowercase)
        self._pieces.pre_tokenizer = BertPreTokenizer()
        self._pieces.add_special_tokens(list(SPECIAL))  # "[MASK]" inside a text is the mask, not three pieces

    @classmethod
    def from_files(cls, vocab_file: str | Path, max_length: int = 512) -> "BertTokenizer":
        """Read a `vocab.txt` (a piece a line), and its case from the `tokenizer_config.json` beside it."""
        vocab_file = Path(vocab_file)
        try:
            vocab = vocab_file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
            settings_file = vocab_file.with_name("tokenizer_config.json")
            settings = json.loads(settings_file.read_text("utf-8")) if settings_file.exists() else {}
            return cls(vocab, settings.get("do_lower_case", True), max_length)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise UserError(f"{vocab_file}: cannot be read as a vocabulary ({error})") from error
        except UserError as error:
            raise UserError(f"{vocab_file}: {error}") from error

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "BertTokenizer":
        """The tokenizer of a pretrained model (see `pretrained.load_tokenizer`)."""
        from minbert.pretrained import load_tokenizer  # looks ahead, as BertModel.from_pretrained does

        return load_tokenizer(name)

    @property
    def vocab_size(self) -> int:
        return len(self.vocab)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The word pieces of each text, as ids, without [CLS] and [SEP] and not yet cut."""
        return [encoding.ids for encoding in self._pieces.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The pieces behind some ids, separated by spaces, for a person to look at."""
        return " ".join(self.vocab[i] for i in ids)

    def single(self, a: list[int]) -> Row:
        """[CLS] a [SEP], with a cut from the right to fit `max_length`."""
        room = self.max_length - 2
        self.truncated += len(a) > room
        ids = [self.cls_id, *a[:room], self.sep_id]
        return Row(ids, len(ids))

    def pair(self, a: list[int], b: list[int]) -> Row:
        """[CLS] a [SEP] b [SEP]. What is too much is cut from the longer one first, then from both alike."""
        room = self.max_length - 3
        if len(a) + len(b) > room:
            self.truncated += 1
            shorter = min(len(a), len(b), room // 2)
            longer = room - shorter
            keep_a, keep_b = (shorter, longer) if len(a) <= len(b) else (longer, shorter)
            a, b = a[:keep_a], b[:keep_b]
        first = [self.cls_id, *a, self.sep_id]
        return Row([*first, *b, self.sep_id], len(first))

    def pad(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Rows → tensors `input_ids`, `attention_mask`, `token_type_ids`, each (B, T), T the longest row."""
        T = max(len(row.ids) for row in rows)
        ids = [row.ids + [self.pad_id] * (T - len(row.ids)) for row in rows]
        mask = [[1] * len(row.ids) + [0] * (T - len(row.ids)) for row in rows]
        types = [[0] * row.first + [1] * (len(row.ids) - row.first) + [0] * (T - len(row.ids)) for row in rows]
        names = ("input_ids", "attention_mask", "token_type_ids")
        return {name: torch.tensor(values) for name, values in zip(names, (ids, mask, types), strict=True)}

    def __call__(
        self,
        texts: str | Sequence[str],
        pairs: str | Sequence[str] | None = None,
        return_tensors: str = "pt",
        padding: bool = True,
        truncation: bool = True,
    ) -> dict[str, Tensor]:
        """Texts, or pairs of them, → a padded batch; the call that the course's starter makes.

        The last three arguments are the starter's; this tokenizer always returns padded, cut tensors.
        """
        if (return_tensors, padding, truncation) != ("pt", True, True):
            raise ValueError("this tokenizer returns padded, truncated PyTorch tensors and nothing else")
        texts = [texts] if isinstance(texts, str) else list(texts)
        if pairs is None:
            return self.pad([self.single(a) for a in self.encode(texts)])
        pairs = [pairs] if isinstance(pairs, str) else list(pairs)
        if len(pairs) != len(texts):
            raise ValueError(f"{len(texts)} first texts but {len(pairs)} second ones")
        pieces = self.encode(texts + pairs)
        half = len(texts)
        return self.pad([self.pair(a, b) for a, b in zip(pieces[:half], pieces[half:], strict=True)])
