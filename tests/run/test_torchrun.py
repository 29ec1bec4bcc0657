"""Several processes stop together, go on together, and say once what was wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed.run
from torch.nn import functional as F

import classifier
import multitask_classifier
from minbert import engine, processes
from minbert.errors import UserError
from minbert.pretraining import script as pretraining
from minbert.state import read_state
from tests.cli.runs import FULL, STILL, distance
from tests.conftest import ROOT
from tests.run.crashes import in_a_process, newest
from tests.run.several import DROPOUT, SMART, in_processes, train

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked"),
    pytest.mark.xdist_group("processes"),
]


def statuses(results: list[tuple[int, str]]) -> list[int]:
    return [status for status, _ in results]


def test_dropout_differs_between_processes_and_is_the_old_one_in_the_first(tmp_path):
    def work():
        torch.manual_seed(7)
        processes.seed_apart(7)
        first, second = processes.gathered(F.dropout(torch.ones(100)))
        torch.manual_seed(7)
        assert torch.equal(first, F.dropout(torch.ones(100))) and not torch.equal(first, second)

    assert statuses(in_processes(2, work)) == [0, 0]


# ------------------------------------------------------------------------------------------ stopping and going on


def stopped(monkeypatch, weights: Path, out: Path, setting: dict):
    """Train with two processes, of which the second one gets a SIGTERM in its third step."""
    steps, step = [], multitask_classifier.checked_step

    def counted(*args, **kwargs):
        step(*args, **kwargs)
        steps.append(1)
        if len(steps) == 3 and processes.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(multitask_classifier, "checked_step", counted)
        results = in_processes(2, lambda: train(weights, out, setting))
    assert statuses(results) == [143, 143], results
    assert "stopped after step 3 of epoch 1" in "".join(text for _, text in results)


@pytest.mark.parametrize("counts", [(2,), (1, 3)], ids=str)
def test_all_stop_after_the_step_of_a_signal_to_one_and_go_on(tiny, tmp_path, monkeypatch, counts):
    """With as many processes to the same bits; with another number to rounding where nothing is drawn at random."""
    setting = {"epochs": 2, "combine": "pcgrad", "steps_per_epoch": 4}
    setting |= {**SMART, **DROPOUT} if counts == (2,) else {}
    assert statuses(in_processes(2, lambda: train(tiny, tmp_path / "whole", setting))) == [0, 0]
    whole = newest(tmp_path / "whole")
    for count in counts:
        out = tmp_path / str(count)
        stopped(monkeypatch, tiny, out, setting)
        assert len(newest(out)["other processes"]) == 1
        assert statuses(in_processes(count, lambda o=out: train(tiny, o, setting, resume=True))) == [0] * count
        state = newest(out)
        assert distance(whole["parts"]["model"], state["parts"]["model"]) <= (0 if count == 2 else 1e-10)
    if counts == (2,):
        for name in ("random", "smart"):
            own = [state["parts"], *state["other processes"]]
            first, second = (next(iter(part[name].values())) for part in own)
            assert not torch.equal(first, second)
            assert torch.equal(second, next(iter(whole["other processes"][0][name].values())))


@pytest.mark.parametrize(
    "main, flags",
    [(classifier.main, ("--tasks", "sst", *FULL)), (pretraining.main, ("--corpus", "sst", "--held_out", "5"))],
    ids=["classifier.py", "pretraining"],
)
def test_the_other_scripts_train_the_same_with_two_processes(tiny, sample, tmp_path, main, flags):
    places = ("--pretrained", str(tiny), "--data", str(sample), "--limit", "13", "--epochs", "1", "--lr", "1e-4")

    def work(out: Path):
        main([*places, *STILL, *flags, "--out", str(out)])

    for count in (1, 2):
        assert statuses(in_processes(count, lambda c=count: work(tmp_path / str(c)))) == [0] * count
    for path in tmp_path.glob("1/**/checkpoints"):
        other = tmp_path / "2" / path.parent.relative_to(tmp_path / "1")
        one, two = (next(s for n, s in newest(out)["parts"].items() if n in ("model", "learner"))
                    for out in (path.parent, other))  # fmt: skip
        assert distance(one, two) < 2e-5, path
    names = [sorted(p.relative_to(tmp_path / c) for p in (tmp_path / c).rglob("*")
                    if "checkpoints" not in p.parts) for c in ("1", "2")]  # fmt: skip
    assert names[0] == names[1] and names[0]


# ------------------------------------------------------------------------------------------ one line


def only_line(results: list[tuple[int, str]]) -> str:
    """The one line that several failing processes printed together."""
    assert all(status not in (0, 99) for status, _ in results), results
    (line,) = "".join(text for _, text in results).strip().splitlines()
    return line


def test_the_failure_of_one_process_ends_all_with_its_one_line():
    def work():
        if processes.rank() == 1:
            raise UserError("disk full")
        processes.wait()

    assert only_line(in_processes(3, work)) == "error: disk full"


def test_a_process_that_is_killed_ends_the_others_with_one_line():
    def work():
        if processes.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        processes.wait()

    results = in_processes(2, work)
    assert "error: another process of this run has ended" in only_line(results) and results[1][0] == -9


def test_a_failure_of_all_is_said_once():
    def work():
        raise UserError(f"--lr of {processes.rank()}")

    assert only_line(in_processes(3, work)).startswith("error: --lr of ")


def test_a_gradient_that_is_not_finite_in_one_share_stops_all_before_weights_change(tiny, tmp_path, monkeypatch):
    backward = engine.backward

    def broken(first, terms, weight):
        log = backward(first, terms, weight)
        if processes.rank() == 1:
            next(first.model.parameters()).grad.mul_(float("nan"))
        return log

    monkeypatch.setattr(engine, "backward", broken)
    line = only_line(in_processes(2, lambda: train(tiny, tmp_path, {})))
    assert "epoch 1, step 1: the gradient of sst is not a finite number any more" in line


def test_weights_that_differ_between_processes_are_refused(tiny, tmp_path, monkeypatch):
    build = multitask_classifier.build_terms

    def drifted(model, *args):
        with torch.no_grad():
            next(model.parameters()).add_(1e-12 * processes.rank())
        return build(model, *args)

    monkeypatch.setattr(multitask_classifier, "build_terms", drifted)
    assert "do not have the same weights" in only_line(in_processes(2, lambda: train(tiny, tmp_path, {})))


# ------------------------------------------------------------------------------------------ torchrun itself


TWO = ("--standalone", "--nproc_per_node", "2")


def test_torchrun_ends_with_one_line_where_the_folder_has_a_run(tmp_path, tiny, sample, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "run.json").write_text("{}")
    argv = ("multitask_classifier.py", "--pretrained", str(tiny), "--data", str(sample), "--out", str(tmp_path))
    status, text = in_a_process(torch.distributed.run.main, [*TWO, *argv])
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert status and len(lines) == 1 and "belongs to an earlier run" in lines[0], text
    assert f"{ROOT}/minbert/" not in text, "a traceback of ours"


def torchrun(*argv: str) -> subprocess.Popen:
    """Start a script in two processes, as a user does."""
    command = (sys.executable, "-m", "torch.distributed.run", *TWO, *argv)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_sigterm_to_torchrun_leaves_a_checkpoint(tmp_path, tiny, sample):
    out = tmp_path / "run"
    process = torchrun("multitask_classifier.py", "--pretrained", str(tiny), "--data", str(sample), "--out", str(out),
                       *FULL, "--steps_per_epoch", "100000", "--limit", "16")  # fmt: skip
    start = time.monotonic()
    while not (out / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() - start < 120:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    text, errors = process.communicate(timeout=120)
    assert process.returncode and "of epoch 1; --resume goes on from there" in errors, errors
    state = newest(out)
    assert state["run"]["step"] > 0 and len(state["other processes"]) == 1
    assert read_state(out / "checkpoints" / f"epoch-00000-step-{state['run']['step']:08}")
    assert text.count("before training") == 1
