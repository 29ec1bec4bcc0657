"""LoRA's layer: y = W·x + b + (α/r)·B·A·dropout(x), against arithmetic by hand.

tests/mutants/test_lora.py runs these tests on layers that have one thing wrong. That is why they call
`lora.LoRALinear` by the module's name.
"""

import math

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minbert import lora
from minbert.lora import LoRALinear, add_lora, lora_layers
from tests.techniques.lora_models import additions, answer, close, make_bert, make_layers, randomize, same, trainable


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


def test_the_worked_example():
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


def test_the_addition_is_scaled_by_alpha_over_r():
    """Twice the α gives twice the addition. Two rows of zeros in A add nothing, but r is twice as large: half of it."""
    x = torch.randn(3, 2, dtype=torch.float64)
    A, B = [[1, -1], [0, 2]], [[2, 1], [0.5, 0]]
    base = layer_by_hand(A, [[0, 0], [0, 0]], 3)(x)
    addition = layer_by_hand(A, B, 3)(x) - base
    close(layer_by_hand(A, B, 6)(x) - base, 2 * addition)
    close(layer_by_hand([*A, [0, 0], [0, 0]], [[*row, 7, 7] for row in B], 3)(x) - base, addition / 2)


def test_a_model_starts_as_it_was():
    """B = 0, so the outputs are the same bits. B has a gradient at once, A from the second step on, for ∂/∂A ∝ B."""
    for module, outputs in (
        (make_bert(torch.float32), answer),
        (make_layers(), lambda m: m(torch.ones(2, 5).double())),
    ):
        before = outputs(module)
        add_lora(module, 2, 3.0)
        after = outputs(module)
        assert same(before, after)
        after.square().sum().backward()
        for layer in lora_layers(module):
            A, B = layer.lora_A["all"], layer.lora_B["all"]
            assert not B.any() and B.grad.abs().max() > 1e-6
            assert A.all() and A.grad is not None and not A.grad.any()


def test_A_starts_as_in_the_authors_code():
    """kaiming_uniform_(a=√5) is U(-1/√in, 1/√in), whose deviation is 1/√(3·in); each adapter has other numbers."""
    layer = LoRALinear(nn.Linear(400, 10), 50, 1.0, names=("a", "b"))
    a, b = layer.lora_A["a"], layer.lora_A["b"]
    for A in (a, b):
        assert A.shape == (50, 400)
        assert 0.99 / 20 < A.abs().max() <= 1 / 20  # 20,000 draws reach nearly to the bound
        assert abs(A.std() * math.sqrt(3 * 400) - 1) < 0.02 and abs(A.mean()) < 0.001
    assert not torch.equal(a, b)


def test_additions_have_the_layers_number_format():
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


def test_a_layer_takes_over_the_linear_layers_own_W_and_b():
    """Nothing is copied, so an optimizer that held W and b still holds them."""
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


def test_dropout_is_of_the_additions_input_and_in_training_alone():
    """The oracle drops the same numbers, from the same random state."""
    x = torch.randn(50, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    module = nn.Sequential(nn.Linear(5, 4).double())
    W, b = module[0].weight, module[0].bias
    base = F.linear(x, W, b)
    add_lora(module, 2, 3.0, dropout=0.4).train()
    assert same(module(x), base)  # B is zero, and the base is never dropped
    randomize(module)
    A, B = module[0].lora_A["all"], module[0].lora_B["all"]
    torch.manual_seed(8)
    dropped = F.dropout(x, 0.4)
    torch.manual_seed(8)
    close(module(x), base + 1.5 * dropped @ A.T @ B.T)
    assert 0.2 < (dropped == 0).double().mean() < 0.6 and not torch.equal(module(x), module(x))
    close(module.eval()(x), base + 1.5 * x @ A.T @ B.T)


def test_layers_of_a_module_in_eval_mode_are_in_eval_mode():
    bert = make_bert().eval()
    add_lora(bert, 2, 3.0, dropout=0.5)
    assert not any(module.training for module in bert.modules())
