"""minbert/data.py: each text is tokenised once, batches lose nothing, and a large file takes little memory."""

import hashlib
import json
import sys
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minbert import data as data_module
from minbert.data import Batches, Dataset, Example, Examples, eval_batches, even_ends, read_examples
from minbert.pretrained import load_tokenizer
from minbert.tasks import TASKS
from minbert.tokenizer import SPECIAL, BertTokenizer

SST, PARA, STS = (TASKS[name] for name in ("sst", "para", "sts"))
WORDS = [f"w{i}" for i in range(100)]


def tokenizer(**options) -> BertTokenizer:
    """A tokenizer of a hundred words, each one piece; w0 has the first id after the special ones."""
    return BertTokenizer([*SPECIAL, *WORDS], **options)


def singles(lengths) -> Dataset:
    """A data set of one-sentence examples with so many words; the label is the example's place."""
    texts = [" ".join(WORDS[(i + k) % 100] for k in range(n)) for i, n in enumerate(lengths)]
    return Dataset(SST, [Example(str(i), (text,), float(i)) for i, text in enumerate(texts)], tokenizer())


def pairs(how: str) -> Dataset:
    rows = [("w1 w2", "w3"), ("w4", "w5 w6 w7")]
    return Dataset(PARA, [Example(str(i), row, float(i)) for i, row in enumerate(rows)], tokenizer(), how)


# ---------------------------------------------------------------------------------------------- encoding


def test_each_text_is_tokenised_once(monkeypatch):
    seen = []
    encode = BertTokenizer.encode
    monkeypatch.setattr(BertTokenizer, "encode", lambda self, texts: seen.extend(texts) or encode(self, texts))
    examples = [Example(str(i), (f"w{i % 5}", "w7 w8"), 1.0) for i in range(40)]
    data = Dataset(PARA, examples, tokenizer())
    stream = Batches(data, 8, seed=0)
    for _ in range(20):
        stream.next()
    list(eval_batches(data))
    assert sorted(seen) == ["w0", "w1", "w2", "w3", "w4", "w7 w8"]


def decode(data: Dataset, batch) -> list[str]:
    rows = zip(batch.input_ids, batch.attention_mask, strict=True)
    return [data.tokenizer.decode(ids[mask == 1]) for ids, mask in rows]


def test_separate_pairs_stand_as_all_first_sentences_then_all_second_ones():
    data = pairs("separate")
    batch = data.batch([1, 0])
    assert decode(data, batch) == [
        "[CLS] w4 [SEP]", "[CLS] w1 w2 [SEP]",
        "[CLS] w5 w6 w7 [SEP]", "[CLS] w3 [SEP]",
    ]  # fmt: skip
    assert len(batch) == 2 and batch.labels.tolist() == [1.0, 0.0] and batch.token_type_ids.sum() == 0


def test_joint_pairs_tell_the_second_sentence_by_its_type():
    data = pairs("joint")
    batch = data.batch([0, 1])
    assert decode(data, batch) == ["[CLS] w1 w2 [SEP] w3 [SEP]", "[CLS] w4 [SEP] w5 w6 w7 [SEP]"]
    assert batch.token_type_ids.tolist() == [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1]]


def test_joint_changes_nothing_for_single_sentences():
    examples = [Example("a", ("w1 w2",), 1.0)]
    joint, separate = (Dataset(SST, examples, tokenizer(), how) for how in ("joint", "separate"))
    assert joint.rows == separate.rows


def test_long_rows_are_cut_and_counted():
    short = tokenizer(max_length=6)
    data = Dataset(SST, [Example("a", ("w1 " * 50,), 1.0), Example("b", ("w2 w3",), 1.0)], short)
    assert data.lengths == [6, 4] and short.truncated == 1


def test_a_test_set_has_batches_without_labels():
    data = Dataset(SST, [Example("a", ("w1",), None), Example("b", ("w2",), None)], tokenizer())
    assert data.labels == [None, None] and data.batch([0, 1]).labels is None


def test_to_the_cpu_changes_nothing():
    batch = singles([3, 5]).batch([0, 1])
    moved = batch.to(torch.device("cpu"))
    assert all(getattr(moved, name) is value for name, value in vars(batch).items())


@pytest.mark.parametrize(("device", "waits"), [("cuda", False), ("mps", True)])
def test_only_a_copy_to_cuda_is_not_waited_for(monkeypatch, device, waits):
    """The copies to these devices are noted, and not made."""
    calls = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *args, **more: (calls.append((args, more)), self)[1])
    singles([3, 5]).batch([0, 1]).to(torch.device(device))
    assert calls == [((torch.device(device),), {} if waits else {"non_blocking": True})] * 4


