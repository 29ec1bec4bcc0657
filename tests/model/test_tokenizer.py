"""Our tokenizer against `transformers.BertTokenizerFast`, on real files, on nasty strings and on random ones."""

import csv
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import BertTokenizerFast

from minbert import hub
from minbert.data import read_examples
from minbert.errors import UserError
from minbert.tasks import TASKS
from minbert.tokenizer import SPECIAL, BertTokenizer, Row

NASTY = [
    "",
    " \t ",
    "École naïve — coöperate, Ångström, São Tomé",
    "e\u0301 o\u0308 (combining accents)",
    "你好，世界 is mixed中文text；한국어 и русский",
    "👍🏽 and 👨‍👩‍👧 and 🏳️‍🌈",
    "nul\x00 bell\x07 delete\x7f replacement\ufffd escape\x1b[0m",
    "[MASK] inside a [CLS] text [SEP] of [PAD] and [UNK]",
    "x[MASK]y [mask] [ MASK ] [MASK][MASK]",
    "a" * 100,
    "a" * 101,  # one letter more than a word may have
    "word " + "supercalifragilistic" * 50,
    '``quoted\'\' """ and \\/ and -LRB- -- ...',
    "no\u00a0break em\u2003quad ideographic\u3000 zero\u200bwidth soft\u00adhyphen",
    "tab\tnewline\nreturn\r\nnext\x85line\u2028separator",
    "İstanbul Straße ﬁne Ｆｕｌｌ ①②½",
    "\u202eright to left\u202c العربية עברית हिन्दी",
    "$1,000.50 + 3% = #@! user@example.org https://example.org/?q=1&r=2",
    "it's can't o'clock 'tis rock'n'roll",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𠀀 \U0010ffff",
    "##ing ## #hash a##b",
]


PADDED = {"padding": True, "truncation": True, "return_tensors": "pt"}  # the call of the course's starter

# ---------------------------------------------------------------------------------------------- the oracle


@pytest.fixture(scope="module")
def minilm() -> Path:
    try:
        return hub.find("minilm")
    except (UserError, OSError) as error:
        pytest.skip(f"no real vocabulary: {error}")


def twins(folder: Path) -> tuple[BertTokenizer, BertTokenizerFast]:
    """Our tokenizer and transformers', made from the same files."""
    ours, theirs = BertTokenizer.from_files(folder / "vocab.txt"), BertTokenizerFast.from_pretrained(folder)
    theirs.model_max_length = 512
    return ours, theirs


@pytest.fixture(scope="module", params=["tiny", "minilm", "cased"])
def both(request, tmp_path_factory) -> tuple[BertTokenizer, BertTokenizerFast]:
    """Both tokenizers: with a small vocabulary (words fall into many pieces), with BERT's own, and keeping case."""
    if request.param != "cased":
        return twins(request.getfixturevalue(request.param))
    folder = tmp_path_factory.mktemp("cased")
    vocab = (request.getfixturevalue("tiny") / "vocab.txt").read_text("utf-8")
    (folder / "vocab.txt").write_text(vocab + "É\nÉcole\nStraße\n##ß\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "tokenizer_class": "BertTokenizer"}')
    return twins(folder)


def assert_same(ours: BertTokenizer, theirs: BertTokenizerFast, *columns: Sequence[str]):
    """Ids, mask and token types of a batch of texts, or of pairs, are the other's."""
    expected = theirs(*map(list, columns), **PADDED)
    batch = ours(*columns, **PADDED)
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids"} == set(expected)
    for name, tensor in batch.items():
        assert tensor.dtype == expected[name].dtype
        assert tensor.tolist() == expected[name].tolist(), name


# ---------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize("text", NASTY, ids=lambda text: ascii(text)[:40])
def test_a_nasty_string(both, text):
    assert_same(*both, [text])
    assert_same(*both, [text], ["a second text"])
    assert_same(*both, ["a first text"], [text])


def test_a_batch_of_nasty_strings(both):
    assert_same(*both, NASTY)
    assert_same(*both, NASTY, NASTY[::-1])


LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="Σ")


@settings(deadline=None, max_examples=150)
@given(texts=st.lists(st.text(LETTERS, max_size=30), min_size=1, max_size=8))
def test_any_strings(both, texts):
    assert_same(*both, texts)


def batches(rows: Iterable[tuple[str, ...]], size: int = 256) -> Iterable[list[tuple[str, ...]]]:
    rows = iter(rows)
    while batch := list(islice(rows, size)):
        yield batch


