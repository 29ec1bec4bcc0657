"""minbert/lora.py: against arithmetic on paper, against `peft`, and against layers that have one thing wrong.

What must hold of a LoRA layer stands in functions `check_…`, each of which runs on the real `LoRALinear`, and, at the
end of the file's first half, on subclasses of it with a usual mistake: there it must fail. The second half is what
builds on it: a model of several tasks, files that hold the additions alone, and the way back to a plain BERT.
"""

import copy
import math
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from minbert import lora
from minbert.bert import BertModel
from minbert.checkpoint import fingerprint, load_model, load_trained, save_model, save_trained
from minbert.config import BertConfig
from minbert.data import Batch
from minbert.errors import UserError
from minbert.lora import LoRALinear, add_lora, lora_layers, merge_lora, merged_state_dict, unmerge_lora, use_lora
from minbert.multitask import MultitaskBert, part_of
from minbert.optimizer import AdamW
from minbert.pretrained import bert_weights, load_bert, load_tokenizer, save_pretrained
from minbert.tasks import TASKS

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # of peft with transformers

V, T, C = 30, 6, 8
CONFIG = BertConfig(
    vocab_size=V, hidden_size=C, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
    max_position_embeddings=T, initializer_range=0.3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
IDS = torch.randint(1, V, (3, T), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 2 + [0] * 4])
NAMES = ("sst", "para", "sts")
QUERY_VALUE = ["query", "value"]


def make_bert(dtype: torch.dtype = torch.float64, seed: int = 0) -> BertModel:
    torch.manual_seed(seed)
    return BertModel(CONFIG).to(dtype).eval()


def make_layers(dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Sequential:
    """Linear layers of several shapes, one of them without a bias; 5 numbers in, 4 out."""
    torch.manual_seed(seed)
    layers = [nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6, bias=False), nn.Tanh(), nn.Linear(6, 4)]
    return nn.Sequential(*layers).to(dtype)


def randomize(module: nn.Module, seed: int = 1) -> nn.Module:
    """Random numbers in every A and B, as if it had been trained."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if ".lora_" in f".{name}":
                p.copy_(0.3 * torch.randn(p.shape, generator=random))
    return module


def make_lora(rank=2, alpha=3.0, dtype=torch.float64, names=("all",), **options) -> BertModel:
    """A BERT with LoRA that has learned something."""
    return randomize(add_lora(make_bert(dtype), rank, alpha, names=names, **options)).eval()


def answer(bert: BertModel) -> Tensor:
    """All that BERT says of three sentences, as one row of numbers."""
    said = bert(IDS, MASK)
    return torch.cat([said["last_hidden_state"][MASK == 1].flatten(), said["pooler_output"].flatten()])


def bits(tensors: dict[str, Tensor] | nn.Module) -> dict[str, bytes]:
    """The very bits of some tensors, or of all that a module's state_dict has."""
    if isinstance(tensors, nn.Module):
        tensors = tensors.state_dict()
    return {name: tensor.detach().contiguous().view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items()}


def base_bits(module: nn.Module) -> dict[str, bytes]:
    """The same, of all but A's and B's."""
    return {name: value for name, value in bits(module).items() if ".lora_" not in f".{name}"}


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bits({"": a}) == bits({"": b})


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12):
    """Within `tolerance` of the largest number."""
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(1.0, b.abs().max().item()))


def reached(output: Tensor, module: nn.Module) -> set[str]:
    """The names of the parameters to which a backward pass from `output` would bring a gradient."""
    names = {id(p): name for name, p in module.named_parameters()}
    found, seen, todo = set(), set(), [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [before for before, _ in node.next_functions]
            found |= {names[id(node.variable)]} if hasattr(node, "variable") else set()
    return found


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def additions(module: nn.Module) -> set[str]:
    """The names of the A's and B's."""
    return {name for name in module.state_dict() if ".lora_" in f".{name}"}


# ---------------------------------------------------------------------------------------------- on paper


def layer_by_hand(A: list, B: list, alpha: float, names=("all",)) -> LoRALinear:
    """W = (1 2; 3 4), b = (10, 20), and these A and B."""
    linear = nn.Linear(2, 2).double()
    A, B = torch.tensor(A).double(), torch.tensor(B).double()
    layer = lora.LoRALinear(linear, len(A), alpha, names=names)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2], [3, 4]]))
        linear.bias.copy_(torch.tensor([10.0, 20]))
        layer.lora_A[names[0]].copy_(A)
        layer.lora_B[names[0]].copy_(B)
    return layer


def check_paper():
    """x = (3, 1): Wx + b = (15, 33).

    r = 1, α = 3:  Ax = 3 - 1 = 2,              BAx = (4, 1),  α/r = 3:    y = (27, 36)
    r = 2, α = 3:  Ax = (3 - 1, 2·1) = (2, 2),  BAx = (6, 1),  α/r = 1.5:  y = (24, 34.5)

    In the second case a loss y₁ + y₂ has, with 1 = (1, 1) and Bᵀ1 = (2.5, 1),

    W' = W + 1.5·BA = (4 2; 3.75 3.25)      ∂/∂x = W'ᵀ1 = (7.75, 5.25)
    ∂/∂B = 1.5·1(Ax)ᵀ = (3 3; 3 3)          ∂/∂A = 1.5·(Bᵀ1)xᵀ = (11.25 3.75; 4.5 1.5)
    """
    x = torch.tensor([3.0, 1]).double().requires_grad_()
    assert layer_by_hand([[1, -1]], [[2], [0.5]], alpha=3)(x).tolist() == [27, 36]

    layer = layer_by_hand([[1, -1], [0, 2]], [[2, 1], [0.5, 0]], alpha=3)
    y = layer(x)
    assert y.tolist() == [24, 34.5]
    y.sum().backward()
    assert x.grad.tolist() == [7.75, 5.25]
    assert layer.lora_B["all"].grad.tolist() == [[3, 3], [3, 3]]
    assert layer.lora_A["all"].grad.tolist() == [[11.25, 3.75], [4.5, 1.5]]
    assert layer.merged().tolist() == [[4, 2], [3.75, 3.25]]
    layer.merge()
    assert layer.weight.tolist() == [[4, 2], [3.75, 3.25]] and layer.eval()(x).tolist() == [24, 34.5]


def test_the_worked_example():
    check_paper()


