"""Self-attention: what goes wrong between the three projections and the merged heads.

    Attention(Q, K, V) = softmax(QKᵀ/√D + mask)·V        for each of H heads of width D = C/H, side by side

(Vaswani et al. 2017, §3.2). The subject is a module like the starter's BertSelfAttention: `query`, `key` and `value`
are its linear layers, forward takes (B, T, C) and the additive mask (B, 1, 1, T), which is 0 for a token and hugely
negative for a pad. Dropout falls on the probabilities.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.config import BertConfig
from minbert.sanity import core, library
from minbert.sanity.bench import same
from minbert.sanity.core import DROPPED, Absent, CannotCheck, Part, Pieces, Probe, group
from minbert.sanity.evidence import record_probe
from minbert.sanity.forms import Forms, called_as, forms
from minbert.sanity.search import optional

B, T, C, H = 2, 5, 8, 2
D = C // H
P = 0.5  # the dropout's rate; not that of the hidden layers
SOURCE = "Vaswani et al. 2017, §3.2.1"
HEADS = "Vaswani et al. 2017, §3.2.2"
PLAIN = re.compile(r"(query|key|value|_dense|_layer_norm|_embedding)\.(weight|bias)$")
ATTENTION = ("BertSelfAttention.attention", "BertSelfAttention.attend", "plain_attention", "BertSelfAttention.forward")
PROJECT = ("BertSelfAttention.transform", "BertSelfAttention.forward")
MERGE = ("BertSelfAttention.attention", "BertSelfAttention.forward")
FORWARD, FUSED = ("BertSelfAttention.forward",), ("sdpa_attention",)


def no_change(x: Tensor, *others: object) -> Tensor:
    return x


def dropout(x: Tensor, training: bool) -> Tensor:
    return F.dropout(x, P, training)


RIGHT: Pieces = {
    "roles": lambda q, k, v: (q, k, v),  # which projection plays which part
    "split": lambda x: x.view(*x.shape[:2], H, D).transpose(1, 2),  # (B, T, C) → (B, H, T, D)
    "product": lambda q, k: q @ k.transpose(-2, -1),  # QKᵀ, (B, H, T, T): row = who looks, column = at whom
    "scale": lambda scores: scores / math.sqrt(D),
    "drop scores": no_change,
    "mask": lambda scores, mask: scores + mask,
    "softmax": lambda scores: scores.softmax(dim=-1),  # each row sums to 1
    "mask probabilities": no_change,
    "drop": dropout,
    "weigh": lambda p, v: p @ v,
    "drop values": no_change,
    "merge": lambda x: x.transpose(1, 2).flatten(2),  # (B, H, T, D) → (B, T, C)
    "after": no_change,
    "out": no_change,
    "fused rate": lambda training: P if training else 0.0,  # of `sdpa_attention`, which a project may have besides
    "fused mask": lambda mask: mask,
}


class Attention(nn.Module):
    """Self-attention out of pieces, with the starter's names for its parameters."""

    def __init__(self, pieces: Pieces):
        super().__init__()
        self.pieces = pieces
        self.query, self.key, self.value = nn.Linear(C, C), nn.Linear(C, C), nn.Linear(C, C)
        self.functions, self.is_right = (self.heads, self.fused), True

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        do, x = self.pieces, hidden_states
        q, k, v = do["roles"](self.query(x), self.key(x), self.value(x))
        q, k, v = do["split"](q), do["split"](k), do["split"](v)
        return do["out"](do["after"](do["merge"](self.heads(q, k, v, attention_mask, self)), x))

    def heads(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: nn.Module) -> Tensor:
        """As our `plain_attention`: what each head gives, (B, H, T, D)."""
        do, training = self.pieces, dropout.training
        scores = do["drop scores"](do["scale"](do["product"](q, k)), training)
        p = do["softmax"](do["mask"](scores, mask))
        p = do["drop"](do["mask probabilities"](p, mask), training)
        return do["drop values"](do["weigh"](p, v), training)

    def fused(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: nn.Module) -> Tensor:
        """As our `sdpa_attention`."""
        rate, mask = self.pieces["fused rate"](dropout.training), self.pieces["fused mask"](mask)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)


