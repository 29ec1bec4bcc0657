"""Every head on a toy worked by hand, its symmetries, its behaviour at pads, and its outputs at the start."""

import math

import pytest
import torch
from torch import nn

from minbert.heads import HEADS, PAIR_HEADS, Encoded, mean_pool
from minbert.tasks import TASKS, Task
from tests.tasks.head_inputs import COSINES, NOT_SYMMETRIC, PAIR, PARA, STS, SYMMETRIC, fresh, pairs_of


def set_weights(module: nn.Module, **values):
    """Give parameters by name, with _ for the dots: set_weights(head, linear__weight=[[1, 2]])."""
    with torch.no_grad():
        for name, value in values.items():
            parameter = module.get_parameter(name.replace("__", "."))
            parameter.copy_(torch.tensor(value, dtype=torch.float).reshape(parameter.shape))


# u = (3, 4), v = (5, 12):  ‖u‖ = 5, ‖v‖ = 13, u·v = 15 + 48 = 63, so cos = 63/65, and |u-v| = (2, 8)
TOY = Encoded(torch.tensor([[3.0, 4.0]]), torch.tensor([[5.0, 12.0]]))


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("linear", {"linear__weight": [1, 2], "linear__bias": [0.5]}, 3 + 8 + 0.5),
        ("concat", {"linear__weight": [1, 2, 3, 4], "linear__bias": [1]}, 3 + 8 + 15 + 48 + 1),
        ("difference", {"linear__weight": [1, 1, 1, 1, 10, 100], "linear__bias": [-4]}, 24 + 20 + 800 - 4),
        ("hadamard", {"linear__weight": [1, 1], "linear__bias": [0]}, 63 / 65),  # all weights 1: the cosine
        ("hadamard", {"linear__weight": [1, 2], "linear__bias": [3]}, 15 / 65 + 2 * 48 / 65 + 3),
        # Pu = (3 + 8 + 1, 4) = (12, 4), Pv = (5 + 24 + 1, 12) = (30, 12), product 360 + 48
        ("dot", {"project__weight": [1, 2, 0, 1], "project__bias": [1, 0], "bias": [0.5]}, 408.5),
        ("cosine", {}, 5 * 63 / 65),
        ("mapped_cosine", {}, 5 * (1 + 63 / 65) / 2),
        (
            "relational",  # row 1 adds u, v and |u-v|: 34; row 2 is -65 times the cosine: -63, which leaks .01 of it
            {
                "shared__linear__weight": [[1, 1, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, -65, -65]],
                "shared__linear__bias": [0, 0], "linear__weight": [1, 2], "linear__bias": [0.26],
            },
            34 + 2 * -0.63 + 0.26,
        ),
    ],
)  # fmt: skip
def test_the_output_for_two_vectors_worked_by_hand(name, weights, expected):
    head = HEADS[name](STS, 2, 0.0)
    set_weights(head, **weights)
    assert {n for n, _ in head.named_parameters()} == {n.replace("__", ".") for n in weights}  # all parameters are set
    output = head(TOY)
    assert output.shape == (1, 1) and output.item() == pytest.approx(expected, rel=1e-5)


def test_cross_attention_by_hand():
    """u is one token (x, 0) with x = √2·ln 3, v two: (1, 0) and (0, 1). Queries, keys and values are the tokens.

    Its scores x/√2 and 0 give the probabilities ¾ and ¼, so ũ = (¾, ¼). v's tokens attend to one token: ṽ = (x, 0).
    """
    x = math.sqrt(2) * math.log(3)
    tokens_u, tokens_v = torch.tensor([[[x, 0.0]]]), torch.eye(2)[None]
    head = HEADS["cross_attention"](STS, 2, 0.0)
    for layer in ("query", "key", "value"):
        set_weights(head, **{f"{layer}__weight": [[1, 0], [0, 1]], f"{layer}__bias": [0, 0]})
    set_weights(head, linear__weight=[1, 10, 100, 1000], linear__bias=[7])  # of [|ũ-ṽ|; ũ⊙ṽ]
    encoded = Encoded(tokens_u.mean(1), tokens_v.mean(1), tokens_u, tokens_v, torch.ones(1, 1), torch.ones(1, 2))
    expected = (x - 0.75) + 10 * 0.25 + 100 * 0.75 * x + 1000 * 0.25 * 0 + 7
    assert head(encoded).item() == pytest.approx(expected, rel=1e-5)


