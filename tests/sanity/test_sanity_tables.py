"""The tables of mistakes: each is its own test. A mistake, put into the right pieces, is named, and nothing else is."""

import json

import pytest
import torch
from torch import nn

from minbert.sanity import core, evidence, judge, parts, report
from tests.sanity.making import BERT, OPTIMIZER

CORE = BERT + OPTIMIZER


def recorded(part, pieces):
    with core.visible_dropout():
        return evidence.record(part, part.reference({**part.right, **pieces}))


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CORE)
def test_a_mistake_of_the_table_is_named_and_nothing_else_is(name, every):
    part = parts.load(name)
    for mistake in part.mistakes[::every]:
        for form in mistake.forms:
            found = judge.judge(part, recorded(part, form))
            assert [m["name"] for m in found["mistakes"]] == [mistake.name]


@pytest.mark.parametrize("name", CORE)
def test_what_is_right_in_other_words_passes(name):
    part = parts.load(name)
    for pieces in ({}, *part.also_right):
        assert judge.judge(part, recorded(part, pieces))["status"] == "passed"


@pytest.mark.parametrize("name", parts.NAMES)
def test_a_table_is_complete(name):
    part = parts.load(name)
    names = [m.name for m in part.mistakes]
    assert part.name == name and len(names) == len(set(names)) and part.probes
    for mistake in part.mistakes:
        assert mistake.why and mistake.equation and mistake.source and mistake.where
        for form in mistake.forms:
            assert set(form) <= set(part.right), f"{mistake.name}: replaces a piece that does not exist"


@pytest.mark.parametrize("name", CORE)
def test_probes_leave_their_subject_as_it_was(name):
    """Run in any order, twice, they give the same: the judge runs the telling ones first."""
    part = parts.load(name)
    with core.visible_dropout():
        subject = part.reference(part.right)
        first = evidence.record(part, subject)
        for probe in reversed(part.probes):
            assert judge.same(evidence.record_probe(probe, subject), first[probe.name], 0, 0)


def test_a_part_that_is_wrong_in_an_unknown_way_is_wrong_and_no_mistake_is_named():
    """Also where a probe does not apply to the reference with a mistake in it, as to a BERT that does not train."""
    part = parts.load("heads")
    outcomes = recorded(part, {})
    for probe in ("whether pads change the answer", "whether a batch's examples are mixed"):
        outcomes[probe] = {"error": "RuntimeError", "message": "sizes do not match"}
    for probe in ("whether dropout is on in evaluation", "whether the second sentence goes unread"):
        outcomes[probe] = {"values": {"": torch.tensor([7.0])}}
    found = judge.judge(part, outcomes)
    assert (found["status"], found["mistakes"]) == ("wrong", [])


def test_two_mistakes_at_once_are_both_named():
    part = parts.load("attention")
    table = {m.name: m.pieces for m in part.mistakes}
    pairs = [
        ("scores are not divided by √D", "the mask is not used"),
        ("no dropout on the attention probabilities", "heads are merged without the transpose"),
        ("query and key are swapped", "attention dropout is active in evaluation"),
    ]
    for pair in pairs:
        found = judge.judge(part, recorded(part, {**table[pair[0]], **table[pair[1]]}))
        assert {m["name"] for m in found["mistakes"]} == set(pair)


def test_an_unknown_mistake_shows_the_first_probe_that_differs_and_the_nearest_known_one(impatient):
    part = parts.load("attention")
    found = judge.judge(part, recorded(part, {"scale": lambda s: s / 1.1}))
    assert found["status"] == "wrong" and found["mistakes"] == []
    assert found["probe"]["name"] == part.probes[0].name
    assert found["nearest"] == "scores are not divided by √D"


def test_another_shape_and_nan_are_differences_like_others(impatient):
    part = parts.load("attention")
    for after in (lambda y, x: y[:, :1], lambda y, x: y * float("nan")):
        found = judge.judge(part, recorded(part, {"after": after}))
        assert found["status"] == "wrong" and found["mistakes"] == []
        report.page({"path": "x", "parts": [found]})
        json.loads(report.as_json([{"path": "x", "parts": [found]}]))


def test_dropout_is_visible_in_every_way_of_writing_it():
    x = torch.ones(2, 3)
    with core.visible_dropout():
        dropout = nn.Dropout(0.4)
        assert torch.equal(dropout(x), x * core.kappa(0.4))
        assert torch.equal(nn.functional.dropout(x, 0.4), x * core.kappa(0.4))
        assert torch.equal(torch.dropout(x, 0.4, True), x * core.kappa(0.4))
        assert torch.equal(dropout.eval()(x), x)
        q = torch.randn(1, 2, 3, 4)
        full = nn.functional.scaled_dot_product_attention(q, q, q)
        halved = nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=0.5)
        torch.testing.assert_close(halved, full * core.kappa(0.5))
    torch.testing.assert_close(full, nn.functional.scaled_dot_product_attention(q, q, q))


