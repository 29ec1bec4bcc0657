"""minbert/foreign.py: BERT is found in other people's checkpoints, with the right number of heads, or not taken."""

import argparse
import json
import pathlib
import random
import types

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.pretrained import load_bert, load_tokenizer
from tests.weights.oracle_bert import (
    CONFIG,
    VOCAB,
    assert_same_outputs,
    course_weights,
    random_bert,
    refusal,
    weights_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inside torch.compile
SAYS_HEADS = {"num_attention_heads": 4}


@pytest.fixture(scope="module")
def theirs() -> transformers.BertModel:
    return random_bert()


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    """Where a checkpoint will lie, beside what a course's folder does not have: its config and its vocabulary."""
    (tmp_path / "config.json").write_text(json.dumps(SAYS_HEADS))
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB))
    return tmp_path / "checkpoint.pt"


def random_states() -> dict:
    """What the course saves beside weights, optimizer and flags."""
    return {
        "system_rng": random.getstate(),
        "numpy_rng": np.random.get_state(),
        "torch_rng": torch.random.get_rng_state(),
    }


# ---------------------------------------------------------------------------------------------- the table


@pytest.mark.parametrize("numpy_name", ["numpy._core.multiarray", "numpy.core.multiarray"])
@pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")
def test_the_courses_checkpoint_loads(path, theirs, monkeypatch, numpy_name):
    """With its flags, its optimizer and its random states, as written by numpy of either name."""
    monkeypatch.setattr(np.array(0).__reduce__()[0], "__module__", numpy_name)
    saved = {
        "model": course_weights(theirs),
        "optim": torch.optim.AdamW(theirs.parameters(), lr=1e-5).state_dict(),
        "args": argparse.Namespace(lr=1e-5, option="finetune", use_gpu=False, filepath=pathlib.Path("a/b.pt")),
        "model_config": types.SimpleNamespace(hidden_dropout_prob=0.3, hidden_size=768, data_dir="."),
    }
    torch.save(saved | random_states(), path)
    assert numpy_name.encode() in path.read_bytes()
    bert = load_bert(path)
    assert bert.config == CONFIG and not bert.training
    assert_same_outputs(bert, theirs)
    assert load_tokenizer(path).vocab == VOCAB


TABLES = {
    "bare": lambda w: w,
    "model": lambda w: {"model": w, "dev_acc": np.float64(0.5)},
    "model_state_dict": lambda w: {"epoch": 3, "model_state_dict": w, "loss": 0.5},
    "state_dict": lambda w: {"state_dict": w, "hyper_parameters": {"lr": 1e-5}, "pytorch-lightning_version": "2.5.0"},
    "another name": lambda w: {"best_weights": w, "epoch": 3},
    "a table in a table": lambda w: {"state": {"net": w, "step": 3}},
}
PREFIXES = ("", "bert.", "model.bert.", "net.encoder.bert.", "module.bert.", "_orig_mod.bert.", "bert._orig_mod.",
            "module._orig_mod.model.bert.", "0.auto_model.")  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin"])
def test_the_table_is_found_by_what_is_in_it(path, theirs, kind, suffix):
    path = path.with_suffix(suffix)
    torch.save(TABLES[kind](course_weights(theirs)), path)
    assert_same_outputs(load_bert(path), theirs)


