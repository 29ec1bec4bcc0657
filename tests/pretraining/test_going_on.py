"""A pre-training run that is stopped goes on to the same bits."""

import os
import signal

import pytest
import torch

from minbert.data import Batches
from minbert.pretraining import script as pretraining
from minbert.pretraining.lessons import Learner
from minbert.run import Run
from minbert.state import read_state
from tests.cli.runs import CLOCK
from tests.pretraining.runs import run, same


class Stopped(Exception):
    pass


def stop_after(monkeypatch, steps: int, action):
    """Call `action` when the optimizer has taken so many steps of this process's next run."""
    taken, step = [0], pretraining.AdamW.step

    def counted(self, *args):
        result = step(self, *args)
        taken[0] += 1
        if taken[0] == steps:
            action()
        return result

    monkeypatch.setattr(pretraining.AdamW, "step", counted)


def crash():
    raise Stopped


@pytest.mark.parametrize(("save_every", "steps"), [("1", 3), ("2", 4), ("3", 5), ("1", 7)])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(tmp_path, tiny, sample, plain, monkeypatch, save_every, steps):
    with monkeypatch.context() as patch:
        stop_after(patch, steps, crash)
        with pytest.raises(Stopped):
            run(tmp_path / "out", tiny, sample, "--save_every", save_every)
    metrics = run(tmp_path / "out", tiny, sample, "--resume")
    assert same(tmp_path / "out", plain[0])
    drop = lambda lines: [{k: v for k, v in line.items() if k not in CLOCK} for line in lines]  # noqa: E731
    assert drop(metrics) == drop(plain[1])


def test_a_run_that_was_killed_before_its_state_was_kept_tells_of_that_epoch_once(
    tmp_path, tiny, sample, plain, monkeypatch
):
    save, calls = Run.save, [0]

    def dies(self):
        calls[0] += 1
        if calls[0] == 2:
            raise Stopped
        save(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", dies)
        with pytest.raises(Stopped):
            run(tmp_path / "out", tiny, sample)
    with open(tmp_path / "out" / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "lo')  # torn
    metrics = run(tmp_path / "out", tiny, sample, "--resume")
    assert [line["epoch"] for line in metrics] == [0, 1, 2] and same(tmp_path / "out", plain[0])


def test_a_finished_run_writes_its_weights_again_if_they_were_lost(tmp_path, tiny, sample, plain):
    run(tmp_path / "out", tiny, sample)
    (tmp_path / "out" / "model.safetensors").unlink()
    run(tmp_path / "out", tiny, sample, "--resume")
    assert same(tmp_path / "out", plain[0])


@pytest.mark.parametrize("withheld", ["dropout's draws", "the data's order", "AdamW's means"])
def test_the_check_of_bits_sees_what_is_withheld(tmp_path, tiny, sample, plain, monkeypatch, withheld):
    with monkeypatch.context() as patch:
        stop_after(patch, 3, crash)
        with pytest.raises(Stopped):
            run(tmp_path / "out", tiny, sample, "--save_every", "1")
    if withheld == "dropout's draws":
        monkeypatch.setattr(torch, "set_rng_state", lambda state: None)
    elif withheld == "the data's order":
        monkeypatch.setattr(Batches, "load_state_dict", lambda self, state: None)
    else:
        monkeypatch.setattr(pretraining.AdamW, "load_state_dict", lambda self, state: None)
    run(tmp_path / "out", tiny, sample, "--resume")
    assert not same(tmp_path / "out", plain[0])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_waits_for_the_step_and_saves(tmp_path, tiny, sample, plain, monkeypatch, capsys, number, status):
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        stop_after(patch, 6, lambda: os.kill(os.getpid(), number))
        with pytest.raises(SystemExit) as stop:
            run(tmp_path / "out", tiny, sample)
    assert (
        stop.value.code == status
        and "stopped after step 2 of epoch 2; --resume goes on from there" in capsys.readouterr().err
    )
    assert signal.getsignal(number) is handler
    run(tmp_path / "out", tiny, sample, "--resume")
    assert same(tmp_path / "out", plain[0])


def test_a_signal_ends_the_scoring_before_training(tmp_path, tiny, sample, monkeypatch, capsys):
    monkeypatch.setattr(pretraining, "score_masked", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "out", tiny, sample, "--tasks", "mlm", "--corpus", "sts", "--limit", "20")
    assert stop.value.code == 130
    assert "stopped in the evaluation before training; --resume does it again" in capsys.readouterr().err


def test_ctrl_c_twice_leaves_at_once(tmp_path, tiny, sample, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    stop_after(monkeypatch, 2, twice)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "out", tiny, sample)
    assert stop.value.code == 130 and not (tmp_path / "out" / "checkpoints").exists()


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_state_before(
    tmp_path, tiny, sample, refusal, monkeypatch
):
    stop_after(monkeypatch, 4, lambda: None)
    loss = Learner.mlm_loss
    calls = [0]

    def broken(self, *args):
        calls[0] += 1
        return loss(self, *args) * (float("nan") if calls[0] == 6 else 1)

    monkeypatch.setattr(Learner, "mlm_loss", broken)
    argv = ["--pretrained", str(tiny), "--data", str(sample), "--out", str(tmp_path / "out"), "--steps_per_epoch", "4",
            "--save_every", "1"]  # fmt: skip
    assert "epoch 2, step 2: the loss of mlm is not a finite number any more" in refusal(pretraining.main, argv)
    saved = read_state(max((tmp_path / "out" / "checkpoints").iterdir()))
    assert (saved["run"]["epoch"], saved["run"]["step"]) == (1, 1)
    assert all(torch.isfinite(tensor).all() for tensor in saved["parts"]["learner"].values())
