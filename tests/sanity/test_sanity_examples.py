"""The example projects are right: their BERT and their AdamW give the numbers of ours, which others' oracles check."""

import importlib
import importlib.machinery
import sys

import pytest
import torch

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.optimizer import AdamW
from tests.sanity.making import PROJECTS

CONFIG = BertConfig(
    vocab_size=20, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
    max_position_embeddings=9,
)  # fmt: skip


@pytest.fixture
def project(monkeypatch):
    """A function that imports a module of one of the right projects, for this test only."""

    def load(style: str, module: str):
        monkeypatch.syspath_prepend(str(PROJECTS / style))
        importlib.invalidate_caches()
        return importlib.import_module(module)

    before = dict(sys.modules)
    for name in ("requests", "filelock", "importlib_metadata", "sklearn", "sklearn.metrics"):
        monkeypatch.setitem(sys.modules, name, Inert(name))
    yield load
    for name in set(sys.modules) - set(before):
        if str(PROJECTS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


class Inert(type(sys)):
    """A module that has every attribute, each a function that answers with a word."""

    def __init__(self, name: str):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **options: "nothing"


@pytest.mark.parametrize("style", ["course", "einsum"])
def test_the_right_projects_bert_is_ours(style, project):
    """The same weights by name give the same numbers as our BertModel, itself checked against `transformers`."""
    torch.manual_seed(0)
    ours, theirs = BertModel(CONFIG).eval(), project(style, "bert").BertModel(course_config(project, style)).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
        left = theirs.load_state_dict(ours.state_dict(), strict=False)
        ids = torch.randint(1, 20, (2, 7))
        mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
        expected, found = ours(ids, mask), theirs(ids, mask)
    assert left.missing_keys in ([], ["position_ids"]) and not left.unexpected_keys
    for name in ("last_hidden_state", "pooler_output"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-5)


def course_config(project, style: str):
    """CONFIG as the project's own BertConfig."""
    config = project(style, "config").BertConfig
    return config(**{k: v for k, v in vars(CONFIG).items() if k != "initializer_range" or style == "course"})


@pytest.mark.parametrize("style", ["course", "einsum"])
def test_the_right_projects_adamw_is_ours(style, project):
    """Five steps with weight decay; the textbook's ε is ours over √(1 - β₂ᵗ), so there ε is 0."""
    theirs = project(style, "optimizer").AdamW
    results = []
    for optimizer_class in (AdamW, theirs):
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.randn(5, dtype=torch.float64))
        optimizer = optimizer_class([p], lr=1e-2, eps=1e-6 if style == "course" else 0.0, weight_decay=0.0)
        for _ in range(5):
            p.grad = torch.randn(5, dtype=torch.float64)
            optimizer.step()
        results.append(p.detach())
    torch.testing.assert_close(results[1], results[0], atol=1e-12, rtol=1e-9)
