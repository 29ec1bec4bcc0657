"""BERT against `transformers.BertModel` (values, every gradient, every dropout), on paper, and by its symmetries."""

import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from minbert import bert, pretrained
from minbert.bert import ATTENTION, BertLayer, BertModel, plain_attention
from minbert.config import BertConfig
from minbert.errors import UserError
from minbert.tokenizer import BertTokenizer

CONFIGS = {
    "one head": dict(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=1, intermediate_size=40,
        max_position_embeddings=12,
    ),
    "odd sizes": dict(
        vocab_size=101, hidden_size=36, num_hidden_layers=3, num_attention_heads=3, intermediate_size=50,
        max_position_embeddings=33, type_vocab_size=3, layer_norm_eps=1e-2,
    ),
    "many heads": dict(
        vocab_size=64, hidden_size=64, num_hidden_layers=1, num_attention_heads=16, intermediate_size=256,
        max_position_embeddings=64,
    ),
}  # fmt: skip
LENGTHS = {"one head": [12, 12], "odd sizes": [7, 1, 5, 13], "many heads": [3, 2]}  # of a batch's rows, before pads


# ---------------------------------------------------------------------------------------------- the oracle


def twins(name: str, attention: str = "plain", **changes) -> tuple[BertModel, transformers.BertModel]:
    """Our BERT and transformers' with the same random weights: none is zero or one, so that none can be left out."""
    sizes = CONFIGS[name] | changes
    torch.manual_seed(0)
    theirs = transformers.BertModel(transformers.BertConfig(**sizes, attn_implementation="eager"))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    ours = BertModel(BertConfig(**sizes), attention)
    ours.load_state_dict(pretrained.bert_weights(theirs.state_dict()))
    return ours.eval(), theirs.eval()


def inputs(name: str) -> dict[str, Tensor]:
    """A batch of random ids and random token types, padded to its longest row."""
    random = torch.Generator().manual_seed(1)
    sizes, lengths = CONFIGS[name], torch.tensor(LENGTHS[name])
    shape = (len(lengths), int(lengths.max()))
    mask = (torch.arange(shape[1]) < lengths[:, None]).long()
    ids = torch.randint(1, sizes["vocab_size"], shape, generator=random)
    types = torch.randint(0, sizes.get("type_vocab_size", 2), shape, generator=random)
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types * mask}