@pytest.mark.parametrize("names", ["the course's", "transformers'"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_bert_is_found_under_any_prefix(path, theirs, prefix, names):
    weights = course_weights(theirs, "") if names == "the course's" else weights_of(theirs)
    weights = {f"{prefix}{name}": tensor for name, tensor in weights.items() if "sentiment" not in name}
    torch.save({"model": weights | ({"head.weight": torch.ones(3)} if prefix else {})}, path)
    assert_same_outputs(load_bert(path), theirs)


def test_wrappers_inside_bert_are_left_out_of_its_names(path, theirs):
    weights = {
        name.replace("bert_layers.1.", "bert_layers.1._orig_mod."): w for name, w in course_weights(theirs).items()
    }
    torch.save(weights, path)
    assert_same_outputs(load_bert(path), theirs)


def test_what_pytorch_itself_makes_of_names(path, theirs):
    """torch.compile, DataParallel and a running average, as a student wraps the model before saving."""
    bert = BertModel(CONFIG)
    bert.load_state_dict({name[5:]: w for name, w in course_weights(theirs).items() if name.startswith("bert.")})
    model = torch.nn.ModuleDict({"bert": bert, "head": torch.nn.Linear(64, 5)})
    for wrapped in (
        torch.compile(model),
        torch.nn.DataParallel(model),
        torch.nn.DataParallel(torch.compile(model)),
        torch.optim.swa_utils.AveragedModel(model),
    ):
        torch.save(wrapped.state_dict(), path)
        assert_same_outputs(load_bert(path), theirs)


def test_a_safetensors_file(path, theirs):
    save_file({f"bert.{name}": tensor for name, tensor in weights_of(theirs).items()}, path.with_suffix(".safetensors"))
    assert_same_outputs(load_bert(path.with_suffix(".safetensors")), theirs)


@pytest.mark.parametrize("saved", [{"epoch": 3}, {"model": {"a": torch.ones(2)}}, {}, {"model": [torch.ones(2)]}])
def test_a_file_without_bert_says_what_is_in_it(path, saved):
    torch.save(saved, path)
    message = refusal(lambda: load_bert(path))
    assert "word_embedding.weight is missing" in message and all(key in message for key in saved)


def test_several_tables_are_not_guessed_among(path, theirs):
    other = {name: tensor + 1 for name, tensor in course_weights(theirs).items()}
    torch.save({"student": course_weights(theirs), "teacher": other}, path)
    assert "student, teacher" in refusal(lambda: load_bert(path))
    torch.save({"model": course_weights(theirs), "teacher": other}, path)
    assert_same_outputs(load_bert(path), theirs)  # `model` is what the model is mostly called


def test_several_berts_are_not_guessed_among(path, theirs):
    weights = course_weights(theirs) | course_weights(theirs, "twin.bert.")
    torch.save(weights, path)
    assert_same_outputs(load_bert(path), theirs)  # one module, saved under both of its names
    weights["twin.bert.word_embedding.weight"] = weights["bert.word_embedding.weight"] + 1
    torch.save(weights, path)
    assert "bert., twin.bert." in refusal(lambda: load_bert(path))


def test_one_weight_under_two_names_is_refused(path, theirs):
    weights = course_weights(theirs)
    torch.save(weights | {f"module.{name}": tensor for name, tensor in weights.items()}, path)
    assert "twice" in refusal(lambda: load_bert(path))


def test_what_is_missing_or_left_over_in_bert_is_named(path, theirs):
    weights = course_weights(theirs)
    torch.save({**weights, "bert.extra.weight": torch.ones(2)}, path)
    assert "extra.weight belongs to no part" in refusal(lambda: load_bert(path))
    for name in ("bert.tk_type_embedding.weight", "bert.pooler_dense.bias", "bert.bert_layers.1.out_dense.bias"):
        torch.save({key: tensor for key, tensor in weights.items() if key != name}, path)
        assert f"{name[5:]} is missing" in refusal(lambda: load_bert(path))


# ---------------------------------------------------------------------------------------------- the heads

WITHOUT = "does not say how many attention heads its BERT has"


def outputs(bert: BertModel) -> torch.Tensor:
    with torch.no_grad():
        return bert(torch.tensor([[2, 7, 8, 9, 3]]), torch.ones(1, 5))["last_hidden_state"]


def test_heads_that_nobody_names_are_not_guessed(path, theirs):
    (path.parent / "config.json").unlink()
    torch.save(course_weights(theirs), path)
    message = refusal(lambda: load_bert(path))
    assert WITHOUT in message and "config.json" in message and '{"num_attention_heads": N}' in message
    (path.parent / "config.json").write_text('{"num_attention_heads": 4}')  # the advice, word for word
    assert_same_outputs(load_bert(path), theirs)
    (path.parent / "config.json").write_text('{"num_attention_heads": 1}')  # 64 wide, as it was once guessed
    assert (outputs(load_bert(path)) - outputs(load_bert(path, num_attention_heads=4))).abs().max() > 0.01
    assert_same_outputs(BertModel.from_pretrained(path, num_attention_heads=4), theirs)


@pytest.mark.parametrize("file", ["config.json", "bert_config.json"])
def test_the_config_beside_the_file_counts_whole_or_in_part(path, theirs, file):
    (path.parent / "config.json").unlink()
    (path.parent / file).write_text(json.dumps(CONFIG.to_dict() | {"layer_norm_eps": 1e-5}))
    torch.save(course_weights(theirs), path)
    assert load_bert(path).config.layer_norm_eps == 1e-5


CONFIGS = {
    "config, a dict": {"config": SAYS_HEADS},
    "config, a namespace": {"config": types.SimpleNamespace(**SAYS_HEADS)},
    "args": {"args": argparse.Namespace(lr=1e-5, **SAYS_HEADS)},
    "hyper_parameters": {"hyper_parameters": {"config": {"bert": SAYS_HEADS}}},
    "transformers' own": {"config": transformers.BertConfig(**CONFIG.to_dict())},
    "ours": {"config": CONFIG},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_inside_the_checkpoint_counts(path, theirs, kind):
    (path.parent / "config.json").unlink()
    torch.save({"model": course_weights(theirs), **CONFIGS[kind]}, path)
    assert_same_outputs(load_bert(path), theirs)


def test_a_config_of_another_model_is_refused(path, theirs):
    torch.save({"model": course_weights(theirs), "config": CONFIG.to_dict() | {"hidden_size": 768}}, path)
    assert "says hidden_size = 768, but the weights of checkpoint.pt have 64" in refusal(lambda: load_bert(path))
    torch.save({"model": course_weights(theirs), "config": SAYS_HEADS | {"hidden_act": "relu"}}, path)
    assert "hidden_act" in refusal(lambda: load_bert(path))
    torch.save({"model": course_weights(theirs), "config": {"num_attention_heads": 5}}, path)
    assert "does not divide" in refusal(lambda: load_bert(path))


@pytest.mark.parametrize(
    ("rows", "width", "heads"),
    [(30522, 128, 2), (30522, 384, 12), (30522, 768, 12), (28996, 192, 3), (30522, 312, None), (30523, 128, None)],
)
def test_a_published_vocabulary_tells_the_published_heads(path, rows, width, heads, capsys):
    """Google's are 64 wide and MiniLM's 32; TinyBERT's 312 are neither, and 30,523 rows are nobody's."""
    (path.parent / "config.json").unlink()
    config = BertConfig(vocab_size=rows, hidden_size=width, num_hidden_layers=1, num_attention_heads=heads or 1,
                        intermediate_size=8, max_position_embeddings=8)  # fmt: skip
    torch.save({"model": BertModel(config).state_dict()}, path)
    if heads is None:
        assert WITHOUT in refusal(lambda: load_bert(path))
    else:
        assert load_bert(path).config.num_attention_heads == heads
        assert WITHOUT in (line := capsys.readouterr().err) and f"with {heads} " in line and line.count("\n") == 1
