"""Nothing of a training step is on the CPU by mistake. The steps run on PyTorch's `meta` device, as on a GPU.

Tensors of that device have shapes and no numbers, and an operation on one of them and on a tensor of the CPU raises an
error, as with CUDA. What needs numbers is replaced: the dot products of gradients, and the test for infinite ones.
"""

from contextlib import nullcontext
from itertools import cycle, islice, product

import pytest
import torch

from minbert import pcgrad
from minbert.average import Average
from minbert.dropout import draw_in_blocks
from minbert.engine import Portions, find_device
from minbert.errors import UserError
from minbert.heads import PAIR_HEADS
from minbert.optimizer import AdamW, parameter_groups
from minbert.pcgrad import COMBINE, Memory, give_gradients, take_gradients
from minbert.tasks import STS_LOSSES, TASKS
from minbert.terms import active, build_terms
from tests.tasks.small_models import batch_of, build

META = torch.device("meta")
ADDITIONS = {
    "nothing": {},
    "LoRA": {"lora": {"rank": 2}},
    "LoRA per task": {"lora": {"rank": 2, "per_task": True}},
    "PAL": {"adapter": {"adapter": "pal", "size": 4}},
    "low-rank": {"adapter": {"adapter": "low_rank", "size": 4}},
}
TERMS = {
    "nothing": {},
    "SMART": {"smart": {"smart": 5.0}},
    "SMART, relative": {"smart": {"smart": 5.0, "noise": "relative"}},
    "Bregman": {"bregman": {"bregman": 1.0}},
    "R-Drop": {"rdrop": {"rdrop": 1.0}},
    "all": {"smart": {"smart": 5.0}, "bregman": {"bregman": 1.0}, "rdrop": {"rdrop": 1.0}},
}


@pytest.fixture(autouse=True)
def without_numbers(monkeypatch):
    """Replace what reads numbers, and what this device does not have: autocast and generators."""
    generator = torch.Generator

    class Generator:
        """PyTorch's own on the CPU; on the meta device one without numbers."""

        def __new__(cls, device=None):
            assert device in (None, META), "the noise is drawn on another device than the model's"
            return super().__new__(cls) if device else generator()

        def manual_seed(self, seed):
            return None

    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())
    monkeypatch.setattr(pcgrad, "products", lambda gradients: torch.eye(len(gradients), dtype=torch.float64) - 0.1)


def step(additions=(), terms=(), combine="separate", heads=None, pairs="separate", pooling="cls", sts_loss="mse", **of):
    """One step of the trainer's loop with all three tasks, on the meta device."""
    model = build(pairs=pairs, pooling=pooling, heads=heads or {}, additions=dict(additions))
    model.to(META).train()
    if of.get("blocks"):
        draw_in_blocks(model)
    groups = parameter_groups(model, 1e-3, 1e-2, of.get("decay", 0.0), spare_norms=True)
    optimizer = AdamW(groups, lr=1e-3, fused=of.get("fused", True), correct_bias=of.get("correct_bias", True))
    terms, average, memory = build_terms(model, dict(terms), 0), Average(model, 0.9), Memory(0)
    portions, gradients = Portions(of.get("micro_batch")), []
    for task in model.tasks:
        batch = batch_of(task, pairs).to(META)
        loss = STS_LOSSES[sts_loss] if task == "sts" else TASKS[task].loss
        value, log = portions.descend(model, batch, loss, active(terms, task), 1.0)
        assert value.device == META and all(x.device == META for numbers in log.values() for x in numbers.values())
        if COMBINE[combine]:
            gradients.append(take_gradients(model.bert.parameters()))
    if COMBINE[combine]:
        give_gradients(gradients, COMBINE[combine], memory)
    torch.nn.utils.clip_grads_with_norm_(model.parameters(), 1.0, torch.nn.utils.get_total_norm(
        [p.grad for p in model.parameters() if p.grad is not None]))  # fmt: skip
    optimizer.step()
    average.update()
    for term in terms.values():
        term.after_step(0.5)
    assert all(p.device == META and (p.grad is None or p.grad.device == META) for p in model.parameters())


def some(*tables):
    """Combinations in which each row of each table occurs, for every run; all combinations are slow."""
    few = set(zip(*(islice(cycle(table), max(map(len, tables))) for table in tables), strict=True))
    return [pytest.param(*row, marks=() if row in few else pytest.mark.slow) for row in product(*tables)]


@pytest.mark.parametrize(("terms", "additions", "combine"), some(TERMS, ADDITIONS, COMBINE))
def test_additions_terms_and_combinations_stay_on_the_device(additions, terms, combine):
    step(ADDITIONS[additions], TERMS[terms], combine)


HEADS_OF_PAIRS = sorted({*PAIR_HEADS["number"], *PAIR_HEADS["yes_no"]})


@pytest.mark.parametrize(("head", "terms"), some(HEADS_OF_PAIRS, TERMS))
def test_heads_stay_on_the_device(head, terms):
    step(terms=TERMS[terms], heads={t: head for t, kind in (("para", "yes_no"), ("sts", "number"))
                                    if head in PAIR_HEADS[kind]})  # fmt: skip


@pytest.mark.parametrize("options", [
    {"pairs": "joint", "pooling": "mean", "micro_batch": 3, "fused": False, "decay": 0.1},
    {"pooling": "mean", "sts_loss": "cosine", "correct_bias": False, "blocks": True},
], ids=str)  # fmt: skip
def test_other_choices_stay_on_the_device(options):
    step(terms=TERMS["all"], combine="pcgrad", **options)


def test_a_tensor_on_the_cpu_is_noticed(monkeypatch):
    """The negative control: one tensor that a head makes on the CPU."""
    concat = build(heads={"para": "concat"}).heads["para"].__class__
    forward = concat.forward
    monkeypatch.setattr(concat, "forward", lambda self, encoded: forward(self, encoded) + torch.zeros(4, 1))
    with pytest.raises(RuntimeError, match="cpu"):
        step(heads={"para": "concat"})


# ------------------------------------------------------------------------------------------ which device


def test_without_cuda_a_macs_gpu_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device(True) == torch.device("mps") and find_device(False) == torch.device("cpu")
    monkeypatch.setattr("minbert.processes.size", lambda: 2)
    with pytest.raises(UserError, match="a Mac has one GPU; leave torchrun out"):
        find_device(True)
