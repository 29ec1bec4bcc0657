"""LoRA: fine-tuning a frozen model through small additions to its matrices (Hu et al. 2022).

Fine-tuning changes a matrix W by some ΔW, and a ΔW of low rank works nearly as well as any. So LoRA keeps the
pretrained W and learns a product of two thin matrices beside it:

    y = W·x + b + (α/r)·B·A·dropout(x)        W: out × in, A: r × in, B: out × r

A starts random and B at zero, so the outputs are the same at first. (With both at zero neither would ever move, since
the gradient of one is a product with the other.) The factor α/r keeps the size of the addition when r changes, so that
the learning rate need not change with it. The paper adapts the queries' and values' matrices alone; here, as in
Mo & Ho's report, every linear layer of BERT is adapted unless `targets` names some. A starts as in the authors' code;
the paper says Gaussian.

Rank r = 8 on all of BERT-base means 1.3 million numbers to train instead of 110 million; their gradients and AdamW's
two means shrink as much: with minilm they take 3.9 MiB instead of 260 (tests/benchmarks/RESULTS.md). No gradient is
computed for a W, and the backward pass stops at the first A. The heads of a frozen minilm score .617 overall without
additions and .682 with r = 8; training all of BERT scores .676 (one seed; minbert/recipes/RESULTS.md, "What they
score").

    add_lora(module, rank, alpha)     replaces a module's linear layers by LoRA layers, and freezes all else in it
    use_lora(module, name)            chooses the adapter (an A and a B) in every layer, for example that of a task
    merge_lora, unmerge_lora          put W + (α/r)·B·A in W's place, so that the outputs cost no more; and put W back

A state_dict has the pretrained W under its usual name, merged or not, and A and B under `lora_A.NAME` and
`lora_B.NAME` beside it. All of this works on any module that calls its `nn.Linear` layers; nothing here needs a BERT.
"""

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.parser import Flag, at_least, names, positive, rate

FLAGS = {
    "lora": [
        Flag("--lora_rank", "freeze BERT and train rank-R additions to its matrices; 0 does not; see minbert/lora.py",
             at_least(int, 0, most=4096), 0, "R", example="2"),
        Flag("--lora_alpha", "scale α of the additions, of which α/R counts (default: 16)", positive, None, "A",
             needs="--lora_rank", example="32"),
        Flag("--lora_dropout", "dropout of the additions' input (default: 0)", rate, None, "P", needs="--lora_rank",
             example="0.5"),
        Flag("--lora_targets", "which linear layers: query,value or others (default: all)", names, None, "LIST",
             needs="--lora_rank", example="query,value"),
        Flag("--lora_per_task", "additions of each task's own, on one BERT", None, False, needs="--lora_rank",
             scripts="m"),
    ]
}  # fmt: skip


