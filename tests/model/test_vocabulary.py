"""minbert/vocabulary.py: the tokenizer is what a model's files say; what contradicts itself is refused."""

import json
from pathlib import Path

import pytest
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from minbert.errors import UserError
from minbert.tokenizer import SPECIAL, BertTokenizer

VOCAB = [*SPECIAL, "a", "film", "##s", "é", "e", "的"]


def read(folder: Path) -> BertTokenizer:
    return BertTokenizer.from_files(folder)


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


def put(folder: Path, vocab=VOCAB, **settings) -> Path:
    """A directory with a vocab.txt and, if there are settings, a tokenizer_config.json."""
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def edit(path: Path, *keys, value):
    """Change one entry of a JSON file."""
    content = json.loads(path.read_text("utf-8"))
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def saved(tmp_path) -> Path:
    """What transformers 5 leaves: tokenizer.json and tokenizer_config.json, and no vocab.txt."""
    put(tmp_path, tokenizer_class="BertTokenizer")
    transformers.AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    return tmp_path


# ---------------------------------------------------------------------------------------------- vocab.txt


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "byte-order mark"])
@pytest.mark.parametrize("last", ["", "end", "end end"])
def test_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path, mark, end, last):
    text = end.join(VOCAB) + end * len(last.split())
    (tmp_path / "vocab.txt").write_bytes(mark + text.encode())
    assert read(tmp_path).vocab == VOCAB


@pytest.mark.parametrize("absent", SPECIAL)
def test_a_vocabulary_without_a_special_piece(absent, tmp_path):
    assert absent in refusal(put(tmp_path, [piece for piece in VOCAB if piece != absent]))


def test_a_place_without_a_file(tmp_path):
    assert "no such file or folder" in refusal(tmp_path / "none.txt")


def test_a_vocabulary_that_is_not_text(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n\xff\xfe\n")
    assert "vocab.txt" in refusal(tmp_path)


def test_a_piece_that_is_there_twice_has_its_last_place(tmp_path):
    """As in transformers. The other place stays empty, here and when it is written again."""
    put(tmp_path, [*VOCAB, "a", "end"], tokenizer_class="BertTokenizer")
    tokenizer, theirs = read(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.get_vocab() == theirs.get_vocab() and tokenizer.vocab[5] == "" and len(tokenizer.vocab) == 13
    tokenizer.save_pretrained(tmp_path / "again")
    assert read(tmp_path / "again").encode(["a end"]) == [[11, 12]]


@pytest.mark.parametrize(
    "content", ["{do_lower_case", "[]", '{"do_lower_case": "yes"}', '{"added_tokens_decoder": [1]}']
)
def test_settings_that_are_none(tmp_path, content):
    put(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    assert "tokenizer" in refusal(tmp_path)


# ---------------------------------------------------------------------------------------------- case


@pytest.mark.parametrize(
    ("vocab", "cased"),
    [
        (["The", "the"], True),  # a word with a capital: nobody has it who lower-cases
        (["A", "B"], True),  # all in capitals: lower-cased text would be all [UNK]
        (["a", "A", "##a", "##A"], False),  # single letters of both cases, in case text has them
        (["[unused1]", "[NAME]", "<E1>"], False),
        (["the", "ß", "ǆ"], False),
        (["Ё", "##ш"], True),
    ],
)
def test_a_vocabulary_without_settings_shows_its_case(tmp_path, capsys, vocab, cased):
    tokenizer = read(put(tmp_path, list(dict.fromkeys([*VOCAB, *vocab]))))
    assert tokenizer.lowercase is not cased
    lines = capsys.readouterr().err
    assert ("text keeps its case" in lines) is cased and lines.count("\n") == cased
    assert tokenizer.unk_id not in tokenizer.encode([" ".join(vocab[:1])])[0] or "[" in vocab[0]


@pytest.mark.parametrize("lowercase, expected", [(None, [5]), (True, [5]), (False, [6])])
def test_the_case_comes_from_the_settings_beside_the_vocabulary(tmp_path, lowercase, expected):
    settings = {} if lowercase is None else {"do_lower_case": lowercase}
    assert read(put(tmp_path, [*SPECIAL, "i", "I"], **settings)).encode(["I"]) == [expected]


def test_a_cased_vocabulary_that_settings_lower_case_is_said(tmp_path, capsys):
    assert read(put(tmp_path, [*VOCAB, "The"], do_lower_case=True)).tokenize("A") == ["a"]
    assert "1 pieces have capitals and will never be used" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- tokenizer.json


def test_a_tokenizer_json_is_enough(saved):
    assert read(saved).vocab == VOCAB and read(saved).encode(["Films É 的a"]) == [[6, 7, 9, 10, 5]]


def test_where_both_files_are_there_they_must_agree(saved):
    put(saved)
    assert read(saved).vocab == VOCAB
    for vocab in ([*VOCAB[:-1], "人"], [*VOCAB, "more"], VOCAB[:-1], [*VOCAB[:5], *VOCAB[:4:-1]]):
        put(saved, vocab)
        assert "differs from vocab.txt" in refusal(saved)
    (saved / "vocab.txt").unlink()  # the advice
    assert read(saved).vocab == VOCAB


@pytest.mark.parametrize(
    ("name", "value", "tokens"),
    [("do_lower_case", False, ["[UNK]", "é"]), ("strip_accents", False, ["film", "é"]),
     ("tokenize_chinese_chars", False, ["film", "e"])],
)  # fmt: skip
def test_where_the_settings_contradict_it_they_count_and_that_is_said(saved, capsys, name, value, tokens):
    edit(saved / "tokenizer_config.json", name, value=value)
    ours, theirs = read(saved), transformers.AutoTokenizer.from_pretrained(saved)
    assert ours.tokenize("FILM é") == theirs.tokenize("FILM é") == tokens
    lines = capsys.readouterr().err
    assert name in lines and "the latter counts, as in transformers" in lines and lines.count("\n") == 1


def test_a_class_without_settings_of_its_own_leaves_tokenizer_json_alone(saved, capsys):
    edit(saved / "tokenizer_config.json", "tokenizer_class", value="PreTrainedTokenizerFast")
    edit(saved / "tokenizer.json", "normalizer", "lowercase", value=False)
    ours, theirs = read(saved), transformers.AutoTokenizer.from_pretrained(saved)
    assert ours.tokenize("FILM é") == theirs.tokenize("FILM é") == ["[UNK]", "é"]


def test_cleaning_of_another_kind_is_kept_and_said(saved, tmp_path, capsys):
    path = saved / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("x", "a")])
    tokenizer.save(str(path))
    edit(saved / "tokenizer_config.json", "tokenizer_class", value="PreTrainedTokenizerFast")
    ours, theirs = read(saved), transformers.AutoTokenizer.from_pretrained(saved)
    assert ours.tokenize("FILM x é") == theirs.tokenize("FILM x é") == ["film", "a", "é"]
    assert "does not clean and split text as BERT does" in capsys.readouterr().err
    ours.save_pretrained(tmp_path / "again")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "again").tokenize("FILM x é") == ["film", "a", "é"]


