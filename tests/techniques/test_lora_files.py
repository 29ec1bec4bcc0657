"""Files: a whole model with LoRA, and the plain BERT that has the same outputs."""

import pytest
from torch import Tensor

from minbert.checkpoint import fingerprint, load_model, save_model
from minbert.lora import add_lora, lora_layers, merge_lora, unmerge_lora, use_lora
from minbert.multitask import MultitaskBert
from minbert.pretrained import load_bert, load_tokenizer, save_pretrained
from tests.techniques.lora_models import (
    QUERY_VALUE,
    all_same,
    answers,
    bits,
    close,
    make_model,
    options,
    outputs_for,
    randomize,
    refuse,
    same,
    trainable,
    trained,
)
from tests.techniques.models import NAMES, batch_of


@pytest.fixture
def texts(tiny) -> tuple[Tensor, Tensor]:
    """Ids and mask of two sentences, for the BERT in the folder `tiny`."""
    rows = load_tokenizer(tiny)("a film that is good", "and another one", return_tensors="pt")
    return rows["input_ids"], rows["attention_mask"]


@pytest.mark.parametrize("per_task", [False, True], ids=["shared", "per task"])
def test_a_whole_model_comes_back_with_its_additions(tmp_path, tiny, per_task):
    model = trained(load_bert(tiny), per_task=per_task)
    before = answers(model)
    for change in (lambda model: None, merge_lora):
        change(model)
        save_model(tmp_path / "model.pt", model, load_tokenizer(tiny))
        again, _ = load_model(tmp_path / "model.pt")
        assert again.build == model.build and bits(again) == bits(model)
        assert all_same(answers(again.eval()), before)
        assert set(trainable(again)) == set(trainable(model))


@pytest.mark.parametrize("targets", [None, QUERY_VALUE])
def test_shared_additions_are_part_of_the_bert_that_a_file_gives(tmp_path, tiny, texts, targets):
    """The file gives a plain BERT with the outputs of the one with LoRA."""
    model = trained(load_bert(tiny), targets=targets)
    save_model(tmp_path / "model.pt", model, load_tokenizer(tiny))
    bert = load_bert(tmp_path / "model.pt")
    assert list(bert.state_dict()) == list(load_bert(tiny).state_dict()) and not any(lora_layers(bert))
    assert all(p.requires_grad for p in bert.parameters())
    close(outputs_for(bert, texts), outputs_for(model.bert, texts), 1e-6)
    assert (outputs_for(bert, texts) - outputs_for(load_bert(tiny), texts)).abs().max() > 0.01
    assert fingerprint(bert) != fingerprint(model.bert)


@pytest.mark.parametrize("settings", [options(), {"rank": 2, "alpha": 3.0}, {"rank": 2}], ids=["all", "two", "one"])
def test_a_file_with_few_settings_or_one_task_gives_its_bert(tmp_path, tiny, texts, settings):
    model = randomize(MultitaskBert(load_bert(tiny), ["sst"], additions={"lora": settings})).eval()
    save_model(tmp_path / "model.pt", model, load_tokenizer(tiny))
    assert same(load_model(tmp_path / "model.pt")[0].eval()(batch_of("sst")), model(batch_of("sst")))
    close(outputs_for(load_bert(tmp_path / "model.pt"), texts), outputs_for(model.bert, texts), 1e-6)


def test_a_file_with_additions_per_task_gives_no_single_bert(tmp_path, tiny):
    save_model(tmp_path / "model.pt", make_model(load_bert(tiny), per_task=True), load_tokenizer(tiny))
    assert "--lora_per_task" in refuse(load_bert, tmp_path / "model.pt")
    adapter = {"adapter": {"adapter": "low_rank", "size": 2}}
    for also in ({}, {"lora": options()}):
        model = MultitaskBert(load_bert(tiny), NAMES, additions=adapter | also)
        save_model(tmp_path / "model.pt", model, load_tokenizer(tiny))
        assert "--adapter" in refuse(load_bert, tmp_path / "model.pt")


def test_a_plain_models_file_gives_its_bert(tmp_path, tiny):
    model = MultitaskBert(load_bert(tiny), NAMES)
    save_model(tmp_path / "model.pt", model, load_tokenizer(tiny))
    assert bits(load_bert(tmp_path / "model.pt")) == bits(load_bert(tiny))


@pytest.mark.parametrize("merged", [False, True], ids=["", "merged"])
def test_transformers_reads_a_bert_with_its_additions(tmp_path, tiny, texts, merged):
    transformers = pytest.importorskip("transformers")
    bert = randomize(add_lora(load_bert(tiny), 2, 3.0)).eval()
    before, state = outputs_for(bert, texts), bits(bert)
    if merged:
        merge_lora(bert)
    save_pretrained(bert, load_tokenizer(tiny), tmp_path)
    assert all((layer.pretrained is not None) == merged for layer in lora_layers(bert)) and bits(bert) == state
    theirs = transformers.BertModel.from_pretrained(tmp_path)
    close(outputs_for(theirs, texts), before, 1e-5)
    again = load_bert(tmp_path)
    close(outputs_for(again, texts), before, 1e-5)
    assert not any(lora_layers(again))
    unmerge_lora(bert)
    assert same(outputs_for(bert, texts), before)


def test_save_pretrained_writes_the_additions_in_use(tmp_path, tiny, texts):
    bert = randomize(add_lora(load_bert(tiny), 2, 3.0, names=NAMES))
    for name in NAMES:
        use_lora(bert, name)
        save_pretrained(bert, load_tokenizer(tiny), tmp_path / name)
        close(outputs_for(load_bert(tmp_path / name), texts), outputs_for(bert, texts), 1e-5)
