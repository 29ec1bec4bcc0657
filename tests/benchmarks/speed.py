#!/usr/bin/env python3
"""Training and evaluation against the library, the techniques against a plain step, start-up: one command, one table.

    python tests/benchmarks/speed.py [--data DIR] [--only sst,joint] [--turns 5] [--threads 1] [--clock cpu]

DIR is the folder of the course's files (default: the environment variable MINBERT_DATA, else the sample data). Parts:
sst, joint and separate (Quora), sst-bf16, joint-bf16, evaluation, optimizer, techniques, startup.

All sides train the same weights (minilm) on the same data with the same head. They take turns, and a row's ratio is the
median of the turns' ratios, so that a machine that changes its speed changes it for all. A turn takes a pool of 50
batches, as both samplers do: `random` trains on some batches of it as they come, each padded to its longest; `grouped`
sorts the pool by length first (the sampler that `group_by_length` turns on, and this project's default), and trains on
as many batches, evenly spaced. tokens/s does not count pads; of matmul is the share of the rate of a matrix product in
the same turn that the products of these tokens make; memory is what the first turn, uncounted, held at its peak above
what was there before.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import techniques
import torch
import torch.nn.functional as F
from common import FILES, Clock, Turns, machine, peak_of, read
from torch import Tensor
from transformers import BertModel as TransformersBert

from minbert.data import Batch, Dataset, eval_batches
from minbert.dropout import draw_in_blocks
from minbert.flags import DATA
from minbert.hub import find
from minbert.multitask import MultitaskBert
from minbert.optimizer import AdamW
from minbert.pretrained import load_bert, load_tokenizer

POOL = 50  # batches that are sorted together


class Library(torch.nn.Module):
    """What a user of transformers has: BertModel with sdpa, dropout, a linear head."""

    precision = "fp32"

    def __init__(self, data: Dataset):
        super().__init__()
        self.bert = TransformersBert.from_pretrained(find("minilm"), attn_implementation="sdpa")
        self.head = torch.nn.Linear(self.bert.config.hidden_size * (3 if data.parts == 2 else 1), data.task.outputs)

    def autocast(self):
        return torch.autocast("cpu", torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def forward(self, batch: Batch) -> Tensor:
        pooled = self.bert(batch.input_ids, batch.attention_mask, batch.token_type_ids).pooler_output
        if len(pooled) > len(batch):
            u, v = pooled.chunk(2)
            pooled = torch.cat([u, v, (u - v).abs()], dim=-1)
        return self.head(F.dropout(pooled, 0.3, self.training)).float()


def ours(data: Dataset, attention: str, fast: bool) -> MultitaskBert:
    pairs = "joint" if data.task.is_pair and data.parts == 1 else "separate"
    model = MultitaskBert(load_bert("minilm", attention), [data.task], pairs)
    if fast:
        draw_in_blocks(model)
    return model


def trainer(model: torch.nn.Module, optimizer: torch.optim.Optimizer, data: Dataset) -> Callable[[Batch], None]:
    model.train()

    def step(batch: Batch):
        with model.autocast():
            logits = model(batch)
        loss = data.task.loss(logits, batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def pools(data: Dataset, batch_size: int) -> Iterator[list[int]]:
    """The examples of each turn: POOL batches of a shuffled data set, again and again."""
    random = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(data), generator=random).tolist()
        size = min(POOL * batch_size, len(order))
        yield from (order[i : i + size] for i in range(0, len(order) - size + 1, size))


def batches(data: Dataset, pool: list[int], batch_size: int, count: int) -> dict[str, list[Batch]]:
    """Some random, and as many grouped batches of a pool."""
    grouped = sorted(pool, key=data.lengths.__getitem__)
    cut = {name: [o[i : i + batch_size] for i in range(0, len(o), batch_size)] for name, o in
           (("random", pool), ("grouped", grouped))}  # fmt: skip
    n = len(cut["grouped"])
    places = [int((k + 0.5) * n / min(count, n)) for k in range(min(count, n))]
    return {
        "random": [data.batch(indices) for indices in cut["random"][: len(places)]],
        "grouped": [data.batch(cut["grouped"][i]) for i in places],
    }


def products(batch: Batch, config, passes: int = 3) -> float:
    """Floating-point operations of BERT's matrix products on the batch's tokens, pads left out.

    A token takes 2 operations a weight, and 4·T·C for attention, a layer; a backward pass takes twice the forward's.
    """
    C, M, L = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    T = batch.attention_mask.sum(dim=1).double()
    return passes * L * (2 * (4 * C * C + 2 * C * M) * T + 4 * C * T * T).sum().item()


def matmul(precision: str, clock: Clock) -> float:
    """Operations a second of a product of 4,096 rows with a matrix of BERT-base's width."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(4096, 768).to(dtype), torch.randn(768, 3072).to(dtype)
    return max(2 * 4096 * 768 * 3072 / clock.time(lambda: a @ b) for _ in range(3))


def train_part(title: str, data: Dataset, args: argparse.Namespace, precision: str = "fp32"):
    """The rows of a data set's training."""
    sides: dict[str, tuple[str, torch.nn.Module]] = {
        "transformers, random": ("random", Library(data)),
        "transformers, grouped": ("grouped", Library(data)),
        "minbert": ("grouped", ours(data, "plain", False)),
        "minbert, sdpa": ("grouped", ours(data, "sdpa", False)),
        "minbert, fast_dropout": ("grouped", ours(data, "plain", True)),
    }
    steps = {}
    for name, (_, model) in sides.items():
        model.precision = precision
        adamw = AdamW if name.startswith("minbert") else torch.optim.AdamW
        steps[name] = trainer(model, adamw(model.parameters(), lr=1e-5, fused=True), data)
    run(title, data, sides, steps, args, precision)


