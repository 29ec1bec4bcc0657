"""The word pieces of a model and how its text is cleaned, read from the model's files.

    vocab.txt                 a piece a line, in the order of their ids (Google's form)
    tokenizer.json            the pieces and every setting, as the `tokenizers` library writes them
    tokenizer_config.json     do_lower_case, strip_accents, tokenize_chinese_chars, model_max_length, added tokens
    added_tokens.json         tokens that somebody added after the pieces: {"[NAME]": 30522}
    special_tokens_map.json   which of these are special, in older directories

The files become a `Tokenizer` of that library, which `tokenizer.py` uses, with the same meaning as in `transformers`.
A setting that would have another meaning here, or a contradiction between the files, is a UserError.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from minbert.errors import UserError
from minbert.files import atomic, read_json, refuse_stand_in

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FILES = ("tokenizer.json", "vocab.txt")  # either is enough
SETTINGS_FILES = ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")
BERTS = ("Bert", "DistilBert", "Electra", "MobileBert")  # whose tokenizer classes work as this file does
GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")  # classes that do what tokenizer.json says
CLASSES = {None, *GENERIC, *(f"{name}Tokenizer{form}" for name in BERTS for form in ("", "Fast", "Legacy"))}
LONGEST = 100  # letters of a word; a longer one is [UNK]
SETTINGS = {  # in tokenizer_config.json → in tokenizer.json's normalizer
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


def build(vocab: Sequence[str], lowercase: bool = True, strip_accents: bool | None = None, chinese: bool = True,
          added: Sequence[tuple[int | None, AddedToken]] = ()) -> Tokenizer:  # fmt: skip
    """A BERT's tokenizer from its word pieces in the order of their ids.

    lowercase: True for an uncased model. strip_accents: None is the same as `lowercase`. chinese: whether each
    Chinese character is a word. added: tokens beside the pieces, with their ids (None: the next free one).
    """
    index = {piece: i for i, piece in enumerate(vocab)}
    tokenizer = Tokenizer(WordPiece(index, unk_token="[UNK]", max_input_chars_per_word=LONGEST))
    tokenizer.normalizer = BertNormalizer(
        lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=chinese
    )
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return complete(tokenizer, added)


def complete(tokenizer: Tokenizer, added: Sequence[tuple[int | None, AddedToken]] = ()) -> Tokenizer:
    """Give a tokenizer the special tokens, [CLS] a [SEP] b [SEP], and `added` tokens; UserError if they do not fit."""
    ids = {piece: tokenizer.token_to_id(piece) for piece in SPECIAL}
    missing = [piece for piece, i in ids.items() if i is None]
    if missing:
        raise UserError(f"the vocabulary has no {', '.join(missing)}: is it a BERT's vocab.txt?")
    tokenizer.add_special_tokens(list(SPECIAL))  # "[MASK]" inside a text is the mask, not three pieces
    for i, token in added:
        tokenizer.add_tokens([token])
        place = tokenizer.token_to_id(token.content)
        if i not in (None, place):
            raise UserError(f"the added token {token.content!r} has the id {i}, but its place here is {place}: other "
                            "added tokens are missing, or a piece is twice in the vocabulary")  # fmt: skip
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(piece, ids[piece]) for piece in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = WordPieceDecoder(prefix="##")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


# ---------------------------------------------------------------------------------------------- reading


def read_tokenizer(path: Path, lowercase: bool | None = None) -> tuple[Tokenizer, int | None]:
    """The tokenizer of a model's directory, or of one vocab.txt; and the longest row that its settings name, if any.

    lowercase: replaces the setting of the files. Raises UserError.
    """
    folder, files = (path, [path / name for name in FILES]) if path.is_dir() else (path.parent, [path])
    files = [file for file in files if file.exists()]
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if not files:
        raise UserError(f"{path}: holds neither {' nor '.join(FILES)}")
    for file in files:
        refuse_stand_in(file)
    settings, added_json, special = (read_json(folder / name) for name in SETTINGS_FILES)
    try:
        check_settings(settings, special)
        added = added_tokens(settings, added_json, special)
        if files[0].suffix == ".json":
            tokenizer = complete(parse(files[0], settings, lowercase), added)
            if files[1:]:
                compare(tokenizer, files[1])
        else:
            vocab = read_vocab(files[0])
            case = settings.get("do_lower_case") if lowercase is None else lowercase
            if case is None and (cased := capitals(vocab)):
                print(f"{files[0]}: {len(cased):,} pieces have capitals, and no tokenizer_config.json says "
                      "do_lower_case; text keeps its case", file=sys.stderr)  # fmt: skip
                case = False
            chinese = settings.get("tokenize_chinese_chars", True)
            tokenizer = build(vocab, True if case is None else case, settings.get("strip_accents"), chinese, added)
        if lowers(tokenizer) and (cased := capitals(tokenizer.get_vocab(with_added_tokens=False))):
            print(f"{files[0]}: its settings lower-case all text (do_lower_case), but {len(cased):,} pieces have "
                  "capitals and will never be used", file=sys.stderr)  # fmt: skip
        longest = settings.get("model_max_length") or 1e30  # which transformers writes for "unknown"
        return tokenizer, int(longest) if longest < 1e9 else None
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # settings of a wrong type
        raise UserError(f"{folder}: the tokenizer's settings cannot be read ({error})") from error
    except UserError as error:
        raise UserError(f"{files[0]}: {error}") from error


def read_vocab(path: Path) -> list[str]:
    """Read a file of a piece a line; it may have Windows line ends and a byte-order mark."""
    try:
        return path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot be read as a vocabulary ({error})") from error


def capitals(vocab: Iterable[str]) -> list[str]:
    """The pieces that only a cased model has: those with capitals, except a letter that is there in both cases."""
    known = set(vocab)
    pieces = [piece for piece in known if piece != piece.lower() and not re.fullmatch(r"\[.*\]|<.*>", piece)]
    return [piece for piece in pieces if piece.lower() not in known or len(piece.removeprefix("##")) > 1]


def check_settings(settings: Mapping, special: Mapping):
    """UserError where the settings are those of another kind of tokenizer."""
    kind = settings.get("tokenizer_class")
    if kind not in CLASSES:
        raise UserError(f"tokenizer_config.json says tokenizer_class = {kind!r}; this one is BertTokenizer")
    for piece in SPECIAL:
        name = f"{piece[1:-1].lower()}_token"
        for token in (settings.get(name), special.get(name)):
            if token is not None and text_of(token) != piece:
                raise UserError(f"its settings say {name} = {text_of(token)!r}; this tokenizer's is {piece!r}")
    for side in ("padding_side", "truncation_side"):
        if settings.get(side, "right") != "right":
            raise UserError(f"tokenizer_config.json says {side} = {settings[side]!r}; this tokenizer's is 'right'")


def text_of(token: str | Mapping) -> str:
    """The text of a token: a settings file holds the text alone, or a table with it and flags."""
    return token if isinstance(token, str) else token["content"]


def added_tokens(settings: Mapping, added: Mapping, special: Mapping) -> list[tuple[int | None, AddedToken]]:
    """The tokens that the three settings files add, in the order of their ids; those without an id come last."""
    extra = []
    for source in (settings, special):
        for name in ("additional_special_tokens", "extra_special_tokens"):
            tokens = source.get(name) or ()
            extra += [text_of(token) for token in (tokens.values() if isinstance(tokens, dict) else tokens)]
    flags = ("lstrip", "rstrip", "single_word", "normalized", "special")
    if "added_tokens_decoder" in settings:
        listed = [
            (int(i), AddedToken(token["content"], **{flag: token[flag] for flag in flags if flag in token}))
            for i, token in settings["added_tokens_decoder"].items()
        ]
    else:
        listed = [
            (int(i), AddedToken(text, normalized=text not in extra, special=text in extra)) for text, i in added.items()
        ]
    known = {*SPECIAL, *(token.content for _, token in listed)}
    listed = sorted(((i, token) for i, token in listed if token.content not in SPECIAL), key=lambda pair: pair[0])
    return listed + [(None, AddedToken(text, special=True)) for text in dict.fromkeys(extra) if text not in known]


def parse(path: Path, settings: Mapping, lowercase: bool | None) -> Tokenizer:
    """The tokenizer of a tokenizer.json; tokenizer_config.json counts more. UserError where it is not BERT's."""
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8-sig"))
    except Exception as error:  # the library raises nothing more exact
        raise UserError(f"cannot be read as a tokenizer ({(str(error) or repr(error)).splitlines()[0]})") from error
    tokenizer.no_padding()  # sentence-transformers stores both, and they change what `encode` returns
    tokenizer.no_truncation()
    model = tokenizer.model
    if not isinstance(model, WordPiece) or (model.continuing_subword_prefix, model.unk_token) != ("##", "[UNK]"):
        raise UserError(f"is a {type(model).__name__} tokenizer, not WordPiece with ## and [UNK]")
    cls, sep = map(tokenizer.token_to_id, ("[CLS]", "[SEP]"))
    if tokenizer.post_processor is not None and None not in (cls, sep):
        pair = tokenizer.encode([], [], is_pretokenized=True)
        if (pair.ids, pair.type_ids) != ([cls, sep, sep], [0, 0, 1]):
            raise UserError("its pairs are not [CLS] a [SEP] b [SEP]")
    if lowercase is not None:
        set_case(tokenizer, lowercase)
    if not cleans_as_bert(tokenizer):
        print(f"{path}: does not clean and split text as BERT does; it is used unchanged", file=sys.stderr)
        return tokenizer
    cleaning = settings_of(tokenizer.normalizer)
    named = {name: settings[name] for name in SETTINGS if name in settings}
    if settings.get("tokenizer_class") in GENERIC:
        named = {}
    if lowercase is not None:
        named["do_lower_case"] = lowercase
    for name, value in named.items():
        if value != cleaning[SETTINGS[name]]:
            print(f"{path}: says {name} = {cleaning[SETTINGS[name]]}, tokenizer_config.json says {value}; the latter "
                  "counts, as in transformers", file=sys.stderr)  # fmt: skip
    change_cleaning(tokenizer, {SETTINGS[name]: value for name, value in named.items()})
    return tokenizer