def reference(pieces: Pieces) -> Attention:
    return core.fill(Attention(pieces)).eval()


def find(project: Any) -> nn.Module:
    """Their attention, called as their own layer calls it, with the mask that their own model makes."""
    seen = seen_in(project)
    theirs = built(project, seen)
    module = optional(project, "bert", "plain_attention", "sdpa_attention")  # as our bert.py has them
    theirs.functions = (module.plain_attention, module.sdpa_attention) if module else None
    if masks_differently(project, seen):
        return called_as(theirs, seen.attention, lambda mask: seen.masks((mask[:, 0, 0] == 0).long().tolist()))
    return called_as(theirs, seen.attention)


def weights(**sizes: Any) -> nn.Module:
    """The right weights, by the starter's names."""
    config = {"hidden_size": C, "num_attention_heads": H, "attention_probs_dropout_prob": P, **sizes}
    return library.Attention(BertConfig(**config))


def seen_in(project: Any) -> Forms:
    return forms(project, hidden_size=C, num_attention_heads=H)


def built(project: Any, seen: Forms) -> nn.Module:
    """Their BertSelfAttention, or whichever class their layer has in its place, with the right weights."""
    config = project.config(
        hidden_size=C, num_attention_heads=H, attention_probs_dropout_prob=P, hidden_dropout_prob=0.2,
        rate="attention_probs_dropout_prob",
    )  # fmt: skip
    theirs = project.used("BertSelfAttention", seen.seen.get("attention"))(config)
    if not isinstance(theirs, nn.Module):
        raise CannotCheck("BertSelfAttention is not an nn.Module")
    return core.copy_by_name(core.fill(weights()), theirs).eval()


def masks_differently(project: Any, seen: Forms) -> bool:
    """Whether their model gives its layers another mask than the course's, with which their attention is right.

    A boolean mask, which model and attention must read alike, is an example. A wrong mask is a mistake of the model.
    """
    if seen.additive():
        return False
    right = evaluated(core.fill(weights()))
    try:
        theirs = built(project, seen)
        mask = seen.masks(TOKENS)
        with contextlib.suppress(TypeError, RuntimeError):
            evaluated(called_as(built(project, seen), seen.attention))
            found = evaluated(called_as(theirs, seen.attention, lambda _: mask))
            return found.shape == right.shape and torch.allclose(found, right, atol=1e-5, rtol=1e-4)
        evaluated(called_as(theirs, seen.attention, lambda _: mask))
    except Exception:
        return False
    return True


# ------------------------------------------------------------------------------------------------ probes

TOKENS = [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


def additive(tokens: list[list[int]]) -> Tensor:
    """Rows of 1 (token) and 0 (pad) → the mask that is added to the scores, (B, 1, 1, T)."""
    return (1.0 - torch.tensor(tokens, dtype=torch.float32))[:, None, None, :] * -10000.0


@torch.no_grad()
def with_weights(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """The output while the three matrices are these, (C, C), and the biases zero; the weights are put back."""
    right = weights(hidden_size=width(module))
    for name, weight in (("query", query), ("key", key), ("value", value)):
        getattr(right, name).weight.copy_(weight)
        getattr(right, name).bias.zero_()
    with core.put_back(module):
        core.copy_by_name(right, module)
        return module(x, mask)


def look_up(module: nn.Module) -> Tensor:
    """Every value is a one-hot of its token, so that head 0's output is its row of probabilities."""
    x = torch.zeros(1, 4, C)
    x[0, :, :4] = torch.eye(4)  # head 0 of the values: which token this is
    x[0, :, 4:] = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]])
    keys = torch.zeros(C, C)
    keys[0, 4] = keys[1, 5] = keys[2, 6] = 2.0  # head 0 compares the second half of the vectors
    value = torch.zeros(C, C)
    value[:4, :4] = torch.eye(4)
    return with_weights(module, keys, keys, value, x, additive([[1, 1, 1, 0]]))[0, :, :4]