def check_alpha_and_rank():
    """Twice the α, twice the addition. Rows of zeros in A change nothing, but r is twice as large: half of it."""
    x = torch.randn(3, 2, dtype=torch.float64)
    A, B = [[1, -1], [0, 2]], [[2, 1], [0.5, 0]]
    base = layer_by_hand(A, [[0, 0], [0, 0]], 3)(x)
    addition = layer_by_hand(A, B, 3)(x) - base
    close(layer_by_hand(A, B, 6)(x) - base, 2 * addition)
    close(layer_by_hand([*A, [0, 0], [0, 0]], [[*row, 7, 7] for row in B], 3)(x) - base, addition / 2)


def test_alpha_over_r():
    check_alpha_and_rank()


def check_start():
    """B = 0: the model says what it said, to the last bit. B learns at once; A from the second step, for ∂/∂A ∝ B."""
    for module, ask in ((make_bert(torch.float32), answer), (make_layers(), lambda m: m(torch.ones(2, 5).double()))):
        before = ask(module)
        add_lora(module, 2, 3.0)
        after = ask(module)
        assert same(before, after)
        after.square().sum().backward()
        for layer in lora_layers(module):
            A, B = layer.lora_A["all"], layer.lora_B["all"]
            assert not B.any() and B.grad.abs().max() > 1e-6
            assert A.all() and A.grad is not None and not A.grad.any()


def test_a_model_starts_as_it_was():
    check_start()


def test_A_starts_as_in_the_authors_code():
    """kaiming_uniform_(a=√5) is U(-1/√in, 1/√in), whose deviation is 1/√(3·in); each adapter has one of its own."""
    layer = LoRALinear(nn.Linear(400, 10), 50, 1.0, names=("a", "b"))
    a, b = layer.lora_A["a"], layer.lora_A["b"]
    for A in (a, b):
        assert A.shape == (50, 400)
        assert 0.99 / 20 < A.abs().max() <= 1 / 20  # 20,000 draws come near the bound
        assert abs(A.std() * math.sqrt(3 * 400) - 1) < 0.02 and abs(A.mean()) < 0.001
    assert not torch.equal(a, b)


def test_additions_have_the_layer_s_number_format():
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        module = add_lora(make_layers(dtype), 2, 4.0)
        assert {p.dtype for p in module.parameters()} == {dtype}
        assert module(torch.ones(1, 5, dtype=dtype)).dtype == dtype


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 6)] * 2), rank=st.integers(1, 7), alpha=st.floats(0.01, 64), bias=st.booleans(),
    shape=st.lists(st.integers(0, 3), max_size=3), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_forward_and_merged_are_the_formula_for_all_shapes(sizes, rank, alpha, bias, shape, seed):
    torch.manual_seed(seed)
    linear = nn.Linear(*sizes, bias=bias).double()
    W, b = linear.weight.detach().clone(), linear.bias.detach().clone() if bias else 0.0
    layer = LoRALinear(linear, rank, alpha).eval()
    A, B = torch.randn(rank, sizes[0]).double(), torch.randn(sizes[1], rank).double()
    layer.load_state_dict({**linear.state_dict(), "lora_A.all": A, "lora_B.all": B})
    x = torch.randn(*shape, sizes[0], dtype=torch.float64)
    y = x @ W.T + b + alpha / rank * (x @ A.T @ B.T)
    torch.testing.assert_close(layer(x), y, atol=1e-10, rtol=1e-10)
    layer.merge()
    torch.testing.assert_close(layer(x), y, atol=1e-10, rtol=1e-10)
    layer.unmerge()
    assert same(layer.weight, W)


# ---------------------------------------------------------------------------------------------- peft


def our_name(theirs: str) -> str:
    return next(iter(bert_weights({theirs: torch.zeros(1)})))


def our_lora_name(theirs: str) -> str:
    """peft's name of an A or a B in a wrapped `transformers.BertModel`, or in an nn.Sequential → ours."""
    module, matrix = re.fullmatch(r"base_model\.model\.(.+)\.(lora_[AB])\.default\.weight", theirs).groups()
    return f"{our_name(f'{module}.weight').removesuffix('.weight')}.{matrix}.all"


