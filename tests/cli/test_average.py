"""Whole runs with `--average`: the mean is evaluated and kept, and training does not see it."""

import torch

import multitask_classifier
from tests.cli.runs import FULL, Run
from tests.run.crashes import newest


def test_a_run_evaluates_and_keeps_the_mean_and_trains_as_without_it(argv, tmp_path):
    runs, states = {}, {}
    for name, flags in {"plain": (), "average": ("--average", "0.9")}.items():
        out = tmp_path / name
        multitask_classifier.main([*argv(*FULL, "--epochs", "1", "--lr", "1e-3", *flags), "--out", str(out)])
        runs[name] = Run(out)
        states[name] = newest(out)["parts"]
    assert runs["plain"].metrics[0]["loss"] == runs["average"].metrics[0]["loss"]
    assert same(states["plain"]["model"], states["average"]["model"])
    assert same(runs["plain"].weights, states["plain"]["model"])
    assert same(runs["average"].weights, states["average"]["average"]["mean"])
    assert not same(runs["average"].weights, states["average"]["model"])
    assert runs["plain"].metrics[0]["dev"] != runs["average"].metrics[0]["dev"]


def same(one: dict, other: dict) -> bool:
    """Whether the tensors that both have are equal bit for bit; they share the weights of BERT at least."""
    both = one.keys() & other.keys()
    assert "bert.word_embedding.weight" in both
    return all(torch.equal(one[name], other[name]) for name in both)
