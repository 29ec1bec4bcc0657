"""A whole step of every technique with model and batch on PyTorch's `meta` device, which has shapes but no numbers.

An operation of a tensor there with one that was made on the CPU by mistake raises, as it would on a GPU.
"""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from minbert import additions, pcgrad
from minbert.bert import ATTENTION, BertModel
from minbert.data import Batch
from minbert.flags import techniques
from minbert.multitask import MultitaskBert
from minbert.optimizer import AdamW, parameter_groups
from minbert.pcgrad import COMBINE, Memory, give_gradients, take_gradients
from minbert.tasks import STS_LOSSES, TASKS
from minbert.terms import Pass, backward, build_terms
from tests.tasks.small_models import CONFIG, WAYS, batch_of
from tests.techniques.models import example_settings

TERMS = [name for name, technique in techniques().items() if technique.table == "TERMS"]


def on_meta(batch: Batch) -> Batch:
    return replace(batch, **{name: x.to("meta") for name, x in vars(batch).items() if isinstance(x, Tensor)})


def build(attention: str = "plain", **options) -> MultitaskBert:
    return MultitaskBert(BertModel(CONFIG, attention), ["sst", "para", "sts"], **options).to("meta").train()


def step(model: MultitaskBert, tasks: list[str], pairs: str, terms: tuple = (), combine: str = "sum", loss=None):
    """What the trainer does in a step."""
    optimizer = AdamW(parameter_groups(model, 1e-3, 1e-2, 0.01))
    made = build_terms(model, {name: example_settings(name) for name in terms}, 0)
    gradients = []
    for task in tasks:
        first = Pass(model, on_meta(batch_of(task, pairs)), loss or TASKS[task].loss)
        backward(first, made, 0.5)
        gradients.append(take_gradients(model.bert.parameters()))
    give_gradients(gradients, COMBINE[combine], Memory(0))
    optimizer.step()
    for term in made.values():
        term.after_step(0.5)
    trained = [p for p in model.parameters() if p.grad is not None]
    assert trained and all(p.device.type == "meta" for p in trained)


@pytest.fixture(autouse=True)
def gram_matrix(monkeypatch):
    """The gradients' dot products are brought to the CPU on purpose, and here there are none: some numbers instead."""
    K = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    monkeypatch.setattr(pcgrad, "products", lambda gradients: (K @ K.T)[: len(gradients), : len(gradients)])


@pytest.fixture(autouse=True)
def what_meta_has_not(monkeypatch):
    """There are no generators and no autocast on this device: the CPU's generator, and nothing."""
    real, randn = torch.Generator, torch.randn

    class Generator:
        def __new__(cls, device: object = "cpu"):
            return real()

    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    monkeypatch.setattr(torch, "randn", lambda *shape, generator=None, **more: randn(*shape, **more))


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize(("task", "way"), WAYS.values(), ids=WAYS)
def test_every_head_and_form_of_pairs(task, way, pooling, attention):
    step(build(attention, pooling=pooling, **way), [task], way["pairs"])


@pytest.mark.parametrize("combine", [name for name, function in COMBINE.items() if function])
@pytest.mark.parametrize("addition", [None, *additions.names()])
def test_every_addition_and_combination(addition, combine):
    settings = {addition: example_settings(addition)} if addition else {}
    step(build(additions=settings), ["sst", "para", "sts"], "separate", combine=combine)


@pytest.mark.parametrize("pairs", ["separate", "joint"])
@pytest.mark.parametrize("terms", [(name,) for name in TERMS] + [tuple(TERMS)], ids=" ".join)
def test_every_term(terms, pairs):
    step(build(pairs=pairs), ["sst", "para", "sts"], pairs, terms)


@pytest.mark.parametrize("name", STS_LOSSES)
def test_every_loss_of_sts(name):
    step(build(), ["sts"], "separate", loss=STS_LOSSES[name])


def test_a_tensor_made_on_the_cpu_by_mistake_raises(monkeypatch):
    pool = BertModel.pool
    monkeypatch.setattr(BertModel, "pool", lambda self, tokens: pool(self, tokens) + torch.zeros(CONFIG.hidden_size))
    with pytest.raises(RuntimeError, match="device"):
        step(build(), ["sst"], "separate")
