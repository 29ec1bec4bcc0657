"""`save_trained` and `load_trained`: what trained around a frozen BERT, in a file with that BERT's fingerprint."""

import copy
import re

import pytest
import torch
from torch import nn

from minbert.bert import BertModel
from minbert.checkpoint import fingerprint, load_model, load_trained, save_model, save_trained
from minbert.config import BertConfig
from minbert.lora import lora_layers, merge_lora
from minbert.multitask import MultitaskBert, part_of
from minbert.pretrained import load_bert, load_tokenizer
from minbert.state import TENSORS, read_state, write_state
from tests.techniques.lora_models import (
    QUERY_VALUE,
    C,
    all_same,
    answers,
    bits,
    make_bert,
    make_model,
    options,
    refuse,
    trainable,
    trained,
)
from tests.techniques.models import NAMES, T


@pytest.mark.parametrize("merged", [False, True], ids=["", "merged"])
@pytest.mark.parametrize("per_task", [False, True], ids=["shared", "per task"])
def test_additions_come_back_around_the_same_bert(tmp_path, per_task, merged):
    model = trained(make_bert(torch.float32), per_task=per_task, targets=QUERY_VALUE)
    before = answers(model)
    if merged:
        model.use("sts")
        merge_lora(model)
    save_trained(tmp_path / "run" / "trained", model)
    bert = make_bert(torch.float32)
    again = load_trained(tmp_path / "run" / "trained", bert)
    assert again.bert is bert and again.build == model.build
    assert all_same(answers(again.eval()), before)
    assert bits(again) == bits(model)
    assert set(trainable(again)) == set(trainable(model))  # it can be trained further
    saved = read_state(tmp_path / "run" / "trained")
    assert {part_of(name) for name in saved["trained"]} == {"lora", "heads"}


def test_heads_on_a_frozen_bert_come_back(tmp_path):
    model = MultitaskBert(make_bert(torch.float32), NAMES, heads={"sts": "hadamard"}).eval()
    model.freeze_bert()
    save_trained(tmp_path / "trained", model)
    again = load_trained(tmp_path / "trained", make_bert(torch.float32)).eval()
    assert all_same(answers(again), answers(model)) and set(trainable(again)) == set(trainable(model))


@pytest.mark.parametrize("with_lora", [{}, {"lora": options()}], ids=["", "with LoRA"])
def test_adapters_come_back(tmp_path, with_lora):
    adapter = {"adapter": {"adapter": "low_rank", "size": 2}}
    model = MultitaskBert(make_bert(torch.float32), NAMES, additions=adapter | with_lora).eval()
    model.freeze_bert()
    with torch.no_grad():
        for p in trainable(model).values():
            p.copy_(0.3 * torch.randn(p.shape))
    save_trained(tmp_path / "trained", model)
    again = load_trained(tmp_path / "trained", make_bert(torch.float32)).eval()
    assert all_same(answers(again), answers(model)) and set(trainable(again)) == set(trainable(model))
    assert len({part_of(name) for name in trainable(again)} - {"heads"}) == (2 if with_lora else 1)


def test_additions_to_a_real_bert_take_less_than_a_megabyte(tmp_path):
    """all-MiniLM-L6-v2 is 6 layers, 384 wide: 90 MB. Rank 2: 2·(8·384 + 2·1920) numbers a layer, 0.3 MB of float32."""
    config = BertConfig(
        vocab_size=100, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )  # fmt: skip
    model = MultitaskBert(BertModel(config), NAMES, additions={"lora": options()})
    save_trained(tmp_path / "trained", model)
    numbers = sum(p.numel() for name, p in model.named_parameters() if part_of(name) == "lora")
    assert numbers == 2 * (6 * (8 * 384 + 2 * 1920) + 2 * 384)
    assert 4 * numbers < sum(f.stat().st_size for f in (tmp_path / "trained").iterdir()) < 1_000_000


def change_one_weight(name: str):
    def change(bert):
        with torch.no_grad():
            bert.get_parameter(name).view(-1)[3] += 1e-6

    return change


def swap_two_matrices(bert):
    a = bert.bert_layers[0].self_attention
    a.query, a.key = a.key, a.query