def split_at_spaces(tokenizer: Tokenizer):
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()


def only_short_words(tokenizer: Tokenizer):
    tokenizer.model.max_input_chars_per_word = 3


def another_cleaning_and_a_gap(tokenizer: Tokenizer):
    tokenizer.normalizer = normalizers.Lowercase()
    pieces = {piece: i + (i > 6) for piece, i in tokenizer.get_vocab().items()}
    tokenizer.model = models.WordPiece(pieces, unk_token="[UNK]", max_input_chars_per_word=100)


@pytest.mark.parametrize(
    ("change", "expected"),
    [(split_at_spaces, ["film", "[UNK]"]), (only_short_words, ["[UNK]", "a", "[UNK]"]),
     (another_cleaning_and_a_gap, ["film", "a", "[UNK]"])],
)  # fmt: skip
def test_what_two_files_cannot_say_is_written_into_the_third(saved, tmp_path, change, expected):
    tokenizer = Tokenizer.from_file(str(saved / "tokenizer.json"))
    change(tokenizer)
    tokenizer.save(str(saved / "tokenizer.json"))
    edit(saved / "tokenizer_config.json", "tokenizer_class", value="PreTrainedTokenizerFast")
    ours = read(saved)
    ours.save_pretrained(tmp_path / "again")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert ours.tokenize("film a!") == read(tmp_path / "again").tokenize("film a!") == expected
    assert theirs.tokenize("film a!") == expected and theirs.get_vocab() == ours.get_vocab()


