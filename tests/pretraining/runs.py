"""What the tests of whole pre-training runs share."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from minbert.pretraining import script as pretraining


def run(folder: Path, tiny: Path, sample: Path, *flags: str) -> list[dict]:
    """A small run in `folder`; its metrics."""
    flags = ("--epochs", "2", "--steps_per_epoch", "4", "--lr", "1e-2", "--batch_size", "16", *flags)
    pretraining.main(["--pretrained", str(tiny), "--data", str(sample), "--out", str(folder), *flags])
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    one, other = weights(a), weights(b)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