TASK_OF = {"ids-sst": "sst", "ids-cfimdb": "cfimdb", "quora": "para", "sts": "sts"}  # by the file's name


def read(path: Path) -> list[tuple[str, ...]]:
    """The texts of a file, as the program reads them (with their ends stripped)."""
    kind = next((TASK_OF[kind] for kind in TASK_OF if path.name.startswith(kind)), None)
    if kind:
        return [example.texts for example in read_examples(path, TASKS[kind])]
    with open(path, encoding="utf-8", newline="") as file:  # NLI, which is no task of the course
        return [(row["premise"], row["hypothesis"]) for row in csv.DictReader(file, delimiter="\t")]


def differing(ours: BertTokenizer, theirs: BertTokenizerFast, rows: list[tuple[str, ...]]) -> int:
    """Check every row as it stands, alone or as a pair; and of a pair, both texts alone. How many rows differ.

    Rows with a Greek capital sigma are left to test_tokenizer_parity.py, which has another oracle for it.

    The two texts of a pair need no second call: transformers' pair is [CLS] a [SEP] followed by b [SEP], uncut.
    Not padded, for time: a mask is then all ones, and pads come out of the rows' lengths alone (`assert_same`).
    """
    wrong = 0
    for batch in batches(row for row in rows if "Σ" not in "".join(row)):
        columns = list(zip(*batch, strict=True))
        expected = theirs(*map(list, columns), truncation="longest_first")
        join = ours.single if len(columns) == 1 else ours.pair
        pieces = zip(*map(ours.encode, columns), strict=True)
        for (*texts, second), ids, mask, types in zip(
            pieces, expected["input_ids"], expected["attention_mask"], expected["token_type_ids"], strict=True
        ):
            row = join(*texts, second)
            right = row.ids == ids and [0] * row.first + [1] * (len(ids) - row.first) == types and 0 not in mask
            if texts and len(ids) < 512:
                right &= ours.single(*texts).ids == ids[: row.first]
                right &= ours.single(second).ids == [ours.cls_id, *ids[row.first :]]
            wrong += not right
    return wrong


def test_every_text_and_pair_of_the_sample(both, sample):
    for path in sorted(sample.glob("*.csv")):
        rows = read(path)
        assert differing(*both, rows) == 0, path.name
        assert_same(*both, *zip(*rows, strict=True))


