"""Directories of weights in the forms that others leave: several files, no pooler, sentence-transformers, Google's."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from minbert.pretrained import load_bert, load_tokenizer
from minbert.tokenizer import BertTokenizer
from tests.weights.oracle_bert import (
    CONFIG,
    VOCAB,
    assert_same_outputs,
    model_folder,
    put,
    random_bert,
    refusal,
    weights_of,
)


@pytest.fixture(scope="module")
def theirs() -> transformers.BertModel:
    return random_bert()


@pytest.fixture
def folder(tmp_path) -> Path:
    return model_folder(tmp_path / "model")


# ---------------------------------------------------------------------------------------------- several files


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_weights_in_several_files_with_an_index(folder, theirs, suffix):
    stem, weights = {"safetensors": "model", "bin": "pytorch_model"}[suffix], weights_of(theirs)
    index = {name: f"{stem}-{i % 3}.{suffix}" for i, name in enumerate(weights)}
    for file in set(index.values()):
        table = {name: weights[name] for name in weights if index[name] == file}
        (save_file if suffix == "safetensors" else torch.save)(table, folder / file)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": index}))
    assert_same_outputs(load_bert(folder), theirs)
    (folder / f"{stem}-1.{suffix}").unlink()
    assert f"not all of the files that {stem}.{suffix}.index.json names" in refusal(lambda: load_bert(folder))


def test_transformers_own_shards(tmp_path, theirs):
    theirs.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert_same_outputs(load_bert(tmp_path), theirs)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": {"a": "../model.safetensors"}}, [1]])
def test_an_index_that_names_no_files_beside_it(folder, index):
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "index.json" in refusal(lambda: load_bert(folder))


# ---------------------------------------------------------------------------------------------- other directories


def test_google_calls_its_config_otherwise(folder, theirs):
    put(folder, weights_of(theirs))
    (folder / "config.json").rename(folder / "bert_config.json")
    assert_same_outputs(load_bert(folder), theirs)
    assert load_tokenizer(folder).vocab == VOCAB


@pytest.mark.parametrize("place", ["", "0_Transformer"])
def test_a_sentence_transformers_directory(tmp_path, theirs, place):
    top = tmp_path / "sentences"
    inner = model_folder(top) if not place else model_folder(top.mkdir() or top / place)
    put(inner, weights_of(theirs))
    if place:
        (top / "config.json").write_text('{"__version__": "0.2.0"}')
    modules = [{"path": place, "type": "sentence_transformers.models.Transformer"},
               {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]  # fmt: skip
    (top / "modules.json").write_text(json.dumps(modules))
    assert_same_outputs(load_bert(top), theirs)
    assert load_tokenizer(top).vocab == VOCAB


@pytest.mark.parametrize("modules", ["{}", "[]", "[1]", '[{"type": "Transformer", "path": "../x"}]', "no JSON"])
def test_a_modules_file_that_names_no_bert(folder, theirs, modules):
    put(folder, weights_of(theirs))
    (folder / "modules.json").write_text(modules)
    assert "modules.json" in refusal(lambda: load_bert(folder))


def test_a_masked_language_models_directory_has_no_pooler(tmp_path, capsys):
    """What transformers' run_mlm.py leaves. The fresh pooler is the same at every load, and it is said."""
    model = transformers.BertForMaskedLM(transformers.BertConfig(**CONFIG.to_dict())).eval()
    model.save_pretrained(tmp_path)
    assert not any("pooler" in name for name in load_file(tmp_path / "model.safetensors"))
    capsys.readouterr()  # transformers may show a bar
    bert, again = load_bert(tmp_path), load_bert(tmp_path)
    line = "has no pooler, so an untrained one is used (--pooling mean needs none)\n"
    assert capsys.readouterr().err == f"{tmp_path}: {line}" * 2
    ids, mask = torch.tensor([[2, 5, 6, 3]]), torch.ones(1, 4)
    with torch.no_grad():
        torch.testing.assert_close(bert(ids, mask)["last_hidden_state"], model.bert(ids, mask)["last_hidden_state"])
    assert torch.equal(bert.pooler_dense.weight, again.pooler_dense.weight)
    assert abs(bert.pooler_dense.weight.std() - CONFIG.initializer_range) < 0.002
    assert not bert.pooler_dense.bias.any()


def test_a_model_whose_tokenizer_was_not_saved(folder, theirs):
    put(folder, weights_of(theirs))
    (folder / "vocab.txt").unlink()
    assert_same_outputs(load_bert(folder), theirs)  # from Python nobody needs it
    message = refusal(lambda: load_tokenizer(folder))
    assert "holds no vocabulary" in message and "vocab.txt" in message and str(folder) in message


def test_a_directory_with_a_tokenizer_alone(tmp_path):
    BertTokenizer(VOCAB, max_length=12).save_pretrained(tmp_path)
    tokenizer = BertTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.vocab, tokenizer.max_length) == (VOCAB, 12)
    assert "config.json" in refusal(lambda: load_bert(tmp_path))
