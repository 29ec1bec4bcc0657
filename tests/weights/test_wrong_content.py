"""Well-formed files with wrong content are one line that names what is wrong, before a model of them is built."""

import json
import time
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from minbert.bert import BertModel
from minbert.checkpoint import load_model, load_trained, save_model, save_trained
from minbert.config import BertConfig
from minbert.errors import UserError
from minbert.multitask import MultitaskBert
from minbert.pretrained import load_bert, load_tokenizer, save_pretrained
from minbert.state import read_state, write_state
from minbert.tokenizer import BertTokenizer
from tests.weights.oracle_bert import CONFIG, VOCAB

NAN, WORDS = float("nan"), "bert.word_embedding.weight"


def model(**additions) -> MultitaskBert:
    torch.manual_seed(0)
    return MultitaskBert(BertModel(CONFIG), ["sst", "sts"], additions=additions)


def saved(folder: Path, **additions) -> dict:
    """What `save_model` writes of a small model."""
    save_model(folder / "whole", model(**additions), BertTokenizer(VOCAB, max_length=16))
    return read_state(folder / "whole")


def refused(action) -> str:
    """The line with which an action is refused, within two seconds of the processor's time."""
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        action()
    line = str(caught.value)
    assert time.process_time() - start < 2 and "\n" not in line and len(line) < 500
    return line


# ---------------------------------------------------------------------------------------------- weights of no use

WRONG_TENSORS = {
    "NaN": (lambda t: torch.full_like(t, NAN), "NaN"),
    "infinite": (lambda t: torch.full_like(t, -float("inf")), "infinite"),
    "too large for float32": (lambda t: torch.full_like(t, 1e300, dtype=torch.float64), "infinite"),
    "int8": (lambda t: t.to(torch.int8), "int8"),
    "int64": (lambda t: t.long(), "int64"),
    "bool": (lambda t: t.bool(), "bool"),
    "complex": (lambda t: t.to(torch.complex64), "complex64"),
    "float8": (lambda t: t.to(torch.float8_e4m3fn), "float8"),
    "sparse": (lambda t: t.to_sparse(), "dense"),
    "meta": (lambda t: t.to("meta"), "meta"),
    "a number that stands for all": (lambda t: torch.zeros(1).expand(t.shape), "contiguous"),
    "a number that stands for 10¹²": (lambda t: torch.zeros(1).expand(10**6, 10**6), "contiguous"),
    "a text": (lambda t: "x", "a str, not a tensor"),
    "nothing": (lambda t: None, "a NoneType, not a tensor"),
}


@pytest.mark.parametrize("kind", WRONG_TENSORS)
def test_a_weight_that_holds_no_usable_numbers_is_named(tmp_path, kind):
    change, said = WRONG_TENSORS[kind]
    whole = saved(tmp_path)
    torch.save(whole | {"model": whole["model"] | {WORDS: change(whole["model"][WORDS])}}, tmp_path / "x.pt")
    for load in (load_bert, load_tokenizer):
        line = refused(lambda load=load: load(tmp_path / "x.pt"))
        assert said in line and "word_embedding.weight" in line and "x.pt" in line


@pytest.mark.parametrize("kind", ["NaN", "int8", "int64", "complex", "a text"])
@pytest.mark.parametrize("name", [WORDS, "heads.sst.linear.bias"])
def test_such_a_weight_in_a_folder_of_ours_is_named(tmp_path, kind, name):
    whole = saved(tmp_path)
    write_state(
        tmp_path / "x", whole | {"model": whole["model"] | {name: WRONG_TENSORS[kind][0](whole["model"][name])}}
    )
    line = refused(lambda: load_model(tmp_path / "x"))
    assert name in line and WRONG_TENSORS[kind][1] in line


def test_such_a_weight_among_what_was_trained_is_named(tmp_path):
    trained = model(lora={"rank": 2})
    save_trained(tmp_path / "whole", trained)
    whole, name = read_state(tmp_path / "whole"), "heads.sst.linear.bias"
    for change, said in (WRONG_TENSORS["NaN"], WRONG_TENSORS["int8"]):
        write_state(tmp_path / "x", whole | {"trained": whole["trained"] | {name: change(whole["trained"][name])}})
        line = refused(lambda: load_trained(tmp_path / "x", model().bert))
        assert name in line and said in line
    write_state(tmp_path / "x", whole | {"trained": whole["trained"] | {WORDS: torch.zeros(20, 64)}})
    assert WORDS in refused(lambda: load_trained(tmp_path / "x", model().bert))
    assert load_trained(tmp_path / "whole", model().bert)