def wrapped(module: nn.Module, rank: int, alpha: float, targets: list[str], dropout: float = 0.0):
    """peft's model around `module`, its A's and B's random."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=dropout)
    return randomize(peft.get_peft_model(module, config))


def check_like_peft(ours: nn.Module, theirs: nn.Module, ask_ours, ask_theirs, tolerance: float):
    """The same A's and B's give the same outputs, gradients, and merged matrices; and nothing else trains."""
    matrices = {our_lora_name(name): p for name, p in trainable(theirs).items()}
    assert trainable(ours).keys() == matrices.keys()
    with torch.no_grad():
        for name, p in trainable(ours).items():
            p.copy_(matrices[name])
    y, expected = ask_ours(ours), ask_theirs(theirs)
    close(y, expected, tolerance)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    for name, p in trainable(ours).items():
        assert p.grad.abs().max() > 1e-3
        close(p.grad, matrices[name].grad, tolerance)

    merged = {our_name(name): tensor for name, tensor in theirs.merge_and_unload().state_dict().items()}
    state = merged_state_dict(ours)
    assert state.keys() == merged.keys()
    for name, tensor in state.items():
        close(tensor, merged[name], tolerance)
    before = base_bits(ours)
    merge_lora(ours)
    for name, layer in ours.named_modules():
        if isinstance(layer, LoRALinear):
            close(layer.weight, merged[f"{name}.weight"], tolerance)
    assert base_bits(ours) == before  # state_dict still has the pretrained W's


def check_bert_like_peft(rank=4, alpha=6.0, targets=None, dtype=torch.float64, tolerance=1e-12):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    theirs = transformers.BertModel(transformers.BertConfig(**CONFIG.to_dict())).to(dtype).eval()
    ours = make_bert(dtype)
    ours.load_state_dict(bert_weights(theirs.state_dict()))
    add_lora(ours, rank, alpha, targets=targets)

    def ask_theirs(model):
        said = model(input_ids=IDS, attention_mask=MASK)
        return torch.cat([said.last_hidden_state[MASK == 1].flatten(), said.pooler_output.flatten()])

    theirs = wrapped(theirs, rank, alpha, targets or ["query", "key", "value", "dense"]).eval()
    check_like_peft(ours, theirs, answer, ask_theirs, tolerance)


@pytest.mark.parametrize(
    ("rank", "alpha", "targets"), [(1, 1.0, None), (4, 6.0, None), (12, 2.0, QUERY_VALUE), (2, 16.0, ["key"])]
)
def test_a_bert_is_like_pefts(rank, alpha, targets):
    check_bert_like_peft(rank, alpha, targets)


def test_a_bert_in_float32_is_like_pefts():
    check_bert_like_peft(dtype=torch.float32, tolerance=5e-6)


@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize("alpha", [1, 5, 32])
def test_linear_layers_are_like_pefts(rank, alpha):
    x = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for targets in (["0", "2", "4"], ["2"], ["0", "4"]):
        ours, theirs = make_layers(), wrapped(make_layers(), rank, alpha, targets)
        add_lora(ours, rank, alpha, targets=targets)
        check_like_peft(ours.eval(), theirs.eval(), lambda m: m(x), lambda m: m(x), 1e-12)


def test_dropout_is_like_pefts():
    """From the same state of chance both drop the same numbers."""
    x = torch.randn(6, 5, dtype=torch.float64)
    ours, theirs = make_layers(), wrapped(make_layers(), 2, 4, ["0", "2", "4"], dropout=0.4).train()
    add_lora(ours, 2, 4.0, dropout=0.4).train()

    def ask(module):
        torch.manual_seed(5)
        return module(x)

    ours.load_state_dict(ours.state_dict() | {our_lora_name(n): p for n, p in trainable(theirs).items()})
    close(ask(ours), ask(theirs))
    assert not torch.equal(ask(ours), ours(x))


# ---------------------------------------------------------------------------------------------- frozen


def train(module: nn.Module, ask, steps: int) -> AdamW:
    """Some steps of AdamW over all parameters, with a decay that would show on any that it reached."""
    optimizer = AdamW(module.parameters(), lr=0.01, weight_decay=0.1)
    module.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (ask(module) - 1).square().sum().backward()
        optimizer.step()
    module.eval()
    return optimizer


def check_frozen(module: nn.Module, ask, steps: int):
    """After training, whatever was pretrained has the same bits, and every A and B has moved."""
    before, start = base_bits(module), copy.deepcopy(trainable(module))
    loss = (ask(module) - 1).square().sum().item()
    optimizer = train(module, ask, steps)
    assert base_bits(module) == before
    assert trainable(module).keys() == start.keys() == additions(module)
    assert all(not torch.equal(p, start[name]) for name, p in trainable(module).items())
    assert (ask(module) - 1).square().sum() < loss
    held = {p for p, state in optimizer.state.items() if state}
    assert held == set(trainable(module).values())


def check_frozen_layers():
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(4))
    check_frozen(add_lora(make_layers(torch.float32), 2, 3.0), lambda m: m(x), steps=20)


def test_only_A_and_B_train():
    check_frozen_layers()
    check_frozen(add_lora(make_bert(torch.float32), 2, 3.0), answer, steps=50)


@pytest.mark.parametrize("name", ["bert_layers.1.out_dense.weight", "out_layer_norm.bias", "word_embedding.weight"])
def test_a_parameter_that_was_left_to_train_shows(name):
    bert = add_lora(make_bert(torch.float32), 2, 3.0)
    next(p for n, p in bert.named_parameters() if n.endswith(name)).requires_grad_()
    with pytest.raises(AssertionError):
        check_frozen(bert, answer, steps=2)


def check_backward_stops():
    """The backward pass goes to A's and B's and nowhere else; what comes before the first A takes no part in it."""
    bert = make_lora()
    assert not bert.embed(IDS).requires_grad
    assert reached(answer(bert), bert) == additions(bert)
    answer(bert).sum().backward()
    assert {name for name, p in bert.named_parameters() if p.grad is not None} == additions(bert)

    late = make_bert()
    late.bert_layers[1] = add_lora(late.requires_grad_(False).bert_layers[1], 2, 3.0)
    hidden = late.bert_layers[0](late.embed(IDS), torch.zeros(3, 1, 1, T).double())
    assert not hidden.requires_grad and reached(answer(late), late) == additions(late)


def test_the_backward_pass_stops_at_the_first_A():
    check_backward_stops()


# ---------------------------------------------------------------------------------------------- merging


def check_merging():
    """W + (α/r)·BA instead of W: the same answers. Again changes nothing; and back, W is the very tensor it was."""
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 5e-6)):
        bert = make_lora(dtype=dtype)
        before, weights = answer(bert), {layer: layer.weight for layer in lora_layers(bert)}
        start = bits(bert)
        assert (before - answer(make_bert(dtype))).abs().max() > 0.1  # the additions matter
        merge_lora(bert)
        merged = answer(bert)
        close(merged, before, tolerance)
        assert not any(layer.weight is W or same(layer.weight, W) for layer, W in weights.items())
        values = [layer.weight.clone() for layer in lora_layers(bert)]
        merge_lora(bert)
        assert same(answer(bert), merged)
        assert all(same(layer.weight, W) for layer, W in zip(lora_layers(bert), values, strict=True))
        for _ in range(2):
            unmerge_lora(bert)
            assert same(answer(bert), before) and bits(bert) == start
            assert all(layer.weight is W for layer, W in weights.items())


def test_a_merged_model_answers_the_same():
    check_merging()


def check_cycles():
    """A hundred times there and back, W has not moved by a bit, in any number format."""
    for dtype in (torch.float32, torch.float16):
        module = randomize(add_lora(make_layers(dtype), 2, 3.0))
        before = bits(module)
        for _ in range(100):
            merge_lora(module)
            unmerge_lora(module)
        assert bits(module) == before


def test_a_hundred_merges_leave_no_trace():
    check_cycles()


def check_no_training_while_merged():
    """A step would move an A that has no part in the output. Without gradients, merged layers answer in any mode."""
    bert = make_lora()
    before = answer(bert)
    merge_lora(bert)
    bert.train()
    with pytest.raises(RuntimeError, match="merged LoRA layers cannot train: call unmerge_lora first"):
        answer(bert)
    with torch.no_grad():
        close(answer(bert), before)
    close(answer(bert.eval()), before)
    unmerge_lora(bert.train())
    answer(bert).sum().backward()
    assert all(p.grad.any() for p in trainable(bert).values())


def test_a_merged_model_does_not_train():
    check_no_training_while_merged()


def check_merged_is_up_to_date():
    """What is merged is A and B as they are then, not as they were at the last merge."""
    bert = make_lora()
    merge_lora(bert)
    unmerge_lora(bert)
    randomize(bert, seed=9)
    before = answer(bert)
    merge_lora(bert)
    close(answer(bert), before)


def test_merging_again_after_training():
    check_merged_is_up_to_date()


def check_state_dict():
    """Merged or not, the same names and the same bits, which load into a model in either state."""
    bert, plain = make_lora(), make_bert()
    before = answer(bert)
    state = copy.deepcopy(bert.state_dict())
    assert base_bits(bert) == bits(plain)
    merge_lora(bert)
    assert list(bert.state_dict()) == list(state) and bits(bert) == bits(state)
    assert base_bits(bert) == bits(plain) and list(base_bits(bert)) == list(plain.state_dict())

    for merged_there in (False, True):
        other = randomize(add_lora(make_bert(seed=5), 2, 3.0), seed=6).eval()
        if merged_there:
            merge_lora(other)
        other.load_state_dict(bert.state_dict())
        assert bits(other) == bits(state)
        close(answer(other), before)
        merge_lora(other)
        close(answer(other), before)
        unmerge_lora(other)
        assert same(answer(other), before)


def test_a_state_dict_has_the_pretrained_matrices():
    check_state_dict()


def check_copies():
    """A copy of a merged model is merged; the two share nothing, and W comes back in either."""
    bert = make_lora()
    before, state = answer(bert), bits(bert)
    merge_lora(bert)
    twin = copy.deepcopy(bert)
    assert same(answer(twin), answer(bert)) and bits(twin) == state
    unmerge_lora(twin)
    assert bits(twin) == state and same(answer(twin), before)
    assert all(layer.pretrained is not None for layer in lora_layers(bert))
    randomize(twin, seed=9)
    assert not torch.allclose(answer(twin), before)
    unmerge_lora(bert)
    assert bits(bert) == state and same(answer(bert), before)
    assert not {p.data_ptr() for p in bert.parameters()} & {p.data_ptr() for p in twin.parameters()}


def test_copies_of_a_merged_model():
    check_copies()


def check_number_formats(merged: bool = True):
    """`.to` and `.half` take W along, where it waits, and A and B."""
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(4))
    module = randomize(add_lora(make_layers(torch.float32), 2, 3.0)).eval()
    before, state = module(x), copy.deepcopy(module.state_dict())
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float16, 0.005), (torch.bfloat16, 0.02)):
        other = copy.deepcopy(module)
        if merged:
            merge_lora(other)
        other = other.half() if dtype == torch.float16 else other.to(dtype)
        assert {p.dtype for p in other.parameters()} == {dtype}
        close(other(x.to(dtype)).float(), before, tolerance)
        assert all(same(tensor, state[name].to(dtype)) for name, tensor in other.state_dict().items())
        unmerge_lora(other)
        assert all(same(tensor, state[name].to(dtype)) for name, tensor in other.named_parameters())
        close(other(x.to(dtype)).float(), before, tolerance)
        assert other[0].weight.requires_grad is False


@pytest.mark.parametrize("merged", [False, True])
def test_another_number_format(merged):
    check_number_formats(merged)


def check_merged_state_dict():
    """It is that of the plain model, to whose names and shapes it loads, and leaves the model as it is."""
    bert = make_lora()
    before, state = answer(bert), bits(bert)
    for merged in (False, True):
        if merged:
            merge_lora(bert)
        plain = make_bert(seed=7)
        weights = merged_state_dict(bert)
        assert list(weights) == list(plain.state_dict()) and not any(t.requires_grad for t in weights.values())
        plain.load_state_dict(weights)
        close(answer(plain), before)
        assert bits(bert) == state
        layer = bert.bert_layers[0].self_attention.key
        A, B, W = layer.lora_A["all"], layer.lora_B["all"], bert.state_dict()["bert_layers.0.self_attention.key.weight"]
        close(weights["bert_layers.0.self_attention.key.weight"], W + 3 / 2 * B @ A)
        assert all((layer.pretrained is not None) == merged for layer in lora_layers(bert))


def test_a_merged_state_dict_is_a_plain_models():
    check_merged_state_dict()


def test_a_merged_state_dict_of_a_layer_alone():
    layer = layer_by_hand([[1, -1], [0, 2]], [[2, 1], [0.5, 0]], alpha=3)
    state = merged_state_dict(layer)
    assert list(state) == ["weight", "bias"] and state["weight"].tolist() == [[4, 2], [3.75, 3.25]]


# ---------------------------------------------------------------------------------------------- which layers


def layer_names(module: nn.Module) -> set[str]:
    return {name for name, child in module.named_modules() if isinstance(child, LoRALinear)}


@pytest.mark.parametrize("rank", [1, 2, 20])
def test_by_name(rank):
    """Two matrices C×C in each of two layers: r·(C + C) numbers a matrix."""
    bert = add_lora(make_bert(), rank, 1.0, targets=QUERY_VALUE)
    assert layer_names(bert) == {f"bert_layers.{i}.self_attention.{name}" for i in (0, 1) for name in QUERY_VALUE}
    assert sum(p.numel() for p in trainable(bert).values()) == 4 * rank * (C + C)
    assert (
        set(trainable(bert)) == {f"{name}.lora_{m}.all" for name in layer_names(bert) for m in "AB"} == additions(bert)
    )


def test_a_name_is_the_last_part_and_all_of_it():
    linear = {name: nn.Linear(2, 2) for name in ("key", "monkey", "key_2")}
    layers = nn.ModuleDict({**linear, "key_3": nn.ModuleDict({"key": nn.Linear(2, 2), "value": nn.Linear(2, 2)})})
    assert layer_names(add_lora(layers, 1, 1.0, targets=["key"])) == {"key", "key_3.key"}


@pytest.mark.parametrize("rank", [1, 3])
def test_every_linear_layer(rank):
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
    with pytest.raises(ValueError, match=named) as caught:
        add_lora(bert, 2, 1.0, targets=targets)
    for name in ("query", "key", "value", "attention_dense", "interm_dense", "out_dense", "pooler_dense"):
        assert str(caught.value).count(f" {name}") == 1
    assert list(bert.named_modules()) == before and all(p.requires_grad for p in bert.parameters())


def test_twice_is_refused_and_changes_nothing():
    bert = make_lora(targets=QUERY_VALUE)
    before, state, names = answer(bert), bits(bert), layer_names(bert)
    with pytest.raises(ValueError, match="LoRA layers already"):
        add_lora(bert, 2, 1.0, targets=["key"])
    assert layer_names(bert) == names and bits(bert) == state and same(answer(bert), before)
    assert set(trainable(bert)) == {f"{name}.lora_{m}.all" for name in names for m in "AB"}


def check_takes_over():
    """W and b are the linear layer's very own: nothing is copied, and an optimizer that knew them knows them still."""
    module = make_layers()
    parameters = dict(module.named_parameters())
    add_lora(module, 2, 3.0)
    assert parameters.keys() < dict(module.named_parameters()).keys()
    for name, p in parameters.items():
        assert module.get_parameter(name) is p and not p.requires_grad
    assert module[2].bias is None and isinstance(module[2], LoRALinear)
    linear = nn.Linear(2, 3)
    layer = lora.LoRALinear(linear, 1, 1.0)  # by itself, without `add_lora`, too
    assert layer.weight is linear.weight and layer.bias is linear.bias and trainable(layer).keys() == additions(layer)


