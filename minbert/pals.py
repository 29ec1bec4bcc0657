"""PALs and low-rank layers: each task has a small layer of its own beside each layer of a BERT that all tasks share.

Tasks that share all weights must agree on all of them. Without layers of their own, minilm scores .713 on STS; with
PALs .766, and with low-rank layers .758 (one seed; minbert/recipes/RESULTS.md, "Additions to BERT"). Stickland & Murray
(2019) give each task a few weights of its own: beside a BERT layer with input h there is a task-specific function TS,
which is added before the last LayerNorm,

    h' = LN(ffn_out + attn_out + TS(h))
    TS(h) = V_D·g(V_E·h)                           V_E: from C to a smaller size        V_D: from the size back to C

    projected attention layer (PAL)    g is multi-head self-attention without an output matrix; a task has one V_E and
                                       one V_D for all its layers, and the q, k, v of each layer
    low-rank layer                     g is the identity, or GELU; a task has a V_E and a V_D in every layer

V_D starts at zero, so that a BERT with added layers has the same outputs as before, bit for bit. Only the layers of the
task in use (`use_task`) are computed, and the others get no gradient. For BERT-base a PAL of size 204 has
1.82 million parameters a task and low-rank layers of size 100 have 1.85 million, which is 1.7% of BERT each.

(The report of Zhang, Pan & Tao prints TS inside the attention's input; its code has it beside the layer, as here. The
PALs authors' code has a GELU after V_D and their paper has none; this file follows the paper.)
"""

import dataclasses
from collections.abc import Callable, Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from minbert.bert import BertLayer, BertModel, BertSelfAttention
from minbert.parser import Flag, at_least

FLAGS = {
    "adapter": [
        Flag("--adapter", "give each task a layer of its own beside every layer of BERT; see minbert/pals.py",
             default="none", choices=("none", "pal", "low_rank"), example="pal"),
        Flag("--adapter_size", "inner width of the added layers (default: 204 for pal and 100 for low_rank, times "
             "BERT's width / 768)", at_least(int, 1, most=4096), None, "N", needs="--adapter", example="8"),
        Flag("--adapter_activation", "activation inside a low-rank layer (default: identity)",
             choices="pals.ACTIVATIONS", needs="--adapter low_rank", example="gelu"),
    ]
}  # fmt: skip
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"identity": lambda x: x, "gelu": F.gelu}  # g of a low-rank layer


class PAL(nn.Module):
    """V_D·attention(V_E·h). encode, decode: V_E and V_D, which a task's layers share."""

    def __init__(self, encode: nn.Linear, attention: BertSelfAttention, decode: nn.Linear):
        super().__init__()
        self.encode, self.attention, self.decode = encode, attention, decode

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) and the additive mask (B, 1, 1, T) → (B, T, C)."""
        inner = self.attention(self.encode(hidden_states), mask)  # (B, T, size): g(V_E·h)
        return self.decode(inner)  # (B, T, C): V_D·g(V_E·h)


class LowRank(nn.Module):
    """V_D·g(V_E·h)."""

    def __init__(self, encode: nn.Linear, g: Callable[[Tensor], Tensor], decode: nn.Linear):
        super().__init__()
        self.encode, self.g, self.decode = encode, g, decode

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) → (B, T, C). Each token is computed by itself, so the mask is not used."""
        inner = self.g(self.encode(hidden_states))  # (B, T, size): g(V_E·h)
        return self.decode(inner)  # (B, T, C)