def cleans_as_bert(tokenizer: Tokenizer) -> bool:
    """Whether text is cleaned and split at spaces and punctuation as BERT does it."""
    kinds = [settings_of(part).get("type") for part in (tokenizer.normalizer, tokenizer.pre_tokenizer)]
    return kinds == ["BertNormalizer", "BertPreTokenizer"]


def change_cleaning(tokenizer: Tokenizer, changes: Mapping[str, bool | None]):
    """Change some settings of BERT's normalizer."""
    values = settings_of(tokenizer.normalizer) | dict(changes)
    tokenizer.normalizer = BertNormalizer(**{name: value for name, value in values.items() if name != "type"})


def set_case(tokenizer: Tokenizer, lowercase: bool):
    """Choose whether text is lower-cased; UserError where the tokenizer has no such setting."""
    if not cleans_as_bert(tokenizer):
        raise UserError("does not clean and split text as BERT does, so its case cannot be chosen")
    change_cleaning(tokenizer, {"lowercase": lowercase})


def lowers(tokenizer: Tokenizer) -> bool:
    """Whether text is lower-cased."""
    return settings_of(tokenizer.normalizer).get("lowercase", False)


def settings_of(component: Any) -> dict:
    """The settings of a tokenizer's normalizer or pre-tokenizer; {} for None."""
    return json.loads(component.__getstate__()) if component else {}


