"""How the parts of their BERT call one another, recorded while their own model runs on promised inputs.

The course's layer takes (hidden_states, attention_mask) and gives a tensor. Theirs may be called with keywords, take a
task's number as well, or return a pair. So their model runs once on ids and a mask, and what its layers are given is
kept: a `Form`. With it a probe calls their layer as their model does, and a stand-in answers as their layer does.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

IDS, MASK = [[2, 5, 7, 5, 3], [2, 9, 3, 0, 0]], [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


@dataclass
class Form:
    """One call that was seen. x, mask: the position or the keyword of the input and of the mask."""

    args: list[Any]
    options: dict[str, Any]
    x: int | str = 0
    mask: int | str | None = 1
    output: Any = None

    @classmethod
    def of(cls, args: tuple, options: dict[str, Any], output: Any) -> "Form":
        given = {**dict(enumerate(args)), **options}
        tensors = {k: v for k, v in given.items() if isinstance(v, Tensor)}
        x = next((k for k, v in tensors.items() if "mask" not in str(k)), 0)
        named = [k for k in given if k != x and "mask" in str(k)]
        mask = next(iter([*named, *(k for k in tensors if k != x)]), None)
        return cls(list(args), dict(options), x, mask, output)

    def inputs(self, x: Tensor, mask: Tensor | None = None) -> tuple[tuple, dict[str, Any]]:
        """The arguments of such a call with another input and another mask."""
        args, options = list(self.args), dict(self.options)
        for key, value in ((self.x, x), (self.mask, mask)):
            if key is not None and value is not None:
                (args if isinstance(key, int) else options)[key] = value
        return tuple(args), options

    def taken(self, args: tuple, options: dict[str, Any]) -> tuple[Tensor, Any]:
        """The input and the mask of such a call."""
        given = {**dict(enumerate(args)), **options}
        return given[self.x], given.get(self.mask)

    def like(self, tensor: Tensor) -> Any:
        """A tensor in the place of the one that was returned: alone, or at the head of a tuple."""
        if isinstance(self.output, tuple) and self.output and isinstance(self.output[0], Tensor):
            return (tensor, *self.output[1:])
        return tensor


COURSE = Form([None, None], {})  # (hidden_states, attention_mask) → a tensor


def first(output: Any) -> Any:
    """The tensor of an output that may be a tuple."""
    return output[0] if isinstance(output, tuple) and output and isinstance(output[0], Tensor) else output


def both(output: Any) -> tuple[Tensor, Tensor]:
    """The last hidden state and the pooled vectors of what a BertModel returns, in whatever form."""
    names = ("last_hidden_state", "pooler_output")
    if isinstance(output, dict):
        return output[names[0]], output[names[1]]
    if hasattr(output, names[1]):
        return getattr(output, names[0]), getattr(output, names[1])
    hidden, pooled = output
    return hidden, pooled


class Forms:
    """What was seen of a model of theirs: `layer`, `attention` and `embed`, each a `Form`."""

    def __init__(self, model: nn.Module | None):
        self.model, self.layer, self.attention, self.embed = model, COURSE, COURSE, Form([None], {}, mask=None)
        self.seen: dict[str, type] = {}  # the classes of the first layer and of its attention
        if model is None:
            return
        layers = getattr(model, "bert_layers", None)
        one = layers[0] if isinstance(layers, nn.ModuleList) and len(layers) else None
        watched = {"layer": one, "attention": getattr(one, "self_attention", None)}
        self.seen = {name: type(module) for name, module in watched.items() if isinstance(module, nn.Module)}
        hooks = []
        for name, module in watched.items():
            if isinstance(module, nn.Module):
                hooks.append(module.register_forward_hook(self._keep(name), with_kwargs=True, always_call=True))
        embed = getattr(model, "embed", None)

        def embedding(*args: Any, **options: Any) -> Any:
            self.embed = Form.of(args, options, None)
            return embed(*args, **options)

        if embed is not None:
            model.embed = embedding
        with contextlib.suppress(Exception), torch.no_grad():  # still to be written, perhaps
            model(torch.tensor(IDS), torch.tensor(MASK))
        for hook in hooks:
            hook.remove()
        if embed is not None:
            model.__dict__.pop("embed", None)

    def _keep(self, name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, options: dict[str, Any], output: Any):
            setattr(self, name, Form.of(args, options, output))

        return hook

    @torch.no_grad()
    def masks(self, tokens: list[list[int]]) -> Any:
        """The mask that their model gives its layers for rows of 1 (token) and 0 (pad); None where it gives none."""
        found = []

        class Stop(Exception):
            pass

        def hook(module: nn.Module, args: tuple, options: dict[str, Any]):
            found.append(self.layer.taken(args, options)[1])
            raise Stop

        handle = self.model.bert_layers[0].register_forward_pre_hook(hook, with_kwargs=True)
        with contextlib.suppress(Stop):
            self.model(torch.ones(len(tokens), len(tokens[0]), dtype=torch.long), torch.tensor(tokens))
        handle.remove()
        return found[0] if found else None

    def additive(self) -> bool:
        """Whether that mask is the course's: 0 at tokens and hugely negative at pads."""
        if self.model is None or (self.attention is COURSE and self.layer is COURSE):
            return True
        mask = self.layer.taken(tuple(self.layer.args), self.layer.options)[1]
        if not isinstance(mask, Tensor) or not mask.is_floating_point():
            return False
        return mask.shape == (2, 1, 1, 5) and bool((mask[1, 0, 0, :3] == 0).all() and (mask[1, 0, 0, 3:] < -1).all())


def forms(project: Any, **sizes: int) -> Forms:
    """The forms of a project's BertModel of these sizes; the course's where it cannot run."""
    try:
        return Forms(project.get("bert", "BertModel")(project.config(**sizes)).eval())
    except Exception:  # absent, or still to be written: what is wrong in it is another part's matter
        return Forms(None)


def runs_at_base(project: Any, wrong: dict[str, Any]) -> bool:
    """Whether their model runs with two layers of bert-base's width, in evaluation and in training.

    wrong: the outcomes in which theirs differs. Returns False if one of them is not an error.
    """
    if not all("error" in outcome for outcome in wrong.values()):
        return False
    model = project.get("bert", "BertModel")(
        project.config(hidden_size=768, num_attention_heads=12, intermediate_size=3072, num_hidden_layers=2)
    )
    for training in (False, True):
        with torch.no_grad():
            both(model.train(training)(torch.tensor(IDS), torch.tensor(MASK)))
    return True


def called_as(module: nn.Module, form: Form, change: Callable[[Tensor], Any] = lambda mask: mask) -> nn.Module:
    """The module, which may now be called as (x, mask) and gives a tensor. change: applied to the mask first."""
    module.register_forward_pre_hook(
        lambda module, args, options: form.inputs(args[0], change(args[1])), with_kwargs=True
    )
    module.register_forward_hook(lambda module, args, output: first(output))
    return module


class Instead:
    """Mixed into a right module that replaces one of theirs: it takes the same arguments and returns the same form.

    Any other attribute is looked up in theirs.
    """

    def stand_for(self, theirs: nn.Module, form: Form, change: Callable[[Any], Tensor] = lambda mask: mask) -> Any:
        self.__dict__.update(theirs=theirs, form=form, change=change)
        return self

    def forward(self, *args: Any, **options: Any) -> Any:
        x, mask = self.form.taken(args, options)
        return self.form.like(super().forward(x, self.change(mask)))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "theirs" not in self.__dict__:
                raise
            return getattr(self.__dict__["theirs"], name)