OTHERS = {  # changes that make another BERT
    "a matrix": change_one_weight("bert_layers.1.out_dense.weight"),
    "an embedding": change_one_weight("word_embedding.weight"),
    "a bias": change_one_weight("pooler_dense.bias"),
    "a norm": change_one_weight("embed_layer_norm.weight"),
    "swapped": swap_two_matrices,
    "another format": lambda bert: bert.double(),
    "another seed": lambda bert: bert.load_state_dict(make_bert(torch.float32, seed=1).state_dict()),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_additions_to_another_bert_are_refused(tmp_path, change):
    path = tmp_path / "trained"
    save_trained(path, make_model())
    other = make_bert(torch.float32)
    change(other)
    message = refuse(load_trained, path, other)
    assert fingerprint(make_bert(torch.float32))[:12] in message and fingerprint(other)[:12] in message
    assert not any(lora_layers(other))


def test_a_fingerprint_is_of_berts_own_weights():
    """The additions do not count, merged or not, trained or not. The fingerprint is the same for the same weights."""
    plain = fingerprint(make_bert(torch.float32))
    assert plain == fingerprint(make_bert(torch.float32)) and re.fullmatch("[0-9a-f]{64}", plain)
    model = trained(make_bert(torch.float32))
    assert fingerprint(model.bert) == plain
    merge_lora(model)
    assert fingerprint(model.bert) == plain
    reshaped = make_bert(torch.float32)
    reshaped.pos_embedding.weight = nn.Parameter(reshaped.pos_embedding.weight.view(C, T))
    assert fingerprint(reshaped) != plain
    low = make_bert(torch.float32).bfloat16()
    assert fingerprint(low) == fingerprint(copy.deepcopy(low)) != plain


def test_additions_to_a_bert_that_trains_are_refused(tmp_path):
    """Its weights change too, so the additions fit no other BERT. A single bias that trains is enough."""
    plain = MultitaskBert(make_bert(torch.float32), NAMES)
    thawed = make_model()
    thawed.bert.embed_layer_norm.bias.requires_grad_()
    for model in (plain, thawed):
        with pytest.raises(ValueError, match="BERT's own weights train"):
            save_trained(tmp_path / "trained", model)
    assert not list(tmp_path.iterdir())


def test_damaged_and_foreign_folders_are_refused(tmp_path):
    path, model, bert = tmp_path / "trained", make_model(), make_bert(torch.float32)
    save_trained(path, model)
    whole, saved = (path / TENSORS).read_bytes(), read_state(path)
    for share in (0.0, 0.1, 0.9):
        (path / TENSORS).write_bytes(whole[: int(share * len(whole))])
        refuse(load_trained, path, bert)
    numbers = next(p for n, p in model.state_dict().items() if "lora_A" in n).numpy().tobytes()
    place = whole.index(numbers)
    (path / TENSORS).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert "damaged" in refuse(load_trained, path, bert)

    foreign = [model.state_dict(), {"weight": torch.ones(2)}, *[{k: saved[k] for k in saved if k != x} for x in saved]]
    for content in foreign:
        write_state(path, content)
        assert "holds no trained and no build and no base" in refuse(load_trained, path, bert)
    assert not any(lora_layers(bert)) and all(p.requires_grad for p in bert.parameters())

    name = next(iter(saved["trained"]))
    write_state(path, saved | {"trained": {n: p for n, p in saved["trained"].items() if n != name}})
    assert f"{name} is missing" in refuse(load_trained, path, make_bert(torch.float32))
    write_state(path, saved | {"trained": saved["trained"] | {name: torch.ones(3, 3)}})
    assert f"{name} has shape (3, 3)" in refuse(load_trained, path, make_bert(torch.float32))


def test_the_two_kinds_of_folder_are_told_apart(tmp_path, tiny):
    whole, alone = tmp_path / "model", tmp_path / "trained"
    bert = load_bert(tiny)
    model = make_model(bert)
    save_model(whole, model, load_tokenizer(tiny))
    save_trained(alone, model)
    assert "holds no trained" in refuse(load_trained, whole, load_bert(tiny))
    assert "holds no model" in refuse(load_model, alone)
