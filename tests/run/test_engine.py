"""The step in which weights change: finite numbers only, the clipped norm, the rate; and signs of life."""

import errno
import io
import math
import signal
from argparse import Namespace

import pytest
import torch
from torch import nn

from minbert import progress as module
from minbert.engine import checked_step, find_device, settle_device
from minbert.epoch_log import EpochLog
from minbert.errors import UserError, stop_signals
from minbert.folder import RunFolder, free_folder, newest_run
from minbert.optimizer import AdamW
from minbert.progress import Progress


def with_gradient(value: float) -> tuple[nn.Linear, AdamW, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    for p in layer.parameters():
        p.grad = torch.full_like(p, value)
    return layer, AdamW(layer.parameters(), lr=0.1), {"sst": torch.tensor(1.0)}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_no_weight(value):
    layer, optimizer, losses = with_gradient(1.0)
    layer.bias.grad[1] = value
    before = [p.detach().clone() for p in layer.parameters()]
    with pytest.raises(UserError, match="epoch 2, step 7: the gradient of sst is not a finite number any more"):
        checked_step(layer, optimizer, losses, "epoch 2, step 7", clip=1.0)
    assert all(torch.equal(p, q) for p, q in zip(layer.parameters(), before, strict=True)) and not optimizer.state


def test_a_loss_that_is_not_finite_is_named_by_its_task():
    layer, optimizer, losses = with_gradient(math.nan)
    with pytest.raises(UserError, match="the loss of sts is not a finite number any more"):
        checked_step(layer, optimizer, losses | {"sts": torch.tensor(math.nan)}, "epoch 1, step 1")


def test_a_run_of_a_gpu_goes_on_without_one(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    args = Namespace(use_gpu=True, resume=True)
    assert settle_device(args) == torch.device("cpu") and args.use_gpu is False
    assert "goes on on the CPU" in capsys.readouterr().err
    with pytest.raises(UserError, match="--use_gpu: this PyTorch sees no CUDA device"):
        settle_device(Namespace(use_gpu=True, resume=False))


def test_clip_cuts_the_whole_gradient_to_a_norm():
    layer, optimizer, losses = with_gradient(2.0)
    checked_step(layer, optimizer, losses, "", clip=1.0)
    norm = torch.cat([p.grad.flatten() for p in layer.parameters()]).norm().item()
    assert norm == pytest.approx(1.0, rel=1e-5)
    layer, optimizer, losses = with_gradient(2.0)
    checked_step(layer, optimizer, losses, "", clip=0.0)
    assert layer.bias.grad.tolist() == [2.0, 2.0]


def test_the_factor_scales_the_rate_of_every_group():
    layer, optimizer, losses = with_gradient(1.0)
    checked_step(layer, optimizer, losses, "", factor=0.5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_a_gpu_that_is_not_there_is_a_user_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert find_device(False) == torch.device("cpu")
    with pytest.raises(UserError, match="--use_gpu"):
        find_device(True)


def test_without_cuda_a_macs_gpu_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device(True) == torch.device("mps") and find_device(False) == torch.device("cpu")
    monkeypatch.setattr("minbert.processes.size", lambda: 2)
    with pytest.raises(UserError, match="a Mac has one GPU; leave torchrun out"):
        find_device(True)


# ------------------------------------------------------------------------------------------ progress


class Clock:
    """Time that the test moves."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def lines_of(monkeypatch, capsys, seconds_a_step: float, terminal: bool) -> list[str]:
    """What ten steps print to a pipe or a terminal."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    if terminal:
        monkeypatch.setattr("sys.stdout", type("Terminal", (io.StringIO,), {"isatty": lambda self: True})())
    with Progress(10, "epoch 1/3") as bar:
        for _ in range(10):
            clock.now += seconds_a_step
            bar.update()
    return capsys.readouterr().out.splitlines()


def test_long_work_in_a_pipe_prints_a_line_at_least_every_minute(monkeypatch, capsys):
    assert len(lines_of(monkeypatch, capsys, 30.0, terminal=False)) == 5
    (first, *_) = lines_of(monkeypatch, capsys, 61.0, terminal=False)
    assert first == "epoch 1/3: 1 of 10 steps in 1 min, about 9 min to go"


def test_short_work_prints_nothing_and_a_terminal_has_the_bar(monkeypatch, capsys):
    assert lines_of(monkeypatch, capsys, 1.0, terminal=False) == []
    assert lines_of(monkeypatch, capsys, 61.0, terminal=True) == []


def test_progress_counts_several_at_once(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    with Progress(100, "evaluating sst", "example") as bar:
        clock.now = 120.0
        bar.update(40)
    assert capsys.readouterr().out == "evaluating sst: 40 of 100 examples in 2 min, about 3 min to go\n"


class DeadTerminal(io.StringIO):
    """What a terminal is after its window was closed."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_print_after_the_terminal_was_closed_is_no_error(monkeypatch):
    """Else a run would end at the next line that it prints, before it saves."""
    monkeypatch.setattr("sys.stdout", DeadTerminal())
    with pytest.raises(OSError):
        print("before")
    with stop_signals() as stop:
        signal.raise_signal(signal.SIGHUP)
        print("after")
        assert stop.signal == signal.SIGHUP


# ------------------------------------------------------------------------------------------ the folder and the log


def test_a_log_has_means_and_for_some_numbers_the_largest():
    log = EpochLog()
    for loss, delta in ((1.0, 0.1), (3.0, 0.3)):
        numbers = {"after": torch.tensor(loss), "max_delta": torch.tensor(delta)}
        log.add("sst", 8, torch.tensor(loss), {"smart": numbers})
    log.add("sts", 4, torch.tensor(5.0))
    assert log.examples == 20 and log.mean("loss") == {"sst": 2.0, "sts": 5.0}
    means = log.term("smart", ("max_delta",))
    assert means == {"sst": {"after": 2.0, "max_delta": pytest.approx(0.3)}} and log.term("bregman") == {}


def test_a_free_folder_has_the_next_number(tmp_path):
    assert free_folder(tmp_path, "full-model") == tmp_path / "full-model"
    for name in ("full-model", "full-model-2"):
        RunFolder(tmp_path / name).begin({"seed": 1})
    assert free_folder(tmp_path, "full-model") == tmp_path / "full-model-3"
    assert newest_run(tmp_path) is None
    (tmp_path / "full-model" / "best").mkdir()
    assert newest_run(tmp_path) == tmp_path / "full-model"


def test_the_newest_run_is_none_that_another_run_replaces(tmp_path):
    """`begin` moves an earlier run's files into older-run/; a run that was stopped before its first model is beside."""
    for name in ("a/older-run", "b/older-run-moving", "older-run"):
        (tmp_path / name / "best").mkdir(parents=True)
    assert newest_run(tmp_path) is None
    (tmp_path / "a" / "sst" / "best").mkdir(parents=True)  # classifier.py has a folder for each data set
    assert newest_run(tmp_path) == tmp_path / "a" / "sst"
