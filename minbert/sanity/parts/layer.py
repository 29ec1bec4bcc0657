"""A layer: what goes wrong between the attention and the output of a Transformer block.

    x' = LN(x + dropout(dense(attention(x))))              post-LN: the norm comes after the residual
    x″ = LN(x' + dropout(dense(GELU(dense(x')))))          with the exact GELU, and ε = 1e-12 in both norms

(Vaswani et al. 2017, §3.1, §3.3 and §5.4; Devlin et al. 2019). The subject is a module like the starter's BertLayer,
with the right attention put in the place of its `self_attention`, so that a wrong attention does not spoil it.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.config import BertConfig
from minbert.sanity import core, library
from minbert.sanity.core import DROPPED, CannotCheck, Mistake, Part, Pieces, Probe, group
from minbert.sanity.forms import Instead, called_as, runs_at_base
from minbert.sanity.parts import attention
from minbert.sanity.parts.attention import B, C, H, T, no_change

WIDE = 12  # of the feed-forward network
P, P_ATTENTION = 0.2, attention.P
EPS = 1e-12
CONFIG = BertConfig(
    hidden_size=C, num_attention_heads=H, intermediate_size=WIDE, hidden_dropout_prob=P,
    attention_probs_dropout_prob=P_ATTENTION, layer_norm_eps=EPS, num_hidden_layers=1,
)  # fmt: skip


def norm(x: Tensor, layer: nn.LayerNorm, eps: float = EPS) -> Tensor:
    return F.layer_norm(x, (C,), layer.weight, layer.bias, eps)


def drop(x: Tensor, training: bool) -> Tensor:
    return F.dropout(x, P, training)


def second(x: Tensor, y: Tensor) -> Tensor:
    return y


# Each sub-layer closes with add_norm; 1 is the attention's, 2 the feed-forward's.
CLOSE: Pieces = {
    "enter": lambda x, ln: x,  # what the sub-layer reads
    "before dense": no_change,
    "dense": lambda y, dense: dense(y),
    "drop": drop,
    "before residual": lambda y, ln: y,
    "residual": lambda x, y: x + y,
    "after residual": no_change,
    "norm": norm,
    "after norm": no_change,
}
RIGHT: Pieces = {
    **{f"{k} {name}": piece for k in (1, 2) for name, piece in CLOSE.items()},
    "arguments": lambda x, y: (x, y),  # what add_norm gets after the attention: its residual, and what it closes
    "norms": lambda first, second: (first, second),
    "thinks about": second,  # (layer's input, x') → what the feed-forward reads
    "second residual from": second,
    "activation": F.gelu,
    "thought": no_change,
    "out": no_change,
}


class Layer(nn.Module):
    """An encoder layer out of pieces, with the starter's names for its parameters."""

    def __init__(self, pieces: Pieces):
        super().__init__()
        self.pieces = pieces
        self.self_attention = attention.Attention(attention.RIGHT)
        self.attention_dense, self.attention_layer_norm = nn.Linear(C, C), nn.LayerNorm(C, EPS)
        self.interm_dense, self.out_dense = nn.Linear(C, WIDE), nn.Linear(WIDE, C)
        self.out_layer_norm = nn.LayerNorm(C, EPS)

    def close(self, k: int, x: Tensor, y: Tensor, dense: nn.Linear, ln: nn.LayerNorm) -> Tensor:
        def do(name: str) -> Callable:
            return self.pieces[f"{k} {name}"]

        y = do("dense")(do("before dense")(y, self.training), dense)
        y = do("before residual")(do("drop")(y, self.training), ln)
        x = do("norm")(do("after residual")(do("residual")(x, y), self.training), ln)
        return do("after norm")(x, self.training)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        do, x = self.pieces, hidden_states
        ln1, ln2 = do["norms"](self.attention_layer_norm, self.out_layer_norm)
        looked = self.self_attention(do["1 enter"](x, ln1), attention_mask)
        residual, looked = do["arguments"](x, looked)
        attended = self.close(1, residual, looked, self.attention_dense, ln1)
        read = do["2 enter"](do["thinks about"](x, attended), ln2)
        thought = do["thought"](do["activation"](self.interm_dense(read)), self.training)
        return do["out"](self.close(2, do["second residual from"](x, attended), thought, self.out_dense, ln2))


