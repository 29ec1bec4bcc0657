"""The embeddings: what goes wrong before the first layer.

    x = dropout(LN(word + position + token type))

(Devlin et al. 2019, §3, figure 2). The subject is a module like the starter's BertModel; what is looked at is what its
`embed` makes of token ids, and of token types where it takes them. The starter's takes none: there they are all 0.
"""

import contextlib
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from minbert.sanity import core, library
from minbert.sanity.core import DROPPED, Part, Pieces, Probe, group
from minbert.sanity.forms import IDS, Forms, first, runs_at_base
from minbert.sanity.parts import layer
from minbert.sanity.parts.attention import TUNED, C, no_change, reached
from minbert.sanity.parts.layer import EPS, P_ATTENTION, drop, norm, plain_norm, unbiased

TABLES = ("word_embedding", "pos_embedding", "tk_type_embedding")
WORDS, POSITIONS, TYPES = 11, 512, 2
CONFIG = replace(layer.CONFIG, vocab_size=WORDS, max_position_embeddings=POSITIONS, type_vocab_size=TYPES)
TYPE_IDS = [[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]

RIGHT: Pieces = {
    "takes types": True,
    "word": lambda table, ids: table(ids),
    "words' norm": lambda x, ln: x,
    "position": lambda table, ids: table(torch.arange(ids.shape[1])),
    "type": lambda table, ids, types: table(torch.zeros_like(ids) if types is None else types),
    "sum": lambda word, position, kind: word + position + kind,
    "before norm": no_change,
    "norm": norm,
    "drop": drop,
    "out": no_change,
    "extra": False,  # whether a table that BERT does not have is added
}


class Embeddings(nn.Module):
    """The embeddings out of pieces, with the starter's names for their parameters."""

    def __init__(self, pieces: Pieces):
        super().__init__()
        self.pieces = pieces
        self.word_embedding = nn.Embedding(WORDS, C, padding_idx=0)
        self.pos_embedding, self.tk_type_embedding = nn.Embedding(POSITIONS, C), nn.Embedding(TYPES, C)
        self.embed_layer_norm = nn.LayerNorm(C, EPS)

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        do = self.pieces
        embedded = do["sum"](
            do["words' norm"](do["word"](self.word_embedding, input_ids), self.embed_layer_norm),
            do["position"](self.pos_embedding, input_ids),
            do["type"](self.tk_type_embedding, input_ids, token_type_ids),
        )
        x = do["norm"](do["before norm"](embedded, self.training), self.embed_layer_norm)
        return do["out"](do["drop"](x, self.training))


class Embedder:
    """The subject: a BertModel, its way to embed, whether that takes token types, and whether it adds other tables."""

    def __init__(self, model: nn.Module, embed: Callable, takes_types: bool, extra: bool):
        self.model, self.embed, self.takes_types, self.extra = model, embed, takes_types, extra


def reference(pieces: Pieces) -> Embedder:
    module = core.fill(Embeddings(pieces)).eval()
    return Embedder(module, module.embed, pieces["takes types"], pieces["extra"])


def takes_types(function: Callable) -> bool:
    """Whether a function of token ids takes token types as well."""
    return "token_type_ids" in inspect.signature(function).parameters


def find(project: Any) -> Embedder:
    model = project.get("bert", "BertModel")(layer.sizes(project))
    core.copy_by_name(core.fill(library.Embeddings(CONFIG)), model).eval()
    if not hasattr(model, "embed"):
        raise core.CannotCheck("BertModel has no method `embed`", "Keep the starter's names.")
    form = Forms(model).embed

    def embed(input_ids: Tensor, *types: Tensor) -> Tensor:
        if types:
            return first(model.embed(input_ids, token_type_ids=types[0]))
        args, options = form.inputs(input_ids)
        return first(model.embed(*args, **options))

    ids, others = torch.tensor(IDS), [m for name, m in model.named_children() if name not in TABLES]
    tables = [m for other in others for m in other.modules() if isinstance(m, nn.Embedding)]
    extra = False
    if tables:
        with contextlib.suppress(Exception), torch.no_grad():  # what fails here fails in the probes
            before = embed(ids)
            for table in tables:  # from here on they add nothing, so that the rest can be judged
                table.weight.zero_()
            extra = bool((embed(ids) - before).abs().max() > 1e-6)
    return Embedder(model, embed, takes_types(model.embed), extra)


# ------------------------------------------------------------------------------------------------ probes


@torch.no_grad()
def embedded(
    subject: Embedder, scales: dict[str, float] | None = None, types: bool = False, training: bool = False
) -> Tensor:
    """What comes out while the tables are scaled by these numbers; they are put back."""
    model = subject.model
    with core.put_back(model):
        model.train(training)
        for name, scale in (scales or {}).items():
            getattr(model, name).weight.mul_(scale)
        return subject.embed(torch.tensor(IDS), *([torch.tensor(TYPE_IDS)] if types else []))


def only(kept: str) -> Callable[[Embedder], Tensor]:
    """The table `kept` as it is, and the two others zero."""
    return lambda subject: embedded(subject, {name: float(name == kept) for name in TABLES})


def small(subject: Embedder) -> Tensor:
    return embedded(subject, dict.fromkeys(TABLES, 1e-4))


def evaluated(subject: Embedder) -> Tensor:
    return embedded(subject)


def with_types(subject: Embedder) -> dict[str, Tensor]:
    """The embeddings with a pair's token types; of an `embed` that takes none, only that fact."""
    if not subject.takes_types:
        return {"takes token types": torch.tensor(0.0)}
    return {"takes token types": torch.tensor(1.0), "embedded": embedded(subject, types=True)}


def trained(subject: Embedder) -> Tensor:
    return embedded(subject, training=True)


def how_often(subject: Embedder) -> Tensor:
    """How many tensors' worth of numbers, each of the output's size, go through dropout."""
    DROPPED.clear()
    size = embedded(subject, training=True).numel()
    return torch.tensor(sum(map(math.prod, DROPPED)) / size)


def learns(subject: Embedder) -> dict[str, Tensor]:
    return reached(subject.model, (*TABLES, "embed_layer_norm"), lambda: subject.embed(torch.tensor(IDS)))


PROBES = (
    Probe("words alone", only("word_embedding"), "The tables of positions and token types are zero."),
    Probe("positions alone", only("pos_embedding"), "The tables of words and token types are zero."),
    Probe("token types alone", only("tk_type_embedding"), "The tables of words and positions are zero, all types 0."),
    Probe(
        "tables of variance 1e-8", small,
        "The norm's input has a standard deviation of about 1e-4; its output has one of 1 unless ε is too large.",
    ),
    Probe("the embeddings, in evaluation", evaluated, "Two sentences of five ids; no token types given."),
    Probe("token types of a pair", with_types, "The first sentence's last three tokens have type 1."),
    Probe(
        "the embeddings, in training", trained,
        f"Dropout is on and made visible: rate {layer.P} multiplies what it falls on by {core.kappa(layer.P)}.",
    ),
    Probe("how often dropout falls", how_often, "Counted in tensors of the output's size (B, T, C)."),
    Probe("what gradients reach", learns, "Whether a loss of the output has a gradient in each table and in the norm."),
    Probe("whether other tables are added", lambda s: torch.tensor(s.extra),
          "Tables that BERT does not have, as the model starts with them, against the same tables of zeros."),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ mistakes

SUM = "x = dropout(LN(word + position + token type))"
SOURCE = "Devlin et al. 2019, §3, figure 2"
EMBED = ("BertModel.embed", "BertModel.forward")
INIT = ("BertModel.__init__",)


def positions(index: Callable[[Tensor], Tensor]) -> Pieces:
    return {"position": lambda table, ids: table(index(ids))}


MISTAKES = (
    *group(SUM, SOURCE, EMBED,
        ("words are left out", {"sum": lambda w, p, t: p + t},
         "word_embedding(input_ids) is a part of the sum."),
        ("positions are left out", {"sum": lambda w, p, t: w + t},
         "Without them attention cannot tell the order of words. Add pos_embedding of 0 … T−1."),
        ("token types are left out", {"sum": lambda w, p, t: w + p},
         "The weights were trained with them; even where every type is 0, row 0 of tk_type_embedding is added."),
        ("only words are embedded", {"sum": lambda w, p, t: w},
         "Add the embeddings of position and token type as well."),
        ("positions begin at 1", positions(lambda ids: torch.arange(1, ids.shape[1] + 1)),
         "[CLS] stands at position 0: positions are 0 … T−1."),
        ("positions begin at 2, after the padding's", positions(lambda ids: torch.arange(2, ids.shape[1] + 2)),
         "That is RoBERTa's numbering; BERT's positions are 0 … T−1."),
        ("every token has position 0", positions(torch.zeros_like),
         "Positions are 0 … T−1: position_ids[:, :seq_length]."),
        ("positions run backwards", positions(lambda ids: torch.arange(ids.shape[1]).flip(0)),
         "[CLS] stands at position 0: positions are 0 … T−1."),
        ("positions are looked up by token id", positions(lambda ids: ids),
         "pos_embedding takes positions, 0 … T−1, not input_ids."),
        ("token types are 1 where none are given",
         {"type": lambda table, ids, types: table(torch.ones_like(ids) if types is None else types)},
         "A single sentence is sentence A, type 0."),
        ("token types are taken, and ignored", {"type": lambda table, ids, types: table(torch.zeros_like(ids))},
         "The second sentence of a pair has type 1: look up token_type_ids."),
        ("no LayerNorm", {"norm": lambda x, ln: x},
         "The sum is normalised before the first layer: embed_layer_norm."),
        ("LayerNorm of the words alone", {"words' norm": norm, "norm": lambda x, ln: x},
         "The norm is taken of the sum of all three embeddings.")),
    *group("LN(x) = γ·(x − μ)/√(σ² + ε) + β, ε = 1e-12", "Ba et al. 2016, §3; BERT's config: layer_norm_eps", INIT,
        ("LayerNorm eps is 1e-5, not 1e-12", {"norm": lambda x, ln: norm(x, ln, 1e-5)},
         "PyTorch's default is not BERT's. nn.LayerNorm(hidden_size, eps=config.layer_norm_eps).")),
    *group("σ² = Σ(xᵢ − μ)²/C", "Ba et al. 2016, eq. 3", (*INIT, *EMBED),
        ("LayerNorm divides by the unbiased variance", {"norm": unbiased},
         "The variance of C numbers is their mean squared deviation: divide by C, not by C − 1.")),
    *group("LN(x) = γ·(x − μ)/√(σ² + ε) + β", "Ba et al. 2016, eq. 4", EMBED,
        ("LayerNorm without its weight and bias", {"norm": plain_norm},
         "γ and β are trained numbers: F.layer_norm needs them as weight and bias. Call embed_layer_norm itself.")),
    *group(SUM, SOURCE, EMBED,
        ("the sum is multiplied by √C, and not normalised", {"norm": lambda x, ln: x * C**0.5},
         "The original Transformer scales its embeddings; BERT normalises them instead."),
        ("words are multiplied by √C", {"word": lambda table, ids: table(ids) * C**0.5},
         "The original Transformer scales its embeddings; BERT does not.")),
    *group(SUM, "Devlin et al. 2019, §A.2", EMBED,
        ("no dropout on the embeddings", {"drop": no_change},
         "BERT drops a tenth of the embeddings in training: embed_dropout comes last."),
        ("dropout before the LayerNorm", {"drop": no_change, "before norm": drop},
         "The norm comes first, then embed_dropout."),
        ("dropout is applied twice", {"drop": layer.by_p(layer.P, 2)},
         "One dropout, after the norm.")),
    *group(SUM, "Srivastava et al. 2014, §4", EMBED,
        ("dropout is active in evaluation", {"drop": lambda x, training: drop(x, True)},
         "Predictions then depend on chance. Use the module embed_dropout, or F.dropout(…, training=self.training).")),
    *group(SUM, "Devlin et al. 2019, §A.2", INIT,
        ("dropout has the attention's rate", {"drop": layer.by_p(P_ATTENTION)},
         "The config has two rates: hidden_dropout_prob here, attention_probs_dropout_prob in the attention.")),
    *group(SUM, SOURCE, EMBED,
        ("another table is added that BERT's weights do not have", {"extra": True},
         "It begins with random numbers, which disturb every pretrained vector from the first step on. Let it begin "
         "with zeros: nn.init.zeros_(table.weight).")),
    *group("∂loss/∂W ≠ 0 for every table W", TUNED, EMBED,
        ("the forward pass runs without gradients (no_grad)", {"out": lambda x: x.detach()},
         "All outputs are right, but the embeddings never learn. Keep torch.no_grad() for evaluation loops.")),
)  # fmt: skip

PART = Part("embeddings", "embeddings", RIGHT, reference, find, PROBES, MISTAKES,
            also_right=({"takes types": False},), owns=("BertModel.embed",), at_base=runs_at_base)  # fmt: skip
