#!/usr/bin/env python3
"""What gradient surgery costs: a step of each --combine on the same three batches, in turns, in one run.

    python tests/benchmarks/combine.py --data DIR [--steps 10] [--batch_size 32]

Prints the median seconds of a step, its ratio to the summed-loss step (one backward pass a task, gradients accumulated
by autograd: no surgery code at all), and how much memory the gradients held between the passes.
"""

import statistics

from common import FILES, machine, parser, ratio, streams, take_turns

from minbert.multitask import MultitaskBert
from minbert.optimizer import AdamW
from minbert.pcgrad import COMBINE, Memory, give_gradients, take_gradients
from minbert.pretrained import load_bert, load_tokenizer
from minbert.tasks import TASKS


def main():
    args = parser(__doc__).parse_args()
    model = MultitaskBert(load_bert("minilm"), FILES).train()
    optimizer = AdamW(model.parameters(), lr=1e-5)
    memory = Memory(0)
    held = {}

    def accumulate(batches):
        optimizer.zero_grad()
        for batch in batches:
            TASKS[batch.task].loss(model(batch), batch.labels).backward()
        optimizer.step()

    def combine(name):
        def run(batches):
            optimizer.zero_grad()
            gradients = []
            for batch in batches:
                TASKS[batch.task].loss(model(batch), batch.labels).backward()
                gradients.append(take_gradients(model.bert.parameters()))
            held[name] = sum(g.nbytes for taken in gradients for g in taken.values())
            give_gradients(gradients, COMBINE[name], memory)
            optimizer.step()

        return run

    ways = {"summed loss": accumulate} | {name: combine(name) for name in ("sum", "pcgrad", "gradvac", "cagrad")}
    data = streams(args.data, load_tokenizer("minilm"), args.batch_size)
    seconds = take_turns(ways, lambda: [stream.next() for stream in data.values()], args.steps)
    shared = sum(p.nbytes for p in model.bert.parameters())
    print(f"{machine()}; shared parameters {shared / 2**20:.0f} MiB")
    for name, times in seconds.items():
        memory_held = f"   held {held[name] / 2**20:.0f} MiB of gradients" if name in held else ""
        print(
            f"  {name:12} {statistics.median(times):.3f} s   {ratio(times, seconds['summed loss']):.2f} x{memory_held}"
        )


if __name__ == "__main__":
    main()
