"""The whole model: what goes wrong around the layers.

    hidden = layer_L(… layer_1(embed(ids), mask) …, mask)      with the mask (1 − m)·(a large negative number)
    pooled = tanh(W·hidden_[CLS] + b)

(Devlin et al. 2019, §3). The subject is a function like the starter's BertModel: ids and mask (B, T) → a dictionary of
"last_hidden_state" (B, T, C) and "pooler_output" (B, C). The right embeddings and the right layers are put in the
place of theirs, so that what is wrong in those does not spoil this.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.sanity import core, library
from minbert.sanity.core import CannotCheck, Part, Pieces, Probe, group
from minbert.sanity.forms import IDS, MASK, Instead, both, runs_at_base
from minbert.sanity.parts import attention, embeddings, layer
from minbert.sanity.parts.attention import C

LAYERS = 12  # as bert-base has

RIGHT: Pieces = {
    "extended": lambda mask: (1.0 - mask[:, None, None, :].float()) * -10000.0,  # (B, T) → (B, 1, 1, T)
    "layers": lambda layers: list(layers),
    "layer's input": lambda embedded, x: x,
    "own layers": True,  # whether every layer has weights of its own
    "last": lambda embedded, outputs: outputs[-1],
    "pooled from": lambda embedded, outputs: outputs[-1],
    "token": lambda x, mask: x[:, 0],  # [CLS]
    "dense": lambda u, dense: dense(u),
    "squash": torch.tanh,
    "drop": lambda u, training: u,
    "out": lambda x: x,
}


class Model(embeddings.Embeddings):
    """A BERT out of pieces, with the starter's names for its parameters."""

    def __init__(self, pieces: Pieces):
        super().__init__(embeddings.RIGHT)
        self.do = pieces
        self.bert_layers = nn.ModuleList(layer.Layer(layer.RIGHT) for _ in range(LAYERS))
        self.pooler_dense = nn.Linear(C, C)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        do = self.do
        embedded, mask, outputs = self.embed(input_ids), do["extended"](attention_mask), []
        x = embedded
        for one in do["layers"](self.bert_layers):
            x = one(do["layer's input"](embedded, x), mask)
            outputs.append(x)
        first = do["token"](do["pooled from"](embedded, outputs), attention_mask)
        u = do["squash"](do["dense"](first, self.pooler_dense))
        result = {"last_hidden_state": do["last"](embedded, outputs), "pooler_output": do["drop"](u, self.training)}
        return {name: do["out"](x) for name, x in result.items()}


class Whole:
    """The subject: a model, and how many layers with weights of their own it was built with."""

    def __init__(self, model: nn.Module, layers: list):
        self.model, self.layers = model, layers


def reference(pieces: Pieces) -> Whole:
    return Whole(weighted(Model(pieces)), list(range(LAYERS)) if pieces["own layers"] else [0] * LAYERS)


@torch.no_grad()
def weighted(model: nn.Module) -> nn.Module:
    """Seeded weights in a model, so small that the tokens still differ after twelve layers."""
    core.fill(model).eval()
    for name, p in model.bert_layers.named_parameters():
        p.mul_(0.3) if "dense" in name else p.copy_((p - 1) * 0.2 + 1) if name.endswith("norm.weight") else None
    return model


def find(project: Any) -> Whole:
    """Their model with right layers and right embeddings, each called and answering as their own."""
    theirs = project.get("bert", "BertModel")(layer.sizes(project, num_hidden_layers=LAYERS))
    if len(getattr(theirs, "bert_layers", ())) != LAYERS:
        raise CannotCheck(
            f"BertModel has no list `bert_layers` of config.num_hidden_layers = {LAYERS} layers",
            "Keep the starter's names.",
        )
    built = [id(one) for one in theirs.bert_layers]
    seen = attention.seen_in(project)
    change = as_additive if attention.masks_differently(project, seen) else lambda mask: mask
    theirs.bert_layers = nn.ModuleList(
        Layer(layer.CONFIG).stand_for(old, seen.layer, change) for old in theirs.bert_layers
    )

    def embed(*args: Any, **options: Any) -> Tensor:
        given = {**dict(enumerate(args)), **options}
        types = given.get("token_type_ids")
        return library.embed(theirs, given[seen.embed.x], types, layer.P, layer.EPS)

    theirs.embed = embed
    right = weighted(library.BertModel(replace(embeddings.CONFIG, num_hidden_layers=LAYERS)))
    return Whole(core.copy_by_name(right, theirs).eval(), built)


class Layer(Instead, library.Layer):
    """The right layer in the place of one of theirs."""


def as_additive(mask: Tensor) -> Tensor:
    """The course's mask out of theirs, whatever theirs is: the first token of a sentence is no pad."""
    mask = mask[:, None, None, :] if mask.dim() == 2 else mask
    return (mask != mask[..., :1]) * -10000.0


# ------------------------------------------------------------------------------------------------ probes


