"""minbert/multitask.py: one BERT and its heads, against the same steps taken by hand."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.data import Batch, Dataset, Example
from minbert.errors import UserError
from minbert.evaluation import outputs
from minbert.heads import PAIR_HEADS, Encoded
from minbert.multitask import MultitaskBert
from minbert.pretrained import load_bert
from minbert.tasks import TASKS
from minbert.tokenizer import SPECIAL, BertTokenizer

WORDS = [f"w{i}" for i in range(30)]
TOKENIZER = BertTokenizer([*SPECIAL, *WORDS])
CONFIG = BertConfig(
    vocab_size=len(TOKENIZER.vocab), hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
    max_position_embeddings=32, initializer_range=0.3,
)  # fmt: skip
PAIRS = [("w1 w2 w3 w4 w5", "w6"), ("w7", "w8 w9 w10"), ("w11 w12", "w11 w12"), ("w13 w14 w15", "w16 w17 w18 w19")]
LABELS = {"sst": (0.0, 4.0, 2.0, 1.0), "para": (0.0, 1.0, 1.0, 0.0), "sts": (0.2, 2.6, 5.0, 3.0)}
WAYS = {  # every way from a pair to an answer: the task to ask, and how the model is built
    **{f"sts {head}": ("sts", {"pairs": "separate", "heads": {"sts": head}}) for head in PAIR_HEADS["sts"]},
    **{f"para {head}": ("para", {"pairs": "separate", "heads": {"para": head}}) for head in PAIR_HEADS["para"]},
    "joint": ("sts", {"pairs": "joint"}),
}
every_way = pytest.mark.parametrize(("task", "way"), WAYS.values(), ids=WAYS)


def build(**options) -> MultitaskBert:
    """A model with random weights, dropout off."""
    torch.manual_seed(0)
    return MultitaskBert(BertModel(CONFIG), ["sst", "para", "sts"], **options).eval()


def batch_of(task: str, pairs: str = "separate", indices: tuple[int, ...] = (0, 1, 2, 3)) -> Batch:
    texts = PAIRS if TASKS[task].is_pair else [first for first, _ in PAIRS]
    examples = [
        Example(str(i), text if isinstance(text, tuple) else (text,), label)
        for i, (text, label) in enumerate(zip(texts, LABELS[task], strict=True))
    ]
    return Dataset(TASKS[task], examples, TOKENIZER, pairs).batch(list(indices))


def pooled(model: MultitaskBert, texts: tuple[str, ...]) -> torch.Tensor:
    """What the course's BERT call says of a text alone, or of a pair as one row: its pooler output, (1, C)."""
    rows = TOKENIZER(texts[0], texts[1]) if len(texts) == 2 else TOKENIZER(texts[0])
    return model.bert(rows["input_ids"], rows["attention_mask"], rows["token_type_ids"])["pooler_output"]


# ------------------------------------------------------------------------------------------ the way through


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_forward_is_embed_then_logits(task, pooling):
    model, batch = build(pooling=pooling), batch_of(task)
    embedded = model.embed(batch)
    assert embedded.shape == (*batch.input_ids.shape, CONFIG.hidden_size)
    assert model(batch).shape == (4, TASKS[task].outputs)
    assert torch.equal(model(batch), model.logits(batch, embedded))
    assert not torch.equal(model(batch), model.logits(batch, embedded + 0.1 * torch.randn_like(embedded)))


def test_one_sentence_by_hand():
    model = build()
    W, b = model.heads["sst"].linear.weight, model.heads["sst"].linear.bias
    by_hand = torch.cat([pooled(model, (first,)) @ W.T + b for first, _ in PAIRS])
    torch.testing.assert_close(model(batch_of("sst")), by_hand)


def test_separate_pairs_by_hand():
    """Each sentence through BERT alone: the batch's first B rows are the first sentences, the others the second."""
    model = build()
    u, v = (torch.cat([pooled(model, (pair[side],)) for pair in PAIRS]) for side in (0, 1))
    cos = (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))
    torch.testing.assert_close(model(batch_of("sts"))[:, 0], 5 * cos)
    features = torch.cat([u, v, (u - v).abs()], dim=1)
    linear = model.heads["para"].linear
    torch.testing.assert_close(model(batch_of("para")), features @ linear.weight.T + linear.bias)
    # had the rows stood in turn (u₁, v₁, u₂, v₂, …), it would have been other pairs' cosines:
    assert not torch.allclose(5 * F.cosine_similarity(u, v.roll(1, 0)), 5 * cos, atol=1e-3)


