"""Heads learn: identical sentences can score 5, 32 examples can be learned by heart, and two tasks train one layer."""

import re

import pytest
import torch
from torch import nn

from minbert.bert import BertModel
from minbert.checkpoint import load_model, save_model
from minbert.config import BertConfig
from minbert.data import Batch, Dataset, Example, read_examples
from minbert.heads import HEADS, PAIR_HEADS, CosineHead, Encoded, build_heads
from minbert.multitask import MultitaskBert
from minbert.tasks import TASKS, Task
from minbert.tokenizer import SPECIAL, BertTokenizer
from tests.tasks.head_inputs import COSINES, PARA, STS, fresh, pairs_of


@pytest.mark.parametrize("name", [name for name in PAIR_HEADS["number"] if name not in COSINES])
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


def test_the_shared_layers_gradient_is_the_sum_of_both_tasks(relational):
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


def test_a_step_for_quora_changes_the_outputs_of_sts(relational):
    encoded = pairs_of()
    before = relational.heads["sts"](encoded)
    optimizer = torch.optim.SGD(relational.heads["para"].parameters(), lr=1.0)
    PARA.loss(relational.heads["para"](encoded), torch.ones(6)).backward()
    optimizer.step()
    assert not torch.allclose(relational.heads["sts"](encoded), before, atol=1e-4)
    assert relational.heads["para"].linear is not relational.heads["sts"].linear  # the last layers are two


def test_the_relational_layer_is_shared_where_both_tasks_choose_it_and_counted_once(relational):
    relations = [name for name, _ in relational.named_parameters() if "shared" in name]
    assert relations == ["heads.para.shared.linear.weight", "heads.para.shared.linear.bias"]
    alone = build_heads({"para": "concat", "sts": "relational"}, TASKS, 8, 0.0)
    assert alone["sts"].shared is not shared_weight(relational)
    two = HEADS["relational"](PARA, 8, 0.0), HEADS["relational"](STS, 8, 0.0)  # heads that are built apart have two
    assert two[0].shared is not two[1].shared


def test_the_relational_layer_is_still_shared_after_a_checkpoint(relational, tmp_path):
    save_model(tmp_path / "model.pt", relational, BertTokenizer([*SPECIAL, "a", "b", "c"]))
    again, _ = load_model(tmp_path / "model.pt")
    assert torch.equal(shared_weight(again), shared_weight(relational))
    for task in ("para", "sts"):
        assert torch.equal(again.heads[task](pairs_of()), relational.heads[task](pairs_of()))


# ------------------------------------------------------------------------------------------ learning by heart

FILES = {"sst": "ids-sst-train.csv", "para": "quora-train.csv", "sts": "sts-train.csv"}

WAYS = [
    ("sst", "separate", "linear"),
    *(("para", "separate", head) for head in PAIR_HEADS["yes_no"]),
    *(("sts", "separate", head) for head in PAIR_HEADS["number"]),
    ("para", "joint", "linear"),
    ("sts", "joint", "linear"),
]


@pytest.fixture(params=["sample", "real"])
def folder(request):
    """Our own small files, and the course's where they are."""
    return request.getfixturevalue({"sample": "sample", "real": "real_data"}[request.param])


def tiny_model(examples: list[Example], task: str, pairs: str, head: str) -> tuple[MultitaskBert, Batch]:
    """A random BERT, 16 wide, with these examples' words and without dropout; and the examples as one batch."""
    words = {word for e in examples for text in e.texts for word in re.findall(r"\w+|[^\w\s]", text.lower())}
    tokenizer = BertTokenizer([*SPECIAL, *sorted(words)], max_length=48)
    config = BertConfig(
        vocab_size=len(tokenizer.vocab), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        max_position_embeddings=48, initializer_range=0.1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MultitaskBert(BertModel(config), [task], pairs, heads={task: head} if head != "linear" else {}, dropout=0.0)
    return model, Dataset(TASKS[task], examples, tokenizer, pairs).batch(range(len(examples)))


def overfit(model: MultitaskBert, batch: Batch, enough: float, steps: int = 400) -> tuple[float, float]:
    """Train on one batch until the loss is `enough`; the first and the last loss."""
    rates = ((model.bert, 5e-3), (model.heads, 3e-2))
    optimizer = torch.optim.Adam([{"params": list(part.parameters()), "lr": lr} for part, lr in rates], fused=True)
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
    """A wrong connection anywhere between the sentence and the loss would prevent it."""
    examples = read_examples(folder / FILES[task], TASKS[task], 32)
    assert len({example.label for example in examples}) > 1
    first, last = overfit(*tiny_model(examples, task, pairs, head), enough=0.02)
    assert first > 0.5 and last <= 0.02


def test_a_frozen_bert_under_a_cosine_learns_nothing(sample):
    """The head has no weights and BERT is frozen. So it was BERT that learned in the test above."""
    model, batch = tiny_model(read_examples(sample / FILES["sts"], STS, 32), "sts", "separate", "cosine")
    assert isinstance(model.heads["sts"], CosineHead)
    model.freeze_bert()
    first, last = overfit(model, batch, enough=0.02)
    assert first == last > 0.5
    assert not [p for p in model.parameters() if p.requires_grad]


def test_a_frozen_bert_under_a_small_head_does_not_learn_them_by_heart(sample):
    """Seventeen weights on 32 pairs: the loss falls, but not to 0. The rest needs the training of BERT."""
    model, batch = tiny_model(read_examples(sample / FILES["sts"], STS, 32), "sts", "separate", "hadamard")
    model.freeze_bert()
    first, last = overfit(model, batch, enough=0.02)
    assert 0.1 < last < first


# ------------------------------------------------------------------------------------------ the labels' unit


@pytest.mark.parametrize("name", PAIR_HEADS["number"])
@pytest.mark.parametrize("unit", [200.0, 1e-4])
def test_what_is_learned_does_not_depend_on_the_unit_of_the_labels(name, unit):
    """Labels of -1 … 4 and the same labels in another unit: after 20 steps of Adam the outputs differ by that unit."""
    outputs, labels = [], torch.tensor([-1.0, 4.0, 0.5, 2.0, 3.0, 1.0])
    for factor in (1.0, unit):
        torch.manual_seed(0)
        task = Task("ease", texts=("a", "b"), label="y", kind="number", label_range=(-factor, 4 * factor))
        head = build_heads({"ease": name}, {"ease": task}, 8, 0.0)["ease"]
        optimizer = torch.optim.Adam(head.parameters(), lr=0.05) if any(True for _ in head.parameters()) else None
        for _ in range(20 if optimizer else 0):
            optimizer.zero_grad()
            task.loss(head(pairs_of()), factor * labels).backward()
            optimizer.step()
        outputs.append(head(pairs_of()) / factor)
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-3)
