"""Wrong variants of PALs and low-rank layers: TS in another place or of another kind, other choices of the task."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from minbert.bert import BertModel
from minbert.pals import use_task
from tests.techniques import test_pals as oracle
from tests.techniques import test_pals_smart
from tests.techniques import test_pals_tasks as tasks
from tests.techniques.models import NAMES, batch_of
from tests.techniques.pals_models import WAYS, H, a_pal_and_a_low_rank, adapted, adapters, add, every_way, model_of
from tests.techniques.test_pals_sharing import check_pads
from tests.techniques.test_pals_start import check_identity


def ts_by_hand(
    W: oracle.Weights, task: str, h: Tensor, mask: Tensor, activation: str | None, wrong: str = ""
) -> Tensor:
    """TS(h) of one task, with one thing wrong. activation: of a low-rank layer; None for a PAL."""
    if wrong == "another task's":
        task = NAMES[NAMES.index(task) - 1]
    name = f"adapter.{task}"
    inner = oracle.dense(W, f"{name}.encode", h)
    if activation is None:
        inner = attention_by_hand(W, f"{name}.attention", inner, mask, wrong)
    elif (activation == "gelu") != (wrong == "the other activation"):
        inner = oracle.gelu(inner)
    ts = oracle.dense(W, f"{name}.decode", inner)
    return oracle.gelu(ts) if wrong == "GELU after V_D" else 2 * ts if wrong == "twice" else ts


def attention_by_hand(W: oracle.Weights, name: str, x: Tensor, mask: Tensor, wrong: str) -> Tensor:
    """Multi-head attention, with one thing wrong."""
    if wrong == "mask ignored":
        mask = torch.ones_like(mask)
    heads = 1 if wrong == "one head" else H
    q, k, v = (oracle.dense(W, f"{name}.{part}", x).unflatten(-1, (heads, -1)) for part in ("query", "key", "value"))
    width = x.shape[-1] if wrong == "√size for √D" else q.shape[-1]
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(width)
    p = scores.masked_fill(mask[:, None, None, :] == 0, -math.inf).softmax(dim=-1)
    return torch.einsum("bhij,bjhd->bihd", p, v).flatten(2)


def wrong_layer(wrong: str):
    """A whole BERT layer by hand, in which TS stands elsewhere, or is another."""

    def layer_of(layer: nn.Module, task: str, h: Tensor, mask: Tensor, activation: str | None) -> Tensor:
        W = dict(layer.named_parameters(remove_duplicate=False))
        ts = ts_by_hand(W, task, h, mask, activation, wrong)
        if wrong == "all tasks' sum":
            ts = sum(ts_by_hand(W, name, h, mask, activation) for name in NAMES)
        x = h + ts if wrong == "inside the attention's input" else h
        attended = h + oracle.dense(W, "attention_dense", oracle.attention_by_hand(W, "self_attention", x, mask))
        if wrong == "before the first LayerNorm":
            attended = attended + ts
        attended = oracle.norm(W, "attention_layer_norm", attended)
        if wrong == "of the attention's output":
            ts = ts_by_hand(W, task, attended, mask, activation)
        x = attended + ts if wrong == "in the feed-forward's input" else attended
        out = attended + oracle.dense(W, "out_dense", oracle.gelu(oracle.dense(W, "interm_dense", x)))
        if wrong in ("inside the attention's input", "before the first LayerNorm", "left out"):
            return oracle.norm(W, "out_layer_norm", out)
        if wrong == "after the last LayerNorm":
            return oracle.norm(W, "out_layer_norm", out) + ts
        return oracle.norm(W, "out_layer_norm", out + ts)

    return layer_of


PLACES = (
    "inside the attention's input", "before the first LayerNorm", "of the attention's output",
    "in the feed-forward's input", "after the last LayerNorm", "left out",
)  # fmt: skip
OTHER_TS = ("another task's", "all tasks' sum", "GELU after V_D", "twice")  # GELU after V_D: the authors' own code


def check_formula(way: dict, wrong: str):
    oracle.test_a_bert_with_added_layers_is_the_papers_formula(way, "plain", wrong_layer(wrong))


@every_way
def test_the_variant_without_a_mistake_passes(way):
    """So it is the mistakes that fail below."""
    check_formula(way, "")


@a_pal_and_a_low_rank
@pytest.mark.parametrize("wrong", PLACES + OTHER_TS)
def test_another_place_or_another_ts_is_not_the_formula(way, wrong):
    with pytest.raises(AssertionError):
        check_formula(way, wrong)


@pytest.mark.parametrize("wrong", ["mask ignored", "one head", "√size for √D"])
def test_another_attention_in_a_pal_is_not_the_formula(wrong):
    with pytest.raises(AssertionError):
        check_formula(WAYS["pal 6"], wrong)


@pytest.mark.parametrize("way", [WAYS["low_rank 3"], WAYS["low_rank gelu"]], ids=["identity", "gelu"])
def test_the_other_activation_is_not_the_formula(way):
    with pytest.raises(AssertionError):
        check_formula(way, "the other activation")


WRONG_FORMS = {
    "inside the attention's input": lambda first, second, ts, h: second(first(h)),
    "before the first LayerNorm": lambda first, second, ts, h: second(first(h + ts(h))),
    "of the attention's output": lambda first, second, ts, h: second(first(h) + ts(first(h))),
    "after the last LayerNorm": lambda first, second, ts, h: second(first(h)) + ts(h),
}


@a_pal_and_a_low_rank
@pytest.mark.parametrize("wrong", WRONG_FORMS.values(), ids=WRONG_FORMS)
def test_another_place_fails_the_closed_form(way, wrong):
    with pytest.raises(AssertionError):
        oracle.test_ts_is_added_before_the_last_layer_norm(way, 0.0, wrong)


# ------------------------------------------------------------------------------------------ the start, and pads


def with_random(bert: BertModel, way: dict, leaf: str):
    add(bert, way)
    for name, p in adapters(bert).items():
        if name.endswith(leaf):
            nn.init.normal_(p, std=1e-3)


@pytest.mark.parametrize("leaf", ["decode.weight", "decode.bias"])
@a_pal_and_a_low_rank
def test_a_v_d_that_is_not_zero_changes_the_outputs(way, leaf):
    with pytest.raises(AssertionError):
        check_identity(lambda bert: with_random(bert, way, leaf))


def test_a_pal_that_attends_to_pads_fails_the_test_of_pads():
    bert = adapted(WAYS["pal"])
    for layer in bert.bert_layers:
        attention = layer.adapter["sst"].attention
        attention.forward = lambda x, mask, forward=attention.forward: forward(x, torch.zeros_like(mask))
    with pytest.raises(AssertionError):
        check_pads(bert)


# ------------------------------------------------------------------------------------------ the choice of the task


def all_in_use(bert: BertModel, task: str):
    """Wrong: every task's layers are computed, the others' times 0. They get a gradient of zeros, not None."""
    for layer in bert.bert_layers:
        table = layer.adapter
        table.forward = lambda h, mask, table=table: sum(ts(h, mask) * (t == task) for t, ts in table.items())


@a_pal_and_a_low_rank
@pytest.mark.parametrize("wrong", [lambda bert, task: use_task(bert, "sts"), all_in_use], ids=["fixed", "all"])
def test_a_wrong_choice_of_the_task_fails_the_test_of_gradients(way, wrong, monkeypatch):
    monkeypatch.setattr("minbert.pals.use_task", wrong)
    with pytest.raises(AssertionError):
        tasks.check_gradients_are_the_tasks_own(model_of(way))


@a_pal_and_a_low_rank
def test_norms_that_include_the_tasks_own_layers_are_not_the_surgery_on_bert(way):
    with pytest.raises(AssertionError):
        tasks.test_gradient_surgery_is_on_bert_and_leaves_a_tasks_own_layers_alone(way, norms_with_adapters=True)


@a_pal_and_a_low_rank
def test_gradients_of_zeros_let_the_other_tasks_layers_decay(way):
    with pytest.raises(AssertionError):
        tasks.check_moved_layers(model_of(way), [batch_of("sst")], zeros=True)


@a_pal_and_a_low_rank
def test_a_step_of_a_shared_bert_changes_other_tasks_outputs(way, monkeypatch):
    with pytest.raises(AssertionError):
        tasks.check_others_unchanged(model_of(way), freeze=False)
    monkeypatch.setattr("minbert.pals.use_task", lambda bert, task: use_task(bert, "sst"))
    with pytest.raises(AssertionError):
        tasks.check_others_unchanged(model_of(way))


def test_a_mean_that_only_the_first_layer_uses_is_not_the_second_model():
    """θ̃'s V_E stands in one of the layers that share it here, and θ's in the others."""

    def apart(model):
        for layer in model.bert.bert_layers[1:]:
            for own in layer.adapter.values():
                own.encode, own.decode = copy.deepcopy(own.encode), copy.deepcopy(own.decode)
        return model

    with pytest.raises(AssertionError):
        test_pals_smart.test_nearness_is_the_distance_from_a_second_model_with_the_mean_weights(WAYS["pal 6"], apart)
