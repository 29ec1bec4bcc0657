"""Which layers get additions, what is frozen, and several adapters on one matrix."""

import copy

import pytest
import torch
from torch import Tensor, nn

from minbert.lora import LoRALinear, add_lora, lora_layers, merge_lora, merged_state_dict, unmerge_lora, use_lora
from tests.techniques.lora_models import (
    IDS,
    QUERY_VALUE,
    C,
    additions,
    answer,
    base_bits,
    bits,
    close,
    layer_names,
    make_bert,
    make_layers,
    make_lora,
    reached,
    same,
    train,
    trainable,
)
from tests.techniques.models import NAMES, T


@pytest.mark.parametrize("rank", [1, 2, 20])
def test_targets_choose_layers_by_name(rank):
    """Two matrices C×C in each of two layers: r·(C + C) numbers a matrix."""
    bert = add_lora(make_bert(), rank, 1.0, targets=QUERY_VALUE)
    assert layer_names(bert) == {f"bert_layers.{i}.self_attention.{name}" for i in (0, 1) for name in QUERY_VALUE}
    assert sum(p.numel() for p in trainable(bert).values()) == 4 * rank * (C + C)
    assert (
        set(trainable(bert)) == {f"{name}.lora_{m}.all" for name in layer_names(bert) for m in "AB"} == additions(bert)
    )


def test_a_target_is_the_whole_last_part_of_a_layers_name():
    linear = {name: nn.Linear(2, 2) for name in ("key", "monkey", "key_2")}
    layers = nn.ModuleDict({**linear, "key_3": nn.ModuleDict({"key": nn.Linear(2, 2), "value": nn.Linear(2, 2)})})
    assert layer_names(add_lora(layers, 1, 1.0, targets=["key"])) == {"key", "key_3.key"}


@pytest.mark.parametrize("rank", [1, 3])
def test_without_targets_every_linear_layer_is_chosen(rank):
    """A layer's query, key, value and dense are C×C, its feed-forward C×12 and 12×C; and the pooler, C×C."""
    plain = make_bert()
    linear = {name for name, child in plain.named_modules() if isinstance(child, nn.Linear)}
    bert = add_lora(plain, rank, 1.0)
    assert bert is plain and layer_names(bert) == linear and len(linear) == 2 * 6 + 1
    per_layer = 4 * rank * (C + C) + 2 * rank * (C + 12)
    assert sum(p.numel() for p in trainable(bert).values()) == 2 * per_layer + rank * (C + C)
    assert isinstance(bert.pooler_dense, LoRALinear)


@pytest.mark.parametrize(
    ("targets", "named"),
    [(["query", "qeury"], "qeury:"), (["word_embedding"], "word_embedding"), (["a", "b"], "a, b:"), ([], "there are")],
)
def test_an_unknown_target_is_refused_and_changes_nothing(targets, named):
    bert = make_bert()
    before = list(bert.named_modules())
    with pytest.raises(ValueError, match="no linear layers inside"):
        add_lora(nn.LayerNorm(2), 1, 1.0, targets=targets)
    with pytest.raises(ValueError, match=named) as error:
        add_lora(bert, 2, 1.0, targets=targets)
    for name in ("query", "key", "value", "attention_dense", "interm_dense", "out_dense", "pooler_dense"):
        assert str(error.value).count(f" {name}") == 1
    assert list(bert.named_modules()) == before and all(p.requires_grad for p in bert.parameters())


def test_adding_lora_twice_is_refused_and_changes_nothing():
    bert = make_lora(targets=QUERY_VALUE)
    before, state, names = answer(bert), bits(bert), layer_names(bert)
    with pytest.raises(ValueError, match="LoRA layers already"):
        add_lora(bert, 2, 1.0, targets=["key"])
    assert layer_names(bert) == names and bits(bert) == state and same(answer(bert), before)
    assert set(trainable(bert)) == {f"{name}.lora_{m}.all" for name in names for m in "AB"}


def test_a_linear_layer_outside_of_a_module_is_refused():
    with pytest.raises(ValueError):
        add_lora(nn.Linear(3, 2), 2, 1.0)


# ------------------------------------------------------------------------------------------ frozen


