"""PALs and low-rank layers against the paper's formula, h' = LN(ffn_out + attn_out + TS(h)), written out by hand.

`layer_by_hand` is a whole BERT layer made of the raw matrices, einsum and erf. Its options are ways to be wrong, with
TS in another place or of another kind, as public code has it; each must fail the check that the right one passes.
"""

import copy
import functools
import itertools
import math
from dataclasses import replace
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from minbert.bert import BertModel, sdpa_attention
from minbert.checkpoint import load_model, load_trained, save_model, save_trained
from minbert.config import BertConfig
from minbert.data import Batch, Dataset, Example
from minbert.errors import UserError
from minbert.files import safe_load
from minbert.lora import LoRALinear
from minbert.multitask import MultitaskBert, part_of
from minbert.optimizer import AdamW
from minbert.pals import ACTIVATIONS, ADAPTERS, add_low_rank, add_pals, low_rank_size, pal_size, use_task
from minbert.pcgrad import COMBINE, Memory, give_gradients, pcgrad, sum_gradients, take_gradients
from minbert.pretrained import load_bert, load_tokenizer, save_pretrained
from minbert.smart import Proximal, exact, smoothness
from minbert.tasks import TASKS

NAMES = ["sst", "para", "sts"]
V, T, H, L = 30, 7, 3, 2
CONFIG = BertConfig(
    vocab_size=V, hidden_size=12, num_hidden_layers=L, num_attention_heads=H, intermediate_size=20,
    max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.3,
)  # fmt: skip
NOISY = replace(CONFIG, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
WAYS = {  # what `MultitaskBert(adapter=...)` may be
    "pal": {"kind": "pal"},
    "pal 6": {"kind": "pal", "size": 6},
    "low_rank": {"kind": "low_rank"},
    "low_rank 3": {"kind": "low_rank", "size": 3},
    "low_rank gelu": {"kind": "low_rank", "size": 4, "activation": "gelu"},
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
a_pal_and_a_low_rank = pytest.mark.parametrize("way", [WAYS["pal 6"], WAYS["low_rank 3"]], ids=["pal", "low_rank"])


def add(bert: BertModel, way: dict, tasks=NAMES) -> BertModel:
    options = dict(way)
    return ADAPTERS[options.pop("kind")](bert, tasks, **options)


def adapters(bert: nn.Module, task: str = "") -> dict[str, nn.Parameter]:
    """The parameters that were added, of one task or of all; what layers share is there once."""
    return {name: p for name, p in bert.named_parameters() if f".adapter.{task}" in name}


def own_of(model: MultitaskBert) -> dict[str, nn.Parameter]:
    """The parameters that are BERT's own."""
    return {name: p for name, p in model.named_parameters() if part_of(name) == "BERT"}


def wake(module: nn.Module, seed: int = 7) -> nn.Module:
    """Give all added parameters, V_D and the biases too, random numbers, as if they had been trained."""
    random = torch.Generator().manual_seed(seed)
    for p in adapters(module).values():
        p.data = 0.5 * torch.randn(p.shape, generator=random, dtype=torch.float64).to(p.dtype)
    return module


def random_bert(config: BertConfig = CONFIG, attention: str = "plain") -> BertModel:
    """A BERT with random weights, its LayerNorms' too."""
    torch.manual_seed(0)
    bert = BertModel(config, attention)
    for module in bert.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, mean=1.0, std=0.3)
            nn.init.normal_(module.bias, std=0.3)
    return bert.eval()


def adapted(way: dict, attention: str = "plain", dtype=torch.float64) -> BertModel:
    return wake(add(random_bert(attention=attention).to(dtype), way)).eval()


def rows(count: int = 5, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random ids and their mask, both (count, T); most rows have pads, one has none."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, V, (count, T), generator=random)
    lengths = torch.randint(2, T, (count, 1), generator=random)
    lengths[0] = T
    mask = (torch.arange(T) < lengths).long()
    return ids * mask, mask


def vectors(mask: Tensor, seed: int = 2, C: int = CONFIG.hidden_size) -> Tensor:
    """Random vectors of the tokens and of the pads, (B, T, C) float64."""
    return torch.randn(*mask.shape, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def additive(mask: Tensor) -> Tensor:
    """(B, T) of 1 and 0 → (B, 1, 1, T) float64 of 0 and a hugely negative number."""
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(mask == 0, -1e300)[:, None, None, :]


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def model_of(way: dict | None, pairs: str = "separate", config: BertConfig = CONFIG, **options) -> MultitaskBert:
    """Three tasks on a random BERT, with layers of their own that are awake, in train mode but without dropout.

    STS has a head with weights, so that each head has something to learn.
    """
    bert = random_bert(config)
    options = {"dropout": 0.0, "heads": {"sts": "hadamard"} if pairs == "separate" else None} | options
    return wake(MultitaskBert(bert, NAMES, pairs, adapter=way, **options).train())


def batch_of(task: str, pairs: str = "separate", B: int = 4, seed: int = 1) -> Batch:
    ids, mask = rows(2 * B if TASKS[task].is_pair and pairs == "separate" else B, seed)
    low, high = TASKS[task].label_range
    labels = torch.randint(low, high + 1, (B,), generator=torch.Generator().manual_seed(seed)).float()
    return Batch(task, list(range(B)), ids, mask, torch.zeros_like(ids), labels)


def loss_of(model: MultitaskBert, batch: Batch) -> Tensor:
    return TASKS[batch.task].loss(model(batch), batch.labels.to(model.dtype))


def answers(model: MultitaskBert, order=NAMES) -> dict[str, Tensor]:
    """What the model says to a batch of every task, asked in this order."""
    with torch.no_grad():
        return {task: model(batch_of(task, model.build["pairs"])) for task in order}


def copies(named: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in named.items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """To the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------ how many parameters


def pal_numbers(C: int, L: int, size: int) -> int:
    """V_E and V_D once, with their biases, and q, k, v in every layer."""
    return (C * size + size) + (size * C + C) + L * 3 * (size**2 + size)


def low_rank_numbers(C: int, L: int, size: int) -> int:
    """V_E and V_D in every layer."""
    return L * ((C * size + size) + (size * C + C))


def meta_bert(**sizes) -> BertModel:
    """Shapes and no memory. No random numbers either: for `normal_` on "meta" PyTorch imports its compiler, for 4 s."""
    with torch.device("meta"), mock.patch("torch.nn.init.normal_"):
        return BertModel(BertConfig(**sizes))


def numbers(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (add_pals, (768 * 204 + 204) + (204 * 768 + 768) + 12 * 3 * (204**2 + 204)),
        (add_low_rank, 12 * (2 * 768 * 100 + 100 + 768)),
    ],
)
def test_the_published_sizes_beside_bert_base(added, expected):
    """1.82 and 1.85 million a task. The paper's eight tasks of GLUE make 1.13× BERT of it, our three less than 6%."""
    assert expected in (1_819_836, 1_853_616)
    bert = meta_bert()
    assert numbers(bert) == 109_482_240
    added(bert, NAMES)
    assert [sum(p.numel() for p in adapters(bert, task).values()) for task in NAMES] == [expected] * 3
    assert numbers(bert) == 109_482_240 + 3 * expected <= 1.06 * 109_482_240
    assert round(1 + 8 * expected / 110e6, 2) == 1.13


@pytest.mark.parametrize(("C", "L", "H"), [(384, 6, 12), (64, 1, 8), (96, 3, 4)])
@pytest.mark.parametrize("size", [None, 24, 48])
@pytest.mark.parametrize("kind", ["pal", "low_rank"])
def test_parameters_are_those_of_the_formula(C, L, H, size, kind):
    sizes = {"hidden_size": C, "num_hidden_layers": L, "num_attention_heads": H}
    bert = meta_bert(**sizes, vocab_size=5, intermediate_size=7, max_position_embeddings=4)
    before = numbers(bert)
    add(bert, {"kind": kind, "size": size}, ["sst"])
    if kind == "pal":
        expected = pal_numbers(C, L, size or pal_size(C, H))
    else:
        expected = low_rank_numbers(C, L, size or low_rank_size(C))
    assert numbers(bert) - before == expected


def test_sizes_in_proportion():
    """MiniLM's 102 lies half-way between two multiples of its 12 heads."""
    assert [pal_size(C, H) for C, H in [(768, 12), (1024, 16), (384, 12), (128, 2), (8, 2)]] == [204, 272, 96, 34, 2]
    assert [low_rank_size(C) for C in (768, 1024, 384, 128, 8)] == [100, 133, 50, 17, 1]


@given(st.integers(1, 40), st.integers(1, 200))
def test_a_size_is_near_the_proportion_fits_the_heads_and_is_never_zero(H, D):
    C = H * D
    size, rank = pal_size(C, H), low_rank_size(C)
    assert size % H == 0 and size >= H and (size == H or abs(size - 204 / 768 * C) <= H / 2 + 1e-9)
    assert rank >= 1 and (rank == 1 or abs(rank - 100 / 768 * C) <= 0.5 + 1e-9)


# ------------------------------------------------------------------------------------------ the start


def check_identity(change, attention: str = "plain"):
    """For every task, what BERT says of each token and of the sentence is to the last bit what it said before."""
    bert = random_bert(attention=attention)
    ids, mask = rows()
    before = bert(ids, mask)
    change(bert)
    bert.eval()
    for task in NAMES:
        use_task(bert, task)
        after = bert(ids, mask)
        assert torch.equal(after["last_hidden_state"], before["last_hidden_state"])
        assert torch.equal(after["pooler_output"], before["pooler_output"])


@every_way
@pytest.mark.parametrize("attention", ["plain", "sdpa"])
def test_added_layers_change_nothing_at_first(way, attention):
    check_identity(lambda bert: add(bert, way), attention)


def with_random(bert: BertModel, way: dict, leaf: str):
    add(bert, way)
    for name, p in adapters(bert).items():
        if name.endswith(leaf):
            nn.init.normal_(p, std=1e-3)


@pytest.mark.parametrize("leaf", ["decode.weight", "decode.bias"])
@a_pal_and_a_low_rank
def test_a_v_d_that_is_not_zero_changes_something(way, leaf):
    with pytest.raises(AssertionError):
        check_identity(lambda bert: with_random(bert, way, leaf))


@every_way
@pytest.mark.parametrize("hidden", [0.0, 0.3])
def test_added_layers_change_nothing_in_training_either(way, hidden):
    """With BERT's own dropout, from the same seed, and its gradients too. (A PAL's attention draws numbers of its own
    where it has a dropout: that rate must be 0.)"""
    attention = 0.0 if way["kind"] == "pal" else hidden
    config = replace(CONFIG, hidden_dropout_prob=hidden, attention_probs_dropout_prob=attention)
    bert, (ids, mask) = random_bert(config), rows()
    own = dict(bert.named_parameters())

    def step() -> list[Tensor]:
        torch.manual_seed(5)
        out = bert.train()(ids, mask)
        loss = out["last_hidden_state"].square().mean() + out["pooler_output"].mean()
        return [*out.values(), *torch.autograd.grad(loss, own.values())]

    before = step()
    add(bert, way)
    assert all(torch.equal(a, b) for a, b in zip(step(), before, strict=True))


@every_way
def test_v_d_is_the_first_to_learn(way):
    """∂loss/∂V_D = (…)·g(V_E·h) has a slope at V_D = 0, what comes before V_D has none; so V_E must not be 0, too."""
    bert, (ids, mask) = add(random_bert(), way), rows()
    bert(ids, mask)["last_hidden_state"].square().mean().backward()
    for name, p in adapters(bert, "sst").items():
        assert p.grad is not None and p.grad.any() == (".decode." in name), name


@a_pal_and_a_low_rank
@pytest.mark.parametrize("std", [0.02, 0.3])
def test_fresh_weights_are_berts_and_no_two_matrices_the_same(way, std):
    """N(0, std²) with BERT's initializer_range, biases 0; V_D all zeros. No task or layer begins as a copy of another.

    A PAL or low-rank layer of 48 to BERT's 48 has 2,304 numbers a matrix: the sample's std is right to 1/√4608, 1.5%.
    """
    sizes = {"hidden_size": 48, "intermediate_size": 4, "initializer_range": std}
    bert = add(random_bert(replace(CONFIG, **sizes)), way | {"size": 48})
    fresh = [p for name, p in adapters(bert).items() if ".decode." not in name and name.endswith(".weight")]
    assert len(fresh) == 3 * (1 + 3 * L if way["kind"] == "pal" else L)
    for p in fresh:
        assert p.std().item() == pytest.approx(std, rel=0.08) and abs(p.mean().item()) < 0.1 * std
    assert not any(torch.equal(p, q) for p, q in itertools.combinations(fresh, 2))
    assert not any(p.any() for name, p in adapters(bert).items() if ".decode." in name or name.endswith(".bias"))


# ------------------------------------------------------------------------------------------ by hand

Weights = dict[str, Tensor]


def dense(W: Weights, name: str, x: Tensor) -> Tensor:
    return torch.einsum("btc,oc->bto", x, W[f"{name}.weight"]) + W[f"{name}.bias"]


def norm(W: Weights, name: str, x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + CONFIG.layer_norm_eps).sqrt()
    return x * W[f"{name}.weight"] + W[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    """x·Φ(x), Φ the normal distribution's."""
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def attention_by_hand(W: Weights, name: str, x: Tensor, mask: Tensor, heads: int = H, unit: int | None = None):
    """Multi-head attention, a pad's probability 0. unit: the D of √D."""
    q, k, v = (dense(W, f"{name}.{part}", x).unflatten(-1, (heads, -1)) for part in ("query", "key", "value"))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(unit or q.shape[-1])
    p = scores.masked_fill(mask[:, None, None, :] == 0, -math.inf).softmax(dim=-1)
    return torch.einsum("bhij,bjhd->bihd", p, v).flatten(2)


def ts_by_hand(W: Weights, task: str, h: Tensor, mask: Tensor, activation: str | None, wrong: str = "") -> Tensor:
    """TS(h) of one task. activation: of a low-rank layer; None for a PAL."""
    if wrong == "another task's":
        task = NAMES[NAMES.index(task) - 1]
    name = f"adapter.{task}"
    if wrong == "mask ignored":
        mask = torch.ones_like(mask)
    if activation == "identity" and not wrong:  # one product: V_D·(V_E·h + b_E) + b_D = (V_D·V_E)·h + (V_D·b_E + b_D)
        V_E, b_E, V_D, b_D = (W[f"{name}.{side}code.{kind}"] for side in ("en", "de") for kind in ("weight", "bias"))
        return torch.einsum("oc,btc->bto", V_D @ V_E, h) + (V_D @ b_E + b_D)
    inner = dense(W, f"{name}.encode", h)
    if activation is None:
        how = {"one head": {"heads": 1}, "√size for √D": {"unit": inner.shape[-1]}}.get(wrong, {})
        inner = attention_by_hand(W, f"{name}.attention", inner, mask, **how)
    elif (activation == "gelu") != (wrong == "the other activation"):
        inner = gelu(inner)
    ts = dense(W, f"{name}.decode", inner)
    return gelu(ts) if wrong == "GELU after V_D" else 2 * ts if wrong == "twice" else ts


def layer_by_hand(layer: nn.Module, task: str, h: Tensor, mask: Tensor, activation: str | None, wrong: str = ""):
    """h' = LN(ffn_out + attn_out + TS(h)); `wrong` puts TS elsewhere, or computes another."""
    W = dict(layer.named_parameters(remove_duplicate=False))
    ts = ts_by_hand(W, task, h, mask, activation, wrong)
    if wrong == "all tasks' sum":
        ts = sum(ts_by_hand(W, name, h, mask, activation) for name in NAMES)
    asked = h + ts if wrong == "inside the attention's input" else h
    attended = h + dense(W, "attention_dense", attention_by_hand(W, "self_attention", asked, mask))
    if wrong == "before the first LayerNorm":
        attended = attended + ts
    attended = norm(W, "attention_layer_norm", attended)
    if wrong == "of the attention's output":
        ts = ts_by_hand(W, task, attended, mask, activation)
    seen = attended + ts if wrong == "where the feed-forward sees it" else attended
    out = attended + dense(W, "out_dense", gelu(dense(W, "interm_dense", seen)))
    if wrong in ("inside the attention's input", "before the first LayerNorm", "left out"):
        return norm(W, "out_layer_norm", out)
    if wrong == "after the last LayerNorm":
        return norm(W, "out_layer_norm", out) + ts
    return norm(W, "out_layer_norm", out + ts)


PLACES = (
    "inside the attention's input", "before the first LayerNorm", "of the attention's output",
    "where the feed-forward sees it", "after the last LayerNorm", "left out",
)  # fmt: skip
OTHER_TS = ("another task's", "all tasks' sum", "GELU after V_D", "twice")  # GELU after V_D: the authors' own code
ONLY_PAL = ("mask ignored", "one head", "√size for √D")


def g_of(way: dict) -> str | None:
    return way.get("activation", "identity") if way["kind"] == "low_rank" else None


def check_bert(way: dict, wrong: str = "", attention: str = "plain"):
    """Every task's BERT, layer by layer, is what the matrices say by hand; float64, all weights random, with pads."""
    bert, (ids, mask) = adapted(way, attention), rows()
    for task in NAMES:
        use_task(bert, task)
        h = bert.embed(ids)
        ours = bert.encode(h, mask)
        for layer in bert.bert_layers:
            h = layer_by_hand(layer, task, h, mask, g_of(way), wrong)
        tokens = mask.bool()
        close(ours[tokens], h[tokens])


@every_way
@pytest.mark.parametrize("attention", ["plain", "sdpa"])
def test_bert_with_added_layers_is_the_paper_s_formula(way, attention):
    check_bert(way, attention=attention)


@a_pal_and_a_low_rank
@pytest.mark.parametrize("wrong", PLACES + OTHER_TS)
def test_another_place_or_another_ts_shows(way, wrong):
    with pytest.raises(AssertionError):
        check_bert(way, wrong)


@pytest.mark.parametrize("wrong", ONLY_PAL)
def test_another_attention_shows(wrong):
    with pytest.raises(AssertionError):
        check_bert(WAYS["pal 6"], wrong)


@pytest.mark.parametrize("way", [WAYS["low_rank 3"], WAYS["low_rank gelu"]])
def test_the_other_activation_shows(way):
    with pytest.raises(AssertionError):
        check_bert(way, "the other activation")


def check_place(way: dict, closed_form, hidden_dropout: float = 0.0):
    """A layer whose attention and feed-forward say nothing is h' = LN₂(LN₁(h) + TS(h)): TS alone, where it stands.

    closed_form: (LN₁, LN₂, TS, h) → h'. In training, too, whatever BERT's hidden dropout: TS itself is not dropped.
    """
    bert, (_, mask) = add(random_bert(replace(CONFIG, hidden_dropout_prob=hidden_dropout)).double(), way), rows()
    wake(bert).train(hidden_dropout > 0)
    layer, h = bert.bert_layers[1], vectors(mask)
    for zero in (*layer.attention_dense.parameters(), *layer.out_dense.parameters()):
        nn.init.zeros_(zero)
    W = dict(layer.named_parameters())
    for task in NAMES:
        use_task(bert, task)
        ts = functools.partial(ts_by_hand, W, task, mask=mask, activation=g_of(way))
        first, second = (functools.partial(norm, W, f"{name}_layer_norm") for name in ("attention", "out"))
        close(layer(h, additive(mask)), closed_form(first, second, ts, h))


def the_formula(first, second, ts, h):
    return second(first(h) + ts(h))


WRONG_FORMS = {
    "inside the attention's input": lambda first, second, ts, h: second(first(h)),
    "before the first LayerNorm": lambda first, second, ts, h: second(first(h + ts(h))),
    "of the attention's output": lambda first, second, ts, h: second(first(h) + ts(first(h))),
    "after the last LayerNorm": lambda first, second, ts, h: second(first(h)) + ts(h),
}


@every_way
def test_the_place_of_ts(way):
    check_place(way, the_formula)
    check_place(way, the_formula, hidden_dropout=0.5)


@a_pal_and_a_low_rank
@pytest.mark.parametrize("wrong", WRONG_FORMS.values(), ids=WRONG_FORMS)
def test_another_place_of_ts_shows(way, wrong):
    with pytest.raises(AssertionError):
        check_place(way, wrong)


def test_one_token_on_paper():
    """C = 2, rank 1, one token h = (3, 1): LN₁(h) = (1, -1). V_E = (1, 1), b_E = -2, so V_E·h = 2; V_D = (2, -1)ᵀ.

    TS(h) = (4, -2), LN₁(h) + TS(h) = (5, -3), whose mean is 1 and deviation 4: h' = (1, -1). With V_D = (-2, 1)ᵀ the
    sum is (-3, 1), and h' = (-1, 1).
    """
    config = replace(CONFIG, hidden_size=2, num_attention_heads=1, num_hidden_layers=1, intermediate_size=2)
    bert = add_low_rank(BertModel(config).double(), ["sst"], size=1)
    layer = bert.bert_layers[0]
    for zero in (layer.attention_dense, layer.out_dense):
        nn.init.zeros_(zero.weight)
    own = layer.adapter["sst"]
    own.encode.weight.data, own.encode.bias.data = torch.tensor([[1.0, 1.0]]).double(), torch.tensor([-2.0]).double()
    h = torch.tensor([[[3.0, 1.0]]], dtype=torch.float64)
    for sign in (1.0, -1.0):
        own.decode.weight.data = sign * torch.tensor([[2.0], [-1.0]]).double()
        assert own(h, torch.zeros(1, 1, 1, 1)).flatten().tolist() == [sign * 4, sign * -2]
        close(layer(h, torch.zeros(1, 1, 1, 1).double()), sign * torch.tensor([[[1.0, -1.0]]]).double())


def test_a_pal_has_berts_heads_no_output_matrix_and_attends_as_bert_does():
    for attention in ("plain", "sdpa"):
        bert = add_pals(random_bert(NOISY, attention), NAMES, size=6)
        for layer in bert.bert_layers:
            for pal in layer.adapter.values():
                assert pal.attention.num_heads == H and pal.attention.query.weight.shape == (6, 6)
                assert pal.attention.attend is layer.self_attention.attend
                assert pal.attention.dropout.p == 0.5
                parts = {"encode", "decode", "attention.query", "attention.key", "attention.value"}
                assert {name.rpartition(".")[0] for name, _ in pal.named_parameters()} == parts


@pytest.mark.parametrize("attention", ["plain", "sdpa"])
def test_the_only_dropout_of_added_layers_is_that_of_a_pal_s_attention(attention):
    """Asked twice in training, a PAL's probabilities are dropped differently; a low-rank layer says the same."""
    _, mask = rows()
    for way, noisy in ((WAYS["pal 6"], True), (WAYS["low_rank gelu"], False)):
        bert = wake(add(random_bert(NOISY, attention).double(), way))
        own, h = bert.bert_layers[0].adapter["para"], vectors(mask)
        twice = [bert.train() and own(h, additive(mask)) for _ in range(2)]
        assert torch.equal(*twice) != noisy
        assert torch.equal(*[bert.eval() and own(h, additive(mask)) for _ in range(2)])


# ------------------------------------------------------------------------------------------ what is shared


def tensors(bert: BertModel, part: str) -> list[set[int]]:
    """Which tensors the layers of BERT have for `part` of each task: one set a task, of their places in memory."""
    return [
        {p.data_ptr() for layer in bert.bert_layers for p in layer.adapter[task].get_submodule(part).parameters()}
        for task in NAMES
    ]


def check_sharing(bert: BertModel, kind: str):
    """A PAL's V_E and V_D are one (weight, bias) for all layers, its attention is three in each; low-rank layers have
    a V_E and a V_D each. Tasks share nothing."""
    parts = {"encode": 2, "decode": 2, "attention": 6 * L} if kind == "pal" else {"encode": 2 * L, "decode": 2 * L}
    seen = []
    for part, count in parts.items():
        found = tensors(bert, part)
        assert [len(places) for places in found] == [count] * len(NAMES), part
        seen += itertools.chain(*found)
    assert len(seen) == len(set(seen)) == len(adapters(bert))


@every_way
def test_what_layers_share(way):
    bert = adapted(way)
    check_sharing(bert, way["kind"])
    check_sharing(copy.deepcopy(bert), way["kind"])
    check_sharing(copy.deepcopy(bert).float(), way["kind"])
    with pytest.raises(AssertionError):
        check_sharing(bert, {"pal": "low_rank", "low_rank": "pal"}[way["kind"]])


@a_pal_and_a_low_rank
def test_a_state_dict_brings_back_the_numbers_and_keeps_the_sharing(way):
    bert, (ids, mask) = adapted(way), rows()
    again = wake(add(random_bert().double(), way), seed=8).eval()
    for task in NAMES:
        use_task(bert, task), use_task(again, task)
        assert not torch.equal(again(ids, mask)["last_hidden_state"], bert(ids, mask)["last_hidden_state"])
        again.load_state_dict(copy.deepcopy(bert.state_dict()))
        assert torch.equal(again(ids, mask)["last_hidden_state"], bert(ids, mask)["last_hidden_state"])
        wake(again, seed=8)
    check_sharing(again, way["kind"])


def test_a_shared_v_e_learns_from_every_layer():
    """Its gradient is the sum of what the layers would give to a V_E each."""
    bert, (ids, mask) = adapted(WAYS["pal 6"]), rows()
    apart = copy.deepcopy(bert)
    for layer in apart.bert_layers:
        layer.adapter["sst"].encode = copy.deepcopy(layer.adapter["sst"].encode)
    for each in (bert, apart):
        each(ids, mask)["last_hidden_state"].pow(3).mean().backward()
    summed = sum(layer.adapter["sst"].encode.weight.grad for layer in apart.bert_layers)
    close(bert.bert_layers[0].adapter["sst"].encode.weight.grad, summed)


# ------------------------------------------------------------------------------------------ tokens and pads


def check_pads(bert: BertModel):
    """Other numbers in the places of pads change no token's result, to the last bit; in that of a token they do."""
    (_, mask), tokens = rows(), rows()[1].bool()
    h = vectors(mask)
    other = torch.where(tokens[:, :, None], h, 3 * vectors(mask, seed=9))
    ours, theirs = bert.encode(h, mask), bert.encode(other, mask)
    assert torch.equal(ours[tokens], theirs[tokens])
    h[:, 1] = other[:, 0]
    assert not torch.equal(ours[:, 0], bert.encode(h, mask)[:, 0])


@a_pal_and_a_low_rank
@pytest.mark.parametrize("attention", ["plain", "sdpa"])
def test_pads_are_not_attended_to(way, attention):
    check_pads(adapted(way, attention))


def test_a_pal_that_attends_to_pads_shows():
    bert = adapted(WAYS["pal"])
    for layer in bert.bert_layers:
        attention = layer.adapter["sst"].attention
        attention.forward = lambda x, mask, forward=attention.forward: forward(x, torch.zeros_like(mask))
    with pytest.raises(AssertionError):
        check_pads(bert)


@every_way
def test_tokens_look_at_one_another_in_a_pal_alone(way):
    """Move the last token: in a low-rank layer no other token's TS notices, in a PAL every token's does."""
    own, h = adapted(way).bert_layers[0].adapter["sts"], vectors(torch.ones(2, T))
    moved = h.clone()
    moved[:, -1] += 1
    mask = additive(torch.ones(2, T))
    same = (own(h, mask) == own(moved, mask)).all(dim=-1)[:, :-1]
    assert same.all() if way["kind"] == "low_rank" else not same.any()
    assert not torch.equal(own(h, mask)[:, -1], own(moved, mask)[:, -1])


@pytest.mark.parametrize("size", [1, 3, 12, 20])
def test_a_low_rank_layer_is_a_matrix_of_its_rank(size):
    """TS(h) - TS(0) on the C unit vectors is the matrix V_D·V_E: C×C of rank min(size, C). GELU's is no matrix at all:
    it does not say the same of a sum as of the parts."""
    C = CONFIG.hidden_size
    for activation, linear in (("identity", True), ("gelu", False)):
        way = {"kind": "low_rank", "size": size, "activation": activation}
        own = adapted(way).bert_layers[0].adapter["sst"]

        def ts(h, own=own):
            return (own(h, None) - own(torch.zeros_like(h), None))[0]

        unit, x, y = torch.eye(C, dtype=torch.float64)[None], *vectors(torch.ones(2, T)).split(1)
        additive_error = (ts(x + y) - ts(x) - ts(y)).abs().max()
        assert (additive_error < 1e-12) if linear else (additive_error > 1e-3)
        if linear:
            assert torch.linalg.matrix_rank(ts(unit), rtol=1e-9) == min(size, C)
            close(ts(unit).T, own.decode.weight @ own.encode.weight)


def test_the_activations_by_name():
    x = torch.linspace(-4, 4, 33, dtype=torch.float64)
    assert set(ACTIVATIONS) == {"identity", "gelu"} and torch.equal(ACTIVATIONS["identity"](x), x)
    close(ACTIVATIONS["gelu"](x), gelu(x), 1e-14)


@a_pal_and_a_low_rank
def test_bf16_is_a_little_rough_inside_and_float32_outside(way):
    model = model_of(way).eval()
    exactly = answers(model)
    model.precision = "bf16"
    with model.autocast():
        rough = answers(model)
    for task in NAMES:
        assert rough[task].dtype == torch.float32 and not torch.equal(rough[task], exactly[task])
        torch.testing.assert_close(rough[task], exactly[task], atol=0.15, rtol=0.05)


# ------------------------------------------------------------------------------------------ each task its own


def check_gradients_are_the_task_s_own(model: MultitaskBert):
    """A task's loss gives a gradient to all that is its own beside BERT, and none at all, not zeros, to the others'."""
    for task in NAMES:
        model.zero_grad()
        loss_of(model, batch_of(task, model.build["pairs"])).backward()
        for other in NAMES:
            for name, p in adapters(model, other).items():
                assert (p.grad is not None) == (task == other), f"{task}: {name}"
                # A key's bias adds the same to all of a row's scores: the softmax does not see it.
                assert p.grad is None or name.endswith("key.bias") or p.grad.any(), f"{task}: {name}"
        assert all(p.grad is not None for name, p in model.named_parameters() if part_of(name) == "BERT")


@a_pal_and_a_low_rank
@pytest.mark.parametrize("pairs", ["separate", "joint"])
def test_a_task_s_loss_reaches_its_own_layers_alone(way, pairs):
    check_gradients_are_the_task_s_own(model_of(way, pairs))


def all_in_use(bert: BertModel, task: str):
    """Wrong: every task's layers answer, with weight 0 if they are not asked. Then a gradient of zeros moves them."""
    for layer in bert.bert_layers:
        table = layer.adapter
        table.forward = lambda h, mask, table=table: sum(ts(h, mask) * (t == task) for t, ts in table.items())


@a_pal_and_a_low_rank
@pytest.mark.parametrize("wrong", [lambda bert, task: use_task(bert, "sts"), all_in_use], ids=["fixed", "all"])
def test_a_wrong_choice_shows_in_the_gradients(way, wrong, monkeypatch):
    monkeypatch.setattr("minbert.multitask.use_task", wrong)
    with pytest.raises(AssertionError):
        check_gradients_are_the_task_s_own(model_of(way))


@a_pal_and_a_low_rank
def test_the_parameters_of_a_task_are_those_that_its_loss_reaches(way):
    model = model_of(way)
    for task in NAMES:
        model.zero_grad()
        loss_of(model, batch_of(task)).backward()
        mine = {id(p) for p in model.parameters_of(task)}
        assert mine == {id(p) for p in model.parameters() if p.grad is not None}
        assert len(list(model.parameters_of(task))) == len(mine)


def combine_as_in_training(model: MultitaskBert, batches: list[Batch], combine):
    """Leave the combined gradients in `.grad`: the inner part of the training loop."""
    gradients = []
    for batch in batches:
        loss_of(model, batch).backward()
        gradients.append(take_gradients(model.bert.parameters()))
    give_gradients(gradients, combine, Memory(0))


def check_surgery(way: dict, norms_with_adapters: bool = False):
    """Two tasks in conflict. BERT's own weights get PCGrad's gradient, every task's layers that of the task alone."""
    model = model_of(way).double()
    own = list(own_of(model).values())
    for seed in itertools.count():
        batches = [batch_of("sst", seed=seed), batch_of("sts", seed=seed)]
        alone = [torch.autograd.grad(loss_of(model, batch), own) for batch in batches]
        g1, g2 = (torch.cat([g.flatten() for g in gradient]) for gradient in alone)
        if g1 @ g2 < 0:
            break
    in_adapters = {
        batch.task: torch.autograd.grad(loss_of(model, batch), list(adapters(model, batch.task).values()))
        for batch in batches
    }
    norms = [g.square().sum() for g in (g1, g2)]
    if norms_with_adapters:
        norms = [n + sum(g.square().sum() for g in gs) for n, gs in zip(norms, in_adapters.values(), strict=True)]
    by_hand = (g1 - g1 @ g2 / norms[1] * g2) + (g2 - g2 @ g1 / norms[0] * g1)

    combine_as_in_training(model, batches, pcgrad)
    close(torch.cat([p.grad.flatten() for p in own]), by_hand)
    for task, gradients in in_adapters.items():
        for p, g in zip(adapters(model, task).values(), gradients, strict=True):
            close(p.grad, g, 0.0)
    assert all(p.grad is None for p in adapters(model, "para").values())


@a_pal_and_a_low_rank
def test_gradient_surgery_is_on_bert_and_leaves_a_task_s_own_layers_alone(way):
    check_surgery(way)
    with pytest.raises(AssertionError):
        check_surgery(way, norms_with_adapters=True)


@pytest.mark.parametrize("combine", COMBINE.values(), ids=COMBINE)
@a_pal_and_a_low_rank
def test_every_method_gives_every_task_s_layers_its_own_gradient(way, combine):
    """Three tasks in a step, BERT frozen or not: with a frozen BERT nothing is left to combine."""
    for frozen in (False, True):
        model = model_of(way)
        if frozen:
            model.freeze_bert()
        combine_as_in_training(model, [batch_of(task) for task in NAMES], combine)
        for task in NAMES:
            own = adapters(model, task)
            alone = torch.autograd.grad(loss_of(model, batch_of(task)), list(own.values()))
            assert all(torch.equal(p.grad, g) for p, g in zip(own.values(), alone, strict=True))


def check_who_moves(model: MultitaskBert, batches: list[Batch], zeros: bool = False):
    """After two steps of AdamW with weight decay, the layers of the batches' tasks have moved, no others by a bit."""
    before = copies(adapters(model))
    optimizer = AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(2):
        combine_as_in_training(model, batches, sum_gradients)
        if zeros:
            for p in model.parameters():
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        optimizer.step()
        optimizer.zero_grad()
    asked = {batch.task for batch in batches}
    for task in NAMES:
        for name, p in adapters(model, task).items():
            assert torch.equal(p, before[name]) != (task in asked), name


@a_pal_and_a_low_rank
@pytest.mark.parametrize("tasks", [["sst"], ["para", "sts"], NAMES], ids=lambda tasks: "-".join(tasks))
def test_a_step_moves_the_layers_of_its_tasks_alone(way, tasks):
    check_who_moves(model_of(way), [batch_of(task) for task in tasks])


@a_pal_and_a_low_rank
def test_gradients_of_zeros_would_let_the_others_decay(way):
    with pytest.raises(AssertionError):
        check_who_moves(model_of(way), [batch_of("sst")], zeros=True)


def check_others_unchanged(model: MultitaskBert, freeze: bool = True):
    """On a frozen BERT, a step for one task changes its answers and no bit of another task's."""
    if freeze:
        model.freeze_bert()
    for task in NAMES:
        before = answers(model)
        loss_of(model, batch_of(task)).backward()
        optimizer = AdamW(model.parameters(), lr=0.01)
        optimizer.step()
        optimizer.zero_grad()
        after = answers(model)
        assert [torch.equal(before[name], after[name]) for name in NAMES] == [name != task for name in NAMES]


@a_pal_and_a_low_rank
def test_a_step_for_one_task_changes_no_other_task_s_answers_while_bert_is_frozen(way):
    check_others_unchanged(model_of(way))


@a_pal_and_a_low_rank
def test_a_step_that_is_not_for_one_task_alone_shows(way, monkeypatch):
    with pytest.raises(AssertionError):
        check_others_unchanged(model_of(way), freeze=False)
    monkeypatch.setattr("minbert.multitask.use_task", lambda bert, task: use_task(bert, "sst"))
    with pytest.raises(AssertionError):
        check_others_unchanged(model_of(way))


@a_pal_and_a_low_rank
def test_tasks_can_be_asked_in_any_order(way):
    """Each has its own answers, to the last bit those that it gives when it is asked first."""
    model = model_of(way).eval()
    first = answers(model)
    for order in itertools.permutations(NAMES):
        assert equal({task: answers(model, order)[task] for task in NAMES}, first)
    ids, mask = rows()
    pooled = []
    for task in [*NAMES, *NAMES]:
        use_task(model.bert, task)
        pooled.append(model.bert(ids, mask)["pooler_output"])
    assert all(torch.equal(a, b) for a, b in zip(pooled[:3], pooled[3:], strict=True))
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(pooled[:3], 2))


@a_pal_and_a_low_rank
def test_the_first_task_is_in_use_until_another_is(way):
    bert, (ids, mask) = adapted(way), rows()
    before = bert(ids, mask)["pooler_output"]
    use_task(bert, NAMES[0])
    assert torch.equal(bert(ids, mask)["pooler_output"], before)


def test_a_bert_to_which_nothing_was_added_knows_no_tasks():
    model = model_of(None).eval()
    assert all(layer.adapter is None for layer in model.bert.bert_layers) and not adapters(model)
    before = answers(model)
    use_task(model.bert, "sst")
    assert equal(answers(model), before) and set(map(part_of, model.state_dict())) == {"BERT", "heads"}


# ------------------------------------------------------------------------------------------ frozen and learning


def learn(model: MultitaskBert, parameters, lr: float, steps: int = 30):
    """With so many steps of all three tasks the loss of each on its 8 examples falls."""
    batches = [batch_of(task, B=8) for task in NAMES]
    optimizer = AdamW(parameters, lr=lr)
    losses = []
    for _ in range(steps):
        step = [loss_of(model, batch) for batch in batches]
        optimizer.zero_grad()
        sum(step).backward()
        optimizer.step()
        losses.append([loss.item() for loss in step])
    for task, first, last in zip(NAMES, losses[0], losses[-1], strict=True):
        assert last < 0.85 * first, f"{task}: {first} → {last}"


def at_the_start(way: dict) -> MultitaskBert:
    torch.manual_seed(1)
    return MultitaskBert(random_bert(), NAMES, adapter=way, heads={"sts": "hadamard"}, dropout=0.0)


@a_pal_and_a_low_rank
def test_added_layers_learn_alone(way):
    """From their start, V_D = 0, on a frozen BERT, under heads that stay as they are."""
    model = at_the_start(way)
    model.freeze_bert()
    own, heads = copies(own_of(model)), copy.deepcopy(model.heads.state_dict())
    learn(model, adapters(model).values(), lr=0.05)
    assert equal(own_of(model), own) and equal(model.heads.state_dict(), heads)


@a_pal_and_a_low_rank
def test_all_learns_together(way):
    model = at_the_start(way)
    learn(model, model.parameters(), lr=0.02, steps=12)


@a_pal_and_a_low_rank
@pytest.mark.parametrize("frozen", [True, False])
def test_what_moves(way, frozen):
    """A frozen BERT gets no gradient and keeps its bits; added layers and heads move either way."""
    model = model_of(way)
    if frozen:
        model.freeze_bert()
    before = copies(dict(model.named_parameters()))
    optimizer = AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(2):
        combine_as_in_training(model, [batch_of(task) for task in NAMES], sum_gradients)
        optimizer.step()
        optimizer.zero_grad()
    for name, p in model.named_parameters():
        if part_of(name) == "BERT" and frozen:
            assert not p.requires_grad and p.grad is None and torch.equal(p, before[name]), name
        else:
            assert p.requires_grad and not torch.equal(p, before[name]), name


@a_pal_and_a_low_rank
def test_freezing_asks_only_for_what_is_berts(way):
    model, plain = model_of(way), model_of(None)
    model.freeze_bert()
    names = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert names == {name for name, _ in plain.named_parameters() if part_of(name) == "BERT"} == own_of(model).keys()
    assert {part_of(name) for name, p in model.named_parameters() if p.requires_grad} == {"adapters", "heads"}


def test_lora_leaves_added_layers_alone():
    """Both at once: LoRA is added to BERT's own matrices, which it freezes; a task's layers stay plain, and train."""
    model = model_of(WAYS["pal 6"], lora={"rank": 2, "alpha": 4})
    check_sharing(model.bert, "pal")
    assert not any(isinstance(m, LoRALinear) for layer in model.bert.bert_layers for m in layer.adapter.modules())
    assert {part_of(name) for name, p in model.named_parameters() if p.requires_grad} == {"LoRA", "adapters", "heads"}
    assert not any(p.requires_grad for p in own_of(model).values())


# ------------------------------------------------------------------------------------------ what cannot be


@pytest.mark.parametrize("size", [1, 4, 5, 7])
def test_a_pal_s_size_is_a_multiple_of_the_heads(size):
    bert = random_bert()
    with pytest.raises(ValueError, match=f"multiple of BERT's 3 heads, not {size}"):
        add_pals(bert, NAMES, size=size)
    assert not adapters(bert) and all(layer.adapter is None for layer in bert.bert_layers)
    add_low_rank(bert, NAMES, size=size)  # which has no heads


@pytest.mark.parametrize("first", ["pal", "low_rank"])
@pytest.mark.parametrize("second", ["pal", "low_rank"])
def test_layers_are_added_once(first, second):
    bert = wake(add(random_bert(), {"kind": first}))
    before = copies(bert.state_dict())
    with pytest.raises(ValueError, match="added already"):
        add(bert, {"kind": second}, ["sst"])
    assert equal(bert.state_dict(), before)


def test_names_that_do_not_exist():
    for options, error in (({"activation": "relu"}, ValueError), ({"kind": "houlsby"}, KeyError)):
        bert = random_bert()
        with pytest.raises(error, match="identity, gelu" if error is ValueError else "houlsby"):
            add(bert, {"kind": "low_rank"} | options)
        assert not adapters(bert)
    for kind in ("pal", "low_rank"):
        bert = random_bert()
        with pytest.raises(ValueError, match="a task"):
            add(bert, {"kind": kind}, [])
        with pytest.raises(ValueError, match="size"):
            add(bert, {"kind": kind, "size": 0})
        assert not adapters(bert)
        assert not any(module.training for module in add(bert.eval(), {"kind": kind}).modules())
    bert, (ids, mask) = adapted(WAYS["pal"]), rows()
    with pytest.raises(KeyError, match="cfimdb"):
        use_task(bert, "cfimdb")
        bert(ids, mask)


@a_pal_and_a_low_rank
def test_the_tasks_may_come_as_an_iterator_and_any_number_of_them(way):
    bert = add(random_bert(), way, iter(["sts", "sst"]))
    for layer in bert.bert_layers:
        assert list(layer.adapter) == ["sts", "sst"]
    assert list(add(random_bert(), way, ["para"]).bert_layers[0].adapter) == ["para"]


@a_pal_and_a_low_rank
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_added_layers_are_where_bert_is_and_of_its_dtype(way, dtype):
    bert = add(random_bert().to(dtype), way)
    assert {p.dtype for p in bert.parameters()} == {dtype}
    assert {p.device.type for p in add(random_bert().to("meta"), way).parameters()} == {"meta"}


def test_adding_returns_the_same_bert():
    for way in WAYS.values():
        bert = random_bert()
        assert add(bert, way) is bert


# ------------------------------------------------------------------------------------------ files


def answers_to_texts(model: MultitaskBert, tokenizer) -> list[Tensor]:
    model.eval()
    results = []
    for name in NAMES:
        texts = ("a good film", "not a bad film at all") if TASKS[name].is_pair else ("a good film",)
        data = Dataset(TASKS[name], [Example("x", texts, None)], tokenizer, model.build["pairs"])
        with torch.no_grad():
            results.append(model(data.batch([0])))
    return results


def bits(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@every_way
def test_a_saved_model_answers_the_same(tiny, tmp_path, way):
    tokenizer = load_tokenizer(tiny)
    model = wake(MultitaskBert(load_bert(tiny), NAMES, adapter=way))
    save_model(tmp_path / "model.pt", model, tokenizer)
    again, its_tokenizer = load_model(tmp_path / "model.pt")
    assert again.build == model.build and again.build["adapter"] == way
    assert bits(answers_to_texts(again, its_tokenizer), answers_to_texts(model, tokenizer))
    plain = MultitaskBert(load_bert(tiny), NAMES)
    plain.heads.load_state_dict(model.heads.state_dict())
    assert not bits(answers_to_texts(plain, tokenizer), answers_to_texts(model, tokenizer))

    first, *others = (layer.adapter["sst"] for layer in again.bert.bert_layers)
    assert all((first.encode.weight is own.encode.weight) == (way["kind"] == "pal") for own in others)
    fused, _ = load_model(tmp_path / "model.pt", "sdpa")
    for a, b in zip(answers_to_texts(fused, tokenizer), answers_to_texts(model, tokenizer), strict=True):
        torch.testing.assert_close(a, b)
    if way["kind"] == "pal":
        assert all(own.attention.attend is sdpa_attention for own in fused.bert.bert_layers[1].adapter.values())


@a_pal_and_a_low_rank
def test_the_layers_and_heads_of_a_frozen_bert_are_a_file_by_themselves(tiny, tmp_path, way):
    tokenizer, path = load_tokenizer(tiny), tmp_path / "trained.pt"
    model = wake(MultitaskBert(load_bert(tiny), NAMES, adapter=way))
    with pytest.raises(ValueError, match="train"):
        save_trained(path, model)
    model.freeze_bert()
    save_trained(path, model)
    assert {part_of(name) for name in safe_load(path)["trained"]} == {"adapters", "heads"}
    again = load_trained(path, load_bert(tiny))
    assert bits(answers_to_texts(again, tokenizer), answers_to_texts(model, tokenizer))
    assert not any(p.requires_grad for p in own_of(again).values())
    if way["kind"] == "pal":
        first, second = (layer.adapter["para"] for layer in again.bert.bert_layers)
        assert first.decode.weight is second.decode.weight and first.attention.key is not second.attention.key

    other = load_bert(tiny)
    other.pooler_dense.bias.data += 1e-3
    with pytest.raises(UserError, match="fingerprint"):
        load_trained(path, other)


@a_pal_and_a_low_rank
def test_a_bert_for_each_task_is_not_one_bert_for_others_to_load(tiny, tmp_path, way):
    tokenizer = load_tokenizer(tiny)
    model = MultitaskBert(load_bert(tiny), NAMES, adapter=way)
    with pytest.raises(UserError, match="no Hugging Face form"):
        save_pretrained(model.bert, tokenizer, tmp_path / "hf")
    assert not (tmp_path / "hf").exists() or not list((tmp_path / "hf").iterdir())
    save_model(tmp_path / "model.pt", model, tokenizer)
    with pytest.raises(UserError, match="--adapter"):
        load_bert(tmp_path / "model.pt")

    plain = MultitaskBert(load_bert(tiny), NAMES)  # which is one
    save_model(tmp_path / "plain.pt", plain, tokenizer)
    assert equal(load_bert(tmp_path / "plain.pt").state_dict(), plain.bert.state_dict())


# ------------------------------------------------------------------------------------------ SMART


@a_pal_and_a_low_rank
@pytest.mark.parametrize("task", NAMES)
def test_smoothness_of_a_bert_with_added_layers(way, task):
    """The search finds something worse than chance did, and the term's gradient stays with the task."""
    model, batch = model_of(way).double(), batch_of(task)
    embedded = model.embed(batch)
    found = smoothness(
        model, embedded, TASKS[task].divergence, lambda x: model.logits(batch, x), mask=batch.attention_mask,
        epsilon=1e-3, sigma=1e-4, generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    assert found.term.isfinite() and found.term >= found.before > 0
    found.term.backward()
    for name in NAMES:
        assert all((p.grad is not None) == (name == task) for p in adapters(model, name).values())


def check_proximal(way: dict, wrong=lambda model: model):
    """D(θ, θ̃) is the distance from a second model whose weights are θ̃, in every layer; θ̃ follows by the formula."""
    model = model_of(way)
    proximal = Proximal(model, (0.9, 0.9))
    assert proximal.average.keys() == dict(model.named_parameters()).keys()
    start = copies(proximal.average)
    wake(model, seed=3)
    moved = copies(dict(model.named_parameters()))
    proximal.update()
    for name, mean in proximal.average.items():
        torch.testing.assert_close(mean, 0.1 * moved[name] + 0.9 * start[name])

    other = wrong(copy.deepcopy(model))
    for name, p in other.named_parameters():
        if name in proximal.average:
            p.data = proximal.average[name].clone()
    for task in NAMES:
        batch, divergence = batch_of(task), TASKS[task].divergence
        outputs = model(batch)
        expected = divergence(outputs, other(batch)).mean()
        term = proximal(outputs, divergence, batch)
        assert expected > 1e-4
        torch.testing.assert_close(term, expected)
    assert equal(dict(model.named_parameters()), moved)


@a_pal_and_a_low_rank
def test_nearness_to_a_mean_of_a_bert_with_added_layers(way):
    check_proximal(way)


def test_a_mean_that_only_the_first_layer_uses_shows():
    """Were θ̃'s V_E put into one layer of those that share it, the others would keep θ's."""

    def apart(model):
        for layer in model.bert.bert_layers[1:]:
            for own in layer.adapter.values():
                own.encode, own.decode = copy.deepcopy(own.encode), copy.deepcopy(own.decode)
        return model

    with pytest.raises(AssertionError):
        check_proximal(WAYS["pal 6"], apart)


@a_pal_and_a_low_rank
def test_nearness_with_a_frozen_bert_follows_what_trains(way):
    model = model_of(way)
    model.freeze_bert()
    proximal = Proximal(model)
    assert {part_of(name) for name in proximal.average} == {"adapters", "heads"}
    batch = batch_of("para")
    with exact(model):
        outputs = model(batch)
    assert proximal(outputs, TASKS["para"].divergence, batch).item() == 0
    wake(model, seed=3)
    assert proximal(model(batch), TASKS["para"].divergence, batch).item() > 0


# ------------------------------------------------------------------------------------------ nothing else


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([(1, 1), (2, 1), (2, 3), (4, 2)]), st.integers(1, 3), st.integers(1, 4), st.sampled_from(list(WAYS))
)
def test_any_shape_of_bert(shape, layers, multiple, way):
    """Heads and their width, layers and sizes of all kinds: the first answer is BERT's own, trained ones differ."""
    heads, width = shape
    sizes = {"hidden_size": heads * width, "num_attention_heads": heads, "num_hidden_layers": layers}
    bert = random_bert(replace(CONFIG, **sizes))
    ids, mask = rows()
    before = bert(ids, mask)["last_hidden_state"]
    add(bert, WAYS[way] | {"size": multiple * heads}).eval()
    assert torch.equal(bert(ids, mask)["last_hidden_state"], before)
    after = wake(bert)(ids, mask)["last_hidden_state"]
    assert after.shape == before.shape and after.isfinite().all()
    assert heads * width == 1 or not torch.equal(after, before)