@torch.no_grad()
def outputs(subject: Whole, ids: list[list[int]] = IDS, training: bool = False) -> dict[str, Tensor]:
    """Both outputs, with the pads' rows of the hidden state left out: nobody reads them."""
    subject.model.train(training)
    try:
        mask = torch.tensor(MASK)
        result = subject.model(torch.tensor(ids), mask)
    finally:
        subject.model.eval()
    if result is None:
        raise core.NotWritten("BertModel.forward returns None")
    last, pooled = both(result)
    return {"last_hidden_state": last[mask.bool()], "pooler_output": pooled}


def hidden(subject: Whole) -> Tensor:
    return outputs(subject)["last_hidden_state"]


def pooled(subject: Whole) -> Tensor:
    return outputs(subject)["pooler_output"]


def moved(subject: Whole) -> Tensor:
    """By how much the pooled vectors move when the first sentence's last word is another one."""
    return outputs(subject, [[2, 5, 7, 5, 9], IDS[1]])["pooler_output"] - outputs(subject)["pooler_output"]


def padded(subject: Whole) -> Tensor:
    """By how much the second sentence's real tokens move when its pads become words."""
    changed = outputs(subject, [IDS[0], [2, 9, 3, 7, 8]])["last_hidden_state"]
    return (changed - outputs(subject)["last_hidden_state"])[-3:]


def trained(subject: Whole) -> dict[str, Tensor]:
    return outputs(subject, training=True)


def twice(subject: Whole) -> Tensor:
    """The same ids twice in evaluation: nothing may differ."""
    return outputs(subject)["pooler_output"] - outputs(subject)["pooler_output"]


def own_layers(subject: Whole) -> Tensor:
    return torch.tensor(float(len(set(subject.layers))))


OWNERS = (
    *embeddings.TABLES, "embed_layer_norm", *(f"bert_layers.{number}" for number in range(LAYERS)), "pooler_dense",
)  # fmt: skip


def learns(subject: Whole) -> dict[str, Tensor]:
    """What the gradient of each output reaches."""
    result = {}
    for which, output in enumerate(("last_hidden_state", "pooler_output")):
        names = attention.reached(
            subject.model, OWNERS, lambda n=which: both(subject.model(torch.tensor(IDS), torch.tensor(MASK)))[n]
        )
        result |= {f"{output} → {name}": value for name, value in names.items()}
    return result


