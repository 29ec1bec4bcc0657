"""The tables of techniques: found in the sources, loaded where they are used, and what each of their rows has."""

import importlib
import json
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from minbert import additions
from minbert.additions import part_of, plain_state_dict
from minbert.bert import BertModel
from minbert.errors import UserError
from minbert.flags import techniques
from minbert.multitask import MultitaskBert
from tests.run.crashes import as_script, in_a_process
from tests.techniques.models import NAMES, batch_of, example_settings
from tests.techniques.pals_models import CONFIG

ROOT = Path(__file__).resolve().parents[2]
every_addition = pytest.mark.parametrize("name", additions.names())


def test_the_tables_hold_every_row_of_the_techniques_modules():
    assert {"lora", "adapter"} <= set(additions.names())
    assert {"smart", "bregman", "rdrop"} <= {name for name, t in techniques().items() if t.table == "TERMS"}
    for name, technique in techniques().items():
        module = importlib.import_module(f"minbert.{technique.module}")
        assert technique.load() is getattr(module, technique.table)[name]


@pytest.mark.parametrize("name", techniques())
def test_flags_that_are_read_from_the_source_equal_those_of_the_imported_module(name):
    technique = techniques()[name]
    flags = importlib.import_module(f"minbert.{technique.module}").FLAGS
    assert technique.flags == flags[name]
    assert technique.switch == flags[name][0] and technique.switch.needs == ""


PROGRAM = """
import json, sys
import multitask_classifier as trainer

def loaded():
    return [name for name in ("lora", "pals", "rdrop") if f"minbert.{name}" in sys.modules]

tiny, sample, out = sys.argv[1:]
base = ["--pretrained", tiny, "--data", sample, "--tasks", "sst,para", "--limit", "4", "--batch_size", "4",
        "--epochs", "1", "--steps_per_epoch", "1", "--fine-tune-mode", "full-model", "--skip_predictions",
        "--overwrite", "--out", out]
steps = [loaded()]
for flags in (["--smart", "1", "--combine", "pcgrad"], ["--rdrop", "1", "--lora_rank", "2"], ["--adapter", "pal"]):
    trainer.main([*base, *flags])
    steps.append(loaded())
with open(f"{out}.json", "w") as file:
    json.dump(steps, file)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it runs in a copy of the test's process")
def test_a_run_loads_only_the_techniques_that_its_flags_ask_for(tiny, sample, tmp_path):
    """In one process: the import, a run with SMART and PCGrad, one with R-Drop and LoRA, one with PALs."""
    (tmp_path / "program.py").write_text(PROGRAM)
    program = partial(as_script, ROOT, str(tmp_path / "program.py"))
    status, errors = in_a_process(program, [str(tiny), str(sample), str(tmp_path / "run")])
    assert status == 0, errors
    assert json.loads((tmp_path / "run.json").read_text()) == [[], [], ["lora", "rdrop"], ["lora", "pals", "rdrop"]]


# ------------------------------------------------------------------------------------------ rows of ADDITIONS


def small_bert() -> BertModel:
    torch.manual_seed(0)
    return BertModel(CONFIG).eval()


def model_with(*names: str) -> MultitaskBert:
    torch.manual_seed(1)
    return MultitaskBert(small_bert(), NAMES, additions={name: example_settings(name) for name in names}).eval()


@every_addition
def test_an_addition_has_all_that_the_docstring_says(name):
    row = techniques()[name].load()
    assert callable(row.apply) and callable(row.use) and isinstance(row.freezes_bert, bool)
    assert row.plain is None or callable(row.plain)


@every_addition
def test_an_addition_starts_as_the_identity_and_names_its_parameters_after_itself(name):
    """Its parameters have a part that begins with its name, BERT's own keep theirs; it freezes BERT if it says so."""
    plain, model = small_bert(), model_with(name)
    ids, mask = batch_of("sst").input_ids, batch_of("sst").attention_mask
    for task in NAMES:
        model.use(task)
        assert torch.equal(model.bert(ids, mask)["pooler_output"], plain(ids, mask)["pooler_output"])
    parts = {n: part_of(f"bert.{n}") for n, _ in model.bert.named_parameters()}
    assert {n for n, part in parts.items() if part == "BERT"} == {n for n, _ in plain.named_parameters()}
    assert set(parts.values()) <= {"BERT", name}
    assert model.bert_trains() != model.additions[name].freezes_bert
    assert all(p.requires_grad for n, p in model.bert.named_parameters() if parts[n] == name)


