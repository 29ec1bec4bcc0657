"""What is added to a pretrained BERT: a table of additions, and how a model gets them.

An addition is a row of ADDITIONS in the module that has its equations (`lora.py`, `pals.py`): a class with

    apply(bert, tasks, **settings)     the surgery, on the built model, after its pretrained weights are in; it leaves
                                       the outputs equal. settings: its flags' values, "rank" for "--lora_rank"
    freezes_bert                       whether BERT's own weights stay as they are
    use(bert, task)                    switch to the task's own parts, where it has some; called before each pass
    plain                              bert → the state_dict of the plain BERT with the same outputs; None where there
                                       is none. (A setting `per_task` says that each task has its own.)

The names of its own parameters have a part that begins with the addition's name (`lora_A`, `adapter`). The module's
FLAGS hold the addition's flags; nothing else in the program knows the addition.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from minbert.errors import UserError
from minbert.flags import techniques

Settings = Mapping[str, Mapping[str, Any]]  # name of an addition → its settings


def names() -> list[str]:
    """The names of all additions."""
    return [name for name, technique in techniques().items() if technique.table == "ADDITIONS"]


def add(bert: nn.Module, tasks: Iterable[str], additions: Settings) -> dict[str, Any]:
    """Apply `additions` to `bert`, in the order of the table; returns their rows by name. ValueError if one fails."""
    unknown = set(additions) - set(names())
    if unknown:
        raise ValueError(f"no addition is called {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    rows = {name: techniques()[name].load() for name in names() if name in additions}
    for name, row in rows.items():
        try:
            row.apply(bert, tasks, **additions[name])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from error
    return rows


def part_of(name: str) -> str:
    """Where one of a model's parameters belongs, by its name: "BERT", "heads", or the name of an addition."""
    if not name.startswith("bert."):
        return "heads"
    return next((a for part in name.split(".") for a in names() if part.startswith(a)), "BERT")


def plain_state_dict(bert: nn.Module) -> dict[str, Tensor]:
    """The state_dict of the plain BERT with the outputs of this one and its additions; UserError if there is none."""
    state = bert.state_dict()
    for name in names():
        if any(part_of(f"bert.{key}") == name for key in state):
            row = techniques()[name].load()
            if row.plain is None:
                switch = techniques()[name].switch.name
                raise UserError(f"with {switch} each task has its own BERT, so there is no single BERT to write")
            state = row.plain(bert)
    return state
