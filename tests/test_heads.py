"""minbert/heads.py: every head on a toy worked by hand, its symmetries, and that it can learn what it is shown."""

import math
import re

import pytest
import torch
from torch import nn

from minbert.bert import BertModel
from minbert.checkpoint import load_model, save_model
from minbert.config import BertConfig
from minbert.data import Batch, Dataset, Example, read_examples
from minbert.errors import UserError
from minbert.heads import HEADS, PAIR_HEADS, CosineHead, Encoded, build_heads, choose_head, mean_pool
from minbert.multitask import MultitaskBert
from minbert.tasks import TASKS
from minbert.tokenizer import SPECIAL, BertTokenizer

PAIR = [name for name in HEADS if name != "linear"]  # the heads that compare two vectors
SYMMETRIC = {"hadamard", "dot", "cosine", "cross_attention"}
STS, PARA = TASKS["sts"], TASKS["para"]


def set_weights(module: nn.Module, **values):
    """Give parameters by name, with _ for the dots: set_weights(head, linear__weight=[[1, 2]])."""
    with torch.no_grad():
        for name, value in values.items():
            parameter = module.get_parameter(name.replace("__", "."))
            parameter.copy_(torch.tensor(value, dtype=torch.float).reshape(parameter.shape))


def pairs_of(B: int = 6, C: int = 8, T: int = 5, S: int = 4) -> Encoded:
    """Random sentences of T and of S tokens without pads; their vectors are the tokens' means."""
    random = torch.Generator().manual_seed(1)
    tokens_u = torch.randn(B, T, C, generator=random)
    tokens_v = torch.randn(B, S, C, generator=random)
    mask_u, mask_v = torch.ones(B, T, dtype=torch.long), torch.ones(B, S, dtype=torch.long)
    return Encoded(tokens_u.mean(1), tokens_v.mean(1), tokens_u, tokens_v, mask_u, mask_v)


def fresh(name: str, C: int = 8, task=STS) -> nn.Module:
    torch.manual_seed(0)
    return HEADS[name](task, C, 0.0)


# ------------------------------------------------------------------------------------------ worked by hand

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
def test_a_toy_by_hand(name, weights, expected):
    head = HEADS[name](STS, 2, 0.0)
    set_weights(head, **weights)
    assert {n for n, _ in head.named_parameters()} == {n.replace("__", ".") for n in weights}  # none is forgotten
    output = head(TOY)
    assert output.shape == (1, 1) and output.item() == pytest.approx(expected, rel=1e-5)