@every_addition
def test_a_plain_form_is_a_state_dict_of_bert_with_the_same_outputs_or_is_refused(name):
    model, batch = model_with(name), batch_of("sst")
    own = [p for n, p in model.bert.named_parameters() if part_of(f"bert.{n}") == name]
    for p in own:
        nn.init.normal_(p, std=0.1)
    if model.additions[name].plain is None:
        with pytest.raises(UserError, match="each task has its own BERT"):
            plain_state_dict(model.bert)
        return
    plain = small_bert()
    before = plain(batch.input_ids, batch.attention_mask)["last_hidden_state"]
    plain.load_state_dict(plain_state_dict(model.bert))
    outputs = [bert(batch.input_ids, batch.attention_mask)["last_hidden_state"] for bert in (plain, model.bert)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    assert not own or not torch.allclose(outputs[0], before, atol=1e-3)


def test_a_bert_without_additions_is_its_own_plain_form():
    bert = small_bert()
    state = plain_state_dict(bert)
    assert state.keys() == bert.state_dict().keys()
    assert all(torch.equal(tensor, bert.state_dict()[name]) for name, tensor in state.items())


def test_additions_are_applied_in_the_order_of_the_table_whatever_the_order_of_the_settings():
    models = [model_with("lora", "adapter"), model_with("adapter", "lora")]
    order = [name for name in additions.names() if name in ("lora", "adapter")]
    assert list(models[0].additions) == list(models[1].additions) == order
    states = [model.state_dict() for model in models]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_unknown_additions_and_settings_are_refused_by_name():
    with pytest.raises(ValueError, match=r"no addition is called nothing; there are .*lora"):
        MultitaskBert(small_bert(), NAMES, additions={"nothing": {}})
    with pytest.raises(ValueError, match=r"lora: .*rnak"):
        MultitaskBert(small_bert(), NAMES, additions={"lora": {"rnak": 2}})
    with pytest.raises(ValueError, match=r"lora: .*rank"):
        MultitaskBert(small_bert(), NAMES, additions={"lora": {}})


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("heads.sst.linear.weight", "heads"),
        ("bert.word_embedding.weight", "BERT"),
        ("bert.bert_layers.0.self_attention.query.weight", "BERT"),
        ("bert.bert_layers.0.self_attention.query.lora_A.all", "lora"),
        ("bert.bert_layers.0.adapter.sst.encode.weight", "adapter"),
        ("heads.lora_like.weight", "heads"),  # a task may have any name
        ("bert.bert_layers.0.adapter.lora_like.encode.weight", "adapter"),
        ("bert.bert_layers.0.self_attention.query.lora_A.adapter_like", "lora"),
        ("bert.explorations.weight", "BERT"),  # the part must begin with the addition's name
    ],
)
def test_the_part_of_a_parameter_follows_from_its_name(name, part):
    assert part_of(name) == part


def test_a_new_addition_needs_no_more_than_its_row(monkeypatch):
    """A bias beside BERT's embeddings, as a module of its own would define it."""

    class Shift:
        freezes_bert, plain = True, None

        @staticmethod
        def apply(bert, tasks, size):
            bert.requires_grad_(False)
            bert.shift_bias = nn.Parameter(torch.zeros(size))
            bert.embed_layer_norm.register_forward_hook(lambda module, args, output: output + bert.shift_bias)

        @staticmethod
        def use(bert, task):
            pass

    lora = techniques()["lora"]
    table = {**techniques(), "shift": type("Row", (), {"table": "ADDITIONS", "load": staticmethod(lambda: Shift)})()}
    monkeypatch.setattr(additions, "techniques", lambda: table)
    model = MultitaskBert(small_bert(), NAMES, additions={"shift": {"size": CONFIG.hidden_size}})
    assert lora is table["lora"] and part_of("bert.shift_bias") == "shift"
    assert [n for n, p in model.bert.named_parameters() if p.requires_grad] == ["shift_bias"]
    assert not model.bert_trains()
    model(batch_of("sst")).sum().backward()
    assert model.bert.shift_bias.grad.abs().sum() > 0