@pytest.mark.slow
def test_every_text_and_pair_of_the_real_files(minilm, real_data, monkeypatch):
    """All of the course's files and of NLI's dev file; of the training pairs of Quora every fourth, of NLI's every
    twelfth, for time."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    both = twins(minilm)
    texts = pairs = 0
    for path in sorted(real_data.glob("*.csv")):
        rows = read(path)[:: {"nli-train.csv": 12, "quora-train.csv": 4}.get(path.name, 1)]
        assert differing(*both, rows) == 0, path.name
        assert_same(*both, *zip(*rows[:256], strict=True))
        texts += len(rows) * len(rows[0])
        pairs += len(rows) * (len(rows[0]) == 2)
    print(f"\n{texts:,} texts and {pairs:,} pairs: ids, masks and token types are transformers'")
    assert texts > 0, f"{real_data} has no .csv"


def test_the_comparison_sees_a_difference(minilm, sample):
    """One word piece exchanged, the case kept, or token types all zero: the same comparison says so."""
    ours, theirs = twins(minilm)
    rows = read(sample / "sts-dev.csv")
    the, a = ours.vocab.index("the"), ours.vocab.index("a")
    vocab = list(ours.vocab)
    vocab[the], vocab[a] = vocab[a], vocab[the]
    assert differing(BertTokenizer(vocab), theirs, rows) > 0
    assert differing(BertTokenizer(ours.vocab, lowercase=False), theirs, rows) > 0

    class Untyped(BertTokenizer):
        def pair(self, a, b):
            row = super().pair(a, b)
            return row._replace(first=len(row.ids))

    assert differing(Untyped(ours.vocab), theirs, rows) == len(rows)


# ---------------------------------------------------------------------------------------------- cutting

LENGTHS = st.integers(min_value=0, max_value=20)


def words(count: int, letters: str) -> str:
    """`count` words of one letter, so of one piece each, and no two neighbours alike."""
    return " ".join(letters[i % len(letters)] for i in range(count))


@settings(deadline=None, max_examples=400)
@given(a=LENGTHS, b=LENGTHS, max_length=st.integers(min_value=4, max_value=24))
@example(a=9, b=9, max_length=10)  # an odd room to share: the longer half goes to b …
@example(a=10, b=9, max_length=10)  # … but to the longer one where there is one
@example(a=3, b=9, max_length=10)  # the shorter one fits whole, to the last piece
@example(a=4, b=9, max_length=10)
def test_a_pair_is_cut_as_longest_first_cuts_it(tiny_twins, a, b, max_length):
    ours, theirs = tiny_twins
    texts = words(a, "abcdefg"), words(b, "tuvwxyz")
    # in lists, since transformers takes the second text of a lone pair for missing if it is empty
    expected = theirs(*([text] for text in texts), truncation="longest_first", max_length=max_length)
    ours.max_length, ours.truncated = max_length, 0
    row = ours.pair(*ours.encode(texts))
    assert row.ids == expected["input_ids"][0]
    assert row.first == expected["token_type_ids"][0].count(0)
    assert ours.truncated == (a + b + 3 > max_length)


@settings(deadline=None, max_examples=100)
@given(a=LENGTHS, max_length=st.integers(min_value=3, max_value=24))
def test_a_single_text_is_cut_from_the_right(tiny_twins, a, max_length):
    ours, theirs = tiny_twins
    text = words(a, "abcdefg")
    ours.max_length, ours.truncated = max_length, 0
    assert ours.single(*ours.encode([text])).ids == theirs(text, truncation=True, max_length=max_length)["input_ids"]
    assert ours.truncated == (a + 2 > max_length)


@pytest.fixture(scope="module")
def tiny_twins(tiny) -> tuple[BertTokenizer, BertTokenizerFast]:
    return twins(tiny)


def test_truncated_counts_the_rows_that_were_cut(tiny):
    tokenizer = BertTokenizer.from_files(tiny / "vocab.txt", max_length=8)
    tokenizer([words(count, "abc") for count in (5, 6, 7, 100)], truncation=True)  # room for 6
    assert tokenizer.truncated == 2
    tokenizer([words(count, "abc") for count in (2, 3, 4)], ["x y z"] * 3, truncation=True)  # room for 5
    assert tokenizer.truncated == 2 + 2


# ---------------------------------------------------------------------------------------------- batches


def by_hand() -> BertTokenizer:
    """A vocabulary that one can number by hand: [PAD] 0 … [MASK] 4, i 5, ##t 6, am 7, 8 the full stop."""
    return BertTokenizer([*SPECIAL, "i", "##t", "am", "."])


def test_a_worked_example():
    tokenizer = by_hand()
    assert tokenizer.encode(["It am.", "I am who", "", "[MASK]"]) == [[5, 6, 7, 8], [5, 7, 1], [], [4]]
    batch = tokenizer(["It am.", "I"], ["I", "am am"], **PADDED)
    assert batch["input_ids"].tolist() == [[2, 5, 6, 7, 8, 3, 5, 3], [2, 5, 3, 7, 7, 3, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 0, 0]]
    assert tokenizer.vocab_size == 9


def test_pad_fills_up_to_the_longest_row():
    batch = by_hand().pad([Row([2, 5, 3], 3), Row([2, 5, 3, 7, 3], 3)])
    assert batch["input_ids"].tolist() == [[2, 5, 3, 0, 0], [2, 5, 3, 7, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]


def test_pads_have_the_vocabulary_s_own_number():
    """Nothing says that [PAD] is 0: it is where the vocabulary has it."""
    tokenizer = BertTokenizer(["i", "am", "[MASK]", "[SEP]", "[PAD]", "[CLS]", "[UNK]"])
    assert tokenizer(["i", "i am"], **PADDED)["input_ids"].tolist() == [[5, 0, 3, 4], [5, 0, 1, 3]]


def test_the_call_that_the_course_s_starter_makes(minilm):
    tokenizer = BertTokenizer.from_pretrained("minilm")
    batch = tokenizer(["hello world", "hello neural network nlp"], return_tensors="pt", padding=True, truncation=True)
    ids = [[101, 7592, 2088, 102, 0, 0, 0], [101, 7592, 15756, 2897, 17953, 2361, 102]]  # the course's own numbers
    assert batch["input_ids"].tolist() == ids
    assert tokenizer("hello world", return_tensors="pt")["input_ids"].tolist() == [ids[0][:4]]  # a batch of one
    assert (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (0, 101, 102, 103)