def test_a_layer_takes_over_W_and_b():
    check_takes_over()


def check_dropout():
    """Of the adapter's input, in training alone. The oracle drops the same numbers, from the same state of chance."""
    x = torch.randn(50, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    module = nn.Sequential(nn.Linear(5, 4).double())
    W, b = module[0].weight, module[0].bias
    base = F.linear(x, W, b)
    add_lora(module, 2, 3.0, dropout=0.4).train()
    assert same(module(x), base)  # B is zero: whatever is dropped, the base is whole
    randomize(module)
    A, B = module[0].lora_A["all"], module[0].lora_B["all"]
    torch.manual_seed(8)
    dropped = F.dropout(x, 0.4)
    torch.manual_seed(8)
    close(module(x), base + 1.5 * dropped @ A.T @ B.T)
    assert 0.2 < (dropped == 0).double().mean() < 0.6 and not torch.equal(module(x), module(x))
    close(module.eval()(x), base + 1.5 * x @ A.T @ B.T)


def test_dropout_is_of_the_adapters_input():
    check_dropout()


def test_a_module_that_does_not_train_gets_layers_that_do_not():
    bert = make_bert().eval()
    add_lora(bert, 2, 3.0, dropout=0.5)
    assert not any(module.training for module in bert.modules())


def test_a_linear_layer_by_itself_has_no_place_to_put_its_lora_layer():
    with pytest.raises(ValueError):
        add_lora(nn.Linear(3, 2), 2, 1.0)


# ---------------------------------------------------------------------------------------------- several adapters


def check_switching():
    """To another and back is exact, and W is where it was: three BERTs for the price of one and three A's and B's."""
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

    for name in NAMES:  # each is the model that has these A's and B's alone
        alone = add_lora(make_bert(), 2, 3.0)
        state = {n.removesuffix(name) + "all": p for n, p in bert.state_dict().items() if n.endswith(f".{name}")}
        alone.load_state_dict(base_state(bert) | state)
        assert same(answer(alone), answers[name])


def base_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if ".lora_" not in f".{name}"}


