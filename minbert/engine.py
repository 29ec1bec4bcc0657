"""A run's device, memory and processes, and the one step in which weights change.

Three scripts share this: multitask_classifier.py, classifier.py (the same loop) and the further pre-training.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from minbert import processes
from minbert.data import Batch
from minbert.errors import UserError, full_memory
from minbert.multitask import MultitaskBert
from minbert.optimizer import set_lr
from minbert.pcgrad import take_gradients
from minbert.scaling import LossScale
from minbert.terms import Loss, Pass, backward

Log = dict[str, dict[str, Tensor]]  # term → name → number


def find_device(use_gpu: bool) -> torch.device:
    """The device that a run uses, one a process: a CUDA device, or without CUDA the GPU of a Mac (MPS).

    UserError if PyTorch sees no GPU, or too few for the processes.
    """
    if not use_gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        if not torch.backends.mps.is_available():
            raise UserError("--use_gpu: this PyTorch sees no CUDA device, and no GPU of a Mac; leave the flag out to "
                            "train on the CPU")  # fmt: skip
        if processes.size() > 1:
            raise UserError("--use_gpu: a Mac has one GPU; leave torchrun out")
        return torch.device("mps")
    if processes.size() > 1:
        number, count = int(os.environ.get("LOCAL_RANK", processes.rank())), torch.cuda.device_count()
        if number >= count:
            raise UserError(f"--use_gpu: each process needs a GPU of its own; start {count} at most on this machine")
        torch.cuda.set_device(number)
    return torch.device("cuda")


def settle_device(args: Namespace) -> torch.device:
    """The device of a run. Where --resume goes on with a run on a machine without a GPU, that is the CPU."""
    if args.resume and args.use_gpu and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        print("--use_gpu: this machine has no GPU that PyTorch sees, so the run goes on on the CPU", file=sys.stderr)
        args.use_gpu = False
    return find_device(args.use_gpu)


def seed_everything(seed: int):
    """Seed torch's generator, from which dropout and fresh heads draw. Other draws have their own generators."""
    torch.manual_seed(seed)


class Portions:
    """Passes batches forward and backward, at most `size` examples at a time; None is a whole batch at once.

    Losses and terms are means over examples, L = Σₖ (nₖ/n)·Lₖ, so the portions' gradients add up to the batch's. When
    the memory is full, the size is halved and the batch repeated; the update stays that of the whole batch. In the same
    way the gradients of several processes' shares of a batch add up to the batch's. precision: the model's; with "fp16"
    the loss is scaled (`scaling.py`).
    """

    def __init__(self, size: int | None = None, precision: str = "fp32"):
        self.size, self.scale = size, LossScale(precision)

    def state_dict(self) -> dict[str, Any]:
        return {"size": self.size, "scale": self.scale.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]):
        self.size = state["size"]
        if "scale" in state:  # earlier versions saved none
            self.scale.load_state_dict(state["scale"])

    def descend(
        self, model: MultitaskBert, batch: Batch, loss: Loss, terms: Mapping[str, Any], weight: float
    ) -> tuple[Tensor, Log]:
        """Send a batch's loss and terms backward, times `weight`; returns the loss, and what to log, by term.

        Each process sends its share of the batch backward, and gets the gradient, the loss and the log of the whole.
        """
        earlier = take_gradients(model.parameters())  # of other tasks in this step
        mine, share = processes.share(len(batch))
        part = batch.part(mine) if processes.size() > 1 else batch
        result = None
        while result is None:
            result = self._try(model, part, loss, terms, weight * share * self.scale.value)
            if result and not self.scale.undo(model.parameters()):
                result = None
                model.zero_grad()
        result = whole(model, *result, share, terms)
        for p, gradient in earlier.items():
            p.grad = gradient if p.grad is None else p.grad + gradient
        return result

    def _try(self, model, batch, loss, terms, weight):
        """The same for this process alone; None if the memory was full, and then the size is half of what it was."""
        try:
            return self._descend(model, batch, loss, terms, weight)
        except (MemoryError, RuntimeError) as error:
            memory, size = full_memory(error), min(self.size or len(batch), len(batch))
            if not memory or size == 1:
                raise
            self.size = (size + 1) // 2
            print(f"the {memory}'s memory is full: --micro_batch {self.size} from here on, with the same updates",
                  file=sys.stderr)  # fmt: skip
        model.zero_grad()  # what the error held is freed by now
        if model.device.type != "cpu":
            torch.get_device_module(model.device).empty_cache()
        return None

    def _descend(self, model, batch, loss, terms, weight):
        total, logs = torch.zeros((), device=model.device), []
        for part in batch.split(self.size) if self.size and self.size < len(batch) else [batch]:
            share = len(part) / len(batch)
            with model.autocast():
                first = Pass(model, part, loss)
            logs.append((share, backward(first, terms, weight * share)))
            total += share * first.loss.detach()

        def joined(term: str, name: str) -> Tensor:
            if name in terms[term].largest:
                return torch.stack([log[term][name] for _, log in logs]).max()
            return sum(share * log[term][name] for share, log in logs)

        return total, {term: {name: joined(term, name) for name in log} for term, log in logs[0][1].items()}


def whole(model: nn.Module, loss: Tensor, log: Log, share: float, terms: Mapping[str, Any]) -> tuple[Tensor, Log]:
    """Replace a share's weighted gradients by the whole batch's; returns the whole batch's loss and log.

    loss, log: of this process's share of the batch. share: n_r/n.
    """
    if processes.size() == 1:
        return loss, log
    means = [(term, name) for term in log for name in log[term] if name not in terms[term].largest]
    numbers = [loss, *(log[term][name] for term, name in means)]
    loss, *means_of_all = processes.sum_gradients([*model.parameters()], [share * number for number in numbers])
    result = {term: {name: processes.largest(x) for name, x in names.items() if (term, name) not in means}
              for term, names in log.items()}  # fmt: skip
    for (term, name), number in zip(means, means_of_all, strict=True):
        result[term][name] = number
    return loss, result


def checked_step(
    model: nn.Module,
    optimizer: Optimizer,
    losses: Mapping[str, Tensor],
    place: str,
    clip: float = 0.0,
    factor: float = 1.0,
):
    """One update of the weights from their gradients, or a UserError before any weight has changed.

    losses: the step's losses, by task; they and the norm of the whole gradient must be finite numbers. place: where the
    run is, for the error. clip: cut the whole gradient to this norm; 0: no clipping. factor: of the learning rates.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if not torch.isfinite(norm):
        tasks = [task for task, loss in losses.items() if not torch.isfinite(loss)]
        raise UserError(
            f"{place}: the {'loss' if tasks else 'gradient'} of {' and '.join(tasks or losses)} is not a finite number "
            "any more; lower --lr, or add --clip 1"
        )
    if clip:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), clip, norm)
    set_lr(optimizer, factor)
    optimizer.step()
