"""LoRA: fine-tuning a frozen model through small additions to its matrices (Hu et al. 2022).

A matrix W that is fine-tuned moves by some ΔW, and a ΔW of low rank does nearly as well as any. So W stays as it was
pretrained, and what is learned is a product of two thin matrices beside it:

    y = W·x + b + (α/r)·B·A·dropout(x)          W: (out, in)   A: (r, in)   B: (out, r)

A starts random and B at zero, so that the model starts as it was. Rank r = 8 on all of BERT-base is 1.3 million numbers
to train instead of 110 million: their gradients and AdamW's two means shrink as much. No gradient is computed for a
W, and the backward pass stops at the first A.

    add_lora(module, rank, alpha)     make LoRA layers of a module's linear layers, and freeze all else in it
    use_lora(module, name)            a layer can hold several adapters (A, B), one per task, say, and use one at a time
    merge_lora, unmerge_lora          W + (α/r)·B·A in W's place, for answers at the price of the plain model; and back

A state_dict has the pretrained W under the name that it always had, merged or not, and A and B under `lora_A.NAME` and
`lora_B.NAME` beside it. All of this works on any module that calls its `nn.Linear` layers; nothing here knows BERT.
"""

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LoRALinear(nn.Linear):
    """A linear layer, frozen, with adapters beside it. It takes over `linear`'s very weight and bias.

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
            self.lora_A[name] = nn.Parameter(self.weight.new_empty(rank, self.in_features))
            self.lora_B[name] = nn.Parameter(self.weight.new_zeros(self.out_features, rank))
            nn.init.kaiming_uniform_(self.lora_A[name], a=math.sqrt(5))
        self.active = next(iter(self.lora_A))
        self.register_parameter("pretrained", None)  # W, while a merged matrix is in its place
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        y = F.linear(x, self.weight, self.bias)
        if self.pretrained is not None:
            if self.training and torch.is_grad_enabled():
                raise RuntimeError("merged LoRA layers cannot train: call unmerge_lora first")
            return y
        A, B = self.lora_A[self.active], self.lora_B[self.active]
        return y + self.scale * F.linear(F.linear(self.lora_dropout(x), A), B)

    def use(self, name: str):
        """Put the adapter `name` to use. It is a matter of a pointer; W is not touched."""
        if name not in self.lora_A:
            raise KeyError(f"no adapter {name!r}: there are {', '.join(self.lora_A)}")
        if self.pretrained is not None and name != self.active:
            raise RuntimeError(f"adapter {self.active!r} is merged: call unmerge_lora before using {name!r}")
        self.active = name

    @torch.no_grad()
    def merged(self) -> Tensor:
        """W + (α/r)·B·A of the adapter in use."""
        if self.pretrained is not None:
            return self.weight.detach()
        return self.weight + self.scale * (self.lora_B[self.active] @ self.lora_A[self.active])

    def merge(self):
        """Put W + (α/r)·B·A in W's place. A merged layer stays as it is. W is kept, to come back exactly."""
        if self.pretrained is None:
            self.weight, self.pretrained = nn.Parameter(self.merged(), requires_grad=False), self.weight

    def unmerge(self):
        """W comes back to the last bit. A layer that is not merged stays as it is."""
        if self.pretrained is not None:
            weight, self.pretrained = self.pretrained, None
            self.weight = weight

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool):
        """Merged or not, a checkpoint holds the pretrained W, and under its own name alone."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        kept = destination.pop(prefix + "pretrained", None)
        if kept is not None:
            destination[prefix + "weight"] = kept

    def _load_from_state_dict(self, *args):
        self.unmerge()  # what is loaded is W, A and B
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
    """Freeze `module`, and make LoRA layers of its linear layers, in place; returns it.

    targets: the last parts of the layers' names ("query", "value"); None for every linear layer. names: of adapters.
    Raises ValueError, and leaves the module as it was, where a target fits no layer or a layer has LoRA already.
    """
    if any(lora_layers(module)):
        raise ValueError("this module has LoRA layers already")
    names = [names] if isinstance(names, str) else list(names)
    if rank < 1 or not names:
        raise ValueError(f"LoRA needs a rank of at least 1 and a name, not rank {rank} and names {names}")
    linear = {name: child for name, child in module.named_modules() if name and isinstance(child, nn.Linear)}
    there = list(dict.fromkeys(name.rpartition(".")[2] for name in linear))
    targets = there if targets is None else list(targets)
    missing = [target for target in targets if target not in there]
    if missing or not targets:
        raise ValueError(f"no linear layer is called {', '.join(missing)}: there are {', '.join(there) or 'none'}")
    module.requires_grad_(False)
    for name, child in linear.items():
        parent, _, leaf = name.rpartition(".")
        if leaf in targets:
            setattr(module.get_submodule(parent), leaf, LoRALinear(child, rank, alpha, dropout, names))
    return module


def use_lora(module: nn.Module, name: str):
    """Put the adapter `name` of every LoRA layer to use."""
    for layer in lora_layers(module):
        layer.use(name)


def merged_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """The state_dict of the plain model that answers as `module` does: every W + (α/r)·B·A, and no adapters."""
    state = {name: tensor for name, tensor in module.state_dict().items() if ".lora_" not in f".{name}"}
    for name, layer in module.named_modules():
        if isinstance(layer, LoRALinear):
            state[f"{name}.weight" if name else "weight"] = layer.merged()
    return state


def merge_lora(module: nn.Module):
    """Merge every LoRA layer's adapter in use into its W."""
    for layer in lora_layers(module):
        layer.merge()


def unmerge_lora(module: nn.Module):
    """Take the adapters out of the W's again, exactly."""
    for layer in lora_layers(module):
        layer.unmerge()
