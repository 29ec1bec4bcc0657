"""What run.json says of a run: the command, its flags, its files with their sha256, the versions and the machine.

The run's folder keeps it (`folder.py`), --resume compares it, and the page about runs shows it (`report/`).
"""

import contextlib
import json
import os
import platform
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from minbert import processes
from minbert.checkpoint import identity
from minbert.config import BertConfig, config_file
from minbert.data import Dataset
from minbert.files import sha256, sha256_of
from minbert.hub import weight_files
from minbert.multitask import MultitaskBert
from minbert.recipe import SCRIPTS
from minbert.state import TENSORS, VALUES, is_state
from minbert.tokenizer import BertTokenizer

READ = (  # files of a directory of weights
    "*.safetensors", "*.bin", "*.pt", "*.ckpt", "*.index.json", "config.json", "vocab.txt", "added_tokens.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "state.json",
)  # fmt: skip
CHECKPOINT = "the checkpoint"  # a file of weights, whatever its name is
PROGRAM = "a model of a program"  # the name of weights that no flag names
PACKAGES = ("minbert", "torch", "numpy", "scipy", "tokenizers", "safetensors", "huggingface_hub")


def describe(args: Namespace, weights: Path | None = None, tokenizer: BertTokenizer | None = None) -> dict[str, Any]:
    """The content of a new run's run.json. weights: the directory or the checkpoint that the run starts from."""
    parts = {path.name: path for pattern in READ for path in (weights.glob(pattern) if weights else ())}
    parts = dict(sorted(parts.items())) if parts or not weights else {CHECKPOINT: weights}
    files = {task: {split: str(path) for split, path in paths.items()} for task, paths in args.files.items()}
    data = {f"{task}/{split}": Path(path) for task, paths in files.items() for split, path in paths.items()}
    digests = {name: sha256(path) for name, path in parts.items() if path.is_file()}
    return {
        "command": shlex.join(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "script": SCRIPTS[args.script],
        "seed": args.seed,
        "changed": args.changed,
        "flags": args.values,
        "plan": {
            "files": files,
            "outs": {task: {split: str(path) for split, path in paths.items()} for task, paths in args.outs.items()},
            "prediction_name": args.prediction_name,
            "course_folder": str(args.course_folder) if args.course_folder else None,
            "limit": args.limit,
        },
        "weights": {"name": str(args.pretrained)} | digests,
        "read": what_is_read(weights, tokenizer, digests) if weights and tokenizer else {},
        "data": {place: sha256(path) for place, path in data.items() if path.is_file()},
        "versions": versions(),
        "machine": machine(args.use_gpu),
    }


def describe_program(args: Namespace, model: MultitaskBert, tokenizer: BertTokenizer,
                     data: dict[str, dict[str, Dataset]]) -> dict[str, Any]:  # fmt: skip
    """The same where a program calls `train` with a model and data of its own, which no flag and no file describes."""
    sums = {f"{task}/{split}": part.sha256() for task, splits in data.items() for split, part in splits.items()}
    return describe(args) | {"weights": {"name": PROGRAM} | identity(model, tokenizer), "data": sums}


def what_is_read(weights: Path, tokenizer: BertTokenizer, digests: Mapping[str, str]) -> dict[str, str]:
    """What a run takes of its weights, with the sha256 of each: files of tensors, BERT's sizes, the tokenizer.

    Two folders with the same weights may differ in other files: in a tokenizer.json beside the vocab.txt, in the order
    of a config's entries, in weights of a second format. digests: name of a file → sha256.
    """
    if weights.is_file():
        result = {"checkpoint": digests[CHECKPOINT]}
    else:
        files = (weights / TENSORS, weights / VALUES) if is_state(weights) else weight_files(weights)
        result = {path.name: digests.get(path.name) or sha256(path) for path in files if path.is_file()}
        if not is_state(weights):
            result["config"] = sha256_of(BertConfig.from_json(config_file(weights)).to_dict())
    whole = json.loads(tokenizer.to_json())
    parts = {name: whole[name] for name in ("model", "normalizer", "pre_tokenizer", "added_tokens")}
    return result | {"tokenizer": sha256_of(parts | {"max_length": tokenizer.max_length})}


def other_part(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """The first part of the weights that is not the same, with what is the matter with it."""
    for name in dict(before) | dict(now):
        if name != "name" and before.get(name) != now.get(name):
            what = "is not read now, but was when" if name not in now else "was not read when"
            return f"{name} {'has changed since' if name in before and name in now else what}"
    return None


def other_data(script: str, before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """The first data file, as "task/split", that is not the same for two runs of a script. before, now: place → sha256.

    A test file that only one of them has changes no training. It does change the pre-training, which leaves out what is
    in the test files.
    """
    for place in dict(before) | dict(now):
        alone = place not in before or place not in now
        if before.get(place) != now.get(place) and not (alone and place.endswith("/test") and script != "p"):
            return place
    return None


@cache
def versions() -> dict[str, str]:
    """The versions of Python and of the packages in use."""
    result = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):  # not installed, but run from its sources
            result[name] = version(name)
    return result


def machine(use_gpu: bool) -> dict[str, Any]:
    """The processor, how many processes and threads of PyTorch use it, and the GPU that the run uses, if any."""
    result = {"system": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    result["processes"] = processes.size()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        result["processor"] = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        result["processor"] = platform.processor() or platform.machine()
    if torch.cuda.is_initialized() or (use_gpu and torch.cuda.is_available()):  # the name alone would initialize it
        result["gpu"] = torch.cuda.get_device_name()
    elif use_gpu and torch.backends.mps.is_available():
        result["gpu"] = "MPS"
    return result


def peak_memory() -> float:
    """The most memory held so far, in GiB: on a CUDA device by the run, else by the process and its earlier runs."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    try:
        import resource  # not on Windows
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, on a Mac in bytes
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