@pytest.mark.parametrize("strategy", [{"Fixed": 128}, "BatchLongest"])
def test_padding_and_truncation_stored_in_a_tokenizer_json_do_not_count(saved, tmp_path, strategy):
    """sentence-transformers stores both. Rows are padded and cut by the caller, in transformers as well."""
    padding = {"strategy": strategy, "direction": "Right", "pad_to_multiple_of": 8, "pad_id": 0, "pad_type_id": 0,
               "pad_token": "[PAD]"}  # fmt: skip
    truncation = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    before = read(saved)
    edit(saved / "tokenizer.json", "padding", value=padding)
    edit(saved / "tokenizer.json", "truncation", value=truncation)
    ours, theirs = read(saved), transformers.AutoTokenizer.from_pretrained(saved)
    assert ours.to_json() == before.to_json()
    expected = theirs("film a é", "a film")["input_ids"]
    assert expected == [2, 6, 5, 9, 3, 5, 6, 3] == ours("film a é", "a film")["input_ids"]
    ours.save_pretrained(tmp_path / "again")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert again("film a é", "a film")["input_ids"] == expected


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (("model", "continuing_subword_prefix"), "@@", "not WordPiece with ##"),
        (("model", "unk_token"), "[PAD]", "not WordPiece with ## and [UNK]"),
        (("post_processor", "pair"), [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
         "its pairs are not [CLS] a [SEP] b [SEP]"),
        (("model", "vocab"), {"a": 0, "[UNK]": 1}, "the vocabulary has no [PAD]"),
        (("version",), "7", "cannot be read as a tokenizer"),
    ],
)  # fmt: skip
def test_a_tokenizer_json_of_another_kind(saved, keys, value, said):
    if keys[-1] == "vocab":
        edit(saved / "tokenizer.json", "added_tokens", value=[])
        edit(saved / "tokenizer.json", "post_processor", value=None)
    edit(saved / "tokenizer.json", *keys, value=value)
    assert said in refusal(saved)


def test_a_tokenizer_that_is_no_wordpiece(tmp_path):
    Tokenizer(models.BPE({"a": 0}, [])).save(str(tmp_path / "tokenizer.json"))
    assert "is a BPE tokenizer" in refusal(tmp_path)


# ---------------------------------------------------------------------------------------------- another tokenizer


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": "BertJapaneseTokenizer"},
        {"tokenizer_class": "XLMRobertaTokenizer"},
        {"cls_token": "<s>"},
        {"mask_token": {"content": "<mask>", "lstrip": True}},
        {"padding_side": "left"},
        {"truncation_side": "left"},
    ],
    ids=str,
)
def test_settings_of_another_tokenizer_are_refused(tmp_path, settings):
    message = refusal(put(tmp_path, **settings))
    assert next(iter(settings)) in message


@pytest.mark.parametrize(
    "name", ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "ElectraTokenizerFast", None]
)
def test_settings_of_the_same_tokenizer_under_another_name(tmp_path, name):
    assert read(put(tmp_path, tokenizer_class=name, mask_token="[MASK]")).vocab == VOCAB


def test_the_longest_row_that_the_settings_name(tmp_path):
    from minbert.vocabulary import read_tokenizer

    for value, expected in ((128, 128), (int(1e30), None), (None, None)):
        assert read_tokenizer(put(tmp_path, model_max_length=value))[1] == expected


# ---------------------------------------------------------------------------------------------- added tokens


def test_added_tokens_stand_after_the_pieces_in_the_order_of_their_ids(tmp_path):
    put(tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[URL]": 12, "[NAME]": 11}))
    tokenizer = read(tmp_path)
    assert tokenizer.vocab[11:] == ["[NAME]", "[URL]"] and (tokenizer.vocab_size, len(tokenizer)) == (11, 13)
    assert tokenizer.encode(["a [url] film [NAME]s"]) == [[5, 12, 6, 11, 1]]


@pytest.mark.parametrize("added", [{"[NAME]": 12}, {"[NAME]": 11, "[URL]": 13}, {"a": 11}, {"[NAME]": 3}])
def test_added_tokens_whose_ids_do_not_follow_are_refused(tmp_path, added):
    put(tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    message = refusal(tmp_path)
    assert "added token" in message and next(reversed(added)) in message


def test_what_is_written_replaces_a_tokenizer_json_that_was_there(saved, tmp_path):
    """Else transformers would go on reading the old one."""
    other = BertTokenizer([*SPECIAL, "b", "x"], lowercase=False)
    other.save_pretrained(saved)
    assert transformers.AutoTokenizer.from_pretrained(saved).get_vocab() == other.get_vocab()
    assert read(saved).vocab == other.vocab and not read(saved).lowercase
    assert {path.name for path in saved.iterdir()} == {"vocab.txt", "tokenizer.json", "tokenizer_config.json"}