def test_switching_adapters():
    check_switching()


def check_training_one():
    """The others get no gradient, no step and no decay."""
    bert = make_lora(names=NAMES, dtype=torch.float32)
    before = bits(bert)
    use_lora(bert, "para")
    assert {name.rpartition(".")[2] for name in reached(answer(bert), bert)} == {"para"}
    optimizer = train(bert, answer, steps=3)
    for name, value in bits(bert).items():
        assert (value != before[name]) == name.endswith(".para"), name
    for name, p in bert.named_parameters():
        assert (p.grad is not None) == (p in optimizer.state) == name.endswith(".para")


def test_training_one_adapter_leaves_the_others():
    check_training_one()


def test_an_unknown_adapter_is_refused():
    bert = make_lora(names=NAMES)
    before = answer(bert)
    with pytest.raises(KeyError, match="no adapter 'all': there are sst, para, sts"):
        use_lora(bert, "all")
    assert same(answer(bert), before)


def check_merging_one():
    """What is merged is the adapter in use. Another cannot be put to use meanwhile, and the same one can."""
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


def test_merging_one_of_several_adapters():
    check_merging_one()


# ---------------------------------------------------------------------------------------------- mistakes


class Scaled(LoRALinear):
    """With another factor than α/r."""

    def __init__(self, linear, rank, alpha, *args, **options):
        super().__init__(linear, rank, alpha, *args, **options)
        self.scale = self.factor(rank, alpha)


SCALES = {
    "NoScale": lambda rank, alpha: 1.0,
    "AlphaAlone": lambda rank, alpha: alpha,
    "AlphaTimesRank": lambda rank, alpha: alpha * rank,
    "AlphaOverRoot": lambda rank, alpha: alpha / rank**0.5,
}
SCALED = [type(name, (Scaled,), {"factor": staticmethod(factor)}) for name, factor in SCALES.items()]


class BothZero(LoRALinear):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        for A in self.lora_A.values():
            nn.init.zeros_(A)


class BothRandom(LoRALinear):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        for B in self.lora_B.values():
            nn.init.normal_(B)


class TrainsW(LoRALinear):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.weight.requires_grad_()


class CopiesW(LoRALinear):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.weight = nn.Parameter(self.weight.clone(), requires_grad=False)


class Detached(LoRALinear):
    """The answer is right, the gradient is not."""

    def forward(self, x):
        y = F.linear(x, self.weight, self.bias)
        A, B = self.lora_A[self.active], self.lora_B[self.active]
        return y if self.pretrained is not None else y + self.scale * F.linear(F.linear(x.detach(), A), B)


class DropsTheBase(LoRALinear):
    def forward(self, x):
        x = self.lora_dropout(x)
        A, B = self.lora_A[self.active], self.lora_B[self.active]
        return F.linear(x, self.weight, self.bias) + self.scale * F.linear(F.linear(x, A), B)


class DropsTheOutput(LoRALinear):
    def forward(self, x):
        A, B = self.lora_A[self.active], self.lora_B[self.active]
        return F.linear(x, self.weight, self.bias) + self.lora_dropout(self.scale * F.linear(F.linear(x, A), B))


class UsesTheFirst(LoRALinear):
    def use(self, name):
        pass


class UsesTheSum(LoRALinear):
    def forward(self, x):
        adapters = zip(self.lora_A.values(), self.lora_B.values(), strict=True)
        return F.linear(x, self.weight, self.bias) + self.scale * sum(F.linear(F.linear(x, A), B) for A, B in adapters)


class MergesTheFirst(LoRALinear):
    def merged(self):
        first = next(iter(self.lora_A))
        return (self.weight + self.scale * self.lora_B[first] @ self.lora_A[first]).detach()


class MergesIntoW(LoRALinear):
    """As it is often done: W += (α/r)·BA, and to unmerge W -= (α/r)·BA. In floating point that is not W."""

    is_merged = False

    def delta(self):
        return (self.scale * self.lora_B[self.active] @ self.lora_A[self.active]).detach()

    def merge(self):
        if not self.is_merged:
            self.weight.data += self.delta()
        self.is_merged = True

    def unmerge(self):
        if self.is_merged:
            self.weight.data -= self.delta()
        self.is_merged = False

    def forward(self, x):
        return F.linear(x, self.weight, self.bias) if self.is_merged else super().forward(x)


