"""Text to ids: WordPiece (Wu et al. 2016) with BERT's vocabulary, by the `tokenizers` library.

    "He couldn't."  →  he couldn ' t .  →  ids;   a rare word splits into pieces: minbert → min ##bert

BERT's input has one of two forms, with token types that tell a first sentence (0) from a second (1):

    single   [CLS] a [SEP]                 types 0
    pair     [CLS] a [SEP] b [SEP]         types 0 up to the first [SEP], then 1

Why pieces? 30,522 of them spell nearly every word, so that the model sees at least the parts of a rare one. A word that
they cannot spell is [UNK]. A model works only with the vocabulary and case of its training: with others every id means
a different word, and nothing but low scores would show it.

Splitting into pieces is the slow part and never depends on the batch, so it is done once for each text (`encode`);
putting the pieces together (`single`, `pair`) and padding a batch (`pad`) are cheap and come later. That is what
training uses. Programs written for `transformers` call the tokenizer itself, `tokenize`, `decode` and the other
methods of the second half: the arguments that these accept have the same meaning there.

One letter differs from the fast tokenizer of `transformers`, which lower-cases letter by letter: here a Greek capital
sigma at the end of a word becomes ς, not σ ("ΟΔΟΣ" → "οδος"), as in Google's tokenizer, with which BERT was trained,
and in the Python one of `transformers` (`BertTokenizerLegacy`).
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from minbert.errors import UserError
from minbert.vocabulary import SPECIAL, build, complete, lowers, read_tokenizer, write_tokenizer

CHUNK = 10_000  # texts that are tokenised at a time, since the library's own record of a text takes kilobytes
PADDING = {False: None, "do_not_pad": None, True: "longest", "longest": "longest", "max_length": "max_length"}
TRUNCATION = {False: None, None: None, "do_not_truncate": None, True: "longest_first", "longest_first": "longest_first",
              "only_first": "only_first", "only_second": "only_second"}  # fmt: skip


class Row(NamedTuple):
    """One row of BERT's input: its ids, specials included, and how many of them, from the left, have type 0."""

    ids: list[int]
    first: int