def test_cross_attention_by_hand():
    """u is one token (x, 0) with x = √2·ln 3, v two: (1, 0) and (0, 1). Queries, keys and values are the tokens.

    Its scores x/√2 and 0 become the shares ¾ and ¼, so ũ = (¾, ¼). v's tokens have one token to look at: ṽ = (x, 0).
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


def test_no_head_squeezes_its_outputs():
    """Logits and similarities are raw: given large features every head but the cosine leaves [0, 1] and [0, 5]."""
    big = Encoded(*(x * 100 if x.is_floating_point() else x for x in pairs_of()))
    for name in PAIR:
        head = fresh(name, task=PARA)
        if name == "hadamard":  # it looks at directions alone, so only large weights give large outputs
            head.linear.weight.data *= 1e4
        outputs = head(big)
        assert (outputs.abs().max() > 5) == (name != "cosine"), name


# ------------------------------------------------------------------------------------------ symmetries


def swapped(encoded: Encoded) -> Encoded:
    u, v, tokens_u, tokens_v, mask_u, mask_v = encoded
    return Encoded(v, u, tokens_v, tokens_u, mask_v, mask_u)


@pytest.mark.parametrize("name", PAIR)
def test_swapping_the_sentences(name):
    head, encoded = fresh(name), pairs_of()
    same = torch.allclose(head(encoded), head(swapped(encoded)), atol=1e-5)
    assert same == (name in SYMMETRIC)


@pytest.mark.parametrize("name", PAIR)
def test_scaling_a_sentence(name):
    """How long a vector is says nothing to a head that compares directions."""
    head, encoded = fresh(name), pairs_of()
    same = torch.allclose(head(encoded), head(encoded._replace(u=7 * encoded.u, tokens_u=7 * encoded.tokens_u)))
    assert same == (name in {"hadamard", "cosine"})


@pytest.mark.parametrize("name", PAIR)
def test_zero_vectors_give_numbers(name):
    """‖u‖ = 0 has no direction: neither outputs nor gradients may become NaN."""
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
    """More columns, with whatever BERT leaves in them, which is not zero."""
    B, _, C = tokens.shape
    more = torch.full((B, pads, C), 3.0)
    return torch.cat([tokens, more], dim=1), torch.cat([mask, torch.zeros(B, pads, dtype=mask.dtype)], dim=1)


def test_mean_pool_does_not_count_pads():
    _, _, tokens, _, mask, _ = pairs_of()
    more_tokens, more_mask = padded(tokens, mask, 3)
    torch.testing.assert_close(mean_pool(more_tokens, more_mask), mean_pool(tokens, mask))
    assert not torch.allclose(more_tokens.mean(dim=1), tokens.mean(dim=1), atol=0.1)  # what a plain mean makes of it
    zeroed = (more_tokens * more_mask[:, :, None]).mean(dim=1)  # pads zeroed but counted: too short by 5/8
    torch.testing.assert_close(zeroed, mean_pool(tokens, mask) * 5 / 8)


@pytest.mark.parametrize("side", ["u", "v"])
def test_cross_attention_neither_hears_nor_counts_pads(side):
    head, encoded = fresh("cross_attention"), pairs_of()
    tokens, mask = padded(getattr(encoded, f"tokens_{side}"), getattr(encoded, f"mask_{side}"), 3)
    more = encoded._replace(**{f"tokens_{side}": tokens, f"mask_{side}": mask})
    torch.testing.assert_close(head(more), head(encoded))
    heard = more._replace(**{f"mask_{side}": torch.ones_like(mask)})
    assert not torch.allclose(head(heard), head(encoded), atol=1e-3)


# ------------------------------------------------------------------------------------------ identical sentences, and 5


def test_identical_sentences_score_5_under_the_cosine():
    vectors = torch.randn(50, 64) * torch.logspace(-3, 3, 50)[:, None]
    scores = fresh("cosine", 64)(Encoded(vectors, vectors.clone()))
    torch.testing.assert_close(scores, torch.full((50, 1), 5.0), atol=1e-5, rtol=0)
    opposite = fresh("cosine", 64)(Encoded(vectors, -vectors))
    torch.testing.assert_close(opposite, torch.full((50, 1), -5.0), atol=1e-5, rtol=0)
    assert fresh("cosine", 2)(Encoded(torch.tensor([[3.0, 0]]), torch.tensor([[0, 2.0]]))).item() == 0  # right angle


@pytest.mark.parametrize("name", [name for name in PAIR_HEADS["sts"] if name != "cosine"])
def test_identical_sentences_can_learn_to_score_5(name):
    """The head alone is trained: 4 sentences, each with itself (label 5) and with its neighbour (label 0)."""
    C = 16
    tokens = torch.randn(4, 3, C, generator=torch.Generator().manual_seed(2))
    first, second = torch.cat([tokens, tokens]), torch.cat([tokens, tokens.roll(1, 0)])
    mask = torch.ones(8, 3)
    encoded = Encoded(first.mean(1), second.mean(1), first, second, mask, mask)
    head, label = fresh(name, C), torch.tensor([5.0] * 4 + [0.0] * 4)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = 25 * STS.loss(head(encoded), label)  # on the labels' own scale
        value.backward()
        return value

    assert loss() > 0.5
    optimizer.step(loss)
    torch.testing.assert_close(head(encoded)[:, 0], label, atol=0.2, rtol=0)


# ------------------------------------------------------------------------------------------ the beginning


@pytest.mark.parametrize("name", [n for n in PAIR_HEADS["sts"] if n not in ("cosine", "hadamard")] + ["linear"])
def test_a_regression_head_starts_near_the_middle_of_the_labels(name):
    """Else the first epochs are spent on learning the mean label, 2.5, at a learning rate that is small."""
    encoded = pairs_of(B=200, C=64)
    assert fresh(name, 64)(encoded).mean().item() == pytest.approx(2.5, abs=0.5)
    logits = fresh(name, 64, PARA)(encoded)  # a yes-or-no head starts undecided, as one started at 0 would here
    assert logits.mean().item() == pytest.approx(0, abs=0.5)


def test_hadamard_starts_as_the_cosine():
    encoded = pairs_of(B=20, C=64)
    torch.testing.assert_close(fresh("hadamard", 64)(encoded), fresh("cosine", 64)(encoded))


@pytest.mark.parametrize("name", ["linear", *PAIR])
def test_dropout_is_each_heads_own_and_ends_with_training(name):
    encoded, head = pairs_of(), HEADS[name](STS, 8, 0.5)
    differs = not torch.equal(head(encoded), head(encoded))
    assert differs == (name != "cosine")  # which has no weights
    head.eval()
    assert torch.equal(head(encoded), head(encoded))


# ------------------------------------------------------------------------------------------ the relational layer


@pytest.fixture
def relational() -> MultitaskBert:
    config = BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    torch.manual_seed(0)
    heads = {"para": "relational", "sts": "relational"}
    return MultitaskBert(BertModel(config), ["sst", "para", "sts"], heads=heads, dropout=0.0)


def shared_weight(model: MultitaskBert) -> nn.Parameter:
    assert model.heads["para"].shared is model.heads["sts"].shared
    return model.heads["para"].shared.linear.weight


def test_both_tasks_teach_the_one_relational_layer(relational):
    weight, encoded = shared_weight(relational), pairs_of()
    gradients = {}
    for task, label in (("para", 1.0), ("sts", 5.0)):
        relational.zero_grad()
        TASKS[task].loss(relational.heads[task](encoded), torch.full((6,), label)).backward()
        gradients[task] = weight.grad.clone()
        assert gradients[task].abs().sum() > 0
    both = [TASKS[t].loss(relational.heads[t](encoded), torch.full((6,), y)) for t, y in (("para", 1.0), ("sts", 5.0))]
    relational.zero_grad()
    sum(both).backward()
    torch.testing.assert_close(weight.grad, gradients["para"] + gradients["sts"])


def test_what_quora_teaches_changes_what_sts_says(relational):
    encoded = pairs_of()
    before = relational.heads["sts"](encoded)
    optimizer = torch.optim.SGD(relational.heads["para"].parameters(), lr=1.0)
    PARA.loss(relational.heads["para"](encoded), torch.ones(6)).backward()
    optimizer.step()
    assert not torch.allclose(relational.heads["sts"](encoded), before, atol=1e-4)
    assert relational.heads["para"].linear is not relational.heads["sts"].linear  # the last layer is each one's own


def test_the_relational_layer_is_counted_once_and_only_shared_when_both_choose_it(relational):
    relations = [name for name, _ in relational.named_parameters() if "shared" in name]
    assert relations == ["heads.para.shared.linear.weight", "heads.para.shared.linear.bias"]
    alone = build_heads({"para": "concat", "sts": "relational"}, TASKS, 8, 0.0)
    assert alone["sts"].shared is not shared_weight(relational)
    two = HEADS["relational"](PARA, 8, 0.0), HEADS["relational"](STS, 8, 0.0)  # built apart, they are two
    assert two[0].shared is not two[1].shared


def test_a_checkpoint_keeps_it_shared(relational, tmp_path):
    save_model(tmp_path / "model.pt", relational, BertTokenizer([*SPECIAL, "a", "b", "c"]))
    again, _ = load_model(tmp_path / "model.pt")
    assert torch.equal(shared_weight(again), shared_weight(relational))
    for task in ("para", "sts"):
        assert torch.equal(again.heads[task](pairs_of()), relational.heads[task](pairs_of()))


# ------------------------------------------------------------------------------------------ choosing


def test_the_default_head():
    assert [choose_head(TASKS[t], "separate") for t in ("sst", "para", "sts")] == ["linear", "difference", "cosine"]
    assert [choose_head(TASKS[t], "joint") for t in ("sst", "para", "sts")] == ["linear"] * 3
    assert choose_head(STS, "separate", "dot") == "dot"


def test_every_head_can_be_chosen_somewhere():
    assert {"linear", *PAIR_HEADS["para"], *PAIR_HEADS["sts"]} == set(HEADS)


@pytest.mark.parametrize(
    ("task", "head"), [(task, head) for task, heads in PAIR_HEADS.items() for head in heads]
)  # fmt: skip
def test_a_head_of_two_vectors_does_not_go_with_joint_pairs(task, head):
    assert choose_head(TASKS[task], "separate", head) == head
    with pytest.raises(UserError, match=rf"--{task}_head {head} .*--pairs joint"):
        choose_head(TASKS[task], "joint", head)


@pytest.mark.parametrize(("task", "head"), [("para", "cosine"), ("sts", "concat"), ("sts", "linear"), ("para", "x")])
def test_a_head_that_is_not_for_the_task_is_refused_with_those_that_are(task, head):
    with pytest.raises(UserError, match=rf"--{task}_head {head} .*{PAIR_HEADS[task][0]}"):
        choose_head(TASKS[task], "separate", head)


# ------------------------------------------------------------------------------------------ learning by heart

FILES = {"sst": "ids-sst-train.csv", "para": "quora-train.csv", "sts": "sts-train.csv"}
WAYS = [
    ("sst", "separate", "linear"),
    *(("para", "separate", head) for head in PAIR_HEADS["para"]),
    *(("sts", "separate", head) for head in PAIR_HEADS["sts"]),
    ("para", "joint", "linear"),
    ("sts", "joint", "linear"),
]  # fmt: skip


@pytest.fixture(params=["sample", "real"])
def folder(request):
    """Our own small files, and the course's where they are."""
    return request.getfixturevalue({"sample": "sample", "real": "real_data"}[request.param])


