"""What the benchmarks share: the course's three tasks as streams of batches, and ways to take turns."""

import argparse
import ctypes
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


class Clock:
    """Seconds by the wall, or seconds that this process's threads computed. kind: "wall" or "cpu"."""

    def __init__(self, kind: str):
        self.kind = kind
        self.now = {"wall": time.perf_counter, "cpu": time.process_time}[kind]

    def time(self, do: Callable[[], object]) -> float:
        start = self.now()
        do()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self.now() - start


def peak_of(do: Callable[[], object]) -> int:
    """By how many bytes the memory's peak inside `do` is above what was held before; 0 where no Linux says so."""

    def held(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed goes back to the system
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = held("VmRSS")
        do()
        return max(0, held("VmHWM") - before)
    except (OSError, StopIteration):
        return 0


class Turns:
    """Numbers of several sides, a list each, one a turn."""

    def __init__(self):
        self.numbers: dict[tuple[str, str], list[float]] = {}

    def add(self, side: str, **numbers: float):
        for name, number in numbers.items():
            self.numbers.setdefault((side, name), []).append(number)

    def median(self, side: str, name: str) -> float:
        return statistics.median(self.numbers[side, name])

    def ratio(self, side: str, other: str, name: str) -> float:
        """The median of the turns' ratios, of one side to another."""
        return ratio(self.numbers[side, name], self.numbers[other, name])


def ratio(times: list[float], base: list[float]) -> float:
    """The median of the turns' ratios."""
    return statistics.median(a / b for a, b in zip(times, base, strict=True))


def machine() -> str:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    return f"torch {torch.__version__}, {name}"
