"""What programs written for transformers call on a tokenizer: the same answer as there, or a clear refusal."""

import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from minbert.tokenizer import SPECIAL, BertTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCAB = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), "film", "good", *".,!?'"]
ONE = "A good film, isn't it?"
MANY = ["A good film, isn't it?", "", "films", "[MASK] of the unaffable 的 [SEP] x"]
Twins = tuple[BertTokenizer, transformers.BertTokenizerFast]


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Twins:
    """Ours and transformers', from the same files, with tokens added; both cut at 20."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join(VOCAB))
    added = {"<e1>": len(VOCAB), "[NAME]": len(VOCAB) + 1}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": 20, "additional_special_tokens": ["<e1>"]})
    )
    return BertTokenizer.from_files(folder, max_length=20), transformers.AutoTokenizer.from_pretrained(folder)


def outcome(tokenizer, *texts, **options):
    """A call's result as plain lists, or the fact that it is refused."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = tokenizer(*texts, **options)
        except Exception as error:
            assert not isinstance(tokenizer, BertTokenizer) or isinstance(error, TypeError | ValueError)
            return "refused"
    kinds = {name: type(values) for name, values in result.items()}
    plain = {name: values.tolist() if hasattr(values, "tolist") else values for name, values in result.items()}
    return kinds, plain, any("max_length" in str(warning.message) for warning in caught)


TEXTS = {
    "one text": (ONE,),
    "a pair": (ONE, "films of the film"),
    "a pair with nothing in the second": (ONE, ""),
    "several texts": (MANY,),
    "a tuple of texts": (tuple(MANY),),
    "several pairs": (MANY, MANY[::-1]),
    "pairs as tuples": ([("a film", "b"), ("c", "good")],),
    "a batch of one": (["film"],),
    "no text": ([],),
    "a number": (3,),
    "a missing value": (["film", None],),
    "nothing": (None,),
    "unequal lists": (MANY, ["a"]),
    "texts and one second": (MANY, "a"),
}
OPTIONS = [
    dict(zip(("padding", "truncation", "max_length", "return_tensors"), values, strict=True))
    for values in itertools.product(
        (False, True, "longest", "max_length", "do_not_pad"),
        (None, False, True, "longest_first", "only_first", "do_not_truncate"),
        (None, 7, 30),
        (None, "pt"),
    )
]


@pytest.mark.parametrize("texts", TEXTS)
def test_a_call_means_what_it_means_there(both, texts):
    """180 combinations of the four options, each left out where it is at its default, for every form of input."""
    defaults = {"padding": False, "truncation": None, "max_length": None, "return_tensors": None}
    ours, theirs = both
    for options in OPTIONS:
        given = {name: value for name, value in options.items() if value != defaults[name]}
        mine, expected = outcome(ours, *TEXTS[texts], **given), outcome(theirs, *TEXTS[texts], **given)
        if mine[:2] == expected[:2]:
            assert mine[2] or not expected[2], given  # where transformers warns, so do we
        else:
            pytest.fail(f"{given}: {mine} instead of {expected}")


@pytest.mark.parametrize("options", [
    {"add_special_tokens": False}, {"add_special_tokens": False, "max_length": 2, "truncation": True},
    {"return_token_type_ids": False}, {"return_attention_mask": False}, {"return_attention_mask": True},
    {"truncation": "only_second", "max_length": 12},
], ids=str)  # fmt: skip
def test_the_other_options(both, options):
    ours, theirs = both
    for texts in ((MANY, ["films of the film and of it"] * 4), (ONE, "films of the film and of it")):
        assert outcome(ours, *texts, **options) == outcome(theirs, *texts, **options)


@pytest.mark.parametrize("option", [
    {"return_tensors": "np"}, {"padding": "left"}, {"truncation": "sometimes"}, {"stride": 2}, {"padding_side": "left"},
    {"is_split_into_words": True}, {"return_offsets_mapping": True}, {"pad_to_max_length": True},
    {"truncation": True, "max_length": 1}, {"truncation": True, "max_length": 0},
], ids=str)  # fmt: skip
def test_what_is_not_done_here_is_refused_and_not_ignored(both, option):
    with pytest.raises((TypeError, ValueError)) as caught:
        both[0](MANY, **option)
    assert next(iter(option)) in str(caught.value) or "max_length" in str(caught.value)


def test_a_call_leaves_nothing_behind(both):
    """Cutting and padding are set for one call; `encode` of several texts knows neither."""
    ours = both[0]
    before = ours.encode(MANY)
    ours(MANY, padding="max_length", truncation=True, max_length=5)
    with pytest.raises(TypeError):
        ours(["a", None], padding=True, truncation=True, max_length=5)
    assert ours.encode(MANY) == before


def test_the_result_has_attributes_and_goes_to_a_device(both):
    batch = both[0](MANY, padding=True, return_tensors="pt")
    assert torch.equal(batch.input_ids, batch["input_ids"]) and batch.to("meta").attention_mask.is_meta
    with pytest.raises(AttributeError):
        _ = batch.pixel_values
    assert {**batch}.keys() == {"input_ids", "token_type_ids", "attention_mask"}


