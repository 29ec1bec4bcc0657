"""Terms of the loss: what each row has, which passes they share, and how loss and terms go backward."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from minbert.bert import BertModel
from minbert.epoch_log import EpochLog
from minbert.flags import techniques
from minbert.multitask import MultitaskBert
from minbert.tasks import TASKS
from minbert.terms import Pass, active, backward, build_terms
from tests.techniques.models import NAMES, batch_of, example_settings
from tests.techniques.pals_models import CONFIG

TERMS = [name for name, technique in techniques().items() if technique.table == "TERMS"]
every_term = pytest.mark.parametrize("name", TERMS)


def small_model(dropout: float = 0.3) -> MultitaskBert:
    torch.manual_seed(0)
    config = replace(CONFIG, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    return MultitaskBert(BertModel(config), NAMES, heads={"sts": "hadamard"}, dropout=dropout).train()


def pass_of(model: MultitaskBert, task: str = "sst") -> Pass:
    return Pass(model, batch_of(task), TASKS[task].loss)


def build(model: MultitaskBert, *names: str, seed: int = 0) -> dict:
    return build_terms(model, {name: example_settings(name) for name in names}, seed)


# ------------------------------------------------------------------------------------------ the rows


@every_term
def test_a_term_has_all_that_the_docstring_says(name):
    model = small_model()
    term = build(model, name)[name]
    first = pass_of(model)
    assert term.tasks is None or isinstance(term.tasks, tuple)
    assert term.joined(first) in (True, False)
    scalar, log = term(first)
    assert scalar.shape == () and scalar.requires_grad
    assert log and all(isinstance(value, Tensor) and value.shape == () for value in log.values())
    assert set(term.largest) <= set(log)
    term.after_step(0.5)
    text = term.describe({"sst": {number: value.item() for number, value in log.items()}})
    assert "sst" in text and "\n" not in text


@every_term
def test_a_term_with_a_loaded_state_continues_as_the_one_that_saved_it(name):
    """Both make one step; the second term was begun with another seed and other weights."""
    results = []
    for other_seed in (0, 1):
        model = small_model()
        term = build(model, name)[name]
        term(pass_of(model))
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.01)
        term.after_step(0.0)
        if other_seed:
            state = term.state_dict()
            term = build(model, name, seed=other_seed)[name]
            term.load_state_dict(state)
        torch.manual_seed(3)
        scalar, _ = term(pass_of(model))
        results.append(scalar.item())
    assert results[0] == results[1] != 0


def test_terms_are_active_for_their_tasks_and_while_the_schedule_does_not_hold_them_back():
    model = small_model()
    terms = build(model, "smart", "rdrop")
    terms["smart"].tasks = ("sst", "sts")
    assert list(active(terms, "sst")) == ["smart", "rdrop"]
    assert list(active(terms, "para")) == ["rdrop"]
    assert list(active(terms, "sst", ("smart",))) == ["rdrop"]
    assert active(terms, "para", ("rdrop", "smart")) == {}


# ------------------------------------------------------------------------------------------ passes


def test_the_clean_pass_is_computed_once_without_dropout_and_leaves_the_mode():
    model = small_model()
    first = pass_of(model)
    clean = first.clean
    assert not first.is_clean and first.clean is clean and clean is not first
    assert all(module.training for module in model.modules())
    model.eval()
    assert torch.equal(clean.logits, model(first.batch)) and not torch.equal(first.logits, clean.logits)


def test_a_pass_without_dropout_in_fp32_is_its_own_clean_pass():
    model = small_model(dropout=0.0)
    first = pass_of(model)
    assert first.is_clean and first.clean is first
    model.precision = "bf16"
    with model.autocast():
        rough = pass_of(model)
    assert not rough.is_clean and torch.equal(rough.clean.logits, first.logits)
    assert not torch.equal(rough.logits, first.logits)


def test_a_second_pass_has_dropouts_next_draws():
    model = small_model()
    torch.manual_seed(4)
    expected = [model(batch_of("sts")) for _ in range(2)]
    torch.manual_seed(4)
    first = pass_of(model, "sts")
    second = first.again()
    assert torch.equal(first.logits, expected[0]) and torch.equal(second.logits, expected[1])
    assert second.loss == TASKS["sts"].loss(expected[1], first.batch.labels)


@pytest.mark.parametrize("task", NAMES)
def test_a_passs_divergence_is_its_tasks(task):
    first = pass_of(small_model(), task)
    other = first.logits + torch.randn_like(first.logits)
    assert torch.equal(first.divergence(first.logits, other), TASKS[task].divergence(first.logits, other))


# ------------------------------------------------------------------------------------------ backward


class Square:
    """A term for these tests: the sum of squares of a pass's logits. order: a list that notes when it is called."""

    tasks, largest = None, ()

    def __init__(self, joined: bool, order: list[str]):
        self.is_joined, self.order = joined, order

    def joined(self, first):
        return self.is_joined

    def __call__(self, first):
        self.order.append("joined" if self.is_joined else "later")
        logits = first.logits if self.is_joined else first.clean.logits
        return logits.square().sum(), {"size": logits.square().sum()}


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_gradient_is_that_of_the_weighted_sum_of_loss_and_terms(weight):
    model, order = small_model(), []
    parameters = list(model.parameters())
    torch.manual_seed(6)
    first = pass_of(model)
    total = first.loss + first.logits.square().sum() + 2 * first.clean.logits.square().sum()
    expected = torch.autograd.grad(weight * total, parameters, allow_unused=True)

    torch.manual_seed(6)
    terms = {"late": Square(False, order), "early": Square(True, order), "late too": Square(False, order)}
    log = backward(pass_of(model), terms, weight)
    for p, gradient in zip(parameters, expected, strict=True):
        assert (p.grad is None) == (gradient is None)
        if gradient is not None:
            torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-6)
    assert order == ["joined", "later", "later"]
    assert set(log) == set(terms) and all(set(numbers) == {"size"} for numbers in log.values())


