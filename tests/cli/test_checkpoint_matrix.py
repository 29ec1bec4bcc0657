"""Every kind of checkpoint on every command line: BERT's weights arrive to the last bit, or one line says why not.

Rows: the course's, ours, ours with LoRA, Lightning's, one from inside DataParallel, a compiled model's. Columns: the
three scripts' --pretrained, --predict, and load_bert. "Alone" is the file without a config and a vocabulary beside it.
"""

import argparse
import re
import shutil
import types
from pathlib import Path

import pytest
import torch
from torch import nn

import classifier
import multitask_classifier
from minbert.bert import BertModel
from minbert.checkpoint import load_model, save_model
from minbert.config import BertConfig
from minbert.errors import UserError
from minbert.hub import find
from minbert.lora import merged_state_dict
from minbert.multitask import MultitaskBert
from minbert.pretrained import load_bert, load_tokenizer
from minbert.pretraining import script

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inside torch.compile
KINDS = ("course", "ours", "ours with LoRA", "Lightning", "DataParallel", "compiled")
OURS = KINDS[1:3]
TASKS = ("sst", "para", "sts")
State = dict[str, torch.Tensor]


class Student(nn.Module):
    """A project in the course's manner: BERT, which has its positions among its weights there, and heads."""

    def __init__(self, bert: BertModel):
        super().__init__()
        self.bert, self.sentiment = bert, nn.Linear(bert.config.hidden_size, 5)
        bert.register_buffer("position_ids", torch.arange(bert.config.max_position_embeddings)[None])


@pytest.fixture(scope="module")
def checkpoints(tiny, tmp_path_factory) -> dict[str, tuple[Path, State]]:
    """For each kind a file, in a folder with nothing else, and the BERT weights that are in it."""
    result = {}
    for kind in KINDS:
        path = tmp_path_factory.mktemp("kind") / ("best" if kind in OURS else "best.pt")
        bert, tokenizer = load_bert(tiny), load_tokenizer(tiny)
        if kind in OURS:
            additions = {"lora": {"rank": 2, "alpha": 4.0}} if kind == "ours with LoRA" else None
            model = MultitaskBert(bert, TASKS, additions=additions)
            for name, parameter in model.named_parameters():
                if ".lora_" in name:
                    nn.init.normal_(parameter, std=0.3)
            save_model(path, model, tokenizer)
            result[kind] = path, merged_state_dict(bert)
            continue
        weights = {name: tensor.clone() for name, tensor in bert.state_dict().items()}
        model = Student(bert)
        if kind == "course":
            optimizer = torch.optim.AdamW(model.parameters()).state_dict()
            flags = argparse.Namespace(lr=1e-5, filepath=Path("finetune-10.pt"))
            config = types.SimpleNamespace(hidden_size=768, num_labels={0: 0})
            saved = {"model": model.state_dict(), "optim": optimizer, "args": flags, "model_config": config}
        elif kind == "Lightning":
            state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
            saved = {"state_dict": state, "epoch": 3, "hyper_parameters": {"lr": 1e-5}, "callbacks": {}}
        else:
            saved = (nn.DataParallel if kind == "DataParallel" else torch.compile)(model).state_dict()
        torch.save(saved, path)
        result[kind] = path, weights
    return result


@pytest.fixture
def accompanied(checkpoints, tiny, tmp_path):
    """A function: the checkpoint of a kind in a folder with the model's config and vocabulary beside it."""

    def accompany(kind: str) -> tuple[Path, State]:
        path, weights = checkpoints[kind]
        for name in ("config.json", "vocab.txt", "tokenizer_config.json"):
            shutil.copy(tiny / name, tmp_path)
        copy = shutil.copytree if kind in OURS else shutil.copy
        return Path(copy(path, tmp_path / "a.pt")), weights

    return accompany


def flags(path: Path, sample: Path, out: Path) -> list[str]:
    """A run that trains the heads alone, so that BERT leaves it as it came."""
    return ["--pretrained", str(path), "--data", str(sample), "--out", str(out), "--epochs", "1", "--limit", "8",
            "--fine-tune-mode", "last-linear-layer", "--skip_predictions"]  # fmt: skip


def assert_same(weights: State, expected: State):
    for name, tensor in expected.items():
        assert torch.equal(weights[name], tensor), name


# ---------------------------------------------------------------------------------------------- --pretrained


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("script", ["multitask_classifier.py", "classifier.py"])
def test_pretrained_takes_bert_out_of_it_exactly(accompanied, sample, tiny, tmp_path, script, kind):
    path, expected = accompanied(kind)
    out = tmp_path / "run"
    if script == "classifier.py":
        classifier.main([*flags(path, sample, out), "--tasks", "sst"])
        out = out / "sst"
    else:
        multitask_classifier.main(flags(path, sample, out))
    model, tokenizer = load_model(out / "best")
    assert_same(model.bert.state_dict(), expected)
    assert model.bert.config == load_bert(tiny).config
    assert tokenizer.to_json() == load_tokenizer(tiny).to_json()