def outputs_and_gradients(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Hidden states of the real tokens (N, C), pooled (B, C), gradients of a random weighting of both, our names."""
    output = model(**batch)
    hidden, pooled = output["last_hidden_state"][batch["attention_mask"] == 1], output["pooler_output"]
    random = torch.Generator().manual_seed(2)
    weight_hidden, weight_pooled = (torch.randn(x.shape, generator=random) for x in (hidden, pooled))
    model.zero_grad()
    ((hidden * weight_hidden).sum() + (pooled * weight_pooled).sum()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    if isinstance(model, transformers.BertModel):
        gradients = pretrained.bert_weights(gradients)
    return hidden.detach(), pooled.detach(), gradients


def assert_equal(ours: BertModel, theirs: transformers.BertModel, batch: dict[str, Tensor]):
    """Values to 1e-5, every parameter's gradient to 1e-4 of its norm.

    Only real tokens count: at the pads, which nobody reads, the two libraries may round differently.

    The keys' bias has a gradient of exactly zero: it adds q·b to all scores of a row alike, which the softmax does
    not feel. What is there is rounding, and is held against the queries' bias instead.
    """
    (hidden, pooled, gradients), expected = outputs_and_gradients(ours, batch), outputs_and_gradients(theirs, batch)
    torch.testing.assert_close(hidden, expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(pooled, expected[1], rtol=0, atol=1e-5)
    assert gradients.keys() == expected[2].keys()
    for name, gradient in gradients.items():
        scale = expected[2][name.replace("key.bias", "query.bias")].norm()
        assert (gradient - expected[2][name]).norm() <= 1e-4 * scale, name


# ---------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("name", CONFIGS)
def test_values_and_gradients_equal_transformers(name, attention):
    assert_equal(*twins(name, attention), inputs(name))


@pytest.fixture(scope="module")
def minilm() -> Path:
    try:
        return pretrained.find("minilm")
    except (UserError, OSError) as error:
        pytest.skip(f"no real weights: {error}")


@pytest.mark.parametrize("attention", ATTENTION)
def test_values_and_gradients_equal_transformers_with_real_weights(minilm, attention):
    theirs = transformers.BertModel.from_pretrained(minilm, attn_implementation="eager").eval()
    tokenizer = BertTokenizer.from_pretrained("minilm")
    batch = tokenizer(["Is it raining?", "The film drags, but its last half hour is worth it."], ["It pours.", "Yes!"])
    assert_equal(BertModel.from_pretrained("minilm", attention).eval(), theirs, batch)


def test_small_models_agree_at_the_pads_too():
    ours, theirs = twins("odd sizes")
    batch = inputs("odd sizes")
    actual, expected = (model(**batch)["last_hidden_state"] for model in (ours, theirs))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def tanh_gelu(monkeypatch):
    monkeypatch.setattr(bert, "F", SimpleNamespace(gelu=lambda x: F.gelu(x, approximate="tanh")))


def scores_not_divided(monkeypatch):
    monkeypatch.setattr(bert, "math", SimpleNamespace(sqrt=lambda D: 1.0))


def token_types_ignored(monkeypatch):
    embed = BertModel.embed
    monkeypatch.setattr(BertModel, "embed", lambda self, ids, types: embed(self, ids))


def mask_ignored(monkeypatch):
    encode = BertModel.encode
    monkeypatch.setattr(BertModel, "encode", lambda self, x, mask: encode(self, x, torch.ones_like(mask)))


def last_token_pooled(monkeypatch):
    monkeypatch.setattr(BertModel, "pool", lambda self, x: torch.tanh(self.pooler_dense(x[:, -1])))


def residual_detached(monkeypatch):  # right values, wrong gradients
    add_norm = BertLayer.add_norm
    monkeypatch.setattr(BertLayer, "add_norm", lambda self, x, *rest: add_norm(self, x.detach(), *rest))


@pytest.mark.parametrize(
    "mistake", [tanh_gelu, scores_not_divided, token_types_ignored, mask_ignored, last_token_pooled, residual_detached]
)
def test_the_comparison_sees_a_mistake(mistake, monkeypatch):
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        assert_equal(*twins("odd sizes"), inputs("odd sizes"))


# ---------------------------------------------------------------------------------------------- dropout


def assert_same_dropout(surgery=None):
    """In train mode, values and gradients equal transformers'.

    Every dropout draws its mask from one stream of random numbers. So from the same seed two models agree exactly if
    their dropouts stand at the same places, in the same order, on tensors of the same shape, with the same rates
    (two unlike ones here, so that neither can pass for the other). surgery: what to do to our model before.
    """
    ours, theirs = twins("odd sizes", hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.6)
    ours.train(), theirs.train()
    if surgery:
        surgery(ours)

    def seed(*_):
        torch.manual_seed(0)

    ours.register_forward_pre_hook(seed)
    theirs.register_forward_pre_hook(seed)
    assert_equal(ours, theirs, inputs("odd sizes"))


def test_dropout_is_at_bert_s_four_places():
    """Embeddings after LN; attention probabilities; after attention_dense; after out_dense, before the residual."""
    assert_same_dropout()


def move(owner: nn.Module, dropout: str, module: nn.Module | None = None, after: bool = False):
    """Take a dropout out of its place, and apply it before or after `module` instead, if that is given."""
    removed = getattr(owner, dropout)
    setattr(owner, dropout, nn.Identity())
    if module and after:
        module.register_forward_hook(lambda module, args, output: removed(output))
    elif module:
        module.register_forward_pre_hook(lambda module, args: (removed(args[0]), *args[1:]))


def attend(attention):
    """Surgery that puts another attention function into every layer."""
    return each_layer(lambda layer: setattr(layer.self_attention, "attend", attention))


def each_layer(change):
    return lambda ours: [change(layer) for layer in ours.bert_layers]


def dropout_on_scores(q, k, v, mask, dropout):
    return (dropout(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])) + mask).softmax(dim=-1) @ v


def dropout_on_output(q, k, v, mask, dropout):
    return dropout(plain_attention(q, k, v, mask, nn.Identity()))


def no_dropout(q, k, v, mask, dropout):
    return plain_attention(q, k, v, mask, nn.Identity())


@pytest.mark.parametrize(
    "surgery",
    {
        "embeddings: missing": lambda ours: move(ours, "embed_dropout"),
        "embeddings: before LN": lambda ours: move(ours, "embed_dropout", ours.embed_layer_norm),
        "attention: missing": attend(no_dropout),
        "attention: on the scores": attend(dropout_on_scores),
        "attention: on the output": attend(dropout_on_output),
        "attention: the wrong rate": each_layer(lambda x: setattr(x.self_attention.dropout, "p", 0.3)),
        "first half: missing": each_layer(lambda x: move(x, "attention_dropout")),
        "first half: before the dense": each_layer(lambda x: move(x, "attention_dropout", x.attention_dense)),
        "first half: after the residual": each_layer(lambda x: move(x, "attention_dropout", x.attention_layer_norm)),
        "first half: after LN": each_layer(lambda x: move(x, "attention_dropout", x.attention_layer_norm, True)),
        "second half: missing": each_layer(lambda x: move(x, "out_dropout")),
        "second half: before the dense": each_layer(lambda x: move(x, "out_dropout", x.out_dense)),
        "second half: after the residual": each_layer(lambda x: move(x, "out_dropout", x.out_layer_norm)),
        "second half: after LN": each_layer(lambda x: move(x, "out_dropout", x.out_layer_norm, True)),
        "a fifth, inside the second half": each_layer(lambda x: x.interm_dense.register_forward_hook(
            lambda module, args, output: F.dropout(output, 0.3))),
    }.items(),
    ids=lambda item: item[0],
)  # fmt: skip
def test_a_dropout_elsewhere_is_seen(surgery):
    with pytest.raises(AssertionError):
        assert_same_dropout(surgery[1])


def test_the_surgery_itself_is_harmless():
    """Moved to where it stood already, after the dense layer, nothing changes: the surgery fails for its place only."""
    assert_same_dropout(each_layer(lambda x: move(x, "out_dropout", x.out_dense, after=True)))


def assert_dropout_on_probabilities(attention, p: float = 0.6, T: int = 60):
    """With q = 0 all T probabilities of a row are 1/T. V = [identity | ones] shows them, and beside them their sum.

    Dropped and scaled up they are 0, in a share p of the places, or 1/(T·(1-p)); their sum is still their sum.
    """
    torch.manual_seed(0)
    q, v = torch.zeros(2, 3, T, T + 1), torch.cat([torch.eye(T), torch.ones(T, 1)], dim=1).expand(2, 3, T, T + 1)
    output = attention(q, q, v, torch.zeros(2, 1, 1, T), nn.Dropout(p))
    probabilities, sums = output[..., :T], output[..., T]
    kept = probabilities > 0
    torch.testing.assert_close(probabilities, kept / (T * (1 - p)))
    torch.testing.assert_close(probabilities.sum(dim=-1), sums)
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=0.02)  # of 21,600 places: 6 standard deviations


@pytest.mark.parametrize("attention", ATTENTION)
def test_attention_drops_probabilities(attention):
    """The seeds above say nothing about the fused kernel, which draws as it likes. This does."""
    assert_dropout_on_probabilities(ATTENTION[attention])


@pytest.mark.parametrize("attention", [no_dropout, dropout_on_scores, dropout_on_output])
def test_attention_that_drops_something_else_is_seen(attention):
    with pytest.raises(AssertionError):
        assert_dropout_on_probabilities(attention)


@pytest.mark.parametrize("attention", ATTENTION)
def test_evaluation_has_no_dropout(attention):
    ours, _ = twins("odd sizes", attention, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.6)
    batch = inputs("odd sizes")
    assert torch.equal(ours(**batch)["last_hidden_state"], ours(**batch)["last_hidden_state"])
    ours.train()
    assert not torch.equal(ours(**batch)["last_hidden_state"], ours(**batch)["last_hidden_state"])


# ---------------------------------------------------------------------------------------------- on paper


@pytest.mark.parametrize("attention", ATTENTION)
def test_an_example_worked_by_hand(attention):
    """One layer, C = 4, H = 2 (so D = 2), two tokens A and B and a pad; every number below can be done on paper.

    Embeddings   A = word (1, 1, -1, -2) + position 0 (0, 0, 0, 1)       = (1,  1, -1, -1)
                 B = word (0, -1, 1, -1) + token type 1 (1, 0, 0, 0)     = (1, -1,  1, -1)
                 Both have mean 0 and variance 1, so LN leaves them. The pad is (9, 0, 0, -9): it must not matter.
    Head 0       columns 0 and 1. q = (0, ln 3 /√2) for everybody, k = v = x. Scores qᵀk/√D: A ½ ln 3, B -½ ln 3,
                 probabilities ¾ and ¼: ¾·(1, 1) + ¼·(1, -1) = (1, ½).
    Head 1       columns 2 and 3. q = 0, probabilities ½ and ½: ½·(-1, -1) + ½·(1, -1) = (0, -1).
    Residual     attention_dense doubles and adds (-1, 0, -1, 1): (2, 1, 0, -2) + (-1, 0, -1, 1) = (1, 1, -1, -1).
                 A + that = (2, 2, -2, -2), LN → (1, 1, -1, -1).   B + that = (2, 0, 0, -2), LN → (√2, 0, 0, -√2).
    Feed-forward one unit that reads column 1: A 1, B 0; GELU(1) = Φ(1) = .841345 = g, GELU(0) = 0; written to columns
                 0 and 1 as (g, -g). A: (1+g, 1-g, -1, -1), mean 0, variance 1 + g²/2.   B: unchanged.
    Pooler       reads column 2 of [CLS], which is A, and adds 1.
    """
    config = BertConfig(
        vocab_size=3, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=1,
        max_position_embeddings=3,
    )  # fmt: skip
    model = BertModel(config, attention).eval()
    layer = model.bert_layers[0]
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    for norm in (model.embed_layer_norm, layer.attention_layer_norm, layer.out_layer_norm):
        nn.init.ones_(norm.weight)

    def put(parameter: nn.Parameter, values):
        parameter.data = torch.tensor(values, dtype=torch.float32).expand_as(parameter).clone()

    put(model.word_embedding.weight, [[9, 0, 0, -9], [1, 1, -1, -2], [0, -1, 1, -1]])
    put(model.pos_embedding.weight, [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    put(model.tk_type_embedding.weight, [[0, 0, 0, 0], [1, 0, 0, 0]])
    put(layer.self_attention.query.bias, [0, math.log(3) / math.sqrt(2), 0, 0])
    put(layer.self_attention.key.weight, torch.eye(4).tolist())
    put(layer.self_attention.value.weight, torch.eye(4).tolist())
    put(layer.attention_dense.weight, (2 * torch.eye(4)).tolist())
    put(layer.attention_dense.bias, [-1, 0, -1, 1])
    put(layer.interm_dense.weight, [[0, 1, 0, 0]])
    put(layer.out_dense.weight, [[1], [-1], [0], [0]])
    put(model.pooler_dense.weight, [[0, 0, 1, 0]])
    put(model.pooler_dense.bias, 1)

    output = model(torch.tensor([[1, 2, 0]]), torch.tensor([[1, 1, 0]]), torch.tensor([[0, 1, 0]]))

    g = 0.8413447
    std = math.sqrt(1 + g**2 / 2)
    a = [(1 + g) / std, (1 - g) / std, -1 / std, -1 / std]
    b = [math.sqrt(2), 0, 0, -math.sqrt(2)]
    torch.testing.assert_close(output["last_hidden_state"][0, :2], torch.tensor([a, b]), rtol=0, atol=1e-6)
    pooled = torch.full((1, 4), math.tanh(1 - 1 / std))
    torch.testing.assert_close(output["pooler_output"], pooled, rtol=0, atol=1e-6)


# ---------------------------------------------------------------------------------------------- properties


@pytest.fixture(params=ATTENTION)
def model(request) -> BertModel:
    """Ours, with random weights, in evaluation."""
    return twins("odd sizes", request.param)[0]


def hidden(model: BertModel, batch: dict[str, Tensor], **changes: Tensor) -> Tensor:
    return model(**batch | changes)["last_hidden_state"]


def test_forward_is_embed_then_encode_then_pool(model):
    batch = inputs("odd sizes")
    output = model(**batch)
    states = model.encode(model.embed(batch["input_ids"], batch["token_type_ids"]), batch["attention_mask"])
    assert torch.equal(output["last_hidden_state"], states)
    assert torch.equal(output["pooler_output"], model.pool(states))
    assert states.shape == (4, 13, 36) and output["pooler_output"].shape == (4, 36)


def test_what_stands_at_the_pads_does_not_matter(model):
    batch = inputs("odd sizes")
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    before, after = hidden(model, batch), hidden(model, batch, input_ids=torch.where(mask, ids, 77))
    torch.testing.assert_close(after[mask], before[mask], rtol=0, atol=1e-6)
    for i in range(len(ids)):  # nor how many there are
        alone = {name: tensor[i : i + 1, : LENGTHS["odd sizes"][i]] for name, tensor in batch.items()}
        torch.testing.assert_close(hidden(model, alone)[0], before[i][mask[i]], rtol=0, atol=1e-5)
    # what stands at one real token matters to every other
    ids = ids.clone()
    ids[2, 1] += 1
    assert ((hidden(model, batch, input_ids=ids) - before)[2].abs().amax(dim=-1)[mask[2]] > 1e-3).all()


def test_without_positions_permuted_tokens_give_permuted_outputs(model):
    """Attention sees a set, not a sequence: only the position embeddings tell the order."""
    batch = inputs("many heads")
    order = torch.tensor([2, 0, 1])
    permuted = {name: tensor[:, order] for name, tensor in batch.items()}

    def distance() -> float:
        return (hidden(model, permuted) - hidden(model, batch)[:, order])[permuted["attention_mask"] == 1].abs().max()

    assert distance() > 0.1
    nn.init.zeros_(model.pos_embedding.weight)
    assert distance() < 1e-5


def test_token_types_are_zeros_unless_given(model):
    batch = inputs("odd sizes")
    zeros = hidden(model, batch, token_type_ids=torch.zeros_like(batch["input_ids"]))
    assert torch.equal(model(batch["input_ids"], batch["attention_mask"])["last_hidden_state"], zeros)
    assert not torch.equal(hidden(model, batch), zeros)


def test_more_tokens_than_positions_are_refused(model):
    ones = torch.ones(1, 34, dtype=torch.long)
    with pytest.raises(ValueError, match=r"34 tokens.* 33 positions"):
        model(ones, ones)
    model(ones[:, :33], ones[:, :33])


def test_a_row_of_nothing_but_pads_gives_no_nan(model):
    """Nor a NaN gradient; and its neighbours do not notice it."""
    batch = inputs("odd sizes")
    expected = hidden(model, batch)
    batch["attention_mask"][1] = 0
    output = hidden(model, batch)
    output.sum().backward()
    assert output.isfinite().all()
    assert all(parameter.grad.isfinite().all() for name, parameter in model.named_parameters() if "pooler" not in name)
    real = batch["attention_mask"] == 1
    torch.testing.assert_close(output[real], expected[real], rtol=0, atol=1e-6)


def test_both_attentions_are_the_same_function():
    (plain, _), (fused, _) = twins("odd sizes"), twins("odd sizes", "sdpa")
    batch = inputs("odd sizes")
    (h, u, gradients), (h_, u_, gradients_) = outputs_and_gradients(plain, batch), outputs_and_gradients(fused, batch)
    torch.testing.assert_close(h_, h, rtol=0, atol=1e-5)
    torch.testing.assert_close(u_, u, rtol=0, atol=1e-5)
    for name in gradients:
        torch.testing.assert_close(gradients_[name], gradients[name], rtol=1e-4, atol=1e-4)


def test_fresh_weights():
    """N(0, σ²) with the config's σ, for linear and embedding weights; zero biases; a zero vector for [PAD]."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=3000, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=500,
        max_position_embeddings=500, type_vocab_size=200, initializer_range=0.05, pad_token_id=3,
    )  # fmt: skip
    model = BertModel(config)
    assert (model.word_embedding.weight[3] == 0).all()
    assert (model.word_embedding.weight[0] != 0).any()
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            assert (parameter == (1 if name.endswith("weight") else 0)).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:  # at least 64·64 numbers: their own std and mean lie within 5 standard deviations of σ and 0
            n = parameter.numel()
            assert parameter.std().item() == pytest.approx(0.05, rel=5 / math.sqrt(2 * n) + 1e-3), name
            assert parameter.mean().abs().item() < 5 * 0.05 / math.sqrt(n), name


