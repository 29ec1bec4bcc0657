"""--micro_batch: a batch in portions leads to the update of the whole batch, and full memory halves the portion."""

import pytest
import torch

import multitask_classifier
from minbert.data import Batch
from minbert.engine import Portions
from minbert.multitask import MultitaskBert
from minbert.tasks import TASKS
from tests.cli.runs import FULL, STILL, Run
from tests.tasks.small_models import batch_of, build

BASE = (*FULL, *STILL, "--epochs", "1", "--steps_per_epoch", "2", "--batch_size", "8", "--limit", "16", "--lr", "1e-2",
        "--skip_predictions")  # fmt: skip
WAYS = {
    "separate": (),
    "PCGrad": ("--combine", "pcgrad"),
    "relational, summed": ("--combine", "sum", "--para_head", "relational", "--sts_head", "relational"),
    "Bregman": ("--bregman", "1"),
    "cosine loss": ("--sts_loss", "cosine"),
    "joint, annealed": ("--pairs", "joint", "--schedule", "annealed"),
    "frozen": ("--fine-tune-mode", "last-linear-layer", "--sts_head", "dot"),
}


def apart(one: Run, other: Run) -> float:
    """The mean difference of the weights that train. (AdamW makes much of a gradient near 0.)"""
    names = [name for name in one.weights if name.startswith("heads.") or name in one.part("bert.bert_layers")]
    differences = [(one.weights[name] - other.weights[name]).abs().flatten() for name in names]
    return torch.cat(differences).mean().item()


@pytest.fixture
def train(tiny, sample, tmp_path):
    def train(*flags: str) -> Run:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        multitask_classifier.main(["--pretrained", str(tiny), "--data", str(sample), "--out", str(out), *BASE, *flags])
        return Run(out)

    return train


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_the_gradient_of_the_portions_is_that_of_the_batch(task, size):
    model = build().double()
    gradients = []
    for portion in (None, size):
        model.zero_grad()
        loss, _ = Portions(portion).descend(model, batch_of(task), TASKS[task].loss, {}, 0.7)
        gradients.append([loss, *(p.grad for p in model.parameters() if p.grad is not None)])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole.double(), parts.double(), rtol=1e-6, atol=1e-7)
    assert max(g.abs().max() for g in gradients[0]) > 1e-2


@pytest.mark.parametrize("way", WAYS)
def test_portions_add_up_to_the_batch(train, way):
    whole, parts = train(*WAYS[way]), train(*WAYS[way], "--micro_batch", "3")
    assert whole.metrics[0]["loss"] == pytest.approx(parts.metrics[0]["loss"], rel=1e-4)
    assert whole.metrics[0]["batches"] == parts.metrics[0]["batches"]
    assert apart(whole, parts) < 3e-4 < 1e-3 < apart(whole, train(*WAYS[way], "--lr", "1e-3"))


def test_smarts_numbers_are_means_over_the_portions_and_the_largest_of_them(train):
    smart = ("--smart", "5", "--smart_epsilon", "0.1")
    whole, parts = train(*smart), train(*smart, "--micro_batch", "3")
    for task, numbers in whole.metrics[0]["smart"].items():
        assert list(numbers) == ["before", "after", "max_delta"] == list(parts.metrics[0]["smart"][task])
        assert parts.metrics[0]["smart"][task]["max_delta"] == pytest.approx(numbers["max_delta"], rel=0.5)


def test_a_split_batch_has_each_example_once_with_its_own_rows():
    ids = torch.arange(2 * 5 * 3).view(10, 3)
    batch = Batch("sts", [7, 8, 9, 3, 4], ids, ids + 100, ids + 200, torch.arange(5.0), ids.float())
    parts = list(batch.split(2))
    assert [part.indices for part in parts] == [[7, 8], [9, 3], [4]]
    for name in ("input_ids", "attention_mask", "token_type_ids", "vectors"):
        whole = getattr(batch, name)
        assert torch.equal(torch.cat([getattr(part, name)[: len(part)] for part in parts]), whole[:5])
        assert torch.equal(torch.cat([getattr(part, name)[len(part) :] for part in parts]), whole[5:])
    assert torch.equal(torch.cat([part.labels for part in parts]), batch.labels)


def full_above(monkeypatch, examples: int):
    """Let the memory be full where more than so many examples go forward at once in training."""
    logits = MultitaskBert.logits

    def limited(self, batch, embedded):
        if self.training and len(batch) > examples:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits(self, batch, embedded)

    monkeypatch.setattr(MultitaskBert, "logits", limited)


@pytest.mark.parametrize("combine", ["separate", "pcgrad"])
def test_where_the_memory_is_full_the_portion_halves_and_the_updates_stay(train, monkeypatch, capsys, combine):
    whole = train("--combine", combine)
    capsys.readouterr()
    full_above(monkeypatch, 3)
    halved = train("--combine", combine)
    said = capsys.readouterr().err
    assert "memory is full: --micro_batch 4 from here on" in said and "memory is full: --micro_batch 2 from" in said
    assert said.count("memory is full") == 2  # once a size, not once a step
    assert apart(whole, halved) < 3e-4


def test_a_run_that_goes_on_remembers_the_size():
    one, other = Portions(None), Portions(None)
    one.size = 4
    other.load_state_dict(one.state_dict())
    assert other.size == 4


def test_where_not_even_one_example_fits_the_run_ends_in_one_line(tiny, sample, tmp_path, monkeypatch, capsys):
    full_above(monkeypatch, 0)
    argv = ["--pretrained", str(tiny), "--data", str(sample), "--out", str(tmp_path), *BASE]
    with pytest.raises(SystemExit) as stop:
        multitask_classifier.main(argv)
    assert str(stop.value.code).startswith("error: the GPU's memory is full; lower --batch_size")
    assert "Traceback" not in capsys.readouterr().err
