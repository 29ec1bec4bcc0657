"""Several processes train one model: each works on its share of every batch, and all make the same update.

    torchrun --nproc_per_node 2 multitask_classifier.py …

A batch of n examples is the same everywhere, and process r of N takes n_r of them: the rows r, r + N, r + 2N, … Losses
are means over examples, so the gradient of the whole batch is

    ∇L = Σ_r (n_r/n)·∇L_r        a sum over the processes, which `all_reduce` gives to each of them

This sum is computed for each task by itself, and before everything that is not linear: gradient surgery, clipping,
AdamW. Then N processes make the update that one process makes with the whole batch. (PCGrad in each process and a mean
afterwards is another update: conflicts between shares are not those between batches.)

The order of the batches, the schedule and PCGrad's orders are the same everywhere, since they come from the same seed.
Dropout and SMART's noise have another seed in each process. The first process alone prints, and writes files.

With one process no function here does anything, and torch.distributed is not used.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from minbert.errors import UserError, full_memory

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # the variables that torchrun sets
TIMEOUT = timedelta(hours=2)  # how long a process waits for the others
TALL = 4096  # a gradient with this many rows or more is sent without those that are 0 everywhere


def size() -> int:
    """N, the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """r, the number of this process, from 0 on."""
    return dist.get_rank() if size() > 1 else 0


@contextmanager
def joined() -> Iterator[None]:
    """Inside, this process is connected to the others that torchrun started; without torchrun nothing happens.

    Processes after the first print nothing. If one process fails, all end, and the first to fail prints why.
    """
    if any(name not in os.environ for name in LAUNCHED) or os.environ["WORLD_SIZE"] == "1" or size() > 1:
        yield
        return
    streams, store = (sys.stdout, sys.stderr), None
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        if os.environ["RANK"] != "0":
            sys.stdout = sys.stderr = nowhere
        try:
            with _together():
                store, number, count = next(dist.rendezvous("env://", timeout=TIMEOUT))
                backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
                dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=TIMEOUT)
            yield
            dist.destroy_process_group()
        except Exception:
            if not _fails_first(store):
                sys.exit(1)
            raise
        finally:
            sys.stdout, sys.stderr = streams


def _fails_first(store: Any) -> bool:
    """Whether this is the first process to fail, which reports it."""
    try:
        return store is None or store.add("failures", 1) == 1
    except RuntimeError:  # the shared store is gone
        return True


@contextmanager
def _together() -> Iterator[None]:
    """Inside, this process waits for the others; UserError where one of them has ended."""
    try:
        yield
    except RuntimeError as error:
        if full_memory(error):
            raise
        raise UserError(
            "another process of this run has ended, and this one cannot go on alone; --resume goes on from the last "
            "checkpoint"
        ) from error


def seed_apart(seed: int) -> int:
    """The seed of this process's own noise. Dropout's generator is set to it, except in the first process."""
    own = seed + 1_000_003 * rank()
    if rank():
        torch.manual_seed(own)
    return own


def share(n: int) -> tuple[slice, float]:
    """This process's rows of a batch of n examples, and n_r/n.

    A process without an example takes the first row, with n_r = 0, so that the same parameters get a gradient in all.
    """
    mine = slice(rank(), None, size())
    count = len(range(n)[mine])
    return (mine, count / n) if count else (slice(0, 1), 0.0)


# ------------------------------------------------------------------------------------------------ all processes at once


def summed(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sum of each tensor over the processes. All are sent end to end, by one all_reduce."""
    if size() == 1 or not tensors:
        return list(tensors)
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    with _together():
        dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]


def largest(tensor: Tensor) -> Tensor:
    """The largest of each number over the processes."""
    if size() > 1:
        tensor = tensor.detach().clone()
        with _together():
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor


def sum_gradients(parameters: Sequence[torch.nn.Parameter], numbers: Sequence[Tensor]) -> list[Tensor]:
    """Sum the gradients over the processes, into `.grad`, and `numbers`, whose sums are returned.

    Most rows of the word embedding have no gradient, since their words are not in the batch. They are not sent.
    """
    if size() == 1:
        return list(numbers)
    present = largest(torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32))
    gradients = []
    for p in [p for p, somewhere in zip(parameters, present.tolist(), strict=True) if somewhere]:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        touched = ...  # all rows
        if p.dim() == 2 and len(p) >= TALL and p.device.type == "cpu":
            touched = largest(p.grad.any(dim=1).int()).nonzero()[:, 0]
        gradients.append((p, touched))
    sums = iter(summed([*(p.grad[touched] for p, touched in gradients), *numbers]))
    for p, touched in gradients:
        if touched is ...:
            p.grad = next(sums)
        else:
            p.grad[touched] = next(sums)
    return list(sums)


def gathered(value: Any) -> list[Any]:
    """The values of all processes, in their order."""
    values = [value] * size()
    if size() > 1:
        with _together():
            dist.all_gather_object(values, value)
    return values


def from_first(make: Callable[[], Any]) -> Any:
    """What `make` returns in the first process, for all of them."""
    if size() == 1:
        return make()
    box = [None if rank() else make()]
    with _together():
        dist.broadcast_object_list(box)
    return box[0]


def first_alone(do: Callable[[], Any]) -> Any:
    """Call `do` in the first process, then in all others, so that files are fetched only once."""
    if rank():
        wait()
    result = do()
    if not rank():
        wait()
    return result


def wait():
    """Wait until every process is here."""
    largest(torch.zeros(1))