def compare(tokenizer: Tokenizer, path: Path):
    """UserError where the vocab.txt at `path` is not that of the tokenizer.json beside it."""
    listed = {piece: i for i, piece in enumerate(read_vocab(path)) if piece}  # an empty line is an id without a piece
    every, pieces = tokenizer.get_vocab(), tokenizer.get_vocab(with_added_tokens=False)
    wrong = [piece for piece, i in listed.items() if every.get(piece) != i]
    wrong += [piece for piece in pieces if piece not in listed]
    if wrong:
        raise UserError(f"differs from {path.name} in {wrong[0]!r}; remove the one that is not the model's")


# ---------------------------------------------------------------------------------------------- writing


def write_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int):
    """Write vocab.txt and tokenizer_config.json, which `transformers` and `read_tokenizer` read.

    It writes tokenizer.json only where these two are not enough, or to replace an older tokenizer.json in the folder.
    """
    pieces = tokenizer.get_vocab(with_added_tokens=False)
    lines = [""] * (max(pieces.values()) + 1)  # an id that no piece has is an empty line
    for piece, i in pieces.items():
        lines[i] = piece
    whole, cleaning = json.loads(tokenizer.to_str()), settings_of(tokenizer.normalizer)
    usual = tokenizer.model.max_input_chars_per_word == LONGEST
    simple = cleans_as_bert(tokenizer) and cleaning["clean_text"] and usual
    settings = {"tokenizer_class": "BertTokenizer" if simple else GENERIC[0], "model_max_length": max_length}
    settings |= {name: cleaning[key] for name, key in SETTINGS.items()} if simple else {}
    settings |= {f"{piece[1:-1].lower()}_token": piece for piece in SPECIAL}
    extra = [
        token["content"] for token in whole["added_tokens"] if token["special"] and token["content"] not in SPECIAL
    ]
    settings |= {"additional_special_tokens": extra} if extra else {}
    settings["added_tokens_decoder"] = {
        str(token["id"]): {flag: value for flag, value in token.items() if flag != "id"}
        for token in whole["added_tokens"]
    }
    texts = {"vocab.txt": "\n".join(lines) + "\n", "tokenizer_config.json": json.dumps(settings, indent=2) + "\n"}
    if not simple or (folder / "tokenizer.json").exists():
        texts["tokenizer.json"] = json.dumps(whole, ensure_ascii=False, indent=2) + "\n"
    for name, text in texts.items():
        with atomic(folder / name) as path:
            path.write_text(text, encoding="utf-8", newline="\n")