def reference(pieces: Pieces) -> Layer:
    return core.fill(Layer(pieces)).eval()


def sizes(project: Any, **others: int) -> Any:
    """A config of theirs with the sizes and rates of this file."""
    return project.config(
        hidden_size=C, num_attention_heads=H, intermediate_size=WIDE, hidden_dropout_prob=P,
        attention_probs_dropout_prob=P_ATTENTION, layer_norm_eps=EPS, **others,
    )  # fmt: skip


def find(project: Any) -> nn.Module:
    """Their layer, called as their own model calls it, with the right attention in it."""
    seen = attention.seen_in(project)
    theirs = project.used("BertLayer", seen.seen.get("layer"))(sizes(project))
    if not isinstance(getattr(theirs, "self_attention", None), nn.Module):
        raise CannotCheck("BertLayer has no module `self_attention`", "Keep the starter's names.")
    theirs.self_attention = Attention(CONFIG).stand_for(theirs.self_attention, seen.attention)
    return called_as(core.copy_by_name(core.fill(library.Layer(CONFIG)), theirs).eval(), seen.layer)


class Attention(Instead, library.Attention):
    """The right attention in the place of theirs."""


# ------------------------------------------------------------------------------------------------ probes


@torch.no_grad()
def changed(layer: nn.Module, weights: dict[str, Tensor | float], x: Tensor, training: bool = False) -> Tensor:
    """The output while these parameters are these numbers; they are put back."""
    with core.put_back(layer):
        layer.train(training)
        for name, p in layer.named_parameters():
            if name in weights:
                p.copy_(torch.as_tensor(weights[name]).expand_as(p))
        return layer(x, attention.additive(attention.TOKENS))


def hidden() -> Tensor:
    return core.seeded("layer input", B, T, C)


NO_ATTENTION = {"attention_dense.weight": 0.0, "attention_dense.bias": 0.0}
NO_THOUGHT = {"out_dense.weight": 0.0, "out_dense.bias": 0.0}


def still(layer: nn.Module) -> Tensor:
    """Both sub-layers give zero: the output is LN(LN(x))."""
    return changed(layer, {**NO_ATTENTION, **NO_THOUGHT}, hidden())


def small(layer: nn.Module) -> dict[str, Tensor]:
    """Inputs of variance about 1e-8, so that a norm with ε = 1e-5 makes them small instead of 1."""
    norm, bias = "attention_layer_norm.weight", "attention_layer_norm.bias"
    first = changed(layer, {**NO_ATTENTION, **NO_THOUGHT}, hidden() * 1e-4)
    after = changed(layer, {norm: 1e-4, bias: 0.0, **NO_THOUGHT}, hidden())
    return {"first norm": first[0], "second norm": after[0]}


def thinking(layer: nn.Module) -> Tensor:
    """Only the activation decides: x' = 0, and the feed-forward's inner numbers lie between -3.2 and -2."""
    silent = {"attention_layer_norm.weight": 0.0, "attention_layer_norm.bias": 0.0, "interm_dense.weight": 0.0}
    bias = {"interm_dense.bias": torch.linspace(-3.2, -2.0, WIDE), "out_dense.bias": 0.0}
    return changed(layer, {**silent, **bias}, hidden())[0, 0]


def without_attention(layer: nn.Module) -> Tensor:
    return changed(layer, NO_ATTENTION, hidden())


def without_thought(layer: nn.Module) -> Tensor:
    return changed(layer, NO_THOUGHT, hidden())


def evaluated(layer: nn.Module) -> Tensor:
    return changed(layer, {}, hidden())


def trained(layer: nn.Module) -> Tensor:
    return changed(layer, {}, hidden(), training=True)


