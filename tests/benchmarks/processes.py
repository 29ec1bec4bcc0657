#!/usr/bin/env python3
"""Two processes with one thread each against one process with two threads, and what the sum of the gradients costs.

    python tests/benchmarks/processes.py --data DIR [--limit 640] [--attention sdpa] [--turns 5]

Each turn trains minilm on SST for an epoch in either way, by the script itself; examples/s are the log's, without the
start. Then two processes sum gradients of minilm's sizes, of which the word table has 600 rows that are not 0.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def rate(count: int, threads: int, flags: list[str]) -> float:
    """Examples a second of the run's one epoch."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)] if count > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *launcher, str(ROOT / "multitask_classifier.py"), *flags, "--out", f"{folder}/run"]
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL, cwd=ROOT)
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["examples_per_second"]


def sums(turns: int):
    """In a process of torchrun's: the seconds that a sum of gradients of minilm's sizes takes."""
    import torch

    from minbert import processes

    torch.set_num_threads(1)
    with processes.joined():
        table, rest = torch.nn.Parameter(torch.zeros(30_522, 384)), torch.nn.Parameter(torch.zeros(10_800_000))
        seconds = []
        for _ in range(turns + 1):
            table.grad, rest.grad = torch.zeros_like(table), torch.ones_like(rest)
            table.grad[:600] = 1
            processes.wait()
            start = time.perf_counter()
            processes.sum_gradients([table, rest], [])
            seconds.append(time.perf_counter() - start)
        print(f"a sum of the gradients   {statistics.median(seconds[1:]) * 1000:.0f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the course's files")
    parser.add_argument("--limit", default="640", help="examples")
    parser.add_argument("--attention", default="sdpa", choices=("plain", "sdpa"))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--sums", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.sums:
        return sums(args.turns)
    flags = ["--pretrained", "minilm", "--tasks", "sst", "--data", args.data, "--limit", args.limit, "--epochs", "1"]
    flags += ["--batch_size", "32", "--attention", args.attention, "--fine-tune-mode", "full-model"]
    flags += ["--schedule", "interleaved", "--skip_predictions"]
    one, two = [], []
    for turn in range(args.turns):
        one.append(rate(1, 2, flags))
        two.append(rate(2, 1, flags))
        print(f"turn {turn + 1}   one process, two threads {one[-1]:.1f} examples/s   two processes, one thread each "
              f"{two[-1]:.1f}   {two[-1] / one[-1]:.2f} x", flush=True)  # fmt: skip
    ratio = statistics.median(b / a for a, b in zip(one, two, strict=True))
    print(f"median   {statistics.median(one):.1f}   {statistics.median(two):.1f}   {ratio:.2f} x")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([*launcher, __file__, "--sums", "--turns", str(args.turns)], check=True, env=env)


if __name__ == "__main__":
    main()