@pytest.mark.parametrize("name", BERT)
def test_asking_what_gradients_reach_leaves_no_trace(name):
    """Weights, gradients and what is frozen are as they were; a frozen parameter is no mistake."""
    part = parts.load(name)
    subject = part.reference(part.right)
    module = subject if isinstance(subject, torch.nn.Module) else subject.model
    frozen, other = list(module.parameters())[:2]
    frozen.requires_grad_(False)
    other.grad = torch.ones_like(other)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    probe = next(probe for probe in part.probes if probe.name == "what gradients reach")
    found = probe.run(subject)
    assert found["last_hidden_state → word_embedding" if name == "model" else next(iter(found))]
    assert not frozen.requires_grad and not module.training
    assert [p for p in module.parameters() if p.grad is not None] == [other] and (other.grad == 1).all()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


# ------------------------------------------------------------------------------------------------ what is no evidence


@pytest.mark.parametrize("kind", [{"unknown": "a reason", "remedy": ""}, {"absent": "no such thing"}])
def test_what_was_not_seen_agrees_with_everything(kind):
    """A named mistake is found by the probes that could be made; none of the others speaks against it."""
    part = parts.load("attention")
    outcomes = recorded(part, {"scale": lambda s: s})
    outcomes[part.probes[-1].name] = kind
    result = judge.judge(part, outcomes)
    assert [m["name"] for m in result["mistakes"]] == ["scores are not divided by √D"]
    assert [u["reason"] for u in result["unknown"]] == (["a reason"] if "unknown" in kind else [])


def test_a_part_that_could_be_seen_in_part_has_passed_in_part():
    part = parts.load("attention")
    outcomes = recorded(part, {})
    outcomes[part.probes[0].name] = {"unknown": "a reason", "remedy": "do this"}
    result = judge.judge(part, outcomes)
    assert result["status"] == "partly"
    assert result["unknown"] == [{"reason": "a reason", "remedy": "do this", "probes": [part.probes[0].name]}]
    nothing = judge.judge(part, {name: {"unknown": "a reason", "remedy": ""} for name in outcomes})
    assert nothing["status"] == "not checked"


def test_a_failure_does_not_hide_what_the_other_probes_show(impatient):
    part = parts.load("attention")
    outcomes = recorded(part, {"scale": lambda s: s})
    failure = {"error": "IndexError", "message": "5", "file": "bert.py", "line": 3, "function": "f"}
    outcomes[part.probes[0].name] = failure
    result = judge.judge(part, outcomes)
    assert [m["name"] for m in result["mistakes"]] == ["scores are not divided by √D"]
    assert result["failure"]["error"] == "IndexError" and result["failure"]["probe"] == part.probes[0].name


def test_two_failures_of_one_kind_are_no_explanation():
    """The wrong pieces fail as theirs does, and yet that names nothing, but where failing is how a mistake shows."""
    part = parts.load("optimizer")
    zero = next(m for m in part.mistakes if m.fails == "ZeroDivisionError")
    outcomes = recorded(part, zero.pieces)
    assert [m["name"] for m in judge.judge(part, outcomes)["mistakes"]] == [zero.name]
    other = {name: {**o, "error": "IndexError"} if "error" in o else o for name, o in outcomes.items()}
    result = judge.judge(part, other)
    assert result["status"] == "crashed" and result["mistakes"] == []


def test_where_the_check_guesses_how_it_is_called_only_exact_numbers_of_a_mistake_count(impatient):
    part, guessed = parts.load("pcgrad"), {"promised": False}
    named = judge.judge(part, recorded(part, {"sum": lambda g: g.mean(dim=0)}), about=guessed)
    assert [m["name"] for m in named["mistakes"]] == ["the mean of the gradients, not their sum"]
    other = recorded(part, {"sum": lambda g: 0.7 * g.sum(dim=0)})
    assert judge.judge(part, other)["status"] == "wrong"
    assert judge.judge(part, other, about=guessed)["status"] == "not checked"
    failure = {"error": "ValueError", "message": "no", "file": "", "line": 0, "function": ""}
    failing = {name: failure for name in other}
    assert judge.judge(part, failing)["status"] == "crashed"
    assert judge.judge(part, failing, about=guessed)["status"] == "not checked"


def test_numbers_that_a_package_s_stand_in_had_a_part_in_are_no_complaint():
    part = parts.load("attention")
    wrong = {name: {**o, "touched": "it uses pandas"} for name, o in recorded(part, {"scale": lambda s: s}).items()}
    result = judge.judge(part, wrong)
    assert result["status"] == "partly" and [u["reason"] for u in result["unknown"]] == ["it uses pandas"]
    right = {name: {**o, "touched": "it uses pandas"} for name, o in recorded(part, {}).items()}
    assert judge.judge(part, right)["status"] == "passed"


def test_a_third_mistake_is_named_beside_the_two_of_widespread_code(monkeypatch):
    """Even when there is no time left for pairs: PCGrad with a mean, heads that are projected, and the wrong sign."""
    monkeypatch.setattr(judge, "PATIENCE", 0.0)
    part = parts.load("pcgrad")
    table = {m.name: m.pieces for m in part.mistakes}
    sign = "adds the part that opposes instead of taking it out"
    pieces = table[sign] | {k: v for name in part.together for k, v in table[name].items()}
    found = judge.judge(part, recorded(part, pieces))
    assert {m["name"] for m in found["mistakes"]} == {sign, *part.together}
