"""Strict loading: a weight that is missing, left over, misshapen or no number is named; a bad file is one line."""

import json
import os
from pathlib import Path

import pytest
import torch
import transformers

from minbert.hub import find
from minbert.pretrained import load_bert, load_tokenizer
from tests.weights.oracle_bert import CONFIG, VOCAB, WORDS, model_folder, put, random_bert, refusal, weights_of


@pytest.fixture(scope="module")
def theirs() -> transformers.BertModel:
    return random_bert()


@pytest.fixture
def folder(tmp_path) -> Path:
    return model_folder(tmp_path / "model")


# ---------------------------------------------------------------------------------------------- strictness


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("pooler.dense.bias"), "pooler_dense.bias is missing"),
        (lambda w: w.pop("pooler.dense.weight"), "pooler_dense.weight is missing"),
        (lambda w: w.pop("encoder.layer.1.output.dense.weight"), "bert_layers.1.out_dense.weight is missing"),
        (lambda w: w.update({"adapter.weight": torch.ones(2)}), "adapter.weight belongs to no part"),
        (lambda w: w.update({"encoder.layer.2.output.dense.bias": torch.ones(64)}), "bert_layers.2.out_dense.bias"),
        (lambda w: w.update({WORDS: torch.ones(30, 64)}), "word_embedding.weight has shape (30, 64)"),
        (lambda w: w.update({"pooler.dense.bias": torch.ones(63)}), "pooler_dense.bias has shape (63,)"),
    ],
)
def test_a_weight_that_does_not_fit_is_named(folder, theirs, change, said):
    weights = weights_of(theirs)
    change(weights)
    put(folder, weights)
    message = refusal(lambda: load_bert(folder))
    assert said in message and str(folder) in message


def test_several_misfits_are_counted(folder, theirs):
    weights = {name: tensor for name, tensor in weights_of(theirs).items() if "layer.1" not in name}
    put(folder, weights)
    assert "is missing (and 15 more such)" in refusal(lambda: load_bert(folder))  # a layer has 16 tensors


@pytest.mark.parametrize("pieces", [22, 20 + 1025])
def test_a_vocabulary_of_another_model(folder, theirs, pieces):
    rows = 20 if pieces == 22 else 20 + 2 * 1025
    put(folder, weights_of(theirs))
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict() | {"vocab_size": rows}))
    (folder / "vocab.txt").write_text("\n".join([*VOCAB, *(f"w{i}" for i in range(pieces - 20))]))
    message = refusal(lambda: load_tokenizer(folder))
    assert f"{pieces:,} pieces" in message and f"word_embedding.weight has {rows:,} rows" in message


def test_rows_without_a_piece_are_left_alone_and_said(folder, theirs, capsys):
    """An embedding is made longer for speed, a multiple of 8 or 64, or for tokens that were never added."""
    theirs = random_bert()
    theirs.resize_token_embeddings(64)
    theirs.save_pretrained(folder)
    assert load_tokenizer(folder).vocab == VOCAB and load_bert(folder).word_embedding.num_embeddings == 64
    assert "44 rows of word_embedding.weight have no piece" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("hidden_act", "gelu_new"),
        ("hidden_act", "relu"),
        ("model_type", "roberta"),
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("add_cross_attention", True),
    ],
)
def test_a_model_that_would_compute_something_else_is_refused(folder, theirs, entry, value):
    put(folder, weights_of(theirs))
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict() | {entry: value}))
    message = refusal(lambda: load_bert(folder))
    assert entry in message and str(value) in message and "config.json" in message