def test_a_head_has_the_outputs_of_its_task():
    for task in TASKS.values():
        assert HEADS["linear"](task, 8, 0.0)(pairs_of()).shape == (6, task.outputs)
    for name in PAIR:
        assert fresh(name)(pairs_of()).shape == (6, 1)


def test_no_head_but_the_cosines_limits_its_outputs():
    """Logits and similarities are raw: given large features every head but the cosines leaves [0, 1] and [0, 5]."""
    big = Encoded(*(x * 100 if x.is_floating_point() else x for x in pairs_of()))
    for name in PAIR:
        head = fresh(name, task=PARA)
        if name == "hadamard":  # it depends on directions alone, so only large weights give large outputs
            head.linear.weight.data *= 1e4
        outputs = head(big)
        assert (outputs.abs().max() > 5) == (name not in COSINES), name


# ------------------------------------------------------------------------------------------ symmetries


def swapped(encoded: Encoded) -> Encoded:
    u, v, tokens_u, tokens_v, mask_u, mask_v = encoded
    return Encoded(v, u, tokens_v, tokens_u, mask_v, mask_u)


@pytest.mark.parametrize("name", sorted(SYMMETRIC | NOT_SYMMETRIC))
def test_swapping_the_sentences_changes_nothing_for_the_symmetric_heads(name):
    head, encoded = fresh(name), pairs_of()
    same = torch.allclose(head(encoded), head(swapped(encoded)), atol=1e-5)
    assert same == (name in SYMMETRIC)


@pytest.mark.parametrize("name", sorted(SYMMETRIC | NOT_SYMMETRIC))
def test_scaling_a_sentence_changes_nothing_for_hadamard_and_the_cosines(name):
    """They compare directions, whatever the vectors' lengths."""
    head, encoded = fresh(name), pairs_of()
    same = torch.allclose(head(encoded), head(encoded._replace(u=7 * encoded.u, tokens_u=7 * encoded.tokens_u)))
    assert same == (name in COSINES | {"hadamard"})


@pytest.mark.parametrize("name", PAIR)
def test_zero_vectors_give_finite_outputs_and_gradients(name):
    """A vector of zeros has no direction; outputs and gradients must not become NaN."""
    u, v, tokens_u, tokens_v, mask_u, mask_v = pairs_of()
    u, tokens_u = torch.zeros_like(u).requires_grad_(), torch.zeros_like(tokens_u).requires_grad_()
    outputs = fresh(name)(Encoded(u, v, tokens_u, tokens_v, mask_u, mask_v))
    both = fresh(name)(Encoded(u, u, tokens_u, tokens_u, mask_u, mask_u))
    (outputs + both).sum().backward()
    assert outputs.isfinite().all() and both.isfinite().all()
    assert all(x.grad.isfinite().all() for x in (u, tokens_u) if x.grad is not None)


# ------------------------------------------------------------------------------------------ pads


def test_mean_pool_by_hand():
    tokens = torch.tensor([[[1.0, 10.0], [3.0, 20.0], [99.0, -99.0]], [[2.0, 2.0], [4.0, 0.0], [6.0, 1.0]]])
    pooled = mean_pool(tokens, torch.tensor([[1, 1, 0], [1, 1, 1]]))
    torch.testing.assert_close(pooled, torch.tensor([[2.0, 15.0], [4.0, 1.0]]))