def width(module: nn.Module) -> int:
    layers = (m for m in module.modules() if isinstance(m, nn.Linear))  # one layer may be for Q, K and V
    return (module.query if hasattr(module, "query") else next(layers)).in_features


@torch.no_grad()
def evaluated(module: nn.Module) -> Tensor:
    module.eval()
    return module(core.seeded("attention input", B, T, width(module)), additive(TOKENS))


@torch.no_grad()
def unpadded(module: nn.Module) -> Tensor:
    module.eval()
    return module(core.seeded("unpadded input", 1, 3, width(module)), additive([[1, 1, 1]]))


@torch.no_grad()
def pads_changed(module: nn.Module) -> Tensor:
    module.eval()
    x = core.seeded("attention input", B, T, width(module))
    other = x.clone()
    other[1, 3:] += core.seeded("other pads", 2, width(module), scale=3.0)
    mask = additive(TOKENS)
    return (module(other, mask) - module(x, mask))[1, :3]


@torch.no_grad()
def trained(module: nn.Module) -> Tensor:
    module.train()
    try:
        return module(core.seeded("attention input", B, T, width(module)), additive(TOKENS))
    finally:
        module.eval()


@torch.no_grad()
def dropped_values(module: nn.Module) -> Tensor:
    """1 if a dropout fell on (token, feature) numbers, as values and outputs are, rather than on probabilities.

    Without pads and with T = 3 there are B·H·T·T = 18 probabilities and B·T·C = 24 features, however they are laid out.
    """
    module.train()
    try:
        DROPPED.clear()
        module(core.seeded("unpadded input", 1, 3, width(module)), additive([[1, 1, 1]]))
        return torch.tensor(float(sum(math.prod(shape) for shape in DROPPED) == 3 * width(module)))
    finally:
        module.eval()


def right_at_base(project: Any, wrong: dict[str, Any]) -> bool:
    """Whether theirs gives what the right one gives at bert-base's sizes, in all probes that fit any size.

    wrong: the outcomes in which theirs differs. False if one is of a function by itself, which has its inputs' sizes.
    """
    if any(name in wrong for name in ALONE):
        return False
    sizes = {"hidden_size": 768, "num_attention_heads": 12, "attention_probs_dropout_prob": P}
    seen = forms(project, hidden_size=768, num_attention_heads=12)
    config = project.config(rate="attention_probs_dropout_prob", **sizes)
    theirs = project.used("BertSelfAttention", seen.seen.get("attention"))(config)
    right = core.fill(weights(**sizes), scale=0.05)
    core.copy_by_name(right, called_as(theirs, seen.attention))
    probes = [probe for probe in PROBES if probe.run is not look_up]
    outcomes = [[record_probe(probe, module) for probe in probes] for module in (right, theirs)]
    pairs = [(a, b) for a, b in zip(*outcomes, strict=True) if "values" in a]
    return all("values" in b and same(b, a, 1e-5, 1e-4) for a, b in pairs)