SHAPES = {
    "of one dimension": {"word_embedding.weight": torch.ones(5)},
    "of none": {"word_embedding.weight": torch.tensor(1.0)},
    "of three": {"word_embedding.weight": torch.ones(2, 2, 2)},
    "without rows": {"word_embedding.weight": torch.ones(0, 0)},
    "a layer of none": {"bert_layers.0.interm_dense.weight": torch.tensor(1.0)},
    "positions of none": {"pos_embedding.weight": torch.tensor(1.0)},
    "5,000 layers": {f"bert_layers.{i}.x": torch.ones(1) for i in range(5_000)},
    "a layer of a word": {"bert_layers.zero.x": torch.ones(1)},
    "an entry without a name": {5: torch.ones(1)},
}


@pytest.mark.parametrize("kind", SHAPES)
def test_weights_of_other_shapes_are_one_line(tmp_path, kind):
    weights: dict[object, Tensor] = dict(model().bert.state_dict())
    torch.save({"model": weights | SHAPES[kind], "config": CONFIG.to_dict()}, tmp_path / "x.pt")
    if len(SHAPES[kind]) < 10:
        assert "x.pt" in refused(lambda: load_bert(tmp_path / "x.pt"))
    else:  # reading so many takes PyTorch some seconds
        with pytest.raises(UserError, match="num_hidden_layers"):
            load_bert(tmp_path / "x.pt")


# ---------------------------------------------------------------------------------------------- sizes and settings

CONFIGS = {
    "num_hidden_layers": [10**7, 10**30, True, "2", 2.0, NAN, 3, [2]],
    "vocab_size": [10**9, 10**12, 10**30, 0],
    "hidden_size": [64 * 10**6, 64 * 10**12, 32],
    "intermediate_size": [10**9, 10**12],
    "max_position_embeddings": [10**9, 10**12],
    "num_attention_heads": [10**9, "x", NAN, [4], 7],
    "hidden_dropout_prob": [NAN, 7, "x", None],
    "layer_norm_eps": [NAN, float("inf"), "x", 10**400],
    "initializer_range": [NAN, -1],
    "pad_token_id": [10**9, "x"],
    "hidden_act": [{"a": 1}, NAN, ["gelu"]],
}


@pytest.mark.parametrize("key, value", [(key, value) for key, values in CONFIGS.items() for value in values], ids=str)
def test_a_size_that_does_not_fit_is_named_and_nothing_is_built(tmp_path, key, value, monkeypatch):
    whole = saved(tmp_path)
    config = whole["config"] | {key: value}
    save_pretrained(model().bert, BertTokenizer(VOCAB, max_length=16), tmp_path / "folder")
    (tmp_path / "folder" / "config.json").write_text(json.dumps(config))
    torch.save(whole | {"config": config}, tmp_path / "x.pt")
    write_state(tmp_path / "ours", whole | {"config": config})
    monkeypatch.setattr(BertModel, "embed", None)
    lines = [refused(lambda: load_bert(tmp_path / "folder")), refused(lambda: load_model(tmp_path / "ours"))]
    if not key.endswith(("size", "layers", "embeddings")) or value == 10**7:  # a file's sizes are its weights' shapes
        lines.append(refused(lambda: load_bert(tmp_path / "x.pt")))
    sizes = {"vocab_size": "word_embedding", "max_position_embeddings": "pos_embedding", "hidden_size": "embedding",
             "intermediate_size": "interm_dense", "num_hidden_layers": "bert_layers.2"}  # fmt: skip
    assert all(key in line or sizes.get(key, key) in line for line in lines), lines


def build(**changes):
    return lambda whole: whole["build"] | changes


BUILDS = {
    "no dict": lambda whole: [1],
    "another key": build(evil=1),
    "no tasks": lambda whole: {k: v for k, v in whole["build"].items() if k != "tasks"},
    "tasks that are a number": build(tasks=5),
    "an unknown task": build(tasks=["nosuch"]),
    "a task of other values": build(tasks=[{"evil": 1}]),
    "a task without a name": build(tasks=[{"name": 5, "texts": 5, "label": 5}]),
    "unknown pairs": build(pairs="evil"),
    "unknown pooling": build(pooling="evil"),
    "heads in a list": build(heads=["x"]),
    "a dropout of 7": build(dropout=7),
    "additions in a list": build(additions=[1]),
    "an unknown addition": build(additions={"evil": {}}),
    "an addition that is a number": build(additions={"lora": 5}),
    "a rank of 10⁹": build(additions={"lora": {"rank": 10**9}}),
    "a rank of 10³⁰": build(additions={"lora": {"rank": 10**30}}),
    "a rank of a word": build(additions={"lora": {"rank": "x"}}),
    "a scale of a word": build(additions={"lora": {"rank": 2, "alpha": "x"}}),
    "targets that are a number": build(additions={"lora": {"rank": 2, "targets": 5}}),
    "another setting": build(additions={"lora": {"rank": 2, "junk": 1}}),
    "an unknown adapter": build(additions={"adapter": {"adapter": "evil"}}),
    "an adapter without a kind": build(additions={"adapter": {"size": 3}}),
    "an adapter 10⁹ wide": build(additions={"adapter": {"adapter": "low_rank", "size": 10**9}}),
}