class MergesTwice(LoRALinear):
    def merge(self):
        kept = self.weight if self.pretrained is None else self.pretrained
        delta = (self.scale * self.lora_B[self.active] @ self.lora_A[self.active]).detach()
        self.weight, self.pretrained = nn.Parameter(self.weight + delta, requires_grad=False), kept


class MergesOnce(LoRALinear):
    """Remembers what it merged the first time."""

    def merge(self):
        self.first = self.__dict__.get("first", self.merged())
        if self.pretrained is None:
            self.weight, self.pretrained = nn.Parameter(self.first, requires_grad=False), self.weight


class TrainsMerged(LoRALinear):
    def forward(self, x):
        return F.linear(x, self.weight, self.bias) if self.pretrained is not None else super().forward(x)


class SwitchesMerged(LoRALinear):
    def use(self, name):
        self.active = name


class SavesMerged(LoRALinear):
    def _save_to_state_dict(self, destination, prefix, keep_vars):
        nn.Linear._save_to_state_dict(self, destination, prefix, keep_vars)
        destination.pop(prefix + "pretrained", None)


class SavesBoth(LoRALinear):
    def _save_to_state_dict(self, destination, prefix, keep_vars):
        nn.Linear._save_to_state_dict(self, destination, prefix, keep_vars)


class LoadsIntoMerged(LoRALinear):
    """What is loaded goes where the merged matrix is; unmerge brings the old W back."""

    def _load_from_state_dict(self, *args):
        kept, self.pretrained = self.pretrained, None
        super()._load_from_state_dict(*args)
        self.pretrained = kept


class HidesW(LoRALinear):
    """W outside of the module's parameters, where casts do not find it."""

    def merge(self):
        self.kept = self.weight.detach().clone()
        super().merge()

    def unmerge(self):
        if self.pretrained is not None:
            super().unmerge()
            self.weight = nn.Parameter(self.kept, requires_grad=False)


MISTAKES = {
    check_paper: [*SCALED, Detached],
    check_alpha_and_rank: SCALED,
    check_start: [BothZero, BothRandom],
    check_bert_like_peft: [*SCALED, Detached, TrainsW, MergesIntoW],
    check_frozen_layers: [TrainsW, BothZero],
    check_backward_stops: [TrainsW],
    check_merging: [MergesIntoW, MergesTwice, DropsTheBase],
    check_cycles: [MergesIntoW],
    check_no_training_while_merged: [TrainsMerged, MergesIntoW],
    check_merged_is_up_to_date: [MergesOnce],
    check_state_dict: [SavesMerged, SavesBoth, LoadsIntoMerged, MergesIntoW],
    check_copies: [MergesIntoW],
    check_number_formats: [HidesW, MergesIntoW],
    check_merged_state_dict: [SavesBoth, MergesIntoW],
    check_takes_over: [CopiesW, TrainsW],
    check_dropout: [DropsTheBase, DropsTheOutput],
    check_switching: [UsesTheFirst, UsesTheSum],
    check_training_one: [UsesTheFirst, UsesTheSum],
    check_merging_one: [MergesTheFirst, SwitchesMerged, UsesTheFirst],
}
WRONG = [(check, wrong) for check, layers in MISTAKES.items() for wrong in layers]


@pytest.mark.parametrize(("check", "wrong"), WRONG, ids=[f"{c.__name__}-{w.__name__}" for c, w in WRONG])
def test_a_wrong_layer_shows(check, wrong, monkeypatch):
    monkeypatch.setattr(lora, "LoRALinear", wrong)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check()


def test_a_subclass_without_a_mistake_passes(monkeypatch):
    """So that it is the mistakes that show."""
    monkeypatch.setattr(lora, "LoRALinear", type("Same", (LoRALinear,), {}))
    for check in MISTAKES:
        check()


# --------------------------------------------------------------------------------------------- a model of several tasks


def options(names=("all",), targets=None, dropout=0.0) -> dict:
    return {"rank": 2, "alpha": 3.0, "dropout": dropout, "targets": targets, "names": list(names)}


def make_model(bert: BertModel | None = None, names=("all",), **how) -> MultitaskBert:
    """A BERT with LoRA that has learned something, and heads that all have weights."""
    bert = bert or make_bert(torch.float32)
    model = MultitaskBert(bert, NAMES, heads={"sts": "hadamard"}, lora=options(names, **how))
    return randomize(model).eval()


def batch_of(task: str, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    R = 8 if TASKS[task].is_pair else 4
    ids = torch.randint(1, V, (R, T), generator=random)
    mask = (torch.arange(T) < torch.randint(2, T + 1, (R, 1), generator=random)).long()
    return Batch(task, list(range(4)), ids * mask, mask, torch.zeros_like(ids), torch.tensor([0.0, 1, 1, 0]))


def answers(model: MultitaskBert) -> list[Tensor]:
    return [model(batch_of(task)) for task in model.build["tasks"]]


def all_same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(same, a, b))


def loss_of(model: MultitaskBert, task: str) -> Tensor:
    return TASKS[task].loss(model(batch_of(task)), batch_of(task).labels)


@pytest.mark.parametrize("names", [("all",), NAMES], ids=["shared", "per task"])
def test_a_task_trains_its_own_additions_and_its_head(names):
    """And these are what `parameters_of` says; nothing else in the model has a gradient."""
    model = make_model(names=names)
    for task in NAMES:
        model.zero_grad()
        loss_of(model, task).backward()
        mine = task if len(names) > 1 else "all"
        found = {name for name, p in model.named_parameters() if p.grad is not None}
        head = {f"heads.{task}.{name}" for name, _ in model.heads[task].named_parameters()}
        assert found == {name for name in additions(model) if name.endswith(f".{mine}")} | head
        assert len(found - head) == 2 * 13
        own = {id(p) for p in model.parameters_of(task)}
        berts = {f"bert.{name}" for name in base_bits(model.bert)}
        assert {name for name, p in model.named_parameters() if id(p) in own} == found | berts


def test_each_task_answers_with_its_own_additions():
    """Whatever was asked before, it says what the model with this task's A's and B's alone says, and no other's."""
    model, alone = make_model(names=NAMES), {task: make_model() for task in NAMES}
    for task, other in alone.items():
        state = model.state_dict()
        own = {n.removesuffix(task) + "all": p for n, p in state.items() if n.endswith(task) and part_of(n) == "LoRA"}
        other.load_state_dict({n: p for n, p in state.items() if part_of(n) != "LoRA"} | own)
    for task in ("sts", "sst", "para", "sst", "sts"):
        said = model(batch_of(task))
        assert [name for name in NAMES if same(alone[name](batch_of(task)), said)] == [task]


