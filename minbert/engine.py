"""The machine under a run: its device, its memory, and the one step in which weights change.

Three scripts share this: multitask_classifier.py, classifier.py (the same loop) and the further pre-training.
"""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from minbert.data import Batch
from minbert.errors import UserError, full_memory
from minbert.multitask import MultitaskBert
from minbert.optimizer import set_lr
from minbert.pcgrad import take_gradients
from minbert.terms import Loss, Pass, backward


def find_device(use_gpu: bool) -> torch.device:
    """The device that a run uses; UserError where a GPU is asked for and PyTorch sees none."""
    if use_gpu and not torch.cuda.is_available():
        raise UserError("--use_gpu: this PyTorch sees no CUDA device; leave the flag out to train on the CPU")
    return torch.device("cuda" if use_gpu else "cpu")


def seed_everything(seed: int):
    """Fix dropout and fresh heads, which draw from torch's generator; what else is random has its own."""
    torch.manual_seed(seed)


class Portions:
    """Batches forward and backward, at most `size` examples at a time; None is a whole batch at once.

    Losses and terms are means over examples, L = Σₖ (nₖ/n)·Lₖ, so the portions' gradients add up to the batch's. Where
    the memory is full, the size halves, and the batch is done again: the update stays that of the whole batch.
    """

    def __init__(self, size: int | None = None):
        self.size = size

    def state_dict(self) -> dict[str, int | None]:
        return {"size": self.size}

    def load_state_dict(self, state: Mapping[str, int | None]):
        self.size = state["size"]

    def descend(
        self, model: MultitaskBert, batch: Batch, loss: Loss, terms: Mapping[str, Any], weight: float
    ) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        """Send a batch's loss and terms backward, times `weight`; returns the loss, and what to log, by term."""
        earlier = take_gradients(model.parameters())  # of other tasks in this step
        try:
            result = self._descend(model, batch, loss, terms, weight)
        except (MemoryError, RuntimeError) as error:
            memory, size = full_memory(error), min(self.size or len(batch), len(batch))
            if not memory or size == 1:
                raise
            self.size = (size + 1) // 2
            print(f"the {memory}'s memory is full: --micro_batch {self.size} from here on, with the same updates",
                  file=sys.stderr)  # fmt: skip
            result = None  # what the error holds is freed when this block ends
        if result is None:
            model.zero_grad()
            torch.cuda.empty_cache()
            result = self.descend(model, batch, loss, terms, weight)
        for p, gradient in earlier.items():
            p.grad = gradient if p.grad is None else p.grad + gradient
        return result

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
    run is, for the error. clip: cut the whole gradient to this norm; 0 does not. factor: of the learning rates.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if not torch.isfinite(norm):
        wild = [task for task, loss in losses.items() if not torch.isfinite(loss)]
        raise UserError(
            f"{place}: the {'loss' if wild else 'gradient'} of {' and '.join(wild or losses)} is not a finite number "
            "any more; lower --lr, or add --clip 1"
        )
    if clip:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), clip, norm)
    set_lr(optimizer, factor)
    optimizer.step()