def check_frozen(module: nn.Module, outputs, steps: int):
    """After training, all that was pretrained has the same bits, and every A and B has changed."""
    before, start = base_bits(module), copy.deepcopy(trainable(module))
    loss = (outputs(module) - 1).square().sum().item()
    optimizer = train(module, outputs, steps)
    assert base_bits(module) == before
    assert trainable(module).keys() == start.keys() == additions(module)
    assert all(not torch.equal(p, start[name]) for name, p in trainable(module).items())
    assert (outputs(module) - 1).square().sum() < loss
    held = {p for p, state in optimizer.state.items() if state}
    assert held == set(trainable(module).values())


def test_of_linear_layers_only_A_and_B_train():
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(4))
    check_frozen(add_lora(make_layers(torch.float32), 2, 3.0), lambda m: m(x), steps=20)


def test_of_a_bert_only_A_and_B_train():
    check_frozen(add_lora(make_bert(torch.float32), 2, 3.0), answer, steps=50)


def test_the_backward_pass_stops_at_the_first_A():
    """It reaches A's and B's and no other parameter; the layers before the first A take no part in it."""
    bert = make_lora()
    assert not bert.embed(IDS).requires_grad
    assert reached(answer(bert), bert) == additions(bert)
    answer(bert).sum().backward()
    assert {name for name, p in bert.named_parameters() if p.grad is not None} == additions(bert)

    late = make_bert()
    late.bert_layers[1] = add_lora(late.requires_grad_(False).bert_layers[1], 2, 3.0)
    hidden = late.bert_layers[0](late.embed(IDS), torch.zeros(3, 1, 1, T).double())
    assert not hidden.requires_grad and reached(answer(late), late) == additions(late)


# ------------------------------------------------------------------------------------------ several adapters


def test_switching_adapters_is_exact_and_leaves_W():
    """Three BERTs share one set of W's; each of them has its own A's and B's."""
    bert = make_lora(names=NAMES)
    weights = {layer: (layer.weight, layer.weight.data_ptr()) for layer in lora_layers(bert)}
    first = answer(bert)
    answers = {}
    for name in (*NAMES, *reversed(NAMES)):
        use_lora(bert, name)
        assert same(answers.setdefault(name, answer(bert)), answer(bert))
        assert all(layer.weight is W and W.data_ptr() == place for layer, (W, place) in weights.items())
    assert same(first, answers["sst"])  # the first name is in use to begin with
    assert len({bits({"": a})[""] for a in answers.values()}) == 3

    for name in NAMES:  # each equals the model that has these A's and B's alone
        alone = add_lora(make_bert(), 2, 3.0)
        state = {n.removesuffix(name) + "all": p for n, p in bert.state_dict().items() if n.endswith(f".{name}")}
        alone.load_state_dict(base_state(bert) | state)
        assert same(answer(alone), answers[name])


def base_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if ".lora_" not in f".{name}"}


def test_training_one_adapter_leaves_the_others():
    """The others get no gradient, no update and no decay."""
    bert = make_lora(names=NAMES, dtype=torch.float32)
    before = bits(bert)
    use_lora(bert, "para")
    assert {name.rpartition(".")[2] for name in reached(answer(bert), bert)} == {"para"}
    optimizer = train(bert, answer, steps=3)
    for name, value in bits(bert).items():
        assert (value != before[name]) == name.endswith(".para"), name
    for name, p in bert.named_parameters():
        assert (p.grad is not None) == (p in optimizer.state) == name.endswith(".para")


def test_an_unknown_adapter_is_refused():
    bert = make_lora(names=NAMES)
    before = answer(bert)
    with pytest.raises(KeyError, match="no adapter 'all': there are sst, para, sts"):
        use_lora(bert, "all")
    assert same(answer(bert), before)


def test_merging_one_of_several_adapters():
    """The adapter in use is merged. While it is, no other adapter can be put to use."""
    bert = make_lora(names=NAMES)
    for name in NAMES:
        use_lora(bert, name)
        before = answer(bert)
        plain = make_bert()
        plain.load_state_dict(merged_state_dict(bert))
        close(answer(plain), before)
        merge_lora(bert)
        close(answer(bert), before)
        for other in NAMES:
            if other == name:
                use_lora(bert, other)
            else:
                with pytest.raises(RuntimeError, match=f"adapter '{name}' is merged: call unmerge_lora before"):
                    use_lora(bert, other)
        close(answer(bert), before)
        unmerge_lora(bert)
        assert same(answer(bert), before)