def test_a_model_merged_for_one_task_refuses_another():
    model = make_model(names=NAMES)
    before = model(batch_of("para"))
    merge_lora(model)
    close(model(batch_of("para")), before, 1e-5)
    with pytest.raises(RuntimeError, match="adapter 'para' is merged"):
        model(batch_of("sst"))


def test_lora_starts_a_model_as_it_was_and_leaves_the_heads_alone():
    torch.manual_seed(1)
    plain = MultitaskBert(make_bert(torch.float32), NAMES, heads={"sts": "hadamard"}).eval()
    model = make_model()
    for layer in lora_layers(model):
        nn.init.zeros_(layer.lora_B["all"])
    model.heads.load_state_dict(plain.heads.state_dict())
    assert all_same(answers(model), answers(plain))
    assert not layer_names(model.heads) and all(p.requires_grad for p in model.heads.parameters())
    assert {part_of(name) for name in trainable(model)} == {"LoRA", "heads"}
    assert plain.build["lora"] is None and model.build["lora"] == options()


def test_targets_and_dropout_reach_the_layers():
    model = make_model(targets=QUERY_VALUE, dropout=0.4)
    assert {name.rpartition(".")[2] for name in layer_names(model)} == set(QUERY_VALUE)
    assert {layer.lora_dropout.p for layer in lora_layers(model)} == {0.4}
    assert {layer.scale for layer in lora_layers(model)} == {1.5}


def test_freezing_bert_spares_its_additions():
    model = make_model()
    before = set(trainable(model))
    model.freeze_bert()
    assert set(trainable(model)) == before


# ---------------------------------------------------------------------------------------------- the additions alone


def trained(bert: BertModel, names=("all",), steps: int = 3, **how) -> MultitaskBert:
    """A model whose additions and heads have trained a little, in the way of a run."""
    model = make_model(bert, names, **how).train()
    optimizer = AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(steps):
        for task in NAMES:
            optimizer.zero_grad()
            loss_of(model, task).backward()
            optimizer.step()
    return model.eval()


@pytest.mark.parametrize("merged", [False, True], ids=["", "merged"])
@pytest.mark.parametrize("names", [("all",), NAMES], ids=["shared", "per task"])
def test_additions_come_back_around_the_same_bert(tmp_path, names, merged):
    model = trained(make_bert(torch.float32), names, targets=QUERY_VALUE)
    before = answers(model)
    if merged:
        model.use("sts")
        merge_lora(model)
    save_trained(tmp_path / "run" / "trained.pt", model)
    bert = make_bert(torch.float32)
    again = load_trained(tmp_path / "run" / "trained.pt", bert)
    assert again.bert is bert and again.build == model.build
    assert all_same(answers(again.eval()), before)
    assert bits(again) == bits(model)
    assert set(trainable(again)) == set(trainable(model))  # and can train on
    held = torch.load(tmp_path / "run" / "trained.pt", weights_only=True)
    assert {part_of(name) for name in held["trained"]} == {"LoRA", "heads"}


def test_heads_on_a_frozen_bert_are_additions_too(tmp_path):
    model = MultitaskBert(make_bert(torch.float32), NAMES, heads={"sts": "hadamard"}).eval()
    model.freeze_bert()
    save_trained(tmp_path / "trained.pt", model)
    again = load_trained(tmp_path / "trained.pt", make_bert(torch.float32)).eval()
    assert all_same(answers(again), answers(model)) and set(trainable(again)) == set(trainable(model))


@pytest.mark.parametrize("with_lora", [None, options()], ids=["", "with LoRA"])
def test_adapters_are_additions_too(tmp_path, with_lora):
    adapter = {"kind": "low_rank", "size": 2}
    model = MultitaskBert(make_bert(torch.float32), NAMES, lora=with_lora, adapter=adapter).eval()
    model.freeze_bert()
    with torch.no_grad():
        for p in trainable(model).values():
            p.copy_(0.3 * torch.randn(p.shape))
    save_trained(tmp_path / "trained.pt", model)
    again = load_trained(tmp_path / "trained.pt", make_bert(torch.float32)).eval()
    assert all_same(answers(again), answers(model)) and set(trainable(again)) == set(trainable(model))
    assert len({part_of(name) for name in trainable(again)} - {"heads"}) == (2 if with_lora else 1)


def test_additions_to_a_real_bert_take_less_than_a_megabyte(tmp_path):
    """all-MiniLM-L6-v2 is 6 layers, 384 wide: 90 MB. Rank 2: 2·(8·384 + 2·1920) numbers a layer, 0.3 MB of float32."""
    config = BertConfig(
        vocab_size=100, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )  # fmt: skip
    model = MultitaskBert(BertModel(config), NAMES, lora=options())
    save_trained(tmp_path / "trained.pt", model)
    numbers = sum(p.numel() for name, p in model.named_parameters() if part_of(name) == "LoRA")
    assert numbers == 2 * (6 * (8 * 384 + 2 * 1920) + 2 * 384)
    assert 4 * numbers < (tmp_path / "trained.pt").stat().st_size < 1_000_000


def refuse(function, path, *args) -> str:
    """The one line in which `function` refuses the file, which it names."""
    with pytest.raises(UserError) as caught:
        function(path, *args)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def change_one_weight(name: str):
    def change(bert):
        with torch.no_grad():
            bert.get_parameter(name).view(-1)[3] += 1e-6

    return change


def swap_two_matrices(bert):
    a = bert.bert_layers[0].self_attention
    a.query, a.key = a.key, a.query


