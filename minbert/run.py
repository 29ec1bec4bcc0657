"""A run is a folder, from which it can be repeated and compared with others.

run.json         the command, every flag's value, which of them are not the default, versions, the seed, the sha256 of
                 the weights and of the data files, the machine, when
metrics.jsonl    one line of JSON an epoch
best.pt          the model with the best dev score (trained.pt: what of it was trained, where BERT stayed frozen)
predictions/     the prediction files of the best model
"""

import json
import os
import platform
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minbert.errors import UserError
from minbert.files import atomic, remove_strays, sha256

FILES = ("run.json", "metrics.jsonl", "best.pt", "trained.pt")
RUNS = Path("runs")  # where runs go that name no folder
PACKAGES = ("minbert", "torch", "numpy", "scipy", "tokenizers", "safetensors", "huggingface_hub")


class RunFolder:
    """The folder of one run. path: where it is, or will be."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.best, self.trained = self.path / "best.pt", self.path / "trained.pt"
        self.metrics = self.path / "metrics.jsonl"

    def holds_a_run(self) -> bool:
        return any((self.path / name).exists() for name in FILES)

    def check_free(self, overwrite: bool):
        """UserError where an earlier run is here and shall not go."""
        if self.holds_a_run() and not overwrite:
            there = next(name for name in FILES if (self.path / name).exists())
            raise UserError(
                f"{self.path / there}: an earlier run's; name another folder with --out, or add --overwrite"
            )

    def begin(self, description: Mapping[str, Any]):
        """Make the folder, let an earlier run's files go, and write run.json."""
        self.path.mkdir(parents=True, exist_ok=True)
        remove_strays(self.path)
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)
        self.write_description(description)

    def write_description(self, description: Mapping[str, Any]):
        with atomic(self.path / "run.json") as temporary:
            temporary.write_text(json.dumps(description, indent=2, default=str) + "\n", encoding="utf-8")

    def log(self, line: Mapping[str, Any]):
        """Add one line to metrics.jsonl."""
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def free_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or `parent/name-2` and so on where that holds a run."""
    paths = (parent / (name if n == 1 else f"{name}-{n}") for n in range(1, 10_000))
    return next(path for path in paths if not RunFolder(path).holds_a_run())


def newest_run(parent: Path, name: str = "") -> Path | None:
    """The folder in `parent` whose best model was written last, of those whose names begin with `name`."""
    models = [path for path in parent.glob(f"{name}*/best.pt")]
    return max(models, key=lambda path: path.stat().st_mtime).parent if models else None


def describe(args: Namespace, weights: Path) -> dict[str, Any]:
    """What run.json says when a run begins. weights: the directory or the checkpoint that the run starts from."""
    parts = sorted(weights.iterdir()) if weights.is_dir() else [weights]
    files = {task: {split: str(path) for split, path in paths.items()} for task, paths in args.files.items()}
    data = [Path(path) for paths in files.values() for path in paths.values()]
    return {
        "command": shlex.join(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": args.seed,
        "changed": args.changed,
        "flags": args.values,
        "plan": {
            "files": files,
            "outs": {task: {split: str(path) for split, path in paths.items()} for task, paths in args.outs.items()},
            "prediction_name": args.prediction_name,
            "limit": args.limit,
        },
        "weights": {"name": str(args.pretrained)} | {path.name: sha256(path) for path in parts if path.is_file()},
        "data": {str(path): sha256(path) for path in data if path.is_file()},
        "versions": versions(),
        "machine": machine(),
    }


def versions() -> dict[str, str]:
    """The versions of Python and of what this project stands on."""
    result = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            result[name] = version(name)
        except PackageNotFoundError:  # run from a folder of sources
            continue
    return result


def machine() -> dict[str, Any]:
    """The processor, how many threads PyTorch uses, and the GPU if there is one."""
    result = {"system": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        result["processor"] = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        result["processor"] = platform.processor() or platform.machine()
    if torch.cuda.is_available():
        result["gpu"] = torch.cuda.get_device_name()
    return result


def peak_memory() -> float:
    """The most memory that the run has held so far, in GiB: of the GPU where one is in use, else of the process."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    try:
        import resource  # not on Windows
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, on a Mac in bytes
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


class EpochLog:
    """What happened in an epoch: each task's losses, what the terms log, how many examples were seen, the time.

    Numbers have a name, "loss" or "smart.before", and a task.
    """

    def __init__(self):
        self.values: dict[str, dict[str, list[Tensor]]] = {}  # name → task → a number a batch
        self.examples, self.start = 0, time.perf_counter()

    def add(self, task: str, examples: int, loss: Tensor, terms: Mapping[str, Mapping[str, Tensor]] | None = None):
        """Note a batch. Nothing is converted to a Python number, which would wait for the GPU."""
        numbers = {"loss": loss} | {f"{t}.{name}": x for t, log in (terms or {}).items() for name, x in log.items()}
        for name, value in numbers.items():
            self.values.setdefault(name, {}).setdefault(task, []).append(value.detach())
        self.examples += examples

    def stop(self):
        """Stop the clock."""
        self.seconds = time.perf_counter() - self.start

    def mean(self, name: str) -> dict[str, float]:
        """The mean of a number, by task."""
        return {task: torch.stack(values).mean().item() for task, values in self.values.get(name, {}).items()}

    def term(self, name: str, largest: Iterable[str] = ()) -> dict[str, dict[str, float]]:
        """What a term logged, task → name → number: means, but of the numbers named in `largest` the largest."""
        result: dict[str, dict[str, float]] = {}
        for key, by_task in self.values.items():
            term, _, number = key.partition(".")
            if term == name:
                whole = torch.max if number in largest else torch.mean
                for task, values in by_task.items():
                    result.setdefault(task, {})[number] = whole(torch.stack(values)).item()
        return result