def padded(tokens: torch.Tensor, mask: torch.Tensor, pads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """More columns, with numbers in them as BERT leaves them at pads."""
    B, _, C = tokens.shape
    more = torch.full((B, pads, C), 3.0)
    return torch.cat([tokens, more], dim=1), torch.cat([mask, torch.zeros(B, pads, dtype=mask.dtype)], dim=1)


def test_mean_pool_does_not_count_pads():
    _, _, tokens, _, mask, _ = pairs_of()
    more_tokens, more_mask = padded(tokens, mask, 3)
    torch.testing.assert_close(mean_pool(more_tokens, more_mask), mean_pool(tokens, mask))
    assert not torch.allclose(more_tokens.mean(dim=1), tokens.mean(dim=1), atol=0.1)  # a plain mean counts them
    zeroed = (more_tokens * more_mask[:, :, None]).mean(dim=1)  # with zeros at the pads it is too short by 5/8
    torch.testing.assert_close(zeroed, mean_pool(tokens, mask) * 5 / 8)


@pytest.mark.parametrize("side", ["u", "v"])
def test_cross_attention_neither_attends_to_pads_nor_counts_them(side):
    head, encoded = fresh("cross_attention"), pairs_of()
    tokens, mask = padded(getattr(encoded, f"tokens_{side}"), getattr(encoded, f"mask_{side}"), 3)
    more = encoded._replace(**{f"tokens_{side}": tokens, f"mask_{side}": mask})
    torch.testing.assert_close(head(more), head(encoded))
    attended = more._replace(**{f"mask_{side}": torch.ones_like(mask)})
    assert not torch.allclose(head(attended), head(encoded), atol=1e-3)


# ------------------------------------------------------------------------------------------ the cosine, and the start


def test_identical_sentences_score_5_under_the_cosine():
    vectors = torch.randn(50, 64) * torch.logspace(-3, 3, 50)[:, None]
    scores = fresh("cosine", 64)(Encoded(vectors, vectors.clone()))
    torch.testing.assert_close(scores, torch.full((50, 1), 5.0), atol=1e-5, rtol=0)
    opposite = fresh("cosine", 64)(Encoded(vectors, -vectors))
    torch.testing.assert_close(opposite, torch.full((50, 1), -5.0), atol=1e-5, rtol=0)
    assert fresh("cosine", 2)(Encoded(torch.tensor([[3.0, 0]]), torch.tensor([[0, 2.0]]))).item() == 0  # right angle


def test_the_mapped_cosine_spans_the_labels():
    """Opposite, at a right angle, the same: the lowest label, the middle, the highest, also of other labels."""
    u, v = torch.tensor([[3.0, 0], [3, 0], [3, 0]]), torch.tensor([[-1.0, 0], [0, 2], [7, 0]])
    percent = Task("ease", ("one", "other"), "ease", kind="number", label_range=(-10, 100))
    for task, expected in ((STS, [0.0, 2.5, 5.0]), (percent, [-10.0, 45.0, 100.0])):
        outputs = fresh("mapped_cosine", 2, task)(Encoded(u, v))[:, 0]
        torch.testing.assert_close(outputs, torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [n for n in PAIR_HEADS["number"] if n not in COSINES | {"hadamard"}] + ["linear"])
def test_a_regression_head_starts_near_the_middle_of_the_labels(name):
    """From 0, the first epochs would be spent on learning the mean label, 2.5, at a small learning rate."""
    encoded = pairs_of(B=200, C=64)
    assert fresh(name, 64)(encoded).mean().item() == pytest.approx(2.5, abs=0.5)
    logits = fresh(name, 64, PARA)(encoded)  # a yes-or-no head starts at a probability near ½
    assert logits.mean().item() == pytest.approx(0, abs=0.5)


def test_hadamard_starts_as_the_cosine():
    encoded = pairs_of(B=20, C=64)
    torch.testing.assert_close(fresh("hadamard", 64)(encoded), fresh("cosine", 64)(encoded))


@pytest.mark.parametrize("name", ["linear", *PAIR])
def test_a_heads_dropout_is_on_in_training_alone(name):
    encoded, head = pairs_of(), HEADS[name](STS, 8, 0.5)
    differs = not torch.equal(head(encoded), head(encoded))
    assert differs == (name not in COSINES)
    head.eval()
    assert torch.equal(head(encoded), head(encoded))
