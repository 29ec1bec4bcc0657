"""Small models with LoRA, and how their tests compare tensors: to the bit, or to the last digits."""

import pytest
import torch
from torch import Tensor, nn

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.errors import UserError
from minbert.lora import LoRALinear, add_lora
from minbert.multitask import MultitaskBert
from minbert.optimizer import AdamW
from tests.techniques.models import NAMES, T, V, batch_of, loss_of

C = 8

CONFIG = BertConfig(
    vocab_size=V, hidden_size=C, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
    max_position_embeddings=T, initializer_range=0.3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip

IDS = torch.randint(1, V, (3, T), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * T, [1] * 4 + [0] * (T - 4), [1] * 2 + [0] * (T - 2)])
QUERY_VALUE = ["query", "value"]


def make_bert(dtype: torch.dtype = torch.float64, seed: int = 0) -> BertModel:
    torch.manual_seed(seed)
    return BertModel(CONFIG).to(dtype).eval()


def make_layers(dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Sequential:
    """Linear layers of several shapes, one of them without a bias; 5 numbers in, 4 out."""
    torch.manual_seed(seed)
    layers = [nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6, bias=False), nn.Tanh(), nn.Linear(6, 4)]
    return nn.Sequential(*layers).to(dtype)


def randomize(module: nn.Module, seed: int = 1) -> nn.Module:
    """Put random numbers into every A and B, as if the module had been trained."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if ".lora_" in f".{name}":
                p.copy_(0.3 * torch.randn(p.shape, generator=random))
    return module


def make_lora(rank=2, alpha=3.0, dtype=torch.float64, names=("all",), **options) -> BertModel:
    """A BERT with LoRA whose A's and B's are random."""
    return randomize(add_lora(make_bert(dtype), rank, alpha, names=names, **options)).eval()


def answer(bert: BertModel) -> Tensor:
    """All of BERT's outputs for three sentences, as one row of numbers."""
    output = bert(IDS, MASK)
    return torch.cat([output["last_hidden_state"][MASK == 1].flatten(), output["pooler_output"].flatten()])


def bits(tensors: dict[str, Tensor] | nn.Module) -> dict[str, bytes]:
    """The bytes of some tensors, or of all in a module's state_dict."""
    if isinstance(tensors, nn.Module):
        tensors = tensors.state_dict()
    return {name: tensor.detach().contiguous().view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items()}


def base_bits(module: nn.Module) -> dict[str, bytes]:
    """The bytes of all tensors but A's and B's."""
    return {name: value for name, value in bits(module).items() if ".lora_" not in f".{name}"}


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bits({"": a}) == bits({"": b})


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12):
    """Assert equality within `tolerance` times the largest number."""
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(1.0, b.abs().max().item()))


def reached(output: Tensor, module: nn.Module) -> set[str]:
    """The names of the parameters to which a backward pass from `output` would bring a gradient."""
    names = {id(p): name for name, p in module.named_parameters()}
    result, seen, todo = set(), set(), [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [before for before, _ in node.next_functions]
            result |= {names[id(node.variable)]} if hasattr(node, "variable") else set()
    return result


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def additions(module: nn.Module) -> set[str]:
    """The names of the A's and B's."""
    return {name for name in module.state_dict() if ".lora_" in f".{name}"}


def layer_names(module: nn.Module) -> set[str]:
    return {name for name, child in module.named_modules() if isinstance(child, LoRALinear)}


def train(module: nn.Module, ask, steps: int) -> AdamW:
    """Some steps of AdamW over all parameters, with a weight decay that changes each parameter that it reaches."""
    optimizer = AdamW(module.parameters(), lr=0.01, weight_decay=0.1)
    module.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (ask(module) - 1).square().sum().backward()
        optimizer.step()
    module.eval()
    return optimizer


# ------------------------------------------------------------------------------------------ models of several tasks


def options(targets=None, dropout=0.0, per_task=False) -> dict:
    """The settings of LoRA, in `MultitaskBert(additions={"lora": …})`."""
    return {"rank": 2, "alpha": 3.0, "dropout": dropout, "targets": targets, "per_task": per_task}


def make_model(bert: BertModel | None = None, **changes) -> MultitaskBert:
    """A BERT with LoRA that has random A's and B's, under heads that all have weights. changes: of `options`."""
    bert = bert or make_bert(torch.float32)
    model = MultitaskBert(bert, NAMES, heads={"sts": "hadamard"}, additions={"lora": options(**changes)})
    return randomize(model).eval()


def answers(model: MultitaskBert) -> list[Tensor]:
    """The outputs for a batch of every task."""
    return [model(batch_of(task)) for task in model.tasks]


def all_same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(same, a, b))


def trained(bert: BertModel, steps: int = 3, **changes) -> MultitaskBert:
    """A model whose additions and heads have trained a little, as in a run."""
    model = make_model(bert, **changes).train()
    optimizer = AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(steps):
        for task in NAMES:
            optimizer.zero_grad()
            loss_of(model, batch_of(task)).backward()
            optimizer.step()
    return model.eval()


def refuse(function, path, *args) -> str:
    """The one line in which `function` refuses the file; it begins with the file's name."""
    with pytest.raises(UserError) as caught:
        function(path, *args)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


def outputs_for(bert: BertModel, texts: tuple[Tensor, Tensor]) -> Tensor:
    """All of BERT's outputs for ids and mask, as one row of numbers."""
    with torch.no_grad():
        result = bert.eval()(*texts)
    return torch.cat([result["last_hidden_state"].flatten(), result["pooler_output"].flatten()])