def reached(
    module: nn.Module, owners: Iterable[str], forward: Callable[[], Tensor], x: Tensor | None = None
) -> dict[str, Tensor]:
    """What a loss's gradient reaches: for each submodule of `owners`, and for the input x, whether it is not zero.

    forward: gives the output, in training. The key's bias is left out: it adds the same to all scores of a row, which
    the softmax does not see. So are parameters that the course's BERT does not have, such as LoRA's factors, of which
    one has no gradient while the other is zero. Whatever was in .grad before is put back.
    """
    inputs = {} if x is None else {"input": [x]}
    parameters = {name: p for name, p in module.named_parameters() if not name.endswith("key.bias")}
    looked_at = {}
    for owner in owners:
        names = [name for name in parameters if name.startswith(f"{owner}.")]
        looked_at[owner] = [parameters[name] for name in [n for n in names if PLAIN.search(n)] or names]
    leaves = [*module.parameters(), *([] if x is None else [x])]
    kept = [(leaf.requires_grad, leaf.grad) for leaf in leaves]
    module.train()
    try:
        with torch.set_grad_enabled(True):
            for leaf in leaves:
                leaf.requires_grad_(True)
                leaf.grad = None
            output = forward()
            if output.requires_grad:
                (output * core.seeded("what a loss makes of it", *output.shape)).sum().backward()
        return {
            name: torch.tensor(all(p.grad is not None and bool(p.grad.abs().max() > 1e-6) for p in those))
            for name, those in {**looked_at, **inputs}.items()
        }
    finally:
        module.eval()
        for leaf, (required, grad) in zip(leaves, kept, strict=True):
            leaf.requires_grad_(required)
            leaf.grad = grad


def _runs(module: nn.Module) -> bool:
    with contextlib.suppress(Exception):
        evaluated(module)
        return True
    return False


def alone(which: int) -> Callable[[nn.Module], dict[str, Tensor]]:
    """A function of queries, keys and values by itself: 0 for `plain_attention`, 1 for `sdpa_attention`."""

    @torch.no_grad()
    def run(module: nn.Module) -> dict[str, Tensor]:
        functions = getattr(module, "functions", None)
        if functions is None:
            raise Absent("attention is no function by itself")
        if which == 0 and not getattr(module, "is_right", False) and _runs(module):
            raise Absent("the whole attention runs, and is looked at as a whole")
        q, k, v = (core.seeded(f"{name} of the heads", B, H, T, D) for name in ("queries", "keys", "values"))
        modes = {"in evaluation": False, "in training": True}
        mask, rate = additive(TOKENS), nn.Dropout(P)
        return {mode: functions[which](q, k, v, mask, rate.train(on)) for mode, on in modes.items()}

    return run


def learns(module: nn.Module) -> dict[str, Tensor]:
    if not hasattr(module, "query"):
        raise Absent("one layer is for Q, K and V, and has the gradients of all three")
    x = core.seeded("attention input", B, T, width(module))
    return reached(module, ("query", "key", "value"), lambda: module(x * 1, additive(TOKENS)), x)