@pytest.mark.parametrize("kind", BUILDS)
def test_a_description_that_cannot_be_built_is_one_line(tmp_path, kind):
    whole = saved(tmp_path, lora={"rank": 2})
    wrong = whole | {"build": BUILDS[kind](whole)}
    write_state(tmp_path / "ours", wrong)
    assert "ours" in refused(lambda: load_model(tmp_path / "ours"))
    torch.save(wrong, tmp_path / "x.pt")
    if not kind.startswith(
        ("another key", "no tasks", "tasks", "unknown p", "heads", "a dropout", "a task", "an unknown t")
    ):
        assert "x.pt" in refused(lambda: load_bert(tmp_path / "x.pt"))  # which reads what was added to BERT alone


@pytest.mark.parametrize("tokenizer", [None, 5, "{}", "[1]", "x"])
def test_a_tokenizer_that_is_none_is_one_line(tmp_path, tokenizer):
    whole = saved(tmp_path)
    write_state(tmp_path / "ours", whole | {"tokenizer": tokenizer})
    assert "tokenizer" in refused(lambda: load_model(tmp_path / "ours"))


def test_a_tokenizer_of_another_model_is_one_line(tmp_path):
    other = BertTokenizer([*VOCAB, "one", "more"]).to_json()
    write_state(tmp_path / "ours", saved(tmp_path) | {"tokenizer": other})
    assert "22 pieces" in refused(lambda: load_model(tmp_path / "ours"))


def test_the_whole_files_load(tmp_path):
    """What every file above was before it was changed."""
    whole = saved(tmp_path, lora={"rank": 2})
    torch.save(whole, tmp_path / "x.pt")
    assert isinstance(load_model(tmp_path / "whole")[0], MultitaskBert)
    assert isinstance(load_bert(tmp_path / "x.pt"), BertModel) and load_tokenizer(tmp_path / "x.pt").vocab
    old = {"vocab": VOCAB, "lowercase": True} | {k: v for k, v in whole.items() if k != "tokenizer"}
    torch.save(old, tmp_path / "old.pt")  # earlier versions kept the vocabulary itself
    assert list(load_tokenizer(tmp_path / "old.pt").vocab) == VOCAB


# ---------------------------------------------------------------------------------------------- bombs


def test_a_file_that_unpacks_to_far_more_is_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02X" + bytes(300 << 20))
    assert (tmp_path / "x.pt").stat().st_size < 1 << 20
    assert "would unpack to 314,572," in refused(lambda: load_bert(tmp_path / "x.pt"))


class Bomb:
    """Pickles as a call that fills the memory."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("bomb", [Bomb(bytes, 10**11), Bomb(list, range(10**11)), Bomb(tuple, range(10**11))])
def test_a_short_pickle_that_fills_the_memory_is_one_line(tmp_path, bomb):
    torch.save({"model": model().bert.state_dict(), "bomb": bomb}, tmp_path / "x.pt")
    assert "x.pt" in refused(lambda: load_bert(tmp_path / "x.pt"))


@pytest.mark.parametrize(
    "content",
    [b"[" * 10**5, b'{"a":' * 10**5, b'{"hidden_size": ' + b"9" * 5000 + b"}"],
    ids=["deep lists", "deep objects", "a long number"],
)
def test_a_config_that_json_cannot_read_is_one_line(tmp_path, content):
    save_pretrained(model().bert, BertTokenizer(VOCAB), tmp_path / "x")
    (tmp_path / "x" / "config.json").write_bytes(content)
    assert "config.json" in refused(lambda: load_bert(tmp_path / "x"))


def test_no_published_bert_has_more_layers_than_are_allowed():
    assert BertConfig(num_hidden_layers=48).num_hidden_layers == 48
