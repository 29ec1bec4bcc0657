"""Files of a BERT with layers of its tasks' own."""

import pytest
import torch
from torch import Tensor

from minbert.bert import sdpa_attention
from minbert.checkpoint import load_model, load_trained, save_model, save_trained
from minbert.data import Dataset, Example
from minbert.errors import UserError
from minbert.multitask import MultitaskBert, part_of
from minbert.pretrained import load_bert, load_tokenizer, save_pretrained
from minbert.state import read_state
from minbert.tasks import TASKS
from tests.techniques.models import NAMES
from tests.techniques.pals_models import a_pal_and_a_low_rank, equal, every_way, own_of, randomize


def outputs_for_texts(model: MultitaskBert, tokenizer) -> list[Tensor]:
    model.eval()
    results = []
    for name in NAMES:
        texts = ("a good film", "not a bad film at all") if TASKS[name].is_pair else ("a good film",)
        data = Dataset(TASKS[name], [Example("x", texts, None)], tokenizer, model.pairs[name])
        with torch.no_grad():
            results.append(model(data.batch([0])))
    return results


def all_equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@every_way
def test_a_saved_model_has_the_same_outputs(tiny, tmp_path, way):
    tokenizer = load_tokenizer(tiny)
    model = randomize(MultitaskBert(load_bert(tiny), NAMES, additions={"adapter": way}))
    save_model(tmp_path / "model.pt", model, tokenizer)
    again, its_tokenizer = load_model(tmp_path / "model.pt")
    assert again.build == model.build and again.build["additions"] == {"adapter": way}
    assert all_equal(outputs_for_texts(again, its_tokenizer), outputs_for_texts(model, tokenizer))
    plain = MultitaskBert(load_bert(tiny), NAMES)
    plain.heads.load_state_dict(model.heads.state_dict())
    assert not all_equal(outputs_for_texts(plain, tokenizer), outputs_for_texts(model, tokenizer))

    first, *others = (layer.adapter["sst"] for layer in again.bert.bert_layers)
    assert all((first.encode.weight is own.encode.weight) == (way["adapter"] == "pal") for own in others)
    fused, _ = load_model(tmp_path / "model.pt", "sdpa")
    for a, b in zip(outputs_for_texts(fused, tokenizer), outputs_for_texts(model, tokenizer), strict=True):
        torch.testing.assert_close(a, b)
    if way["adapter"] == "pal":
        assert all(own.attention.attend is sdpa_attention for own in fused.bert.bert_layers[1].adapter.values())


@a_pal_and_a_low_rank
def test_the_layers_and_heads_of_a_frozen_bert_can_be_saved_by_themselves(tiny, tmp_path, way):
    tokenizer, path = load_tokenizer(tiny), tmp_path / "trained"
    model = randomize(MultitaskBert(load_bert(tiny), NAMES, additions={"adapter": way}))
    with pytest.raises(ValueError, match="train"):
        save_trained(path, model)
    model.freeze_bert()
    save_trained(path, model)
    assert {part_of(name) for name in read_state(path)["trained"]} == {"adapter", "heads"}
    again = load_trained(path, load_bert(tiny))
    assert all_equal(outputs_for_texts(again, tokenizer), outputs_for_texts(model, tokenizer))
    assert not any(p.requires_grad for p in own_of(again).values())
    if way["adapter"] == "pal":
        first, second = (layer.adapter["para"] for layer in again.bert.bert_layers)
        assert first.decode.weight is second.decode.weight and first.attention.key is not second.attention.key

    other = load_bert(tiny)
    other.pooler_dense.bias.data += 1e-3
    with pytest.raises(UserError, match="fingerprint"):
        load_trained(path, other)


@a_pal_and_a_low_rank
def test_a_bert_with_layers_of_tasks_cannot_be_loaded_as_a_plain_bert(tiny, tmp_path, way):
    tokenizer = load_tokenizer(tiny)
    model = MultitaskBert(load_bert(tiny), NAMES, additions={"adapter": way})
    with pytest.raises(UserError, match="with --adapter each task has its own BERT"):
        save_pretrained(model.bert, tokenizer, tmp_path / "hf")
    assert not (tmp_path / "hf").exists() or not list((tmp_path / "hf").iterdir())
    save_model(tmp_path / "model.pt", model, tokenizer)
    with pytest.raises(UserError, match="--adapter"):
        load_bert(tmp_path / "model.pt")

    plain = MultitaskBert(load_bert(tiny), NAMES)  # this one can
    save_model(tmp_path / "plain.pt", plain, tokenizer)
    assert equal(load_bert(tmp_path / "plain.pt").state_dict(), plain.bert.state_dict())
