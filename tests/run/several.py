"""Several processes of one run, forked from the test's own, which costs no start; and small trainings in float64.

What is drawn at random is replaced here by what is the same for every row of a batch: then N processes must train
exactly what one process trains, with dropout and SMART's noise as well.
"""

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import multitask_classifier
from minbert import processes
from minbert.errors import one_line_errors
from minbert.pcgrad import COMBINE
from minbert.pretrained import load_tokenizer
from minbert.sampling import SCHEDULES
from minbert.settings import FROZEN, from_keywords
from minbert.state import write_state
from multitask_classifier import build_model, load_data
from tests.conftest import ROOT
from tests.run.crashes import do_and_leave

SIZES = "13,6,5"  # training examples of sst, para, sts: batches of 8 have a last one of 5, others are smaller
SMART = {"smart": 5, "smart_epsilon": 0.1}
STILL = {"hidden_dropout_prob": 0, "bert_dropout": 0}
DROPOUT = {"hidden_dropout_prob": 0.3, "bert_dropout": 0.1}
TERMS = {
    "smart": SMART,
    "bregman": {"bregman": 1},
    "rdrop": {"rdrop": 2, **DROPOUT},
    "all terms": {**SMART, "bregman": 1, "rdrop": 2, "combine": "pcgrad", "schedule": "interleaved", **DROPOUT},
}
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"schedule": name, "epochs": 2 if name in ("annealed", "priority") else 1} for name in SCHEDULES},
    **{f"{name}, {combine}": {"schedule": name, "combine": combine, "steps_per_epoch": 2}
       for name in SCHEDULES if SCHEDULES[name].together for combine in COMBINE if combine != "separate"},
    **TERMS,
    "micro-batches, clipped": {"micro_batch": 2, "clip": 0.1, "combine": "sum", "sts_loss": "cosine"},
    "joint pairs, LoRA": {"option": None, "lora_rank": 2, "combine": "pcgrad", "pairs": "joint", "warmup": 0.5},
    "frozen": {"option": "pretrain"},
}  # fmt: skip


def in_processes(count: int, do: Callable[[], Any]) -> list[tuple[int, str]]:
    """Call `do` in `count` processes that see what torchrun tells them; the exit status and the stderr of each."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    started = []
    for rank in range(count):
        read, write = os.pipe()
        if not (pid := os.fork()):
            _child(rank, count, store.port, write, do)
        os.close(write)
        started.append((pid, read))
    results = []
    for pid, read in started:
        with open(read, "rb") as pipe:
            text = pipe.read().decode()
        results.append((os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text))
    return results


def _child(rank: int, count: int, port: int, stderr: int, do: Callable[[], Any]):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True")  # fmt: skip

    def run():
        with one_line_errors(), processes.joined():
            do()

    do_and_leave(run, stderr)


# ------------------------------------------------------------------------------------------------ small trainings


def train(weights: Path, out: Path, setting: dict[str, Any], **more) -> dict[str, float]:
    """Train a tiny model in float64 (a frozen one in float32, as its vectors are); the last state is kept in OUT."""
    flags = {"option": "finetune", "epochs": 1, "batch_size": 8, "lr": 1e-3, "seed": 7, **STILL} | setting | more
    args = from_keywords("m", pretrained=str(weights), out=str(out), **flags)
    tokenizer, data = loaded(weights, args.pairs)
    torch.manual_seed(7)
    model = build_model(args)
    return multitask_classifier.train(model if args.mode == FROZEN else model.double(), tokenizer, data, args)


@cache
def loaded(weights: Path, pairs: str):
    """The tokenizer and the data; processes find them where the test's own process has read them."""
    tokenizer = load_tokenizer(weights)
    places = {"data": str(ROOT / "data" / "sample"), "limit": SIZES}
    return tokenizer, load_data(from_keywords("m", pairs=pairs, **places), tokenizer)


def columns(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout that drops whole columns, the same of every row."""
    if not training or not p:
        return x
    return x * (torch.rand(x.shape[-1], dtype=x.dtype) >= p) / (1 - p)


def same_for_every_row(*shape, generator=None, dtype=None, **rest) -> Tensor:
    """`torch.randn` whose rows are all equal."""
    (shape,) = shape
    return torch.randn(*shape[1:], generator=generator, dtype=dtype).expand(shape)


def without_randomness(monkeypatch):
    """Let N processes draw what one process draws."""
    monkeypatch.setattr(torch.nn.functional, "dropout", columns)
    monkeypatch.setattr("minbert.smart.torch", Namespace(**vars(torch) | {"randn": same_for_every_row}))
    monkeypatch.setattr(processes, "seed_apart", lambda seed: seed)
    monkeypatch.setattr("minbert.state.sync", lambda place: None)  # a busy disk would take most of the time
    monkeypatch.setattr("minbert.files.sync", lambda place: None)


def train_all(weights: Path, out: Path, names: Sequence[str] = tuple(SETTINGS)):
    """Train every setting; keep the gradients of the first steps of each."""
    for name in names:
        gradients: list[Tensor] = []
        original = multitask_classifier.checked_step

        def checked(model, *args, gradients=gradients, original=original, **kwargs):
            if len(gradients) < 4:
                gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
            original(model, *args, **kwargs)

        multitask_classifier.checked_step = checked
        try:
            scores = train(weights, out / name, SETTINGS[name], save_every="1000")
        finally:
            multitask_classifier.checked_step = original
        assert all(other == scores for other in processes.gathered(scores))
        if processes.rank() == 0:
            write_state(out / name / "gradients", gradients)