# ---------------------------------------------------------------------------------------------- the other methods

CALLS = {
    "encode": lambda t: t.encode(ONE),
    "encode a pair": lambda t: t.encode(ONE, "films"),
    "encode, cut": lambda t: t.encode(ONE, add_special_tokens=False, max_length=4, truncation=True),
    "encode to a tensor": lambda t: t.encode(ONE, return_tensors="pt").tolist(),
    "tokenize": lambda t: [t.tokenize(text) for text in MANY],
    "tokenize, as CMU's starter does": lambda t: t.tokenize("[CLS] " + ONE + " [SEP]"),
    "tokenize a pair": lambda t: t.tokenize(ONE, "films", add_special_tokens=True),
    "tokens to ids": lambda t: t.convert_tokens_to_ids(["film", "##s", "[NAME]", "<e1>", "nowhere"]),
    "a token to its id": lambda t: t.convert_tokens_to_ids("film"),
    "an unknown token": lambda t: t.convert_tokens_to_ids("nowhere"),
    "ids to tokens": lambda t: t.convert_ids_to_tokens([2, 5, 57, 64, 65, 3, 0]),
    "an id to its token": lambda t: t.convert_ids_to_tokens(57),
    "ids beyond the end": lambda t: t.convert_ids_to_tokens([1000, 5]),
    "ids to tokens but specials": lambda t: t.convert_ids_to_tokens([2, 5, 64, 65, 3, 0], skip_special_tokens=True),
    "a tensor of ids to tokens": lambda t: t.convert_ids_to_tokens(torch.tensor([2, 5, 3])),
    "tokens to a string": lambda t: t.convert_tokens_to_string(["film", "##s", ".", "[SEP]"]),
    "decode": lambda t: [t.decode(ids) for ids in t(MANY)["input_ids"]],
    "decode but specials": lambda t: [t.decode(ids, skip_special_tokens=True) for ids in t(MANY)["input_ids"]],
    "decode an id": lambda t: t.decode(57),
    "decode an array": lambda t: t.decode(np.array([2, 57, 58, 3])),
    "decode a tensor": lambda t: t.decode(torch.tensor([2, 57, 64, 65, 3])),
    "decode nothing": lambda t: t.decode([]),
    "decode rows": lambda t: t.decode(t(MANY)["input_ids"]),
    "batch_decode": lambda t: t.batch_decode(t(MANY, padding=True, return_tensors="pt")["input_ids"]),
    "batch_decode but specials": lambda t: t.batch_decode(t(MANY)["input_ids"], skip_special_tokens=True),
    "the vocabulary": lambda t: t.get_vocab(),
    "sizes": lambda t: (t.vocab_size, len(t), t.model_max_length),
    "special tokens": lambda t: (t.all_special_tokens, t.all_special_ids),
    "named tokens": lambda t: (t.cls_token, t.sep_token, t.pad_token, t.mask_token, t.unk_token),
    "their ids": lambda t: (t.cls_token_id, t.sep_token_id, t.pad_token_id, t.mask_token_id, t.unk_token_id),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_method_answers_as_there(both, call):
    ours, theirs = both
    assert CALLS[call](ours) == CALLS[call](theirs)


def test_encode_of_several_texts_is_our_own(both):
    """[CLS] and [SEP] come later, with `single` and `pair`; whoever passes options means something else."""
    ours = both[0]
    assert ours.encode(["film", "a"]) == [[ours.convert_tokens_to_ids("film")], [5]]
    with pytest.raises(TypeError, match="call the tokenizer"):
        ours.encode(["film"], ["a"])
    with pytest.raises(TypeError, match="call the tokenizer"):
        ours.encode(["film"], add_special_tokens=True)


def test_tokenize_takes_one_text(both):
    with pytest.raises(TypeError, match="is not a text"):
        both[0].tokenize(["a film", "a dog"])


def test_the_names_of_transformers_4(both):
    assert both[0].encode_plus(ONE, max_length=5, truncation=True) == both[0](ONE, max_length=5, truncation=True)
    assert both[0].batch_encode_plus(MANY, padding=True) == both[0](MANY, padding=True)


def test_the_length_can_be_set(tmp_path):
    tokenizer = BertTokenizer(VOCAB)
    tokenizer.model_max_length = 6
    assert len(tokenizer(ONE, truncation=True)["input_ids"]) == 6 and tokenizer.single([5] * 9).first == 6


def test_saved_and_read_again(both, tmp_path: Path):
    both[0].save_pretrained(tmp_path)
    for again in (BertTokenizer.from_pretrained(tmp_path), transformers.BertTokenizer.from_pretrained(tmp_path)):
        assert outcome(again, MANY, truncation=True) == outcome(both[1], MANY, truncation=True)
        assert again.all_special_tokens == both[1].all_special_tokens


def test_do_lower_case_can_be_said_at_the_call(tmp_path):
    BertTokenizer([*VOCAB, "Film"]).save_pretrained(tmp_path)
    assert BertTokenizer.from_pretrained(tmp_path).tokenize("Film") == ["film"]
    assert BertTokenizer.from_pretrained(tmp_path, do_lower_case=False).tokenize("Film") == ["Film"]
