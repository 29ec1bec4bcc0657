"""The vocabulary of a checkpoint that holds none: beside it, else the published one of that size, else one line."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.errors import UserError
from minbert.hub import find
from minbert.pretrained import load_tokenizer
from minbert.tokenizer import BertTokenizer
from tests.weights.oracle_bert import CONFIG, VOCAB, course_weights, random_bert, refusal


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    torch.save({"model": course_weights(random_bert())}, tmp_path / "best.pt")
    return tmp_path / "best.pt"


def test_without_a_vocabulary_one_line_says_where_to_put_one(checkpoint):
    message = refusal(lambda: load_tokenizer(checkpoint))
    assert "holds no vocabulary" in message and f"vocab.txt into {checkpoint.parent}" in message
    (checkpoint.parent / "vocab.txt").write_text("\n".join(VOCAB))  # the advice
    tokenizer = load_tokenizer(checkpoint)
    assert (tokenizer.vocab, tokenizer.max_length) == (VOCAB, CONFIG.max_position_embeddings)


def test_a_tokenizer_json_beside_it(checkpoint, tmp_path):
    BertTokenizer(VOCAB).save_pretrained(tmp_path / "other")
    transformers.AutoTokenizer.from_pretrained(tmp_path / "other").save_pretrained(checkpoint.parent)
    assert not (checkpoint.parent / "vocab.txt").exists()
    assert load_tokenizer(checkpoint).vocab == VOCAB


def test_a_vocabulary_of_another_model_beside_it_is_refused(checkpoint):
    (checkpoint.parent / "vocab.txt").write_text("\n".join([*VOCAB, "more"]))
    assert "21 pieces" in refusal(lambda: load_tokenizer(checkpoint))


def of_size(path: Path, rows: int) -> Path:
    config = BertConfig(vocab_size=rows, hidden_size=64, num_hidden_layers=1, num_attention_heads=1,
                        intermediate_size=8, max_position_embeddings=32)  # fmt: skip
    torch.save({"model": {f"bert.{name}": w for name, w in BertModel(config).state_dict().items()}}, path)
    return path


def test_a_checkpoint_with_as_many_rows_as_bert_base_uncased_has_its_vocabulary(tmp_path, capsys):
    try:
        minilm = find("minilm", local_files_only=True)
    except UserError as error:
        pytest.skip(str(error))
    tokenizer = load_tokenizer(of_size(tmp_path / "course.pt", 30522))
    assert tokenizer.vocab == load_tokenizer(minilm).vocab and tokenizer.lowercase and tokenizer.max_length == 32
    assert "taken for bert-base-uncased's" in capsys.readouterr().err


def test_the_cased_vocabulary_keeps_case(tmp_path, monkeypatch, capsys):
    """The real one is on the hub alone; here a file of its size stands in for it."""
    vocab = tmp_path / "cased.txt"
    vocab.write_text("\n".join([*VOCAB, "Hello", *(f"w{i}" for i in range(28996 - len(VOCAB) - 1))]))
    monkeypatch.setattr("minbert.pretrained.published_vocabulary", lambda rows, local: vocab if rows == 28996 else None)
    tokenizer = load_tokenizer(of_size(tmp_path / "course.pt", 28996))
    assert not tokenizer.lowercase and tokenizer.tokenize("Hello") == ["Hello"]
    assert "taken for bert-base-cased's" in capsys.readouterr().err


def test_a_directory_without_a_tokenizer_is_treated_alike(tmp_path, monkeypatch, capsys):
    of_size(tmp_path / "pytorch_model.bin", 30522)
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 64, "num_hidden_layers": 1, "vocab_size": 30522,
                                                      "num_attention_heads": 1, "intermediate_size": 8}))  # fmt: skip
    vocab = tmp_path / "uncased.txt"
    vocab.write_text("\n".join([*VOCAB, *(f"w{i}" for i in range(30522 - len(VOCAB)))]))
    monkeypatch.setattr("minbert.pretrained.published_vocabulary", lambda rows, local: vocab)
    assert load_tokenizer(tmp_path).tokenize("HELLO") == ["hello"]
    assert str(tmp_path) in capsys.readouterr().err