class LoRALinear(nn.Linear):
    """A frozen linear layer with adapters beside it. It keeps the weight and bias of `linear` without a copy.

    rank: r. alpha: α; the adapter's share in the output is scaled by α/r. dropout: of the adapter's input.
    names: of the adapters, each with its own A and B; the first one is in use.
    """

    def __init__(
        self, linear: nn.Linear, rank: int, alpha: float, dropout: float = 0.0, names: Iterable[str] = ("all",)
    ):
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.scale = alpha / rank
        self.lora_dropout = nn.Dropout(dropout)
        self.lora_A, self.lora_B = nn.ParameterDict(), nn.ParameterDict()
        for name in names:
            self.lora_A[name] = nn.Parameter(self.weight.new_empty(rank, self.in_features))  # (r, in)
            self.lora_B[name] = nn.Parameter(self.weight.new_zeros(self.out_features, rank))  # (out, r)
            nn.init.kaiming_uniform_(self.lora_A[name], a=math.sqrt(5))
        self.active = next(iter(self.lora_A))
        self.register_parameter("pretrained", None)  # holds W while a merged matrix is in its place
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out). Raises RuntimeError for a merged layer in training."""
        y = F.linear(x, self.weight, self.bias)  # (…, out): W·x + b
        if self.pretrained is not None:
            if self.training and torch.is_grad_enabled():
                raise RuntimeError("merged LoRA layers cannot train: call unmerge_lora first")
            return y
        A, B = self.lora_A[self.active], self.lora_B[self.active]
        down = self.scale * F.linear(self.lora_dropout(x), A)  # (…, r): (α/r)·A·dropout(x), scaled where it is thin
        return y + F.linear(down, B)  # (…, out): W·x + b + (α/r)·B·A·dropout(x)

    def use(self, name: str):
        """Use the adapter `name` from now on. This only sets a name; W is not touched."""
        if name not in self.lora_A:
            raise KeyError(f"no adapter {name!r}: there are {', '.join(self.lora_A)}")
        if self.pretrained is not None and name != self.active:
            raise RuntimeError(f"adapter {self.active!r} is merged: call unmerge_lora before using {name!r}")
        self.active = name

    @torch.no_grad()
    def merged(self) -> Tensor:
        """W + (α/r)·B·A of the adapter in use; returns (out, in)."""
        if self.pretrained is not None:
            return self.weight.detach()
        return self.weight + self.scale * (self.lora_B[self.active] @ self.lora_A[self.active])

    def merge(self):
        """Put W + (α/r)·B·A in W's place, and keep W for `unmerge`. A layer that is merged already stays as it is."""
        if self.pretrained is None:
            self.weight, self.pretrained = nn.Parameter(self.merged(), requires_grad=False), self.weight

    def unmerge(self):
        """Put W back, bit for bit. A layer that is not merged stays as it is."""
        if self.pretrained is not None:
            weight, self.pretrained = self.pretrained, None
            self.weight = weight

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool):
        """Save the pretrained W under its own name, whether the layer is merged or not."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight = destination.pop(prefix + "pretrained", None)
        if weight is not None:
            destination[prefix + "weight"] = weight

    def _load_from_state_dict(self, *args):
        self.unmerge()  # the state has W, A and B
        super()._load_from_state_dict(*args)


def lora_layers(module: nn.Module) -> Iterator[LoRALinear]:
    """The LoRA layers in a module."""
    return (layer for layer in module.modules() if isinstance(layer, LoRALinear))


def add_lora(
    module: nn.Module,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    targets: Iterable[str] | None = None,
    names: Iterable[str] = ("all",),
) -> nn.Module:
    """Freeze `module` and replace its linear layers by LoRA layers, in place; returns it.

    targets: the last parts of the layers' names ("query", "value"); None for every linear layer. names: of adapters.
    Raises ValueError, and leaves the module as it was, where a target fits no layer, a layer has LoRA already, or a
    layer's owner reads its weight without calling it (nn.MultiheadAttention).
    """
    if any(lora_layers(module)):
        raise ValueError("this module has LoRA layers already")
    names = [names] if isinstance(names, str) else list(names)
    if rank < 1 or not names:
        raise ValueError(f"LoRA needs a rank of at least 1 and a name, not rank {rank} and names {names}")
    linear = {name: child for name, child in module.named_modules() if name and isinstance(child, nn.Linear)}
    choices = list(dict.fromkeys(name.rpartition(".")[2] for name in linear))
    targets = choices if targets is None else list(targets)
    missing = [target for target in targets if target not in choices]
    if not linear:
        raise ValueError("this module has no linear layers inside")
    if missing or not targets:
        start = f"no linear layer is called {', '.join(missing)}" if missing else "targets is empty"
        raise ValueError(f"{start}: there are {', '.join(choices)}")
    for name in linear:
        parent, _, leaf = name.rpartition(".")
        if leaf in targets and isinstance(module.get_submodule(parent), nn.MultiheadAttention):
            raise ValueError(
                f"{name}: nn.MultiheadAttention reads this layer's weight and does not call it, so an addition would "
                "do nothing; choose other layers with targets"
            )
    for child in module.modules():
        if isinstance(child, nn.TransformerEncoderLayer):
            child.activation_relu_or_gelu = 0  # else its shortcut in evaluation reads the weights past our layers
    module.requires_grad_(False)
    for name, child in linear.items():
        parent, _, leaf = name.rpartition(".")
        if leaf in targets:
            setattr(module.get_submodule(parent), leaf, LoRALinear(child, rank, alpha, dropout, names))
    return module


def use_lora(module: nn.Module, name: str):
    """Let every LoRA layer use its adapter `name`."""
    for layer in lora_layers(module):
        layer.use(name)


def merged_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """The state_dict of the plain model with the same outputs: W + (α/r)·B·A for every W, and no adapters."""
    state = {name: tensor for name, tensor in module.state_dict().items() if ".lora_" not in f".{name}"}
    for name, layer in module.named_modules():
        if isinstance(layer, LoRALinear):
            state[f"{name}.weight" if name else "weight"] = layer.merged()
    return state


def merge_lora(module: nn.Module):
    """Put W + (α/r)·B·A of the adapter in use in W's place, in every LoRA layer."""
    for layer in lora_layers(module):
        layer.merge()


def unmerge_lora(module: nn.Module):
    """Put every pretrained W back, bit for bit."""
    for layer in lora_layers(module):
        layer.unmerge()


class LoRAAddition:
    """What `--lora_rank` adds to BERT; a row of ADDITIONS (`additions.py` says what a row has)."""

    freezes_bert = True

    @staticmethod
    def apply(
        bert: nn.Module,
        tasks: Iterable[str],
        rank: int,
        alpha: float = 16.0,
        dropout: float = 0.0,
        targets: Iterable[str] | None = None,
        per_task: bool = False,
    ):
        add_lora(bert, rank, alpha, dropout, targets, tasks if per_task else ("all",))

    @staticmethod
    def use(bert: nn.Module, task: str):
        for layer in lora_layers(bert):
            if task in layer.lora_A:
                layer.use(task)

    @staticmethod
    def plain(bert: nn.Module) -> dict[str, Tensor]:
        return merged_state_dict(bert)


ADDITIONS = {"lora": LoRAAddition}