def test_unknown_words_are_refused():
    for wrong in (lambda: Batches(singles([3]), 1, 0, "token"), lambda: Dataset(SST, [], tokenizer(), "both")):
        with pytest.raises(ValueError, match=r"not '(token|both)'"):
            wrong()


# ---------------------------------------------------------------------------------------------- batching

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=150)


@given(LENGTHS, st.integers(1, 40), st.integers(0, 2**31), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_every_example_once_a_pass_and_all_batches_full_but_one(lengths, size, seed, passes):
    order = Batches(singles(lengths), size, seed).order(passes)
    assert sorted(i for batch in order for i in batch) == list(range(len(lengths)))
    full, rest = divmod(len(lengths), size)
    assert sorted(map(len, order), reverse=True) == [size] * full + [rest] * (rest > 0)


def test_even_ends_of_a_hand_worked_example():
    """Two batches: six rows of at most 2 are 12 tokens, two rows of 4 are 8. Another end makes one of 12 or more."""
    assert even_ends([1, 1, 1, 1, 2, 2, 4, 4], 4) == [6, 8]
    assert even_ends([5, 5, 5, 5], 2) == [2, 4] and even_ends([5, 5, 5], 2) in ([1, 3], [2, 3])
    assert even_ends([1, 1, 1, 9], 1) == [1, 2, 3, 4]
    assert even_ends([10] * 90 + [400] * 10, 25) == [90, 94, 98, 100]  # a long row among 25 short ones would be 10,000


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_no_other_ends_make_a_smaller_largest_batch(lengths, size):
    """All ways to cut the rows into as many batches, tried one by one."""
    lengths, N = sorted(lengths), len(lengths)

    def largest(ends):
        return max((j - i) * lengths[j - 1] for i, j in pairwise([0, *ends]))

    ends = even_ends(lengths, size)
    assert len(ends) == -(-N // size)
    assert largest(ends) == min(largest([*cuts, N]) for cuts in combinations(range(1, N), len(ends) - 1))


@given(LENGTHS, st.integers(1, 40), st.integers(0, 2**31), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_even_batches_have_every_example_once_a_pass_and_are_as_many(lengths, size, seed, passes):
    order = Batches(singles(lengths), size, seed, "tokens").order(passes)
    assert sorted(i for batch in order for i in batch) == list(range(len(lengths)))
    assert all(order) and len(order) == -(-len(lengths) // size)


def test_even_batches_have_fewer_tokens_at_most():
    lengths = [n % 45 + 6 for n in range(400)]
    data = singles(lengths)
    tokens = {}
    for even in ("examples", "tokens"):
        order = Batches(data, 8, 0, even).order(0)
        tokens[even] = [len(batch) * max(data.lengths[i] for i in batch) for batch in order]
        assert len(order) == 50
    mean = sum(data.lengths) / 50
    assert max(tokens["tokens"]) < 1.3 * mean < 1.6 * mean < max(tokens["examples"])
    assert min(tokens["tokens"]) > 0.8 * mean > 0.4 * mean > min(tokens["examples"])


def drain(stream: Batches, count: int) -> list[list[int]]:
    return [stream.next().indices for _ in range(count)]


def test_the_stream_goes_on_with_another_order():
    stream = Batches(singles([5] * 40), 4, seed=3)
    assert len(stream) == 10
    passes = [drain(stream, 10) for _ in range(4)]
    for order in passes:
        assert sorted(i for batch in order for i in batch) == list(range(40))
    assert all(a != b for k, a in enumerate(passes) for b in passes[:k])


def test_the_order_depends_on_the_seed_alone():
    data = singles([n % 9 + 1 for n in range(60)])
    torch.manual_seed(1)
    first = drain(Batches(data, 7, seed=5), 30)
    torch.manual_seed(2)
    assert drain(Batches(data, 7, seed=5), 30) == first
    assert drain(Batches(data, 7, seed=6), 30) != first


def test_the_stream_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    drain(Batches(singles([3] * 20), 4, seed=0), 12)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_resumed_stream_goes_on_exactly_where_it_stopped():
    data = singles([n % 9 + 1 for n in range(50)])
    whole = drain(Batches(data, 8, seed=5), 40)  # passes of 7 batches
    for step in range(25):
        stopped = Batches(data, 8, seed=5)
        drain(stopped, step)
        state = json.loads(json.dumps(stopped.state_dict()))
        resumed = Batches(data, 8, seed=5)
        resumed.load_state_dict(state)
        assert drain(resumed, 15) == whole[step : step + 15]
    forgetful = Batches(data, 8, seed=5)  # without its state it starts anew
    assert drain(forgetful, 15) != whole[24:39]


@given(LENGTHS, st.integers(1, 400))
@settings(max_examples=50, deadline=None)
def test_evaluation_sees_every_example_once_within_its_budget(lengths, tokens):
    data = singles(lengths)
    batches = list(eval_batches(data, tokens))
    assert sorted(i for batch in batches for i in batch.indices) == list(range(len(lengths)))
    assert all(batch.input_ids.numel() <= tokens or len(batch) == 1 for batch in batches)
    widths = [batch.input_ids.shape[1] for batch in batches]
    assert widths == sorted(widths, reverse=True) and widths[0] == max(lengths) + 2  # the longest comes first


def test_the_budget_counts_both_sentences_of_a_pair():
    examples = [Example(str(i), ("w1 w2", "w3"), 1.0) for i in range(20)]
    batches = list(eval_batches(Dataset(PARA, examples, tokenizer()), tokens=40))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5]  # 5 · 2 rows · 4 tokens


# ---------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("task", "pairs", "cut", "expected"),
    [
        ("sst", "separate", 56, "0938304db6cfc77e"),
        ("para", "separate", 1, "3985c3658d6c2252"),
        ("para", "joint", 142, "13fac4320bb5bf23"),
        ("sts", "joint", 125, "f9399ad5bc4aa906"),
        ("nli", "joint", 192, "08d360aea3bd0532"),
    ],
)
def test_batches_are_those_of_plain_lists_to_the_bit(tiny, sample, task, pairs, cut, expected, monkeypatch):
    """The digests are those of the first version, which kept each row as a list of Python numbers."""
    monkeypatch.setattr(data_module, "CHUNK", 7)
    short = BertTokenizer(load_tokenizer(tiny).vocab, max_length=24)
    examples = read_examples(sample / TASKS[task].file.format("train"), TASKS[task])
    data = Dataset(TASKS[task], examples, short, pairs)
    assert short.truncated == cut
    stream, digest = Batches(data, 8, seed=11711), hashlib.sha256()
    for batch in [*(stream.next() for _ in range(2 * len(stream))), *eval_batches(data, 1000)]:
        for tensor in (batch.input_ids, batch.attention_mask, batch.token_type_ids, batch.labels):
            digest.update(repr(tensor.shape).encode() + tensor.numpy().tobytes())
        digest.update(repr(batch.indices).encode())
    assert digest.hexdigest()[:16] == expected


def test_rows_are_those_that_the_tokenizer_makes():
    examples = [Example(None, ("w1 w2 w3", "w4"), 1.0), Example(None, ("", "w9"), 0.0)]
    for how in ("separate", "joint"):
        words = tokenizer()
        texts = [words.encode(example.texts) for example in examples]
        expected = [(words.pair(a, b),) if how == "joint" else (words.single(a), words.single(b)) for a, b in texts]
        assert Dataset(PARA, examples, words, how).rows == expected


def test_texts_go_to_the_tokenizer_in_chunks(monkeypatch):
    sizes = []
    encode = BertTokenizer.encode
    monkeypatch.setattr(BertTokenizer, "encode", lambda self, texts: sizes.append(len(texts)) or encode(self, texts))
    monkeypatch.setattr(data_module, "CHUNK", 100)
    examples = [Example(None, (f"w1 x{i}",), 1.0) for i in range(250)]
    assert len(Dataset(SST, examples, tokenizer())) == 250 and sizes == [100, 100, 50]


def test_a_token_takes_about_four_bytes():
    data = singles([50] * 2000)
    tokens = sum(data.lengths)
    store = sum(sys.getsizeof(part) for part in (data._ids.numbers, data._ids.ends, data._firsts))
    assert store / tokens < 6
    lists = sum(sys.getsizeof(row.ids) for rows in data.rows for row in rows)
    assert lists / tokens > 8  # what plain lists take, not counting the numbers themselves


def test_a_data_set_keeps_the_form_of_its_predictions():
    examples = Examples([Example("0", ("w1",), 1.0)], "cmu2023")
    assert Dataset(SST, examples, tokenizer()).examples.form == "cmu2023"
    assert Dataset(SST, list(examples), tokenizer()).examples.form is None
