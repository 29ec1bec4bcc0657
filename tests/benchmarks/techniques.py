"""The rows of speed.py about techniques: a step against the plain one on the same batches; and what a start takes.

A step is a batch of each task and one update. The peers: `peft`'s LoRA on transformers' BERT, and PCGrad as its public
PyTorch code has it: every gradient flattened to one vector, projected pair by pair. (Written afresh from the paper.)
"""

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from common import FILES, Turns
from torch import Tensor, nn
from transformers import BertModel as TransformersBert

from minbert.data import Batch, Batches, Dataset
from minbert.flags import DATA
from minbert.hub import find
from minbert.multitask import MultitaskBert
from minbert.optimizer import AdamW
from minbert.pcgrad import COMBINE, Memory, give_gradients, take_gradients
from minbert.pretrained import load_bert
from minbert.settings import from_keywords
from minbert.tasks import TASKS
from minbert.terms import Pass, backward, build_terms

ROOT = Path(__file__).resolve().parents[2]
Step = Callable[[list[Batch]], None]


def ours(dropout: bool = True, flags: dict | None = None, additions: dict | None = None) -> Step:
    """A step of this project's parts, with terms and additions."""
    model = MultitaskBert(load_bert("minilm", dropout=None if dropout else 0.0), FILES, additions=additions,
                          dropout=0.3 if dropout else 0.0).train()  # fmt: skip
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
    settings = from_keywords("m", option="finetune", **(flags or {}))
    terms, combine, memory = build_terms(model, settings.terms, 0), COMBINE[settings.combine], Memory(0)

    def step(batches: list[Batch]):
        optimizer.zero_grad()
        gradients = []
        for batch in batches:
            backward(Pass(model, batch, TASKS[batch.task].loss), terms)
            if combine:
                gradients.append(take_gradients(model.bert.parameters()))
        if combine:
            give_gradients(gradients, combine, memory)
        optimizer.step()
        for term in terms.values():
            term.after_step(0.5)

    return step


def public_pcgrad() -> Step:
    """PCGrad with flat vectors: a copy of each task's gradient, less its parts against the others in random order."""
    model = MultitaskBert(load_bert("minilm"), FILES).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)

    def flat() -> Tensor:
        return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])

    def step(batches: list[Batch]):
        gradients = []
        for batch in batches:
            optimizer.zero_grad()
            TASKS[batch.task].loss(model(batch), batch.labels).backward()
            gradients.append(flat())
        changed = [g.clone() for g in gradients]
        for g in changed:
            for other in random.sample(gradients, len(gradients)):
                product = torch.dot(g, other)
                if product < 0:
                    g -= product / other.norm() ** 2 * other
        merged, start = torch.stack(changed).sum(dim=0), 0
        for p in parameters:
            p.grad = merged[start : start + p.numel()].view_as(p).clone()
            start += p.numel()
        optimizer.step()

    return step


class Peer(nn.Module):
    """transformers' BERT with a linear head a task."""

    def __init__(self, lora: bool):
        super().__init__()
        bert = TransformersBert.from_pretrained(find("minilm"), attn_implementation="sdpa")
        self.heads = nn.ModuleDict({t: nn.Linear(384 * len(TASKS[t].texts), TASKS[t].outputs) for t in FILES})
        if lora:
            from peft import LoraConfig, get_peft_model

            targets = ["query", "key", "value", "dense"]
            bert = get_peft_model(bert, LoraConfig(r=8, lora_alpha=16, target_modules=targets))
        self.bert = bert

    def forward(self, batch: Batch) -> Tensor:
        rows = self.bert(input_ids=batch.input_ids, attention_mask=batch.attention_mask,
                         token_type_ids=batch.token_type_ids).pooler_output  # fmt: skip
        return self.heads[batch.task](F.dropout(torch.cat(rows.split(len(batch)), dim=-1), 0.3))


def peer(lora: bool) -> Step:
    model = Peer(lora).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)

    def step(batches: list[Batch]):
        optimizer.zero_grad()
        for batch in batches:
            TASKS[batch.task].loss(model(batch), batch.labels).backward()
        optimizer.step()

    return step


WAYS: dict[str, tuple[Callable[[], Step], str]] = {  # name → its step, and the row that it is compared with
    "plain": (lambda: ours(flags={"combine": "sum"}), "plain"),
    "PCGrad": (lambda: ours(flags={"combine": "pcgrad"}), "plain"),
    "PCGrad, public code": (public_pcgrad, "plain"),
    "SMART": (lambda: ours(flags={"combine": "sum", "smart": 5}), "plain"),
    "R-Drop": (lambda: ours(flags={"combine": "sum", "rdrop": 1}), "plain"),
    "LoRA, r = 8": (lambda: ours(flags={"combine": "sum"}, additions={"lora": {"rank": 8}}), "plain"),
    "plain, no dropout": (lambda: ours(False, {"combine": "sum"}), "plain, no dropout"),
    "SMART, no dropout": (lambda: ours(False, {"combine": "sum", "smart": 5}), "plain, no dropout"),
    "transformers": (lambda: peer(False), "plain"),
    "transformers, peft r = 8": (lambda: peer(True), "transformers"),
}


def table(args: argparse.Namespace, data: dict[str, Dataset]):
    """Print each way's step, and how many times the step of its base it takes."""
    streams = [Batches(d, args.batch_size, 0) for d in data.values()]
    steps, turns = {name: make() for name, (make, _) in WAYS.items()}, Turns()
    for turn in range(args.turns + 1):
        batches = [stream.next() for stream in streams]
        for name, step in steps.items():
            seconds = args.clock.time(lambda step=step, batches=batches: step(batches))
            if turn:
                turns.add(name, seconds=seconds)
    print(f"\na step of the three tasks, batches of {args.batch_size}")
    for name, (_, base) in WAYS.items():
        print(f"  {name:26} {turns.median(name, 'seconds'):6.3f} s   "
              f"{turns.ratio(name, base, 'seconds'):5.2f} × {base}", flush=True)  # fmt: skip


def startup(args: argparse.Namespace):
    """Print the seconds of --help, and of a run of one step, from the command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        line = "--pretrained minilm --local_files_only --option finetune --tasks sst --limit 32 --epochs 1 --overwrite"
        one = [*line.split(), "--steps_per_epoch", "1", "--skip_predictions", "--data", str(DATA / "sample")]
        one += ["--out", f"{folder}/run"]
        print("\nstart-up of multitask_classifier.py")
        for title, flags in (("--help", ["--help"]), ("a run of one step", one)):
            times = [_seconds(flags, args.clock.kind) for _ in range(min(3, args.turns))]
            print(f"  {title:26} {statistics.median(times):6.2f} s", flush=True)


def _seconds(flags: list[str], kind: str) -> float:
    """What the script takes. kind: of the clock."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), os.times().elapsed
    subprocess.run([sys.executable, ROOT / "multitask_classifier.py", *flags], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu if kind == "cpu" else os.times().elapsed - start
