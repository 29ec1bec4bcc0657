"""PALs and low-rank layers, in pieces (Stickland & Murray 2019, §3).

    h' = LN(ffn_out + attn_out + TS(h)),   TS(h) = V_D·g(V_E·h)          beside every BERT layer, one for each task

    PAL        g is multi-head attention; a task has one V_E and V_D for all layers, and the q, k, v of each layer
    low-rank   g is the identity; a task has a V_E and V_D in every layer

The layers of BERT themselves are made simple for this: their attention takes the mean over the tokens that are not
pads, and their feed-forward network gives zero. So the outputs show the task's layer and the place where it joins.
"""

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.config import BertConfig
from minbert.sanity import library
from minbert.sanity.core import Part, Pieces, Probe, group, seeded
from minbert.sanity.search import optional, unlike

L, C, H, SIZE = 2, 8, 2, 4  # layers, hidden size, heads; the inner width of the added layers
CONFIG = BertConfig(
    vocab_size=5, hidden_size=C, num_hidden_layers=L, num_attention_heads=H, intermediate_size=6,
    max_position_embeddings=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
TASKS = ("one", "two")
KINDS = ("pal", "low_rank")

# ------------------------------------------------------------------------------------------------ the right pieces


def attend(module: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """softmax(QKᵀ/√D + mask)·V of H heads, with a module's query, key and value. (B, T, size) → (B, T, size)."""
    q, k, v = (f(x).unflatten(-1, (H, -1)).transpose(1, 2) for f in (module.query, module.key, module.value))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + mask
    return (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)


def norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, (C,), eps=1e-12)


def tokens_mean(x: Tensor, mask: Tensor) -> Tensor:
    """What the simplified attention of BERT gives: (B, T, C) → (B, T, C)."""
    return mask.softmax(dim=-1)[:, 0] @ x + torch.zeros_like(x)


def beside(h: Tensor, mask: Tensor, TS: nn.Module) -> Tensor:
    """h' = LN(attn_out + TS(h)), with attn_out = LN(h + attention(h))."""
    return norm(norm(h + tokens_mean(h, mask)) + TS(h, mask))


RIGHT = {
    "place": beside,
    "shared pair": {"pal": True, "low_rank": False},  # one V_E and V_D for all layers
    "of each task": True,
    "use": lambda tasks, task: task,
    "start": nn.init.zeros_,  # V_D
    "mask": lambda mask: mask,  # what a PAL's attention is told about pads
    "g": {"pal": attend, "low_rank": lambda module, x, mask: x},
}


class TS(nn.Module):
    """V_D·g(V_E·h), with the names that the package's own layers have."""

    def __init__(self, p: Pieces, kind: str, encode: nn.Linear, decode: nn.Linear):
        super().__init__()
        self.encode, self.decode, self.p, self.kind = encode, decode, p, kind
        if kind == "pal":
            self.attention = nn.ModuleDict({name: nn.Linear(SIZE, SIZE) for name in ("query", "key", "value")})

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        module = SimpleNamespace(**self.attention) if self.kind == "pal" else None
        return self.decode(self.p["g"][self.kind](module, self.encode(h), self.p["mask"](mask)))


class Added:
    """A BERT of L layers with a task's layers beside them, theirs or our own."""

    def added(self, bert: nn.Module) -> dict[str, nn.Parameter]:
        """The added layers' parameters, each once."""
        return {name: p for name, p in bert.named_parameters() if ".adapter." in name}


class Reference(Added):
    """Such a BERT of these pieces."""

    def __init__(self, pieces: Pieces):
        self.pieces = pieces

    def build(self, kind: str) -> nn.Module:
        """The parameters of the added layers as `bert_layers.0.adapter.one.encode.weight` and so on."""
        p, made = self.pieces, {}
        for task in TASKS if p["of each task"] else TASKS[:1]:
            pairs = [(nn.Linear(C, SIZE), nn.Linear(SIZE, C)) for _ in range(L)]
            for _, decode in pairs:
                p["start"](decode.weight)
                p["start"](decode.bias)
            made[task] = [TS(p, kind, *pairs[0 if p["shared pair"][kind] else i]) for i in range(L)]
        bert = nn.Module()
        bert.bert_layers = nn.ModuleList(nn.Module() for _ in range(L))
        for i, layer in enumerate(bert.bert_layers):
            layer.adapter = nn.ModuleDict({task: made[task if task in made else TASKS[0]][i] for task in TASKS})
        return bert

    def run(self, bert: nn.Module, task: str, h: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors (B, T, C) through all layers with this task's beside them."""
        mask = (1 - attention_mask[:, None, None, :]) * -1e9
        for layer in bert.bert_layers:
            h = self.pieces["place"](h, mask, layer.adapter[self.pieces["use"](TASKS, task)])
        return h


# ------------------------------------------------------------------------------------------------ theirs


class Theirs(Added):
    """A package like ours: bert.py whose layers have a place for an `adapter`, and pals.py."""

    def __init__(self, bert: Any, pals: Any):
        self.bert, self.pals = bert, pals

    def build(self, kind):
        bert = self.bert.BertModel(CONFIG).eval()
        add = self.pals.add_pals if kind == "pal" else self.pals.add_low_rank
        add(bert, TASKS, SIZE)
        with torch.no_grad():
            for name, p in bert.named_parameters():  # attention: the mean of the tokens; feed-forward: zero
                if ".adapter." not in name:
                    p.fill_(float("norm.weight" in name))
            for layer in bert.bert_layers:
                layer.self_attention.value.weight.copy_(torch.eye(C))
                layer.attention_dense.weight.copy_(torch.eye(C))
        for module in bert.modules():  # the right attention in place of theirs, which another part checks
            if all(isinstance(getattr(module, name, None), nn.Linear) for name in ("query", "key", "value")):
                module.forward = partial(library.attention, module, heads=H)
        return bert

    def run(self, bert, task, h, attention_mask):
        self.pals.use_task(bert, task)
        return bert.encode(h, attention_mask)


def find(project: Any) -> Theirs:
    """A package like ours, the only form that the check knows."""
    pals = optional(project, "pals", "add_pals", "add_low_rank", "use_task")
    bert = optional(project, "bert", "BertModel") if pals else None
    if pals is None or bert is None or not hasattr(bert.BertModel, "encode"):
        unlike(project, r"(^|_)[Pp][Aa][Ll]s?(?![a-z])|[Pp]rojected_?[ ]?[Aa]ttention|Stickland",
               "a pals.py with add_pals(bert, tasks, size), add_low_rank(…) and use_task(bert, task)")  # fmt: skip
    return Theirs(bert, pals)


# ------------------------------------------------------------------------------------------------ probes


def inputs() -> tuple[Tensor, Tensor]:
    return seeded("h", 2, 3, C), torch.tensor([[1.0, 1, 1], [1, 1, 0]])


@torch.no_grad()
def filled(s, bert: nn.Module) -> nn.Module:
    for name, p in s.added(bert).items():
        p.copy_(seeded(name, *p.shape, scale=0.6))
    return bert


def each(function) -> Any:
    """Ask the same of both kinds."""
    return lambda s: {kind: function(s, kind) for kind in KINDS}


def at_the_start(s, kind: str) -> Tensor:
    bert, (h, attention_mask) = s.build(kind), inputs()
    with torch.no_grad():
        first = s.run(bert, "one", h, attention_mask)
        for name, p in s.added(bert).items():
            if ".encode." in name:
                p.add_(1.0)
        return (s.run(bert, "one", h, attention_mask) - first).abs().max() > 1e-6


def answers(task: str):
    def run(s, kind: str) -> Tensor:
        with torch.no_grad():
            return s.run(filled(s, s.build(kind)), task, *inputs())

    return each(run)


def numbers(s, kind: str) -> Tensor:
    return torch.tensor(sum(p.numel() for p in s.added(s.build(kind)).values()))


def reached(s, kind: str) -> Tensor:
    bert = filled(s, s.build(kind))
    h, attention_mask = inputs()
    s.run(bert, "two", h.requires_grad_(), attention_mask).square().sum().backward()
    grads = {name: p.grad is not None and bool(p.grad.any()) for name, p in s.added(bert).items()}
    return torch.tensor([any(g for name, g in grads.items() if f".{task}." in name) for task in TASKS])


SEEN = f"A BERT of {L} simplified layers, C = {C}, with a layer of width {SIZE} for each of two tasks"
PROBES = (
    Probe("whether the answer changes at the start", each(at_the_start),
          f"{SEEN}, just added: whether V_E changes the answer, which it cannot while V_D is zero."),
    Probe("what task one says", answers("one"), f"{SEEN}, of seeded numbers: two sentences, the second with a pad."),
    Probe("what task two says", answers("two"), "The same with the other task in use."),
    Probe("how many numbers were added", each(numbers),
          "A PAL's V_E and V_D count once a task, a low-rank layer's in every layer."),
    Probe("whom task two's loss reaches", each(reached),
          "A backward pass with task two in use: whether the layers of task one and of task two have a gradient."),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ mistakes

LAYER, INNER = "h' = LN(ffn_out + attn_out + TS(h))", "TS(h) = V_D·g(V_E·h)"
PAPER = "Stickland & Murray 2019, §3"
JOINED = ("BertLayer.forward",)


def sharing(pal: bool, low_rank: bool) -> Pieces:
    return {"shared pair": {"pal": pal, "low_rank": low_rank}}


def inner(**g: Any) -> Pieces:
    return {"g": RIGHT["g"] | g}


def identity(module: Any, x: Tensor, mask: Tensor) -> Tensor:
    return x


MISTAKES = (
    *group(LAYER, PAPER, JOINED,
        ("TS looks at the attention's output",
         {"place": lambda h, mask, TS: norm((a := norm(h + tokens_mean(h, mask))) + TS(a, mask))},
         "It stands beside the whole layer: give it h, what goes into the layer."),
        ("TS is added after the last LayerNorm",
         {"place": lambda h, mask, TS: norm(norm(h + tokens_mean(h, mask))) + TS(h, mask)},
         "It joins the sum inside the last LayerNorm, beside the feed-forward network's output."),
        ("TS is added to the layer's input",
         {"place": lambda h, mask, TS: norm(norm((x := h + TS(h, mask)) + tokens_mean(x, mask)))},
         "It stands beside the layer, not in front of it."),
        ("TS is added to the attention's input",
         {"place": lambda h, mask, TS: norm(norm(h + tokens_mean(h + TS(h, mask), mask)))},
         "h + SA(h + TS(h)) is printed in a report; the paper and its code add TS(h) beside the layer."),
        ("TS is added before the first LayerNorm",
         {"place": lambda h, mask, TS: norm(norm(h + tokens_mean(h, mask) + TS(h, mask)))},
         "It joins the sum inside the last LayerNorm of the layer, not inside the attention's."),
        ("the task's layer is never used", {"place": lambda h, mask, TS: norm(norm(h + tokens_mean(h, mask)))},
         "Nothing of TS(h) reaches the output. Add it beside the feed-forward network's output.")),
    *group(INNER, PAPER, ("add_pals",),
        ("a PAL's V_E and V_D are not shared over the layers", sharing(False, False),
         "A task has one V_E and one V_D for all its layers; only q, k and v are each layer's own. Make the pair once, "
         "before the loop over the layers."),
        ("a low-rank layer's V_E and V_D are shared over the layers", sharing(True, True),
         "Low-rank layers have a pair in every layer. Make it inside the loop over the layers.", ("add_low_rank",))),
    *group("TS of the task i is TSᵢ", PAPER, ("_add", "add_pals"),
        ("all tasks have the same layer", {"of each task": False},
         "One task's loss then moves the others' layer. Make one for each task."),
        ("the first task's layer always answers", {"use": lambda tasks, task: tasks[0]},
         "The layer that answers must be the one of the task whose batch it is.", ("use_task", "TaskTable.forward"))),
    *group(INNER, PAPER, ("_pair", "add_pals"),
        ("V_D does not start at zero", {"start": lambda p: nn.init.normal_(p)},
         "The pretrained model is disturbed before it has learned anything. Start V_D with zeros.")),
    *group("softmax(QKᵀ/√D + mask)·V", PAPER, ("PAL.forward",),
        ("a PAL's attention looks at pads", {"mask": torch.zeros_like},
         "It is attention as in BERT: give it the layer's mask.")),
    *group(INNER, PAPER, ("PAL.forward",),
        ("a PAL without attention", inner(pal=identity),
         "g is multi-head attention between V_E and V_D; without it this is a low-rank layer."),
        ("a low-rank layer with a GELU that was not asked for", inner(low_rank=lambda module, x, mask: F.gelu(x)),
         "g is the identity unless asked otherwise.", ("LowRank.forward",))),
)  # fmt: skip

PART = Part(
    name="pals",
    title="layers of a task's own (PALs)",
    right=RIGHT,
    reference=Reference,
    find=find,
    probes=PROBES,
    mistakes=MISTAKES,
)