class AdaptedLayer(BertLayer):
    """A BERT layer with another function of its input beside it: h' = LN(ffn_out + attn_out + TS(h)).

    It keeps the modules of `layer`, under the same names; TS is `adapter`.
    """

    def __init__(self, layer: BertLayer, adapter: nn.Module):
        nn.Module.__init__(self)
        for name, module in layer.named_children():
            self.add_module(name, module)
        self.adapter = adapter
        self.train(layer.training)

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) and the additive mask (B, 1, 1, T) → (B, T, C)."""
        attended = self.attend(hidden_states, mask)  # (B, T, C)
        ffn = F.gelu(self.interm_dense(attended))  # (B, T, M): TS is not part of its input
        attended = attended + self.adapter(hidden_states, mask)  # (B, T, C): attn_out + TS(h)
        return self.add_norm(attended, ffn, self.out_dense, self.out_dropout, self.out_layer_norm)


class TaskTable(nn.ModuleDict):
    """The added layers beside one BERT layer, one for each task; `active` names the one in use."""

    active: str

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        return self[self.active](hidden_states, mask)


def add_pals(bert: BertModel, tasks: Iterable[str], size: int | None = None) -> BertModel:
    """Add a projected attention layer to every layer of `bert` for every task, in place; returns bert.

    size: the inner width, a multiple of BERT's number of heads; None for the published 204 to BERT-base's 768,
    in proportion.
    """
    C, H = bert.config.hidden_size, bert.config.num_attention_heads
    size = pal_size(C, H) if size is None else size
    if size < 1 or size % H:
        raise ValueError(f"a PAL's size must be a multiple of BERT's {H} heads, not {size}")
    inner = dataclasses.replace(bert.config, hidden_size=size)

    def layers(task: str) -> list[PAL]:
        encode, decode = _pair(bert, size)  # one pair for all layers
        pals = [PAL(encode, _fresh(bert, BertSelfAttention(inner)), decode) for _ in bert.bert_layers]
        for pal, layer in zip(pals, bert.bert_layers, strict=True):
            pal.attention.attend = layer.self_attention.attend
        return pals

    return _add(bert, tasks, layers)


def add_low_rank(
    bert: BertModel, tasks: Iterable[str], size: int | None = None, activation: str = "identity"
) -> BertModel:
    """Add a low-rank layer to every layer of `bert` for every task, in place; returns bert.

    size: the rank; None for the published 100 to BERT-base's 768, in proportion. activation: g, from `ACTIVATIONS`.
    """
    size = low_rank_size(bert.config.hidden_size) if size is None else size
    if size < 1 or activation not in ACTIVATIONS:
        raise ValueError(f"size must be at least 1 and activation one of {', '.join(ACTIVATIONS)}; not {size} and "
                         f"{activation}")  # fmt: skip

    def layers(task: str) -> list[LowRank]:
        pairs = [_pair(bert, size) for _ in bert.bert_layers]
        return [LowRank(encode, ACTIVATIONS[activation], decode) for encode, decode in pairs]

    return _add(bert, tasks, layers)


ADAPTERS: dict[str, Callable[..., BertModel]] = {"pal": add_pals, "low_rank": add_low_rank}


class AdapterAddition:
    """What `--adapter` adds to BERT; a row of ADDITIONS (`additions.py` says what a row has)."""

    freezes_bert = False
    plain = None  # a BERT with layers of a task's own is no plain BERT

    @staticmethod
    def apply(bert: BertModel, tasks: Iterable[str], adapter: str, **options):
        ADAPTERS[adapter](bert, tasks, **options)

    @staticmethod
    def use(bert: BertModel, task: str):
        use_task(bert, task)


ADDITIONS = {"adapter": AdapterAddition}


def use_task(bert: BertModel, task: str):
    """Use the added layers of `task` from now on, beside every layer of BERT."""
    for layer in bert.bert_layers:
        if isinstance(layer, AdaptedLayer):
            layer.adapter.active = task


def pal_size(C: int, H: int) -> int:
    """204 for C = 768, in proportion for others, as the nearest multiple of the H heads."""
    return max(1, round(204 * C / 768 / H)) * H


def low_rank_size(C: int) -> int:
    """100 for C = 768, in proportion for others."""
    return max(1, round(100 * C / 768))


def _pair(bert: BertModel, size: int) -> tuple[nn.Linear, nn.Linear]:
    """V_E (C → size) with BERT's fresh weights, and V_D (size → C) with zeros."""
    C = bert.config.hidden_size
    decode = nn.Linear(size, C)
    nn.init.zeros_(decode.weight)
    nn.init.zeros_(decode.bias)
    return _fresh(bert, nn.Linear(C, size)), decode


def _fresh(bert: BertModel, module: nn.Module) -> nn.Module:
    return module.apply(bert._init_weights)


def _add(bert: BertModel, tasks: Iterable[str], layers: Callable[[str], list[nn.Module]]) -> BertModel:
    """Put the modules that `layers` makes for each task, one a BERT layer, beside BERT's layers."""
    tasks = [tasks] if isinstance(tasks, str) else list(tasks)
    if not tasks:
        raise ValueError("layers of a task's own need a task")
    if any(isinstance(layer, AdaptedLayer) for layer in bert.bert_layers):
        raise ValueError("this BERT has layers added already")
    modules = {task: layers(task) for task in tasks}
    weight = bert.word_embedding.weight
    for i, layer in enumerate(bert.bert_layers):
        table = TaskTable({task: modules[task][i] for task in tasks}).to(weight.device, weight.dtype)
        bert.bert_layers[i] = AdaptedLayer(layer, table)
    use_task(bert, tasks[0])
    return bert