@pytest.mark.parametrize(
    ("entry", "value"),
    [("hidden_dropout_prob", 1.0), ("attention_probs_dropout_prob", None), ("layer_norm_eps", "1e-12"),
     ("pad_token_id", 20), ("num_hidden_layers", True), ("hidden_size", 64.0)],
)  # fmt: skip
def test_a_size_that_is_none_is_named(folder, theirs, entry, value):
    put(folder, weights_of(theirs))
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict() | {entry: value}))
    assert f"{entry} is {value!r}" in refusal(lambda: load_bert(folder))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1, 2]", "{}", '{"hidden_size": "64"}', '{"num_attention_heads": 0}', '{"num_attention_heads": 5}'],
)
def test_a_config_that_is_none(folder, theirs, content):
    put(folder, weights_of(theirs))
    (folder / "config.json").write_text(content)
    assert "config.json" in refusal(lambda: load_bert(folder))


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.99])
def test_a_weights_file_cut_short(folder, theirs, file, share):
    path = folder / file
    if file == "model.safetensors":
        put(folder, weights_of(theirs))
    else:
        torch.save(weights_of(theirs), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert file in refusal(lambda: load_bert(folder))


class Hostile:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_hostile_pickle_is_refused_and_not_run(folder, tmp_path, name):
    trace = tmp_path / "trace"
    torch.save({WORDS: torch.ones(2), "evil": Hostile(trace)}, folder / name)
    source = folder if name == "pytorch_model.bin" else folder / name
    for _ in range(2):  # not run at the second try either
        assert f"{name}: refused" in refusal(lambda: load_bert(source))
        assert not trace.exists()
    torch.load(folder / name, weights_only=False)  # the trap works
    assert trace.exists()


# ---------------------------------------------------------------------------------------------- no numbers

QUERY = "encoder.layer.0.attention.self.query.weight"
ROW = torch.ones(64, 64)
BAD = {
    "int8": (ROW.to(torch.int8), "torch.int8"),
    "complex": (ROW.to(torch.complex64), "torch.complex64"),
    "float8": (ROW.to(torch.float8_e4m3fn), "torch.float8_e4m3fn"),
    "meta": (torch.ones(64, 64, device="meta"), "meta tensor"),
    "sparse": (ROW.to_sparse(), "sparse"),
    "NaN": (ROW * float("nan"), "NaN"),
    "infinite": (ROW.double() * 1e300 * 1e300, "infinite"),
    "a list": ([1.0], "is a list"),
    "a number": (1.0, "is a float"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_plain_number_is_named(folder, theirs, kind):
    value, said = BAD[kind]
    torch.save(weights_of(theirs) | {QUERY: value}, folder / "pytorch_model.bin")
    message = refusal(lambda: load_bert(folder))
    assert QUERY in message and said in message and str(folder) in message


def test_what_is_no_plain_number_in_a_head_does_not_matter(folder, theirs):
    weights = {f"bert.{name}": tensor for name, tensor in weights_of(theirs).items()}
    torch.save(weights | {"classifier.weight": ROW * float("nan")}, folder / "pytorch_model.bin")
    assert load_bert(folder)


# ---------------------------------------------------------------------------------------------- no weights


STAND_INS = {
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
    "a web page": (b"<!DOCTYPE html><html><title>Quota exceeded</title></html>", "web page"),
    "a page without a doctype": (b"  \n<html><body>Log in</body></html>", "web page"),
    "nothing": (b"", "empty"),
    "a gzip archive": (b"\x1f\x8b\x08\x00" + b"x" * 99, "gzip"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + b"x" * 99, "HDF5"),
}


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "config.json", "vocab.txt"])
@pytest.mark.parametrize("kind", STAND_INS)
def test_a_file_that_stands_in_for_another_is_recognised(folder, theirs, file, kind):
    if not file.startswith("pytorch"):
        put(folder, weights_of(theirs))
    content, said = STAND_INS[kind]
    (folder / file).write_bytes(content)
    message = refusal(lambda: load_tokenizer(folder) if file == "vocab.txt" else load_bert(folder))
    assert f"{file}: is " in message and said in message


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (None, "holds neither model.safetensors nor pytorch_model.bin"),
        ("tf_model.h5", "tf_model.h5 (TensorFlow's), which this program does not read; fetch one of the two"),
        ("flax_model.msgpack", "flax_model.msgpack (Flax's)"),
        ("bert_model.ckpt.index", "bert_model.ckpt.index (TensorFlow's)"),
    ],
)
def test_a_directory_without_weights_says_what_there_is(folder, file, said):
    if file:
        (folder / file).touch()
    assert said in refusal(lambda: load_bert(folder))


def test_a_directory_that_is_no_models(folder):
    put(folder, {"weight": torch.ones(2)})
    (folder / "config.json").unlink()
    message = refusal(lambda: find(folder))
    assert str(folder) in message and "config.json" in message and "vocab.txt" not in message


@pytest.mark.parametrize(("file", "said"), [("best.pt", "best.pt"), ("adapter_config.json", "merge_and_unload")])
def test_a_directory_of_another_kind_says_what_to_do(tmp_path, file, said):
    (tmp_path / file).touch()
    assert said in refusal(lambda: find(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "vocab.txt"])
def test_a_file_of_a_directory_is_not_the_directory(folder, name):
    assert "name the directory that holds it" in refusal(lambda: load_bert(folder / name))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_weights_file_with_its_config_beside_is_enough(folder, theirs, name):
    if name.endswith(".bin"):
        torch.save(weights_of(theirs), folder / name)
    else:
        put(folder, weights_of(theirs))
    bert = load_bert(folder / name)
    assert bert.config == CONFIG and load_tokenizer(folder / name).vocab == VOCAB


@pytest.mark.parametrize("name", ["./absent", "/absent/model", "~/absent", "a/b/c", "absent.pt", "a/absent.ckpt"])
def test_a_path_that_is_not_there_is_not_asked_of_the_hub(name, monkeypatch):
    monkeypatch.setattr("minbert.hub.HubModel", lambda name: pytest.fail("asked the hub"))
    assert f"{name}: no such file or directory" in refusal(lambda: find(name))
