"""Runs of multitask_classifier.py on two small folders of data, each command once."""

import json
from pathlib import Path

import numpy as np
import torch

import multitask_classifier
from minbert.state import read_state
from tests.cli.runs import Run

FILES = {"sst": "ids-sst-{}.csv", "para": "quora-{}.csv", "sts": "sts-{}.csv", "cfimdb": "ids-cfimdb-{}.csv"}
ROWS = {"sst": 24, "para": 96, "sts": 16}  # of the training files: unlike, so that the schedules have something to do


def copy_rows(source: Path, target: Path, start: int, stop: int):
    """Some rows of a file, with its header."""
    header, *rows = source.read_text("utf-8").splitlines(keepends=True)
    target.write_text(header + "".join(rows[start:stop]), "utf-8")


def write_cfimdb(sample: Path, folder: Path):
    """Files of CFIMDB's form: SST's clearly good and clearly bad sentences with the labels 1 and 0."""
    rows = (sample / "ids-sst-train.csv").read_text("utf-8").splitlines()
    clear = [row.rpartition("\t") for row in rows[1:] if row[-1] in "0134"]
    lines = [f"{left}\t{int(int(label) > 2)}\n" for left, _, label in clear]
    header = rows[0] + "\n"
    (folder / "ids-cfimdb-train.csv").write_text(header + "".join(lines[:20]), "utf-8")
    (folder / "ids-cfimdb-dev.csv").write_text(header + "".join(lines[20:28]), "utf-8")
    unlabelled = [line.rpartition("\t")[0] + "\n" for line in [header, *lines[28:32]]]
    (folder / "ids-cfimdb-test-student.csv").write_text("".join(unlabelled), "utf-8")


def write_folders(root: Path, sample: Path):
    """root/data and root/other: files of every task, with no row in common."""
    for i, name in enumerate(("data", "other")):
        (root / name).mkdir()
        for task, rows in ROWS.items():
            for split, count in (("train", rows), ("dev", 8), ("test-student", 4)):
                file = FILES[task].format(split)
                copy_rows(sample / file, root / name / file, i * count, (i + 1) * count)
        write_cfimdb(sample, root / name)


class WholeRun(Run):
    """A run with its folder, how its model was built, and its prediction files."""

    def __init__(self, out: Path):
        super().__init__(out)
        self.out = out
        self.build = read_state(out / "best")["build"]
        self.bert = self.part("bert.")
        self.description = json.loads((out / "run.json").read_text())

    def ids(self, file: str) -> list[str]:
        return [line.split(" , ")[0] for line in (self.out / "predictions" / file).read_text().splitlines()[1:]]

    def values(self, file: str) -> np.ndarray:
        lines = (self.out / "predictions" / file).read_text().splitlines()[1:]
        return np.array([float(line.split(" , ")[1]) for line in lines])


class Runner:
    """Runs commands, each once; `{data}`, `{other}`, `{weights}` in a flag stand for these folders.

    Dropout is 0, so that no flag can change the weights by merely shifting the random numbers. always: flags of every
    command.
    """

    def __init__(self, places: dict[str, Path], *always: str):
        self.places, self.always, self.done = places, always, {}

    def argv(self, *flags: str) -> list[str]:
        base = ["--pretrained", "{weights}", "--data", "{data}", "--epochs", "1", "--lr", "1e-3", "--batch_size", "8"]
        no_dropout = ["--hidden_dropout_prob", "0", "--bert_dropout", "0"]
        return [flag.format(**self.places) for flag in (*base, *no_dropout, *self.always, *flags)]

    def fresh(self, *flags: str) -> WholeRun:
        out = self.places["out"] / str(len(list(self.places["out"].glob("*"))) if self.places["out"].exists() else 0)
        multitask_classifier.main(["--out", str(out), *self.argv(*flags)])
        return WholeRun(out)

    def __call__(self, *flags: str) -> WholeRun:
        if flags not in self.done:
            self.done[flags] = self.fresh(*flags)
        return self.done[flags]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
