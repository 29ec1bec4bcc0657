"""A frozen BERT reads each sentence once; training its heads is the same as if it read it in every epoch."""

import pytest
import torch

import multitask_classifier
from minbert.bert import BertModel
from minbert.data import Dataset
from minbert.evaluation import evaluate, remembered
from minbert.multitask import MultitaskBert
from minbert.pretrained import load_bert, load_tokenizer
from minbert.tasks import TASKS
from tests.cli.runs import FULL, Run

BASE = ("--epochs", "3", "--batch_size", "8", "--lr", "1e-2", "--limit", "24", "--skip_predictions")


@pytest.fixture
def train(tiny, sample, tmp_path, monkeypatch):
    """A function that trains with flags; the log, and how many rows BERT has read."""
    rows = [0]
    encode = BertModel.encode

    def counted(self, embedded, mask):
        rows[0] += len(embedded)
        return encode(self, embedded, mask)

    monkeypatch.setattr(BertModel, "encode", counted)

    def train(*flags: str) -> tuple[Run, int]:
        rows[0], out = 0, tmp_path / str(len(list(tmp_path.iterdir())))
        multitask_classifier.main(["--pretrained", str(tiny), "--data", str(sample), "--out", str(out), *BASE, *flags])
        return Run(out), rows[0]

    return train


def test_ten_epochs_read_as_many_rows_as_one(train):
    rows = (24 + 48) + (24 + 48 + 48)  # training and dev files; pairs have two rows, and STS's cosine does not train
    assert train("--epochs", "1")[1] == train("--epochs", "10")[1] == rows


@pytest.mark.parametrize(
    "flags",
    [
        ("--bert_dropout", "0.1"),
        FULL,
        ("--smart", "1", "--sts_head", "difference"),
        ("--lora_rank", "2"),
        ("--rdrop", "1"),
    ],
    ids=" ".join,
)
def test_a_bert_that_changes_or_is_noisy_reads_in_every_epoch(train, flags):
    assert train("--epochs", "6", *flags)[1] > train("--epochs", "3", *flags)[1] * 1.5


@pytest.mark.parametrize("flags", [(), ("--pairs", "joint"), ("--pooling", "mean", "--para_head", "relational")])
def test_the_heads_learn_what_they_would_without_it(train, monkeypatch, flags):
    still = (
        ("--hidden_dropout_prob", "0", "--sts_head", "hadamard")
        if "joint" not in flags
        else ("--hidden_dropout_prob", "0")
    )
    one, few = train(*flags, *still)
    monkeypatch.setattr(MultitaskBert, "is_fixed", lambda self, task: False)
    other, many = train(*flags, *still)
    assert many > 2 * few
    for a, b in zip(one.metrics, other.metrics, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    assert all(torch.allclose(tensor, other.weights[name], atol=1e-4) for name, tensor in one.weights.items())


def test_cross_attention_reads_the_tokens_each_time(train):
    sts = ("--tasks", "sts", "--sts_head", "cross_attention")
    assert train("--epochs", "4", *sts)[1] > 1.5 * train("--epochs", "2", *sts)[1]


def test_a_run_that_draws_a_few_examples_reads_these_alone(train):
    few = train("--tasks", "sst", "--epochs", "1", "--steps_per_epoch", "1")[1]
    assert few == 8 + 24  # one batch, and the dev file, which is read for two evaluations


def test_steps_may_be_counted_by_a_tasks_batches(train):
    assert train("--steps_per_epoch", "1xpara", "--epochs", "1")[0].metrics[0]["batches"]["para"] >= 3


def test_the_vectors_are_forgotten_with_the_model_that_made_them(tiny, sample):
    tokenizer = load_tokenizer(tiny)
    data = Dataset.of(TASKS["sts"], tokenizer, [("a film", "a story"), ("good", "bad"), ("it is", "no")], [1, 2, 4])
    model = MultitaskBert(load_bert(tiny, dropout=0), ["sts"], heads={"sts": "difference"}).eval()
    model.freeze_bert()
    before = evaluate(model, {"sts": data})
    with remembered(model, {"sts": data}, {}, 100):
        assert data.vectors.shape == (6, model.bert.config.hidden_size)
        assert evaluate(model, {"sts": data})["sts"] == pytest.approx(before["sts"], abs=1e-5)
        model.bert.pooler_dense.weight.data.zero_()
        assert evaluate(model, {"sts": data})["sts"] == pytest.approx(before["sts"], abs=1e-5)  # BERT is not asked
    assert data.vectors is None
    with pytest.raises(RuntimeError), remembered(model, {"sts": data}, {}, 100):
        raise RuntimeError
    assert data.vectors is None
