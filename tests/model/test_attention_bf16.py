"""Which attention a row of bfloat16 numbers gets on a CPU, and that it is the same function there."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minbert import bert
from minbert.bert import plain_attention, sdpa_attention


def attend(attention, T: int, dtype: torch.dtype, p: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """An attention's result in training, and the gradient of its queries. B = 2, H = 3, D = 4, two pads."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, T, 4).to(dtype).requires_grad_() for _ in range(3))
    mask = torch.zeros(2, 1, 1, T)
    mask[0, ..., -2:] = torch.finfo(torch.float32).min
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        result = attention(q, k, v, mask, nn.Dropout(p))
    result.float().square().sum().backward()
    return result.float(), q.grad.float()


@pytest.mark.parametrize("T", [10, 255, 256, 300])
def test_in_bfloat16_both_attentions_are_the_same_function(T):
    for ours, other in zip(*(attend(f, T, torch.bfloat16) for f in (sdpa_attention, plain_attention)), strict=True):
        torch.testing.assert_close(ours, other, rtol=0.03, atol=0.03)


@pytest.mark.parametrize(
    ("T", "dtype", "fused"),
    [(10, torch.bfloat16, False), (255, torch.bfloat16, False), (256, torch.bfloat16, True), (10, torch.float32, True)],
)
def test_short_rows_in_bfloat16_are_written_out_on_a_cpu_and_no_others(monkeypatch, T, dtype, fused):
    calls = []
    kernel = F.scaled_dot_product_attention

    def counted(*args, **options):
        calls.append(1)
        return kernel(*args, **options)

    monkeypatch.setattr(bert.F, "scaled_dot_product_attention", counted)
    attend(sdpa_attention, T, dtype)
    assert len(calls) == fused


def test_dropout_reaches_the_rows_that_are_written_out():
    with_dropout, without = (attend(sdpa_attention, 10, torch.bfloat16, p)[0] for p in (0.5, 0.0))
    assert not torch.allclose(with_dropout, without, atol=0.1)