PROBES = (
    Probe("layers with weights of their own", own_layers, f"A model of {LAYERS} layers is built; they are counted."),
    Probe("the last hidden state", hidden, "Two sentences, the second with two pads; rows are the real tokens."),
    Probe("what the pads' words change", padded, "The second sentence's pads become words: no real token may move."),
    Probe("the pooled vector", pooled, "The same two sentences; rows are sentences."),
    Probe("what the last word changes in the pooled vector", moved, "The first sentence's last word is another one."),
    Probe("the same input twice, in evaluation", twice, "The second answer less the first."),
    Probe(
        "both outputs, in training", trained,
        f"With dropout on, made visible: rate {layer.P} multiplies what it falls on by {core.kappa(layer.P)}.",
    ),
    Probe("what gradients reach", learns, "Whether a loss of either output has a gradient in each layer and table."),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ mistakes

STACK = "hidden = layer_L(… layer_1(embed(ids), mask) …, mask)"
MASKING = "mask = (1 − attention_mask)·(−10000), of shape (B, 1, 1, T)"
POOL = "pooled = tanh(W·hidden_[CLS] + b)"
SOURCE = "Devlin et al. 2019, §3"
MASKED = "Vaswani et al. 2017, §3.2.3"
ENCODE = ("BertModel.encode", "BertModel.forward")
FORWARD = ("BertModel.pool", "BertModel.forward")
EXTENDED = ("get_extended_attention_mask", "BertModel.encode")
HUGE = (1e9, torch.finfo(torch.float32).max)  # so large that a score added to it is rounded away


def mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


def shape(change: Callable[[Tensor], Tensor]) -> Pieces:
    """The mask made by another rule from m, (B, 1, 1, T) of 1 and 0."""
    return {"extended": lambda mask: change(mask[:, None, None, :].float())}


MISTAKES = (
    *group(STACK, SOURCE, ENCODE,
        ("every layer has the same weights", {"own layers": False},
         "[BertLayer(config)] * n is one layer n times. Write [BertLayer(config) for _ in range(n)].",
         ("BertModel.__init__",)),
        ("only the first layer is run", {"layers": lambda layers: [layers[0]]},
         "Every layer reads what the one before it gave; the loop must run to its end before `return`."),
        ("the first layer is left out", {"layers": lambda layers: list(layers)[1:]},
         "Every layer of bert_layers is run, in order."),
        ("the first layer is run over and over", {"layers": lambda layers: [layers[0]] * len(layers)},
         "Every layer of bert_layers is run once, in order."),
        ("the layers are run backwards", {"layers": lambda layers: list(layers)[::-1]},
         "Every layer of bert_layers is run once, in order."),
        ("every layer reads the embeddings", {"layer's input": lambda embedded, x: embedded},
         "A layer reads what the one before it gave; the embeddings are what the first one reads."),
        ("the embeddings are added to every layer's input",
         {"layer's input": lambda embedded, x: x if x is embedded else x + embedded},
         "The residuals are inside the layers; between them nothing is added."),
        ("the hidden state is that of the last but one layer", {"last": lambda embedded, outputs: outputs[-2]},
         "last_hidden_state is what the last layer gives."),
        ("the hidden state is the embeddings", {"last": lambda embedded, outputs: embedded},
         "last_hidden_state is what the last layer gives.")),
    *group(MASKING, MASKED, EXTENDED,
        ("the layers get no mask", shape(lambda m: m * 0),
         "Without it real tokens attend to pads, and a sentence's vectors depend on its neighbours in the batch."),
        ("the mask is upside down",
         (shape(lambda m: m * -10000.0), *tuple(shape(lambda m, big=big: m * -big) for big in HUGE)),
         "It must be 0 at tokens and hugely negative at pads; here it hides the tokens and shows the pads. Mind the 1 "
         "− attention_mask."),
        ("the mask stays 1 and 0", shape(lambda m: m),
         "The layers add it to the scores: 1 and 0 hardly matter there. (1 − mask)·(−10000) does."),
        ("the mask has the wrong sign",
         (shape(lambda m: (1 - m) * 10000.0), *tuple(shape(lambda m, big=big: (1 - m) * big) for big in HUGE)),
         "Pads must get a hugely negative number, so that the softmax gives them nothing.")),
    *group(POOL, SOURCE, FORWARD,
        ("no tanh in the pooler", {"squash": lambda u: u},
         "The pooler's weights were trained with it: pooler_af, after pooler_dense."),
        ("ReLU in the pooler", {"squash": torch.relu},
         "The pooler has a tanh: pooler_af."),
        ("GELU in the pooler", {"squash": F.gelu},
         "The pooler has a tanh: pooler_af."),
        ("sigmoid in the pooler", {"squash": torch.sigmoid},
         "The pooler has a tanh: pooler_af."),
        ("tanh is applied twice in the pooler", {"squash": lambda u: u.tanh().tanh()},
         "Once, after pooler_dense."),
        ("no dense layer in the pooler", {"dense": lambda u, dense: u},
         "pooler_dense comes before the tanh."),
        ("tanh before the pooler's dense layer", {"dense": lambda u, dense: dense(u.tanh()), "squash": lambda u: u},
         "First pooler_dense, then the tanh."),
        ("neither dense layer nor tanh in the pooler", {"dense": lambda u, dense: u, "squash": lambda u: u},
         "The first token's vector passes pooler_dense and the tanh."),
        ("the last token is pooled instead of [CLS]", {"token": lambda x, mask: x[:, -1]},
         "[CLS] is the first token, and the last may be a pad: hidden_states[:, 0]."),
        ("the last token before the pads is pooled instead of [CLS]",
         {"token": lambda x, mask: x[torch.arange(len(x)), mask.sum(1) - 1]},
         "[CLS] is the first token: hidden_states[:, 0]."),
        ("the second token is pooled instead of [CLS]", {"token": lambda x, mask: x[:, 1]},
         "[CLS] is the first token: hidden_states[:, 0]."),
        ("the mean of all tokens is pooled, pads and all", {"token": lambda x, mask: x.mean(1)},
         "The pooler reads [CLS] alone, hidden_states[:, 0]; a mean over pads depends on the batch besides."),
        ("the mean of the real tokens is pooled instead of [CLS]", {"token": mean},
         "A fine sentence vector, but not what the pooler's weights were trained on: hidden_states[:, 0]."),
        ("the maximum over the tokens is pooled instead of [CLS]", {"token": lambda x, mask: x.amax(1)},
         "The pooler reads [CLS] alone: hidden_states[:, 0]."),
        ("the embeddings are pooled, not the last layer's output", {"pooled from": lambda embedded, outputs: embedded},
         "Before the layers the vector of [CLS] does not depend on its sentence. Pool last_hidden_state."),
        ("dropout on the pooled vector", {"drop": layer.drop},
         "BERT's pooler has none; a classifier's own dropout comes after it."),
        ("dropout on the pooled vector, active in evaluation", {"drop": lambda u, training: layer.drop(u, True)},
         "BERT's pooler has none, and in evaluation there must be none at all.")),
    *group("∂loss/∂W ≠ 0 for every weight W", attention.TUNED, ("BertModel.forward", "BertModel.encode"),
        ("the forward pass runs without gradients (no_grad)",
         ({"out": lambda x: x.detach()},
          {"last": lambda embedded, outputs: outputs[-1].detach(),
           "pooled from": lambda embedded, outputs: outputs[-1].detach()}),
         "All outputs are right, but fine-tuning changes nothing in BERT. Keep torch.no_grad() for evaluation loops, "
         "and freeze parameters with requires_grad.")),
)  # fmt: skip

PART = Part("model", "whole model and pooler", RIGHT, reference, find, PROBES, MISTAKES,
            owns=("BertModel.encode", "BertModel.forward", "BertModel.__init__"), at_base=runs_at_base)  # fmt: skip
