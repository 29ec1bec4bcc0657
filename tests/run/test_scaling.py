"""--precision fp16: the loss is scaled, S follows what `torch.amp.GradScaler` does, and the gradients are fp32's."""

import math

import pytest
import torch
from torch import nn

import multitask_classifier
from minbert import processes, scaling
from minbert.data import Dataset, Example
from minbert.engine import Portions
from minbert.errors import UserError
from minbert.evaluation import outputs
from minbert.scaling import LossScale
from minbert.tasks import TASKS
from tests.cli.runs import FULL, STILL, Run
from tests.run.several import in_processes
from tests.tasks.small_models import TOKENIZER, batch_of, build


def gradient(precision: str, weight: float, size: int | None = None, start: float | None = None, task="sst"):
    """The gradient of `weight` times a task's loss, as one vector divided by `weight`; and the portions."""
    model, portions = build(heads={"sts": "dot"}), Portions(size, precision)
    model.precision = precision
    portions.scale.value = start or portions.scale.value
    portions.descend(model, batch_of(task), TASKS[task].loss, {}, weight)
    vector = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert vector.dtype == torch.float32
    return vector / weight, portions


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


def test_the_scale_follows_torchs_grad_scaler(monkeypatch):
    """The same infinite and finite gradients, step by step. torch leaves a step out; here it is done again."""
    monkeypatch.setattr(scaling, "INTERVAL", 4)
    torch_scaler = torch.amp.GradScaler("cpu", growth_interval=4)
    parameter, scale = nn.Parameter(torch.zeros(2)), LossScale("fp16")
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    values = []
    for wild in [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]:
        torch_scaler.scale(torch.ones(()))
        parameter.grad = torch.tensor([1.0, math.inf if wild else 3.0])
        torch_scaler.step(optimizer)
        torch_scaler.update()
        before = scale.value
        parameter.grad = torch.tensor([before, math.nan if wild else 3 * before])
        assert scale.undo([parameter]) is not bool(wild)
        assert wild or parameter.grad.tolist() == [1, 3]
        values.append((scale.value, torch_scaler.get_scale()))
    assert all(ours == theirs for ours, theirs in values)
    assert {ours for ours, _ in values} == {2.0**13, 2.0**14, 2.0**15}


@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize("task", ["sst", "para", "sts"])
def test_scaled_gradients_are_those_of_fp32_where_unscaled_ones_vanish(task, size):
    """A weight of 1e-7 makes the gradients as small as those of a long training."""
    exact, _ = gradient("fp32", 1.0, task=task)
    scaled, portions = gradient("fp16", 1e-7, size, task=task)
    assert distance(scaled, exact) < 0.02 and portions.scale.value == 2.0**16
    portions = Portions(size, "fp16")
    portions.scale.is_on, portions.scale.value = False, 1.0
    model = build(heads={"sts": "dot"})
    model.precision = "fp16"
    portions.descend(model, batch_of(task), TASKS[task].loss, {}, 1e-7)
    vanished = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]) / 1e-7
    assert distance(vanished, exact) > 0.2


def test_a_scale_that_is_too_large_is_halved_until_the_gradient_is_finite():
    exact, _ = gradient("fp32", 1.0)
    scaled, portions = gradient("fp16", 1.0, start=2.0**40)
    assert distance(scaled, exact) < 0.02 and 1 < portions.scale.value < 2.0**30


def test_other_precisions_have_a_scale_of_1():
    for precision in ("fp32", "bf16"):
        _, portions = gradient(precision, 1.0)
        assert portions.state_dict()["scale"] == {"value": 1.0, "good": 0}


def test_a_scale_is_remembered():
    one, other = Portions(None, "fp16"), Portions(None, "fp16")
    one.scale.value, one.scale.good = 8.0, 17
    other.load_state_dict(one.state_dict())
    assert (other.scale.value, other.scale.good) == (8.0, 17)


@pytest.mark.xdist_group("processes")
def test_several_processes_halve_the_scale_together():
    """The gradient is infinite in the second process alone."""

    def halve():
        scale, parameter = LossScale("fp16"), nn.Parameter(torch.zeros(1))
        parameter.grad = torch.tensor([math.inf if processes.rank() else 1.0])
        assert processes.size() == 2 and not scale.undo([parameter]) and scale.value == 2.0**15

    assert [status for status, _ in in_processes(2, halve)] == [0, 0]


@pytest.fixture
def train(tiny, sample, tmp_path):
    def train(*flags: str) -> Run:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        argv = ["--pretrained", str(tiny), "--data", str(sample), "--out", str(out), *FULL, "--epochs", "1",
                "--steps_per_epoch", "2", "--limit", "16", "--skip_predictions", *flags]  # fmt: skip
        multitask_classifier.main(argv)
        return Run(out)

    return train


@pytest.mark.parametrize(
    "more", [(), ("--combine", "pcgrad", "--smart", "5", "--smart_epsilon", "0.1")], ids=["", "all"]
)
def test_a_run_in_fp16_is_near_fp32_but_not_equal_to_it(train, more):
    exact, rough = train(*STILL, *more), train(*STILL, *more, "--precision", "fp16")
    for task, loss in exact.metrics[0]["loss"].items():
        assert rough.metrics[0]["loss"][task] != loss
        assert rough.metrics[0]["loss"][task] == pytest.approx(loss, rel=1e-2)
    assert all(tensor.dtype == torch.float32 for tensor in rough.weights.values())


def test_a_scale_is_left_as_it_is_where_a_checkpoint_has_none():
    portions = Portions(None, "fp16")
    portions.load_state_dict({"size": 3})
    assert (portions.size, portions.scale.value) == (3, 2.0**16)


def test_numbers_that_fp16_does_not_have_are_an_error_that_says_so():
    """The query's weights make scores of more than 65,504, which are none for fp32."""
    model = build()
    for layer in model.bert.bert_layers:
        layer.self_attention.query.weight.data.mul_(1e4)
        layer.self_attention.key.weight.data.mul_(1e4)
    examples = [Example("a", ("w1 w2",), 1.0)]
    data = Dataset(TASKS["sst"], examples, TOKENIZER)
    assert outputs(model, data).isfinite().all()
    model.precision = "fp16"
    with pytest.raises(UserError, match=r"sst are not finite numbers; .* or use --precision bf16 or fp32"):
        outputs(model, data)


def test_weights_that_explode_end_the_run_in_one_line(train):
    with pytest.raises(SystemExit) as stop:
        train("--precision", "fp16", "--lr", "1e30", "--tasks", "sst", "--combine", "sum")
    assert str(stop.value.code).startswith("error: epoch 1, step 2: the loss of sst is not a finite number any more")
