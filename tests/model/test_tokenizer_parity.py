"""12,000 hard texts through our tokenizer and through transformers', for every setting and every form of the files.

The oracle is the tokenizer that transformers 5 gives for the same files. A final sigma alone is held against its one in
Python (`BertTokenizerLegacy`), which lower-cases words, as Google's did: the fast one lower-cases letter by letter.
"""

import csv
import json
import random
from pathlib import Path

import pytest
import transformers

from minbert.hub import find
from minbert.tokenizer import SPECIAL, BertTokenizer

ADDED = {"[NAME]": False, "<e1>": True, "Zürich": False, "don't": False, "人们": True}  # token → is it special?
LATIN = "abcdefghijklmnopqrstuvwxyz"
MARKED = "àâäçéèêëîïñôöùûüßæœøåčšžőűğışćńóśźż"
OTHERS = "абвгджикый αβγδεζςσ ابجد אבגד हिन्दी ไทย 한국어"
CHINESE = "的人们一是在不了有和東京北上海日本語文字漢"
COMBINING = "\u0301\u0308\u0327\u030a\u0303"
SPACES = (" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\u00ad", "\u2028", "\x85", "\x0b")
SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«»“”„‘’…–—¿¡、。「」（）！？"
CONTROLS = "\x00\x07\x1b\x7f\ufffd\u202e\u2066\ufeff"


def texts(count: int, seed: int) -> list[str]:
    """Texts of words of all these kinds, of special and added tokens, and of any letters that Unicode has."""
    draw = random.Random(seed)

    def word() -> str:
        length = draw.randint(1, 8)
        kind = draw.random()
        if kind < 0.3:
            letters = "".join(draw.choice(LATIN + MARKED) for _ in range(length))
            return draw.choice((letters, letters.upper(), letters.title()))
        if kind < 0.4:
            return "".join(draw.choice(LATIN) + draw.choice(COMBINING) * draw.randint(0, 2) for _ in range(length))
        if kind < 0.5:
            return "".join(draw.choice(CHINESE + LATIN.upper()) for _ in range(length))
        if kind < 0.6:
            return draw.choice((*SPECIAL, *ADDED, "[name]", "zürich", "ZÜRICH", "zu\u0308rich", "DON'T", "x[NAME]y"))
        if kind < 0.7:
            return "".join(draw.choice(SIGNS + CONTROLS + "0123456789") for _ in range(length))
        if kind < 0.8:
            return "".join(draw.choice(OTHERS) for _ in range(length))
        letters = (chr(draw.choice((draw.randrange(0x3000), draw.randrange(0x110000)))) for _ in range(length))
        return "".join(letter for letter in letters if not "\ud800" <= letter <= "\udfff" and letter != "Σ")

    def text() -> str:
        return "".join(word() + draw.choice(("", *SPACES)) for _ in range(draw.randint(1, 12)))

    return [text() for _ in range(count)]


TEXTS = texts(12_000, seed=1)


def vocabulary() -> list[str]:
    """Pieces that tell the settings apart: letters with and without marks, of both cases, Chinese alone and inside."""
    letters = sorted(set(LATIN + LATIN.upper() + MARKED + MARKED.upper() + OTHERS + CHINESE + SIGNS) - {" "})
    words = [f"{a}{b}" for a in "abeoÉéZz" for b in "nrtü"] + ["的人", "東京", "don", "Zu", "zu"]
    return list(dict.fromkeys([*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words]))


# ---------------------------------------------------------------------------------------------- settings and forms

SETTINGS = {
    "uncased": {"do_lower_case": True},
    "cased": {"do_lower_case": False},
    "uncased with accents": {"do_lower_case": True, "strip_accents": False},
    "cased without accents": {"do_lower_case": False, "strip_accents": True},
    "Chinese not split": {"do_lower_case": True, "tokenize_chinese_chars": False},
}
FORMS = ("vocab.txt", "tokenizer.json", "both")