class BatchEncoding(dict):
    """`input_ids`, `token_type_ids` and `attention_mask`, also as attributes: what a call of the tokenizer returns."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def to(self, device: str | torch.device) -> "BatchEncoding":
        """The same tensors on another device."""
        return BatchEncoding({name: values.to(device) for name, values in self.items()})


class BertTokenizer:
    """BERT's tokenizer.

    vocab: the word pieces in the order of their ids, or a tokenizer of the `tokenizers` library with them.
    lowercase: True for an uncased model; a whole tokenizer has this setting inside.
    max_length: of a row in tokens, specials included; longer ones are cut and counted in `truncated`.
    """

    pad_token, unk_token, cls_token, sep_token, mask_token = SPECIAL

    def __init__(self, vocab: Sequence[str] | Tokenizer, lowercase: bool = True, max_length: int = 512):
        if max_length < 3:
            raise UserError(f"max_length must be at least 3, for [CLS] and two [SEP], not {max_length}")
        self._pieces = complete(vocab) if isinstance(vocab, Tokenizer) else build(vocab, lowercase)
        pieces = {i: piece for piece, i in self._pieces.get_vocab().items()}
        self.vocab = [pieces.get(i, "") for i in range(max(pieces) + 1)]
        self.lowercase = lowers(self._pieces)
        self.max_length = max_length
        ids = [self._pieces.token_to_id(piece) for piece in SPECIAL]
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = ids
        self.pad_token_id, self.unk_token_id, self.cls_token_id, self.sep_token_id, self.mask_token_id = ids
        self.truncated = 0

    @classmethod
    def from_files(cls, path: str | Path, max_length: int = 512) -> "BertTokenizer":
        """Read a model's directory, or its `vocab.txt` with the settings beside it (see `vocabulary.py`)."""
        return cls(read_tokenizer(Path(path))[0], max_length=max_length)

    def to_json(self) -> str:
        """The whole tokenizer except `max_length`, in the format of a tokenizer.json."""
        return self._pieces.to_str()

    @classmethod
    def from_pretrained(cls, name: str | Path, local_files_only: bool = False,
                        do_lower_case: bool | None = None) -> "BertTokenizer":  # fmt: skip
        """The tokenizer of a pretrained model (see `pretrained.load_tokenizer`)."""
        from minbert.pretrained import load_tokenizer  # imported here, as in BertModel.from_pretrained

        return load_tokenizer(name, local_files_only, do_lower_case)

    def save_pretrained(self, folder: str | Path):
        """Write vocab.txt and tokenizer_config.json, as `transformers` reads them."""
        write_tokenizer(self._pieces, Path(folder), self.max_length)

    # ------------------------------------------------------------------------------------------ what training uses

    def encode(self, text: str | Sequence[str], text_pair: str | None = None, **options) -> list:
        """Several texts → the word pieces of each, as ids, without [CLS] and [SEP] and not yet cut.

        A single text → its ids with [CLS] and [SEP], as in `transformers`; options: those of `__call__`.
        """
        if isinstance(text, str):
            return self(text, text_pair, **options)["input_ids"]
        if text_pair is not None or options:
            raise TypeError("encode of several texts takes nothing else; for pairs and options call the tokenizer")
        rows, texts = [], [self._clean(one) for one in text]
        for start in range(0, len(texts), CHUNK):
            encodings = self._pieces.encode_batch(texts[start : start + CHUNK], add_special_tokens=False)
            rows += [encoding.ids for encoding in encodings]
        return rows

    def _clean(self, text: str) -> str:
        """`text` with small sigmas for capital ones, where the library would lower-case each letter by itself."""
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is not a text (str)")
        if not self.lowercase or "Σ" not in text:
            return text
        small = text.lower()  # Python knows where a word ends
        places = accumulate((len(letter.lower()) for letter in text), initial=0)  # "İ" becomes two letters
        return "".join(small[i] if letter == "Σ" else letter for letter, i in zip(text, places, strict=False))

    def single(self, a: list[int]) -> Row:
        """[CLS] a [SEP], with a cut from the right to fit `max_length`."""
        room = self.max_length - 2
        self.truncated += len(a) > room
        ids = [self.cls_id, *a[:room], self.sep_id]
        return Row(ids, len(ids))

    def pair(self, a: list[int], b: list[int]) -> Row:
        """[CLS] a [SEP] b [SEP]. To fit `max_length`, the longer one is cut first, then both equally."""
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
        """Rows → tensors `input_ids`, `attention_mask`, `token_type_ids`, each (B, T), T the longest row.

        The mask says what is a token (1) and what is a pad (0). The ids alone do not: [PAD] is a piece like any other.
        """
        T = max(len(row.ids) for row in rows)
        ids = [row.ids + [self.pad_id] * (T - len(row.ids)) for row in rows]
        mask = [[1] * len(row.ids) + [0] * (T - len(row.ids)) for row in rows]
        types = [[0] * row.first + [1] * (len(row.ids) - row.first) + [0] * (T - len(row.ids)) for row in rows]
        names = ("input_ids", "attention_mask", "token_type_ids")
        return {name: torch.tensor(values) for name, values in zip(names, (ids, mask, types), strict=True)}

    # ------------------------------------------------------------------------------------------ as in transformers

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[tuple[str, str]],
        text_pair: str | Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
    ) -> BatchEncoding:
        """Turn a text, a pair, or a batch of either into lists of ids, token types and mask, or into tensors of B×T.

        padding: True (to the longest), "max_length" or False. truncation: True ("longest_first"), "only_first",
        "only_second" or False. max_length: replaces the model's. return_tensors: None or "pt". Others: ValueError.
        """
        if padding not in PADDING or truncation not in TRUNCATION or return_tensors not in (None, "pt"):
            raise ValueError(f"padding is {padding!r}, truncation {truncation!r}, return_tensors {return_tensors!r}; "
                             f"they can be {list(PADDING)}, {list(TRUNCATION)}, [None, 'pt']")  # fmt: skip
        if truncation is None and max_length is not None and padding is False:  # as in transformers
            truncation = True
        if max_length is not None and not TRUNCATION[truncation] and padding != "max_length":
            warnings.warn("max_length does nothing here without truncation=True", stacklevel=2)
        rows = self._rows(text, text_pair)
        limit = self.max_length if max_length is None else max_length
        try:
            if TRUNCATION[truncation]:
                special = self._pieces.num_special_tokens_to_add(isinstance(rows[0], tuple)) * add_special_tokens
                if limit < max(1, special):
                    raise ValueError(f"max_length {limit} leaves no room for the {special} special tokens")
                self._pieces.enable_truncation(limit, strategy=TRUNCATION[truncation])
            if PADDING[padding]:
                length = limit if padding == "max_length" else None
                self._pieces.enable_padding(pad_id=self.pad_id, pad_token="[PAD]", length=length)
            encodings = self._pieces.encode_batch(rows, add_special_tokens=add_special_tokens)
        except Exception as error:  # such as "only_first" with too short a text; the library has no exact type
            raise ValueError(str(error)) from error
        finally:
            self._pieces.no_truncation()
            self._pieces.no_padding()
        self.truncated += sum(bool(encoding.overflowing) for encoding in encodings)
        columns = {"input_ids": [encoding.ids for encoding in encodings]}
        if return_token_type_ids is not False:
            columns["token_type_ids"] = [encoding.type_ids for encoding in encodings]
        if return_attention_mask is not False:
            columns["attention_mask"] = [encoding.attention_mask for encoding in encodings]
        if return_tensors is None:
            return BatchEncoding(columns if not isinstance(text, str) else {name: x[0] for name, x in columns.items()})
        if len({len(ids) for ids in columns["input_ids"]}) > 1:
            raise ValueError("the rows differ in length, so they make no tensor; add padding=True")
        return BatchEncoding({name: torch.tensor(values) for name, values in columns.items()})

    encode_plus = batch_encode_plus = __call__  # its names up to transformers 4

    def _rows(self, text: str | Sequence, text_pair: str | Sequence[str] | None) -> list[str | tuple[str, str]]:
        """One text or pair for each row of the result."""
        if isinstance(text, str):
            if not isinstance(text_pair, str | None):
                raise TypeError("one text, but several second ones")
            text, text_pair = [text], [text_pair] if text_pair else None  # transformers ignores an empty one as well
        if not isinstance(text, list | tuple) or not isinstance(text_pair, list | tuple | None):
            raise TypeError(f"the tokenizer takes a text (str) or a list of texts, not {type(text).__name__} "
                            f"and {type(text_pair).__name__}")  # fmt: skip
        if not text:
            raise ValueError("the tokenizer was given an empty list of texts")
        if text_pair is not None:
            if len(text) != len(text_pair):
                raise ValueError(f"{len(text)} first texts but {len(text_pair)} second ones")
            text = list(zip(text, text_pair, strict=True))
        return [tuple(map(self._clean, row)) if isinstance(row, list | tuple) else self._clean(row) for row in text]

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """The word pieces of a text, or of a pair, as words: "minbert" → ["min", "##bert"]."""
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is not a text (str); for several texts call `tokenize` once for each")
        rows = self._rows(text, pair)
        encoding: Encoding = self._pieces.encode_batch(rows, add_special_tokens=add_special_tokens)[0]
        return encoding.tokens

    def decode(self, ids: int | Sequence | Tensor, skip_special_tokens: bool = False) -> str | list[str]:
        """Ids → text, whose case and spaces may differ from before; rows of ids → a list of texts."""
        ids = ids.tolist() if hasattr(ids, "tolist") else ids
        if isinstance(ids, int):
            ids = [ids]
        if ids and isinstance(ids[0], list | tuple | Tensor):
            return [self.decode(row, skip_special_tokens) for row in ids]
        return self._pieces.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def batch_decode(self, rows: Iterable[Sequence[int]] | Tensor, skip_special_tokens: bool = False) -> list[str]:
        """Rows of ids → a list of texts."""
        return [self.decode(row, skip_special_tokens) for row in rows]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> int | list[int]:
        """A word piece, or several → its id, which is [UNK]'s where the vocabulary has no such piece."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        index = self._pieces.token_to_id(tokens)
        return self.unk_id if index is None else index

    def convert_ids_to_tokens(self, ids: int | Sequence[int] | Tensor,
                              skip_special_tokens: bool = False) -> str | list[str]:  # fmt: skip
        """An id, or several → its word piece."""
        ids = ids.tolist() if hasattr(ids, "tolist") else ids
        if isinstance(ids, int):
            return self._pieces.id_to_token(ids)
        skipped = self.all_special_ids if skip_special_tokens else ()
        return [self._pieces.id_to_token(i) for i in ids if i not in skipped]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Word pieces → text: ["min", "##bert"] → "minbert"."""
        return self._pieces.decoder.decode(list(tokens))

    def get_vocab(self) -> Mapping[str, int]:
        """Every piece with its id, added tokens included."""
        return self._pieces.get_vocab()

    def __len__(self) -> int:
        return self._pieces.get_vocab_size()

    @property
    def vocab_size(self) -> int:
        """The number of pieces without added tokens; `len(tokenizer)` counts these too."""
        return self._pieces.get_vocab_size(with_added_tokens=False)

    @property
    def model_max_length(self) -> int:
        """Another name of `max_length`."""
        return self.max_length

    @model_max_length.setter
    def model_max_length(self, length: int):
        self.max_length = length

    @property
    def all_special_ids(self) -> list[int]:
        own = [self.unk_id, self.sep_id, self.pad_id, self.cls_id, self.mask_id]
        added = [i for i, token in self._pieces.get_added_tokens_decoder().items() if token.special]
        return own + [i for i in added if i not in own]

    @property
    def all_special_tokens(self) -> list[str]:
        return [self.vocab[i] for i in self.all_special_ids]
