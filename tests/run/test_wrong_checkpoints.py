"""Checkpoints that are whole, their checksums right, and that hold what no run writes: one line, and nothing trains."""

import shutil
import signal

import pytest
import torch

import multitask_classifier
from minbert.state import read_state, write_state
from tests.cli.runs import FULL
from tests.run.crashes import counting, in_a_process

main = multitask_classifier.main


@pytest.fixture(scope="module")
def stopped(tiny, sample, tmp_path_factory):
    """A run that was stopped after one step of its second epoch."""
    out, seen = tmp_path_factory.mktemp("wrong") / "out", [0]

    def act(_, name: str):
        seen[0] += name == "step"
        if name == "step" and seen[0] == 4:
            signal.raise_signal(signal.SIGTERM)

    argv = f"--pretrained {tiny} --data {sample} --out {out} --limit 8 --batch_size 8 --epochs 2 --skip_predictions"
    assert in_a_process(main, [*argv.split(), *FULL], counting(act))[0] == 143
    return out


def moment(state: dict) -> dict:
    """AdamW's m and v of the first weight."""
    return next(iter(state["parts"]["optimizer"]["state"].values()))


CHANGES = {  # a change of the state → words of the line
    "no epoch": (lambda s: s["run"].pop("epoch"), "does not fit this run ('epoch')"),
    "a step by name": (lambda s: s["run"].update(step="x"), "step 'x'"),
    "a step below 0": (lambda s: s["run"].update(step=-1), "step -1"),
    "a step that is none": (lambda s: s["run"].update(step=True), "step True"),
    "a step of no epoch": (lambda s: s["run"].update(step=10**6), "stands at step 1000000 of 3"),
    "an epoch of no run": (lambda s: s["run"].update(epoch=10**6, step=0), "stands at epoch 1000000 of 2"),
    "lines of no log": (lambda s: s["run"].update(lines=[5]), "does not fit this run"),
    "lines that are no JSON": (lambda s: s["run"].update(lines=["epoch 1\n"]), "does not fit this run"),
    "a best without scores": (lambda s: s["run"].update(best={"overall": 1.0}), "its best scores are incomplete"),
    "parts in a list": (lambda s: s.update(parts=[1]), "does not fit this run"),
    "no optimizer": (lambda s: s["parts"].update(optimizer={}), "does not fit this run ('param_groups')"),
    "a moment of another shape": (lambda s: moment(s).update(exp_avg=torch.zeros(1)), "the saved exp_avg is (1,)"),
    "short random numbers": (lambda s: s["parts"]["random"].update(cpu=torch.zeros(5, dtype=torch.uint8)),
                             "does not fit this run"),
    "a weight that is no number": (lambda s: s["parts"]["model"]["bert.pooler_dense.bias"].fill_(float("nan")),
                                   "bert.pooler_dense.bias is not finite"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_whole_checkpoint_of_wrong_content_is_one_line(stopped, tmp_path, refusal, change):
    out = shutil.copytree(stopped, tmp_path / "out")
    path = max((out / "checkpoints").iterdir())
    state = read_state(path)
    CHANGES[change][0](state)
    write_state(path, state)
    assert CHANGES[change][1] in refusal(main, ["--out", str(out), "--resume"])


def test_without_a_change_the_run_goes_on(stopped, tmp_path, capsys):
    out = shutil.copytree(stopped, tmp_path / "out")
    path = max((out / "checkpoints").iterdir())
    write_state(path, read_state(path))
    main(["--out", str(out), "--resume"])
    assert "resumed after epoch 1 and 1 steps" in capsys.readouterr().out