def first_trained(layer: nn.Module) -> Tensor:
    """The feed-forward gives zero: the dropout before the first residual alone decides."""
    return changed(layer, NO_THOUGHT, hidden(), training=True)


def second_trained(layer: nn.Module) -> Tensor:
    return changed(layer, NO_ATTENTION, hidden(), training=True)


def how_often(layer: nn.Module) -> Tensor:
    """How many (B, T, C) tensors' worth of numbers go through dropout, the attention's own not counted."""
    DROPPED.clear()
    changed(layer, {}, hidden(), training=True)
    return torch.tensor((sum(map(math.prod, DROPPED)) - B * H * T * T) / (B * T * C))


OWNERS = (
    "self_attention.query", "self_attention.key", "self_attention.value", "attention_dense", "attention_layer_norm",
    "interm_dense", "out_dense", "out_layer_norm",
)  # fmt: skip


def learns(layer: nn.Module) -> dict[str, Tensor]:
    x = hidden()
    return attention.reached(layer, OWNERS, lambda: layer(x * 1, attention.additive(attention.TOKENS)), x)


PROBES = (
    Probe("both sub-layers silent", still, "attention_dense and out_dense are zero: what is left is LN(LN(x))."),
    Probe(
        "inputs of variance 1e-8", small,
        "A norm's input has a standard deviation of 1e-4; its output has one of 1 unless ε is too large.",
    ),
    Probe(
        "the activation alone", thinking,
        "The first norm gives 0, the inner numbers are −3.2 … −2, where GELU, its tanh form and ReLU differ most.",
    ),
    Probe("the attention silent", without_attention, "attention_dense is zero: LN(y + FFN(y)) with y = LN(x)."),
    Probe("the feed-forward silent", without_thought, "out_dense is zero: LN(LN(x + dense(attention(x))))."),
    Probe("the output, in evaluation", evaluated, "Two random sentences, the second with two pads."),
    Probe(
        "the feed-forward silent, in training", first_trained,
        f"With dropout on, made visible: rate {P} multiplies by {core.kappa(P)}; out_dense is zero.",
    ),
    Probe(
        "the attention silent, in training", second_trained,
        f"With dropout on, made visible: rate {P} multiplies by {core.kappa(P)}; attention_dense is zero.",
    ),
    Probe("the output, in training", trained, "As in evaluation, with all dropouts on and visible."),
    Probe("how often hidden dropout falls", how_often, "Counted in tensors of the layer's size (B, T, C)."),
    Probe("what gradients reach", learns, "Whether a loss of the output has a gradient in each weight and the input."),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ mistakes

CLOSING = "LN(x + dropout(dense(sublayer(x))))"
THINKING = "FFN(x) = dense(GELU(dense(x)))"
RESIDUAL = "Vaswani et al. 2017, §3.1"
DROPOUT = "Vaswani et al. 2017, §5.4"
FFN = "Vaswani et al. 2017, §3.3; Hendrycks & Gimpel 2016"
ADD_NORM = ("BertLayer.add_norm", "BertLayer.forward")
FORWARD = ("BertLayer.forward",)
INIT = ("BertLayer.__init__",)


def unbiased(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + EPS).sqrt() * layer.weight + layer.bias


def plain_norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    return F.layer_norm(x, (C,), eps=EPS)


def by_p(rate: float, often: int = 1) -> Callable[[Tensor, bool], Tensor]:
    def dropout(x: Tensor, training: bool) -> Tensor:
        for _ in range(often):
            x = F.dropout(x, rate, training)
        return x

    return dropout


def either(equation: str, source: str, where: tuple[str, ...], *rows: tuple) -> tuple[Mistake, ...]:
    """A mistake in add_norm shows in both sub-layers; code without add_norm may have it in one of them alone."""

    def at(which: tuple[int, ...], pieces: Pieces) -> Pieces:
        return {f"{k} {piece}": value for k in which for piece, value in pieces.items()}

    places = {"": (1, 2), " (after the attention only)": (1,), " (after the feed-forward only)": (2,)}
    return tuple(
        mistake
        for name, pieces, why, *rest in rows
        for only, which in places.items()
        for forms in [tuple(at(which, form) for form in (pieces if isinstance(pieces, tuple) else (pieces,)))]
        for mistake in group(equation, source, where, (name + only, forms, why, *rest))
    )


MISTAKES = (
    *either(CLOSING, RESIDUAL, ADD_NORM,
        ("LayerNorm before the sub-layer, not after the residual", {"enter": norm, "norm": lambda x, ln: x},
         "That is pre-LN, as in GPT-2; BERT's weights were trained with the norm after the residual. Give the "
         "sub-layer x itself and normalise the sum."),
        ("LayerNorm before the residual is added", {"before residual": norm, "norm": lambda x, ln: x},
         "The norm is taken of the sum, LN(x + …), not of the sub-layer's output alone."),
        ("no LayerNorm", {"norm": lambda x, ln: x},
         "The sum of input and sub-layer must be normalised; without it the numbers grow from layer to layer.")),
    *either("LN(x) = γ·(x − μ)/√(σ² + ε) + β, ε = 1e-12", "Ba et al. 2016, §3; BERT's config: layer_norm_eps", INIT,
        ("LayerNorm eps is 1e-5, not 1e-12", {"norm": lambda x, ln: norm(x, ln, 1e-5)},
         "PyTorch's default is not BERT's. nn.LayerNorm(hidden_size, eps=config.layer_norm_eps).")),
    *either("σ² = Σ(xᵢ − μ)²/C", "Ba et al. 2016, eq. 3", (*INIT, *ADD_NORM),
        ("LayerNorm divides by the unbiased variance", {"norm": unbiased},
         "The variance of a layer's C numbers is their mean squared deviation: divide by C, not by C − 1. torch.var "
         "needs unbiased=False.")),
    *either("LN(x) = γ·(x − μ)/√(σ² + ε) + β", "Ba et al. 2016, eq. 4", ADD_NORM,
        ("LayerNorm without its weight and bias", {"norm": plain_norm},
         "γ and β are trained numbers: F.layer_norm needs them as weight and bias. Call the nn.LayerNorm module "
         "itself.")),
    *either(CLOSING, RESIDUAL, ADD_NORM,
        ("no residual", {"residual": second},
         "The sub-layer's input must be added to its output before the norm, or gradients and information are lost.")),
    *either(CLOSING, DROPOUT, ADD_NORM,
        ("no dropout in the sub-layer", {"drop": no_change},
         "Fine-tuning drops a tenth of each sub-layer's output; without it a model overfits sooner. "
         "dropout(dense(output)), before the residual is added."),
        ("dropout after the residual is added", {"drop": no_change, "after residual": drop},
         "The residual must pass untouched: LN(x + dropout(dense(…))). Dropping the sum drops the input as well."),
        ("dropout after the LayerNorm", {"drop": no_change, "after norm": drop},
         "The residual and the norm must not be dropped: LN(x + dropout(dense(…)))."),
        ("dropout before the dense layer", {"drop": no_change, "before dense": drop},
         "The dense layer's output is what is dropped, bias and all: dropout(dense(output)).")),
    *either(CLOSING, "Srivastava et al. 2014, §4", ADD_NORM,
        ("dropout is active in evaluation", {"drop": lambda x, training: drop(x, True)},
         "Predictions then depend on chance. Use the nn.Dropout modules, or F.dropout(…, training=self.training).")),
    *either(CLOSING, DROPOUT, ADD_NORM,
        ("dropout is applied twice", ({"drop": by_p(P, 2)}, {"before dense": drop}),
         "One dropout a sub-layer, on the dense layer's output."),
        ("dropout has the attention's rate", {"drop": by_p(P_ATTENTION)},
         "The config has two rates: hidden_dropout_prob here, attention_probs_dropout_prob for the probabilities.",
         INIT)),
    *group("MultiHead = Concat(head₁, …, head_H)·W^O", "Vaswani et al. 2017, §3.2.2", ADD_NORM,
        ("the attention's dense layer is not used", {"1 dense": lambda y, dense: y},
         "The merged heads pass through one more linear layer, W^O. add_norm applies dense_layer to the output.")),
    *group(CLOSING, RESIDUAL, ADD_NORM,
        ("the dense layer is applied to the input, not to the sub-layer's output", {"arguments": lambda x, y: (y, x)},
         "add_norm(input, output, …): input is the residual and is left alone; output passes dense and dropout."),
        ("the attention's residual is its own output", {"arguments": lambda x, y: (y, y)},
         "The residual is what the attention read, hidden_states.", FORWARD)),
    *group("x″ = LN(x' + dropout(FFN(x')))", RESIDUAL, FORWARD,
        ("the second residual is taken from the layer's input", {"second residual from": lambda x, y: x},
         "The feed-forward's residual is what it read, the attention's normalised output, not the layer's input."),
        ("the feed-forward reads the layer's input", {"thinks about": lambda x, y: x},
         "It must read what the attention's add_norm gave."),
        ("the feed-forward and its residual read the layer's input",
         {"thinks about": lambda x, y: x, "second residual from": lambda x, y: x},
         "The attention is computed and thrown away. The feed-forward reads what the attention's add_norm gave.")),
    *group(CLOSING, RESIDUAL, FORWARD,
        ("the two LayerNorms are swapped", {"norms": lambda a, b: (b, a)},
         "attention_layer_norm closes the attention, out_layer_norm the feed-forward."),
        ("attention_layer_norm is used twice", {"norms": lambda a, b: (a, a)},
         "attention_layer_norm closes the attention, out_layer_norm the feed-forward."),
        ("out_layer_norm is used twice", {"norms": lambda a, b: (b, b)},
         "attention_layer_norm closes the attention, out_layer_norm the feed-forward.")),
    *group("GELU(x) = x·Φ(x)", FFN, FORWARD,
        ("GELU by its tanh approximation", {"activation": lambda x: F.gelu(x, approximate="tanh")},
         "BERT's weights were trained with the exact one; GPT-2's with the approximation. F.gelu(x)."),
        ("ReLU instead of GELU", {"activation": F.relu},
         "BERT uses the exact GELU: F.gelu(x), the starter's interm_af."),
        ("x·σ(1.702x) instead of GELU", {"activation": lambda x: x * torch.sigmoid(1.702 * x)},
         "That is its sigmoid approximation; BERT has the exact GELU: F.gelu(x)."),
        ("SiLU instead of GELU", {"activation": F.silu},
         "BERT uses the exact GELU: F.gelu(x)."),
        ("tanh instead of GELU", {"activation": torch.tanh},
         "BERT uses the exact GELU: F.gelu(x).")),
    *group(THINKING, FFN, FORWARD,
        ("no activation in the feed-forward", {"activation": no_change},
         "Two linear layers with nothing between them are one linear layer. Apply GELU after interm_dense."),
        ("GELU is applied twice", {"activation": lambda x: F.gelu(F.gelu(x))},
         "Once, between interm_dense and out_dense."),
        ("GELU after the second dense layer",
         ({"2 dense": lambda y, dense: F.gelu(dense(y)), "activation": no_change},
          {"2 dense": lambda y, dense: F.gelu(dense(y))}),
         "The activation stands between the two dense layers.")),
    *group("∂loss/∂W ≠ 0 for every weight W", attention.TUNED, FORWARD,
        ("the forward pass runs without gradients (no_grad)", {"out": lambda x: x.detach()},
         "All outputs are right, but neither this layer nor those below it learn. Keep torch.no_grad() for evaluation "
         "loops.")),
)  # fmt: skip

PART = Part(
    "layer", "encoder layer", RIGHT, reference, find, PROBES, MISTAKES, owns=("BertLayer",), at_base=runs_at_base
)