# ---------------------------------------------------------------------------------------------- the course

# bert-base-uncased on the two sentences of the course's sanity check: the figures that its file holds
IDS = torch.tensor([[101, 7592, 2088, 102, 0, 0, 0, 0], [101, 7592, 15756, 2897, 2005, 17953, 2361, 102]])
FIRST_CLS = [-0.168884, 0.136064, -0.139400, -0.054359]  # the first four numbers
SECOND_SEP = [0.645269, -0.115473, -0.436594, 0.339301]
POOLED = [[-0.906153, -0.311153, -0.621654, 0.774093], [-0.804259, -0.286005, -0.282890, 0.491087]]
NORMS = [31.310722, 42.963096, 16.808625, 14.544161]  # of the real tokens' states, and of the pooled vectors


def assert_the_course_s_figures(hidden: Tensor, pooled: Tensor):
    def close(actual: Tensor, expected: list):
        torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-3, atol=1e-5)

    close(hidden[0, 0, :4], FIRST_CLS)
    close(hidden[1, 7, :4], SECOND_SEP)
    close(pooled[:, :4], POOLED)
    close(torch.stack([hidden[0, :4].norm(), hidden[1].norm(), *pooled.norm(dim=1)]), NORMS)


def course_file(folder: Path) -> tuple[Tensor, Tensor]:
    path = folder / "course-sanity-check.data"
    if not path.exists():
        pytest.skip(f"no {path.name} in {folder}")
    stored = torch.load(path, weights_only=True)
    return stored["last_hidden_state"], stored["pooler_output"]


def test_the_course_s_file_holds_these_figures(real_data):
    assert_the_course_s_figures(*course_file(real_data))


@pytest.mark.parametrize("attention", ATTENTION)
def test_the_course_s_own_check(attention):
    """The course's `sanity_check.py`, for a machine that has the weights: a test does not fetch 440 MB."""
    if not pretrained._in_hub_cache("bert-base-uncased"):
        pytest.skip("bert-base-uncased is not in this machine's hub cache")
    output = BertModel.from_pretrained("bert-base-uncased", attention).eval()(IDS, (IDS != 0).long())
    hidden, pooled = output["last_hidden_state"].detach(), output["pooler_output"].detach()
    assert_the_course_s_figures(hidden, pooled)
    if os.environ.get("MINBERT_DATA"):
        stored = course_file(Path(os.environ["MINBERT_DATA"]))
        torch.testing.assert_close(hidden[IDS != 0], stored[0][IDS != 0], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(pooled, stored[1], rtol=1e-3, atol=1e-5)
