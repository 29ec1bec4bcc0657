"""What is added to a task's loss: a table of terms, and how a loss and its terms go backward.

A term is a row of TERMS in the module that has its equations (`smart.py`, `rdrop.py`): a class, made once a run with

    Term(model, seed, **settings)      settings: the values of its flags, without the technique's name

and with

    tasks                              the names of the tasks that it counts for; None for all
    joined(first) → bool               whether it needs the activations of the loss's own pass
    term(first) → (scalar, log)        the weighted term for one batch, a `Pass`, and the numbers to log of it, by name
    largest                            the logged numbers of which an epoch keeps the largest, not the mean
    after_step(progress)               called after each step; progress: the share of the training that is done
    describe(means) → str              a line to print after an epoch; means: task → name → number
    state_dict(), load_state_dict()    the state that a resumed run needs
    of_process                         True where that state differs between processes (as of noise); may be left out

The scalar must be a mean over the batch's examples, since a batch may be computed in parts (`engine.Portions`).

The module's FLAGS hold the term's flags; nothing else in the program knows the term.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from minbert.data import Batch
from minbert.flags import techniques
from minbert.multitask import MultitaskBert
from minbert.smart import exact

Loss = Callable[[Tensor, Tensor], Tensor]  # outputs, labels → scalar


class Pass:
    """One pass of a batch through the model, as its loss and the terms see it.

    logits: (B, K). loss: the scalar that `loss_function` makes of them. divergence: ℓ_s of the batch's task.
    """

    def __init__(self, model: MultitaskBert, batch: Batch, loss_function: Loss):
        self.model, self.batch, self.loss_function = model, batch, loss_function
        has_vectors = batch.vectors is not None  # BERT's, computed before
        self.logits = model(batch) if has_vectors else model.logits(batch, self.embedded)

    @cached_property
    def embedded(self) -> Tensor:
        """What enters BERT's first layer; returns (R, T, C)."""
        return self.model.embed(self.batch)

    @cached_property
    def loss(self) -> Tensor:
        return self.loss_function(self.logits, self.batch.labels)

    @property
    def divergence(self) -> Callable[[Tensor, Tensor], Tensor]:
        return self.model.tasks[self.batch.task].divergence

    @cached_property
    def is_clean(self) -> bool:
        """Whether this pass was without dropout and in fp32."""
        dropout = any(module.p for module in self.model.modules() if isinstance(module, nn.Dropout))
        return not dropout and self.model.precision == "fp32"

    @cached_property
    def clean(self) -> "Pass":
        """The pass without dropout and in fp32: this one if it is clean, else a second one, which all terms share."""
        if self.is_clean:
            return self
        with exact(self.model):
            return Pass(self.model, self.batch, self.loss_function)

    def again(self) -> "Pass":
        """A second pass of the same batch, with dropout's next draws."""
        with self.model.autocast():
            return Pass(self.model, self.batch, self.loss_function)


def build_terms(model: MultitaskBert, terms: Mapping[str, Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """The terms of a run by name. terms: name → settings, of those that are on. Only their modules are imported."""
    return {name: techniques()[name].load()(model, seed, **settings) for name, settings in terms.items()}


def backward(first: Pass, terms: Mapping[str, Any], weight: float = 1.0) -> dict[str, dict[str, Tensor]]:
    """Send the loss of a pass and the terms backward, times `weight`; returns what to log, by term.

    Terms that need nothing of the loss's pass run after its backward pass, so that its activations are freed before.
    """
    log = {}

    def value(name: str) -> Tensor:
        scalar, log[name] = terms[name](first)
        return scalar

    joined = [name for name, term in terms.items() if term.joined(first)]
    loss = first.loss
    for name in joined:
        loss = loss + value(name)
    (weight * loss).backward()
    later = [name for name in terms if name not in joined]
    if later:
        (weight * sum(map(value, later))).backward()
    return log


def active(terms: Mapping[str, Any], task: str, waiting: Sequence[str] = ()) -> dict[str, Any]:
    """Those of `terms` that count for a task now. waiting: names of terms that the schedule holds back."""
    return {n: t for n, t in terms.items() if n not in waiting and (t.tasks is None or task in t.tasks)}
