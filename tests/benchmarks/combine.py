#!/usr/bin/env python3
"""What gradient surgery costs: a step of each --combine on the same three batches, in turns, in one run.

    python tests/benchmarks/combine.py --data DIR [--steps 10] [--batch_size 32]

Prints the median seconds of a step, its ratio to the summed-loss step (one backward pass a task, gradients accumulated
by autograd: no surgery code at all), and how much memory the gradients held between the passes.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from minbert.data import Batches, Dataset, read_examples
from minbert.multitask import MultitaskBert
from minbert.optimizer import AdamW
from minbert.pcgrad import COMBINE, Memory, give_gradients, take_gradients
from minbert.pretrained import load_bert, load_tokenizer
from minbert.tasks import TASKS

FILES = {"sst": "ids-sst-train.csv", "para": "quora-train.csv", "sts": "sts-train.csv"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the course's files")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch_size", type=int, default=32)
    args = parser.parse_args()

    tokenizer = load_tokenizer("minilm")
    model = MultitaskBert(load_bert("minilm"), FILES).train()
    optimizer = AdamW(model.parameters(), lr=1e-5)
    memory = Memory(0)
    streams = {}
    for task, file in FILES.items():
        examples = read_examples(args.data / file, TASKS[task], 100 * args.batch_size)
        streams[task] = Batches(Dataset(TASKS[task], examples, tokenizer), args.batch_size, 0)

    def accumulate(batches):
        for batch in batches:
            TASKS[batch.task].loss(model(batch), batch.labels).backward()

    def combine(name):
        def run(batches):
            gradients = []
            for batch in batches:
                TASKS[batch.task].loss(model(batch), batch.labels).backward()
                gradients.append(take_gradients(model.bert.parameters()))
            held[name] = sum(g.nbytes for taken in gradients for g in taken.values())
            give_gradients(gradients, COMBINE[name], memory)

        return run

    held = {}
    ways = {"summed loss": accumulate} | {name: combine(name) for name in ("sum", "pcgrad", "gradvac", "cagrad")}
    seconds = {name: [] for name in ways}
    for turn in range(args.steps + 1):
        batches = [stream.next() for stream in streams.values()]
        for name, way in ways.items():
            start = time.perf_counter()
            optimizer.zero_grad()
            way(batches)
            optimizer.step()
            if turn:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    shared = sum(p.nbytes for p in model.bert.parameters())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; shared parameters {shared / 2**20:.0f} MiB")
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds["summed loss"], strict=True))
        memory_held = f"   held {held[name] / 2**20:.0f} MiB of gradients" if name in held else ""
        print(f"  {name:12} {statistics.median(times):.3f} s   {ratio:.2f} x{memory_held}")


if __name__ == "__main__":
    main()