def test_without_terms_the_gradient_is_the_losss():
    models = [small_model(), small_model()]
    torch.manual_seed(7)
    first = pass_of(models[0])
    assert backward(first, {}) == {}
    torch.manual_seed(7)
    TASKS["sst"].loss(models[1](batch_of("sst")), batch_of("sst").labels).backward()
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert (p.grad is None and q.grad is None) or torch.equal(p.grad, q.grad)


def test_all_terms_together_give_the_sum_of_their_gradients():
    """The same random numbers for each: of dropout by the seed, of SMART by its own generator."""
    gradients = {}
    for names in (("smart",), ("bregman",), ("rdrop",), ("smart", "bregman", "rdrop"), ()):
        model = small_model()
        terms = build(model, *names)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.05)  # so that θ differs from θ̃
        torch.manual_seed(8)
        backward(pass_of(model), terms)
        gradients[names] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    plain = gradients[()]
    together = sum(gradients[name,] - plain for name in ("smart", "bregman", "rdrop"))
    torch.testing.assert_close(gradients["smart", "bregman", "rdrop"] - plain, together, rtol=1e-3, atol=1e-5)
    assert all((gradients[name,] - plain).abs().max() > 1e-4 for name in ("bregman", "rdrop"))


def test_an_epochs_log_keeps_equal_names_of_two_terms_apart():
    log = EpochLog()
    for x in (1.0, 3.0):
        terms = {"one": {"size": torch.tensor(x), "top": torch.tensor(x)}, "other": {"size": torch.tensor(10 * x)}}
        log.add("sst", 4, torch.tensor(x), terms)
    log.add("sts", 4, torch.tensor(7.0), {"other": {"size": torch.tensor(5.0)}})
    assert log.term("one", ("top",)) == {"sst": {"size": 2.0, "top": 3.0}}
    assert log.term("other") == {"sst": {"size": 20.0}, "sts": {"size": 5.0}}
    assert log.mean("loss") == {"sst": 2.0, "sts": 7.0} and log.examples == 12
    assert log.term("third") == {}