ALONE = ("plain_attention by itself", "sdpa_attention by itself")
PROBES = (
    Probe("the probabilities of one head", look_up,
          "Head 0's values are one-hot, so its output is the rows of probabilities of four tokens, the last a pad."),
    Probe("the output, in evaluation", evaluated,
          "Two random sentences, the second with two pads at its end."),
    Probe("a sentence without pads", unpadded,
          "Three random tokens, nothing masked."),
    Probe("what a pad's content changes", pads_changed,
          "The pads' vectors are changed; shown is by how much the real tokens' outputs move."),
    Probe("the output, in training", trained,
          f"As in evaluation, with dropout on and visible: rate {P} multiplies what it falls on by {core.kappa(P)}."),
    Probe("what the dropout falls on", dropped_values,
          "1 where as many numbers go through dropout as there are features, 0 where as many as probabilities."),
    Probe("what gradients reach", learns,
          "Whether a loss of the output has a gradient in each matrix and the input."),
    Probe(ALONE[0], alone(0),
          "Random queries, keys and values; the second sentence has two pads. Only while forward is not written."),
    Probe(ALONE[1], alone(1), "The same; in training its dropout is visible."),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ mistakes

EQUATION = "softmax(QKᵀ/√D + mask)·V"
DROPPING = "dropout(softmax(QKᵀ/√D + mask))·V"
LEARNING = "∂loss/∂W ≠ 0 for W_Q, W_K and W_V"
TUNED = "Devlin et al. 2019, §3: all parameters are fine-tuned"
AS_BERT = "Devlin et al. 2019, §A.2; the Transformer's dropout on attention probabilities"


def upside_down(scores: Tensor, mask: Tensor, low: float = -1e9) -> Tensor:
    """The additive mask read as one of 1 and 0: its 0, which is a token, is masked."""
    return scores.masked_fill(mask == 0, low)


MISTAKES = (
    *group(EQUATION, SOURCE, ATTENTION,
        ("scores are not divided by √D", {"scale": no_change},
         "Without it scores grow with the width of a head, the softmax saturates and its gradients vanish. Divide the "
         "scores by the square root of the head's width."),
        ("scores are divided by √C, not √D", {"scale": lambda s: s / math.sqrt(C)},
         "D is the width of one head, C/H; with the whole hidden size the attention is too flat. Use "
         "attention_head_size, or key.shape[-1] after the split into heads."),
        ("scores are divided by D, without the root", {"scale": lambda s: s / D},
         "A sum of D products of unit variance has a standard deviation of √D, not D; the attention becomes too flat. "
         "Divide by math.sqrt of the head's width."),
        ("scores are multiplied by √D", {"scale": lambda s: s * math.sqrt(D)},
         "The scaling is there to make scores smaller; multiplied, the softmax picks one token. Divide by √D."),
        ("scores are divided by √H", {"scale": lambda s: s / math.sqrt(H)},
         "What is summed over in QKᵀ is the width of a head, D, not the number of heads. Divide by √D."),
        ("scores are divided by √T", {"scale": lambda s: s / math.sqrt(s.shape[-1])},
         "The last axis of the scores is the sentence's length; take D from the queries or keys before multiplying."),
        ("the mask has the wrong sign",
         ({"mask": lambda s, m: s - m}, {"mask": upside_down}, {"mask": lambda s, m: upside_down(s, m, -math.inf)}),
         "Every token then attends to the pads and to nothing else. The mask is already negative at pads: add it."),
        ("the mask is not used", {"mask": no_change},
         "Real tokens attend to pads, so a sentence's vectors depend on its neighbours in the batch. Add "
         "attention_mask to the scores before the softmax."),
        ("the mask is multiplied, not added", {"mask": lambda s, m: s * m},
         "The mask is 0 at tokens and a large negative number at pads: a product forgets every score. Add it."),
        ("the mask comes after the softmax",
         ({"mask": no_change, "mask probabilities": lambda p, m: p * (m == 0)},
          {"mask": no_change, "mask probabilities": lambda p, m: p + m}),
         "Zeroed after the softmax, the rows no longer sum to 1, and longer padding makes outputs smaller. Add the "
         "mask to the scores, then take the softmax."),
        ("pads are set to zero before the softmax", {"mask": lambda s, m: s.masked_fill(m != 0, 0.0)},
         "A score of 0 is not a probability of 0: e⁰ = 1. Fill with −∞, or add the mask as it is."),
        ("softmax over the wrong axis", {"softmax": lambda s: s.softmax(dim=-2)},
         "Each query's row must sum to 1, over the keys. With (B, H, T, T) scores, queries in rows, that is dim=-1."),
        ("softmax over the heads", {"softmax": lambda s: s.softmax(dim=1)},
         "The heads attend each by itself; the softmax runs over the keys, the last axis: dim=-1."),
        ("softmax over the batch", {"softmax": lambda s: s.softmax(dim=0)},
         "Sentences must not compete with one another; the softmax runs over the keys, the last axis: dim=-1."),
        ("no softmax", {"softmax": no_change},
         "The scores must become probabilities, each row a sum of 1. Apply softmax over the last axis."),
        ("query and key are swapped", {"product": lambda q, k: k @ q.transpose(-2, -1)},
         "Row t of the scores must belong to the query of token t. Compute QKᵀ, not KQᵀ. Mind the order of the "
         "arguments: attention(key, query, value, …)."),
        ("query and value are swapped", {"roles": lambda q, k, v: (v, k, q)},
         "Queries and keys make the scores, and the values are what is averaged. Mind the order of the arguments: "
         "attention(key, query, value, …)."),
        ("key and value are swapped", {"roles": lambda q, k, v: (q, v, k)},
         "Queries and keys make the scores, and the values are what is averaged. Mind the order of the arguments: "
         "attention(key, query, value, …).")),
    *group(EQUATION, HEADS, FORWARD,
        ("Q, K and V are taken in another order than the weights have",
         ({"roles": lambda q, k, v: (k, v, q)}, {"roles": lambda q, k, v: (v, q, k)}),
         "Where one layer makes all three, they come in the order in which its weights were joined: query, key, value. "
         "Unpack them in the same order."),
        ("the key layer is used for the queries", {"roles": lambda q, k, v: (k, k, v)},
         "KKᵀ is symmetric: token s then scores t exactly as t scores s. Use the query layer for Q."),
        ("the query layer is used for the keys", {"roles": lambda q, k, v: (q, q, v)},
         "QQᵀ is symmetric: token s then scores t exactly as t scores s. Use the key layer for K."),
        ("the value layer is used for the queries", {"roles": lambda q, k, v: (v, k, v)},
         "The query layer is never used then, and never trained. Use it for Q."),
        ("the value layer is used for the keys", {"roles": lambda q, k, v: (q, v, v)},
         "The key layer is never used then, and never trained. Use it for K."),
        ("the query layer is used for the values", {"roles": lambda q, k, v: (q, k, q)},
         "The value layer is never used then, and never trained. Use it for V."),
        ("the key layer is used for the values", {"roles": lambda q, k, v: (q, k, k)},
         "The value layer is never used then, and never trained. Use it for V.")),
    *group(EQUATION, SOURCE, ATTENTION,
        ("the probabilities are transposed before they weigh the values",
         {"weigh": lambda p, v: p.transpose(-2, -1) @ v},
         "Row t of the probabilities says where token t looks: P·V, not Pᵀ·V.")),
    *group("MultiHead = Concat(head₁, …, head_H)", HEADS, MERGE,
        ("heads are merged without the transpose", {"merge": lambda x: x.reshape(x.shape[0], x.shape[2], -1)},
         "(B, H, T, D) viewed as (B, T, C) mixes tokens with heads. Go back to (B, T, H, D) first: transpose(1, 2), "
         "contiguous(), then view."),
        ("heads are merged as (D, H), not (H, D)", {"merge": lambda x: x.permute(0, 2, 3, 1).flatten(2)},
         "Concatenated heads stand one after the other: head 0 fills the columns 0 … D−1. Merge from (B, T, H, D).")),
    *group("headᵢ = Attention(QWᵢ, KWᵢ, VWᵢ)", HEADS, PROJECT,
        ("heads are split as (D, H), not (H, D)",
         ({"split": lambda x: x.view(*x.shape[:2], D, H).permute(0, 3, 1, 2)},
          {"split": lambda x: x.view(*x.shape[:2], D, H).permute(0, 3, 1, 2),
           "merge": lambda x: x.permute(0, 2, 3, 1).flatten(2)}),
         "Head 0 is the columns 0 … D−1 of the projection, as the pretrained weights have it. View as (B, T, H, D), "
         "then transpose(1, 2)."),
        ("heads are split without the transpose", {"split": lambda x: x.reshape(x.shape[0], H, x.shape[1], D)},
         "(B, T, C) viewed as (B, H, T, D) mixes tokens with heads. View as (B, T, H, D), then transpose(1, 2)."),
        ("there is only one head",
         ({"split": lambda x: x[:, None], "scale": lambda s: s / math.sqrt(C)}, {"split": lambda x: x[:, None]}),
         "Each head attends by itself with a width of D = C/H. View the projections as (B, T, H, D) first.")),
    *group(DROPPING, AS_BERT, ATTENTION,
        ("no dropout on the attention probabilities", {"drop": no_change},
         "BERT is fine-tuned with dropout on the attention probabilities; without it a model overfits sooner. "
         "self.dropout(probabilities) goes between the softmax and the product with V.")),
    *group(DROPPING, "Srivastava et al. 2014, §4", ATTENTION,
        ("attention dropout is active in evaluation", {"drop": lambda p, training: dropout(p, True)},
         "Predictions then depend on chance. Use the nn.Dropout module, or F.dropout(…, training=self.training)."),
        ("attention dropout is active in evaluation only", {"drop": lambda p, training: dropout(p, not training)},
         "It is the other way round: dropout belongs to training. F.dropout(…, training=self.training).")),
    *group(DROPPING, AS_BERT, ATTENTION,
        ("dropout falls on the scores, before the softmax", {"drop": no_change, "drop scores": dropout},
         "A dropped score becomes 0, which is no lack of attention: e⁰ = 1. Drop probabilities, after the softmax."),
        ("dropout falls on the attention's output, not on the probabilities",
         {"drop": no_change, "drop values": dropout},
         "The layer already drops outputs, after its dense layer. Here it is the probabilities that are dropped, so "
         "that a token is now and then not looked at."),
        ("attention dropout is applied twice",
         ({"drop": lambda p, training: dropout(dropout(p, training), training)}, {"drop values": dropout},
          {"drop scores": dropout}),
         "One dropout, on the probabilities, at the configured rate."),
        ("attention dropout uses the hidden layers' rate", {"drop": lambda p, training: F.dropout(p, 0.2, training)},
         "The config has two rates: attention_probs_dropout_prob for the probabilities, hidden_dropout_prob elsewhere.",
         ("BertSelfAttention.__init__",))),
    *group(EQUATION, HEADS, MERGE,
        ("the residual is added inside the attention", {"after": lambda y, x: y + x},
         "The layer adds its input itself, in add_norm; here it would count twice.")),
    *group(LEARNING, TUNED, ATTENTION,
        ("the gradient is cut off in the attention (detach, .data or no_grad)", {"weigh": lambda p, v: p.detach() @ v},
         "All outputs are right, but the query and key layers get no gradient and never learn. Multiply the "
         "probabilities themselves, without detach()."),
        ("the forward pass runs without gradients (no_grad)", {"out": lambda y: y.detach()},
         "All outputs are right, but nothing in the attention learns. Keep torch.no_grad() for evaluation loops.",
         FORWARD)),
    *group(DROPPING, "Srivastava et al. 2014, §4", FUSED,
        ("sdpa_attention drops out in evaluation", {"fused rate": lambda training: P},
         "The fused kernel does not know of train() and eval(): it drops whenever dropout_p is above 0. Give it the "
         "module's rate in training and 0 in evaluation."),
        ("sdpa_attention never drops out", {"fused rate": lambda training: 0.0},
         "Its dropout_p is 0 unless it is given. In training it is the rate of the dropout module.")),
    *group(EQUATION, SOURCE, FUSED,
        ("sdpa_attention does not use the mask", {"fused mask": lambda mask: None},
         "Real tokens attend to pads. The kernel adds a floating-point attn_mask to the scores.")),
)  # fmt: skip

FILLED = tuple({"mask": lambda s, m, low=low: s.masked_fill(m < 0, low)} for low in (-math.inf, -1e9))

PART = Part("attention", "self-attention", RIGHT, reference, find, PROBES, MISTAKES, also_right=FILLED,
            owns=("BertSelfAttention",), at_base=right_at_base)  # fmt: skip