OTHERS = {  # what makes another BERT of a BERT
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
    path = tmp_path / "trained.pt"
    save_trained(path, make_model())
    other = make_bert(torch.float32)
    change(other)
    message = refuse(load_trained, path, other)
    assert fingerprint(make_bert(torch.float32))[:12] in message and fingerprint(other)[:12] in message
    assert not any(lora_layers(other))


def test_a_fingerprint_is_of_berts_own_weights():
    """What was added does not count, in use or merged, trained or not; and it is the same on another day."""
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


def test_a_bert_that_trains_is_not_left_out(tmp_path):
    """Its weights are no other BERT's, so that additions alone would be of no use; not one number of it may train."""
    plain = MultitaskBert(make_bert(torch.float32), NAMES)
    thawed = make_model()
    thawed.bert.embed_layer_norm.bias.requires_grad_()
    for model in (plain, thawed):
        with pytest.raises(ValueError, match="BERT's own weights train"):
            save_trained(tmp_path / "trained.pt", model)
    assert not list(tmp_path.iterdir())


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path, model, bert = tmp_path / "trained.pt", make_model(), make_bert(torch.float32)
    save_trained(path, model)
    whole, saved = path.read_bytes(), torch.load(path, weights_only=True)
    for share in (0.0, 0.1, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        refuse(load_trained, path, bert)
    numbers = next(p for n, p in model.state_dict().items() if "lora_A" in n).numpy().tobytes()
    place = whole.index(numbers)
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert "damaged" in refuse(load_trained, path, bert)

    for foreign in (
        model.state_dict(),
        {"weight": torch.ones(2)},
        *[{k: saved[k] for k in saved if k != x} for x in saved],
    ):
        torch.save(foreign, path)
        assert "holds no LoRA additions" in refuse(load_trained, path, bert)
    assert not any(lora_layers(bert)) and all(p.requires_grad for p in bert.parameters())

    some = next(iter(saved["trained"]))
    torch.save(saved | {"trained": {n: p for n, p in saved["trained"].items() if n != some}}, path)
    assert f"{some} is missing" in refuse(load_trained, path, make_bert(torch.float32))
    torch.save(saved | {"trained": saved["trained"] | {some: torch.ones(3, 3)}}, path)
    assert f"{some} has shape (3, 3)" in refuse(load_trained, path, make_bert(torch.float32))


def test_the_two_kinds_of_file_are_told_apart(tmp_path, tiny):
    whole, alone = tmp_path / "model.pt", tmp_path / "trained.pt"
    bert = load_bert(tiny)
    model = make_model(bert)
    save_model(whole, model, load_tokenizer(tiny))
    save_trained(alone, model)
    assert "holds no LoRA additions" in refuse(load_trained, whole, load_bert(tiny))
    assert "not a checkpoint of this trainer" in refuse(load_model, alone)
    refuse(load_bert, alone)


# ---------------------------------------------------------------------------------------------- whole models


@pytest.fixture
def texts(tiny) -> tuple[Tensor, Tensor]:
    """Ids and mask of two sentences, for the BERT of `tiny`."""
    rows = load_tokenizer(tiny)("a film that is good", "and another one")
    return rows["input_ids"], rows["attention_mask"]


def said(bert: BertModel, texts: tuple[Tensor, Tensor]) -> Tensor:
    with torch.no_grad():
        result = bert.eval()(*texts)
    return torch.cat([result["last_hidden_state"].flatten(), result["pooler_output"].flatten()])


@pytest.mark.parametrize("names", [("all",), NAMES], ids=["shared", "per task"])
def test_a_whole_model_comes_back_with_its_additions(tmp_path, tiny, names):
    model = trained(load_bert(tiny), names)
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
    """A plain BERT, which answers as the one with LoRA did."""
    model = trained(load_bert(tiny), targets=targets)
    save_model(tmp_path / "model.pt", model, load_tokenizer(tiny))
    bert = load_bert(tmp_path / "model.pt")
    assert list(bert.state_dict()) == list(load_bert(tiny).state_dict()) and not any(lora_layers(bert))
    assert all(p.requires_grad for p in bert.parameters())
    close(said(bert, texts), said(model.bert, texts), 1e-6)
    assert (said(bert, texts) - said(load_bert(tiny), texts)).abs().max() > 0.01
    assert fingerprint(bert) != fingerprint(model.bert)


@pytest.mark.parametrize("lora_options", [options(["sst"]), {"rank": 2, "alpha": 3.0}], ids=["one name", "no name"])
def test_additions_of_one_task_or_of_no_name_are_shared_by_all(tmp_path, tiny, texts, lora_options):
    model = randomize(MultitaskBert(load_bert(tiny), ["sst"], lora=lora_options)).eval()
    save_model(tmp_path / "model.pt", model, load_tokenizer(tiny))
    assert same(load_model(tmp_path / "model.pt")[0].eval()(batch_of("sst")), model(batch_of("sst")))
    close(said(load_bert(tmp_path / "model.pt"), texts), said(model.bert, texts), 1e-6)


def test_a_file_with_additions_per_task_holds_no_one_bert(tmp_path, tiny):
    save_model(tmp_path / "model.pt", make_model(load_bert(tiny), NAMES), load_tokenizer(tiny))
    assert "--lora_per_task" in refuse(load_bert, tmp_path / "model.pt")
    adapter = {"kind": "low_rank", "size": 2}
    for also in (None, options()):
        model = MultitaskBert(load_bert(tiny), NAMES, lora=also, adapter=adapter)
        save_model(tmp_path / "model.pt", model, load_tokenizer(tiny))
        assert "--adapter" in refuse(load_bert, tmp_path / "model.pt")


def test_a_plain_model_s_file_still_gives_its_bert(tmp_path, tiny):
    model = MultitaskBert(load_bert(tiny), NAMES)
    save_model(tmp_path / "model.pt", model, load_tokenizer(tiny))
    assert bits(load_bert(tmp_path / "model.pt")) == bits(load_bert(tiny))


@pytest.mark.parametrize("merged", [False, True], ids=["", "merged"])
def test_transformers_reads_a_bert_with_its_additions(tmp_path, tiny, texts, merged):
    transformers = pytest.importorskip("transformers")
    bert = randomize(add_lora(load_bert(tiny), 2, 3.0)).eval()
    before, state = said(bert, texts), bits(bert)
    if merged:
        merge_lora(bert)
    save_pretrained(bert, load_tokenizer(tiny), tmp_path)
    assert all((layer.pretrained is not None) == merged for layer in lora_layers(bert)) and bits(bert) == state
    theirs = transformers.BertModel.from_pretrained(tmp_path)
    close(said(theirs, texts), before, 1e-5)
    again = load_bert(tmp_path)
    close(said(again, texts), before, 1e-5)
    assert not any(lora_layers(again))
    unmerge_lora(bert)
    assert same(said(bert, texts), before)


def test_save_pretrained_writes_the_additions_in_use(tmp_path, tiny, texts):
    bert = randomize(add_lora(load_bert(tiny), 2, 3.0, names=NAMES))
    for name in NAMES:
        use_lora(bert, name)
        save_pretrained(bert, load_tokenizer(tiny), tmp_path / name)
        close(said(load_bert(tmp_path / name), texts), said(bert, texts), 1e-5)