def tiny_model(examples: list[Example], task: str, pairs: str, head: str) -> tuple[MultitaskBert, Batch]:
    """A random BERT, 16 wide, that knows the words of these examples, without dropout; and them as one batch."""
    words = {word for e in examples for text in e.texts for word in re.findall(r"\w+|[^\w\s]", text.lower())}
    tokenizer = BertTokenizer([*SPECIAL, *sorted(words)], max_length=48)
    config = BertConfig(
        vocab_size=len(tokenizer.vocab), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        max_position_embeddings=48, initializer_range=0.1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MultitaskBert(BertModel(config), [task], pairs, heads={task: head} if head != "linear" else {}, dropout=0.0)
    return model, Dataset(TASKS[task], examples, tokenizer, pairs).batch(range(len(examples)))


def overfit(model: MultitaskBert, batch: Batch, enough: float, steps: int = 400) -> tuple[float, float]:
    """Show one batch again and again until the loss is `enough`; the first and the last loss."""
    rates = ((model.bert, 5e-3), (model.heads, 3e-2))
    optimizer = torch.optim.Adam([{"params": list(part.parameters()), "lr": lr} for part, lr in rates])
    losses = []
    for _ in range(steps):
        loss = TASKS[batch.task].loss(model(batch), batch.labels) * (25 if batch.task == "sts" else 1)  # in labels²
        losses.append(loss.item())
        if losses[-1] <= enough or not loss.requires_grad:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses[0], losses[-1]


@pytest.mark.parametrize(("task", "pairs", "head"), WAYS)
def test_32_examples_can_be_learned_by_heart(folder, task, pairs, head):
    """Whatever lies between the sentence and the loss, and is wired wrongly, would stop this."""
    examples = read_examples(folder / FILES[task], TASKS[task], 32)
    assert len({example.label for example in examples}) > 1
    first, last = overfit(*tiny_model(examples, task, pairs, head), enough=0.02)
    assert first > 0.5 and last <= 0.02


def test_a_frozen_bert_under_a_cosine_learns_nothing(sample):
    """The head has no weights: what is left to learn is BERT, and that is frozen. (So the above was no luck.)"""
    model, batch = tiny_model(read_examples(sample / FILES["sts"], STS, 32), "sts", "separate", "cosine")
    assert isinstance(model.heads["sts"], CosineHead)
    model.freeze_bert()
    first, last = overfit(model, batch, enough=0.02)
    assert first == last > 0.5
    assert not [p for p in model.parameters() if p.requires_grad]


def test_a_frozen_bert_under_a_small_head_does_not_learn_them_by_heart(sample):
    """Seventeen weights on 32 pairs: it gets better, but not to nothing. Training BERT is what the rest took."""
    model, batch = tiny_model(read_examples(sample / FILES["sts"], STS, 32), "sts", "separate", "hadamard")
    model.freeze_bert()
    first, last = overfit(model, batch, enough=0.02)
    assert 0.1 < last < first
