"""The machine under a run: its device, and the one step in which weights change.

Three scripts share this: multitask_classifier.py, classifier.py (the same loop) and the further pre-training.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from minbert.errors import UserError
from minbert.optimizer import set_lr


def find_device(use_gpu: bool) -> torch.device:
    """The device that a run uses; UserError where a GPU is asked for and PyTorch sees none."""
    if use_gpu and not torch.cuda.is_available():
        raise UserError("--use_gpu: this PyTorch sees no CUDA device; leave the flag out to train on the CPU")
    return torch.device("cuda" if use_gpu else "cpu")


def seed_everything(seed: int):
    """Fix dropout and fresh heads, which draw from torch's generator; what else is random has its own."""
    torch.manual_seed(seed)


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
