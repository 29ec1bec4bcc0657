#!/usr/bin/env python3
"""What SMART and R-Drop cost: a training step with and without the terms, on the same batches, in turns, in one run.

    python tests/benchmarks/smart.py --data DIR [--steps 10] [--batch_size 32] [--precision fp32]

A forward pass is one unit of work, a backward pass to the weights two, to the embeddings alone one. A plain step takes
3. With K = 1 and without dropout the loss and the term share the clean pass: 1 + (1 + 1) + 1 + 2·2 = 8, or 2.7 times.
With dropout the term needs a clean pass of its own: 1 + 1 + (1 + 1) + 1 + 3·2 = 11, or 3.7 times. R-Drop, which needs
dropout, has two passes instead of one: 6, or 2 times. AdamW's work is the same in all. Peak memory is measured where
PyTorch can (on a GPU).
"""

import statistics

import torch
from common import FILES, machine, parser, ratio, streams, take_turns

from minbert.multitask import MultitaskBert
from minbert.optimizer import AdamW
from minbert.pretrained import load_bert, load_tokenizer
from minbert.settings import from_keywords
from minbert.tasks import TASKS
from minbert.terms import Pass, backward, build_terms

WAYS = {  # the trainer's flags, with its defaults for all others
    "plain": {},
    "SMART, K = 1": {"smart": 5},
    "SMART, K = 2": {"smart": 5, "smart_steps": 2},
    "Bregman": {"bregman": 1},
    "SMART + Bregman": {"smart": 5, "bregman": 1},
    "R-Drop": {"rdrop": 1},
    "all three": {"smart": 5, "bregman": 1, "rdrop": 1},
}


def main():
    more = parser(__doc__)
    more.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the loss's pass")
    args = more.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = streams(args.data, load_tokenizer("minilm"), args.batch_size)
    print(f"{machine()}, {args.precision}, batches of {args.batch_size}")
    for title, dropout in (("dropout 0", 0.0), ("dropout .1 in BERT, .3 in the heads", 0.1)):
        model = MultitaskBert(load_bert("minilm", dropout=dropout), FILES, dropout=3 * dropout).train().to(device)
        model.precision = args.precision
        optimizer = AdamW(model.parameters(), lr=1e-5)
        peak = {}

        def step(name, model=model, optimizer=optimizer, peak=peak):
            terms = build_terms(model, from_keywords("m", **WAYS[name]).terms, seed=0)

            def run(batches):
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                for batch in batches:
                    optimizer.zero_grad()
                    with model.autocast():
                        first = Pass(model, batch, TASKS[batch.task].loss)
                    backward(first, terms)
                    optimizer.step()
                    for term in terms.values():
                        term.after_step(1.0)
                if device.type == "cuda":
                    peak[name] = max(peak.get(name, 0), torch.cuda.max_memory_allocated())

            return run

        seconds = take_turns(
            {name: step(name) for name in WAYS if dropout or "rdrop" not in WAYS[name]},
            lambda: [stream.next().to(device) for stream in data.values()],
            args.steps,
        )
        print(title)
        for name, times in seconds.items():
            memory = f"   peak {peak[name] / 2**20:.0f} MiB" if name in peak else ""
            median = statistics.median(times) / len(FILES)
            print(f"  {name:16} {median:.3f} s a step   {ratio(times, seconds['plain']):.2f} x{memory}")


if __name__ == "__main__":
    main()