@pytest.mark.parametrize("kind", KINDS)
def test_further_pre_training_starts_from_it(accompanied, sample, tmp_path, kind):
    path, expected = accompanied(kind)
    files = ["--pretrained", str(path), "--data", str(sample), "--out", str(tmp_path / "run"), "--corpus", "sst"]
    length = ["--tasks", "mlm", "--limit", "8", "--epochs", "1", "--steps_per_epoch", "1", "--lr", "1e-9"]
    script.main(files + length)
    weights = load_bert(tmp_path / "run").state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("script", [multitask_classifier, classifier], ids=["multitask_classifier", "classifier"])
def test_alone_it_is_exact_or_one_line(checkpoints, sample, tmp_path, script, kind, refusal, capsys):
    """Ours hold their config and vocabulary; of the others neither is known here, for the vocabulary is nobody's."""
    path, expected = checkpoints[kind]
    more = ["--tasks", "sst"] if script is classifier else []
    if kind in OURS:
        script.main([*flags(path, sample, tmp_path), *more])
        folder = tmp_path / "sst" if script is classifier else tmp_path
        assert_same(load_model(folder / "best")[0].bert.state_dict(), expected)
    else:
        line = refusal(script.main, [*flags(path, sample, tmp_path), *more])
        assert str(path) in line and "holds no vocabulary" in line


@pytest.mark.parametrize("script", [multitask_classifier, classifier], ids=["multitask_classifier", "classifier"])
def test_alone_it_is_exact_with_the_published_vocabulary(sample, tmp_path, script, capsys):
    """What a student has who fine-tuned bert-base-uncased in the course's project: a file, and nothing beside it."""
    try:
        find("minilm", local_files_only=True)
    except UserError as error:
        pytest.skip(f"no published vocabulary: {error}")
    config = BertConfig(hidden_size=128, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    bert = BertModel(config)
    expected = {name: tensor.clone() for name, tensor in bert.state_dict().items()}
    torch.save({"model": Student(bert).state_dict()}, tmp_path / "finetune-10-1e-05.pt")
    script.main([*flags(tmp_path / "finetune-10-1e-05.pt", sample, tmp_path), "--tasks", "sst"])
    folder = tmp_path / "sst" if script is classifier else tmp_path
    model, tokenizer = load_model(folder / "best")
    assert_same(model.bert.state_dict(), expected)
    assert model.bert.config == config and tokenizer.vocab_size == 30522
    lines = capsys.readouterr().err
    assert "taken for bert-base-uncased's" in lines and "taken for a published one, with 2" in lines


# ---------------------------------------------------------------------------------------------- --predict


@pytest.mark.parametrize("kind", KINDS)
def test_predict_answers_from_ours_and_says_what_takes_the_others(checkpoints, accompanied, sample, tmp_path, kind,
                                                                refusal, capsys):  # fmt: skip
    path, _ = checkpoints[kind]
    question = ["--out", str(path.parent), "--predict", "A film to remember."]
    if kind in OURS:
        multitask_classifier.main(question)
        answer = capsys.readouterr().out
        model, tokenizer = load_model(path)
        save_model(tmp_path / "best", model, tokenizer)  # once more through the file: the same answer
        multitask_classifier.main(["--out", str(tmp_path), *question[2:]])
        assert answer == capsys.readouterr().out and re.match(r"SST-5 sentiment +\w+.* \(\d+%\)\n", answer)
    else:
        assert f"--pretrained {path} takes BERT's weights" in refusal(multitask_classifier.main, question)
        path, _ = accompanied(kind)  # the advice: it can be trained from, and then answers
        multitask_classifier.main([*flags(path, sample, tmp_path / "run"), "--tasks", "sst"])
        multitask_classifier.main(["--out", str(tmp_path / "run"), *question[2:]])


# ---------------------------------------------------------------------------------------------- from Python


@pytest.mark.parametrize("kind", KINDS)
def test_load_bert_takes_it_exactly_or_not_at_all(checkpoints, accompanied, tiny, kind):
    path, expected = checkpoints[kind]
    with torch.no_grad():
        reference = load_bert(tiny)
        reference.load_state_dict(expected)
        batch = load_tokenizer(tiny)(["a film", "it is good"], ["a b", "c"], padding=True, return_tensors="pt")
        answer = reference(**batch)
        given = {} if kind in OURS else {"num_attention_heads": 2}
        for source, options in ((accompanied(kind)[0], {}), (path, given)):
            bert = load_bert(source, **options)
            assert_same(bert.state_dict(), expected)
            for name, values in bert(**batch).items():
                assert torch.equal(values, answer[name])
