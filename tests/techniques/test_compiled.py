"""Compiled layers: the same numbers, nothing compiled again after an epoch, saved files as before, a clear refusal.

The compiler takes a minute of processor time for what a run needs, so most of this is marked slow.
"""

import copy
import os
import shutil
import subprocess
import sys

import pytest
import torch
from torch._dynamo.utils import counters

from minbert.bert import BertModel
from minbert.compiled import compile_layers
from minbert.errors import UserError
from minbert.multitask import MultitaskBert
from minbert.optimizer import AdamW
from minbert.pcgrad import COMBINE, Memory, give_gradients, take_gradients
from minbert.settings import from_keywords
from minbert.tasks import TASKS
from minbert.terms import Pass, backward, build_terms
from multitask_classifier import build_model
from tests.conftest import ROOT
from tests.tasks.small_models import CONFIG, batch_of

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inside torch.compile
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler: there is no g++ on this machine")
TASKS_OF = ("sst", "para", "sts")


def twins(attention: str = "plain", **options) -> tuple[MultitaskBert, MultitaskBert]:
    """A model, and a copy of it whose layers are compiled; without dropout."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    bert = BertModel(CONFIG, attention)
    model = MultitaskBert(bert, TASKS_OF, dropout=0.0, **options)
    model.still_bert()
    other = copy.deepcopy(model)
    compile_layers(other.bert)
    return model, other


def trained(model: MultitaskBert, flags: dict, steps: int = 3) -> tuple[dict[str, torch.Tensor], list[int]]:
    """The weights after some steps on the three tasks as the flags ask, and how much was compiled after each step."""
    model.train()
    settings = from_keywords("m", option="finetune", **flags)
    terms, combine, memory = build_terms(model, settings.terms, 0), COMBINE[settings.combine], Memory(0)
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, eps=1e-2)
    counts = []
    for _ in range(steps):
        optimizer.zero_grad()
        taken = []
        for task in TASKS_OF:
            backward(Pass(model, batch_of(task), TASKS[task].loss), terms)
            if combine:
                taken.append(take_gradients(model.bert.parameters()))
        if combine:
            give_gradients(taken, combine, memory)
        optimizer.step()
        for term in terms.values():
            term.after_step(0.5)
        counts.append(counters["stats"]["unique_graphs"])
    return {name: p.detach() for name, p in model.named_parameters()}, counts


@needs_compiler
@pytest.mark.slow
def test_compiled_and_plain_answers_are_the_same_in_evaluation():
    plain, compiled = (model.eval() for model in twins())
    with torch.no_grad():
        for task in TASKS_OF:
            for indices in ((0, 1, 2, 3), (2, 1), (3,)):
                batch = batch_of(task, indices=indices)
                torch.testing.assert_close(compiled(batch), plain(batch), rtol=0, atol=1e-5)
    assert list(compiled.state_dict()) == list(plain.state_dict())


WAYS = {
    "plain": ({}, {}),
    "sdpa": ({}, {"attention": "sdpa"}),
    "PCGrad": ({"combine": "pcgrad"}, {}),
    "Bregman": ({"bregman": 1.0}, {}),
    "SMART": ({"smart": 5.0, "smart_epsilon": 0.1, "smart_sigma": 0.1}, {}),  # at σ = 1e-5 the ascent follows rounding
    "LoRA": ({}, {"additions": {"lora": {"rank": 2}}}),
    "LoRA of each task": ({}, {"additions": {"lora": {"rank": 2, "per_task": True}}}),
    "PALs": ({}, {"additions": {"adapter": {"adapter": "pal"}}}),
}


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(("flags", "options"), WAYS.values(), ids=WAYS)
def test_compiled_and_plain_training_are_the_same_and_compile_nothing_later(flags, options):
    plain, compiled = twins(**options)
    expected, _ = trained(plain, flags)
    counters.clear()
    actual, counts = trained(compiled, flags)
    assert counts[0] > 0 and counts[1] == counts[2]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)  # a dictionary's error names the weight


def test_a_resumed_run_goes_on_uncompiled_where_there_is_no_compiler(monkeypatch, tiny, capsys):
    def no_compiler(function):
        raise RuntimeError("no g++ here")

    monkeypatch.setattr(torch, "compile", no_compiler)
    args = from_keywords("m", option="finetune", pretrained=str(tiny), compile=True)
    with pytest.raises(UserError, match=r"\(no g\+\+ here\).*; install it, or leave the flag out"):
        build_model(args)
    args.resume = True  # a flag of the run cannot be left out
    model = build_model(args)
    assert "the run goes on uncompiled" in capsys.readouterr().err
    assert not any("forward" in vars(layer) for layer in model.bert.bert_layers)


@pytest.mark.slow
def test_where_there_is_no_compiler_one_line_says_so(tmp_path, sample, tiny):
    env = os.environ | {"CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, str(ROOT / "multitask_classifier.py"), "--option", "finetune", "--compile", "--tasks",
               "sst", "--data", str(sample), "--pretrained", str(tiny), "--out",
               str(tmp_path / "run")]  # fmt: skip
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    assert result.returncode == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: --compile: ") and "g++" in lines[0]
