"""What the benchmarks share: the course's three tasks as streams of batches, and ways to take turns."""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from minbert.data import Batch, Batches, Dataset, read_examples
from minbert.flags import MULTITASK
from minbert.tasks import TASKS
from minbert.tokenizer import BertTokenizer

FILES = {task: TASKS[task].file for task in MULTITASK}


def parser(doc: str, steps: int = 10) -> argparse.ArgumentParser:
    """The flags that all benchmarks take."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, required=True, help="folder of the course's files")
    made.add_argument("--steps", type=int, default=steps, help="turns that each way takes")
    made.add_argument("--batch_size", type=int, default=32)
    return made


def read(folder: Path, task: str, split: str, tokenizer: BertTokenizer, limit: int, pairs="separate") -> Dataset:
    """Some examples of one of the course's files."""
    return Dataset(TASKS[task], read_examples(folder / FILES[task].format(split), TASKS[task], limit), tokenizer, pairs)


def streams(folder: Path, tokenizer: BertTokenizer, batch_size: int, pairs="separate") -> dict[str, Batches]:
    """An endless stream of training batches for every task."""
    return {t: Batches(read(folder, t, "train", tokenizer, 100 * batch_size, pairs), batch_size, 0) for t in FILES}


def take_turns(ways: dict[str, Callable[[list[Batch]], None]], batches: Callable[[], list[Batch]], turns: int) -> dict:
    """Seconds that each way takes for the same batches, {way: [one a turn]}. A first turn warms up, uncounted."""
    seconds = {name: [] for name in ways}
    for turn in range(turns + 1):
        drawn = batches()
        for name, way in ways.items():
            start = time.perf_counter()
            way(drawn)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(times: list[float], base: list[float]) -> float:
    """The median of the turns' ratios."""
    return statistics.median(a / b for a, b in zip(times, base, strict=True))


def machine() -> str:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    return f"torch {torch.__version__}, {name}"
