"""The running mean of the weights, against PyTorch's `AveragedModel` and values worked by hand."""

import copy
import os
import signal

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from minbert.average import Average
from minbert.folder import RunFolder
from minbert.run import Run
from tests.run.crashes import differences, in_a_process, newest


def walk(model: nn.Module, steps: int):
    """Change the weights at random, `steps` times."""
    for _ in range(steps):
        with torch.no_grad():
            for p in model.parameters():
                p += torch.randn_like(p)
        yield


def test_after_the_ramp_the_mean_is_that_of_pytorchs_averaged_model(kind=Average):
    model = nn.Linear(3, 2).double()
    average = kind(model, 0.9)
    for _ in walk(model, 100):  # (1 + 100)/(10 + 100) is above .9
        average.update()
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(model)  # the first call copies
    average.mean = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in walk(model, 20):
        average.update()
        theirs.update_parameters(model)
    for name, p in theirs.module.named_parameters():
        torch.testing.assert_close(average.mean[name], p.detach(), rtol=1e-12, atol=1e-12)
        assert not torch.allclose(average.mean[name], model.get_parameter(name))


def test_the_first_means_are_those_of_the_ramp_worked_by_hand(kind=Average):
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = kind(model, 0.5)
    model.weight.data.fill_(1.0)
    expected = (0.9, 0.9 * 2 / 11 + 9 / 11)  # β₀ = 1/10, β₁ = 2/11, of the values 0, 1 and 1
    for value in expected:
        average.update()
        assert average.mean["weight"].item() == pytest.approx(value)
    average.step = 100  # β is .5 from here on
    model.weight.data.fill_(0.0)
    average.update()
    assert average.mean["weight"].item() == pytest.approx(expected[1] / 2)


def test_the_model_has_the_mean_inside_and_its_own_bits_again_after_an_error(kind=Average):
    model = nn.Linear(3, 2)
    average = kind(model, 0.9)
    for _ in walk(model, 5):
        average.update()
    own, mean = model.weight.clone(), average.mean["weight"].clone()
    with pytest.raises(KeyError), average.in_place():
        assert torch.equal(model.weight, mean) and not torch.equal(model.weight, own)
        raise KeyError
    assert torch.equal(model.weight, own) and torch.equal(average.mean["weight"], mean)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a run is stopped in a process of its own")
@pytest.mark.parametrize(
    ("swap", "message"), [(1, "stopped in the evaluation after epoch 1"), (2, "stopped after epoch 1")]
)
def test_a_signal_while_the_weights_are_swapped_saves_those_that_train(tmp_path, monkeypatch, swap, message):
    """The signal comes between two tensors: (1) when the mean takes its place, (2) when the weights come back."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    average, run = Average(model, 0.9), Run(RunFolder(tmp_path))
    run.register(model=model, average=average)
    run.log({"epoch": 0})
    for _ in walk(model, 5):
        average.update()
    expected = copy.deepcopy({"model": dict(model.state_dict()), "average": average.state_dict()})
    put, calls = Average._put, iter((1, 2))

    class Interrupted(dict):
        def __getitem__(self, name):
            if name == "0.bias":  # the second of four tensors
                signal.raise_signal(signal.SIGTERM)
            return super().__getitem__(name)

    def interrupted(self, values):
        put(self, Interrupted(values) if next(calls) == swap else values)

    def main(argv):
        with run.on_its_way():
            with run.evaluation(average.in_place()):
                pass
            run.end_epoch({"epoch": 1})

    def without_waiting(argv):
        with run.on_its_way(), run.evaluation(), average.in_place():
            pass

    def saved() -> dict:
        parts = newest(tmp_path)["parts"]
        return {name: parts[name] for name in expected}

    monkeypatch.setattr(Average, "_put", interrupted)
    if swap == 2:  # the signal would end the second swap, and the checkpoint would have weights of both kinds
        in_a_process(without_waiting, [])
        assert differences(saved(), expected) == ["/model/0.bias", "/model/1.weight", "/model/1.bias"]
    status, text = in_a_process(main, [])
    assert status == 143 and text.startswith(message), text
    assert not differences(saved(), expected)


def test_frozen_weights_have_no_mean_and_beta_0_keeps_nothing(kind=Average):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    assert set(kind(model, 0.9).mean) == {"1.weight", "1.bias"}
    assert not Average(model, 0.0).mean


def test_a_state_of_other_weights_is_refused():
    with pytest.raises(ValueError, match="not of these weights"):
        Average(nn.Linear(3, 2), 0.9).load_state_dict(Average(nn.Linear(3, 2, bias=False), 0.9).state_dict())
