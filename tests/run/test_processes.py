"""N processes train what one process trains with the whole batch, by whatever schedule, combination and term."""

import json
import os

import pytest
import torch

import multitask_classifier
from minbert import engine, processes
from minbert.state import read_state
from tests.cli.runs import CLOCK
from tests.run import several
from tests.run.crashes import newest
from tests.run.several import SETTINGS, in_processes, train_all

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked"),
    pytest.mark.xdist_group("processes"),
]
FEW = ("interleaved", "interleaved, pcgrad", "all terms")  # for three processes: some shares are empty


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """The folders of every setting's run, by the number of processes."""
    folders = {count: tmp_path_factory.mktemp(f"of-{count}") for count in (1, 2, 3)}
    with pytest.MonkeyPatch.context() as patch:
        several.without_randomness(patch)
        train_all(tiny, folders[1])
        for count, names in ((2, tuple(SETTINGS)), (3, FEW)):
            results = in_processes(count, lambda c=count, n=names: train_all(tiny, folders[c], n))
            assert [status for status, _ in results] == [0] * count, results
    return folders


def difference(one, other) -> float:
    """The largest difference of two states' numbers; they must have the same names."""
    if isinstance(one, torch.Tensor):
        one, other = one.double(), other.double()
        return (one - other).abs().max().item() if one.numel() else 0.0
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return max((difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        return max((difference(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    return abs(one - other) if isinstance(one, float) else float(one != other)


def relative(gradient: torch.Tensor, other: torch.Tensor) -> float:
    """How far another gradient is off, ‖g - g'‖/‖g‖."""
    return ((gradient - other).norm() / gradient.norm()).item()


@pytest.mark.parametrize("count, name", [(2, name) for name in SETTINGS] + [(3, name) for name in FEW])
def test_processes_train_what_one_process_trains(runs, count, name):
    exact = 1e-10 if name != "frozen" else 1e-5
    first, *_ = read_state(runs[1] / name / "gradients")
    assert relative(first, read_state(runs[count] / name / "gradients")[0]) < 10 * exact  # CAGrad's solver: 5e-11
    one, other = (newest(runs[n] / name)["parts"] for n in (1, count))
    for part in set(one) - {"random", "smart", "log"}:  # the log has the time; the generators have their own tests
        assert difference(one[part], other[part]) < exact, part
    assert difference(*(numbers(runs[n] / name) for n in (1, count))) < max(exact, 1e-6)  # evaluation is in float32


def numbers(out) -> list:
    """What a run logged, without time and memory."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]


# ------------------------------------------------------------------------------------------ negative controls


def surgery_before_the_sum(monkeypatch):
    """Combine the gradients of each process, and sum afterwards."""
    give = multitask_classifier.give_gradients

    def combined(gradients, combine, memory):
        give(gradients, combine, memory)
        processes.sum_gradients(list(gradients[0]), [])

    def heads_alone(model, loss, log, share, terms):
        processes.sum_gradients([*model.heads.parameters()], [])
        return loss, log

    monkeypatch.setattr(engine, "whole", heads_alone)
    monkeypatch.setattr(multitask_classifier, "give_gradients", combined)


def unweighted_shares(monkeypatch):
    """Take the mean over the processes, whatever the sizes of their shares."""
    share = processes.share
    monkeypatch.setattr(processes, "share", lambda n: (share(n)[0], 1 / processes.size()))


CONTROLS = {"pcgrad": (surgery_before_the_sum, {"combine": "pcgrad"}),
            "unweighted": (unweighted_shares, {"combine": "sum", "batch_size": 3})}  # fmt: skip


@pytest.mark.parametrize("name", CONTROLS)
def test_two_ways_that_look_alike_make_another_update(tiny, tmp_path, monkeypatch, name):
    change, setting = CONTROLS[name]
    monkeypatch.setitem(SETTINGS, name, setting | {"steps_per_epoch": 1, "lr": 1e-2})
    train_all(tiny, tmp_path / "one", [name])

    def changed():
        change(monkeypatch)
        train_all(tiny, tmp_path / "changed", [name])

    for folder, do in (("right", lambda: train_all(tiny, tmp_path / "right", [name])), ("changed", changed)):
        results = in_processes(2, do)
        assert [status for status, _ in results] == [0, 0], (folder, results)
    one, right, other = (read_state(tmp_path / w / name / "gradients")[0] for w in ("one", "right", "changed"))
    print(f"{name}: {relative(one, right):.1e} off, and {relative(one, other):.1%} in the other way")
    assert relative(one, right) < 1e-12 and relative(one, other) > 0.01


# ------------------------------------------------------------------------------------------ shares and sums


def test_shares_are_all_rows_once_and_an_empty_one_counts_nothing(monkeypatch):
    for n, count in ((8, 2), (5, 2), (5, 3), (1, 3)):
        rows, weights = [], []
        monkeypatch.setattr(processes, "size", lambda c=count: c)
        for rank in range(count):
            monkeypatch.setattr(processes, "rank", lambda r=rank: r)
            mine, weight = processes.share(n)
            rows += list(range(n))[mine] if weight else []
            weights.append(weight)
            assert len(range(n)[mine]) == (weight * n or 1)
        assert sorted(rows) == list(range(n)) and sum(weights) == pytest.approx(1)


def test_gradients_that_some_processes_lack_and_rows_that_none_has_are_summed_right(tmp_path):
    def work():
        rank = processes.rank()
        table, other, never = (torch.nn.Parameter(torch.zeros(n, 2)) for n in (processes.TALL, 3, 4))
        table.grad = torch.zeros_like(table)
        table.grad[[0, 7 + rank]] = 1.0 + rank
        if rank == 1:
            other.grad = torch.ones_like(other)
        (number,) = processes.sum_gradients([table, other, never], [torch.tensor(float(rank))])
        assert number == 3.0 and never.grad is None and other.grad.tolist() == [[1.0, 1.0]] * 3
        rows = {0: 6.0, 7: 1.0, 8: 2.0, 9: 3.0}
        assert {i: row[0] for i, row in enumerate(table.grad.tolist()) if any(row)} == rows

    assert [status for status, _ in in_processes(3, work)] == [0, 0, 0]