def write(folder: Path, settings: dict, form: str, added: bool) -> Path:
    """A tokenizer's directory, as transformers writes it, with or without what form and added say."""
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **settings}))
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    if added:
        theirs.add_tokens([token for token, special in ADDED.items() if not special])
        theirs.add_special_tokens({"additional_special_tokens": [token for token, special in ADDED.items() if special]})
    if form == "vocab.txt":
        (folder / "added_tokens.json").write_text(json.dumps(theirs.get_added_vocab()) if added else "{}")
        special = [token for token in ADDED if ADDED[token]] if added else []
        (folder / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": special}))
    else:
        theirs.save_pretrained(folder)
        if form == "tokenizer.json":
            (folder / "vocab.txt").unlink()
    return folder


def differing(ours: BertTokenizer, theirs, texts: list[str]) -> list[str]:
    """The texts whose ids are not the other's."""
    pairs = zip(ours.encode(texts), theirs(texts, add_special_tokens=False)["input_ids"], strict=True)
    return [text for text, (mine, other) in zip(texts, pairs, strict=True) if mine != other]


@pytest.mark.parametrize("added", [False, True], ids=["", "added tokens"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_in_every_form(tmp_path, setting, form, added):
    """A twelfth of the texts for each of the thirty; all of them for two vocabularies below."""
    folder = write(tmp_path, SETTINGS[setting], form, added)
    ours, theirs = BertTokenizer.from_files(folder), transformers.AutoTokenizer.from_pretrained(folder)
    assert ours.get_vocab() == theirs.get_vocab() and len(ours) == len(vocabulary()) + added * len(ADDED)
    assert differing(ours, theirs, TEXTS[::12]) == []
    assert ours.all_special_tokens == theirs.all_special_tokens


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_we_write_means_the_same_to_transformers(tmp_path, setting):
    (tmp_path / "theirs").mkdir()
    ours = BertTokenizer.from_files(write(tmp_path / "theirs", SETTINGS[setting], "both", True), max_length=77)
    ours.save_pretrained(tmp_path / "ours")
    again, theirs = (
        BertTokenizer.from_files(tmp_path / "ours"),
        transformers.AutoTokenizer.from_pretrained(tmp_path / "ours"),
    )
    assert theirs.model_max_length == 77
    assert ours.get_vocab() == again.get_vocab() == theirs.get_vocab()
    assert differing(ours, theirs, TEXTS[::12]) == [] == differing(again, theirs, TEXTS[::12])


def test_all_texts_with_a_vocabulary_of_many_pieces(tmp_path):
    folder = write(tmp_path, SETTINGS["cased"], "both", True)
    ours, theirs = BertTokenizer.from_files(folder), transformers.AutoTokenizer.from_pretrained(folder)
    assert len(TEXTS) >= 10_000 and differing(ours, theirs, TEXTS) == []
    assert sum(ids.count(ours.unk_id) for ids in ours.encode(TEXTS)) < 0.2 * sum(map(len, ours.encode(TEXTS)))


def test_all_texts_with_berts_own_vocabulary(real):
    ours, theirs = BertTokenizer.from_files(real), transformers.AutoTokenizer.from_pretrained(real)
    assert differing(ours, theirs, TEXTS) == []


@pytest.mark.parametrize("other", [name for name in SETTINGS if name != "uncased"])
def test_the_comparison_sees_every_setting(tmp_path, other):
    theirs = transformers.AutoTokenizer.from_pretrained(write(tmp_path, SETTINGS["uncased"], "vocab.txt", False))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(SETTINGS[other]))
    assert len(differing(BertTokenizer.from_files(tmp_path), theirs, TEXTS[::12])) > 80


# ---------------------------------------------------------------------------------------------- final sigma


@pytest.fixture(scope="module")
def real() -> Path:
    try:
        return find("minilm", local_files_only=True)
    except Exception as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def old(real):
    """transformers' tokenizer in Python, with BERT's own vocabulary; not every version has it."""
    module = pytest.importorskip("transformers.models.bert.tokenization_bert_legacy")
    return module.BertTokenizerLegacy(str(real / "vocab.txt"))


def greek(count: int) -> list[str]:
    """Greek words with sigmas in all places, between letters, signs, marks and special tokens."""
    draw = random.Random(2)
    letters = [
        "Σ",
        "Σ",
        "Α",
        "Ό",
        "Δ",
        "ς",
        "σ",
        "İ",
        "a",
        "1",
        "'",
        ".",
        "\u0301",
        "-",
        " ",
        "[MASK]",
        "的",
        "\u200b",
        "B",
    ]
    return ["".join(draw.choice(letters) for _ in range(draw.randint(1, 12))) for _ in range(count)]


def test_a_sigma_at_the_end_of_a_word_is_small_and_final(real, old):
    ours = BertTokenizer.from_files(real)
    new = transformers.AutoTokenizer.from_pretrained(real)
    rows = greek(3000)
    expected = [old.convert_tokens_to_ids(old.tokenize(text)) for text in rows]
    assert ours.encode(rows) == expected
    assert len(differing(ours, new, rows)) > 300  # where the two of transformers disagree
    assert ours.tokenize("ΟΔΟΣ ΟΔΥΣΣΕΩΣ")[-1] == "##ς"


def test_a_cased_vocabulary_keeps_its_sigmas():
    tokenizer = BertTokenizer([*SPECIAL, "ΑΣ", "ας", "ασ"], lowercase=False)
    assert tokenizer.tokenize("ΑΣ ας ασ") == ["ΑΣ", "ας", "ασ"]


def test_the_one_row_of_the_courses_files_that_has_one(real, old, real_data):
    """All texts of the course with a Greek capital sigma, which ends a word; the fast tokenizer has another letter."""
    rows = set()
    for path in sorted(real_data.glob("*.csv")):
        with open(path, encoding="utf-8", newline="") as file:
            rows |= {field for row in csv.reader(file, delimiter="\t") for field in row if "Σ" in field}
    ours = BertTokenizer.from_files(real)
    assert rows and all(ours.tokenize(text) == old.tokenize(text) for text in rows)
    assert differing(ours, transformers.AutoTokenizer.from_pretrained(real), sorted(rows)) != []
