"""What the tests of several techniques share: batches of random words for the course's tasks, and a task's loss."""

from collections.abc import Callable

import torch
from torch import Tensor

from minbert.command_line import parse
from minbert.data import Batch
from minbert.flags import techniques
from minbert.multitask import MultitaskBert
from minbert.pcgrad import Memory, give_gradients, take_gradients
from minbert.tasks import TASKS

NAMES = ("sst", "para", "sts")
V, T = 30, 7  # pieces in the vocabulary, tokens in a row


def rows(count: int = 5, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random ids and their mask, both (count, T). The first row has no pads, each other has at least one."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, V, (count, T), generator=random)
    lengths = torch.randint(2, T, (count, 1), generator=random)
    lengths[0] = T
    mask = (torch.arange(T) < lengths).long()
    return ids * mask, mask


def batch_of(task: str, pairs: str = "separate", B: int = 4, seed: int = 1) -> Batch:
    """A batch of a task, with random labels of its range."""
    ids, mask = rows(2 * B if TASKS[task].is_pair and pairs == "separate" else B, seed)
    low, high = TASKS[task].label_range
    labels = torch.randint(low, high + 1, (B,), generator=torch.Generator().manual_seed(seed)).float()
    return Batch(task, list(range(B)), ids, mask, torch.zeros_like(ids), labels)


def loss_of(model: MultitaskBert, batch: Batch) -> Tensor:
    return TASKS[batch.task].loss(model(batch), batch.labels.to(model.dtype))


def combine_as_in_training(model: MultitaskBert, batches: list[Batch], combine: Callable):
    """Leave the combined gradients in `.grad`, as a step of the training loop does."""
    gradients = []
    for batch in batches:
        loss_of(model, batch).backward()
        gradients.append(take_gradients(model.bert.parameters()))
    give_gradients(gradients, combine, Memory(0))


def example_settings(name: str) -> dict:
    """The settings of a technique that is switched on as the example of its row says."""
    technique = techniques()[name]
    return technique.settings(parse("m", [technique.switch.name, *technique.switch.example.split()], ""))
