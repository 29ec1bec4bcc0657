"""Runs of the scripts with a tiny BERT and a few rows of the sample data, a second each."""

import itertools
from pathlib import Path
from types import ModuleType

import pytest

import multitask_classifier
from tests.cli.folders import Runner, write_folders
from tests.cli.runs import Run


@pytest.fixture
def argv(tiny, sample, tmp_path):
    """A function from flags to a whole command line, with a folder of its own for the run."""
    base = ["--pretrained", str(tiny), "--data", str(sample), "--limit", "16", "--batch_size", "8", "--lr", "1e-3"]
    count = itertools.count()

    def command(*flags: str) -> list[str]:
        return [*base, "--epochs", "1", "--skip_predictions", *flags, "--out", str(tmp_path / str(next(count)))]

    return command


@pytest.fixture
def train(argv):
    """A function that runs a script with some flags and returns the `Run`."""

    def run(*flags: str, script: ModuleType = multitask_classifier) -> Run:
        words = argv(*flags)
        script.main(words)
        out = script.get_args(words).out
        return Run(out / "sst" if script.__name__ == "classifier" else out)

    return run


@pytest.fixture
def no_evaluation(monkeypatch):
    """Every dev score is .5, without an evaluation."""
    monkeypatch.setattr(multitask_classifier, "evaluate", lambda model, data: dict.fromkeys(data, 0.5))


@pytest.fixture
def float64(monkeypatch):
    """Models of double precision.

    In float32 two ways to compute one number differ in the last bits. Where a gradient is of their size, SMART's search
    takes another direction, and Adam makes a step of the same size from a small gradient as from a large one.
    """
    build_model = multitask_classifier.build_model
    monkeypatch.setattr(multitask_classifier, "build_model", lambda args: build_model(args).double())


@pytest.fixture(scope="module")
def places(tiny, sample, tmp_path_factory) -> dict[str, Path]:
    """The weights, two folders of data with no row in common, and where the runs write."""
    root = tmp_path_factory.mktemp("flags")
    write_folders(root, sample)
    return {"data": root / "data", "other": root / "other", "out": root / "out", "weights": tiny}


@pytest.fixture(scope="module")
def run(places) -> Runner:
    """A function from flags to a whole run."""
    return Runner(places)