def evaluate_part(title: str, data: Dataset, args: argparse.Namespace):
    """The rows of evaluation: the library's batches of 32, and this project's batches of 1,024 tokens."""
    sides = {
        "transformers, random": ("random", Library(data)),
        "transformers, grouped": ("grouped", Library(data)),
        "minbert": ("budget", ours(data, "plain", False)),
        "minbert, sdpa": ("budget", ours(data, "sdpa", False)),
    }
    steps = {name: torch.no_grad()(model.eval()) for name, (_, model) in sides.items()}
    run(title, data, sides, steps, args, "fp32", passes=1)


def run(title, data, sides, steps, args, precision, passes=3):
    """Let the sides take turns, and print their rows."""
    turns, clock, peak = Turns(), args.clock, {}
    draw = pools(data, args.batch_size)
    config = next(model for name, (_, model) in sides.items() if name == "minbert").bert.config
    for turn in range(args.turns + 1):  # the first warms up, uncounted
        pool = next(draw)
        drawn = batches(data, pool, args.batch_size, args.steps)
        if passes == 1:  # every side answers the same examples, all of them
            examples = [data.examples[i] for i in pool[: args.batch_size * args.steps * 2]]
            part = Dataset(data.task, examples, data.tokenizer)
            drawn = batches(part, list(range(len(part))), args.batch_size, len(part))
            drawn["budget"] = list(eval_batches(part))
        rate = matmul(precision, clock)
        for name, (kind, _) in sides.items():
            mine = drawn[kind]

            def do(step=steps[name], mine=mine):
                for batch in mine:
                    step(batch)

            if not turn:
                peak[name] = peak_of(do)
                continue
            seconds = clock.time(do)
            turns.add(
                name,
                seconds=seconds / sum(len(b) for b in mine),
                examples=sum(len(b) for b in mine) / seconds,
                tokens=sum(b.attention_mask.sum().item() for b in mine) / seconds,
                share=sum(products(b, config, passes) for b in mine) / seconds / rate,
            )
    print(f"\n{title}, {precision}, batches of {args.batch_size}: matmul {rate / 1e9:.0f} GFLOP/s")
    print(f"  {'':22} examples/s  tokens/s  of matmul  memory   ÷ random  ÷ grouped")
    for name in sides:
        median = {key: turns.median(name, key) for key in ("examples", "tokens", "share")}
        to = [turns.ratio(f"transformers, {kind}", name, "seconds") for kind in ("random", "grouped")]
        print(f"  {name:22} {median['examples']:10.1f} {median['tokens']:9.0f} {median['share']:9.0%} "
              f"{peak[name] / 2**20:6.0f} MiB {to[0]:8.2f} ×{to[1]:9.2f} ×", flush=True)  # fmt: skip


def optimizer_part(args: argparse.Namespace):
    """AdamW on minilm's weights: both forms of ours, and torch's fused."""
    parameters = list(load_bert("minilm").parameters())
    ways = {
        "torch, fused": torch.optim.AdamW(parameters, fused=True, weight_decay=0.0),
        "ours, fused": AdamW(parameters, fused=True),
        "ours, readable": AdamW(parameters),
        "torch, fused, decay": torch.optim.AdamW(parameters, fused=True, weight_decay=0.01),
        "ours, fused, decay": AdamW(parameters, fused=True, weight_decay=0.01),
    }
    turns = Turns()
    for turn in range(2 * args.turns + 1):
        for p in parameters:
            p.grad = torch.randn_like(p).mul_(1e-3)
        for name, way in ways.items():
            seconds = args.clock.time(way.step)
            if turn:
                turns.add(name, seconds=seconds)
    print(f"\nAdamW, {sum(p.numel() for p in parameters):,} weights")
    for name in ways:
        print(f"  {name:22} {turns.median(name, 'seconds') * 1e3:6.1f} ms a step   "
              f"{1 / turns.ratio('torch, fused', name, 'seconds'):.2f} × torch's fused", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MINBERT_DATA") or DATA / "sample"))
    parser.add_argument("--only", default="", help="parts, with commas (default: all)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each side, after one that warms up")
    parser.add_argument("--steps", type=int, default=5, help="batches of each side a turn")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", type=Clock, default="wall", help="wall, or cpu: the threads' seconds, for a machine "
                        "that has other work")  # fmt: skip
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = load_tokenizer("minilm")

    def data(task: str, pairs: str = "separate", split: str = "train") -> Dataset:
        return read(args.data, task, split, tokenizer, 10 * POOL * args.batch_size, pairs)

    parts: dict[str, Callable[[], None]] = {
        "sst": lambda: train_part("SST", data("sst"), args),
        "joint": lambda: train_part("Quora, joint", data("para", "joint"), args),
        "separate": lambda: train_part("Quora, separate", data("para"), args),
        "sst-bf16": lambda: train_part("SST", data("sst"), args, "bf16"),
        "joint-bf16": lambda: train_part("Quora, joint", data("para", "joint"), args, "bf16"),
        "evaluation": lambda: evaluate_part("evaluation of SST", data("sst", split="dev"), args),
        "optimizer": lambda: optimizer_part(args),
        "techniques": lambda: techniques.table(args, {task: data(task) for task in FILES}),
        "startup": lambda: techniques.startup(args),
    }
    chosen = args.only.split(",") if args.only else list(parts)
    if unknown := set(chosen) - set(parts):
        parser.error(f"--only {','.join(sorted(unknown))}: the parts are {', '.join(parts)}")
    print(f"{machine()}; {args.clock.kind} clock; {args.data}; median of {args.turns} turns of {args.steps} batches")
    for name in chosen:
        parts[name]()


if __name__ == "__main__":
    main()