def test_mean_pooling_by_hand():
    """The mean over the tokens of each sentence by itself, [CLS] and [SEP] among them, no pads anywhere."""
    model = build(pooling="mean")

    def mean(text):
        rows = TOKENIZER(text)
        return model.bert(rows["input_ids"], rows["attention_mask"])["last_hidden_state"].mean(dim=1)

    by_hand = [5 * F.cosine_similarity(mean(a), mean(b)) for a, b in PAIRS]
    torch.testing.assert_close(model(batch_of("sts"))[:, 0], torch.cat(by_hand))


def test_joint_pairs_by_hand():
    """[CLS] a [SEP] b [SEP] in one pass, and one vector of it."""
    model = build(pairs="joint")
    vectors = torch.cat([pooled(model, pair) for pair in PAIRS])
    for task in ("para", "sts"):
        linear = model.heads[task].linear
        batch = batch_of(task, "joint")
        torch.testing.assert_close(model(batch), vectors @ linear.weight.T + linear.bias)
        without_types = replace(batch, token_type_ids=torch.zeros_like(batch.token_type_ids))
        assert not torch.allclose(model(without_types), model(batch), atol=1e-4)


def test_a_head_gets_tokens_and_masks_of_its_own_sentences():
    """What `cross_attention` sees, and that a single row leaves the second sentence out."""
    model, seen = build(), []

    class Listener(nn.Module):
        def forward(self, encoded: Encoded):
            seen.append(encoded)
            return encoded.u[:, :1]

    model.heads["para"] = model.heads["sst"] = Listener()
    for task in ("para", "sst"):
        model(batch_of(task))
    pair, single = seen
    assert pair.mask_u.sum(1).tolist() == [7, 3, 4, 5] and pair.mask_v.sum(1).tolist() == [3, 5, 4, 6]  # with specials
    torch.testing.assert_close(pair.u, model.bert.pool(pair.tokens_u))
    torch.testing.assert_close(pair.v, model.bert.pool(pair.tokens_v))
    assert single.v is single.tokens_v is single.mask_v is None


@every_way
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_an_example_alone_and_in_a_batch_and_with_more_pads_scores_the_same(task, way, pooling):
    model = build(pooling=pooling, **way)
    together = model(batch_of(task, way["pairs"]))
    assert together.std() > 1e-4  # or else any answer would do
    for i in range(4):
        alone = model(batch_of(task, way["pairs"], (i,)))
        assert alone.shape == (1, 1)
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=1e-5)

    batch = batch_of(task, way["pairs"])
    columns = ("input_ids", "attention_mask", "token_type_ids")
    wider = replace(batch, **{name: F.pad(getattr(batch, name), (0, 5)) for name in columns})
    torch.testing.assert_close(model(wider), together, atol=1e-5, rtol=1e-5)
    seen = replace(wider, attention_mask=torch.ones_like(wider.attention_mask))
    assert not torch.allclose(model(seen), together, atol=1e-4)  # pads that count do change it


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_bf16_is_a_little_rough_inside_and_float32_outside(task):
    """bfloat16 keeps 8 bits of a number: products are right to about 2⁻⁸, 0.4 %. Outside `autocast` nothing is."""
    model, batch = build(heads={"sts": "dot"}), batch_of(task)
    exact = model(batch)
    model.precision = "bf16"
    assert torch.equal(model(batch), exact)
    with model.autocast():
        rough, embedded = model(batch), model.embed(batch)
    assert rough.dtype == embedded.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0.02)
    TASKS[task].loss(rough, batch.labels).backward()
    assert all(p.dtype == torch.float32 and (p.grad is None or p.grad.isfinite().all()) for p in model.parameters())
    model.precision = "fp32"
    with model.autocast():
        assert torch.equal(model(batch), exact)


def test_an_evaluation_is_in_the_models_precision():
    examples = [Example(str(i), pair, label) for i, (pair, label) in enumerate(zip(PAIRS, LABELS["sts"], strict=True))]
    model, data = build(heads={"sts": "dot"}), Dataset(TASKS["sts"], examples, TOKENIZER)
    exact = outputs(model, data)
    model.precision = "bf16"
    rough = outputs(model, data)
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0.02)


# ------------------------------------------------------------------------------------------ what learns


@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_a_loss_reaches_bert_and_its_own_head_and_no_other(task):
    model = build(heads={"sts": "dot"})
    TASKS[task].loss(model(batch_of(task)), batch_of(task).labels).backward()
    for name, head in model.heads.items():
        gradients = [p.grad for p in head.parameters()]
        assert gradients
        if name == task:
            assert all(g is not None and g.abs().sum() > 0 for g in gradients)
        else:
            assert all(g is None for g in gradients)
    assert all(p.grad is not None for p in model.bert.parameters())
    assert model.bert.word_embedding.weight.grad.abs().sum() > 0


