#!/usr/bin/env python3
"""Training speed against the library: examples a second of one epoch of SST and of Quora pairs, in one run.

    python tests/benchmarks/speed.py --data DIR [--examples N] [--batch_size 32]

Both sides train the same weights (minilm) on the same examples with the same head: `transformers.BertModel` (sdpa) with
`torch.optim.AdamW` on random batches padded to their longest; and this project's BertModel, AdamW and batches of like
lengths. They take turns, a share of the epoch each, so that a machine that changes its speed changes it for both;
the ratio is of the times of whole epochs. Texts are tokenised beforehand on both sides.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import BertModel as TransformersBert

from minbert.data import Batch, Batches, Dataset, read_examples
from minbert.hub import find
from minbert.optimizer import AdamW
from minbert.pretrained import load_bert, load_tokenizer
from minbert.tasks import TASKS

SHARES = 4  # turns that each side takes


def library(data: Dataset, batch_size: int):
    """transformers + torch.optim.AdamW: a function of a batch that trains on it, and an epoch of random batches."""
    bert = TransformersBert.from_pretrained(find("minilm"), attn_implementation="sdpa").train()
    head = torch.nn.Linear(bert.config.hidden_size, data.task.outputs)
    optimizer = torch.optim.AdamW([*bert.parameters(), *head.parameters()], lr=1e-5)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]

    def step(batch: Batch):
        pooled = bert(batch.input_ids, batch.attention_mask, batch.token_type_ids).pooler_output
        loss = data.task.loss(head(F.dropout(pooled, 0.3)), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step, batches


def ours(data: Dataset, batch_size: int, attention: str):
    """This project's parts, put together in the same way."""
    bert = load_bert("minilm", attention).train()
    head = torch.nn.Linear(bert.config.hidden_size, data.task.outputs)
    optimizer = AdamW([*bert.parameters(), *head.parameters()], lr=1e-5)

    def step(batch: Batch):
        pooled = bert(batch.input_ids, batch.attention_mask, batch.token_type_ids)["pooler_output"]
        loss = data.task.loss(head(F.dropout(pooled, 0.3)), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step, Batches(data, batch_size, seed=0).order(0)


def compare(name: str, data: Dataset, batch_size: int):
    """Print examples/s of every side, and how many times faster than the library each of ours is."""
    sides = {
        "transformers": library(data, batch_size),
        "minbert, plain": ours(data, batch_size, "plain"),
        "minbert, sdpa": ours(data, batch_size, "sdpa"),
    }
    for step, batches in sides.values():
        step(data.batch(batches[0]))  # warm up
    seconds = {side: [] for side in sides}
    for share in range(SHARES):
        for side, (step, batches) in sides.items():
            start = time.perf_counter()
            for indices in batches[share::SHARES]:
                step(data.batch(indices))
            seconds[side].append(time.perf_counter() - start)
    print(f"{name}: {len(data):,} examples, batch {batch_size}")
    for side, times in seconds.items():
        ratios = [a / b for a, b in zip(seconds["transformers"], times, strict=True)]
        print(
            f"  {side:16} {len(data) / sum(times):6.1f} examples/s   {sum(seconds['transformers']) / sum(times):.2f} x"
            f"   (shares: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the course's files")
    parser.add_argument("--examples", type=int, default=8544, help="how many of each task (default: all of SST)")
    parser.add_argument("--batch_size", type=int, default=32)
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    tokenizer = load_tokenizer("minilm")
    for name, file, task, pairs in (
        ("SST", "ids-sst-train.csv", "sst", "separate"),
        ("Quora, joint pairs", "quora-train.csv", "para", "joint"),
    ):
        examples = read_examples(args.data / file, TASKS[task], args.examples)
        compare(name, Dataset(TASKS[task], examples, tokenizer, pairs), args.batch_size)


if __name__ == "__main__":
    main()
