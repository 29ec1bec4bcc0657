"""PALs and low-rank layers together with SMART's two terms."""

import copy

import pytest
import torch

from minbert.multitask import part_of
from minbert.smart import Proximal, exact, smoothness
from minbert.tasks import TASKS
from tests.techniques.models import NAMES, batch_of
from tests.techniques.pals_models import a_pal_and_a_low_rank, adapters, copies, equal, model_of, randomize


@a_pal_and_a_low_rank
@pytest.mark.parametrize("task", NAMES)
def test_the_smoothness_of_a_bert_with_added_layers_climbs_and_its_gradient_is_the_tasks_own(way, task):
    """The search ends at a larger divergence than it starts with; no other task's layers get a gradient."""
    model, batch = model_of(way).double(), batch_of(task)
    embedded = model.embed(batch)
    result = smoothness(
        model, embedded, TASKS[task].divergence, lambda x: model.logits(batch, x), mask=batch.attention_mask,
        epsilon=1e-3, sigma=1e-4, generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    assert result.term.isfinite() and result.term >= result.before > 0
    result.term.backward()
    for name in NAMES:
        assert all((p.grad is not None) == (name == task) for p in adapters(model, name).values())


@a_pal_and_a_low_rank
def test_nearness_is_the_distance_from_a_second_model_with_the_mean_weights(way, change=lambda model: model):
    """The second model has θ̃ in every layer, and θ̃ follows by the formula. change: of the second model."""
    model = model_of(way)
    proximal = Proximal(model, (0.9, 0.9))
    assert proximal.average.keys() == dict(model.named_parameters()).keys()
    start = copies(proximal.average)
    randomize(model, seed=3)
    moved = copies(dict(model.named_parameters()))
    proximal.update()
    for name, mean in proximal.average.items():
        torch.testing.assert_close(mean, 0.1 * moved[name] + 0.9 * start[name])

    other = change(copy.deepcopy(model))
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
def test_with_a_frozen_bert_the_mean_holds_what_trains(way):
    model = model_of(way)
    model.freeze_bert()
    proximal = Proximal(model)
    assert {part_of(name) for name in proximal.average} == {"adapter", "heads"}
    batch = batch_of("para")
    with exact(model):
        outputs = model(batch)
    assert proximal(outputs, TASKS["para"].divergence, batch).item() == 0
    randomize(model, seed=3)
    assert proximal(model(batch), TASKS["para"].divergence, batch).item() > 0