def test_parameters_of_a_task_are_those_that_its_loss_can_reach():
    """All of BERT and its own head; with the mean for the sentence's vector the pooler is not asked."""
    for pooling, unused in (("cls", set()), ("mean", {"bert.pooler_dense.weight", "bert.pooler_dense.bias"})):
        model = build(pooling=pooling, heads={"para": "relational", "sts": "relational"})
        for task in model.heads:
            model.zero_grad()
            TASKS[task].loss(model(batch_of(task)), batch_of(task).labels).backward()
            reached = {name for name, p in model.named_parameters() if p.grad is not None}
            mine = {id(p) for p in model.parameters_of(task)}
            assert {name for name, p in model.named_parameters() if id(p) in mine} - unused == reached


def test_a_frozen_bert_gets_no_gradient_and_its_heads_do():
    model = build()
    model.freeze_bert()
    assert not any(p.requires_grad for p in model.bert.parameters())
    for task in ("sst", "para"):
        TASKS[task].loss(model(batch_of(task)), batch_of(task).labels).backward()
        assert all(p.grad is not None for p in model.heads[task].parameters())
    assert all(p.grad is None for p in model.bert.parameters())
    assert not model(batch_of("sts")).requires_grad  # a cosine of frozen vectors: nothing is left that could learn


# ------------------------------------------------------------------------------------------ dropout


def rates(module: nn.Module) -> set[float]:
    return {part.p for part in module.modules() if isinstance(part, nn.Dropout)}


def test_the_heads_dropout_does_not_reach_bert():
    heads = {"para": "relational", "sts": "cross_attention"}
    model = MultitaskBert(BertModel(CONFIG), ["sst", "para", "sts"], heads=heads, dropout=0.4)
    assert all(rates(head) == {0.4} for head in model.heads.values())
    assert rates(model.bert) == {0.1} == {CONFIG.hidden_dropout_prob}


def test_berts_dropout_reaches_all_of_bert_and_no_head(tiny):
    bert = load_bert(tiny, dropout=0.25)
    assert rates(bert) == {0.25} and rates(load_bert(tiny)) == {0.1}
    model = MultitaskBert(bert, ["sst", "para"], dropout=0.0)
    assert rates(model.heads) == {0.0} and rates(model.bert) == {0.25}


@every_way
def test_each_dropout_is_at_work_in_training_alone(task, way):
    """Same input twice: other answers while either rate is above 0 and the model trains, the same otherwise."""
    batch = batch_of(task, way["pairs"])
    no_head_dropout = (way.get("heads") or {}).get("sts") == "cosine"  # it has no weights to save from leaning on one

    def agrees(bert_dropout: float, dropout: float, training: bool) -> bool:
        config = replace(CONFIG, hidden_dropout_prob=bert_dropout, attention_probs_dropout_prob=bert_dropout)
        model = MultitaskBert(BertModel(config), ["para", "sts"], dropout=dropout, **way).train(training)
        return torch.equal(model(batch), model(batch))

    assert agrees(0.0, 0.0, training=True) and agrees(0.5, 0.5, training=False)
    assert not agrees(0.5, 0.0, training=True)
    assert agrees(0.0, 0.5, training=True) == no_head_dropout


# ------------------------------------------------------------------------------------------ building again


@every_way
def test_build_rebuilds_the_model(task, way):
    model = build(pooling="mean", dropout=0.2, **way)
    again = MultitaskBert(BertModel(CONFIG), **model.build).eval()
    assert again.build == model.build and (model.build["pooling"], model.build["dropout"]) == ("mean", 0.2)
    assert rates(again.heads) == rates(model.heads) <= {0.2}
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == shapes
    again.load_state_dict(model.state_dict())
    for name in ("sst", task):
        batch = batch_of(name, way["pairs"])
        assert torch.equal(again(batch), model(batch))


def test_build_is_plain_values_with_the_default_heads_by_name():
    """So that a checkpoint can hold it, and a later default does not change what an old file means."""
    assert build().build == {
        "tasks": ["sst", "para", "sts"], "pairs": "separate", "pooling": "cls", "dropout": 0.3,
        "heads": {"sst": "linear", "para": "difference", "sts": "cosine"}, "adapter": None, "lora": None,
    }  # fmt: skip
    assert set(build(pairs="joint").build["heads"].values()) == {"linear"}


def test_only_the_tasks_asked_for_get_a_head():
    model = MultitaskBert(BertModel(CONFIG), ["sts"])
    assert list(model.heads) == ["sts"]
    with pytest.raises(KeyError):
        model(batch_of("sst"))


def test_a_head_that_cannot_work_is_refused():
    with pytest.raises(UserError, match=r"--sts_head cosine .* --pairs joint"):
        MultitaskBert(BertModel(CONFIG), ["sts"], pairs="joint", heads={"sts": "cosine"})


def test_the_device_is_that_of_the_weights():
    model = build()
    assert model.device == torch.device("cpu")
    assert model.to("meta").device == torch.device("meta")
