"""What the tests of whole runs share: flags, and what a run leaves behind."""

import json
from pathlib import Path

from torch import Tensor

from minbert.state import read_state

EVERY_TASK = {"sst", "para", "sts"}
FULL = ("--fine-tune-mode", "full-model")
STILL = ("--hidden_dropout_prob", "0", "--bert_dropout", "0")  # without dropout; the defaults are .3 and .1
SMART = ("--smart", "5", "--smart_epsilon", "0.1")  # at the paper's ε, 1e-5, the term of a tiny BERT is 1e-12
BOTH = (*SMART, "--bregman", "1")
ALL = (*BOTH, "--rdrop", "1")
ONE_UPDATE = ("--combine", "sum", "--steps_per_epoch", "1")
CLOCK = ("seconds", "examples_per_second", "peak_memory_gib")  # what differs between two equal runs


class Run:
    """The weights and the log that a run left behind; `start` is the log's line of before training."""

    def __init__(self, out: Path):
        self.weights: dict[str, Tensor] = read_state(out / "best")["model"]
        lines: list[dict] = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        self.start, *self.metrics = lines

    def numbers(self) -> list[dict]:
        """The log without time and memory."""
        return [{name: value for name, value in line.items() if name not in CLOCK} for line in self.metrics]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The weights whose names begin with `prefix`."""
        return {name: tensor for name, tensor in self.weights.items() if name.startswith(prefix)}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of two models' weights."""
    assert one.keys() == other.keys()
    return max((tensor - other[name]).abs().max().item() for name, tensor in one.items())
